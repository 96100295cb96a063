"""Do stated probabilities come true? Reliability and expected calibration error.

Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 2 (bins of equal width); Nguyen and
O'Connor, EMNLP 2015, section 3 (bins of equal count, which the few confident or doubtful answers cannot leave empty).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers whose stated probability is about the same."""

    stated: float
    """Mean of what was stated."""
    right: float
    """Share that was right."""
    count: int


def reliability(
    stated: NDArray[np.float64], is_right: NDArray[np.bool_], *, equal_count: bool = False
) -> list[Bin]:
    """Sort answers into BINS bins by what was stated; empty bins are left out.

    Args:
        stated: (n,) probabilities, 0..1.
        is_right: (n,)
        equal_count: bins of equal count instead of equal width; equal statements may then be in two bins.
    """
    if not len(stated):
        return []
    if equal_count:
        order = np.argsort(stated, kind="stable")
        groups = np.array_split(order, min(BINS, len(order)))
    else:
        which = np.minimum((stated * BINS).astype(int), BINS - 1)
        groups = [np.flatnonzero(which == number) for number in range(BINS)]
    return [
        Bin(float(stated[group].mean()), float(is_right[group].mean()), len(group))
        for group in groups
        if len(group)
    ]


def calibration_error(
    stated: NDArray[np.float64], is_right: NDArray[np.bool_], *, equal_count: bool = False
) -> float:
    """Give the mean gap between statement and truth over the answers, 0..1; NaN without answers."""
    bins = reliability(stated, is_right, equal_count=equal_count)
    total = sum(part.count for part in bins)
    return sum(part.count * abs(part.stated - part.right) for part in bins) / total if total else float("nan")
