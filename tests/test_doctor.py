"""The doctor finds nothing wrong with a good device, and names what is wrong with a broken one and what to do."""

import errno
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import jsonschema
import pytest
from camera_stand_in import Machine
from rich.console import Console

from edge.__main__ import main
from edge.commands.doctor import as_payload, case_of
from edge.commands.doctor_view import View
from edge.config import Config, History, load
from edge.config import Outbox as OutboxConfig
from edge.doctor import AREAS
from edge.doctor.case import Case
from edge.doctor.examine import Report, examine
from edge.doctor.finding import Finding, Verdict
from edge.doctor.pins import PinLine, _line_of_debugfs
from edge.doctor.system import System, run_bounded
from edge.doctor.v4l2 import ENUM_FORMATS, ENUM_INTERVALS, rates_hz
from edge.inference.manifest import models_folder
from edge.store.outbox import Outbox

UNITS = Path(__file__).parents[1] / "systemd"
SCHEMA = json.loads((Path(__file__).parents[1] / "edge" / "schemas" / "doctor-1.json").read_text())
NOW = datetime(2027, 3, 4, 5, 6, 7, tzinfo=UTC)
MICROEDGE = 12_345
"""Number of the service's user on the devices below; no user of this machine."""
SHOWN = {
    "LoadState": "loaded", "ActiveState": "active", "SubState": "running", "UnitFileState": "enabled",
    "NRestarts": "0", "Result": "success", "ExecMainStatus": "0", "MainPID": "0", "StatusText": "",
    "FragmentPath": "/etc/systemd/system/microedge.service", "DropInPaths": "",
    "NeedDaemonReload": "no", "User": "microedge", "Environment": "",
}  # fmt: skip
OVERLAY = """\
overlay / overlay rw,lowerdir=/media/root-ro,upperdir=/media/root-rw/overlay,workdir=/media/root-rw/work 0 0
tmpfs-root /media/root-rw tmpfs rw 0 0
"""
DEBUG_GPIO = """\
gpiochip0: GPIOs 512-565, parent: platform/1f000d0000.gpio, pinctrl-rp1:
 gpio-512 (ID_SDA              )
 gpio-529 (GPIO17              )
 gpio-535 (GPIO23              )

gpiochip10: GPIOs 566-597, parent: platform/107d508500.gpio, gpio-brcmstb@107d508500:
 gpio-569 (GPIO17              |pwr_button          ) in  hi IRQ ACTIVE LOW
"""


class Pi:
    """A Raspberry Pi 5 with an IMX219, a Coral on USB 3 and an installed service, as files below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "var/lib/microedge"
        self.shown = dict(SHOWN)
        self.changes: dict[str, Any] = {}
        """Of the `System`."""
        self.settings = {
            "outbox.folder": str(self.state), "inference.models": str(root / "models"), "mqtt.enabled": "false",
        }  # fmt: skip
        group = os.getgid()
        self.write("/proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\0")
        self.write("/proc/self/mounts", "/dev/mmcblk0p2 / ext4 rw,noatime 0 0\nproc /proc proc rw 0 0\n")
        self.write("/proc/meminfo", "MemTotal:        8245888 kB\nMemAvailable:    7000000 kB\n")
        self.write(
            "/etc/os-release", 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_CODENAME=bookworm\n'
        )
        self.write(
            "/etc/passwd",
            f"root:x:0:0::/root:/bin/sh\nmicroedge:x:{MICROEDGE}:{MICROEDGE}::/:/usr/sbin/nologin\n",
        )
        self.write(
            "/etc/group", f"video:x:{group}:\ngpio:x:{group}:\nplugdev:x:{group}:\nother:x:77:microedge\n"
        )
        self.write("/etc/systemd/system/microedge.service", (UNITS / "microedge.service").read_text())
        self.write("/etc/systemd/journald.conf.d/60-microedge.conf", "[Journal]\nSystemMaxUse=64M\n")
        self.write("/run/systemd/system/README", "")
        for device in ("gpiochip0", "watchdog0", "media0", "video0"):
            self.device(f"/dev/{device}")
        self.write("/sys/bus/gpio/devices/gpiochip0/of_node/compatible", "raspberrypi,rp1-gpio\0")
        self.write("/sys/kernel/debug/gpio", DEBUG_GPIO)
        self.write("/sys/class/rtc/rtc0/name", "rpi-rtc soc:rpi_rtc\n")
        self.write("/sys/class/thermal/thermal_zone0/temp", "48300\n")
        self.write("/sys/class/hwmon/hwmon2/fan1_input", "2980\n")
        self.write("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "ondemand\n")
        self.coral(speed=5000)
        self.write("/usr/lib/aarch64-linux-gnu/libedgetpu.so.1", "")
        self.driver("16.0TF2.17.1-1")
        shutil.copytree(models_folder(), root / "models")
        for name in ("detector", "landmark", "spotter"):
            (root / "models" / f"{name}_edgetpu.tflite").write_bytes(b"")
        self.state.mkdir(parents=True)
        os.chown(self.state, -1, group)
        self.state.chmod(0o770)
        self.script("python", "exit 0")
        self.script("vcgencmd", "echo throttled=0x0")
        self.script("systemd-analyze", "echo '→ Overall exposure level for microedge.service: 1.4 OK'")
        self.script("journalctl", "echo 'pipeline: failed'")

    def write(self, path: str, text: str, mode: int = 0o644) -> Path:
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(mode)
        return place

    def device(self, path: str) -> None:
        """Make a character device that everybody may use, and that takes no question."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to("/dev/null")

    def script(self, name: str, text: str) -> None:
        self.write(f"/usr/bin/{name}", f"#!/bin/sh\n{text}\n", 0o755)

    def coral(self, *, speed: int, product: str = "18d1:9302", mode: int = 0o660) -> None:
        vendor, model = product.split(":")
        for name, text in {
            "idVendor": vendor, "idProduct": model, "speed": str(speed), "busnum": "2", "devnum": "3",
        }.items():  # fmt: skip
            self.write(f"/sys/bus/usb/devices/2-1/{name}", f"{text}\n")
        os.chown(self.write("/dev/bus/usb/002/003", "", mode), -1, os.getgid())

    def no_coral(self) -> None:
        shutil.rmtree(self.root / "sys/bus/usb/devices/2-1")

    def driver(self, version: str) -> None:
        self.write(
            "/var/lib/dpkg/status",
            f"Package: libedgetpu1-std\nStatus: install ok installed\nVersion: {version}\n",
        )

    def config(self) -> Config:
        return load(None, [f"{name}={value}" for name, value in self.settings.items()])

    def system(self) -> System:
        lines = "\n".join(f"{name}={value}" for name, value in self.shown.items())
        self.write("/show", lines)
        self.script(
            "systemctl",
            f'case "$*" in *Runtime*) echo RuntimeWatchdogUSec=15s;; *) cat {self.root}/show;; esac',
        )
        given: dict[str, Any] = {
            "root": self.root, "euid": 1000, "now": lambda: NOW, "synchronised": lambda: True, "page_bytes": 4096,
            "pointer_bits": 64, "machine": "aarch64", "python": str(self.root / "usr/bin/python"),
            "packages": {"numpy": "1.26.4", "tflite-runtime": "2.17.1", "lgpio": "0.2.2.0"},
            "environment": {}, "shipped": (UNITS,),
        }  # fmt: skip
        return System(**{**given, **self.changes})

    def case(self) -> Case:
        path = self.write("/etc/microedge/config.toml", "")
        return Case(self.config(), system=self.system(), path=path)

    def examine(self, *areas: str) -> Report:
        return examine(self.case(), areas or AREAS)


@pytest.fixture
def pi(tmp_path: Path) -> Pi:
    return Pi(tmp_path / "pi")


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    machine.install(monkeypatch.setitem)
    return machine


def found(report: Report, area: str, name: str) -> Finding:
    """Give the first finding of that name."""
    matching = [line.finding for line in report.lines if (line.area, line.finding.name) == (area, name)]
    assert matching, f"no {area}: {name} among {[(line.area, line.finding.name) for line in report.lines]}"
    return matching[0]


def test_a_good_device_passes_every_check(pi: Pi, camera: Machine) -> None:
    report = pi.examine()
    assert [line for line in report.lines if line.finding.verdict in (Verdict.FAIL, Verdict.WARN)] == []
    assert report.exit_code == 0
    assert report.verdict is Verdict.PASS
    words = {(line.area, line.finding.name): line.finding.words for line in report.lines}
    assert "640x480 at up to 206.7 frames/s" in words["camera", "rate"]
    assert "camera.rate_hz = 200" in words["camera", "rate"]
    assert "5000 Mbit/s: USB 3" in words["coral", "on USB"]
    assert "from the same TensorFlow" in words["coral", "libedgetpu"]
    assert "free: leds.capture_pin = 17" in words["pins", "pins"]
    assert words["power", "temperature"] == "48.3 °C, limit 80 °C; fan at 2980 rev/min"
    assert "as shipped" in words["service", "unit"]
    assert "user microedge may write" in words["store", "folder"]
    assert camera.misuse == []


Break = Callable[[Pi], object]


def statvfs(**changes: Any) -> Callable[[Path], Any]:
    values = {
        "f_flag": 0,
        "f_bavail": 2_000_000,
        "f_blocks": 4_000_000,
        "f_frsize": 4096,
        "f_files": 9,
        "f_favail": 9,
    }
    return lambda path: SimpleNamespace(**values | changes)


def changed(**changes: Any) -> Break:
    return lambda pi: pi.changes.update(changes)


def packages(**versions: str) -> Break:
    return changed(packages={name.replace("_", "-"): version for name, version in versions.items()})


def showing(**values: str) -> Break:
    return lambda pi: pi.shown.update(values)


def setting(**values: str) -> Break:
    return lambda pi: pi.settings.update({name.replace("__", "."): value for name, value in values.items()})


def writing(path: str, text: str) -> Break:
    return lambda pi: pi.write(path, text)


def all_of(*breaks: Break) -> Break:
    return lambda pi: [each(pi) for each in breaks]


BROKEN: dict[str, tuple[Break, str, str, Verdict, str, str]] = {
    "under-voltage now": (
        lambda pi: pi.script("vcgencmd", "echo throttled=0x50005"), "power", "supply", Verdict.FAIL,
        "now: under-voltage, throttled (vcgencmd get_throttled = 0x50005)", "5 V 5 A",
    ),
    "under-voltage before, on a Pi 4": (
        writing("/sys/devices/platform/soc/soc:firmware/get_throttled", "10000\n"), "power", "supply", Verdict.WARN,
        "since the machine started: under-voltage; not now", "power supply",
    ),
    "too warm and capped before": (
        lambda pi: pi.script("vcgencmd", "echo throttled=0xe0008"), "power", "supply", Verdict.FAIL,
        "now: soft temperature limit reached; since the machine started also: processor speed capped, throttled", "fan",
    ),
    "hot": (
        writing("/sys/class/thermal/thermal_zone0/temp", "84700"), "power", "temperature", Verdict.FAIL,
        "84.7 °C, limit 80 °C", "fan",
    ),
    "slow governor": (
        writing("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave"), "power", "governor",
        Verdict.WARN, "powersave", "ondemand",
    ),
    "no memory left": (
        writing("/proc/meminfo", "MemTotal: 500000 kB\nMemAvailable: 40000 kB\n"), "power", "memory", Verdict.FAIL,
        "40 of 500 MB available", "ps -eo",
    ),
    "a pair that crashes": (
        packages(numpy="1.26.4", tflite_runtime="2.14.0"), "coral", "libedgetpu", Verdict.FAIL,
        "the driver was built with TensorFlow 2.17.1", "tflite-runtime 2.17.1",
    ),
    "a pair that nobody has tried": (
        packages(numpy="2.1.0", ai_edge_litert="2.3.0"), "coral", "libedgetpu", Verdict.WARN, "no proof", "restarts",
    ),
    "numpy 2 with tflite-runtime": (
        packages(numpy="2.1.0", tflite_runtime="2.17.1"), "runtime", "tflite-runtime", Verdict.FAIL,
        "made for numpy 1, and numpy is 2.1.0", "pip install 'numpy<2'",
    ),
    "no runtime": (
        packages(numpy="1.26.4"), "runtime", "engine", Verdict.FAIL, "no runtime", "pip install ai-edge-litert",
    ),
    "a runtime for another processor": (
        lambda pi: pi.script("python", "kill -ILL $$"), "runtime", "tflite-runtime", Verdict.FAIL,
        f"was ended by signal {int(signal.SIGILL)}", "--force-reinstall",
    ),
    "a swapped model": (
        lambda pi: (pi.root / "models/spotter.tflite").write_bytes(b"another"), "runtime", "models", Verdict.FAIL,
        "is not the file of its passport", "inference.models",
    ),
    "32 bits": (changed(pointer_bits=32), "runtime", "machine", Verdict.FAIL, "32-bit", "64-bit"),
    "an old release": (
        writing("/etc/os-release", "PRETTY_NAME=Raspbian 11\nVERSION_CODENAME=bullseye"), "runtime", "machine",
        Verdict.WARN, "bookworm and trixie", "Bookworm or Trixie",
    ),
    "16K pages with a Coral on PCIe": (
        all_of(changed(page_bytes=16384), lambda pi: pi.device("/dev/apex_0")), "runtime", "page size", Verdict.FAIL,
        "16 KiB: the driver of a Coral on PCIe wants 4", "kernel=kernel8.img",
    ),
    "Coral on USB 2": (
        lambda pi: pi.coral(speed=480, product="1a6e:089a"), "coral", "on USB", Verdict.WARN,
        "1a6e:089a (not used yet, it gets its firmware then), port 2-1, 480 Mbit/s: USB 2", "blue port",
    ),
    "Coral closed to the service": (
        lambda pi: pi.coral(speed=5000, mode=0o600), "coral", "permission", Verdict.FAIL,
        "user microedge may not use it (mode 0600)", "udevadm",
    ),
    "no Coral though it is demanded": (
        all_of(Pi.no_coral, setting(inference__accelerator="edgetpu")), "coral", "coral", Verdict.FAIL,
        "inference.accelerator = edgetpu: neither 1a6e:089a nor 18d1:9302", "lsusb",
    ),
    "a Coral on PCIe without its driver": (
        all_of(
            Pi.no_coral, writing("/sys/bus/pci/devices/0000:01:00.0/vendor", "0x1ac1"),
            writing("/sys/bus/pci/devices/0000:01:00.0/device", "0x089a"),
        ),
        "coral", "coral", Verdict.FAIL, "there is no /dev/apex_0", "gasket-dkms",
    ),
    "no compiled models though they are demanded": (
        all_of(
            setting(inference__accelerator="edgetpu"),
            lambda pi: (pi.root / "models/landmark_edgetpu.tflite").unlink(),
        ),
        "coral", "edgetpu models", Verdict.FAIL, "no landmark_edgetpu.tflite", "edgetpu_compiler detector.tflite",
    ),
    "a pin held by a driver": (
        writing("/sys/kernel/debug/gpio", DEBUG_GPIO.replace("(GPIO17              )", "(GPIO17 |w1 )", 1)),
        "pins", "pin", Verdict.FAIL, "leds.capture_pin = 17: in use by w1", "dtoverlay",
    ),
    "no header": (
        lambda pi: shutil.rmtree(pi.root / "sys/bus/gpio"), "pins", "gpio", Verdict.FAIL,
        "this machine has no GPIO header (/dev/gpiochip0)", "leds.enabled = false",
    ),
    "pretended pins": (
        showing(Environment="A=b GPIOZERO_PIN_FACTORY=mock"), "pins", "gpio", Verdict.WARN, "only pretended",
        "systemctl edit",
    ),
    "a clock in 1970": (
        changed(now=lambda: datetime(1970, 1, 1, 0, 3, tzinfo=UTC)), "clock", "date", Verdict.FAIL,
        "1970-01-01 00:03 UTC", "timedatectl set-ntp true",
    ),
    "a clock in 2106": (
        changed(now=lambda: datetime(2106, 2, 7, tzinfo=UTC)), "clock", "date", Verdict.FAIL,
        "more than 20 years after", "timedatectl",
    ),
    "a clock that nobody keeps": (
        changed(synchronised=lambda: False), "clock", "synchronised", Verdict.WARN, "clock_synchronised = false",
        "timedatectl",
    ),
    "a read-only state folder": (
        changed(statvfs=statvfs(f_flag=os.ST_RDONLY)), "store", "folder", Verdict.FAIL, "mounted read-only", "remount",
    ),
    "a state folder of somebody else": (
        lambda pi: pi.state.chmod(0o700), "store", "folder", Verdict.FAIL,
        "user microedge may not write to", "chown -R microedge",
    ),
    "a full disk": (
        changed(statvfs=statvfs(f_bavail=500)), "store", "disk", Verdict.FAIL,
        "2 MB left, less than 10 MB", "apt clean",
    ),
    "a disk that fills up": (
        changed(statvfs=statvfs(f_bavail=40_000)), "store", "disk", Verdict.WARN, "163 of 16384 MB free", "journalctl",
    ),
    "a state folder in memory": (
        writing("/proc/self/mounts", OVERLAY), "store", "folder", Verdict.WARN,
        "(tmpfs): in memory", "outbox.folder",
    ),
    "a damaged outbox": (
        lambda pi: (pi.state / "events.db").write_bytes(b"no database at all" * 100), "store", "events", Verdict.FAIL,
        "is not a history of microedge", "restart microedge",
    ),
    "a damaged file that was set aside": (
        lambda pi: [(pi.state / f"events.damaged-2026112{day}T080000.1Z.db").write_text("") for day in (1, 2)],
        "store", "damaged files", Verdict.WARN, "2 set aside, the last events.damaged-20261122", "new card",
    ),
    "a changed unit": (
        writing("/etc/systemd/system/microedge.service", "[Service]\nUser=root\n"), "service", "unit", Verdict.WARN,
        "differs from the one of this version", "tools/install",
    ),
    "not started at boot": (
        showing(UnitFileState="disabled"), "service", "at boot", Verdict.WARN, "disabled", "systemctl enable microedge",
    ),
    "a service that ended on its configuration": (
        showing(ActiveState="failed", SubState="failed", Result="exit-code", ExecMainStatus="2"), "service", "state",
        Verdict.FAIL, "last exit exit-code, code 2; it said last: pipeline: failed", "microedge config check",
    ),
    "a service that starts again and again": (
        showing(NRestarts="17", Result="watchdog"), "service", "restarts", Verdict.WARN,
        "17 since it was last started by hand; last exit watchdog", "journalctl",
    ),
    "a service that says what it lacks": (
        showing(MainPID="4711", StatusText="degraded: mqtt: nothing listens there"), "service", "state", Verdict.WARN,
        "active (running): degraded: mqtt: nothing listens there", "journalctl",
    ),
    "a service without a camera": (
        showing(MainPID="4711", StatusText="fault: camera 0: unplugged"), "service", "state", Verdict.FAIL,
        "fault: camera 0: unplugged", "journalctl",
    ),
    "no watchdog": (
        all_of(showing(DropInPaths="/x.conf", WatchdogUSec="30s"),
               writing("/x.conf", "[Service]\nWatchdogSec=0\n")),
        "service", "watchdog", Verdict.WARN, "WatchdogSec is off", "tools/install",
    ),
    "protection taken away": (
        lambda pi: pi.script("systemd-analyze", "echo '→ Overall exposure level for microedge.service: 8.7 EXPOSED'"),
        "service", "hardening", Verdict.WARN, "exposure 8.7, must be at most 2.0", "systemctl cat",
    ),
    "a journal without limits": (
        lambda pi: shutil.rmtree(pi.root / "etc/systemd/journald.conf.d"), "service", "journal", Verdict.WARN,
        "a tenth of the disk", "SystemMaxUse=64M",
    ),
    "no webcam": (
        all_of(setting(camera__source="webcam", camera__device="/dev/video7")), "camera", "webcam", Verdict.FAIL,
        "camera.device = /dev/video7: no such device; there is /dev/video0", "camera.device",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_device_is_told_what_is_wrong_and_what_to_do(pi: Pi, name: str) -> None:
    breaks, area, check, verdict, words, advice = BROKEN[name]
    breaks(pi)
    report = pi.examine(area)
    finding = found(report, area, check)
    assert finding.verdict is verdict, finding
    assert words in finding.words
    assert advice in finding.advice
    assert report.exit_code == int(verdict is Verdict.FAIL)


def test_everything_that_is_wrong_is_in_one_report(pi: Pi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)
    several = (
        "under-voltage now",
        "a clock in 1970",
        "a full disk",
        "no header",
        "a runtime for another processor",
    )
    for name in several:
        BROKEN[name][0](pi)
    pi.settings["inference.accelerator"] = "edgetpu"
    pi.no_coral()
    report = pi.examine()
    failing = {line.area for line in report.lines if line.finding.verdict is Verdict.FAIL}
    assert failing == {"power", "clock", "store", "pins", "runtime", "camera", "coral"}
    assert all(
        line.finding.advice for line in report.lines if line.finding.verdict in (Verdict.FAIL, Verdict.WARN)
    )


def test_no_camera_is_a_failure_with_the_cable_in_the_advice(pi: Pi, camera: Machine) -> None:
    camera.cameras = []
    finding = found(pi.examine("camera"), "camera", "camera")
    assert finding.verdict is Verdict.FAIL
    assert finding.words.startswith("camera.number = 0: not there; libcamera finds none")
    assert "cable" in finding.advice


def test_a_camera_number_that_is_not_there_is_told_with_those_that_are(pi: Pi, camera: Machine) -> None:
    pi.settings["camera.number"] = "1"
    assert "there is 0 (imx219); set camera.number" in found(pi.examine("camera"), "camera", "camera").words


def test_a_library_that_does_not_fit_the_others_is_a_line_that_says_so(
    pi: Pi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "picamera2.py").write_text("raise ValueError('numpy.dtype size changed')")
    monkeypatch.syspath_prepend(tmp_path)
    finding = found(pi.examine("camera"), "camera", "picamera2")
    assert finding.verdict is Verdict.FAIL
    assert "numpy.dtype size changed" in finding.words
    assert "python3-picamera2" in finding.advice


def test_a_sensor_that_is_too_slow_is_named_with_its_fastest_mode(pi: Pi, camera: Machine) -> None:
    camera.cameras = ["imx477"]
    finding = found(pi.examine("camera"), "camera", "rate")
    assert finding.verdict is Verdict.WARN
    assert (
        finding.words == "camera.rate_hz = 200: the fastest sensor mode is 1332x990 at up to 120.0 frames/s"
    )
    assert "camera.rate_hz = 120" in finding.advice


def test_a_global_shutter_camera_reaches_the_rate_by_reading_fewer_lines(pi: Pi, camera: Machine) -> None:
    camera.cameras = ["imx296"]
    finding = found(pi.examine("camera"), "camera", "rate")
    assert finding.verdict is Verdict.PASS
    assert "304 of its 1088 lines" in finding.words


class V4l2Driver:
    """A webcam's driver at the one call that reaches it: two formats, and rates by size, as a UVC camera lists them."""

    RATES: ClassVar[dict[str, dict[tuple[int, int], list[tuple[int, int]]]]] = {
        "YUYV": {(640, 480): [(1, 30), (1, 15)]},
        "MJPG": {(640, 480): [(1, 120), (1, 60)], (1280, 720): [(100, 5994)]},
    }

    def __call__(self, descriptor: int, request: int, answer: bytearray) -> int:
        index, second, width, height = struct.unpack_from("=IIII", answer)
        try:
            if request == ENUM_FORMATS:
                assert (len(answer), second) == (64, 1)
                struct.pack_into("=I", answer, 44, int.from_bytes(list(self.RATES)[index].encode(), "little"))
            else:
                assert (request, len(answer)) == (ENUM_INTERVALS, 52)
                name = second.to_bytes(4, "little").decode()
                struct.pack_into("=III", answer, 16, 1, *self.RATES[name][width, height][index])
        except (IndexError, KeyError):
            raise OSError(errno.EINVAL, "Invalid argument") from None
        return 0


def test_a_webcams_rates_are_asked_of_its_driver_by_size() -> None:
    driver = V4l2Driver()
    assert rates_hz(Path("/dev/null"), (640, 480), driver) == {"YUYV": 30.0, "MJPG": 120.0}
    assert rates_hz(Path("/dev/null"), (1280, 720), driver) == {"MJPG": pytest.approx(59.94)}
    assert rates_hz(Path("/dev/null"), (8, 8), driver) == {}
    assert rates_hz(Path("/dev/null"), (640, 480)) == {}, "/dev/null is no camera"


@pytest.mark.parametrize(("rate_hz", "verdict"), [(120, Verdict.PASS), (200, Verdict.WARN)])
def test_a_webcam_is_held_against_the_asked_rate(
    pi: Pi, monkeypatch: pytest.MonkeyPatch, rate_hz: int, verdict: Verdict
) -> None:
    monkeypatch.setattr("edge.doctor.v4l2.rates_hz.__defaults__", (V4l2Driver(),))
    pi.settings |= {"camera.source": "webcam", "camera.rate_hz": str(rate_hz)}
    pi.write("/sys/class/video4linux/video0/name", "A fast webcam\n")
    report = pi.examine("camera")
    assert found(report, "camera", "webcam").words == "camera.device = /dev/video0: A fast webcam"
    rate = found(report, "camera", "rate")
    assert rate.verdict is verdict
    assert rate.words == f"camera.rate_hz = {rate_hz} at 640x480: up to 120.0 frames/s, as MJPG"


def test_a_camera_that_another_program_has_is_named_with_that_program(pi: Pi, camera: Machine) -> None:
    camera.is_busy = True
    pi.write("/proc/4711/comm", "rpicam-vid\n")
    pi.device("/proc/4711/fd/9")
    finding = found(pi.examine("camera"), "camera", "in use")
    assert (finding.verdict, finding.words) == (Verdict.FAIL, "by rpicam-vid (process 4711)")
    assert "sudo kill 4711" in finding.advice


def test_a_camera_that_the_running_service_has_is_left_alone_and_as_it_should_be(
    pi: Pi, camera: Machine
) -> None:
    pi.shown |= {"MainPID": "4711", "StatusText": "running: 199.8 frames/s, face followed"}
    pi.write("/proc/4711/comm", "microedge\n")
    pi.device("/proc/4711/fd/9")
    pi.write(
        "/sys/kernel/debug/gpio",
        DEBUG_GPIO.replace("(GPIO17              )", "(GPIO17              |lg ) out lo", 1),
    )
    report = pi.examine("camera", "pins")
    assert found(report, "camera", "in use") == Finding(
        "in use",
        Verdict.PASS,
        "by the running service, as it should be: running: 199.8 frames/s, face followed",
    )
    assert "held by the running service: leds.capture_pin = 17" in found(report, "pins", "pins").words
    assert camera.devices == [], "the camera was opened beside the service"


def test_a_child_of_the_service_that_holds_the_camera_counts_as_the_service(pi: Pi, camera: Machine) -> None:
    pi.shown |= {"MainPID": "4711"}
    pi.write("/proc/4712/comm", "python3\n")
    pi.write("/proc/4712/cgroup", "0::/system.slice/microedge.service\n")
    pi.device("/proc/4712/fd/9")
    assert found(pi.examine("camera"), "camera", "in use").verdict is Verdict.PASS


def test_where_the_privacy_switch_is_at_is_read_without_taking_its_pin(pi: Pi) -> None:
    pi.settings["switches.privacy_pin"] = "5"
    held = " gpio-517 (GPIO5               |lg                  ) in  lo IRQ\n"
    pi.write("/sys/kernel/debug/gpio", DEBUG_GPIO.replace(" gpio-529", f"{held} gpio-529", 1))
    assert "on, the camera stays closed" in found(pi.examine("pins"), "pins", "privacy switch").words
    pi.settings["switches.privacy_contact"] = "normally_closed"
    assert found(pi.examine("pins"), "pins", "privacy switch").words == "switches.privacy_pin = 5: off"


@pytest.mark.parametrize(
    ("pin", "line"), [(17, PinLine(True, "lg", True)), (4, PinLine(False, "")), (23, PinLine(False, ""))]
)
def test_both_forms_of_the_kernels_table_of_pins_are_read(pin: int, line: PinLine) -> None:
    old = " gpio-529 (GPIO17              |lg                  ) out lo \n gpio-535 (GPIO23              )\n"
    new = " gpio-17  (GPIO17              |lg                  ) out lo \n gpio-23  (GPIO23              )\n"
    for head, rows in (
        ("gpiochip0: GPIOs 512-565, parent: x:\n", old),
        ("gpiochip0: 54 GPIOs, parent: x:\n", new),
    ):
        assert _line_of_debugfs(head + rows, "gpiochip0", pin) == line
    assert _line_of_debugfs("", "gpiochip0", pin) is None


def test_the_processes_that_have_a_file_open_are_found_by_the_kernels_own_table(tmp_path: Path) -> None:
    device = tmp_path / "device"
    device.write_text("")
    assert System().holders(device) == []
    with device.open():
        (holder,) = System().holders(device)
    assert holder.pid == os.getpid()


def test_the_outboxs_backlog_and_losses_are_told_while_the_service_has_it_open(pi: Pi) -> None:
    pi.settings |= {"mqtt.enabled": "true", "outbox.max_events": "4"}
    limits = OutboxConfig(max_events=4)
    outbox = Outbox(pi.state, limits, History(), clock_ns=lambda: int(NOW.timestamp() - 7200) * 1_000_000_000)
    outbox.append([{"id": f"event-{number}"} for number in range(6)])
    try:
        # In a process of its own, as the doctor is beside the service.
        report = pi.examine("store")
    finally:
        outbox.close()
    events = found(report, "store", "events")
    assert events.verdict is Verdict.WARN
    assert events.words == (
        "sound, 6 kept, 4 waiting for the broker (outbox.max_events = 4), the oldest for 2.0 h"
    )
    assert found(report, "store", "lost events").words.startswith("full 2; the last on 2027-03-04")


def test_without_hardware_and_without_asking_for_it_nothing_fails(tmp_path: Path) -> None:
    settings = [
        "camera.source=synthetic",
        "leds.enabled=false",
        "mqtt.enabled=false",
        f"outbox.folder={tmp_path}",
    ]
    report = examine(Case(load(None, settings), system=System(root=tmp_path)))
    assert report.count(Verdict.FAIL) == 0
    skipped = {line.area for line in report.lines if line.finding.verdict is Verdict.SKIPPED}
    assert {"camera", "coral", "pins", "broker", "power", "service"} <= skipped


def test_what_root_alone_may_see_is_skipped_and_listed(pi: Pi, camera: Machine) -> None:
    case = Case(None, system=pi.system(), path=Path("/etc/microedge/config.toml"))
    report = examine(case)
    assert report.exit_code == 0
    assert "the configuration /etc/microedge/config.toml, and what depends on it" in report.unseen
    for area in ("camera", "pins", "broker", "store"):
        (line,) = [line for line in report.lines if line.area == area]
        assert line.finding.verdict is Verdict.SKIPPED


def test_a_configuration_that_this_user_may_not_read_is_no_failure(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[mqtt]\nenabled = false\n")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root reads every file")
    assert not case_of(path, [], System()).is_config_known


def test_every_mistake_of_the_configuration_is_a_line_and_the_rest_is_examined_all_the_same(
    tmp_path: Path,
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        '[camera]\nrate_hz = 9000\nsource = "synthetic"\n[leds]\nenabled = false\n[mqqt]\nport = 1\n'
    )
    path.chmod(0o646)
    report = examine(case_of(path, ["mqtt.enabled=false"], System()), ["configuration", "camera"])
    words = [line.finding.words for line in report.lines if line.finding.verdict is Verdict.FAIL]
    assert sorted(words) == [
        f"{path}: camera.rate_hz = 9000: must be 10..400 Hz",
        f"{path}: everybody may change it (mode 0646)",
        f"{path}: mqqt: unknown section or key; did you mean mqtt?",
    ]
    assert found(report, "camera", "camera").words.startswith("camera.source = synthetic")


def hanging() -> Any:
    time.sleep(3600)


def crashing() -> Any:
    os.kill(os.getpid(), signal.SIGSEGV)


def raising() -> Any:
    raise ZeroDivisionError("model")


@pytest.mark.parametrize(
    ("fault", "words", "advice"),
    [
        (hanging, "the check itself gave no answer within 1 s", "camera's cable"),
        (crashing, "the check itself was ended by SIGSEGV: a library that it uses has crashed", "report it"),
        (raising, "the check itself broke: ZeroDivisionError: model", "report it"),
    ],
)
def test_a_check_that_hangs_crashes_or_breaks_is_a_line_and_the_others_go_on(
    pi: Pi,
    camera: Machine,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[], Any],
    words: str,
    advice: str,
) -> None:
    monkeypatch.setattr(sys.modules["picamera2"].Picamera2, "global_camera_info", staticmethod(fault))
    report = examine(pi.case(), ["camera", "clock"], check_s=1.0 if fault is hanging else 30.0)
    finding = found(report, "camera", "camera")
    assert (finding.verdict, finding.words) == (Verdict.FAIL, words)
    assert advice in finding.advice
    assert found(report, "clock", "date").verdict is Verdict.PASS


def test_after_a_check_that_crashed_the_areas_other_checks_still_run(
    pi: Pi, monkeypatch: pytest.MonkeyPatch
) -> None:
    import edge.doctor.clock as area

    def date(case: Case) -> Any:
        os.kill(os.getpid(), signal.SIGABRT)

    monkeypatch.setattr(area, "CHECKS", (date, *area.CHECKS[1:]))
    names = [line.finding.name for line in pi.examine("clock").lines]
    assert names == ["date", "synchronised", "battery"]


def test_an_area_that_cannot_be_loaded_is_a_line(pi: Pi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "edge.doctor.store", None)
    report = pi.examine("store", "clock")
    assert "the check itself broke: ModuleNotFoundError" in found(report, "store", "store").words
    assert found(report, "clock", "date").verdict is Verdict.PASS


def test_a_command_that_hangs_is_ended_and_one_that_fails_is_told_in_its_own_words() -> None:
    assert run_bounded(["/bin/sleep", "3600"], 0.05).problem == "sleep: gave no answer within 0.05 s"
    assert run_bounded(["/bin/sh", "-c", "echo so >&2; exit 3"], 5).problem == "so"
    assert run_bounded(["/no/such/program"], 5).problem == "program: No such file or directory"
    assert run_bounded(["/bin/echo", "so"], 5).text == "so"


def test_the_json_report_is_what_its_schema_says(pi: Pi, camera: Machine) -> None:
    BROKEN["under-voltage now"][0](pi)
    case = pi.case()
    payload = json.loads(json.dumps(as_payload(case, examine(case))))
    jsonschema.Draft202012Validator(SCHEMA).validate(payload)
    assert payload["verdict"] == "fail"
    assert sum(payload["counts"].values()) == len(payload["checks"])
    assert {check["area"] for check in payload["checks"]} == set(AREAS)
    areas = SCHEMA["properties"]["checks"]["items"]["properties"]["area"]["enum"]
    assert tuple(areas) == AREAS


def drawn(report: Report, width: int = 80, encoding: str = "utf-8") -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(
        file=stream, width=width, force_terminal=True, color_system=None, highlight=False, emoji=False
    )
    View(console).show(report, is_root=False)
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)


def test_in_a_terminal_of_80_columns_no_line_is_cut_and_signs_and_words_do_without_colour(
    pi: Pi, camera: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    BROKEN["under-voltage now"][0](pi)
    BROKEN["a clock that nobody keeps"][0](pi)
    report = pi.examine()
    lines = drawn(report).splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("  ✗ fail    supply") for line in lines)
    assert any(line.startswith("  ! warn    synchronised") for line in lines)
    assert any(line.startswith("  ✓ pass    temperature") for line in lines)
    joined = " ".join(" ".join(lines).split())
    for line in report.lines:
        assert all(word in joined for word in line.finding.words.split() if len(word) < 40)
    assert f"{len(report.lines)} checks in" in joined
    assert "1 failed, 1 with a warning" in joined
    assert "sudo microedge doctor" in joined


def test_a_terminal_without_the_signs_gets_others(pi: Pi) -> None:
    text = drawn(pi.examine("clock"), encoding="latin-1")
    assert "+ pass    date" in text


def test_text_from_elsewhere_cannot_steer_the_terminal(pi: Pi) -> None:
    pi.shown |= {"StatusText": "\x1b[2Jrunning", "MainPID": "4711"}
    text = drawn(pi.examine("service"))
    assert "[2Jrunning" in text
    assert "\x1b" not in text


def test_the_command_prints_a_line_for_each_check_where_no_terminal_is(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code = main(["doctor", "--only", "clock", "--only", "store", "--set", f"outbox.folder={tmp_path}"])
    out = capsys.readouterr().out.splitlines()
    assert code == 0
    assert out[0].startswith("pass    clock: date: ")
    assert any(line.startswith("pass    store: folder: ") for line in out)
    assert "0 failed" in out[-1]


def test_the_exit_code_is_1_for_a_failure_and_2_for_a_wrong_command_line(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "edge", "doctor", *arguments], capture_output=True, text=True, check=False
        )

    (tmp_path / "file").write_text("")
    failed = run("--json", "--only", "store", "--set", f"outbox.folder={tmp_path}/file")
    assert failed.returncode == 1, failed.stderr
    assert json.loads(failed.stdout)["verdict"] == "fail"
    assert run("--only", "nothing").returncode == 2
    wrong = run("--set", "camera.rate_hz=9000")
    assert wrong.returncode == 2
    assert "camera.rate_hz = 9000" in wrong.stderr


def test_what_only_root_can_ask_is_not_asked_under_another_user_for_nothing(pi: Pi) -> None:
    pi.changes["euid"] = 1000
    as_user = pi.case()
    assert as_user.user.uid == MICROEDGE
    assert as_user.user.groups == {MICROEDGE, os.getgid(), 77}
    pi.shown["LoadState"] = "not-found"
    assert replace(pi.case().user, groups=frozenset()).uid == 1000
