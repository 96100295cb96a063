"""Finding one face, placing 56 landmarks on it, and following it from frame to frame."""
