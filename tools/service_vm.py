"""Proves the service with its real unit files under a real systemd and kernel, in a virtual machine.

    python -m tools.service_vm

A wheel is built here and installed there, with the files of systemd/, and the service is started on a virtual camera
and simulated GPIO. What a container cannot show is looked at: the real Picamera2 and lgpio inside the sandbox, the
device list, limits of memory, processor and tasks in cgroup v2, the address filter, and the hardware watchdog, which in
the end resets a machine whose first process has died.

Ends with one JSON object; exit code 1 if something is not as it must be.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tools.vm.image import REPOSITORY, VmError
from tools.vm.machine import run
from tools.vm.pictures import load_photos, write_pictures

PYTHON = "/opt/microedge/bin/python"
WATCHDOG = ("i6300esb",)
TIMEOUT_S = 1500
FROZEN_S = (4, 60)
"""When the watchdog may reset the machine: its time is 14 s, of which up to half had gone by."""
ALLOWED = ("/dev/null", "/dev/gpiochip0", "/dev/dma_heap/system")
REFUSED = ("/dev/vda", "/dev/kmsg", "/dev/rtc0", "/dev/ttyS0", "/dev/udmabuf", "/dev/watchdog0")
"""Root may open all of them; in the service's cgroup not even root may."""


def main() -> int:
    """Build the wheel, run the machine, judge what it found; give the exit code."""
    report: dict[str, Any] = {}
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="microedge-service-") as name:
        folder = Path(name)
        write_pictures(folder / "pictures", load_photos(None, 1), 8)
        try:
            wheel = build_wheel(folder / "wheels")
            files = {"pictures": folder / "pictures", wheel.name: wheel}
            script = f"set -e\n{PYTHON} -m pip install --no-index --no-deps /payload/{wheel.name}\n"
            script += f"{PYTHON} /payload/guest/service.py {','.join(ALLOWED)} {','.join(REFUSED)}"
            outcome = run(script, files, timeout_s=TIMEOUT_S, systemd=True, devices=WATCHDOG)
            report = outcome.results | {"wall_s": outcome.wall_s}
            failures += _judged(outcome.results)
            script = f"{PYTHON} /payload/guest/service_reset.py"
            reset = run(script, timeout_s=TIMEOUT_S, systemd=True, devices=WATCHDOG, resets=True)
            waited_s = [int(word) for word in re.findall(r"frozen for (\d+) s", reset.text)]
            report["reset"] = reset.results["reset"] | {
                "after_s": max(waited_s, default=0),
                "wall_s": reset.wall_s,
            }
            if not FROZEN_S[0] <= report["reset"]["after_s"] <= FROZEN_S[1]:
                failures.append(f"a machine whose first process has died: {report['reset']}")
        except VmError as error:
            failures.append(str(error))
    for failure in failures:
        print(f"FAILED {failure}", flush=True)
    print(json.dumps({"proof": "service_vm", "passed": not failures, **report}))
    return 1 if failures else 0


def build_wheel(folder: Path) -> Path:
    """Build this repository's wheel.

    Raises:
        VmError: it cannot be built.
    """
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(REPOSITORY)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise VmError(f"the wheel cannot be built: {done.stderr.strip()[-2000:]}")
    (wheel,) = folder.glob("*.whl")
    return wheel


def _judged(found: dict[str, Any]) -> list[str]:
    failures = []

    def expect(what: str, value: Any, good: bool) -> None:
        if not good:
            failures.append(f"{what}: {value}")

    service = found["service"]
    expect("state", service["state"], service["state"] == "active")
    expect(
        "status line", service["status"], "frames/s" in service["status"] or "degraded" in service["status"]
    )
    expect("restarts", service["restarts"], service["restarts"] == 0)
    expect("capture LED while frames are read", service["capture_led"], service["capture_led"] == 1)
    expect("frames were counted", service["health"], service["health"].get("frames", 0) > 0)
    expect("a face was found", service["health"], bool(service["health"].get("face_seen")))
    for device, outcome in found["devices"].items():
        expect(
            f"{device} in the service's cgroup",
            outcome,
            outcome == ("open" if device in ALLOWED else "refused"),
        )
    for device, outcome in found["devices_outside"].items():
        expect(f"{device} outside of it", outcome, outcome == "open")
    for name, limit in found["limits"].items():
        expect(name, limit, limit["enforced"])
    expect(
        "address filter",
        found["addresses"],
        found["addresses"] == {"outside": "refused", "localhost": "open"},
    )
    watchdog = found["watchdog"]
    expect("hardware watchdog", watchdog, watchdog["driver"] == "i6300ESB timer" and watchdog["armed"])
    expect(
        "after stop",
        found["stop"],
        found["stop"]["result"] == "success" and found["stop"]["capture_led"] == 0,
    )
    return failures


if __name__ == "__main__":
    sys.exit(main())
