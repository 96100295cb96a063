"""Lets the first process die under the watchdog's drop-in, and counts the seconds until the machine resets itself."""

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
begun_s = time.monotonic()
while True:
    time.sleep(1)
    # A panic would end this at once; the watchdog ends it when its time is over.
    print(f"frozen for {time.monotonic() - begun_s:.0f} s", flush=True)
