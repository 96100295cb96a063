"""What `microedge bench` measures with: the yardstick, prepared frames, and the machine's name."""
