"""Real rate, lost frames, gaps and clocks that jump, from timestamps and sequence numbers."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge.continuity import Continuity
from edge.records import Frame

LUMA = np.zeros((4, 4), np.uint8)
HOUR_MS = 3_600_000.0


class Taken:
    """What became of a stream."""

    def __init__(self, stamps_ms: Sequence[float], numbers: Sequence[int] | None = None) -> None:
        self.continuity = Continuity()
        self.media_ns: list[int] = []
        self.gaps: list[int] = []
        """Places among the taken frames that a gap comes before."""
        for stamp, number in zip(stamps_ms, numbers or range(len(stamps_ms)), strict=True):
            if (frame := self.continuity.take(Frame(LUMA, round(stamp * 1e6), number))) is None:
                continue
            if self.continuity.is_gap:
                self.gaps.append(len(self.media_ns))
            self.media_ns.append(frame.timestamp_ns)


def kept(bursts: list[tuple[int, int]]) -> list[int]:
    """Number the frames that are left of a stream in which so many are kept, then so many lost, and so on."""
    numbers, number = [0], 0
    for keep, lose in bursts:
        numbers += range(number + 1, number + keep + 1)
        number += keep + lose
    return numbers


def test_the_rate_is_the_median_of_the_periods():
    stamps = list(np.cumsum([5.0] * 60 + [50.0] + [5.0] * 60))
    assert round(Taken(stamps).continuity.frame_rate_hz, 3) == 200.0


def test_a_jump_of_the_sequence_number_counts_lost_frames():
    left = [n for n in range(30) if n != 20]
    assert Taken([5.0 * n for n in left], left).continuity.dropped == 1


def test_a_hole_between_timestamps_counts_lost_frames_even_without_numbers():
    taken = Taken([5.0 * n for n in range(40) if n not in (30, 31, 32)])
    assert taken.continuity.dropped == 3
    assert taken.gaps == [30]


def test_what_was_lost_before_the_period_is_known_is_counted_once_it_is():
    taken = Taken([5.0 * n for n in range(40) if n not in (2, 3, 9)])
    assert taken.continuity.dropped == 3


def test_one_lost_frame_is_bridged():
    assert Taken([5.0 * n for n in range(40) if n != 30]).gaps == []


@given(st.lists(st.booleans(), min_size=1, max_size=300), st.sampled_from([25.0, 60.0, 200.0]))
def test_any_pattern_of_lost_frames_is_counted_exactly_by_their_numbers(is_lost: list[bool], rate_hz: float):
    left = [0, *(n for n, lost in enumerate(is_lost, 1) if not lost)]
    continuity = Taken([1000 / rate_hz * n for n in left], left).continuity
    assert continuity.dropped == left[-1] + 1 - len(left)
    assert continuity.frames == len(left)


@given(
    st.lists(st.tuples(st.integers(3, 40), st.integers(0, 40)), min_size=8, max_size=40),
    st.sampled_from([25.0, 60.0, 200.0]),
    st.integers(0, 2**32 - 1),
)
def test_any_bursts_of_lost_frames_are_counted_exactly_by_jittering_timestamps_alone(bursts, rate_hz, seed):
    left = kept(bursts)
    jitter = np.random.default_rng(seed).uniform(-0.005, 0.005, len(left))
    taken = Taken([1000 / rate_hz * (n + j) for n, j in zip(left, jitter, strict=True)])
    assert taken.continuity.dropped == left[-1] + 1 - len(left)


def test_a_timestamp_that_does_not_rise_is_refused_and_counted():
    taken = Taken([0.0, 5.0, 4.0, 5.0, 10.0])
    assert taken.media_ns == [0, 5_000_000, 10_000_000]
    assert taken.continuity.out_of_order == 2
    assert taken.continuity.dropped == 0


def test_a_frame_that_comes_late_is_refused_and_counts_as_lost():
    order = [*range(30), 31, 30, *range(32, 60)]
    continuity = Taken([5.0 * n for n in order], order).continuity
    assert (continuity.dropped, continuity.out_of_order, continuity.clock_steps) == (1, 1, 0)


def test_frames_given_twice_are_refused_and_nothing_counts_as_lost():
    order = [n for n in range(60) for _ in range(2)]
    for numbers in (order, None):
        continuity = Taken([5.0 * n for n in order], numbers).continuity
        assert (continuity.frames, continuity.dropped, continuity.out_of_order) == (60, 0, 60)


def test_a_clock_that_steps_back_is_followed_after_a_few_frames_and_media_time_goes_on():
    back = [5.0 * n - (2000.0 if n >= 500 else 0.0) for n in range(600)]
    taken = Taken(back)
    assert taken.continuity.clock_steps == 1
    assert taken.continuity.out_of_order == 4
    assert taken.continuity.dropped == 0
    assert taken.gaps == [500]
    # As if the clock had not stepped at all.
    assert taken.media_ns == [5_000_000 * n for n in range(600) if not 500 <= n < 504]


def test_a_clock_that_steps_an_hour_forward_loses_no_frame():
    taken = Taken([5.0 * n + (HOUR_MS if n >= 500 else 0.0) for n in range(600)])
    assert (taken.continuity.clock_steps, taken.continuity.dropped, taken.continuity.out_of_order) == (
        1,
        0,
        4,
    )
    assert taken.gaps == [500]
    assert round(taken.continuity.frame_rate_hz, 3) == 200.0


def test_an_hour_that_the_numbers_bear_out_is_an_hour_of_lost_frames():
    left = [*range(500), *range(720_500, 720_600)]
    taken = Taken([5.0 * n for n in left], left)
    assert (taken.continuity.clock_steps, taken.continuity.dropped) == (0, 720_000)


def test_two_seconds_without_numbers_are_lost_frames_and_no_step_of_the_clock():
    taken = Taken([5.0 * n + (2000.0 if n >= 500 else 0.0) for n in range(600)])
    assert (taken.continuity.clock_steps, taken.continuity.dropped) == (0, 400)
    assert taken.gaps == [500]


def test_one_stray_timestamp_costs_its_own_frame_only():
    for stray in (HOUR_MS, -2000.0):
        taken = Taken([5.0 * n + (stray if n == 500 else 0.0) for n in range(600)])
        continuity = taken.continuity
        assert (continuity.clock_steps, continuity.out_of_order, continuity.dropped) == (0, 1, 1)
        assert taken.media_ns == [5_000_000 * n for n in range(600) if n != 500]
        assert taken.gaps == []


def test_a_clock_may_step_back_before_the_period_is_known():
    taken = Taken([5000.0, *(5.0 * n for n in range(50))])
    assert taken.continuity.clock_steps == 1
    assert round(taken.continuity.frame_rate_hz, 3) == 200.0
    assert taken.media_ns[0] == 5_000_000_000


@given(st.lists(st.tuples(st.integers(1, 30), st.floats(-1e5, 1e5)), min_size=1, max_size=20))
def test_whatever_the_clock_does_media_time_rises_and_the_stream_goes_on(parts: list[tuple[int, float]]):
    stamps, offset = [], 0.0
    for length, step in parts:
        offset += step
        stamps += [5.0 * (len(stamps) + n) + offset for n in range(length)]
    stamps += [5.0 * (len(stamps) + n) + offset for n in range(10)]
    taken = Taken(stamps)
    assert all(before < after for before, after in pairwise(taken.media_ns))
    assert taken.continuity.frames + taken.continuity.out_of_order == len(stamps)
    # At the latest five frames after the last step all are taken.
    last = taken.media_ns[-5:]
    assert [after - before for before, after in pairwise(last)] == [5_000_000] * 4
