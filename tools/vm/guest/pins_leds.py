"""Plays every signal of our LEDs on simulated GPIO through gpiozero and lgpio, and reads the lines back."""

import json
import time
from collections.abc import Callable
from itertools import groupby, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gpio_sim

gpio_sim.pretend_pi()

from edge.config import Leds as LedsConfig  # noqa: E402
from edge.out.leds import DARK, SIGNALS, Fault, Leds  # noqa: E402

PULSE_MS = 3600
UNIT_S = PULSE_MS / 9000
CONFIG = LedsConfig(pulse_ms=PULSE_MS)
RGB = (CONFIG.red_pin, CONFIG.green_pin, CONFIG.blue_pin)


def main() -> None:
    """Capture, each emotion, each fault, and the end."""
    bank = gpio_sim.Bank()
    leds = Leds(CONFIG)
    found: dict[str, Any] = {"chip": bank.chip, "factory": _factory(), "pipes_left": _pipes()}
    capture = []
    for reading in (True, False, True):
        leds.capture(reading)
        capture.append(bank.level(CONFIG.capture_pin))
    found["capture"] = capture
    emotions = {}
    for emotion, (colour, rhythm) in SIGNALS.items():
        leds.show(SimpleNamespace(emotion=emotion))  # type: ignore[arg-type]
        trace = watch(lambda: tuple(bool(bank.level(pin)) for pin in RGB), PULSE_MS / 1000 + 0.3)
        lit = flashes(trace)
        seen = "".join("-" if length > 2 * UNIT_S else "." for _, length in lit)
        emotions[emotion] = {
            "wanted": f"{name(colour)} {rhythm}", "seen": f"{name(lit[0][0]) if lit else 'dark'} {seen}",
            "one_colour": len({state for state, _ in lit}) == 1,
        }  # fmt: skip
    found["emotions"] = emotions
    faults = {}
    for fault in Fault:
        leds.fault(fault, True)
        # Long enough for two rounds; counted between two pauses, which are the longest dark times.
        trace = watch(lambda: bool(bank.level(CONFIG.fault_pin)), 2 * (0.4 * fault + 1.0) + 0.5)
        faults[fault.name] = {"wanted": int(fault), "seen": blinks(trace)}
        leds.fault(fault, False)
    found["faults"] = faults
    leds.capture(False)
    leds.close()
    found["after_close"] = [bank.level(pin) for pin in (CONFIG.capture_pin, *RGB, CONFIG.fault_pin)]
    print("RESULT", json.dumps({"leds": found}))


def watch(look: Callable[[], Any], seconds: float) -> list[tuple[Any, float]]:
    """Give the states that follow each other and how long each lasted, s."""
    begun_s = time.monotonic()
    changes = [(begun_s, look())]
    while (now_s := time.monotonic()) - begun_s < seconds:
        if (state := look()) != changes[-1][1]:
            changes.append((now_s, state))
    changes.append((now_s, None))
    return [(state, later - earlier) for (earlier, state), (later, _) in pairwise(changes)]


def flashes(trace: list[tuple[Any, float]]) -> list[tuple[Any, float]]:
    """Give each flash's colour and length: its three lines are switched one after the other, with time between."""
    found: list[tuple[Any, float]] = []
    for is_dark, states in groupby(trace, key=lambda each: each[0] == DARK):
        parts = list(states)
        if not is_dark:
            longest = max(parts, key=lambda each: each[1])
            found.append((longest[0], sum(length for _, length in parts)))
    return found


def blinks(trace: list[tuple[bool, float]]) -> int:
    """Count the flashes of the first round."""
    count = 0
    for lit, length in trace:
        count += lit
        if not lit and count and length > 0.7:
            break
    return count


def name(colour: tuple[bool, bool, bool]) -> str:
    return "".join(letter for letter, lit in zip("RGB", colour, strict=True) if lit) or "dark"


def _factory() -> str:
    import gpiozero

    return type(gpiozero.Device.pin_factory).__name__


def _pipes() -> list[str]:
    """Give what lgpio has left lying about."""
    return [
        str(path)
        for folder in ("/payload", "/tmp", "/run", "/root")
        for path in Path(folder).rglob(".lgd-nfy*")
    ]


main()
