"""Stage times: what was done between two laps belongs to the stage named, and memory stays as it was."""

from collections.abc import Iterator

import numpy as np
import pytest

from edge.stages import Stage, Stopwatch


def clock(*readings_ms: float) -> Iterator[int]:
    return iter(round(reading * 1e6) for reading in readings_ms)


def test_laps_add_up_to_the_time_of_the_frame() -> None:
    readings = clock(10.0, 10.5, 11.5, 12.0, 12.25)
    watch = Stopwatch(lambda: next(readings))
    watch.begin()
    watch.lap(Stage.TRACK)
    watch.lap(Stage.MOTION)
    watch.lap(Stage.TRACK)
    watch.end()
    spreads = watch.spreads()
    assert spreads[Stage.TRACK].max == pytest.approx(1.0)
    assert spreads[Stage.MOTION].max == pytest.approx(1.0)
    assert spreads[Stage.PATH].max == pytest.approx(2.25)
    assert set(spreads) == {Stage.TRACK, Stage.MOTION, Stage.PATH}


def test_a_stage_is_judged_over_the_frames_that_passed_it() -> None:
    now_ns = 0
    watch = Stopwatch(lambda: now_ns)
    for number in range(12):
        watch.begin()
        now_ns += 1_000_000
        watch.lap(Stage.MOTION)
        if number % 6 == 0:
            now_ns += 4_000_000
            watch.lap(Stage.LANDMARKS)
        watch.end()
    landmarks = watch.spreads()[Stage.LANDMARKS]
    assert (landmarks.p50, landmarks.share) == (pytest.approx(4.0), pytest.approx(1 / 6))
    assert landmarks.mean == pytest.approx(4 / 6)


def test_only_the_last_frames_are_kept() -> None:
    now_ns = 0
    watch = Stopwatch(lambda: now_ns, kept=10)
    for number in range(25):
        watch.begin()
        now_ns += (number + 1) * 1_000_000
        watch.end()
    assert np.sort(watch.times_ms()[:, Stage.PATH]) == pytest.approx(np.arange(16, 26))


def test_without_a_clock_nothing_is_timed() -> None:
    watch = Stopwatch()
    watch.begin()
    watch.lap(Stage.MOTION)
    watch.end()
    assert watch.spreads() == {}
