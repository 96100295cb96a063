"""Finds out whether a broker passes on what it confirms.

A broker may confirm what it then throws away: mosquitto and NATS do so, over MQTT 3.1.1, with a message that the user
has no permission for. So the device's own `online` must come back before any event leaves, and the first event of a
connection counts as delivered only once it has come back too (`mqtt.check_echo`).
"""

import time
from collections.abc import Callable

from edge.store.ledger import Entry

TIMEOUT_S = 5.0
"""Time for a message that the broker has confirmed to come back."""


class Echo:
    """What has come back over one connection."""

    def __init__(self, *, is_asked: bool, clock_s: Callable[[], float] = time.monotonic) -> None:
        """Know nothing yet, or take everything as proven if nobody asks."""
        self.is_heard = not is_asked
        """Whether the own `online` has come back."""
        self.is_proven = not is_asked
        """Whether an event has, so that confirmations alone will do from now on."""
        self._clock_s = clock_s
        self._due_s = float("inf")
        self._trial: Entry | None = None
        self._is_confirmed = self._is_back = False

    @property
    def is_trial_free(self) -> bool:
        """Whether the event that makes the trial has yet to be sent; the others wait for its return."""
        return self._trial is None

    @property
    def is_overdue(self) -> bool:
        """Whether something that was confirmed has not come back in time."""
        return self._clock_s() >= self._due_s

    def greeting_confirmed(self) -> None:
        """The broker has confirmed the own `online`."""
        if not self.is_heard:
            self._due_s = self._clock_s() + TIMEOUT_S

    def greeting_back(self) -> None:
        """The own `online` has come back."""
        self.is_heard = True
        self._due_s = float("inf")

    def event_sent(self, entry: Entry) -> None:
        """An event has set out; until one is proven it makes the trial."""
        if not self.is_proven:
            self._trial = entry

    def event_confirmed(self, position: int) -> int | None:
        """The broker has confirmed an event; give the position of what counts as delivered by that."""
        if self.is_proven:
            return position
        self._is_confirmed = True
        self._due_s = self._clock_s() + TIMEOUT_S
        return self._judged()

    def event_back(self, event_id: object) -> int | None:
        """An event has come back; likewise."""
        if self.is_proven or self._trial is None or event_id != self._trial.payload["id"]:
            return None
        self._is_back = True
        return self._judged()

    def _judged(self) -> int | None:
        if self._trial is None or not (self._is_confirmed and self._is_back):
            return None
        self.is_proven, self._due_s = True, float("inf")
        return self._trial.position
