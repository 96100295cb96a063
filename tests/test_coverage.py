"""Every nanosecond is booked once, and neighbouring time of one reason is one stretch."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge.coverage import Coverage
from edge.records import NotAssessable, Reason

MS = 1_000_000
REASONS = (None, Reason.NO_FACE, Reason.TURNING, Reason.GAP)

bookings = st.lists(st.tuples(st.integers(1, 40), st.sampled_from(REASONS)), min_size=1, max_size=60)


def booked(coverage: Coverage, entries: list[tuple[int, Reason | None]]) -> tuple[list[NotAssessable], int]:
    """Book stretches of so many ms; give those that ended, the last one included, and the end."""
    stretches, now = [], 0
    for length, reason in entries:
        ended = coverage.book(now, now + length * MS, reason)
        stretches += [ended] if ended is not None else []
        now += length * MS
    last = coverage.finish()
    return stretches + ([last] if last is not None else []), now


@given(entries=bookings)
def test_assessable_and_lost_time_add_up_to_the_nanosecond(entries):
    coverage = Coverage()
    stretches, end_ns = booked(coverage, entries)
    assert coverage.assessable_ns + coverage.lost_ns.total() == end_ns
    for reason in REASONS[1:]:
        assert coverage.lost_ns[reason] == sum(s.end_ns - s.start_ns for s in stretches if s.reason == reason)


@given(entries=bookings)
def test_stretches_are_whole_in_order_and_without_overlap(entries):
    stretches, _ = booked(Coverage(), entries)
    for before, after in pairwise(stretches):
        assert before.end_ns <= after.start_ns
        assert before.end_ns < after.start_ns or before.reason != after.reason


@given(entries=bookings, at=st.integers(0, 2400))
def test_a_moment_is_assessable_exactly_where_it_was_booked_so(entries, at):
    coverage, now, expected = Coverage(), 0, False
    for length, reason in entries:
        if now < at * MS <= now + length * MS:
            expected = reason is None
        coverage.book(now, now + length * MS, reason)
        now += length * MS
    # Only the last seconds are kept; these bookings stay below that.
    if now <= 2_400 * MS:
        assert bool(coverage.assessable(np.array([at * MS]))[0]) == (expected or at == 0)


def test_an_interval_that_reaches_into_lost_time_is_given_its_reason():
    coverage = Coverage()
    booked(coverage, [(100, None), (50, Reason.GAP), (100, None), (50, Reason.TURNING)])
    assert coverage.reason_against(0, 100 * MS) is None
    assert coverage.reason_against(90 * MS, 101 * MS) is Reason.GAP
    assert coverage.reason_against(120 * MS, 290 * MS) is Reason.GAP
    assert coverage.reason_against(150 * MS, 250 * MS) is None
    assert coverage.reason_against(249 * MS, 251 * MS) is Reason.TURNING


def test_a_stretch_is_known_before_it_has_ended():
    coverage = Coverage()
    coverage.book(0, 10 * MS, Reason.NO_FACE)
    assert coverage.reason_against(5 * MS, 20 * MS) is Reason.NO_FACE


def test_what_lies_long_ago_is_forgotten_and_its_sum_is_not():
    coverage = Coverage()
    for second in range(100):
        coverage.book(second * 1000 * MS, (second * 1000 + 500) * MS, Reason.GAP)
        coverage.book((second * 1000 + 500) * MS, (second + 1) * 1000 * MS, None)
    assert coverage.reason_against(0, 500 * MS) is None
    assert coverage.reason_against(99_000 * MS, 99_500 * MS) is Reason.GAP
    assert coverage.lost_ns[Reason.GAP] == 50_000 * MS
