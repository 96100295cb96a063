"""Holds what came back through the broker against what was planted."""

from collections.abc import Iterable
from dataclasses import dataclass

from edge.frames.script import PlantedEvent
from edge.out import Payload

OVERLAP_MIN = 0.5
"""Intersection over union from which two intervals are the same event: the rule of the MEGC spotting
challenges (Li et al., FG 2019)."""
MISSED_AFTER_S = 3.0
"""Media time after its end when a planted event that has not come back is shown as missed; it may still come."""


@dataclass(slots=True)
class Row:
    """One planted event, one event that came back, or both where they match."""

    planted: PlantedEvent | None = None
    event: Payload | None = None
    delay_s: float = 0.0
    """Media time from the event's offset to its arrival."""

    @property
    def onset_s(self) -> float:
        if self.planted is not None:
            return self.planted.onset_s
        assert self.event is not None
        return float(self.event["onset_s"])

    @property
    def is_match(self) -> bool:
        return self.planted is not None and self.event is not None


class Score:
    """Rows of planted micro-expressions, joined one by one by the events that come back."""

    def __init__(self, truth: Iterable[PlantedEvent]) -> None:
        self.rows = [Row(planted=planted) for planted in truth if planted.kind == "micro"]
        self.planted = len(self.rows)
        self.false = 0
        self._others = [planted for planted in truth if planted.kind != "micro"]
        self._ids: set[str] = set()

    @property
    def came_back(self) -> int:
        """Planted events that an event from the broker matches."""
        return sum(row.is_match for row in self.rows)

    @property
    def received(self) -> int:
        """Different events that arrived."""
        return len(self._ids)

    def take(self, event: Payload, media_s: float) -> Row | None:
        """Enter an event that arrived at this media time; None if it is known by its `id` already."""
        if event["id"] in self._ids:
            return None
        self._ids.add(event["id"])
        delay_s = max(media_s - float(event["offset_s"]), 0.0)
        open_rows = [row for row in self.rows if row.planted is not None and row.event is None]
        best = max(open_rows, key=lambda row: self._overlap(row, event), default=None)
        if best is not None and self._overlap(best, event) >= OVERLAP_MIN:
            best.event, best.delay_s = event, delay_s
            return best
        self.false += 1
        row = Row(event=event, delay_s=delay_s)
        self.rows.append(row)
        self.rows.sort(key=lambda row: row.onset_s)
        return row

    def during(self, event: Payload) -> str:
        """Name what else was planted while an unmatched event took place; empty if nothing was."""
        times = float(event["onset_s"]), float(event["offset_s"])
        return next(
            (other.kind for other in self._others if other.onset_s < times[1] and times[0] < other.offset_s),
            "",
        )

    @staticmethod
    def _overlap(row: Row, event: Payload) -> float:
        assert row.planted is not None
        return overlap_ratio(
            (row.planted.onset_s, row.planted.offset_s), (float(event["onset_s"]), float(event["offset_s"]))
        )


def overlap_ratio(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Give the intersection over union of two intervals, 0..1."""
    both = min(one[1], other[1]) - max(one[0], other[0])
    either = max(one[1], other[1]) - min(one[0], other[0])
    return max(both, 0.0) / either if either > 0 else 0.0
