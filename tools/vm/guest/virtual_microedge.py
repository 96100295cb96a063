"""`microedge` whose picamera2 finds the virtual camera. Environment: PACE_HZ, the rate of its sensor."""

import os
import sys
from pathlib import Path

import virtual_camera

from edge.__main__ import main

virtual_camera.install(Path("/payload/pictures"), float(os.environ["PACE_HZ"]))
sys.exit(main())
