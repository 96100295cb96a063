"""A small Debian with real systemd in a container, for what only a service manager can show.

`rootfs` builds a pristine Debian once, `layer` puts a throw-away layer over one, and `boot` starts it under
systemd-nspawn with systemd as its first process, runs a script in it and gives what that printed. `missing` says what
this machine lacks for that. It needs root and the Debian packages mmdebstrap and systemd-container.
"""

from tools.container.machine import ContainerError, boot
from tools.container.root import Layer, layer, missing, rootfs

__all__ = ["ContainerError", "Layer", "boot", "layer", "missing", "rootfs"]
