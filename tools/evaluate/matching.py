"""Who is found: the spotting rule of the micro-expression grand challenges (MEGC).

An answer is true if it overlaps an annotated micro-expression with an intersection over union of at least one
half. An annotation is found once, an answer finds one annotation, and TP, FP and FN are summed over the whole set
before one F1 is taken.

The field's programs give each answer, in any order, the annotation that it overlaps best, and call it false if that
one is taken (genbing99/SoftNet-SpotME:Utils/mean_average_precision, kept by MEAN, MTSN and ME-TST), or count every
pair of enough overlap (the organisers' genbing99/STRS-Metric). Here pairs are taken best overlap first. The counts are
the same: an answer cannot share half its union with two annotations that do not overlap each other, unless it shares
exactly half with both, so each answer has one annotation to go for; and of answers that do not overlap each other one
at most goes for it. Where answers do overlap, the order decides which of two on one annotation is the true one; best
overlap first makes that a property of the answers.

Those programs pass over recordings in which nothing is annotated, the false alarms in them included; here each
recording counts unless that is asked for.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from tools.evaluate.records import Answer, Recording, Truth

OVERLAP_MIN = 0.5
"""Intersection over union from which an answer is true (MEGC 2019 to 2025)."""

_ROUNDING = 1e-9
"""Times are sums of binary fractions: an overlap of exactly one half must not fail by the last bit."""


class Interval(Protocol):
    """What has an onset and an offset, s."""

    @property
    def onset_s(self) -> float: ...

    @property
    def offset_s(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Hit:
    """A micro-expression and the answer that found it."""

    truth: Truth
    answer: Answer
    overlap: float


@dataclass(frozen=True, slots=True)
class Missed:
    """A micro-expression that no answer found."""

    truth: Truth
    is_excused: bool
    """Some of it lies in time that the device had declared not assessable."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one recording, before anybody asks which classes count."""

    recording: Recording
    hits: tuple[Hit, ...]
    missed: tuple[Missed, ...]
    false: tuple[Answer, ...]
    """Answers that match no micro-expression of any size."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Which micro-expressions count.

    An answer on one that does not count is neither true nor false.
    """

    duration_s: tuple[float, float] = (0.04, 0.2)
    """What the device is asked to find."""
    peak_iod: tuple[float, float] = (0.0, 1.0)
    is_strict: bool = False
    """Count every annotated micro-expression, however long, and excuse none for time that was not assessable:
    the official rule for the public data sets."""
    counts_frames: bool = False
    """Intervals are numbers of frames, the last one included, as the field's programs take them: both then last
    one frame longer than the difference of their times."""

    def counts(self, truth: Truth) -> bool:
        """Tell whether this micro-expression counts; one of unknown peak does where the peak has no lower limit."""
        length_s = truth.offset_s - truth.onset_s
        in_time = self.is_strict or (
            self.duration_s[0] - _ROUNDING <= length_s <= self.duration_s[1] + _ROUNDING
        )
        if truth.peak_iod is None:
            return in_time and self.peak_iod[0] <= 0
        return in_time and self.peak_iod[0] <= truth.peak_iod <= self.peak_iod[1]


@dataclass(frozen=True, slots=True)
class Counts:
    """Pooled counts, and what follows from them; a ratio without anything to count is 0, as in the field."""

    true: int
    false: int
    missed: int

    @property
    def precision(self) -> float:
        """TP / (TP + FP)."""
        return self.true / max(self.true + self.false, 1)

    @property
    def recall(self) -> float:
        """TP / (TP + FN)."""
        return self.true / max(self.true + self.missed, 1)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN)."""
        return 2 * self.true / max(2 * self.true + self.false + self.missed, 1)


def overlap_ratio(one: Interval, other: Interval, frame_s: float = 0.0) -> float:
    """Give the intersection over union of two intervals, 0..1.

    Args:
        one: an interval.
        other: another.
        frame_s: what both last longer than offset minus onset: one frame period where the offset is the last
            frame of the interval, 0 where it is the instant at which it ends.
    """
    common = min(one.offset_s, other.offset_s) - max(one.onset_s, other.onset_s) + frame_s
    either = max(one.offset_s, other.offset_s) - min(one.onset_s, other.onset_s) + frame_s
    return max(0.0, common) / either if either > 0 else 0.0


def match(recording: Recording, rules: Rules | None = None) -> Outcome:
    """Match answers to micro-expressions of any size, best overlap first; earlier ones first where equal."""
    rules = rules or Rules()
    frame_s = 1 / recording.rate_hz if rules.counts_frames and recording.rate_hz > 0 else 0.0
    micro = [truth for truth in recording.truth if truth.kind == "micro"]
    pairs = [
        (overlap_ratio(truth, answer, frame_s), t, a)
        for t, truth in enumerate(micro)
        for a, answer in enumerate(recording.answers)
        if truth.onset_s <= answer.offset_s + frame_s and answer.onset_s <= truth.offset_s + frame_s
    ]
    found: dict[int, Hit] = {}
    taken: set[int] = set()
    for overlap, t, a in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2])):
        if overlap >= OVERLAP_MIN - _ROUNDING and t not in found and a not in taken:
            found[t] = Hit(micro[t], recording.answers[a], overlap)
            taken.add(a)
    return Outcome(
        recording,
        tuple(found[t] for t in sorted(found)),
        tuple(
            Missed(truth, any(touches(truth, s.start_s, s.end_s) for s in recording.not_assessable))
            for t, truth in enumerate(micro)
            if t not in found
        ),
        tuple(answer for a, answer in enumerate(recording.answers) if a not in taken),
    )


def touches(interval: Interval, start_s: float, end_s: float) -> bool:
    """Tell whether an interval and a stretch of time share more than an instant."""
    return start_s < interval.offset_s and interval.onset_s < end_s


def count(outcomes: Iterable[Outcome], rules: Rules) -> Counts:
    """Sum over a whole set."""
    true = false = missed = 0
    for outcome in outcomes:
        true += sum(rules.counts(hit.truth) for hit in outcome.hits)
        missed += sum(
            rules.counts(miss.truth) and (rules.is_strict or not miss.is_excused) for miss in outcome.missed
        )
        false += len(outcome.false)
    return Counts(true, false, missed)
