"""What tests/test_container.py has done inside of the container; the last line that it prints is one JSON object."""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.container.device import PASSWORD, PYTHON, SOURCE
from tools.container.inside import OBSERVER_PORT, TrialError, Unit, retained, run, until
from tools.delivery.subscriber import Subscriber

Found = dict[str, Any]

CONFIG = Path("/etc/microedge/config.toml")
SERVICE, FAULT = Unit("microedge.service"), Unit("microedge-fault.service")
TOPIC = "microedge/trial"
PINS = "[Service]\nEnvironment=GPIOZERO_PIN_FACTORY=mock\n"
"""A container has no pins."""
OTHERS = (
    "/opt/trial/", "/var/log/journal/", "/var/lib/mosquitto/", "/var/log/mosquitto/", "/var/lib/systemd/",
    "/run/log/", "/run/systemd/", "/run/credentials/", "/run/mosquitto/", "/run/utmp", "/var/log/wtmp",
    str(CONFIG),
)  # fmt: skip
"""What systemd, the broker and this trial write meanwhile."""
SYNCHRONISED = Path("/run/systemd/timesync/synchronized")
GROUPS = ("video", "gpio", "plugdev")
SANDBOXED = f"""\
import sys
sys.path.insert(0, "{SOURCE}")
import ctypes, os, sqlite3, ssl
import av, cv2, gpiozero, jsonschema_rs, numpy, paho.mqtt.client
from edge.inference.cpu import installed_engines
from edge.inference.manifest import load_model
from edge.inference.models import NAMES
assert ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 7)() == 7
for group in {GROUPS}:
    # As the device nodes of camera, pins and Coral are.
    assert open("/opt/trial/for-" + group).read() == group
for path in ("/etc/shadow", "/etc/microedge/credentials/password", "/root"):
    assert not os.access(path, os.R_OK), path
for path in ("/", "/etc/microedge/config.toml", "/opt/microedge", "/usr", "/home", "/var/lib", "/run"):
    assert not os.access(path, os.W_OK), path
for path in ("/var/lib/microedge", "/run/microedge", "/tmp"):
    assert os.access(path, os.W_OK), path
for engine in installed_engines():
    for name in NAMES:
        model = load_model(name, engine=engine, threads=2)
        model.run(numpy.zeros(model.input.shape, numpy.int8))
print("ran on:", *installed_engines())
"""


def sandbox() -> Found:
    """Run the whole interpreter stack in the unit's own sandbox."""
    program = Path("/opt/trial/sandboxed.py")
    program.write_text(SANDBOXED)
    for group in GROUPS:
        path = program.with_name(f"for-{group}")
        path.write_text(group)
        shutil.chown(path, "root", group)
        path.chmod(0o660)
    SERVICE.drop_in(
        "sandbox", f"[Unit]\nOnFailure=\n[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\nExecStart=\n"
                   f"ExecStart={PYTHON} {program}\n",
    )  # fmt: skip
    SERVICE.do("start")
    SERVICE.drop_in("sandbox", "")
    return {"journal": SERVICE.journal()}


def wrong_configuration() -> Found:
    good = CONFIG.read_text()
    CONFIG.write_text(good.replace("rate_hz = 100.0", "rate_hz = 100000.0"))
    with contextlib.suppress(TrialError):
        SERVICE.do("start")
    until(lambda: SERVICE["ActiveState"] == "failed", "the service to give up")
    until(
        lambda: FAULT["ActiveState"] not in ("inactive", "activating"),
        "the unit for the fault LED to be started",
    )
    CONFIG.write_text(good)
    return {
        "exit": SERVICE["ExecMainStatus"], "restarts": SERVICE["NRestarts"], "journal": SERVICE.journal(),
        "fault": FAULT["ActiveState"], "fault_journal": FAULT.journal(),
    }  # fmt: skip


def absent_camera() -> Found:
    good = CONFIG.read_text()
    CONFIG.write_text(good.replace('"synthetic"', '"webcam"\ndevice = "/dev/video9"'))
    run("systemctl", "start", "--no-block", SERVICE.name)
    until(lambda: "/dev/video9" in SERVICE["StatusText"], "a status that names the camera")
    found = {"state": SERVICE["ActiveState"], "status": SERVICE["StatusText"], "fault": FAULT["ActiveState"]}
    SERVICE.do("stop")
    CONFIG.write_text(good)
    return found


def running(watcher: Subscriber) -> Found:
    # What systemd-timesyncd leaves; the kernel may not be asked from within the sandbox.
    SYNCHRONISED.parent.mkdir(parents=True)
    SYNCHRONISED.touch()
    began_s = time.monotonic()
    SERVICE.do("start")
    ready_s = time.monotonic() - began_s
    until(lambda: watcher.arrived, "an event at a subscriber")
    event_s = time.monotonic() - began_s
    text = f"{SERVICE.show()} {SERVICE.journal()} {FAULT.journal()}" + "".join(
        Path(f"/proc/{pid}/{file}").read_text()
        for pid in SERVICE.processes for file in ("environ", "cmdline")
    )  # fmt: skip
    with contextlib.closing(sqlite3.connect("/var/lib/microedge/events.db")) as store:
        ((payload,),) = store.execute("SELECT payload FROM events WHERE seq = 1").fetchall()
    return {
        "event": json.loads(payload), "ready_s": round(ready_s, 2), "event_s": round(event_s, 2),
        "frames": retained(f"{TOPIC}/health")["frames"], "status": SERVICE["StatusText"],
        "tells_password": PASSWORD in text, "user": Path(f"/proc/{SERVICE.pid}").owner(),
    }  # fmt: skip


def reload() -> Found:
    pid, good = SERVICE.pid, CONFIG.read_text()
    CONFIG.write_text(good + "[history]\ndays = 8\n")
    SERVICE.do("reload")
    until(lambda: "reloaded: " in SERVICE.journal(), "word that the new configuration is in use")
    CONFIG.write_text(good + "[spot]\nthreshold = 7\n")
    SERVICE.do("reload")
    until(lambda: "spot.threshold" in SERVICE["StatusText"], "a status that names the mistake")
    found = {"same_process": SERVICE.pid == pid, "is_active": SERVICE.is_active}
    CONFIG.write_text(good)
    SERVICE.do("reload")
    return found


def hang(watcher: Subscriber) -> Found:
    SERVICE.drop_in("impatient", "[Service]\nWatchdogSec=3\n")
    SERVICE.do("restart")
    pid = SERVICE.pid
    began_s = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    until(lambda: SERVICE.pid not in (0, pid) and SERVICE.is_active, "a new process that is ready")
    again_s = time.monotonic() - began_s
    heard = len(watcher.arrived)
    until(lambda: len(watcher.arrived) > heard, "an event from the new process")
    SERVICE.drop_in("impatient", "")
    return {"again_s": round(again_s, 2), "restarts": SERVICE["NRestarts"], "journal": SERVICE.journal()}


def stop(watcher: Subscriber) -> Found:
    began_s = time.monotonic()
    SERVICE.do("stop")
    stopped_s = time.monotonic() - began_s
    until(lambda: watcher.availability.get("trial") == "offline", "`offline`")
    return {
        "stopped_s": round(stopped_s, 2), "result": SERVICE["Result"], "state": SERVICE["ActiveState"],
        "processes": SERVICE.processes, "runtime_folder": Path("/run/microedge").exists(),
    }  # fmt: skip


def files() -> dict[str, tuple[int, int, int]]:
    """Give size, mode and time of every file but those of others."""
    found = {}
    for folder, subfolders, names in os.walk("/"):
        if folder == "/":
            subfolders[:] = [name for name in subfolders if name not in ("proc", "sys")]
        if folder == "/opt/microedge":
            # Bound from outside, for reading.
            subfolders.clear()
        for path in (f"{folder.rstrip('/')}/{name}" for name in names):
            if not path.startswith(OTHERS):
                status = os.lstat(path)
                found[path] = (status.st_size, status.st_mode, status.st_mtime_ns)
    return found


def main() -> None:
    SERVICE.drop_in("pins", PINS)
    before = files()
    found: dict[str, Any] = {}

    def step(name: str, take: Callable[[], Found]) -> None:
        began_s = time.monotonic()
        found[name] = take()
        print(f"{name}: {time.monotonic() - began_s:.1f} s", flush=True)

    with Subscriber(OBSERVER_PORT) as watcher:
        step("sandbox", sandbox)
        step("wrong_configuration", wrong_configuration)
        step("absent_camera", absent_camera)
        step("running", lambda: running(watcher))
        step("reload", reload)
        step("hang", lambda: hang(watcher))
        step("stop", lambda: stop(watcher))
    after = files()
    found["written"] = sorted(
        path for path in before.keys() | after.keys() if before.get(path) != after.get(path)
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
