"""Drives the device's camera, LED and switch through random histories, one step at a time, and watches them.

Everything but the camera itself is real: reader, LEDs, switches and commands, on gpiozero's simulated pins. Wherever
the reader calls out (the LED has been switched, the source is opened, read or closed, an attempt or a pause begins) its
thread stands still until the history has done what it wants to do at that very moment. So a seed gives the same history
each time, no clock is waited for, and each order of things is one that can happen. What must hold is checked at every
change of a pin, every frame, and before and after each of these moments.
"""

import queue
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from gpiozero.pins.mock import MockFactory, MockPin

from edge.config import Leds as LedsConfig
from edge.config import Switches as SwitchesConfig
from edge.control import Control, was_paused
from edge.errors import PinError, SourceError, StuckError
from edge.feed import PausedBy, Reader
from edge.frame_queue import FrameQueue
from edge.out.leds import Leds
from edge.out.mqtt.commands import CommandDesk, Received
from edge.records import Frame
from edge.store.outbox import Outbox
from edge.switches import STEADY_S, Switches

CAPTURE, PRIVACY = LedsConfig().capture_pin, 5
PIXELS = np.zeros((6, 8), np.uint8)
HOOKS = 40
"""Times that a history's reader may call out before the device is stopped for good."""


class Pin(MockPin):
    """A pin that tells of every change, and whose driver fails on demand."""

    history: "History"
    fails_to_write = fails_to_read = False
    is_stale = False
    """Whether the last write failed, so that the pin is still as it was."""

    @property
    def number(self) -> int:
        return int(self.info.name.removeprefix("GPIO"))

    @property
    def is_driven_high(self) -> bool:
        return bool(self._function == "output" and self._state)

    @property
    def is_driven_low(self) -> bool:
        return bool(self._function == "output" and not self._state)

    def _get_state(self) -> Any:
        if self.fails_to_read:
            raise OSError("GPIO not allocated")
        return super()._get_state()

    def _set_state(self, value: Any) -> None:
        self.is_stale = self.fails_to_write
        if self.is_stale:
            raise OSError("bad GPIO level")
        super()._set_state(value)
        self.history.pin_changed(self)

    def _set_function(self, value: str) -> None:
        super()._set_function(value)
        self.history.pin_changed(self)


class Camera:
    """A camera whose driver does what the history says, and in which the reader may stand for any time."""

    name = "test camera"
    nominal_rate_hz = 200.0
    size = (8, 6)
    duration_s: float | None = None
    start_time_ns = frames_out_of_order = 0

    def __init__(self, history: "History") -> None:
        self.warnings = list[str]()
        self._history = history
        history.opens()
        for _ in range(history.chance.randrange(4)):
            history.reach("still opening")
        if history.chance.random() < 0.02:
            history.count("stuck while opening")
            raise StuckError("it hangs, and may be on")
        if history.chance.random() < 0.15:
            history.is_open = False
            history.count("refused")
            raise history.chance.choice((SourceError("no camera"), SourceError("in use"), OSError("driver")))
        history.count("opened")

    def frames(self) -> Iterator[Frame]:
        for sequence in range(1_000_000):
            self._history.reach("reading")
            if self._history.breaks:
                self._history.breaks = False
                self._history.count("crashed")
                raise SourceError("cable pulled")
            self._history.reads()
            yield Frame(PIXELS, sequence * 5_000_000, sequence)

    def close(self) -> None:
        self._history.reach("closing")
        if self._history.chance.random() < 0.02:
            self._history.count("kept by its driver")
            raise self._history.chance.choice((OSError("driver"), StuckError("does not let go")))
        self._history.check("closing")
        self._history.is_open = False
        self._history.count("closed")


class Queue(FrameQueue):
    """Tells when a frame gets in, and when no more come."""

    def __init__(self, history: "History") -> None:
        super().__init__(4, drops_oldest=True)
        self._history = history

    def put(self, frame: Frame) -> bool:
        self._history.takes()
        return super().put(frame)

    def end(self) -> None:
        super().end()
        self._history.events.put("ended")


class History:
    """One random history of a device; `run` gives what was wrong in it."""

    def __init__(self, seed: int, outbox: Outbox, reader_class: type[Reader] = Reader) -> None:
        self.seed, self.outbox, self._reader_class = seed, outbox, reader_class
        self.chance = random.Random(seed)
        self.events: queue.SimpleQueue[str] = queue.SimpleQueue()
        """What the reader's thread has come to; "ended" once it has."""
        self.is_open = self.breaks = False
        """Whether the camera may be open, from before it is opened until after it is closed; whether it breaks."""
        self.wrong: list[str] = []
        self.counts: Counter[str] = Counter()
        self.log: list[str] = []
        self._may_go_on = threading.Semaphore(0)
        self._main = threading.current_thread()
        self._now_s = 0.0
        self._left = HOOKS
        self._is_acting = self._is_starting = False
        self.pins = MockFactory(pin_class=type("HistoryPin", (Pin,), {"history": self}))
        self._is_high_lit = self.chance.random() < 0.7
        self._leds_config = LedsConfig(active_high=self._is_high_lit)
        contact = self.chance.choice(("normally_open", "normally_closed"))
        self._switches_config = SwitchesConfig(privacy_pin=PRIVACY, privacy_contact=contact)
        self._is_closed_private = contact == "normally_open"
        self._reader: Reader | None = None

    # What the device's parts tell, in whatever thread.

    @property
    def is_lit(self) -> bool:
        pin = self.pins.pin(CAPTURE)
        return bool(pin.is_driven_high if self._is_high_lit else pin.is_driven_low)

    def check(self, where: str) -> None:
        if self.is_open and not self.is_lit:
            self._blame(f"{where}: the camera is open and the capture LED dark")

    def pin_changed(self, pin: Pin) -> None:
        self.check(f"pin {pin.number} changed")

    def light(self, on: bool) -> None:
        self._leds.capture(on)
        self.reach("LED switched")

    def opens(self) -> None:
        if self.is_open:
            self._blame("opened twice")
        self._check_is_wanted("opened")
        self.is_open = True
        self.check("opening")
        self.reach("opening")

    def reads(self) -> None:
        self.count("frames")
        self.check("frame read")

    def takes(self) -> None:
        self.check("frame taken")
        self._check_is_wanted("a frame was handed on")

    def _check_is_wanted(self, what: str) -> None:
        # While the device starts, switches are not yet watched: what it opens then it closes before the first frame.
        if self._reader is not None and self._reader.is_paused:
            self._blame(f"{what} during a pause")
        if self._reader is not None and self._is_switch_on:
            self._blame(f"{what} although the privacy switch is on")

    @property
    def _is_switch_on(self) -> bool:
        return bool(self._pin(PRIVACY)._state) != self._is_closed_private

    def rests(self) -> None:
        """Called by the reader before an attempt to open, and during a pause: never with an open camera."""
        if self.is_open:
            self._blame("attempt or pause with an open camera")
        elif self.is_lit and not self._pin(CAPTURE).is_stale:
            self._blame("the capture LED is lit although the camera is closed")
        self.reach("resting")

    def reach(self, where: str) -> None:
        """Let the history act here; the reader's thread stands still meanwhile."""
        self.check(where)
        if threading.current_thread() is self._main:
            if self._is_starting:
                self._act(where)
            return
        self.events.put(where)
        self._may_go_on.acquire()
        self.check(f"after {where}")

    def count(self, what: str) -> None:
        self.counts[what] += 1

    # What the history does, in the main thread.

    def run(self) -> list[str]:
        """Live through it, from start to stop, perhaps several times."""
        self.outbox.remember("paused", "")
        while self._left > 0 and not self._is_stuck:
            if self._start():
                self._live()
                self._stop()
        self.pins.reset()
        return self.wrong

    @property
    def _is_stuck(self) -> bool:
        """Whether its driver has kept the camera, so that only the end of the process helps."""
        return self.is_open and self._reader is None

    def _start(self) -> bool:
        self._left -= 1
        self._switch(self.chance.random() < 0.2)
        self._pin(CAPTURE).fails_to_write = self._pin(PRIVACY).fails_to_read = False
        self._desk = CommandDesk("microedge/lab-03", "lab-03")
        self._leds = Leds(self._leds_config, pin_factory=self.pins)
        self._switches = Switches(self._switches_config, pin_factory=self.pins, clock_s=lambda: self._now_s)
        paused = [PausedBy.COMMAND] if was_paused(self.outbox) else []
        if self._switches.is_private:
            paused.append(PausedBy.SWITCH)
        self._ended = False
        self._is_starting = True
        try:
            reader = self._reader_class(
                lambda: Camera(self), Queue(self), is_live=True, light=self.light, retried=self.rests,
                paused=paused, stays=self.chance.random() < 0.5,
            )  # fmt: skip
        except (SourceError, PinError, StuckError, OSError) as error:
            self._note(f"does not start: {error}")
            self.count("did not start")
            self._is_starting = False
            self._close_parts()
            return False
        self._is_starting = False
        self._switches.watch(reader)
        self._control = Control(
            self._desk, reader, self.outbox, answer=lambda answer: None, tell=lambda context: None
        )
        self._reader = reader
        self.count("started")
        reader.start()
        return True

    def _live(self) -> None:
        until = self._left - self.chance.randrange(5, 2 * HOOKS)
        while self._left > max(until, 0) and not self._ended:
            self._next(acts=True)

    def _stop(self) -> None:
        assert self._reader is not None
        self._reader.close(0.0)
        if self.chance.random() < 0.3:
            # The driver hangs: all else is closed while the reader still stands in it.
            self.count("abandoned with the camera open" if self.is_open else "abandoned")
            self._close_parts()
            self.check("all else closed")
        while not self._ended:
            self._next(acts=False)
        self._close_parts()
        self._reader = None
        self.check("stopped")
        if not self.is_open and self.is_lit and not self._pin(CAPTURE).is_stale:
            self._blame("stopped, and the LED is still lit")

    def _close_parts(self) -> None:
        self._switches.close()
        self._leds.close()

    def _next(self, acts: bool) -> None:
        """Wait until the reader has come to its next point, act, and let it go on."""
        where = self.events.get(timeout=20.0)
        if where == "ended":
            self._ended = True
            return
        self._note(f"reader at {where}")
        if acts:
            self._act(where)
        self._may_go_on.release()

    def _act(self, where: str) -> None:
        # An act may itself change pins, at which nothing further is done.
        if self._is_acting:
            return
        self._is_acting = True
        self._left -= 1
        led, switch = self._pin(CAPTURE), self._pin(PRIVACY)
        acts: list[tuple[float, Callable[[], None]]] = [
            (0.05, lambda: self._switch(True)), (0.15, lambda: self._switch(False)), (0.06, self._crash),
            (0.30 if switch.fails_to_read else 0.01, self._toggle_unreadable),
            (0.30 if led.fails_to_write else 0.02, self._toggle_dead_led),
        ]  # fmt: skip
        if self._reader is not None:
            acts += [
                (0.04, lambda: self._command("pause")), (0.20, lambda: self._command("resume")),
                (0.03, self._replace), (0.40, self._attend),
            ]  # fmt: skip
        for share, act in acts:
            if self.chance.random() < share:
                act()
                self.check(f"{act} at {where}")
        self._is_acting = False

    def _switch(self, on: bool) -> None:
        pin = self._pin(PRIVACY)
        if pin.function == "output":
            return
        self._note(f"switch {'on' if on else 'off'}")
        self.count("switched on" if on else "switched off")
        (pin.drive_low if on == self._is_closed_private else pin.drive_high)()

    def _attend(self) -> None:
        self._now_s += self.chance.choice((0.3, 1.5)) * STEADY_S
        self._note("attend")
        self._switches.attend()

    def _command(self, name: str) -> None:
        self._note(name)
        self.count(name)
        self._desk.take(Received(name, b"", False))
        self._control.attend()

    def _replace(self) -> None:
        assert self._reader is not None
        self._note("replace")
        self.count("replaced")
        self._reader.replace(lambda: Camera(self))

    def _crash(self) -> None:
        self.breaks = True

    def _toggle_unreadable(self) -> None:
        pin = self._pin(PRIVACY)
        pin.fails_to_read = not pin.fails_to_read
        self.count("switch unreadable")

    def _toggle_dead_led(self) -> None:
        pin = self._pin(CAPTURE)
        pin.fails_to_write = not pin.fails_to_write
        self.count("LED dead")

    def _pin(self, number: int) -> Any:
        return self.pins.pin(number)

    def _note(self, what: str) -> None:
        self.log.append(what)

    def _blame(self, what: str) -> None:
        self.wrong.append(f"seed {self.seed}: {what}; {', '.join(self.log[-8:])}")
