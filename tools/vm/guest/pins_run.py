"""`microedge run` on the virtual camera with simulated GPIO: LED and camera go together, whatever happens.

Independent of microedge: the kernel's level of the line of the capture LED, and whether the process holds frame
buffers of the camera.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpio_sim

CAPTURE, RED, PRIVACY, IDENTIFY = 17, 22, 5, 6
START_S = 180.0
COMMAND = [
    sys.executable, "/payload/guest/virtual_microedge.py", "run",
    *(
        word
        for setting in (
            "camera.rate_hz=10", "mqtt.enabled=false", "device.id=vm", "outbox.folder=/tmp/state",
            f"switches.privacy_pin={PRIVACY}", "switches.privacy_contact=normally_closed",
            f"switches.identify_pin={IDENTIFY}",
        )
        for word in ("--set", setting)
    ),
]  # fmt: skip
ENVIRONMENT = {**os.environ, "PACE_HZ": "10", "RUNTIME_DIRECTORY": "/run/microedge"}


def main() -> None:
    """Go through a day: private at the start, opened, closed, identified, stopped, killed; then lines that are held."""
    bank = gpio_sim.Bank()
    Path("/run/microedge").mkdir()
    found: dict[str, Any] = {}
    found["switch"] = switch(bank)
    print("switch", json.dumps(found["switch"]), flush=True)
    found["busy"] = busy()
    print("busy", json.dumps(found["busy"]), flush=True)
    found["unwritable"] = unwritable()
    print("unwritable", json.dumps(found["unwritable"]), flush=True)
    found["forbidden"] = forbidden()
    print("forbidden", json.dumps(found["forbidden"]), flush=True)
    print("RESULT", json.dumps(found))


def switch(bank: gpio_sim.Bank) -> dict[str, Any]:
    """Work the switch, the button and the signals of a service that runs in a folder it cannot write to."""
    service = subprocess.Popen(COMMAND, env=ENVIRONMENT, cwd="/payload", stderr=subprocess.PIPE, text=True)
    log: list[str] = []
    threading.Thread(target=lambda: log.extend(service.stderr or ()), daemon=True).start()
    watch = Watch(bank, service.pid)
    steps: dict[str, Any] = {}

    def step(name: str, condition: Callable[[], bool], limit_s: float = 60.0) -> None:
        begun_s = time.monotonic()
        while not condition():
            if time.monotonic() - begun_s > limit_s or service.poll() is not None:
                steps[name] = f"no, after {limit_s:g} s; {''.join(log)[-600:]}"
                return
            time.sleep(0.02)
        steps[name] = round(time.monotonic() - begun_s, 2)

    # An open contact of a normally closed switch asks for privacy; so the camera must never have been opened.
    step("starts private", lambda: any("privacy switch: on" in line for line in log), START_S)
    time.sleep(3)
    steps["camera while private at start"] = gpio_sim.holds_camera(service.pid) or bank.level(CAPTURE)
    bank.close_contact(PRIVACY, True)
    step("switch off opens the camera", lambda: watch.is_open and bool(bank.level(CAPTURE)), START_S)
    time.sleep(5)
    bank.close_contact(PRIVACY, False)
    step("switch on closes the camera", lambda: not watch.is_open and not bank.level(CAPTURE))
    bank.close_contact(PRIVACY, True)
    step("and off opens it again", lambda: watch.is_open and bool(bank.level(CAPTURE)))
    for bounce in (False, True) * 4:
        bank.close_contact(PRIVACY, bounce)
        time.sleep(0.01)
    step("bounces end open", lambda: watch.is_open and bool(bank.level(CAPTURE)))
    flashes = watch.flashes
    bank.close_contact(IDENTIFY, True)
    time.sleep(0.1)
    bank.close_contact(IDENTIFY, False)
    step("the button makes the event LED blink", lambda: watch.flashes >= flashes + 3)
    steps["working directory stays"] = os.readlink(f"/proc/{service.pid}/cwd")
    steps["pipes left"] = [
        str(path) for root in ("/tmp", "/run", "/root") for path in Path(root).rglob(".lgd-nfy*")
    ]
    service.send_signal(signal.SIGTERM)
    steps["exit code"] = service.wait(60)
    steps["capture LED after the end"] = bank.level(CAPTURE)
    watch.stop()
    return {"steps": steps, "samples": watch.samples, "camera_open_while_dark": watch.violations}


class Watch:
    """Looks again and again whether the camera is open while its LED is dark."""

    def __init__(self, bank: gpio_sim.Bank, pid: int) -> None:
        self._bank, self._pid = bank, pid
        self.samples = self.violations = self.flashes = 0
        self.is_open = False
        self._stopping = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()

    def _run(self) -> None:
        was_lit = 0
        while not self._stopping.wait(0.005):
            try:
                before = gpio_sim.holds_camera(self._pid)
                lit = self._bank.level(CAPTURE)
                self.is_open = gpio_sim.holds_camera(self._pid)
            except OSError:
                return
            self.samples += 1
            # Between two looks that both saw buffers the camera was open all the time.
            self.violations += before and self.is_open and not lit
            red = self._bank.level(RED)
            self.flashes += red and not was_lit
            was_lit = red


def busy() -> dict[str, Any]:
    """Start while another process has two of our lines."""
    with subprocess.Popen(["gpioset", "--chip", "gpiochip0", "17=1", "24=1"]) as holder:
        time.sleep(1)
        done = run(COMMAND, ENVIRONMENT)
        holder.kill()
    return {"exit_code": done.returncode, "says": _said(done.stderr)}


def unwritable() -> dict[str, Any]:
    """Start where lgpio can make its pipe nowhere."""
    environment = {**ENVIRONMENT, "RUNTIME_DIRECTORY": "/payload", "TMPDIR": "/payload", "PACE_HZ": "10"}
    script = (
        "mount -t tmpfs -o ro tmpfs /tmp; mount -t tmpfs -o ro tmpfs /var/tmp; mount -t tmpfs -o ro tmpfs /usr/tmp; "
        'exec "$@"'
    )
    done = run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *COMMAND, "--set", "outbox.folder=/run/state"],
        environment,
    )
    return {"exit_code": done.returncode, "says": _said(done.stderr)}


def forbidden() -> dict[str, Any]:
    """Start as a user who may not open the chip."""
    folder = Path("/tmp/nobody")
    folder.mkdir()
    shutil.chown(folder, "nobody")
    user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    environment = {**ENVIRONMENT, "RUNTIME_DIRECTORY": str(folder)}
    done = run([*user, *COMMAND, "--set", f"outbox.folder={folder}"], environment)
    return {"exit_code": done.returncode, "says": _said(done.stderr)}


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=environment, cwd="/payload", capture_output=True, text=True, timeout=START_S, check=False
    )


def _said(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("microedge:")] or text.splitlines()[-5:]


main()
