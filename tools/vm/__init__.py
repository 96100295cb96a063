"""A whole computer in emulation, for what a container cannot show: camera and GPIO stacks, kernel limits, a watchdog.

`image` builds its disk once and caches it, `machine` boots it and gives back what ran there has printed, `recipe` holds
what is done to the disk, `guest` what runs inside. Users are `tools.camera_vm`, `tools.pins_vm` and `tools.service_vm`.
"""
