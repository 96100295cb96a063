"""Outcomes as columns, so that a figure can be taken again for people drawn again, many hundred times."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.records import EMOTIONS
from tools.evaluate.calibration import calibration_error
from tools.evaluate.matching import Hit, Outcome, Rules
from tools.evaluate.recognition import (
    CLASS_OF,
    Recognition,
    confusion,
    field_classes,
    index_of,
    measure,
    strs,
)
from tools.evaluate.records import NAMES, Answer

Floats = NDArray[np.float64]
Whole = NDArray[np.int_]
Flags = NDArray[np.bool_]

DURATIONS_MS = ((40, 80), (80, 120), (120, 200), (200, 500))
INTENSITIES = ((0.4, 0.7), (0.7, 1.0), (1.0, 1.6), (1.6, 2.5))
"""% IOD. What lies beyond the ends is in the first and the last."""
STRONG_IOD = 0.01
"""Peak from which the main target counts."""

_NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Table:
    """Columns; each row belongs to a person by number."""

    people: tuple[str, ...]
    person: Whole
    """(m,) for each annotated micro-expression..."""
    duration_ms: Floats
    peak_iod: Floats
    """NaN where unknown."""
    counts: Flags
    """...whether the rules count it,"""
    excused: Flags
    """whether it lies in time that was not assessed and the rules excuse that,"""
    found: Flags
    """whether an answer found it,"""
    errors_ms: Floats
    """(m, 3) |onset|, |apex|, |offset| error of that answer; NaN without one,"""
    delay_ms: Floats
    """media time from the true offset to the frame that brought that answer; NaN where unknown,"""
    emotion: Whole
    """its place in NAMES, -1 unknown,"""
    shares: Floats
    """(m, 8) probabilities of that answer, NaN without,"""
    uncertain: Flags
    """whether the device said `uncertain`,"""
    score: Floats
    """its evidence,"""
    units: Whole
    """(m, 2, 3) hits, false and missed action units, by AU alone and by AU and side."""
    false_person: Whole
    """(f,) for each false alarm..."""
    false_confidence: Floats
    false_score: Floats
    hours: Floats
    """(people,) that could be assessed."""
    names_emotions: bool
    """Whether the spotter names emotions at all."""

    @property
    def is_scored(self) -> Flags:
        """Micro-expressions that make a hit or a miss."""
        return self.counts & (self.found | ~self.excused)


def tabulate(outcomes: Sequence[Outcome], rules: Rules) -> Table:
    """Put outcomes into columns."""
    people = tuple(sorted({outcome.recording.subject for outcome in outcomes}))
    number = {subject: place for place, subject in enumerate(people)}
    rows = [
        (number[outcome.recording.subject], hit.truth, hit, False)
        for outcome in outcomes
        for hit in outcome.hits
    ] + [
        (number[outcome.recording.subject], missed.truth, None, missed.is_excused and not rules.is_strict)
        for outcome in outcomes
        for missed in outcome.missed
    ]
    false = [(number[outcome.recording.subject], answer) for outcome in outcomes for answer in outcome.false]
    hours = np.zeros(len(people))
    for outcome in outcomes:
        hours[number[outcome.recording.subject]] += outcome.recording.assessable_s / 3600
    return Table(
        people,
        person=np.array([row[0] for row in rows], int),
        duration_ms=np.array([1000 * (truth.offset_s - truth.onset_s) for _, truth, _, _ in rows], float),
        peak_iod=np.array([_NAN if t.peak_iod is None else t.peak_iod for _, t, _, _ in rows], float),
        counts=np.array([rules.counts(truth) for _, truth, _, _ in rows], bool),
        excused=np.array([excused for *_, excused in rows], bool),
        found=np.array([hit is not None for _, _, hit, _ in rows], bool),
        errors_ms=np.array([_errors_ms(hit) for _, _, hit, _ in rows], float).reshape(-1, 3),
        delay_ms=np.array([_delay_ms(hit) for _, _, hit, _ in rows], float),
        emotion=np.array([index_of(truth.emotion) for _, truth, _, _ in rows], int),
        shares=np.array([_shares(hit.answer if hit else None) for _, _, hit, _ in rows], float).reshape(
            -1, len(NAMES)
        ),
        uncertain=np.array(
            [hit is not None and hit.answer.emotion == "uncertain" for _, _, hit, _ in rows], bool
        ),
        score=np.array([hit.answer.score if hit else _NAN for _, _, hit, _ in rows], float),
        units=np.array([_units(hit) for _, _, hit, _ in rows], int).reshape(-1, 2, 3),
        false_person=np.array([person for person, _ in false], int),
        false_confidence=np.array([a.confidence if a.probabilities else _NAN for _, a in false], float),
        false_score=np.array([answer.score for _, answer in false], float),
        hours=hours,
        names_emotions=any(a.probabilities for outcome in outcomes for a in outcome.recording.answers),
    )


def measures(table: Table, weights: Whole) -> dict[str, float]:
    """Give every figure that gets an interval; NaN where there is nothing to measure.

    Args:
        table: the columns.
        weights: (people,) how often each person counts.
    """
    of = weights[table.person]
    scored, strong = table.is_scored, table.peak_iod >= STRONG_IOD
    false = float(weights[table.false_person].sum())
    hours = float((weights * table.hours).sum())

    def recall(mask: Flags) -> float:
        return _ratio(float(of[scored & mask & table.found].sum()), float(of[scored & mask].sum()))

    def f1(mask: Flags) -> float:
        true, all_of = float(of[scored & mask & table.found].sum()), float(of[scored & mask].sum())
        return 2 * true / (true + all_of + false) if all_of else _NAN

    whole = np.ones_like(scored)
    found = scored & table.found
    true = float(of[found].sum())
    result = {
        "f1": f1(whole),
        "f1_from_1_percent": f1(strong),
        "precision": _ratio(true, true + false),
        "recall": recall(whole),
        "recall_from_1_percent": recall(strong),
        "recall_40_80_ms_from_1_percent": recall(strong & _between(table.duration_ms, DURATIONS_MS, 0)),
        "false_per_hour": _ratio(false, hours),
    }
    for name, column in (
        *zip(("onset_error", "apex_error", "offset_error"), table.errors_ms.T, strict=True),
        ("delay", table.delay_ms),
    ):
        times = np.repeat(column[found], of[found])
        times = times[~np.isnan(times)]
        result[f"{name}_ms"] = float(np.median(times)) if len(times) else _NAN
        result[f"{name}_90_ms"] = float(np.percentile(times, 90)) if len(times) else _NAN
    result |= _emotion_measures(table, of, weights, found, result["f1"])
    units = (table.units[found] * of[found, None, None]).sum(axis=0)
    for (hits, wrong, lacking), name in zip(units, ("action_unit_f1", "action_unit_side_f1"), strict=True):
        result[name] = _ratio(2.0 * hits, float(2 * hits + wrong + lacking))
    alarms = np.repeat(table.false_score, weights[table.false_person])
    stated = np.concatenate((np.repeat(table.score[found], of[found]), alarms))
    result["score_calibration_error"] = calibration_error(stated, np.arange(len(stated)) < true)
    # A class of durations that the rules leave out is shown all the same, and counts nowhere else.
    considered = table.found | ~table.excused
    for column, (low, high) in enumerate(DURATIONS_MS):
        mask = considered & _between(table.duration_ms, DURATIONS_MS, column)
        for name, part in (("", mask), ("_from_1_percent", mask & strong)):
            result[f"recall_{low}_to_{high}_ms{name}"] = _ratio(
                float(of[part & table.found].sum()), float(of[part].sum())
            )
    for column, (least, most) in enumerate(INTENSITIES):
        result[f"recall_{least:g}_to_{most:g}_percent"] = recall(
            _between(100 * table.peak_iod, INTENSITIES, column)
        )
    return result


def _emotion_measures(
    table: Table, of: Whole, weights: Whole, found: Flags, spotting_f1: float
) -> dict[str, float]:
    named = found & ~np.isnan(table.shares[:, 0]) & (table.emotion >= 0)
    shares, truth, weight = table.shares[named], table.emotion[named], of[named].astype(float)
    # `other` is no emotion to recognise: such a truth is left out of the seven and of the three classes.
    seven = measure(confusion(truth, shares[:, : len(EMOTIONS)].argmax(axis=1), len(EMOTIONS), weight))
    classes, grouped = CLASS_OF[truth], field_classes(shares)
    three = measure(confusion(classes, grouped[:, :3].argmax(axis=1), 3, weight))
    four = measure(confusion(classes, grouped.argmax(axis=1), 4, weight))

    def product(recognised: Recognition) -> float:
        # Nothing found is nothing recognised, and no reason to leave the draw of people out of the interval.
        return 0.0 if spotting_f1 == 0 and table.names_emotions else strs(spotting_f1, recognised.f1)

    stated, right = stated_and_right(table, found)
    repeated = np.repeat(stated, of[named]), np.repeat(right, of[named])
    alarms = np.repeat(table.false_confidence, weights[table.false_person])
    alarms = alarms[~np.isnan(alarms)]
    with_alarms = (
        np.concatenate((repeated[0], alarms)),
        np.concatenate((repeated[1], np.zeros(len(alarms), bool))),
    )
    aloud = ~table.uncertain[named]
    return {
        "uf1_seven": seven.uf1,
        "uar_seven": seven.uar,
        "uf1_three": three.uf1,
        "uar_three": three.uar,
        "f1_four": four.f1,
        "strs": product(four),
        "strs_seven": product(seven),
        "calibration_error": calibration_error(*repeated),
        "calibration_error_equal_count": calibration_error(*repeated, equal_count=True),
        "calibration_error_with_false": calibration_error(*with_alarms),
        "uncertain_share": _ratio(float(weight[~aloud].sum()), float(weight.sum())),
        "accuracy_of_the_rest": _ratio(float((weight * right)[aloud].sum()), float(weight[aloud].sum())),
    }


def stated_and_right(table: Table, found: Flags) -> tuple[Floats, Flags]:
    """Give, for found micro-expressions of known emotion, the top probability and whether its emotion is right."""
    named = found & ~np.isnan(table.shares[:, 0]) & (table.emotion >= 0)
    shares = table.shares[named]
    if not len(shares):
        return np.zeros(0), np.zeros(0, bool)
    return shares.max(axis=1), shares.argmax(axis=1) == table.emotion[named]


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else _NAN


def _between(values: Floats, classes: Sequence[tuple[float, float]], which: int) -> Flags:
    """Tell which values are in a class; the first and the last are open to their sides."""
    low, high = classes[which]
    low = -np.inf if which == 0 else low
    high = np.inf if which == len(classes) - 1 else high
    return np.asarray((values >= low) & (values < high))


def _errors_ms(hit: Hit | None) -> tuple[float, float, float]:
    if hit is None:
        return _NAN, _NAN, _NAN
    apex_s = _NAN if hit.truth.apex_s is None else hit.truth.apex_s
    return (
        1000 * abs(hit.truth.onset_s - hit.answer.onset_s),
        1000 * abs(apex_s - hit.answer.apex_s),
        1000 * abs(hit.truth.offset_s - hit.answer.offset_s),
    )


def _delay_ms(hit: Hit | None) -> float:
    if hit is None or hit.answer.told_s is None:
        return _NAN
    return 1000 * (hit.answer.told_s - hit.truth.offset_s)


def _shares(answer: Answer | None) -> tuple[float, ...]:
    return answer.probabilities if answer and answer.probabilities else (_NAN,) * len(NAMES)


def _units(hit: Hit | None) -> list[tuple[int, int, int]]:
    """Count hits, false and missed action units of a true positive, by AU and by (AU, side); 0 where unknown."""
    if hit is None or not hit.truth.action_units:
        return [(0, 0, 0), (0, 0, 0)]
    truth, answer = hit.truth.action_units, [(unit.au, unit.side) for unit in hit.answer.action_units]
    by_au = {au for au, _ in truth}, {au for au, _ in answer}
    by_side = _sided(truth), _sided(answer)
    return [(len(a & b), len(b - a), len(a - b)) for a, b in (by_au, by_side)]


def _sided(units: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """Take a unit on both sides for one on each, so that half of it can be right."""
    return {(au, one) for au, side in units for one in (("right", "left") if side == "both" else (side,))}
