"""Leave one subject out: what is chosen for a person is chosen on the others.

The field trains anew for each person left out. Our model is fixed and never saw these people; what remains to be
chosen is how much evidence an event needs (`spot.threshold`) and how sharp the emotions' probabilities are (a
temperature). Both are chosen on the other people's candidates, those that the device turned down included, and
applied to the one left out; the counts of all are then pooled.

The choice works on the candidates as they were saved (tools.evaluate.thresholds).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge.config import Config
from tools.evaluate.matching import Rules, count, match
from tools.evaluate.records import NAMES, Answer, Recording
from tools.evaluate.thresholds import THRESHOLDS, at_threshold

TEMPERATURES = tuple(round(float(t), 3) for t in np.geomspace(0.4, 4.0, 25))


@dataclass(frozen=True, slots=True)
class Chosen:
    """What was chosen for one person, on the others."""

    subject: str
    threshold: float
    temperature: float


def loso(
    recordings: Sequence[Recording],
    rules: Rules,
    config: Config,
) -> tuple[list[Recording], list[Chosen]]:
    """Give each person's recordings as answered with what the other people's choose.

    Args:
        recordings: of one spotter, of two people or more.
        rules: by which F1 is taken.
        config: as they were made with. Of thresholds that do equally well the one nearest to its own is chosen.

    Raises:
        ValueError: fewer than two people.
    """
    people = sorted({recording.subject for recording in recordings})
    if len(people) < 2:
        raise ValueError(f"leave-one-subject-out needs two people or more; this run shows {len(people)}")
    limits_s = config.event.min_duration_ms / 1000, config.event.max_duration_ms / 1000
    answered = {
        threshold: [at_threshold(recording, threshold, limits_s) for recording in recordings]
        for threshold in THRESHOLDS
    }
    # Counts and recognised answers per person and threshold are sums over recordings: each is taken once.
    tallies = {
        threshold: {subject: _tally([r for r in of if r.subject == subject], rules) for subject in people}
        for threshold, of in answered.items()
    }
    chosen = []
    result = []
    for left_out in people:
        others = [subject for subject in people if subject != left_out]
        threshold = max(THRESHOLDS, key=lambda t: (_f1(tallies[t], others), -abs(t - config.spot.threshold)))
        temperature = best_temperature([tallies[threshold][subject].hits for subject in others])
        chosen.append(Chosen(left_out, threshold, temperature))
        result += [
            replace(
                r, answers=tuple(tempered(a, temperature, config.event.uncertain_below) for a in r.answers)
            )
            for r in answered[threshold]
            if r.subject == left_out
        ]
    return result, chosen


def best_temperature(groups: Iterable[tuple[NDArray[np.float64], NDArray[np.int_]]]) -> float:
    """Give the temperature under which the true emotions are most likely; 1 where there is nothing to go by.

    Args:
        groups: (n, 8) probabilities and (n,) places of the true emotions in NAMES.
    """
    parts = [group for group in groups if len(group[1])]
    if not parts:
        return 1.0
    shares = np.concatenate([part[0] for part in parts])
    truth = np.concatenate([part[1] for part in parts])

    def surprise(temperature: float) -> float:
        spread = sharpened(shares, temperature)
        return -float(np.log(np.maximum(spread[np.arange(len(truth)), truth], 1e-9)).mean())

    return min(TEMPERATURES, key=surprise)


def sharpened(shares: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Give probabilities (n, 8) as if their logits were divided by `temperature`."""
    logits = np.log(np.maximum(shares, 1e-9)) / temperature
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def tempered(answer: Answer, temperature: float, uncertain_below: float) -> Answer:
    """Name the emotion again under a temperature; what was uncertain for another reason than this stays so."""
    if not answer.probabilities:
        return answer
    stays = answer.emotion == "uncertain" and answer.confidence >= uncertain_below
    shares = sharpened(np.array(answer.probabilities), temperature)
    confidence = float(shares.max())
    emotion = NAMES[int(shares.argmax())] if confidence >= uncertain_below and not stays else "uncertain"
    return replace(answer, probabilities=tuple(map(float, shares)), confidence=confidence, emotion=emotion)


@dataclass(frozen=True, slots=True)
class _Tally:
    true: int
    false: int
    missed: int
    hits: tuple[NDArray[np.float64], NDArray[np.int_]]


def _tally(recordings: Sequence[Recording], rules: Rules) -> _Tally:
    outcomes = [match(recording, rules) for recording in recordings]
    total = count(outcomes, rules)
    named = [
        (hit.answer.probabilities, NAMES.index(hit.truth.emotion))
        for outcome in outcomes
        for hit in outcome.hits
        if hit.answer.probabilities and hit.truth.emotion in NAMES
    ]
    shares = np.array([shares for shares, _ in named], float).reshape(-1, len(NAMES))
    return _Tally(
        total.true, total.false, total.missed, (shares, np.array([truth for _, truth in named], int))
    )


def _f1(tallies: dict[str, _Tally], people: Iterable[str]) -> float:
    of = [tallies[subject] for subject in people]
    true, wrong = sum(t.true for t in of), sum(t.false + t.missed for t in of)
    return 2 * true / max(2 * true + wrong, 1)
