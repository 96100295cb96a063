"""Numbers events, commits each to disk before anything else happens with it, and keeps it until it has arrived.

A subscriber proves by (`series`, `seq`) that it missed nothing: `seq` rises by one from event to event of a series,
over restarts and power cuts. A series ends only with its file: a new or damaged one begins another. While the disk
cannot be written, events live in memory, under a series of their own, so that no number is ever given twice; they go
out all the same, and reach the disk as soon as it takes them. Whatever is given up unconfirmed (the queue is full, it
has expired, it was wiped) is recorded by its numbers.
"""

import contextlib
import logging
import sqlite3
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from edge.config import History
from edge.config import Outbox as OutboxConfig
from edge.errors import PublishError
from edge.out import Payload
from edge.payload import decode, encode
from edge.store.file import (
    FILE,
    FolderLock,
    Row,
    free_bytes,
    inode,
    is_damage,
    lengthen_log,
    open_store,
    reason,
    remove,
    salvage,
    set_aside,
    set_aside_files,
)  # fmt: skip
from edge.store.folder import LEAST_FREE_MB
from edge.store.ledger import MB, RECENT_LOSSES, Entry, Ledger, Loss, LossTally, losses

log = logging.getLogger(__name__)

RETRY_S = 5.0
"""Time between two attempts to open a file that could not be opened."""
FLUSH_AFTER = 64
"""Confirmations that are written together. Those that a power cut takes along are sent again, with the same id."""
CONFIRMED_S = 10.0
"""Longest time that a confirmation stays unwritten, if no event takes it along: half of all writes are saved so."""
FRESH = 64
"""Entries that are kept at hand."""
TIDY_S = 3600.0
"""Time between two looks at what is too old."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the events."""

    waiting: int
    confirmed: int
    """Since the start."""
    lost: int
    """Ever given up unconfirmed; one given up while on its way may have arrived."""


@dataclass(frozen=True, slots=True)
class Wiped:
    """What a wipe removed."""

    events: int
    undelivered: int
    """Of these, those that had not been confirmed."""


class Outbox:
    """A durable, bounded queue of events, which stay in its file as local history once they are confirmed.

    Any thread may call it, but none that must not wait for a disk.
    """

    def __init__(
        self,
        folder: Path | None,
        config: OutboxConfig,
        history: History,
        *,
        is_awaited: bool = True,
        clock_ns: Callable[[], int] = time.time_ns,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open the folder's file; one that cannot be used is a state, to be read from `problem`.

        Args:
            folder: see `edge.store.file.state_folder`; None: everything stays in memory (a recording can be replayed).
            config: the section `outbox`.
            history: the section `history`.
            is_awaited: whether somebody takes events away; if not, they are history from the start.
            clock_ns: UTC, ns since 1970.
            clock_s: monotonic seconds.

        Raises:
            PublishError: another process works with this folder.
        """
        self._folder, self._path = folder, None if folder is None else folder / FILE
        self._config, self._history, self._is_awaited = config, history, is_awaited
        self._clock_ns, self._clock_s = clock_ns, clock_s
        self._lock = threading.RLock()
        self._folder_lock: FolderLock | None = None
        self._ledger: Ledger | None = None
        """The tables of the open file."""
        self._inode = 0
        self._is_closed = False
        self._tried_s = self._written_s = self._tidied_s = float("-inf")
        self.problem = ""
        """Why events are kept in memory only; empty while they are on disk."""
        self.warning = ""
        """Why events may soon be kept in memory only; empty if there is no sign of it."""
        self.set_aside = ""
        """Name of the damaged file that was set aside last; empty if none was."""
        self.generation = 0
        """Rises when entries may have appeared before others that were already given out."""
        self._series, self._next_seq = uuid.uuid4().hex, 1
        self._next_position = 1
        self._stray = ("", 1)
        """Series and next seq of events that could not be written; empty while they can."""
        self._held: dict[int, Entry] = {}
        """Events that are not on disk, by position."""
        self._fresh: OrderedDict[int, Entry] = OrderedDict()
        """The newest entries that wait on disk, by position: what is sent at once need not be read again."""
        self._fresh_after = 0
        """Every entry that waits on disk above this position is among them."""
        self._given: dict[int, int] = {}
        """What was given out and not confirmed: bytes by position."""
        self._acknowledged: dict[int, int] = {}
        """What was confirmed, but not yet so on disk; likewise."""
        self._confirmed = 0
        self._unwritten_losses: list[Loss] = []
        self._facts: dict[str, str] = {}
        self._unwritten_facts: dict[str, str] = {}
        self._tried_s = clock_s()
        self._open()
        self._commit()

    @property
    def number(self) -> tuple[str, int]:
        """Series and seq that the next event gets, unless the disk fails it."""
        with self._lock:
            return self._series, self._next_seq

    def append(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Number events and commit them behind the others; give them as numbered.

        Once it returns they are on disk, or in memory and `problem` says why.
        """
        with self._lock:
            entries = self._commit(payloads)
            if entries is None:
                entries = self._hold(payloads)
            return [entry.payload for entry in entries]

    def peek(self, after: int, limit: int) -> list[Entry]:
        """Give up to `limit` of the oldest waiting entries with a position above `after` (-1: all), in order."""
        if limit <= 0:
            return []
        with self._lock:
            entries = self._stored_entries(after, limit)
            entries += [entry for entry in self._held.values() if entry.position > after][
                : limit - len(entries)
            ]
            self._given.update((entry.position, entry.size) for entry in entries)
            return entries

    def acknowledge(self, position: int) -> None:
        """Note that an entry has arrived; one that has been given up meanwhile stays counted as lost."""
        with self._lock:
            size = self._given.pop(position, None)
            if size is None:
                return
            self._confirmed += 1
            self._fresh.pop(position, None)
            if self._held.pop(position, None) is None:
                self._acknowledged[position] = size
            if len(self._acknowledged) >= FLUSH_AFTER:
                self._commit()

    def flush(self) -> None:
        """Write what is due: confirmations, what could not be written before, what has become too old."""
        with self._lock:
            self._look_at_disk()
            is_old = self._clock_s() - self._written_s >= CONFIRMED_S
            is_due = bool(self._held or self._unwritten_losses or self._unwritten_facts)
            # A problem is looked at again even if all that was held has arrived: else it would be shown until the next
            # event.
            if is_due or (self._acknowledged and is_old) or self.problem or self._is_tidying_due():
                self._commit()

    def counts(self) -> Counts:
        """Give what became of the events."""
        with self._lock:
            if self._is_closed:
                return self._final
            stored = 0 if self._ledger is None else self._ledger.waiting - len(self._acknowledged)
            return Counts(stored + len(self._held), self._confirmed, self._tally().total)

    @property
    def last_position(self) -> int:
        """Position of the newest entry; whatever is appended later lies above it."""
        with self._lock:
            return self._next_position - 1

    def losses(self) -> list[Loss]:
        """Give what was given up last, oldest first."""
        with self._lock:
            return list(self._tally().runs)

    def remember(self, name: str, value: str) -> None:
        """Keep a fact over restarts."""
        with self._lock:
            self._facts[name] = self._unwritten_facts[name] = value
            self._commit()

    def recall(self, name: str) -> str:
        """Give a fact that was kept; empty if it was not."""
        with self._lock:
            return self._facts.get(name, "")

    def wipe(self) -> Wiped:
        """Remove every event, waiting or history, so that no text of theirs is left in any file of the folder.

        Raises:
            PublishError: the disk does not take it.
        """
        with self._lock:
            held = list(self._held.values())
            now_ns = self._clock_ns()
            if (ledger := self._usable()) is None:
                raise PublishError(f"the history cannot be wiped: {self.problem}")
            try:
                with ledger.change() as change:
                    change.losses += self._unwritten_losses
                    change.confirm(self._acknowledged)
                    events, undelivered = change.wipe(now_ns)
                    change.losses += losses("wiped", (entry.place for entry in held), now_ns)
                self._held.clear()
                self._fresh.clear()
                self._given.clear()
                self._acknowledged.clear()
                self._unwritten_losses.clear()
                is_clean = ledger.scrub()
                if self._path is not None:
                    lengthen_log(self._path)
                    for old in set_aside_files(self._path):
                        remove(old)
            except (sqlite3.Error, OSError) as error:
                raise PublishError(f"the history cannot be wiped: {reason(error)}") from error
            if not is_clean:
                raise PublishError(
                    "the history is removed, but a reader holds its log open: wipe again without it"
                )
            return Wiped(events + len(held), undelivered + len(held))

    def reconfigure(self, config: OutboxConfig, history: History) -> None:
        """Take other limits; what is too much by them goes with the next event."""
        with self._lock:
            self._config, self._history = config, history
            if self._ledger is not None:
                self._ledger.reconfigure(config, history)

    def close(self) -> None:
        """Write what is due and let the file go. What waits goes out after the next start. May be called again."""
        with self._lock:
            if self._is_closed:
                return
            self._commit()
            self._final, self._is_closed = self.counts(), True
            if self._held:
                log.warning(
                    "outbox: %d events were never written to disk and are lost: %s",
                    len(self._held),
                    self.problem,
                )
            self._close_database()
            if self._folder_lock is not None:
                self._folder_lock.close()
                self._folder_lock = None

    def _commit(self, payloads: Sequence[Payload] = ()) -> list[Entry] | None:
        """Write new payloads and all that is due in one transaction; None if the disk does not take it."""
        for _ in range(2):
            if (ledger := self._usable()) is None:
                return None
            # Now, because a file that was begun anew numbers anew.
            entries = self._numbered(payloads, self._series, self._next_seq)
            next_seq, next_position = self._next_seq + len(entries), self._next_position + len(entries)
            counters = {"next_seq": str(next_seq), "next_position": str(next_position)}
            now_ns, is_tidying = self._clock_ns(), self._is_tidying_due()
            try:
                with ledger.change() as change:
                    change.losses += self._unwritten_losses
                    change.confirm(self._acknowledged)
                    change.insert((*self._held.values(), *entries), is_awaited=self._is_awaited)
                    if is_tidying:
                        change.tidy(now_ns)
                    change.fit(now_ns)
                    change.remember({**self._unwritten_facts, **counters})
            except (sqlite3.Error, OSError) as error:
                if is_damage(error) and self._begin_anew(error):
                    continue
                self._note(reason(error))
                return None
            self._written_s = self._clock_s()
            if is_tidying:
                self._tidied_s = self._written_s
            self._next_seq, self._next_position, self._stray = next_seq, next_position, ("", 1)
            if self._is_awaited:
                self._refresh((*self._held.values(), *entries), change.dropped)
            for position in change.dropped:
                self._given.pop(position, None)
            for written in (self._acknowledged, self._held, self._unwritten_facts, self._unwritten_losses):
                written.clear()
            self._note("")
            return entries
        return None

    def _numbered(self, payloads: Sequence[Payload], series: str, seq: int) -> list[Entry]:
        kept_ms = self._clock_ns() // 1_000_000
        entries = []
        for index, payload in enumerate(payloads):
            numbered = {**payload, "series": series, "seq": seq + index}
            entries.append(Entry(self._next_position + index, kept_ms, numbered, encode(numbered)))
        return entries

    def _refresh(self, written: Sequence[Entry], dropped: Set[int]) -> None:
        """Keep the newest entries at hand."""
        for entry in written:
            self._fresh[entry.position] = entry
        for position in dropped:
            self._fresh.pop(position, None)
        while len(self._fresh) > FRESH:
            oldest, _ = self._fresh.popitem(last=False)
            # What was read out of a damaged file lies below what the new one begins with.
            self._fresh_after = max(self._fresh_after, oldest)

    def _stored_entries(self, after: int, limit: int) -> list[Entry]:
        if (ledger := self._usable()) is None:
            return []
        if after >= self._fresh_after:
            return list(islice((entry for entry in self._fresh.values() if entry.position > after), limit))
        try:
            entries = ledger.read(after, limit + len(self._acknowledged))
        except (sqlite3.Error, OSError, ValueError) as error:
            if not isinstance(error, sqlite3.Error) or is_damage(error):
                self._begin_anew(error)
            self._note(reason(error))
            # What is held goes out meanwhile, and what could not be read now must not be passed over for good.
            self.generation += 1
            return []
        return [entry for entry in entries if entry.position not in self._acknowledged][:limit]

    def _hold(self, payloads: Sequence[Payload]) -> list[Entry]:
        """Number payloads apart and keep them in memory; the oldest are given up while there are too many."""
        if not self._stray[0]:
            self._stray = (uuid.uuid4().hex, 1)
        if not self.generation:
            # No file has this many events: what it holds, once it can be opened, comes first.
            self._next_position = max(self._next_position, self._clock_ns() // 1_000_000)
        entries = self._numbered(payloads, *self._stray)
        self._stray = (self._stray[0], self._stray[1] + len(entries))
        self._next_position += len(entries)
        self._held.update((entry.position, entry) for entry in entries)
        excess = list(self._held.values())[: max(0, len(self._held) - self._config.max_events)]
        for entry in excess:
            del self._held[entry.position]
            self._given.pop(entry.position, None)
        self._unwritten_losses += losses("full", (entry.place for entry in excess), self._clock_ns())
        return entries

    def _tally(self) -> LossTally:
        """Add up what is lost, written or not."""
        written = LossTally(RECENT_LOSSES) if self._ledger is None else self._ledger.lost
        return written.with_(self._unwritten_losses)

    def _look_at_disk(self) -> None:
        """Warn of a disk that is nearly full: the log's own room then lasts for some hundred events."""
        if self._folder is None or self.problem:
            self.warning = ""
            return
        free = free_bytes(self._folder)
        warning = ""
        if free is not None and free < LEAST_FREE_MB * MB:
            warning = f'outbox.folder = "{self._folder}": the disk has less than {LEAST_FREE_MB} MB left'
        if warning and not self.warning:
            log.warning("%s", warning)
        self.warning = warning

    def _is_tidying_due(self) -> bool:
        return self._clock_s() - self._tidied_s >= TIDY_S

    def _usable(self) -> Ledger | None:
        """Give the tables of the open file, after another attempt to open it if that is due."""
        if self._is_closed:
            return None
        if self._ledger is not None and self._path is not None and inode(self._path) != self._inode:
            self._begin_anew(FileNotFoundError("the file was removed or replaced"))
        if self._ledger is None and self._clock_s() - self._tried_s >= RETRY_S:
            self._tried_s = self._clock_s()
            try:
                self._open()
            except PublishError as error:
                self._note(str(error))
        return self._ledger

    def _open(self) -> None:
        try:
            if self._folder is not None and self._folder_lock is None:
                self._folder_lock = FolderLock(self._folder)
        except BlockingIOError as error:
            raise PublishError(
                f'outbox.folder = "{self._folder}": another microedge process works with it; stop that one first'
            ) from error
        except OSError as error:
            self._note(reason(error))
            return
        try:
            self._enter(Ledger(open_store(self._path), self._config, self._history))
        except (sqlite3.Error, OSError) as error:
            # PublishError is an OSError too: a file of another version is left alone.
            if not is_damage(error) or not self._begin_anew(error):
                self._note(reason(error))

    def _begin_anew(self, error: Exception) -> bool:
        """Set a damaged file aside, and begin a new one with what could be read of the old; False if that fails too."""
        if self._path is None:
            return False
        rows: list[Row] = []
        with contextlib.suppress(sqlite3.Error, OSError):
            rows = salvage(self._path if self._ledger is None else self._ledger.database)
        self._close_database()
        try:
            if not isinstance(error, FileNotFoundError):
                self.set_aside = set_aside(self._path).name
            log.error(
                "outbox: %s: %s; %sa new file begins, with %d events that waited in it", self._path, reason(error),
                f"set aside as {self.set_aside}, " if self.set_aside else "", len(rows),
            )  # fmt: skip
            for position, kept_ms, text in rows:
                if position not in self._acknowledged:
                    with contextlib.suppress(ValueError):
                        self._held[position] = Entry(position, kept_ms, decode(text), text)
            self._held = dict(sorted(self._held.items()))
            self._series, self._next_seq = uuid.uuid4().hex, 1
            self._enter(Ledger(open_store(self._path), self._config, self._history))
        except (sqlite3.Error, OSError) as again:
            self._note(reason(again))
            return False
        return True

    def _enter(self, ledger: Ledger) -> None:
        """Take over what an opened file says."""
        facts = ledger.facts()
        if "series" in facts:
            self._series, self._next_seq = facts["series"], int(facts.get("next_seq", "1"))
        self._facts = {**facts, **self._unwritten_facts}
        self._unwritten_facts["series"] = self._series
        # A position is never given twice while this runs: a late confirmation would be taken for another event's.
        known = (self._next_position, ledger.newest_position() + 1, int(facts.get("next_position", "1")))
        self._next_position = max(*known, *(position + 1 for position in self._held))
        self._acknowledged.clear()
        self._fresh.clear()
        self._fresh_after = self._next_position - 1
        self._inode = 0 if self._path is None else inode(self._path)
        self._ledger = ledger
        self.generation += 1

    def _close_database(self) -> None:
        if self._ledger is not None:
            with contextlib.suppress(sqlite3.Error):
                self._ledger.database.close()
            self._ledger = None

    def _note(self, problem: str) -> None:
        if problem:
            problem = f'outbox.folder = "{self._folder}": cannot be written: {problem}; events are kept in memory only'
        if problem != self.problem:
            if problem:
                log.error("%s", problem)
            else:
                log.info("outbox: %s takes events again", self._path)
        self.problem = problem
