"""Face photos: reading them, labelling them with the teacher, training detector and landmark net."""
