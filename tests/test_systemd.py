"""The service manager hears what is true, and accepts the unit."""

import configparser
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from edge.out.systemd import Notifier, Part, Watchdog

UNITS = Path(__file__).parents[1] / "systemd"


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


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    if (analyze := shutil.which("systemd-analyze")) is None:
        pytest.skip("systemd-analyze is not installed")
    text = (UNITS / "microedge.service").read_text()
    # The check wants the program to exist; nothing else of the unit is changed.
    program = "/opt/microedge/bin/microedge"
    assert f"ExecStart={program} run --config /etc/microedge/config.toml\n" in text
    unit = tmp_path / "microedge.service"
    unit.write_text(text.replace(program, "/bin/true"))
    done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if "microedge" in line]
    assert (done.returncode, complaints) == (0, [])


def test_the_unit_is_supervised_by_progress_and_gives_up_on_a_wrong_configuration() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNITS / "microedge.service")
    service = unit["Service"]
    assert (service["Type"], service["User"], service["Restart"]) == ("notify", "microedge", "on-failure")
    assert service["RestartPreventExitStatus"] == "2"
    assert int(service["WatchdogSec"]) > 0
    assert service["WorkingDirectory"] == "%S/" + service["StateDirectory"]
    assert int(unit["Unit"]["StartLimitBurst"]) > 0


def test_the_user_and_every_group_of_the_unit_are_declared(tmp_path: Path) -> None:
    if (sysusers := shutil.which("systemd-sysusers")) is None:
        pytest.skip("systemd-sysusers is not installed")
    (tmp_path / "etc").mkdir()
    done = subprocess.run(
        [sysusers, f"--root={tmp_path}", "--dry-run", UNITS / "microedge.sysusers"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    for group in ("gpio", "plugdev", "video", "microedge"):
        assert f"Creating group '{group}'" in done.stdout + done.stderr
    assert "Creating user 'microedge'" in done.stdout + done.stderr
