"""Replays a clip and gives its events, with what ran it."""

import json
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("ai-edge-litert", "numpy", "opencv-python-headless", "av", "gpiozero", "paho-mqtt")


def main() -> None:
    """Arguments: those of `microedge replay`; the last one is the file of events."""
    subprocess.run([sys.executable, "-m", "edge", "replay", *sys.argv[1:]], check=True)
    events = [json.loads(line) for line in Path(sys.argv[-1]).read_text().splitlines()]
    versions = {name: version(name) for name in PACKAGES}
    print(
        "RESULT",
        json.dumps({"replay": {"python": platform.python_version(), "versions": versions, "events": events}}),
    )


main()
