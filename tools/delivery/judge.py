"""Holds what arrived against what was promised. Nothing here knows a network or a clock."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

Place = tuple[str, str, int]
"""Device, series, seq: where an event stands among all events of a device."""

SHOWN = 20
"""Findings that are put into words; further ones are only counted."""


@dataclass(frozen=True, slots=True)
class Promise:
    """An event that a device's outbox has accepted: `append` had returned when this was written."""

    device_id: str
    series: str
    seq: int
    id: str
    durable: bool
    """Whether it was on the disk; else in memory, because the disk could not be written."""
    life: str
    """The process that promised it."""
    kept_ns: int
    """UTC when `append` returned, ns since 1970."""

    @property
    def place(self) -> Place:
        return (self.device_id, self.series, self.seq)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message as it reached the subscriber."""

    device_id: str
    series: str
    seq: int
    id: str
    digest: bytes
    """Of the payload without `replayed`, the one field that may differ when an event is sent again."""
    at_ns: int
    """UTC of the arrival, ns since 1970."""

    @property
    def place(self) -> Place:
        return (self.device_id, self.series, self.seq)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a subscriber can say about a run. All but the last six are numbers of events."""

    promised: int
    arrived: int
    """Different ids."""
    lost: int
    """Promised, and never arrived."""
    not_durable_lost: int
    """Promised from memory by a process that was killed, and never arrived: said, and no fault."""
    holes: int
    """Numbers between 1 and the highest of a series that never arrived."""
    out_of_order: int
    """First arrivals with a lower number than one that was there before."""
    duplicates_seen: int
    """Messages with an id that was there before."""
    duplicates_after_dedup: int
    """Events that share their place with one of another id, so that no subscriber can tell which counts."""
    renumbered: int
    """An id that came, or was promised, with two places."""
    altered: int
    """Messages sent again with another content."""
    unpromised: int
    """Arrived without a promise: the device was killed after the commit and before it could say so. No fault."""
    delays_ms: tuple[float, ...] = field(repr=False, default=())
    """Promise to first arrival, of those that have both, sorted."""
    longest_silence_s: float = 0.0
    """Longest time between two arrivals."""
    findings: tuple[str, ...] = ()
    """The first violations in words."""

    @property
    def is_clean(self) -> bool:
        violations = (
            self.lost,
            self.holes,
            self.out_of_order,
            self.duplicates_after_dedup,
            self.renumbered,
            self.altered,
        )
        return not any(violations)


def judge(promised: Iterable[Promise], arrived: Sequence[Arrival], killed: Collection[str] = ()) -> Verdict:
    """Compare.

    Args:
        promised: of all devices, in any order.
        arrived: in the order of arrival, from before the first event on.
        killed: lives that ended without a chance to deliver what they held in memory.
    """
    promises = list(promised)
    first, repeats = _first_arrivals(arrived)
    altered = [message for message in repeats if message.digest != first[message.id].digest]
    missing = [promise for promise in promises if promise.id not in first]
    lost = [promise for promise in missing if promise.durable or promise.life not in killed]
    overtaken, holes = _order(first.values())
    places_of, ids_at = _places((*promises, *arrived))
    moments = sorted(message.at_ns for message in arrived)
    delays = (first[promise.id].at_ns - promise.kept_ns for promise in promises if promise.id in first)
    findings = [
        *(f"lost: {_named(one)}, promised {_where(one)} by {one.life}, never arrived" for one in lost),
        *(f"hole: {_named_place(place)} never arrived" for place in holes),
        *(f"out of order: {_named(one)} came after seq {before}" for one, before in overtaken),
        *(f"not to be told apart: {_named_place(place)} is {sorted(ids)}" for place, ids in ids_at.items()),
        *(f"renumbered: {id_} stands for {sorted(places)}" for id_, places in places_of.items()),
        *(f"altered: {_named(one)} came again with another content" for one in altered),
    ]
    return Verdict(
        promised=len(promises),
        arrived=len(first),
        lost=len(lost),
        not_durable_lost=len(missing) - len(lost),
        holes=len(holes),
        out_of_order=len(overtaken),
        duplicates_seen=len(repeats),
        duplicates_after_dedup=sum(len(ids) - 1 for ids in ids_at.values()),
        renumbered=sum(len(places) - 1 for places in places_of.values()),
        altered=len(altered),
        unpromised=len(first.keys() - {promise.id for promise in promises}),
        delays_ms=tuple(sorted(delay_ns / 1e6 for delay_ns in delays)),
        longest_silence_s=max((b - a for a, b in pairwise(moments)), default=0) / 1e9,
        findings=tuple(findings[:SHOWN]),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """Give the smallest of the sorted `values` that `percent` of them do not exceed; NaN if there are none."""
    if not values:
        return math.nan
    return values[max(0, math.ceil(percent / 100 * len(values)) - 1)]


def _first_arrivals(arrived: Iterable[Arrival]) -> tuple[dict[str, Arrival], list[Arrival]]:
    """Give what a subscriber keeps that takes each id once, and what it leaves out."""
    first: dict[str, Arrival] = {}
    repeats: list[Arrival] = []
    for message in arrived:
        if message.id in first:
            repeats.append(message)
        else:
            first[message.id] = message
    return first, repeats


def _order(first: Iterable[Arrival]) -> tuple[list[tuple[Arrival, int]], list[Place]]:
    """Give who was overtaken, with the seq that overtook it, and the places that stayed empty."""
    overtaken: list[tuple[Arrival, int]] = []
    taken: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    highest: defaultdict[tuple[str, str], int] = defaultdict(int)
    for message in first:
        series = (message.device_id, message.series)
        if message.seq < highest[series]:
            overtaken.append((message, highest[series]))
        highest[series] = max(highest[series], message.seq)
        taken[series].add(message.seq)
    holes = [
        (*series, seq)
        for series, last in highest.items()
        for seq in range(1, last + 1)
        if seq not in taken[series]
    ]
    return overtaken, holes


def _places(events: Iterable[Promise | Arrival]) -> tuple[dict[str, set[Place]], dict[Place, set[str]]]:
    """Give the ids that have several places, and the places that have several ids."""
    places_of: defaultdict[str, set[Place]] = defaultdict(set)
    ids_at: defaultdict[Place, set[str]] = defaultdict(set)
    for event in events:
        places_of[event.id].add(event.place)
        ids_at[event.place].add(event.id)
    return (
        {id_: places for id_, places in places_of.items() if len(places) > 1},
        {place: ids for place, ids in ids_at.items() if len(ids) > 1},
    )


def _named(event: Promise | Arrival) -> str:
    return f"{_named_place(event.place)} id {event.id}"


def _named_place(place: Place) -> str:
    device_id, series, seq = place
    return f"{device_id} series {series[:8]} seq {seq}"


def _where(promise: Promise) -> str:
    return "on the disk" if promise.durable else "in memory"
