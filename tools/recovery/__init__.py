"""Proves that the device comes back by itself from whatever befalls it, under real systemd, time after time."""
