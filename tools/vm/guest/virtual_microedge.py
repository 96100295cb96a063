"""`microedge` with the virtual camera, at PACE_HZ of the environment, and for gpiozero on a Raspberry Pi."""

import os
import sys
from pathlib import Path

import gpio_sim
import virtual_camera

from edge.__main__ import main

virtual_camera.install(Path("/payload/pictures"), float(os.environ["PACE_HZ"]))
gpio_sim.pretend_pi()
sys.exit(main())
