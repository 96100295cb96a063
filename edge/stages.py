"""What each stage of the path costs per frame: the last frames' times, and their percentiles."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

KEPT = 2000
"""Frames over which times are stated: ten seconds at 200 Hz."""


class Stage(IntEnum):
    """The stages that are timed, in the order of the path; not every frame passes each."""

    DETECT = 0
    LANDMARKS = 1
    TRACK = 2
    MOTION = 3
    SPOT = 4
    EVENT = 5
    PATH = 6
    """The whole of a frame."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How a stage's times are spread over the frames that passed it, ms."""

    p50: float
    p95: float
    p99: float
    max: float
    share: float
    """Of the frames, those that passed this stage, 0..1."""
    mean: float
    """Over all frames, also those that did not pass it: the stages' means add up to that of the path."""


class Stopwatch:
    """Times the stages of each frame.

    Between `begin` and `end`, each `lap` adds the time since the one before to a stage. All memory is taken when
    it is made.

    Args:
        clock_ns: a steady clock; None: nothing is timed, and every call returns at once.
        kept: number of last frames whose times are kept.
    """

    def __init__(self, clock_ns: Callable[[], int] | None = None, kept: int = KEPT) -> None:
        self._clock_ns = clock_ns
        self._times_ns = np.zeros((kept, len(Stage)), np.int64)
        self._frame = [0] * len(Stage)
        self._began_ns = self._lap_ns = 0
        self._frames = 0

    def begin(self) -> None:
        """A frame sets out."""
        if self._clock_ns is not None:
            self._began_ns = self._lap_ns = self._clock_ns()

    def lap(self, stage: Stage) -> None:
        """What was done since the last lap belongs to `stage`."""
        if self._clock_ns is not None:
            now_ns = self._clock_ns()
            self._frame[stage] += now_ns - self._lap_ns
            self._lap_ns = now_ns

    def end(self) -> None:
        """The frame is through."""
        if self._clock_ns is None:
            return
        self._frame[Stage.PATH] = self._clock_ns() - self._began_ns
        self._times_ns[self._frames % len(self._times_ns)] = self._frame
        self._frames += 1
        self._frame[:] = _NOTHING

    def times_ms(self, frames: int | None = None) -> NDArray[np.float64]:
        """Give (frames, stages) ms of the last frames, oldest first; 0 where a frame did not pass a stage.

        Args:
            frames: how many at most; None: all that are kept.
        """
        kept = min(self._frames, len(self._times_ns))
        wanted = kept if frames is None else min(frames, kept)
        last = np.arange(self._frames - wanted, self._frames) % len(self._times_ns)
        return np.asarray(self._times_ns[last] * 1e-6, np.float64)

    def spreads(self) -> Mapping[Stage, Spread]:
        """Give the spread of each stage that any of the last frames passed."""
        return spreads(self.times_ms())


_NOTHING = [0] * len(Stage)


def spreads(times_ms: NDArray[np.float64]) -> dict[Stage, Spread]:
    """Give the spread of each stage that any frame passed.

    Args:
        times_ms: (frames, stages), as `Stopwatch.times_ms` gives it.
    """
    result = {}
    for stage in Stage:
        passed = times_ms[:, stage][times_ms[:, stage] > 0]
        if len(passed):
            p50, p95, p99 = np.percentile(passed, (50, 95, 99)).tolist()
            longest, total = float(passed.max()), float(passed.sum())
            result[stage] = Spread(p50, p95, p99, longest, len(passed) / len(times_ms), total / len(times_ms))
    return result
