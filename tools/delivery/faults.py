"""What goes wrong in a trial, and when: the same for the same seed."""

import random
from dataclasses import dataclass

DISK_KB = 64
"""Most that a full disk may still have room for: a commit takes some 20 KB."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong. Those of one lane follow each other, those of different lanes overlap at will."""

    at_s: float
    """Since the start of the first device's process."""
    lane: str
    """broker, network, process or disk."""
    kind: str
    lasts_s: float
    amount: int = 0
    """Bytes until the cut or left on the disk, events of a burst, or starts that are cut short."""
    delays_s: tuple[float, ...] = ()
    """What a kill waits for after a start or a burst began."""

    def __str__(self) -> str:
        more = f", {self.amount}" if self.amount else ""
        delays = "".join(f", {delay_s * 1e3:.0f} ms" for delay_s in self.delays_s)
        return f"{self.at_s:6.3f} s  {self.kind} for {self.lasts_s:.3f} s{more}{delays}"


def schedule(seed: int, seconds: float) -> list[Fault]:
    """Draw the faults of a trial that lasts `seconds`; each has begun before the end, by its time."""
    chance = random.Random(f"faults {seed}")
    lanes = {lane: draw for lane, (share, draw) in _LANES.items() if chance.random() < share}
    if not lanes:
        lanes = {"process": _process}
    faults: list[Fault] = []
    for lane, draw in lanes.items():
        # Some trials begin in trouble.
        at_s = 0.0 if chance.random() < 0.2 else chance.uniform(0.1, 1.5)
        while at_s < seconds:
            fault = draw(chance, lane, round(at_s, 3))
            faults.append(fault)
            at_s += fault.lasts_s + sum(fault.delays_s) + chance.expovariate(1.5)
    return sorted(faults, key=lambda fault: fault.at_s)


def _broker(chance: random.Random, lane: str, at_s: float) -> Fault:
    kind = chance.choice(("broker restart", "broker restart", "broker frozen"))
    return Fault(at_s, lane, kind, _between(chance, 0.2, 2.0))


def _network(chance: random.Random, lane: str, at_s: float) -> Fault:
    kind = chance.choice(("cut", "cut within a message", "half-open", "stall", "swallowed answers"))
    size = chance.randrange(1, 6000) if kind == "cut within a message" else 0
    return Fault(at_s, lane, kind, _between(chance, 0.0, 1.2), size)


def _process(chance: random.Random, lane: str, at_s: float) -> Fault:
    kind = chance.choice(("kill", "kill", "kill in a burst", "kill at start", "stop", "frozen"))
    pause_s = chance.choice((0.0, _between(chance, 0.0, 0.5)))
    if kind == "kill in a burst":
        return Fault(
            at_s,
            lane,
            kind,
            pause_s,
            chance.randrange(20, 300),
            (_between(chance, 0.0, chance.choice((0.08, 0.4))),),
        )
    if kind == "kill at start":
        starts = chance.randrange(1, 4)
        return Fault(
            at_s, lane, kind, pause_s, starts, tuple(_between(chance, 0.0, 0.15) for _ in range(starts))
        )
    return Fault(at_s, lane, kind, pause_s)


def _disk(chance: random.Random, lane: str, at_s: float) -> Fault:
    return Fault(at_s, lane, "disk full", _between(chance, 0.3, 2.0), chance.randrange(DISK_KB * 1024))


def _between(chance: random.Random, low: float, high: float) -> float:
    return round(chance.uniform(low, high), 3)


_LANES = {
    "broker": (0.5, _broker),
    "network": (0.7, _network),
    "process": (0.8, _process),
    "disk": (0.4, _disk),
}
"""By name: the share of the trials in which it takes part, and what draws its next fault."""
