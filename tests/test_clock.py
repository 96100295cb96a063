"""A clock that is years off is told from one that may be right."""

from datetime import UTC, datetime

import pytest

from edge import clock


@pytest.mark.parametrize("year", [1970, 2000, 2025])
def test_a_clock_before_the_programs_own_time_is_named_with_what_it_says(year: int) -> None:
    problem = clock.problem(int(datetime(year, 1, 2, 3, 4, tzinfo=UTC).timestamp() * 1e9))
    assert problem.startswith(f"clock: says {year}-01-02 03:04 UTC")
    assert "timedatectl" in problem


def test_a_clock_that_may_be_right_is_left_alone() -> None:
    assert clock.problem(int(datetime(2031, 5, 6, tzinfo=UTC).timestamp() * 1e9)) == ""


def test_the_kernel_is_asked_whether_the_clock_is_kept_right() -> None:
    assert clock.is_synchronised() in (True, False)
