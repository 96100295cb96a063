"""Nobody is watched in the dark: the capture LED is lit whenever the camera may be open."""

import itertools
import logging
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpiozero.pins.mock import MockFactory, MockPin

from edge.__main__ import main
from edge.app import App
from edge.config import Config, load
from edge.config import History as HistoryConfig
from edge.config import Outbox as OutboxConfig
from edge.errors import ConfigError, EdgeError
from edge.feed import Reader
from edge.frames import FrameSource
from edge.out.leds import DARK, Fault
from edge.records import Frame
from edge.store.outbox import Outbox
from tests.interlock import History

Until = Callable[..., None]
ROOT = Path(__file__).parents[1]
HISTORIES = 1000
LEAST = {
    "frames": 3000, "opened": 1000, "refused": 200, "crashed": 100, "closed": 1000, "switched on": 500,
    "pause": 500, "resume": 500, "replaced": 100, "started": 1000, "abandoned with the camera open": 50,
    "kept by its driver": 10, "stuck while opening": 10, "switch unreadable": 100, "LED dead": 100,
}  # fmt: skip
"""What all histories together must have been through, so that they prove something."""


@pytest.fixture
def outbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Outbox]:
    """The device's memory; without waits, which the histories do not need, and without a thousand warnings."""
    monkeypatch.setattr("edge.feed.RETRY_S", (0.0, 0.0))
    monkeypatch.setattr("edge.control.CLOSE_S", 0.0)
    logging.disable(logging.CRITICAL)
    outbox = Outbox(None, OutboxConfig(), HistoryConfig(days=0))
    yield outbox
    outbox.close()
    logging.disable(logging.NOTSET)


def test_the_capture_led_is_lit_whenever_the_camera_may_be_open_in_a_thousand_random_histories(
    outbox: Outbox,
) -> None:
    counts: Counter[str] = Counter()
    for seed in range(HISTORIES):
        history = History(seed, outbox)
        assert history.run() == []
        counts += history.counts
    assert {what: counts[what] for what, least in LEAST.items() if counts[what] < least} == {}


class LitTooLate(Reader):
    """Opens the camera and then lights the LED."""

    def _opened(self) -> FrameSource | None:
        source = self._open()
        self._holds_source = True
        self._light(True)
        return source


class DarkTooEarly(Reader):
    """Puts the LED out and then closes the camera."""

    def _close_source(self) -> None:
        if self._source is not None:
            self._light(False)
        super()._close_source()


@pytest.mark.parametrize("wrong", [LitTooLate, DarkTooEarly])
def test_a_reader_with_a_wrong_order_does_not_get_through(wrong: type[Reader], outbox: Outbox) -> None:
    assert any(History(seed, outbox, wrong).run() for seed in range(20))


class Camera:
    """A camera at 200 frames a second."""

    name = "test camera"
    size = (64, 48)
    nominal_rate_hz = 200.0
    duration_s: float | None = None
    start_time_ns = 1_795_000_000_000_000_000
    frames_out_of_order = 0

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.is_closed = threading.Event()

    def frames(self) -> Iterator[Frame]:
        for sequence in range(1_000_000):
            if self.is_closed.wait(0.005):
                return
            yield Frame(np.zeros((48, 64), np.uint8), sequence * 5_000_000, sequence)

    def close(self) -> None:
        self.is_closed.set()


def no_camera() -> Camera:
    pytest.fail("the camera was opened")


class Shorted(MockPin):
    """A pin that something holds low if its name is among these."""

    names: tuple[str, ...] = ()

    def _change_state(self, value: bool) -> bool:
        return bool(super()._change_state(value and self.info.name not in self.names))


@pytest.fixture
def config() -> Config:
    return load(
        None, ["device.id=bench", "mqtt.enabled=false", "switches.privacy_pin=5", "switches.identify_pin=6"]
    )


@pytest.fixture
def healths(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """What the device says of its health, at once: state and reasons."""
    said: list[tuple[str, list[str]]] = []
    monkeypatch.setattr("edge.health.LEAST_S", 0.0)
    monkeypatch.setattr(
        "edge.health.Health._send", lambda _, state, reasons, report: said.append((state, reasons))
    )
    return said


def test_a_device_with_its_privacy_switch_on_says_so_and_goes_on_when_it_is_off(
    config: Config, pins: MockFactory, until: Until, healths: list[tuple[str, list[str]]]
) -> None:
    cameras: list[Camera] = []

    def open_camera() -> Camera:
        cameras.append(Camera())
        return cameras[-1]

    with App(config, open_camera, is_live=True, pin_factory=pins) as app:
        assert app.leds is not None
        leds = app.leds
        until(lambda: app.statistics.frames > 3, "frames")
        pins.pin(5).drive_low()
        until(cameras[0].is_closed.is_set, "a closed camera, before anybody attends")
        until(lambda: not leds.state.capture, "a dark capture LED")
        app.attend()
        assert healths[-1] == ("paused", ["privacy switch"])
        assert not app.holds_camera
        pins.pin(5).drive_high()
        until(lambda: (app.attend(), len(cameras) == 2)[1], "the camera")
        pins.pin(6).drive_low()
        until(lambda: leds.state.event != DARK, "a blink of the button")


def test_a_device_that_starts_with_its_privacy_switch_on_is_well_and_has_not_opened_its_camera(
    config: Config, healths: list[tuple[str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shorted, "names", ("GPIO5",))
    with App(config, no_camera, is_live=True, pin_factory=MockFactory(pin_class=Shorted)) as app:
        app.attend()
        assert healths[-1] == ("paused", ["privacy switch"])
        assert app.leds is not None
        assert (app.leds.faults, app.leds.state.capture) == (frozenset(), False)


def test_a_camera_that_is_not_given_back_when_the_switch_is_turned_on_is_a_fault_and_not_a_pause(
    config: Config, pins: MockFactory, until: Until, healths: list[tuple[str, list[str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("edge.app.CLOSE_S", 0.05)
    answers = threading.Event()

    class Hanging(Camera):
        def frames(self) -> Iterator[Frame]:
            yield from itertools.islice(super().frames(), 5)
            answers.wait(20.0)
            yield from super().frames()

    with App(config, Hanging, is_live=True, pin_factory=pins) as app:
        until(lambda: app.media_s >= 0.02, "frames")
        pins.pin(5).drive_low()
        until(lambda: (app.attend(), healths[-1][0] == "fault")[1], "the fault")
        assert healths[-1][1][0].startswith("the camera is still open although it is paused")
        assert app.leds is not None
        assert app.leds.state.capture
        answers.set()
        until(lambda: (app.attend(), healths[-1] == ("paused", ["privacy switch"]))[1], "the pause")


def test_a_switch_that_fails_while_the_device_runs_closes_the_camera_and_shows_the_fault(
    config: Config, until: Until, healths: list[tuple[str, list[str]]]
) -> None:
    broken: list[str] = []

    class Failing(MockPin):
        def _get_state(self) -> Any:
            if self.info.name in broken:
                raise OSError("GPIO not allocated")
            return super()._get_state()

    camera = Camera()
    with App(config, lambda: camera, is_live=True, pin_factory=MockFactory(pin_class=Failing)) as app:
        until(lambda: app.statistics.frames > 3, "frames")
        broken.append("GPIO5")
        app.attend()
        until(camera.is_closed.is_set, "a closed camera")
        state, reasons = healths[-1]
        assert state == "fault"
        assert reasons[0].startswith("switches.privacy_pin = 5: cannot be read: GPIO not allocated")
        assert app.leds is not None
        assert Fault.CAMERA in app.leds.faults


def test_every_pin_that_is_taken_is_in_the_one_report_and_the_camera_was_not_opened(config: Config) -> None:
    class Taken(MockPin):
        def __init__(self, factory: Any, info: Any) -> None:
            if info.name in {"GPIO5", "GPIO17", "GPIO24"}:
                raise RuntimeError("'GPIO busy'")
            super().__init__(factory, info)

    with pytest.raises(ConfigError) as caught:
        App(config, no_camera, is_live=True, pin_factory=MockFactory(pin_class=Taken))
    lines = str(caught.value).splitlines()[:3]
    names = [line.split(" = ")[0] for line in lines]
    assert names == ["leds.capture_pin", "leds.fault_pin", "switches.privacy_pin"]
    assert all("`gpioinfo`" in line for line in lines)


def test_a_capture_led_that_stays_dark_at_the_start_keeps_the_camera_closed(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shorted, "names", ("GPIO17",))
    with pytest.raises(EdgeError, match=r"leds\.capture_pin = 17: stays dark"):
        App(config, no_camera, is_live=True, pin_factory=MockFactory(pin_class=Shorted))


@pytest.mark.parametrize("source", ["picamera2", "webcam"])
def test_a_camera_is_not_configured_without_its_capture_led(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f'[camera]\nsource = "{source}"\n[leds]\nenabled = false\n')
    for command in (["run"], ["config", "check"]):
        assert main([*command, "--config", str(path), "--set", "mqtt.port=0"]) == 2
        said = capsys.readouterr().err
        assert f'leds.enabled = false: must be true while camera.source = "{source}"' in said
        assert "mqtt.port = 0" in said  # every mistake at once
    assert main(["config", "check", "--config", str(path), "--set", "camera.source=synthetic"]) == 0
    assert not load(path).leds.enabled  # what opens no camera does not ask


HUNG = """
import os, sys, threading
import numpy as np
from gpiozero.pins.mock import MockPin
from edge.commands import run
from edge.__main__ import main
from edge.errors import StuckError
from edge.records import Frame
from tests.test_interlock import Camera

class Hung(Camera):
    def __init__(self):
        super().__init__()
        if sys.argv[2] == "opening":
            tell("hangs")
            raise StuckError("camera 0: hangs, and may be on")

    def frames(self):
        yield Frame(np.zeros((48, 64), np.uint8), 0, 0)
        tell("hangs")
        threading.Event().wait()

def tell(what):
    os.write(1, f"{what}\\n".encode())

set_function, set_state = MockPin._set_function, MockPin._set_state
MockPin._set_function = lambda pin, value: (set_function(pin, value), tell(f"{pin.info.name} is an {value}"))
MockPin._set_state = lambda pin, value: (set_state(pin, value), tell(f"{pin.info.name} = {int(value)}"))
run.open_camera = lambda config: Hung()
sys.exit(main(["run", "--set", "mqtt.enabled=false", "--set", "outbox.folder=" + sys.argv[1]]))
"""


@pytest.mark.parametrize(("when", "status"), [("reading", 0), ("opening", 1)])
def test_the_led_of_a_camera_that_its_driver_never_gives_back_is_lit_until_the_process_ends(
    when: str, status: int, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HUNG, str(tmp_path), when], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=ROOT, env=os.environ | {"GPIOZERO_PIN_FACTORY": "mock", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line.strip())
        if seen[-1] == "hangs" and when == "reading":
            process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, "was not given back by its driver" in errors) == (status, True), errors
    assert ("microedge: camera 0: hangs, and may be on" in errors) == (when == "opening")
    of_capture = [what for what in seen if what.startswith("GPIO17 ")]
    assert of_capture[-1] == "GPIO17 = 1"
    assert "GPIO24 is an input" in seen[seen.index("hangs") :]  # the other LEDs have gone out in order
