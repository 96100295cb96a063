"""The service manager hears what is true, and accepts the unit."""

import configparser
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from edge.feed import RETRY_S
from edge.inference import edgetpu
from edge.out.systemd import Notifier, Part, Watchdog

UNITS = Path(__file__).parents[1] / "systemd"
SERVICES = ("microedge.service", "microedge-fault.service")
PROGRAM = "/opt/microedge/bin/microedge"


class Manager:
    """The receiving end of NOTIFY_SOCKET."""

    def __init__(self, name: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + name[1:] if name.startswith("@") else name)
        self.socket.setblocking(False)
        self.environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000000"}

    def heard(self) -> list[str]:
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return messages


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    if request.param == "abstract" and not sys.platform.startswith("linux"):
        pytest.skip("abstract sockets exist on Linux alone")
    manager = Manager(
        f"@microedge-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    )
    yield manager
    manager.socket.close()


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_the_manager_hears_every_change_of_state(manager: Manager) -> None:
    notifier = Notifier(manager.environment)
    assert notifier.is_supervised
    notifier.ready()
    notifier.status("running at 199.8 Hz\nbroker away")
    notifier.stopping()
    assert manager.heard() == ["READY=1", "STATUS=running at 199.8 Hz broker away", "STOPPING=1"]
    notifier.close()
    notifier.ready()
    assert manager.heard() == []


def all_move(watchdog: Watchdog) -> None:
    for part in Part:
        watchdog.progress(part)


def test_progress_of_every_part_becomes_a_heartbeat_at_most_every_third_of_the_limit(
    manager: Manager,
) -> None:
    clock = Clock()
    watchdog = Watchdog(Notifier(manager.environment), manager.environment, clock)
    assert manager.heard() == []
    for _ in range(6000):
        all_move(watchdog)
        clock.now_s += 0.005
    assert manager.heard() == ["WATCHDOG=1"] * 3


@pytest.mark.parametrize("hung", Part)
def test_while_any_part_hangs_there_is_no_heartbeat_and_the_log_names_it_once(
    manager: Manager, caplog: pytest.LogCaptureFixture, hung: Part
) -> None:
    clock = Clock()
    watchdog = Watchdog(Notifier(manager.environment), manager.environment, clock)
    all_move(watchdog)
    assert manager.heard() == ["WATCHDOG=1"]
    for _ in range(100):
        clock.now_s += 1
        for part in set(Part) - {hung}:
            watchdog.progress(part)
    assert manager.heard() == []
    assert caplog.text.count("no progress of") == 1
    assert f"no progress of {hung} for 15 s; after 30 s" in caplog.text
    watchdog.progress(hung)
    assert manager.heard() == ["WATCHDOG=1"]


def test_a_part_that_has_never_moved_is_named_too(manager: Manager, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    watchdog = Watchdog(Notifier(manager.environment), manager.environment, clock)
    for _ in range(20):
        watchdog.progress(Part.OUTBOX)
        clock.now_s += 1
    assert manager.heard() == []
    assert "no progress of camera and control and inference for 15 s" in caplog.text


def test_a_part_may_take_its_time_within_the_limit(manager: Manager) -> None:
    """A camera that is away is tried every 8 s; heartbeats go on coming at a third of the limit, 10 s."""
    clock = Clock()
    watchdog = Watchdog(Notifier(manager.environment), manager.environment, clock)
    heard_s = []
    for step in range(1000):
        clock.now_s += 0.1
        for part in (Part.OUTBOX, Part.CONTROL):
            watchdog.progress(part)
        if step % 80 == 0:
            watchdog.progress(Part.CAMERA)
            watchdog.progress(Part.INFERENCE)
        heard_s += [clock.now_s] * len(manager.heard())
    assert max(later - earlier for earlier, later in pairwise(heard_s)) < 10.2


def test_without_any_progress_there_is_no_heartbeat(manager: Manager) -> None:
    clock = Clock()
    watchdog = Watchdog(Notifier(manager.environment), manager.environment, clock)
    all_move(watchdog)
    clock.now_s += 1000
    assert manager.heard() == ["WATCHDOG=1"]


@pytest.mark.parametrize(
    "changes",
    [{"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": ""}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "0"}],
)
def test_a_limit_for_nobody_or_for_another_process_is_left_alone(
    manager: Manager, changes: dict[str, str]
) -> None:
    environment = manager.environment | changes
    all_move(Watchdog(Notifier(environment), environment, Clock()))
    assert manager.heard() == []


def test_a_limit_for_this_process_is_kept(manager: Manager) -> None:
    environment = manager.environment | {"WATCHDOG_PID": str(os.getpid())}
    all_move(Watchdog(Notifier(environment), environment, Clock()))
    assert manager.heard() == ["WATCHDOG=1"]


def test_without_a_manager_every_call_does_nothing() -> None:
    notifier = Notifier({})
    assert not notifier.is_supervised
    notifier.ready()
    notifier.status("running")
    all_move(Watchdog(notifier, {}))
    notifier.stopping()
    notifier.close()


def test_a_manager_that_does_not_read_stops_nothing_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = Manager(str(tmp_path / "notify"))
    notifier = Notifier(manager.environment)
    for _ in range(5000):
        notifier.heartbeat()
    assert caplog.text.count("NOTIFY_SOCKET") == 1
    manager.heard()
    notifier.ready()
    assert manager.heard() == ["READY=1"]
    manager.socket.close()
    notifier.close()


def settings_of(name: str) -> configparser.ConfigParser:
    """Read a file of systemd's; of a key that stands there several times, the last."""
    parsed = configparser.ConfigParser(strict=False, interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read_string((UNITS / name).read_text())
    return parsed


@pytest.fixture
def analyze() -> str:
    if (found := shutil.which("systemd-analyze")) is None:
        pytest.skip("systemd-analyze is not installed")
    return found


def test_systemd_accepts_the_units(tmp_path: Path, analyze: str) -> None:
    for name in SERVICES:
        text = (UNITS / name).read_text()
        # The check wants the program to exist; nothing else of a unit is changed.
        assert f"\nExecStart={PROGRAM} " in text
        (tmp_path / name).write_text(text.replace(PROGRAM, "/bin/true"))
    done = subprocess.run(
        [analyze, "verify", "--man=no", *(tmp_path / name for name in SERVICES)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    complaints = [line for line in done.stderr.splitlines() if "microedge" in line]
    assert (done.returncode, complaints) == (0, [])


@pytest.mark.parametrize(("name", "most"), [("microedge.service", 1.5), ("microedge-fault.service", 1.0)])
def test_the_units_are_closed_to_all_that_they_do_not_need(name: str, most: float, analyze: str) -> None:
    done = subprocess.run(
        [analyze, "security", "--offline=yes", "--no-pager", UNITS / name],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    score = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert score is not None, done.stderr
    print(score[0])
    assert float(score[1]) <= most, done.stdout


def test_the_unit_is_supervised_by_progress_and_gives_up_on_a_wrong_configuration_alone() -> None:
    unit = settings_of("microedge.service")
    service = unit["Service"]
    assert (service["Type"], service["User"], service["Restart"]) == ("notify", "microedge", "always")
    assert service["RestartPreventExitStatus"] == "2"
    # A start limit would end a device for good that was without its camera for an hour.
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    assert unit["Unit"]["OnFailure"] == "microedge-fault.service"
    # Twice what a camera that is away takes at most from one sign of life to the next.
    assert int(service["WatchdogSec"]) >= 2 * RETRY_S[1]
    assert service["WorkingDirectory"] == "%t/" + service["RuntimeDirectory"]
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert service["LimitCORE"] == "0"


def test_the_unit_waits_for_no_network_and_no_clock() -> None:
    text = (UNITS / "microedge.service").read_text()
    assert not {"network-online.target", "time-sync.target"} & set(text.split())


def test_every_device_class_that_the_units_open_is_one_of_the_kernel_s() -> None:
    """Source: the names in /proc/devices, which drivers/media, drivers/dma-buf, gpiolib, usb and gasket register."""
    known = {"video4linux", "media", "dma_heap", "gpiochip", "usb_device", "apex"}
    for name in SERVICES:
        lines = [line for line in (UNITS / name).read_text().splitlines() if line.startswith("DeviceAllow=")]
        assert lines
        assert {line.removeprefix("DeviceAllow=char-") for line in lines} <= {f"{each} rw" for each in known}


def test_the_user_and_every_group_of_the_units_are_declared(tmp_path: Path) -> None:
    if (sysusers := shutil.which("systemd-sysusers")) is None:
        pytest.skip("systemd-sysusers is not installed")
    (tmp_path / "etc").mkdir()
    done = subprocess.run(
        [sysusers, f"--root={tmp_path}", "--dry-run", UNITS / "microedge.sysusers"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    said = done.stdout + done.stderr
    for name in SERVICES:
        service = settings_of(name)["Service"]
        for group in (service["Group"], *service["SupplementaryGroups"].split()):
            assert f"Creating group '{group}'" in said
        assert f"Creating user '{service['User']}'" in said


def test_configuration_and_credentials_get_owners_and_modes_that_keep_others_out(tmp_path: Path) -> None:
    if (tmpfiles := shutil.which("systemd-tmpfiles")) is None:
        pytest.skip("systemd-tmpfiles is not installed")
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    folder = tmp_path / "etc/microedge/credentials"
    folder.mkdir(parents=True, mode=0o777)
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nmicroedge:x:990:991::/:/bin/sh\n")
    (tmp_path / "etc/group").write_text("root:x:0:\nmicroedge:x:991:\n")
    for file in (folder / "password", folder.parent / "config.toml"):
        file.write_text("")
        file.chmod(0o666)
        os.chown(file, 990, 991)
    subprocess.run(
        [tmpfiles, f"--root={tmp_path}", "--create", UNITS / "microedge.tmpfiles"],
        check=True,
        capture_output=True,
    )

    def found(path: Path) -> tuple[int, int, str]:
        status = path.stat()
        return status.st_uid, status.st_gid, stat.filemode(status.st_mode)

    assert found(folder) == (0, 0, "drwx------")
    assert found(folder / "password") == (0, 0, "-rw-------")
    assert found(folder.parent / "config.toml") == (0, 991, "-rw-r-----")


def test_the_coral_s_rule_knows_both_of_its_names(tmp_path: Path) -> None:
    rules = UNITS / "60-microedge-coral.rules"
    text = rules.read_text()
    for vendor, product in edgetpu.USB_IDS:
        assert f'ATTR{{idVendor}}=="{vendor}", ATTR{{idProduct}}=="{product}", MODE="0660"' in text
    udevadm = shutil.which("udevadm")
    if (
        udevadm is None
        or "verify"
        not in subprocess.run([udevadm, "--help"], capture_output=True, text=True, check=False).stdout
    ):
        pytest.skip("udevadm verify is not here (systemd 254 has it)")
    subprocess.run([udevadm, "verify", rules], check=True)


def test_the_hardware_watchdog_is_one_that_a_raspberry_pi_has() -> None:
    """Source: drivers/watchdog/bcm2835_wdt.c, PM_WDOG_TIME_SET: 20 bits of 1/65536 s."""
    most_s = 0xFFFFF / 65536
    seconds = settings_of("system.conf.d/60-microedge-watchdog.conf")["Manager"]["RuntimeWatchdogSec"]
    assert 5 <= int(seconds) < most_s
