"""Clips with known truth: a face photo on the ICT face model, moved in three dimensions."""
