"""The LEDs tell truly, and without need of colour, on gpiozero's own simulated pins."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from gpiozero.pins.mock import MockFactory, MockPin
from numpy.typing import NDArray

from edge.config import Leds as LedsConfig
from edge.errors import ConfigError, PinError
from edge.out.leds import (
    BLINK_S,
    DARK,
    PAUSE_S,
    SIGNALS,
    WHITE,
    Fault,
    Leds,
    LedState,
    event_steps,
    fault_steps,
    identify_steps,
)
from edge.records import EMOTIONS, Event

CONFIG = LedsConfig(pulse_ms=100)
OFF = LedState(capture=False, event=DARK, fault=False)

MakeEvent = Callable[..., Event]
Until = Callable[..., None]


@pytest.fixture
def leds(pins: MockFactory) -> Iterator[Leds]:
    leds = Leds(CONFIG, pin_factory=pins)
    yield leds
    leds.close()


def blinks(pins: MockFactory, pin: int) -> int:
    """How often the pin has gone from low to high."""
    states = [state.state for state in pins.pin(pin).states]
    return sum(after and not before for before, after in itertools.pairwise(states))


def test_the_capture_led_is_lit_exactly_while_frames_are_read(leds: Leds, pins: MockFactory) -> None:
    assert leds.state == OFF
    leds.capture(True)
    assert leds.state.capture
    assert pins.pin(CONFIG.capture_pin).state == 1
    leds.capture(False)
    assert leds.state == OFF


def test_each_emotion_has_a_rhythm_of_its_own_so_that_no_colour_need_be_told() -> None:
    assert set(SIGNALS) == {*EMOTIONS, "other", "uncertain"}
    rhythms = [rhythm for _, rhythm in SIGNALS.values()]
    assert len(set(rhythms)) == len(rhythms)


def test_the_seven_emotions_have_seven_colours() -> None:
    assert len({SIGNALS[emotion][0] for emotion in EMOTIONS} - {DARK}) == 7


# What is seen of linear red, green and blue without one kind of cone. Source: Machado, Oliveira and Fernandes, "A
# physiologically-based model for simulation of color vision deficiency", IEEE TVCG 15(6), 2009, table for severity 1.
WITHOUT = {
    "red": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "green": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "blue": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}


def lab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give CIE L*a*b* (D65) of linear sRGB; two of 25 apart are told apart at a glance."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(to_xyz) @ np.clip(rgb, 0, 1) / np.array([0.9505, 1.0, 1.0888])
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def units(rhythm: str) -> list[int]:
    """Lit and dark in ninths of the pulse."""
    lit = [unit for mark in rhythm for unit in [1] * (3 if mark == "-" else 1) + [0]]
    return lit + [0] * (12 - len(lit))


@pytest.mark.parametrize(
    ("cones", "alike"),
    [
        ("red", {"happiness disgust", "surprise contempt"}),
        ("green", {"happiness disgust", "surprise contempt"}),
        ("blue", {"happiness contempt", "disgust surprise"}),
    ],
)
def test_colours_that_people_without_some_cones_confuse_have_rhythms_that_nobody_does(
    cones: str, alike: set[str]
) -> None:
    seen = {name: lab(np.array(WITHOUT[cones]) @ np.array(SIGNALS[name][0], float)) for name in EMOTIONS}
    confused = {
        f"{one} {other}"
        for one, other in itertools.combinations(EMOTIONS, 2)
        if np.linalg.norm(seen[one] - seen[other]) < 25
    }
    assert confused == alike
    for one, other in (pair.split() for pair in confused):
        pair = zip(units(SIGNALS[one][1]), units(SIGNALS[other][1]), strict=True)
        assert sum(a != b for a, b in pair) >= 2


@pytest.mark.parametrize("emotion", [*SIGNALS, None])
def test_a_signal_fits_into_its_pulse_and_ends_dark(emotion: str | None) -> None:
    steps = event_steps(emotion, 600)
    assert steps[-1][0] == DARK
    assert sum(seconds for _, seconds in steps) <= 0.6 + 1e-9


def test_an_event_shows_its_colour_in_its_rhythm(
    leds: Leds, pins: MockFactory, make_event: MakeEvent, until: Until
) -> None:
    leds.show(make_event(emotion="fear"))
    until(lambda: blinks(pins, CONFIG.red_pin) == 2 and leds.state == OFF, "two blinks")
    assert blinks(pins, CONFIG.blue_pin) == 2
    assert blinks(pins, CONFIG.green_pin) == 0


def test_movement_alone_shows_no_emotion(
    leds: Leds, pins: MockFactory, make_event: MakeEvent, until: Until
) -> None:
    leds.show(make_event(emotion=None))
    until(lambda: blinks(pins, CONFIG.blue_pin) == 1 and leds.state == OFF, "one white blink")
    assert [blinks(pins, pin) for pin in (CONFIG.red_pin, CONFIG.green_pin)] == [1, 1]


def test_a_newer_event_cuts_an_older_one_short(make_event: MakeEvent, until: Until) -> None:
    pins = MockFactory()
    leds = Leds(LedsConfig(pulse_ms=5000), pin_factory=pins)
    leds.show(make_event(emotion="sadness"))
    until(lambda: leds.state.event == SIGNALS["sadness"][0], "blue")
    leds.show(make_event(emotion="anger"))
    until(lambda: leds.state.event == SIGNALS["anger"][0], "red")
    leds.close()
    pins.reset()


def test_a_fault_blinks_its_number_and_faults_take_turns() -> None:
    steps = fault_steps([Fault.BROKER, Fault.CAMERA])
    blink, pause = [(WHITE, BLINK_S), (DARK, BLINK_S)], [(DARK, PAUSE_S)]
    assert steps == blink * 2 + pause + blink * 4 + pause


def test_the_fault_led_blinks_until_the_fault_is_gone(leds: Leds, until: Until) -> None:
    leds.fault(Fault.BROKER, True)
    until(lambda: leds.state.fault, "the fault LED")
    assert leds.faults == {Fault.BROKER}
    leds.fault(Fault.BROKER, True)
    leds.fault(Fault.BROKER, False)
    until(lambda: leds.state == OFF, "all dark")
    assert leds.faults == frozenset()


def test_closing_leaves_every_led_dark_and_may_be_repeated(leds: Leds, make_event: MakeEvent) -> None:
    leds.capture(True)
    leds.capture(False)
    leds.fault(Fault.CAMERA, True)
    leds.show(make_event(emotion="sadness"))
    leds.close()
    leds.close()
    assert leds.state == OFF
    leds.show(make_event(emotion="sadness"))
    assert leds.state == OFF
    with pytest.raises(PinError, match=r"leds\.capture_pin = 17: has been given back"):
        leds.capture(True)


def test_a_lit_capture_led_stays_so_while_a_driver_may_hold_the_camera_even_when_all_else_is_closed(
    leds: Leds, pins: MockFactory, until: Until
) -> None:
    leds.capture(True)
    leds.fault(Fault.CAMERA, True)
    until(lambda: leds.state.fault, "the fault LED")
    leds.close()
    assert leds.state == LedState(capture=True, event=DARK, fault=False)
    assert pins.pin(CONFIG.capture_pin).state == 1
    leds.capture(False)  # the driver has let the camera go after all
    assert leds.state == OFF
    Leds(CONFIG, pin_factory=pins).close()  # and every pin is free


def test_leds_that_are_lit_by_a_low_pin_are_dark_at_first_and_at_the_end(
    pins: MockFactory, make_event: MakeEvent, until: Until
) -> None:
    config = LedsConfig(active_high=False, common_anode=True, pulse_ms=100)
    leds = Leds(config, pin_factory=pins)
    every = (config.capture_pin, config.red_pin, config.green_pin, config.blue_pin, config.fault_pin)
    assert leds.state == OFF
    assert [pins.pin(pin).state for pin in every] == [1] * 5
    leds.capture(True)
    assert leds.state.capture
    assert pins.pin(config.capture_pin).state == 0
    leds.show(make_event(emotion="anger"))
    until(lambda: leds.state.event == SIGNALS["anger"][0], "red")
    leds.fault(Fault.CAMERA, True)
    until(lambda: leds.state.fault and pins.pin(config.fault_pin).state == 0, "the fault LED")
    leds.capture(False)
    leds.close()
    assert leds.state == OFF


class StuckPin(MockPin):
    """A pin that a short circuit holds low."""

    def _change_state(self, value: bool) -> bool:
        return bool(super()._change_state(False))


class BrokenPin(MockPin):
    """A pin whose driver fails once it is `broken`."""

    broken = False

    def _set_state(self, value: Any) -> None:
        if self.broken:
            raise OSError("bad GPIO level")
        super()._set_state(value)


class TakenPin(MockPin):
    """lgpio's answer when another process has the pin."""

    taken = (22, 24)

    def __init__(self, factory: Any, info: Any) -> None:
        if int(info.name.removeprefix("GPIO")) in self.taken:
            raise RuntimeError("'GPIO busy'")
        super().__init__(factory, info)


def test_a_capture_led_that_does_not_light_up_is_an_error() -> None:
    leds = Leds(CONFIG, pin_factory=MockFactory(pin_class=StuckPin))
    with pytest.raises(PinError, match=r"leds\.capture_pin = 17: stays dark"):
        leds.capture(True)
    leds.capture(False)
    leds.close()


def test_a_pin_that_fails_is_an_error_only_where_light_is_promised(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, make_event: MakeEvent, until: Until
) -> None:
    leds = Leds(CONFIG, pin_factory=MockFactory(pin_class=BrokenPin))
    leds.capture(True)
    monkeypatch.setattr(BrokenPin, "broken", True)
    leds.capture(False)
    assert "leds.capture_pin = 17: cannot be switched: bad GPIO level; the camera is closed" in caplog.text
    leds.show(make_event(emotion="contempt"))
    until(lambda: "leds.red_pin = 22: cannot be switched" in caplog.text, "a line in the log")
    with pytest.raises(PinError, match=r"leds\.capture_pin = 17: cannot be switched: bad GPIO level"):
        leds.capture(True)
    monkeypatch.setattr(BrokenPin, "broken", False)
    leds.capture(False)
    leds.show(make_event(emotion="sadness"))
    until(lambda: leds.state.event == SIGNALS["sadness"][0], "the event LED works again")
    leds.close()
    assert caplog.text.count("leds.red_pin = 22: cannot be switched") == 1


def test_every_pin_that_another_program_has_is_named_with_what_to_do() -> None:
    with pytest.raises(ConfigError) as caught:
        Leds(CONFIG, pin_factory=MockFactory(pin_class=TakenPin))
    first, second = str(caught.value).splitlines()
    assert first.startswith("leds.red_pin = 22: cannot be used: GPIO 22 is in use by another program")
    assert second.startswith("leds.fault_pin = 24")
    assert "`gpioinfo`" in first


def test_absent_leds_are_left_alone(pins: MockFactory, make_event: MakeEvent, until: Until) -> None:
    leds = Leds(LedsConfig(red_pin=-1, green_pin=-1, fault_pin=-1, pulse_ms=100), pin_factory=pins)
    leds.show(make_event(emotion="contempt"))
    leds.fault(Fault.CAMERA, True)
    until(lambda: blinks(pins, CONFIG.blue_pin) == 3, "the blue part of white")
    assert set(pins.pins) == {pins.pin(pin).info for pin in (CONFIG.capture_pin, CONFIG.blue_pin)}
    leds.close()


def test_a_pin_that_is_in_use_is_named_and_the_others_are_given_back(pins: MockFactory) -> None:
    first = Leds(
        LedsConfig(capture_pin=5, red_pin=27, green_pin=-1, blue_pin=-1, fault_pin=-1), pin_factory=pins
    )
    with pytest.raises(ConfigError, match=r"leds\.green_pin = 27"):
        Leds(CONFIG, pin_factory=pins)
    first.close()
    Leds(CONFIG, pin_factory=pins).close()


def test_a_machine_without_gpio_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPIOZERO_PIN_FACTORY", "absent")
    with pytest.raises(ConfigError, match=r"leds\.enabled = false") as caught:
        Leds(CONFIG)
    assert len(str(caught.value).splitlines()) == 1
    assert all(
        f"leds.{name}_pin = " in str(caught.value) for name in ("capture", "red", "green", "blue", "fault")
    )


def test_identify_blinks_white_for_as_long_as_was_asked_and_ends_dark(
    leds: Leds, pins: MockFactory, until: Until
) -> None:
    assert leds.identify(1.0)
    until(lambda: blinks(pins, CONFIG.red_pin) == 3 and leds.state == OFF, "three blinks")
    assert [blinks(pins, pin) for pin in (CONFIG.green_pin, CONFIG.blue_pin)] == [3, 3]
    assert blinks(pins, CONFIG.fault_pin) == 0


@pytest.mark.parametrize("seconds", [0.1, 1, 5, 59.9, 60])
def test_identify_keeps_its_time_and_to_three_flashes_a_second(seconds: float) -> None:
    steps = identify_steps(seconds)
    lasts_s = sum(step_s for _, step_s in steps)
    assert abs(lasts_s - seconds) <= 0.34
    assert sum(colour == WHITE for colour, _ in steps) <= 3 * lasts_s
    assert steps[-1][0] == DARK


def test_an_event_cuts_into_identify_which_then_goes_on(
    pins: MockFactory, make_event: MakeEvent, until: Until
) -> None:
    leds = Leds(LedsConfig(pulse_ms=1800), pin_factory=pins)
    leds.identify(1.0)
    until(lambda: leds.state.event == WHITE, "the first blink")
    leds.show(make_event(emotion="sadness"))
    until(lambda: leds.state.event == SIGNALS["sadness"][0], "blue alone")
    until(lambda: blinks(pins, CONFIG.red_pin) == 3 and leds.state == OFF, "the other blinks")
    leds.show(make_event(emotion="sadness"))
    until(lambda: leds.state.event == SIGNALS["sadness"][0], "blue alone")
    assert blinks(pins, CONFIG.red_pin) == 3
    leds.close()


def test_without_an_event_led_identify_takes_the_fault_led_which_then_tells_faults_again(
    pins: MockFactory, make_event: MakeEvent, until: Until
) -> None:
    leds = Leds(LedsConfig(red_pin=-1, green_pin=-1, blue_pin=-1, pulse_ms=100), pin_factory=pins)
    assert leds.identify(1.0)
    leds.show(make_event(emotion="sadness"))
    leds.fault(Fault.OTHER, True)
    until(lambda: blinks(pins, CONFIG.fault_pin) >= 5, "three blinks, then the fault's")
    leds.fault(Fault.OTHER, False)
    until(lambda: leds.state == OFF, "all dark")
    leds.close()


def test_without_any_led_but_capture_identify_says_that_it_cannot(pins: MockFactory) -> None:
    leds = Leds(LedsConfig(red_pin=-1, green_pin=-1, blue_pin=-1, fault_pin=-1), pin_factory=pins)
    assert not leds.identify(1.0)
    leds.close()


def test_closing_ends_identify(leds: Leds, until: Until) -> None:
    leds.identify(60.0)
    until(lambda: leds.state.event == WHITE, "the first blink")
    leds.close()
    assert leds.state == OFF
