"""The three LEDs: *capture* (frames are read), *event* (RGB, what was seen) and *fault* (what is wrong).

Nobody should need to tell red from green, so each emotion has a colour and also a rhythm of its own, and each
fault has a number of blinks.

| event | colour | rhythm |
|---|---|---|
| happiness | yellow | `-` |
| sadness | blue | `--` |
| anger | red | `...` |
| fear | magenta | `..` |
| disgust | green | `.-` |
| surprise | cyan | `-.` |
| contempt | white | `.-.` |
| other | white | `-.-` |
| uncertain, or movement alone | white | `.` |
| none: a person is to find this device (`identify`) | white | three even blinks a second, for seconds on end |

| fault | blinks |
|---|---|
| anything else | 1 |
| camera: missing, broken, or kept closed because its LED or its switch fails | 2 |
| models | 3 |
| broker | 4 |
| accelerator | 5 |
| disk | 6 |
| configuration: wrong, or not taken at a reload | 7 |

A dot is lit for one ninth of `leds.pulse_ms`, a dash for three, the gap is one. Several faults take turns. An event
shows while a person looks for the device too; then the blinks go on. Without an event LED the fault LED blinks them.

The colours alone would not do: to people without red or without green cones yellow nears green and cyan nears white, to
people without blue cones yellow nears white and green nears cyan (`tests/test_leds.py` computes it). LEDs are dimmed
by their resistors and not here: a pin that is switched fast flickers, and a fast camera sees that on a face.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import chain, cycle
from typing import Any

from edge.config import Leds as LedsConfig
from edge.errors import PinError
from edge.gpio import Output, Pins
from edge.records import Event

log = logging.getLogger(__name__)

Colour = tuple[bool, bool, bool]
"""Red, green, blue."""
Step = tuple[Colour, float]
"""A colour and how long it shows, s."""

DARK: Colour = (False, False, False)
WHITE: Colour = (True, True, True)

SIGNALS: dict[str, tuple[Colour, str]] = {
    "happiness": ((True, True, False), "-"),
    "sadness": ((False, False, True), "--"),
    "anger": ((True, False, False), "..."),
    "fear": ((True, False, True), ".."),
    "disgust": ((False, True, False), ".-"),
    "surprise": ((False, True, True), "-."),
    "contempt": (WHITE, ".-."),
    "other": (WHITE, "-.-"),
    "uncertain": (WHITE, "."),
}
"""Colour and rhythm by emotion."""

BLINK_S = 0.2
PAUSE_S = 1.0
"""Length of a blink of the fault LED and of the gap after it; and of the pause after the last one."""

IDENTIFY_S = 0.17
"""Length of a blink that shows where the device is, and of the gap after it. Three flashes a second is as fast as light
may blink at people who are sensitive to it (WCAG 2.2, criterion 2.3.1)."""


class Fault(IntEnum):
    """What the fault LED tells, by its number of blinks."""

    OTHER = 1
    CAMERA = 2
    MODELS = 3
    BROKER = 4
    ACCELERATOR = 5
    DISK = 6
    CONFIGURATION = 7


@dataclass(frozen=True, slots=True)
class LedState:
    """What the LEDs show at this moment."""

    capture: bool
    event: Colour
    fault: bool


def event_steps(emotion: str | None, pulse_ms: int) -> list[Step]:
    """Give what the event LED does for an emotion (None: movement alone); at most `pulse_ms` long."""
    colour, rhythm = SIGNALS[emotion or "uncertain"]
    unit_s = pulse_ms / 9000
    steps: list[Step] = []
    for mark in rhythm:
        steps += [(colour, unit_s * (3 if mark == "-" else 1)), (DARK, unit_s)]
    return [*steps[:-1], (DARK, 0.0)]


def fault_steps(faults: Sequence[Fault]) -> list[Step]:
    """Give one round of the fault LED: each fault's blinks and a pause, in the order of their numbers."""
    steps: list[Step] = []
    for fault in sorted(faults):
        steps += [(WHITE, BLINK_S), (DARK, BLINK_S)] * fault
        steps.append((DARK, PAUSE_S))
    return steps


def identify_steps(seconds: float) -> list[Step]:
    """Give what shows a person where the device is; `seconds` long, to a blink, and dark at its end."""
    return [(WHITE, IDENTIFY_S), (DARK, IDENTIFY_S)] * max(round(seconds / (2 * IDENTIFY_S)), 1)


class _Player:
    """Plays steps on a lamp in a thread of its own; new steps replace those that play."""

    def __init__(self, name: str, show: Callable[[Colour], None]) -> None:
        self._show = show
        self._changed = threading.Condition()
        self._steps: Iterator[Step] = iter(())
        self._generation = 0
        self._closed = self._is_failing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def play(self, steps: Iterator[Step]) -> None:
        """Begin `steps` now and return at once; the lamp keeps its last colour when they end."""
        with self._changed:
            self._steps = steps
            self._generation += 1
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                generation = self._generation
                step = next(self._steps, None)
                if step is not None:
                    self._try_to_show(step[0])
                self._changed.wait_for(
                    lambda: self._closed or self._generation != generation,  # noqa: B023 (called within this pass)
                    timeout=None if step is None else step[1],
                )

    def _try_to_show(self, colour: Colour) -> None:
        try:
            self._show(colour)
        except PinError as error:
            # What it would tell is on MQTT and in the log too; the device goes on.
            if not self._is_failing:
                log.warning("%s", error)
            self._is_failing = True
        else:
            self._is_failing = False


class Leds:
    """Shows events, that frames are read, and what is wrong.

    Every method returns at once.
    """

    def __init__(self, config: LedsConfig, pin_factory: Any = None) -> None:
        """Take the pins.

        Args:
            config: the section `leds`.
            pin_factory: gpiozero's way to the pins; None: what this machine has.

        Raises:
            ConfigError: if there is no GPIO here, or pins cannot be had, with a line for each.
        """
        self._pulse_ms = config.pulse_ms
        pins = self._pins = Pins(pin_factory)
        self._capture = pins.output(config.capture_pin, "leds.capture_pin", active_high=config.active_high)
        self._event = [
            pins.output(pin, name, active_high=not config.common_anode)
            for pin, name in (
                (config.red_pin, "leds.red_pin"),
                (config.green_pin, "leds.green_pin"),
                (config.blue_pin, "leds.blue_pin"),
            )
        ]
        self._fault = pins.output(config.fault_pin, "leds.fault_pin", active_high=config.active_high)
        pins.check(
            "leds.enabled = false does without LEDs where no camera is, and with GPIOZERO_PIN_FACTORY=mock in the "
            "environment a camera can be tried"
        )
        self._faults: frozenset[Fault] = frozenset()
        self._lock = threading.Lock()
        """Events, buttons and everything else come from several threads."""
        self._is_reading = self._is_closed = False
        """Whether `capture` was last told so, and whether `close` was called."""
        self._blinks: Iterator[Step] = iter(())
        """What is left of the blinks that show where the device is; on the fault LED if it is the only one."""
        self._event_player = _Player("event LED", self._show_event)
        self._fault_player = _Player("fault LED", self._show_fault)

    def capture(self, reading: bool) -> None:
        """Set the capture LED. To be lit before the camera opens, and put out after it is closed.

        Raises:
            PinError: it cannot be lit, and so the camera must not be opened. That it cannot be put out is only logged.
        """
        with self._lock:
            self._is_reading = reading
            try:
                self._switch_capture(reading)
            except PinError as error:
                if reading:
                    raise
                log.warning("%s; the camera is closed, although its LED may be lit", error)
            if self._is_closed and not reading:
                self._pins.close()

    def show(self, event: Event) -> None:
        """Show the event's emotion; a newer event cuts an older one short."""
        steps = event_steps(event.emotion, self._pulse_ms)
        with self._lock:
            self._event_player.play(chain(steps, self._blinks) if self._has_event else iter(steps))

    def fault(self, fault: Fault, present: bool) -> None:
        """Say whether `fault` is present; it blinks until it is gone."""
        faults = self._faults | {fault} if present else self._faults - {fault}
        if faults == self._faults:
            return
        with self._lock:
            self._faults = faults
            self._fault_player.play(self._fault_signal())

    def identify(self, seconds: float) -> bool:
        """Blink white for about `seconds`, so that a person finds the device; False if there is no LED for it."""
        if not self._has_event and self._fault is None:
            return False
        with self._lock:
            self._blinks = iter(identify_steps(seconds))
            if self._has_event:
                self._event_player.play(self._blinks)
            else:
                self._fault_player.play(self._fault_signal())
        return True

    @property
    def faults(self) -> frozenset[Fault]:
        return self._faults

    @property
    def state(self) -> LedState:
        """What the pins are at now; an absent LED is dark."""
        red, green, blue = (_is_lit(led) for led in self._event)
        return LedState(_is_lit(self._capture), (red, green, blue), _is_lit(self._fault))

    def close(self) -> None:
        """Switch everything off and let the pins go. May be called again.

        A capture LED that `capture` has lit stays so until `capture` puts it out: a driver may have kept the camera.
        """
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        self._event_player.close()
        self._fault_player.close()
        with self._lock:
            if not self._is_reading:
                self._pins.close()
                return
        for led in (*self._event, self._fault):
            if led is not None:
                led.close()

    def _switch_capture(self, on: bool) -> None:
        if self._capture is None:
            return
        if on and self._is_closed:
            raise PinError(f"{self._capture.setting}: has been given back")
        self._capture.set(on)
        if on and not self._capture.is_on:
            raise PinError(
                f"{self._capture.setting}: stays dark although it is switched on; look for a short circuit"
            )

    @property
    def _has_event(self) -> bool:
        return any(led is not None for led in self._event)

    def _fault_signal(self) -> Iterator[Step]:
        steps = fault_steps(sorted(self._faults))
        signal = cycle(steps) if steps else iter([(DARK, 0.0)])
        return signal if self._has_event else chain(self._blinks, signal)

    def _show_event(self, colour: Colour) -> None:
        for led, lit in zip(self._event, colour, strict=True):
            if led is not None:
                led.set(lit)

    def _show_fault(self, colour: Colour) -> None:
        if self._fault is not None:
            self._fault.set(colour != DARK)


def _is_lit(led: Output | None) -> bool:
    return led is not None and led.is_on
