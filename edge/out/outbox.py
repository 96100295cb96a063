"""Keeps events in order until the broker has confirmed them.

Decision: the outbox is bounded and lives in memory, so a restart loses what it holds. Its interface is that
of a durable queue: entries have rising indices, are read without being removed, and are removed by index once
they are confirmed, so that a store on disk can take its place.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from itertools import islice

from edge.out import Payload


@dataclass(frozen=True, slots=True)
class Entry:
    """One payload that waits for its confirmation."""

    index: int
    """Rises by one per payload appended, from 0."""
    payload: Payload


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of everything that was appended: appended = waiting + confirmed + lost."""

    waiting: int
    confirmed: int
    lost: int
    """Dropped by the cap or refused by the broker; one dropped while on its way may have arrived."""


class Outbox:
    """A bounded queue that forgets only on confirmation; when full it drops the oldest and counts it.

    Every method may be called from any thread and returns at once.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._next_index = 0
        self._confirmed = 0
        self._lost = 0
        self._lock = threading.Lock()

    def append(self, payload: Payload) -> int:
        """Keep `payload` behind the others and give its index; drops the oldest if there is no room."""
        with self._lock:
            index = self._next_index
            self._next_index += 1
            self._entries[index] = Entry(index, payload)
            if len(self._entries) > self._capacity:
                self._entries.popitem(last=False)
                self._lost += 1
            return index

    def peek(self, after: int, limit: int) -> list[Entry]:
        """Give up to `limit` of the oldest entries with an index above `after` (-1: all), in order."""
        with self._lock:
            return list(islice((entry for entry in self._entries.values() if entry.index > after), limit))

    def acknowledge(self, index: int) -> None:
        """Forget an entry that has arrived; one that the cap has dropped meanwhile stays counted as lost."""
        with self._lock:
            if self._entries.pop(index, None) is not None:
                self._confirmed += 1

    def refuse(self, index: int) -> None:
        """Forget an entry that the receiver will never take, and count it as lost."""
        with self._lock:
            if self._entries.pop(index, None) is not None:
                self._lost += 1

    @property
    def next_index(self) -> int:
        """The index that the next payload will get."""
        with self._lock:
            return self._next_index

    def counts(self) -> Counts:
        with self._lock:
            return Counts(len(self._entries), self._confirmed, self._lost)
