"""Training of the spotter: signals with truth in, an int8 temporal net out."""
