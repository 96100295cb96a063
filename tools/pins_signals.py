"""Reads what LEDs told from the changes of their pins, as a person would: colours, rhythms and numbers of blinks."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from edge.out.leds import IDENTIFY_S, SIGNALS, Fault

CUT_SHORT = "cut short"
"""A round of blinks that ended with its fault."""
SETTLE_S = 0.02
"""The three pins of a colour change one after the other."""
COLOURS = {
    (1, 0, 0): "red", (0, 1, 0): "green", (0, 0, 1): "blue", (1, 1, 0): "yellow", (1, 0, 1): "magenta",
    (0, 1, 1): "cyan", (1, 1, 1): "white",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """A pin, or what it stands for, at the moment that it changed."""

    time_s: float
    lane: str
    is_on: bool


@dataclass(frozen=True, slots=True)
class Signal:
    """What an LED told in one go."""

    led: str
    start_s: float
    end_s: float
    meaning: str
    words: str


@dataclass(frozen=True, slots=True)
class Light:
    """One colour without a break."""

    start_s: float
    end_s: float
    colour: str

    @property
    def lasts_s(self) -> float:
        return self.end_s - self.start_s


def signals(changes: Sequence[Change], pulse_ms: int) -> list[Signal]:
    """Give everything that event and fault LED told, in order; `pulse_ms` as configured."""
    unit_s = pulse_ms / 9000
    told = [
        _event(burst, unit_s)
        for burst in _bursts(_event_lights(changes), max(1.8 * unit_s, 1.3 * IDENTIFY_S))
    ]
    before = 0
    for burst in _bursts(_lights(changes, "fault"), 0.6):
        told.append(_fault(burst, before))
        before = len(burst)
    return sorted(told, key=lambda signal: signal.start_s)


def _lights(changes: Sequence[Change], lane: str) -> list[Light]:
    on = [change for change in changes if change.lane == lane]
    return [Light(one.time_s, two.time_s, "lit") for one, two in pairwise(on) if one.is_on and not two.is_on]


def _event_lights(changes: Sequence[Change]) -> list[Light]:
    lit = {"red": 0, "green": 0, "blue": 0}
    states: list[tuple[float, tuple[int, ...]]] = []
    for change in changes:
        if change.lane in lit:
            lit[change.lane] = int(change.is_on)
            if states and change.time_s - states[-1][0] < SETTLE_S:
                states[-1] = states[-1][0], tuple(lit.values())
            else:
                states.append((change.time_s, tuple(lit.values())))
    return [
        Light(one[0], two[0], COLOURS[one[1]])  # type: ignore[index]
        for one, two in pairwise(states)
        if any(one[1])
    ]


def _bursts(lights: Sequence[Light], gap_s: float) -> list[list[Light]]:
    """Split where it is dark for longer than `gap_s`, or the colour changes."""
    bursts: list[list[Light]] = []
    for light in lights:
        last = bursts[-1][-1] if bursts else None
        if last is None or light.start_s - last.end_s > gap_s or light.colour != last.colour:
            bursts.append([])
        bursts[-1].append(light)
    return bursts


def _event(burst: list[Light], unit_s: float) -> Signal:
    rhythm = "".join("-" if light.lasts_s > 2 * unit_s else "." for light in burst)
    colour = burst[0].colour
    known = {(COLOURS[tuple(map(int, lit))], marks): name for name, (lit, marks) in SIGNALS.items()}  # type: ignore[index]
    if len(burst) > 3:
        meaning = "identify"
        words = f"{colour}, {len(burst)} even blinks of {1000 * burst[0].lasts_s:.0f} ms"
    else:
        meaning = known.get((colour, rhythm), "unknown")
        lasting = " ".join(f"{1000 * light.lasts_s:.0f}" for light in burst)
        words = f"{colour:8} {rhythm:4} {meaning} (lit for {lasting} ms)"
    return Signal("event", burst[0].start_s, burst[-1].end_s, meaning, words)


def _fault(burst: list[Light], before: int) -> Signal:
    """Give what a round means, which follows one of `before` blinks; codes do not fall while a fault lasts."""
    is_whole = len(burst) in set(Fault) and len(burst) >= before
    meaning = Fault(len(burst)).name.lower() if is_whole else CUT_SHORT
    return Signal("fault", burst[0].start_s, burst[-1].end_s, meaning, f"{len(burst)} blinks, {meaning}")
