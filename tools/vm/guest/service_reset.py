"""Lets the first process die under the watchdog's drop-in; the machine must then reset itself. Prints only before."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

shutil.copytree("/payload/source/systemd/system.conf.d", "/etc/systemd/system.conf.d", dirs_exist_ok=True)
subprocess.run(["systemctl", "daemon-reload"], check=True)
armed = any("/dev/watchdog" in os.readlink(each) for each in Path("/proc/1/fd").iterdir())
print("RESULT", json.dumps({"reset": {"armed": armed}}), flush=True)
# It catches the signal and freezes, as after any crash of its own.
os.kill(1, 11)
time.sleep(600)
