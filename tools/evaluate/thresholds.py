"""What a run would have answered with another `spot.threshold`, from the candidates that it saved.

A candidate that was refused for its score becomes an answer where its score reaches the threshold and its duration
passes the device's gate; what was refused for another reason stays refused. Size and noise are not judged again, and
below 0.25 the spotter itself would place some intervals otherwise: to settle a threshold, run with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edge.event import LONGER_MS, SHORTER_MS
from edge.evidence import CONFUSERS
from edge.records import Reason
from tools.evaluate.matching import Counts, Rules, count, match
from tools.evaluate.records import Answer, Recording

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))

_BY_SCORE = {str(Reason.WEAK), *CONFUSERS}
"""Reasons that a candidate is given only because its score is below the threshold (edge.event)."""


@dataclass(frozen=True, slots=True)
class Point:
    """One threshold and what comes of it."""

    threshold: float
    counts: Counts
    false_per_hour: float
    """NaN where no time was assessed."""


def at_threshold(recording: Recording, threshold: float, duration_s: tuple[float, float]) -> Recording:
    """Answer again with another threshold.

    Args:
        recording: as the device left it.
        threshold: 0..1; 0 takes every candidate.
        duration_s: the device's shortest and longest event.
    """

    def passes(answer: Answer) -> bool:
        length_s = answer.offset_s - answer.onset_s
        shortest_s, longest_s = duration_s[0] - SHORTER_MS / 1000, duration_s[1] + LONGER_MS / 1000
        return answer.score >= threshold and shortest_s <= length_s <= longest_s

    candidates = list(recording.answers) + [r.answer for r in recording.refused if r.reason in _BY_SCORE]
    return replace(
        recording,
        answers=tuple(sorted(filter(passes, candidates), key=lambda answer: answer.onset_s)),
        refused=tuple(r for r in recording.refused if r.reason not in _BY_SCORE),
    )


def curve(recordings: Sequence[Recording], rules: Rules) -> tuple[Point, ...]:
    """Give what each of THRESHOLDS would have brought."""
    hours = sum(recording.assessable_s for recording in recordings) / 3600
    points = []
    for threshold in THRESHOLDS:
        counts = count(
            (match(at_threshold(r, threshold, rules.duration_s), rules) for r in recordings), rules
        )
        points.append(Point(threshold, counts, counts.false / hours if hours else float("nan")))
    return tuple(points)
