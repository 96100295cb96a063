"""The privacy switch closes the camera whatever else is going on, and opens it only when it is certainly off."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpiozero.pins.mock import MockFactory, MockPin

from edge.config import Switches as SwitchesConfig
from edge.errors import ConfigError
from edge.feed import PausedBy, Reader
from edge.frame_queue import FrameQueue
from edge.records import Frame
from edge.switches import PRESS_S, STEADY_S, Switches

Until = Callable[..., None]
PRIVACY, IDENTIFY = 5, 6
CONFIG = SwitchesConfig(privacy_pin=PRIVACY, identify_pin=IDENTIFY)


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Camera:
    """Gives a frame each millisecond and tells whether it is open."""

    name = "test camera"
    nominal_rate_hz = 1000.0
    size = (8, 6)
    duration_s: float | None = None
    start_time_ns = frames_out_of_order = 0

    def __init__(self, bench: "Bench") -> None:
        self.warnings = list[str]()
        self._bench = bench
        bench.is_open = True
        bench.opened += 1

    def frames(self) -> Iterator[Frame]:
        for sequence in range(1_000_000):
            time.sleep(0.001)  # a camera's pace
            yield Frame(np.zeros((6, 8), np.uint8), sequence * 1_000_000, sequence)

    def close(self) -> None:
        self._bench.is_open = False


class Bench:
    """Switches on simulated pins, and a reader that they act upon."""

    def __init__(self, config: SwitchesConfig = CONFIG, pin_class: Any = MockPin) -> None:
        self.pins, self.clock = MockFactory(pin_class=pin_class), Clock()
        self.is_open, self.opened, self.identified = False, 0, 0
        self.config = config
        self.switches: Switches | None = None

    def start(self) -> Reader:
        """Start as the device does: the switch is read first."""
        self.switches = Switches(
            self.config, identify=self._identify, pin_factory=self.pins, clock_s=self.clock
        )
        self.reader = Reader(
            lambda: Camera(self), FrameQueue(4, drops_oldest=True), is_live=True,
            light=lambda _: None, retried=lambda: None,
            paused=[PausedBy.SWITCH] if self.switches.is_private else [],
        )  # fmt: skip
        self.switches.watch(self.reader)
        self.reader.start()
        return self.reader

    def _identify(self) -> None:
        self.identified += 1

    def turn(self, on: bool) -> None:
        """Close or open the contact to ground."""
        pin = self.pins.pin(PRIVACY)
        (pin.drive_low if on else pin.drive_high)()

    def attend(self, after_s: float = 0.0) -> None:
        assert self.switches is not None
        self.clock.now_s += after_s
        self.switches.attend()

    def stop(self) -> None:
        if self.switches is not None:
            self.reader.close(20.0)
            self.switches.close()
        self.pins.reset()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr("edge.feed.RETRY_S", (0.001, 0.004))
    bench = Bench()
    yield bench
    bench.stop()


def test_turning_the_switch_on_closes_the_camera_without_help_of_the_main_thread(
    bench: Bench, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    reader = bench.start()
    assert bench.is_open
    watching = threading.Thread(target=bench.turn, args=(True,))  # gpiozero calls from such a thread
    watching.start()
    until(lambda: not bench.is_open, "a closed camera")
    watching.join()
    assert reader.paused_by == {PausedBy.SWITCH}
    assert caplog.messages.count("privacy switch: on, the camera closes") == 1


def test_the_camera_is_back_once_the_switch_has_been_off_for_a_while(bench: Bench, until: Until) -> None:
    reader = bench.start()
    bench.turn(True)
    until(lambda: not bench.is_open, "a closed camera")
    bench.attend(STEADY_S)
    bench.turn(False)
    bench.attend(STEADY_S * 0.9)
    assert reader.is_paused
    bench.attend(STEADY_S * 0.2)
    assert not reader.is_paused
    until(lambda: bench.is_open, "the camera")


def test_a_bouncing_switch_never_opens_the_camera(bench: Bench) -> None:
    reader = bench.start()
    bench.turn(True)
    for _ in range(50):
        bench.turn(False)
        bench.attend(STEADY_S * 0.6)
        assert reader.is_paused
        bench.turn(True)
        bench.attend(STEADY_S * 0.6)
        assert reader.is_paused


def test_a_switch_that_is_on_at_the_start_keeps_the_camera_from_being_opened_at_all(
    bench: Bench, until: Until
) -> None:
    pin = bench.pins.pin(PRIVACY, pin_class=HeldLow)
    assert pin.state == 0
    reader = bench.start()
    assert bench.switches is not None
    assert bench.switches.is_private
    assert reader.paused_by == {PausedBy.SWITCH}
    bench.attend(10 * STEADY_S)
    assert (bench.opened, reader.is_paused) == (0, True)


class HeldLow(MockPin):
    """A pin that a closed contact keeps low whatever its pull-up."""

    def _change_state(self, value: bool) -> bool:
        return bool(super()._change_state(False))


def test_a_switch_that_is_turned_on_while_the_camera_opens_at_the_start_is_not_missed(
    bench: Bench, until: Until
) -> None:
    bench.switches = Switches(CONFIG, pin_factory=bench.pins, clock_s=bench.clock)
    bench.reader = Reader(
        lambda: Camera(bench), FrameQueue(4, drops_oldest=True), is_live=True,
        light=lambda _: None, retried=lambda: None,
    )  # fmt: skip
    bench.turn(True)
    assert bench.is_open
    bench.switches.watch(bench.reader)
    bench.reader.start()
    until(lambda: not bench.is_open, "a closed camera")


def test_an_edge_that_got_lost_is_seen_when_the_pin_is_looked_at_next(bench: Bench, until: Until) -> None:
    bench.start()
    bench.pins.pin(PRIVACY)._state = False  # as a driver does that loses interrupts
    assert bench.is_open
    bench.attend()
    until(lambda: not bench.is_open, "a closed camera")


def test_switch_and_command_both_have_to_end_their_pause(bench: Bench, until: Until) -> None:
    reader = bench.start()
    bench.turn(True)
    reader.pause()
    bench.turn(False)
    bench.attend(2 * STEADY_S)
    assert reader.paused_by == {PausedBy.COMMAND}
    bench.turn(True)
    reader.resume()
    assert reader.paused_by == {PausedBy.SWITCH}
    bench.turn(False)
    bench.attend(2 * STEADY_S)
    until(lambda: bench.is_open, "the camera")


def test_with_a_normally_closed_contact_a_broken_wire_is_privacy(bench: Bench, until: Until) -> None:
    bench.config = SwitchesConfig(privacy_pin=PRIVACY, privacy_contact="normally_closed")
    reader = bench.start()
    assert (bench.opened, reader.paused_by) == (0, {PausedBy.SWITCH})
    bench.turn(True)  # closed: in order, and off
    bench.attend(2 * STEADY_S)
    until(lambda: bench.is_open, "the camera")
    bench.turn(False)
    until(lambda: not bench.is_open, "a closed camera")


class Unreadable(MockPin):
    """A pin whose driver fails while it is `broken`."""

    broken = False

    def _get_state(self) -> Any:
        if self.broken:
            raise OSError("GPIO not allocated")
        return super()._get_state()


def test_a_switch_that_cannot_be_read_keeps_the_camera_closed_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, until: Until
) -> None:
    monkeypatch.setattr("edge.feed.RETRY_S", (0.001, 0.004))
    bench = Bench(pin_class=Unreadable)
    reader = bench.start()
    monkeypatch.setattr(Unreadable, "broken", True)
    bench.attend()
    bench.attend(STEADY_S)
    until(lambda: not bench.is_open, "a closed camera")
    assert bench.switches is not None
    assert bench.switches.problem == (
        "switches.privacy_pin = 5: cannot be read: GPIO not allocated; "
        "the camera stays closed, as if the switch were on"
    )
    assert caplog.text.count("cannot be read") == 1
    monkeypatch.setattr(Unreadable, "broken", False)
    bench.attend(2 * STEADY_S)
    assert (bench.switches.problem, reader.is_paused) == ("", False)
    bench.stop()


def test_the_button_identifies_once_per_press(bench: Bench) -> None:
    bench.start()
    button = bench.pins.pin(IDENTIFY)
    for _ in range(3):
        button.drive_low()
        button.drive_high()
    assert bench.identified == 1
    bench.clock.now_s += PRESS_S
    button.drive_low()
    assert bench.identified == 2


def test_switches_that_are_absent_take_no_pins_and_ask_for_nothing() -> None:
    bench = Bench(SwitchesConfig())
    reader = bench.start()
    bench.attend(1.0)
    assert bench.switches is not None
    assert (bench.pins.pins, bench.switches.is_private, reader.is_paused) == ({}, False, False)
    bench.stop()


def test_pins_that_cannot_be_had_are_named_with_what_to_do() -> None:
    pins = MockFactory()
    first = Switches(CONFIG, pin_factory=pins)
    with pytest.raises(ConfigError) as caught:
        Switches(CONFIG, pin_factory=pins)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "switches.privacy_pin = 5", "switches.identify_pin = 6",
    ]  # fmt: skip
    first.close()
    Switches(CONFIG, pin_factory=pins).close()


def test_after_the_end_an_edge_does_nothing(bench: Bench, tmp_path: Path) -> None:
    reader = bench.start()
    assert bench.switches is not None
    bench.switches.close()
    bench.turn(True)
    bench.attend()
    assert not reader.is_paused
