"""What a broker confirms counts only once it is seen to pass things on: once for a connection, and no longer."""

import pytest

from edge.out.mqtt.echo import TIMEOUT_S, Echo
from edge.store.ledger import Entry

FIRST, SECOND = Entry(7, 0, {"id": "first"}, ""), Entry(8, 0, {"id": "second"}, "")


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def echo(clock: Clock) -> Echo:
    return Echo(is_asked=True, clock_s=clock)


def test_if_nobody_asks_every_confirmation_counts() -> None:
    echo = Echo(is_asked=False)
    assert echo.is_heard
    echo.event_sent(FIRST)
    assert echo.event_confirmed(FIRST.position) == FIRST.position
    echo.greeting_confirmed()
    assert not echo.is_overdue


def test_a_greeting_that_was_confirmed_must_come_back_in_time(echo: Echo, clock: Clock) -> None:
    assert not echo.is_heard
    clock.now_s += 10 * TIMEOUT_S
    assert not echo.is_overdue, "nothing was confirmed yet"
    echo.greeting_confirmed()
    clock.now_s += TIMEOUT_S - 0.1
    assert not echo.is_overdue
    clock.now_s += 0.1
    assert echo.is_overdue
    echo.greeting_back()
    assert echo.is_heard
    assert not echo.is_overdue


@pytest.mark.parametrize("order", [("confirmed", "back"), ("back", "confirmed")])
def test_the_first_event_counts_once_it_is_both_confirmed_and_back_in_either_order(
    order: tuple[str, str], echo: Echo
) -> None:
    assert echo.is_trial_free
    echo.event_sent(FIRST)
    assert not echo.is_trial_free
    steps = {
        "confirmed": lambda: echo.event_confirmed(FIRST.position),
        "back": lambda: echo.event_back("first"),
    }
    assert steps[order[0]]() is None
    assert not echo.is_proven
    assert steps[order[1]]() == FIRST.position
    assert echo.is_proven
    assert not echo.is_overdue
    echo.event_sent(SECOND)
    assert echo.event_confirmed(SECOND.position) == SECOND.position
    assert echo.event_back("second") is None


def test_an_event_that_was_confirmed_must_come_back_in_time_and_others_do_not_count(
    echo: Echo, clock: Clock
) -> None:
    echo.event_sent(FIRST)
    assert echo.event_confirmed(FIRST.position) is None
    assert echo.event_back("a stranger's") is None
    assert echo.event_back(None) is None
    clock.now_s += TIMEOUT_S
    assert echo.is_overdue
