"""Installs the units as on a device, starts the service on virtual hardware, and looks at what the kernel enforces.

Arguments: devices that the service may open, and devices that it may not, each joined by commas.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gpio_sim
import virtual_camera

SYSTEMD = Path("/payload/source/systemd")
DROP_INS = Path("/etc/systemd/system/microedge.service.d")
UNIT = "microedge.service"
CGROUP = Path("/sys/fs/cgroup/system.slice") / UNIT
PYTHON = "/opt/microedge/bin/python"
CAPTURE = 17
MANAGER = "org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager"
START_S = 300
SET = ("memory.high", "memory.max", "pids.max", "cpu.weight")
CONFIG = """\
[device]
id = "vm"
[camera]
rate_hz = 10
[face]
landmark_period_ms = 500
[spot]
hop_ms = 60
"""
# The only thing that is not as on a device: what stands in for its hardware is loaded before microedge.
VIRTUAL = f"""\
[Service]
ExecStart=
ExecStart={PYTHON} /payload/guest/virtual_microedge.py run --config /etc/microedge/config.toml
Environment=PYTHONPATH=/payload/guest PACE_HZ=10 LIBCAMERA_LOG_LEVELS=*:WARN,Virtual:FATAL
# Emulation takes ten to twenty times as long.
TimeoutStartSec={START_S}
"""

AS_ONESHOT = """\
[Service]
Type=oneshot
NotifyAccess=none
Restart=no
WatchdogSec=0
TimeoutStartSec=200
ExecStart=
ExecStart={command}
ExecReload=
{settings}
"""


def main() -> None:
    """Install, start, look, stop."""
    allowed, refused = (words.split(",") for words in sys.argv[1:3])
    bank = install()
    found: dict[str, Any] = {}

    def note(name: str, value: Any) -> None:
        found[name] = value
        print(name, json.dumps(value), flush=True)

    note("watchdog", watchdog())
    sh("systemctl start mosquitto")
    note("service", service(bank))
    note("devices_outside", {device: opened(device) for device in [*allowed, *refused]})
    note("stop", stop(bank))
    note("devices", devices([*allowed, *refused]))
    note("limits", limits())
    note("addresses", addresses())
    print("RESULT", json.dumps(found))


def install() -> gpio_sim.Bank:
    """Lay the files of systemd/ where the installer lays them, and switch the virtual hardware on."""
    rules = Path("/etc/udev/rules.d/60-gpio.rules")
    # As on Raspberry Pi OS.
    rules.write_text('SUBSYSTEM=="gpio", GROUP="gpio", MODE="0660"\n')
    for source, target in {
        "microedge.service": "/etc/systemd/system/microedge.service",
        "microedge-fault.service": "/etc/systemd/system/microedge-fault.service",
        "microedge.sysusers": "/usr/lib/sysusers.d/microedge.conf",
        "microedge.tmpfiles": "/usr/lib/tmpfiles.d/microedge.conf",
        "60-microedge-coral.rules": "/usr/lib/udev/rules.d/60-microedge-coral.rules",
        "journald.conf.d": "/etc/systemd/journald.conf.d",
    }.items():
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        if (SYSTEMD / source).is_dir():
            shutil.copytree(SYSTEMD / source, target, dirs_exist_ok=True)
        else:
            shutil.copy(SYSTEMD / source, target)
    sh("systemd-sysusers")
    Path("/etc/microedge").mkdir(exist_ok=True)
    Path("/etc/microedge/config.toml").write_text(CONFIG)
    sh("systemd-tmpfiles --create microedge.conf")
    sh("udevadm control --reload")
    virtual_camera.write_pipeline(Path("/payload/pictures"))
    drop_in("virtual", VIRTUAL)
    print("installed", flush=True)
    return gpio_sim.Bank()


def service(bank: gpio_sim.Bank) -> dict[str, Any]:
    """Start, wait for READY and for a face, and give what the service and its cgroup say of themselves."""
    begun_s = time.monotonic()
    started = sh(f"systemctl start {UNIT}", check=False)
    ready_s = time.monotonic() - begun_s
    face_seen, health = False, {}
    for _ in range(20):
        said = sh("mosquitto_sub -t microedge/vm/health -C 1 -W 30", check=False)
        health = json.loads(said) if said.startswith("{") else {}
        face_seen = face_seen or bool(health.get("face"))
        if face_seen and health.get("frames", 0) > 50:
            break
        time.sleep(2)
    cpu_before, at_s = cpu_us(), time.monotonic()
    time.sleep(10)
    share = (cpu_us() - cpu_before) / 1e6 / (time.monotonic() - at_s)
    figures = show("ActiveState", "StatusText", "NRestarts", "MainPID")
    report = {
        "state": figures["ActiveState"],
        "status": figures["StatusText"],
        "restarts": int(figures["NRestarts"]),
        "ready_after_s": round(ready_s, 1),
        "capture_led": bank.level(CAPTURE),
        "health": {
            name: health.get(name)
            for name in ("state", "frames", "frames_dropped", "frame_rate_hz", "engine")
        }
        | {"face_seen": face_seen},
        "memory_mib": {
            name: round(int((CGROUP / f"memory.{name}").read_text()) / 2**20) for name in ("current", "peak")
        },
        "tasks": int((CGROUP / "pids.current").read_text()),
        "cpu_cores_used": round(share, 2),
        "set_in_the_kernel": {
            name: (CGROUP / name).read_text().strip()
            for name in ("memory.high", "memory.max", "pids.max", "cpu.weight")
        },
    }
    if report["state"] != "active" or not health.get("frames"):
        print(started, sh(f"journalctl --no-pager -n 60 -u {UNIT}", check=False), flush=True)
    return report


def stop(bank: gpio_sim.Bank) -> dict[str, Any]:
    """Stop the service."""
    begun_s = time.monotonic()
    sh(f"systemctl stop {UNIT}")
    took_s = time.monotonic() - begun_s
    return {
        "result": show("Result")["Result"],
        "took_s": round(took_s, 1),
        "capture_led": bank.level(CAPTURE),
    }


def devices(names: list[str]) -> dict[str, str]:
    """Open devices as root in the cgroup of the service: permissions then allow everything, and its list decides."""
    text = in_unit(f"+{PYTHON} /payload/guest/open_devices.py {' '.join(names)}", "")
    found: dict[str, str] = json.loads(text or "{}")
    return found


def limits() -> dict[str, Any]:
    """Ask for more than the limits allow, inside the sandbox of the service."""
    asked = show("MemoryMax", "TasksMax")
    memory_mib = int(asked["MemoryMax"]) // 2**20
    # Without the throttling before, which would make this take minutes.
    text = in_unit(
        f"{PYTHON} /payload/guest/hog.py memory {memory_mib + 100}", "MemoryHigh=infinity\nMemorySwapMax=0"
    )
    reached = [int(word) for word in re.findall(r"^(\d+)$", text, re.MULTILINE)]
    ended = show("Result", "ExecMainStatus")
    # systemd calls it a signal where the process is gone before it hears from the kernel why.
    killed = ended["Result"] in ("oom-kill", "signal") and ended["ExecMainStatus"] == "9"
    memory: dict[str, Any] = {
        "limit_mib": memory_mib,
        "reached_mib": reached[-1] if reached else 0,
        "killed": killed,
    }
    memory["enforced"] = killed and 0 < memory["reached_mib"] <= memory_mib
    text = in_unit(f"{PYTHON} /payload/guest/hog.py tasks {int(asked['TasksMax']) + 50}", "")
    tasks: dict[str, Any] = {"limit": int(asked["TasksMax"]), "reached": int(text or 0)}
    tasks["enforced"] = 0 < tasks["reached"] <= tasks["limit"]
    text = in_unit(f"{PYTHON} /payload/guest/hog.py processor 10", "CPUQuota=30%")
    quota: dict[str, Any] = {"limit": 0.3, "reached": float(text or 0)}
    quota["enforced"] = 0.0 < quota["reached"] < 0.36
    return {"MemoryMax": memory, "TasksMax": tasks, "CPUQuota (drop-in)": quota}


def addresses() -> dict[str, str]:
    """Send as the drop-in for a fixed broker address allows, and to elsewhere."""
    sh("ip link add dummy0 type dummy && ip address add 10.9.8.1/24 dev dummy0 && ip link set dummy0 up")
    text = in_unit(
        f"{PYTHON} /payload/guest/hog.py send 10.9.8.7 127.0.0.1",
        "IPAddressDeny=any\nIPAddressAllow=localhost",
    )
    outside, localhost = text.split()
    return {"outside": outside, "localhost": localhost}


def watchdog() -> dict[str, Any]:
    """Let systemd take the watchdog's drop-in, see whether it holds the hardware watchdog, and take it back.

    Not for longer: the first process of an emulated machine whose computer is busy may be silent for seconds.
    """
    shutil.copytree(SYSTEMD / "system.conf.d", "/etc/systemd/system.conf.d", dirs_exist_ok=True)
    sh("systemctl daemon-reload")
    said = sh("wdctl", check=False)
    driver = re.search(r"Identity:\s+(.*?)\s*(\[|$)", said, re.MULTILINE)
    limit = re.search(r"Timeout:\s+(\d+)", said)
    report = {
        "driver": driver.group(1) if driver else said[-300:],
        "timeout_s": int(limit.group(1)) if limit else None,
        "runtime_us": int(sh(f"busctl get-property {MANAGER} RuntimeWatchdogUSec").split()[1]),
        "armed": any("/dev/watchdog" in os.readlink(each) for each in Path("/proc/1/fd").iterdir()),
    }
    shutil.rmtree("/etc/systemd/system.conf.d")
    sh("systemctl daemon-reload")
    sh(f"busctl set-property {MANAGER} RuntimeWatchdogUSec t 0")
    return report


def in_unit(command: str, settings: str) -> str:
    """Run a command as the unit's own process, with its whole sandbox and limits; give what it printed."""
    drop_in("virtual", AS_ONESHOT.format(command=command, settings=settings))
    Path("/etc/systemd/system/microedge-fault.service").unlink(missing_ok=True)
    sh("systemctl daemon-reload")
    sh(f"systemctl reset-failed {UNIT}", check=False)
    mark = str(time.time())
    sh(f"systemctl start {UNIT}", check=False)
    time.sleep(1)
    said = sh(f"journalctl --no-pager -o cat --since=@{mark} SYSLOG_IDENTIFIER=python", check=False)
    return said.strip()


def opened(device: str) -> str:
    """Try to open a device from here."""
    return subprocess.run(
        [PYTHON, "/payload/guest/open_devices.py", device], capture_output=True, text=True, check=False
    ).stdout.split('"')[3]


def cpu_us() -> int:
    return int((CGROUP / "cpu.stat").read_text().split()[1])


def show(*names: str) -> dict[str, str]:
    text = sh(f"systemctl show {UNIT} {' '.join(f'-p {name}' for name in names)}")
    return dict(line.split("=", 1) for line in text.splitlines())


def drop_in(name: str, text: str) -> None:
    DROP_INS.mkdir(parents=True, exist_ok=True)
    (DROP_INS / f"{name}.conf").write_text(text)


def sh(command: str, *, check: bool = True) -> str:
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        print(f"{command}: {done.stdout}{done.stderr}", flush=True)
        sys.exit(1)
    return done.stdout + done.stderr if not check else done.stdout


main()
