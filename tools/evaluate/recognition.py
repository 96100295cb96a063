"""What was named: UF1, UAR and the product with spotting (STRS), on true positives only.

The field recognises by forced choice, so the answer taken here is the most probable of the classes asked about,
whatever the device said aloud; how often it said `uncertain` is counted beside it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tools.evaluate.records import NAMES

FIELD_CLASSES = ("positive", "negative", "surprise", "others")
"""The classes of the MEGC tasks. Recognition of given clips (2019) knows the first three; spot-then-recognise all."""

_NEGATIVE = ("sadness", "anger", "fear", "disgust", "contempt")
_CLASS_OF = {"happiness": 0, "surprise": 2, "other": 3, **dict.fromkeys(_NEGATIVE, 1)}

CLASS_OF = np.array([_CLASS_OF[name] for name in NAMES])
"""(8,) place in FIELD_CLASSES for each of NAMES."""


@dataclass(frozen=True, slots=True)
class Recognition:
    """Measures over the classes of a confusion matrix; NaN where nothing was to be recognised."""

    uf1: float
    """Unweighted F1: the mean over the classes of each one's F1."""
    uar: float
    """Unweighted average recall, over the classes that occur."""
    f1: float
    """Harmonic mean of the classes' mean precision and mean recall: what the organisers multiply to STRS
    (genbing99/STRS-Metric:strs_metric.py). Not UF1, which is the mean of the classes' F1."""
    accuracy: float


def field_classes(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum the probabilities (n, 8) up to those of FIELD_CLASSES (n, 4)."""
    return np.stack([shares[:, place == CLASS_OF].sum(axis=1) for place in range(len(FIELD_CLASSES))], axis=1)


def confusion(
    truth: NDArray[np.int_], named: NDArray[np.int_], size: int, weights: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Count (truth, answer) pairs into (size, size); pairs with a truth outside 0..size-1 are left out."""
    table = np.zeros((size, size))
    known = (truth >= 0) & (truth < size)
    np.add.at(table, (truth[known], named[known]), 1.0 if weights is None else weights[known])
    return table


def measure(table: NDArray[np.float64]) -> Recognition:
    """Measure a confusion matrix; classes that neither occur nor are named are left out."""
    right, occurs, named = table.diagonal(), table.sum(axis=1), table.sum(axis=0)
    used = occurs + named > 0
    if not occurs.sum():
        nan = float("nan")
        return Recognition(nan, nan, nan, nan)
    f1 = 2 * right[used] / (occurs + named)[used]
    recall = right[used] / np.maximum(occurs[used], 1e-12)
    precision = float((right[used] / np.maximum(named[used], 1e-12)).mean())
    mean_recall = float(recall.mean())
    both = precision + mean_recall
    return Recognition(
        float(f1.mean()),
        float((right[occurs > 0] / occurs[occurs > 0]).mean()),
        2 * precision * mean_recall / both if both else 0.0,
        float(right.sum() / occurs.sum()),
    )


def strs(spotting_f1: float, recognition_f1: float) -> float:
    """Give the spot-then-recognise score: the product of both F1."""
    return spotting_f1 * recognition_f1


def index_of(emotion: str | None) -> int:
    """Give the place of an emotion in NAMES, or -1."""
    return NAMES.index(emotion) if emotion in NAMES else -1
