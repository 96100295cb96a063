"""The LEDs tell truly, and without need of colour, on gpiozero's own simulated pins."""

import itertools
from collections.abc import Callable, Iterator

import pytest
from gpiozero.pins.mock import MockFactory

from edge.config import Leds as LedsConfig
from edge.errors import ConfigError
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
def pins() -> Iterator[MockFactory]:
    factory = MockFactory()
    yield factory
    factory.reset()


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
    leds.fault(Fault.CAMERA, True)
    leds.show(make_event(emotion="sadness"))
    leds.close()
    leds.close()
    assert leds.state == OFF
    leds.capture(True)
    leds.show(make_event(emotion="sadness"))
    assert leds.state == OFF


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
    with pytest.raises(ConfigError, match=r"leds\.enabled = false"):
        Leds(CONFIG)


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
