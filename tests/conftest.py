"""Real parts that several tests share."""

import getpass
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from edge.frames.portrait import load_portrait, portrait_landmarks
from edge.frames.script import Script
from edge.frames.synthetic import SyntheticSource
from edge.records import ActionUnit, Event, Quality, Spot

MOSQUITTO = shutil.which(
    "mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/sbin"
)


def wait_until(condition: Callable[[], Any], what: str, limit_s: float = 20.0) -> None:
    """Look again until `condition` holds; fail the test, naming `what`, when it does not come true."""
    deadline_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline_s:
            pytest.fail(f"waited {limit_s:g} s in vain for: {what}")
        time.sleep(0.005)


@pytest.fixture
def until() -> Callable[..., None]:
    return wait_until


class Broker:
    """A mosquitto of its own on a free loopback port, which tests may stop and start again."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._config = folder / "mosquitto.conf"
        self._log = folder / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, access: str = "allow_anonymous true") -> None:
        assert MOSQUITTO is not None
        # When root starts it, mosquitto changes to a user who could not read the test's files.
        user = getpass.getuser()
        self._config.write_text(f"listener {self.port} 127.0.0.1\n{access}\nuser {user}\n")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([MOSQUITTO, "-c", self._config], stdout=log, stderr=log)
        wait_until(self._answers, f"mosquitto on port {self.port}: {self._log.read_text()}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture(scope="session")
def shared_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One running mosquitto for all tests that leave it alone; use a topic of your own."""
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    broker = Broker(tmp_path_factory.mktemp("mosquitto"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Broker]:
    """A mosquitto that the test starts and stops itself; not running at first."""
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    broker = Broker(tmp_path)
    yield broker
    broker.stop()


_prefixes = count()


@pytest.fixture
def topic_prefix() -> str:
    """A topic that no other test uses."""
    return f"test/{next(_prefixes)}"


@pytest.fixture
def make_event() -> Callable[..., Event]:
    """Give the event of the design document, with fields of the event or its spot replaced by name."""

    def make(**changes: Any) -> Event:
        spot = Spot(
            face_id=1, onset_ns=12_415_000_000, apex_ns=12_460_000_000, offset_ns=12_530_000_000, score=0.94,
            probabilities=(0.02, 0.05, 0.11, 0.03, 0.71, 0.02, 0.03, 0.03),
            action_units=(ActionUnit("AU9", "both", 0.83),), regions=(0.1, 0.2, 0.9, 0.4),
            intensity_iod=0.011, confusers=(0.0,) * 5,
        )  # fmt: skip
        of_spot = {field.name for field in fields(Spot)} & changes.keys()
        spot = replace(spot, **{name: changes[name] for name in of_spot})
        event = Event(spot, "disgust", 0.71, Quality(199.8, 0, 2.1, 212.0, True, 0.000412))
        return replace(event, **{name: value for name, value in changes.items() if name not in of_spot})

    return make


@pytest.fixture(scope="session")
def clear_portrait() -> SyntheticSource:
    """Two and a half seconds of the portrait at 200 frames/s with clear micro-expressions."""
    script = Script(
        micro_per_min=60.0, micro_duration_ms=(100.0, 180.0), micro_peak_iod=(0.024, 0.025), blink_per_min=0.0,
        emotions=("surprise", "happiness"), quiet_start_s=0.8,
    )  # fmt: skip
    return SyntheticSource(
        load_portrait(),
        portrait_landmarks(),
        seconds=2.6,
        size=(320, 240),
        seed=5,
        script=script,
        face_px=120.0,
    )
