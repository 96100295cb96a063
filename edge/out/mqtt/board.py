"""What the device has to say besides events: retained messages, of which the newest counts, and answers to commands."""

import threading
from collections import deque
from dataclasses import dataclass

from edge.out.mqtt.commands import Answer

ANSWERS = 32
"""Answers that wait at most; whoever asked has long given up when more do."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One message that is no event."""

    topic: str
    message: bytes
    is_retained: bool
    correlation: bytes = b""


class Board:
    """Any thread puts notices up; the network thread takes them, retained ones again for every connection."""

    def __init__(self) -> None:
        self._newest: dict[str, Notice] = {}
        self._unsent: dict[str, None] = {}
        self._answers: deque[Notice] = deque(maxlen=ANSWERS)
        self._lock = threading.Lock()

    def put(self, topic: str, message: bytes) -> None:
        """Make `message` the retained one of `topic`; one that was not sent yet is replaced."""
        with self._lock:
            self._newest[topic] = Notice(topic, message, True)
            self._unsent[topic] = None

    def answer(self, answer: Answer, message: bytes) -> None:
        """Say `message` once, where the answer is to go."""
        with self._lock:
            self._answers.append(Notice(answer.topic, message, False, answer.correlation))

    def send_all_again(self) -> None:
        """Mark every retained message unsent, as a new connection needs it."""
        with self._lock:
            self._unsent.update(dict.fromkeys(self._newest))

    def take(self) -> Notice | None:
        """Give what was put up first and not taken yet, answers before the rest; None if there is nothing."""
        with self._lock:
            if self._answers:
                return self._answers.popleft()
            if not self._unsent:
                return None
            topic = next(iter(self._unsent))
            del self._unsent[topic]
            return self._newest[topic]
