"""`microedge` with the virtual camera, at PACE_HZ of the environment, and for gpiozero on a Raspberry Pi."""

import json
import os
import sys
from pathlib import Path

import gpio_sim
import virtual_camera

from edge.__main__ import main

virtual_camera.install(Path("/payload/pictures"), float(os.environ["PACE_HZ"]))
gpio_sim.pretend_pi()
try:
    sys.exit(main())
finally:
    if virtual_camera.VirtualPicamera2.newest is not None and "COUNTS" in os.environ:
        Path(os.environ["COUNTS"]).write_text(json.dumps(virtual_camera.VirtualPicamera2.newest.counts()))
