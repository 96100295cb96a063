"""Takes events away from the worker: a thread that writes, commits and hands on, so that no frame waits for a disk.

`feed` brings frames to the worker; this is the other end. An event is handed over in an instant; behind that it is
written as a payload, numbered and committed (`edge.store.outbox`), and only then given to the sinks, in order.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

from edge.errors import PublishError
from edge.out import EventSink, Payload
from edge.payload import PayloadWriter
from edge.records import Event
from edge.store.outbox import Outbox

log = logging.getLogger(__name__)

CAPACITY = 10_000
"""Events that may wait for a disk that has stopped answering; hours' worth."""
BATCH = 64
"""Events that are committed together when they come faster than the disk takes them one by one."""
FLUSH_S = 1.0
"""Time between two looks at what else the outbox has to write."""


class Dispatcher:
    """Between the worker and everything that waits. Whoever constructs it closes it."""

    def __init__(
        self,
        writer: PayloadWriter,
        outbox: Outbox,
        sinks: Sequence[EventSink],
        *,
        is_replay: bool = False,
        came_round: Callable[[], None] = lambda: None,
    ) -> None:
        """Start the thread.

        Args:
            writer: used by this thread alone from now on, except for its `context`.
            outbox: numbers and keeps the events.
            sinks: take each event in this order; an error of one does not keep it from the next.
            is_replay: mark events as replayed, and let `hand` raise once one could not be published.
            came_round: told each time the outbox has answered, events or none; at least every few seconds.
        """
        self._came_round = came_round
        self._writer, self._outbox, self._sinks, self._is_replay = writer, outbox, sinks, is_replay
        self._waiting: deque[tuple[Event, int]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._failure: PublishError | None = None
        self.problem = ""
        """What kept the last event from being published; empty if nothing did."""
        self.unwritten = 0
        """Events that were given up before they were numbered: they broke the contract, or the disk stood still."""
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)
        self._thread.start()

    def hand(self, event: Event, start_time_ns: int) -> None:
        """Hand an event over and return at once.

        Args:
            event: what was seen.
            start_time_ns: UTC of media time 0, ns since 1970, as it is known now.

        Raises:
            PublishError: of a replay, once an earlier event could not be published.
        """
        if self._failure is not None:
            raise self._failure
        with self._changed:
            if len(self._waiting) >= CAPACITY:
                self._give_up(f"the disk stands still: over {CAPACITY} events wait to be written")
                return
            self._waiting.append((event, start_time_ns))
            self._changed.notify()

    def close(self, timeout_s: float | None = None) -> None:
        """Hand on everything that waits and end the thread. May be called again."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            log.warning("events: %d were not written within %g s", len(self._waiting), timeout_s)

    @property
    def failure(self) -> str:
        """Why a replay could not publish an event; empty if it could."""
        return "" if self._failure is None else str(self._failure)

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            try:
                self._publish(batch)
            except Exception as error:
                # Whatever a sink or SQLite raises, the next event must still get out.
                log.exception("events: failed")
                self._note(PublishError(f"events: {type(error).__name__}: {error}"))
            self._came_round()
        self._outbox.flush()

    def _next_batch(self) -> list[tuple[Event, int]] | None:
        """Wait for events; an empty list when nothing came for a while, None when nothing comes any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing, FLUSH_S)
            if not self._waiting:
                return None if self._closing else []
            return [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]

    def _publish(self, batch: Sequence[tuple[Event, int]]) -> None:
        if not batch:
            self._outbox.flush()
            return
        series, seq = self._outbox.number
        written: list[tuple[Event, Payload]] = []
        for event, start_time_ns in batch:
            self._writer.start_time_ns = start_time_ns
            try:
                payload = self._writer.write(event, series, seq + len(written), replayed=self._is_replay)
            except PublishError as error:
                self._give_up(str(error))
                continue
            written.append((event, payload))
        kept = self._outbox.append([payload for _, payload in written])
        for (event, _), payload in zip(written, kept, strict=True):
            problem = ""
            for sink in self._sinks:
                try:
                    sink.publish(event, payload)
                except PublishError as error:
                    problem = str(error)
                    self._note(error)
            self.problem = problem

    def _give_up(self, problem: str) -> None:
        self.unwritten += 1
        self._note(PublishError(problem))

    def _note(self, error: PublishError) -> None:
        if self._is_replay and self._failure is None:
            self._failure = error
        if str(error) != self.problem:
            log.warning("%s", error)
        self.problem = str(error)
