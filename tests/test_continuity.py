"""Real rate, lost frames and gaps, from timestamps and sequence numbers."""

import numpy as np

from edge.continuity import Continuity
from edge.records import Frame

LUMA = np.zeros((4, 4), np.uint8)


def take(stamps_ms: list[float], sequences: list[int] | None = None) -> tuple[Continuity, list[int | None]]:
    continuity = Continuity()
    numbers = sequences or list(range(len(stamps_ms)))
    return continuity, [
        continuity.take(Frame(LUMA, round(t * 1e6), n)) for t, n in zip(stamps_ms, numbers, strict=True)
    ]


def test_the_rate_is_the_median_of_the_periods():
    stamps = list(np.cumsum([5.0] * 60 + [50.0] + [5.0] * 60))
    continuity, _ = take(stamps)
    assert round(continuity.frame_rate_hz, 3) == 200.0


def test_a_jump_of_the_sequence_number_counts_lost_frames():
    continuity, _ = take([5.0 * n for n in range(30) if n != 20], [n for n in range(30) if n != 20])
    assert continuity.dropped == 1


def test_a_hole_between_timestamps_counts_lost_frames_even_without_numbers():
    continuity, elapsed = take([5.0 * n for n in range(40) if n not in (30, 31, 32)])
    assert continuity.dropped == 3
    assert [continuity.is_gap(e) for e in elapsed if e] == [False] * 29 + [True] + [False] * 6


def test_one_lost_frame_is_bridged():
    continuity, elapsed = take([5.0 * n for n in range(40) if n != 30])
    assert not any(continuity.is_gap(e) for e in elapsed if e)


def test_a_timestamp_that_does_not_rise_is_refused_and_counted():
    continuity, elapsed = take([0.0, 5.0, 4.0, 5.0, 10.0])
    assert elapsed == [0, 5_000_000, None, None, 5_000_000]
    assert continuity.out_of_order == 2
    assert continuity.frames == 3
