"""All figures of a set of recordings, with 95 % intervals over people."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2  # type: ignore[import-untyped]

from tools.evaluate.calibration import Bin, reliability
from tools.evaluate.matching import Counts, Outcome, Rules, count, match, overlap_ratio, touches
from tools.evaluate.recognition import confusion
from tools.evaluate.records import NAMES, Recording, Truth
from tools.evaluate.table import Table, measures, stated_and_right, tabulate
from tools.evaluate.thresholds import Point, at_threshold, curve

DRAWS = 500
"""Sets of people drawn again for an interval."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its 95 % interval, from drawing people again; NaN where it cannot be told."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Alarms:
    """False alarms during one kind of event."""

    false: int
    hours: float
    """How long this kind was under way in time that could be assessed."""

    @property
    def per_hour(self) -> float:
        """False alarms in an hour of nothing but this."""
        return self.false / self.hours if self.hours else float("nan")


@dataclass(frozen=True, slots=True)
class Figures:
    """What is reported of one spotter on one set."""

    recordings: int
    people: int
    duration_s: float
    assessable_s: float
    counts: Counts
    unassessed: int
    """Micro-expressions that count, lie in time that was not assessed, and were not found."""
    aside: int
    """Answers on micro-expressions that the rules do not count."""
    estimates: dict[str, Estimate]
    false_per_hour_poisson: tuple[float, float]
    """Exact 95 % interval of the rate if false alarms came independently of each other."""
    false_during: dict[str, Alarms]
    missed_because: dict[str, int]
    refusals: dict[str, int]
    confusion: NDArray[np.float64]
    """(8, 8) true positives by truth and top answer, in the order of NAMES."""
    reliability: dict[str, list[Bin]]
    curve: tuple[Point, ...]
    """What other thresholds would have brought."""

    def as_json(self) -> dict[str, Any]:
        """Give it with plain numbers; what cannot be told is null."""

        def number(value: float) -> float | None:
            return None if isnan(value) else round(value, 5)

        return {
            "recordings": self.recordings,
            "people": self.people,
            "hours": round(self.duration_s / 3600, 4),
            "assessable_share": number(self.assessable_share),
            **asdict(self.counts),
            "unassessed": self.unassessed,
            "unassessed_share": number(self.unassessed_share),
            "aside": self.aside,
            "estimates": {
                name: {"value": number(e.value), "low": number(e.low), "high": number(e.high)}
                for name, e in self.estimates.items()
            },
            "false_per_hour_poisson": [number(bound) for bound in self.false_per_hour_poisson],
            "false_during": {
                kind: {"false": a.false, "hours": number(a.hours), "per_hour": number(a.per_hour)}
                for kind, a in self.false_during.items()
            },
            "missed_because": self.missed_because,
            "refusals": self.refusals,
            "confusion": {"names": list(NAMES), "rows_truth": self.confusion.astype(int).tolist()},
            "reliability": {name: [asdict(part) for part in bins] for name, bins in self.reliability.items()},
            "thresholds": [
                {
                    "threshold": point.threshold,
                    **asdict(point.counts),
                    "f1": number(point.counts.f1),
                    "false_per_hour": number(point.false_per_hour),
                }
                for point in self.curve
            ],
        }

    @property
    def assessable_share(self) -> float:
        """Of the time, what could be assessed."""
        return self.assessable_s / self.duration_s if self.duration_s else float("nan")

    @property
    def unassessed_share(self) -> float:
        """Of the micro-expressions that count, those lost to time that was not assessed."""
        whole = self.counts.true + self.counts.missed + self.unassessed
        return self.unassessed / whole if whole else float("nan")


def figures(recordings: Sequence[Recording], rules: Rules, draws: int = DRAWS) -> Figures:
    """Match, pool and measure."""
    outcomes = [match(recording, rules) for recording in recordings]
    table = tabulate(outcomes, rules)
    counts = count(outcomes, rules)
    assessable_s = sum(recording.assessable_s for recording in recordings)
    found = table.is_scored & table.found
    named = found & ~np.isnan(table.shares[:, 0]) & (table.emotion >= 0)
    return Figures(
        recordings=len(recordings),
        people=len(table.people),
        duration_s=sum(recording.duration_s for recording in recordings),
        assessable_s=assessable_s,
        counts=counts,
        unassessed=int((table.counts & ~table.found & table.excused).sum()),
        aside=int((~table.counts & table.found).sum()),
        estimates=_estimates(table, draws),
        false_per_hour_poisson=poisson_interval(counts.false, assessable_s / 3600),
        false_during=false_during(outcomes),
        missed_because=dict(
            Counter(
                why_missed(missed.truth, outcome)
                for outcome in outcomes
                for missed in outcome.missed
                if rules.counts(missed.truth)
            ).most_common()
        ),
        refusals=dict(Counter(r.reason for recording in recordings for r in recording.refused).most_common()),
        confusion=confusion(table.emotion[named], table.shares[named].argmax(axis=1), len(NAMES))
        if named.any()
        else np.zeros((len(NAMES), len(NAMES))),
        reliability=_reliability(table) | {"spot_score, all candidates": _of_candidates(recordings, rules)},
        curve=curve(recordings, rules),
    )


def poisson_interval(events: int, hours: float) -> tuple[float, float]:
    """Give the exact 95 % interval of a rate per hour (Garwood, Biometrika 28, 1936)."""
    if hours <= 0:
        return float("nan"), float("nan")
    low = float(chi2.ppf(0.025, 2 * events)) / 2 if events else 0.0
    return low / hours, float(chi2.ppf(0.975, 2 * events + 2)) / 2 / hours


def false_during(outcomes: Iterable[Outcome]) -> dict[str, Alarms]:
    """Sort false alarms by what they share most time with; `micro` is a micro-expression badly placed or told twice."""
    false: Counter[str] = Counter()
    seconds: defaultdict[str, float] = defaultdict(float)
    for outcome in outcomes:
        recording = outcome.recording
        for answer in outcome.false:
            near = [truth for truth in recording.truth if touches(truth, answer.onset_s, answer.offset_s)]
            best = max(
                near,
                key=lambda t: min(t.offset_s, answer.offset_s) - max(t.onset_s, answer.onset_s),
                default=None,
            )
            false[best.kind if best else "nothing"] += 1
        lost = [(s.start_s, s.end_s) for s in recording.not_assessable]
        for kind in {truth.kind for truth in recording.truth}:
            under_way = [(t.onset_s, t.offset_s) for t in recording.truth if t.kind == kind]
            seconds[kind] += _length(under_way + lost) - _length(lost)
        busy = [(truth.onset_s, truth.offset_s) for truth in recording.truth]
        seconds["nothing"] += max(0.0, recording.duration_s - _length(busy + lost))
    kinds = sorted(seconds.keys() | false.keys(), key=lambda kind: (-false[kind], kind))
    return {kind: Alarms(false[kind], seconds[kind] / 3600) for kind in kinds}


def why_missed(truth: Truth, outcome: Outcome) -> str:
    """Say what the spotter made of a micro-expression that it did not find."""
    recording = outcome.recording
    for stretch in recording.not_assessable:
        if touches(truth, stretch.start_s, stretch.end_s):
            return f"not assessable: {stretch.reason}"
    if any(touches(truth, answer.onset_s, answer.offset_s) for answer in outcome.false):
        return "badly placed"
    refused = [r for r in recording.refused if touches(truth, r.answer.onset_s, r.answer.offset_s)]
    if refused:
        return f"refused: {max(refused, key=lambda r: overlap_ratio(truth, r.answer)).reason}"
    if any(touches(truth, hit.answer.onset_s, hit.answer.offset_s) for hit in outcome.hits):
        return "under the answer to its neighbour"
    return "not seen"


def _estimates(table: Table, draws: int) -> dict[str, Estimate]:
    people = len(table.people)
    values = measures(table, np.ones(people, int))
    rng = np.random.default_rng(0)
    drawn = [
        list(measures(table, np.bincount(rng.integers(people, size=people), minlength=people)).values())
        for _ in range(draws if people > 1 else 0)
    ]
    result = {}
    for column, (name, value) in enumerate(values.items()):
        known = [row[column] for row in drawn if not isnan(row[column])]
        low, high = np.percentile(known, (2.5, 97.5)) if known else (float("nan"), float("nan"))
        result[name] = Estimate(value, float(low), float(high))
    return result


def _reliability(table: Table) -> dict[str, list[Bin]]:
    found = table.is_scored & table.found
    stated, right = stated_and_right(table, found)
    alarms = table.false_confidence[~np.isnan(table.false_confidence)]
    score = np.concatenate((table.score[found], table.false_score))
    return {
        "confidence": reliability(stated, right),
        "confidence, equal count": reliability(stated, right, equal_count=True),
        "confidence, false alarms wrong": reliability(
            np.concatenate((stated, alarms)), np.concatenate((right, np.zeros(len(alarms), bool)))
        ),
        "spot_score": reliability(score, np.arange(len(score)) < found.sum()),
    }


def _of_candidates(recordings: Iterable[Recording], rules: Rules) -> list[Bin]:
    """Tell how often candidates of each score are true, those that were turned down for it included."""
    every = (at_threshold(recording, 0.0, rules.duration_s) for recording in recordings)
    table = tabulate([match(recording, rules) for recording in every], rules)
    found = table.is_scored & table.found
    score = np.concatenate((table.score[found], table.false_score))
    return reliability(score, np.arange(len(score)) < found.sum())


def _length(intervals: list[tuple[float, float]]) -> float:
    """Give the length of the union of intervals, s."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
