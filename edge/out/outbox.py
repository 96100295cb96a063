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
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge.config import History
from edge.config import Outbox as OutboxConfig
from edge.errors import PublishError
from edge.out import Payload
from edge.out.store import (
    CONFIRMED,
    DROPPED,
    FILE,
    WAITING,
    FolderLock,
    Row,
    is_damage,
    open_store,
    remove,
    salvage,
    set_aside,
    set_aside_files,
    transaction,
)  # fmt: skip
from edge.payload import decode, encode, utc

log = logging.getLogger(__name__)

RETRY_S = 5.0
"""Time between two attempts to open a file that could not be opened."""
FLUSH_AFTER = 64
"""Confirmations that are written together. Those that a power cut takes along are sent again, with the same id."""
TIDY_S = 3600.0
"""Time between two looks at what is too old."""
RECENT_LOSSES = 20
_MB = 1_000_000
_SIZE = "length(CAST(payload AS BLOB))"


@dataclass(frozen=True, slots=True)
class Entry:
    """One event that waits for its confirmation."""

    position: int
    """Rises from entry to entry; its place in the order of publication."""
    kept_ms: int
    """UTC at which it was numbered, ms since 1970."""
    payload: Payload


@dataclass(frozen=True, slots=True)
class Loss:
    """Numbers that no subscriber may ever see, and why."""

    series: str
    first_seq: int
    last_seq: int
    reason: str
    """full, expired or wiped."""
    time: str
    """UTC of the last of them."""


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


@dataclass(slots=True)
class _Change:
    """What a transaction does; taken over into memory only once it has been committed."""

    entries: list[Entry] = field(default_factory=list)
    next_seq: int = 0
    waiting: int = 0
    waiting_bytes: int = 0
    losses: list[Loss] = field(default_factory=list)
    dropped: set[int] = field(default_factory=set)


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
        clock_ns: Callable[[], int] = time.time_ns,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open the folder's file; one that cannot be used is a state, to be read from `problem`.

        Args:
            folder: see `edge.out.store.state_folder`; None: everything stays in memory (a recording can be replayed).
            config: the section `outbox`.
            history: the section `history`.
            clock_ns: UTC, ns since 1970.
            clock_s: monotonic seconds.

        Raises:
            PublishError: another process works with this folder.
        """
        self._folder, self._path = folder, None if folder is None else folder / FILE
        self._config, self._history = config, history
        self._clock_ns, self._clock_s = clock_ns, clock_s
        self._lock = threading.RLock()
        self._folder_lock: FolderLock | None = None
        self._database: sqlite3.Connection | None = None
        self._inode = 0
        self._is_closed = False
        self._tried_s = self._tidied_s = float("-inf")
        self.problem = ""
        """Why events are kept in memory only; empty while they are on disk."""
        self.set_aside = ""
        """Name of the damaged file that was set aside last; empty if none was."""
        self.generation = 0
        """Rises when entries may have appeared before others that were already given out."""
        self.commit_ms: deque[float] = deque(maxlen=1000)
        """Time that the last appends took, ms."""
        self._series, self._next_seq = uuid.uuid4().hex, 1
        self._next_position = 1
        self._stray = ("", 1)
        """Series and next seq of events that could not be written; empty while they can."""
        self._held: dict[int, Entry] = {}
        """Events that are not on disk, by position."""
        self._given: set[int] = set()
        """Positions given out and not confirmed."""
        self._acknowledged: set[int] = set()
        """Positions confirmed, but not yet so on disk."""
        self._stored = self._stored_bytes = self._confirmed = self._lost = 0
        self._unwritten_losses: list[Loss] = []
        self._recent: deque[Loss] = deque(maxlen=RECENT_LOSSES)
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
            began_s = time.perf_counter()
            entries = self._commit(payloads)
            if entries is None:
                if not self._stray[0]:
                    self._stray = (uuid.uuid4().hex, 1)
                if not self.generation:
                    # No file has this many events: what it holds, once it can be opened, comes first.
                    self._next_position = max(self._next_position, self._clock_ns() // 1_000_000)
                entries = self._numbered(payloads, *self._stray)
                self._stray = (self._stray[0], self._stray[1] + len(entries))
                self._next_position += len(entries)
                self._held.update((entry.position, entry) for entry in entries)
                self._drop_held()
            self.commit_ms.append((time.perf_counter() - began_s) * 1e3)
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
            self._given.update(entry.position for entry in entries)
            return entries

    def acknowledge(self, position: int) -> None:
        """Note that an entry has arrived; one that has been given up meanwhile stays counted as lost."""
        with self._lock:
            if position not in self._given:
                return
            self._given.remove(position)
            self._confirmed += 1
            if self._held.pop(position, None) is None:
                self._acknowledged.add(position)
            if len(self._acknowledged) >= FLUSH_AFTER:
                self._commit()

    def flush(self) -> None:
        """Write what is due: confirmations, what could not be written before, what has become too old."""
        with self._lock:
            is_due = self._acknowledged or self._held or self._unwritten_losses or self._unwritten_facts
            # Looked at again even if all that was held has arrived: else it would be shown until the next event.
            if is_due or self.problem or self._is_tidying_due():
                self._commit()

    def counts(self) -> Counts:
        """Give what became of the events."""
        with self._lock:
            waiting = self._stored - len(self._acknowledged) + len(self._held)
            return Counts(waiting, self._confirmed, self._lost)

    @property
    def last_position(self) -> int:
        """Position of the newest entry; whatever is appended later lies above it."""
        with self._lock:
            return self._next_position - 1

    def losses(self) -> list[Loss]:
        """Give what was given up last, oldest first."""
        with self._lock:
            return list(self._recent)

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
            self._held.clear()
            if self._commit() is None or (database := self._database) is None:
                self._held.update((entry.position, entry) for entry in held)
                raise PublishError(f"the history cannot be wiped: {self.problem}")
            try:
                with transaction(database):
                    (events,) = database.execute("SELECT count(*) FROM events").fetchone()
                    rows = database.execute(
                        f"SELECT series, seq FROM events WHERE waiting = {WAITING} ORDER BY position"
                    ).fetchall()
                    database.execute("DELETE FROM events")
                # The freed pages have been overwritten; what the log and the file's end hold goes now.
                database.execute("VACUUM")
                (is_busy, *_) = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                if self._path is not None:
                    for old in set_aside_files(self._path):
                        remove(old)
            except (sqlite3.Error, OSError) as error:
                raise PublishError(f"the history cannot be wiped: {_reason(error)}") from error
            finally:
                with contextlib.suppress(sqlite3.Error):
                    self._refresh(database)
            if is_busy:
                raise PublishError(
                    "the history is removed, but a reader holds its log open: wipe again without it"
                )
            undelivered = [*rows, *((entry.payload["series"], entry.payload["seq"]) for entry in held)]
            self._take_losses(self._loss("wiped", undelivered))
            self._given.clear()
            self._commit()
            return Wiped(events + len(held), len(undelivered))

    def close(self) -> None:
        """Write what is due and let the file go. What waits goes out after the next start. May be called again."""
        with self._lock:
            if self._is_closed:
                return
            self.flush()
            self._is_closed = True
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
            if (database := self._usable()) is None:
                return None
            change = _Change()
            try:
                with transaction(database):
                    self._write(database, payloads, change)
            except (sqlite3.Error, OSError) as error:
                if is_damage(error) and self._begin_anew(error):
                    continue
                self._note(_reason(error))
                return None
            self._apply(change)
            self._note("")
            return change.entries
        return None

    def _write(self, database: sqlite3.Connection, payloads: Sequence[Payload], change: _Change) -> None:
        if self._acknowledged:
            self._settle(database, change, self._acknowledged, CONFIRMED)
        change.entries = self._numbered(payloads, self._series, self._next_seq)
        change.next_seq = self._next_seq + len(payloads)
        for entry in (*self._held.values(), *change.entries):
            text = encode(entry.payload)
            database.execute(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    entry.position, entry.payload["series"], entry.payload["seq"], entry.payload["id"],
                    entry.kept_ms, WAITING, text,
                ),
            )  # fmt: skip
            change.waiting += 1
            change.waiting_bytes += len(text.encode())
        if self._is_tidying_due():
            self._tidy(database, change)
        self._fit(database, change)
        for loss in (*self._unwritten_losses, *change.losses):
            _record(database, loss)
        position = self._next_position + len(payloads)
        facts = {"next_seq": str(change.next_seq), "next_position": str(position), **self._unwritten_facts}
        database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())

    def _apply(self, change: _Change) -> None:
        self._next_seq = change.next_seq
        self._next_position += len(change.entries)
        self._stored += change.waiting
        self._stored_bytes += change.waiting_bytes
        self._given -= change.dropped
        self._acknowledged.clear()
        self._held.clear()
        self._unwritten_facts.clear()
        self._unwritten_losses.clear()
        self._stray = ("", 1)
        self._count_losses(change.losses)

    def _numbered(self, payloads: Sequence[Payload], series: str, seq: int) -> list[Entry]:
        kept_ms = self._clock_ns() // 1_000_000
        return [
            Entry(self._next_position + index, kept_ms, {**payload, "series": series, "seq": seq + index})
            for index, payload in enumerate(payloads)
        ]

    def _stored_entries(self, after: int, limit: int) -> list[Entry]:
        if (database := self._usable()) is None:
            return []
        wanted = (
            f"SELECT position, kept_ms, payload FROM events WHERE waiting = {WAITING} AND position > ? "
            "ORDER BY position LIMIT ?"
        )
        try:
            rows = database.execute(wanted, (after, limit + len(self._acknowledged))).fetchall()
            waiting = [row for row in rows if row[0] not in self._acknowledged][:limit]
            return [Entry(position, kept_ms, decode(text)) for position, kept_ms, text in waiting]
        except (sqlite3.Error, OSError, ValueError) as error:
            if not isinstance(error, sqlite3.Error) or is_damage(error):
                self._begin_anew(error)
            self._note(_reason(error))
            # What is held goes out meanwhile, and what could not be read now must not be passed over for good.
            self.generation += 1
            return []

    def _settle(
        self, database: sqlite3.Connection, change: _Change, positions: Iterable[int], outcome: int
    ) -> None:
        """Take entries out of the queue; they stay as history, if there is one."""
        for position in positions:
            (size,) = database.execute(
                f"SELECT {_SIZE} FROM events WHERE position = ? AND waiting = {WAITING}", (position,)
            ).fetchone() or (None,)
            if size is None:
                continue
            change.waiting -= 1
            change.waiting_bytes -= size
            if self._history.days > 0:
                database.execute("UPDATE events SET waiting = ? WHERE position = ?", (outcome, position))
            else:
                database.execute("DELETE FROM events WHERE position = ?", (position,))

    def _fit(self, database: sqlite3.Connection, change: _Change) -> None:
        """Give up the oldest waiting entries while there are too many."""
        excess = self._stored + change.waiting - self._config.max_events
        excess_bytes = self._stored_bytes + change.waiting_bytes - self._config.max_mb * _MB
        if excess > 0 or excess_bytes > 0:
            oldest = f"SELECT position, series, seq, {_SIZE} FROM events WHERE waiting = {WAITING} ORDER BY position"
            chosen = []
            for row in database.execute(oldest):
                if excess <= 0 and excess_bytes <= 0:
                    break
                chosen.append(row)
                excess, excess_bytes = excess - 1, excess_bytes - row[3]
            self._drop(database, change, "full", chosen)

    def _drop(
        self,
        database: sqlite3.Connection,
        change: _Change,
        reason: str,
        rows: Sequence[tuple[int, str, int, int]],
    ) -> None:
        if rows:
            self._settle(database, change, (row[0] for row in rows), DROPPED)
            change.dropped.update(row[0] for row in rows)
            change.losses += self._loss(reason, [(row[1], row[2]) for row in rows])

    def _drop_held(self) -> None:
        excess = list(self._held.values())[: max(0, len(self._held) - self._config.max_events)]
        for entry in excess:
            del self._held[entry.position]
            self._given.discard(entry.position)
        self._take_losses(
            self._loss("full", [(entry.payload["series"], entry.payload["seq"]) for entry in excess])
        )

    def _is_tidying_due(self) -> bool:
        return self._clock_s() - self._tidied_s >= TIDY_S

    def _tidy(self, database: sqlite3.Connection, change: _Change) -> None:
        """Remove history that is too old or too much, and give up entries that have expired."""
        self._tidied_s = self._clock_s()
        now_ms = self._clock_ns() // 1_000_000
        oldest_ms = now_ms - self._history.days * 86_400_000
        database.execute("DELETE FROM events WHERE waiting != ? AND kept_ms < ?", (WAITING, oldest_ms))
        # From the newest back, everything after the first that no longer fits.
        database.execute(
            f"DELETE FROM events WHERE waiting != {WAITING} AND position <= (SELECT position FROM (SELECT position, "
            f"sum({_SIZE}) OVER (ORDER BY position DESC) AS total FROM events WHERE waiting != {WAITING}) "
            "WHERE total > ? ORDER BY position DESC LIMIT 1)",
            (self._history.max_mb * _MB,),
        )
        if self._config.expire_h > 0:
            expired_ms = now_ms - round(self._config.expire_h * 3_600_000)
            rows = database.execute(
                f"SELECT position, series, seq, 0 FROM events WHERE waiting = {WAITING} AND kept_ms < ? "
                "ORDER BY position",
                (expired_ms,),
            ).fetchall()
            self._drop(database, change, "expired", rows)

    def _loss(self, reason: str, numbers: Sequence[tuple[str, int]]) -> list[Loss]:
        """Join numbers to runs, as long as nothing lies between them."""
        now = utc(self._clock_ns())
        losses: list[Loss] = []
        for series, seq in numbers:
            if losses and (losses[-1].series, losses[-1].last_seq) == (series, seq - 1):
                losses[-1] = Loss(series, losses[-1].first_seq, seq, reason, now)
            else:
                losses.append(Loss(series, seq, seq, reason, now))
        return losses

    def _take_losses(self, losses: Sequence[Loss]) -> None:
        self._unwritten_losses += losses
        self._count_losses(losses)

    def _count_losses(self, losses: Sequence[Loss]) -> None:
        for loss in losses:
            self._lost += loss.last_seq - loss.first_seq + 1
            last = self._recent[-1] if self._recent else None
            if last and (last.series, last.last_seq, last.reason) == (
                loss.series,
                loss.first_seq - 1,
                loss.reason,
            ):
                self._recent[-1] = Loss(loss.series, last.first_seq, loss.last_seq, loss.reason, loss.time)
            else:
                self._recent.append(loss)

    def _usable(self) -> sqlite3.Connection | None:
        """Give the open file, after another attempt to open it if that is due."""
        if self._is_closed:
            return None
        if self._database is not None and self._path is not None and _inode(self._path) != self._inode:
            self._begin_anew(FileNotFoundError("the file was removed or replaced"))
        if self._database is None and self._clock_s() - self._tried_s >= RETRY_S:
            self._tried_s = self._clock_s()
            try:
                self._open()
            except PublishError as error:
                self._note(str(error))
        return self._database

    def _open(self) -> None:
        try:
            if self._folder is not None and self._folder_lock is None:
                self._folder_lock = FolderLock(self._folder)
        except BlockingIOError as error:
            raise PublishError(
                f'outbox.folder = "{self._folder}": another microedge process works with it; stop that one first'
            ) from error
        except OSError as error:
            self._note(_reason(error))
            return
        try:
            self._enter(open_store(self._path))
        except (sqlite3.Error, OSError) as error:
            # PublishError is an OSError too: a file of another version is left alone.
            if not is_damage(error) or not self._begin_anew(error):
                self._note(_reason(error))

    def _begin_anew(self, error: Exception) -> bool:
        """Set a damaged file aside, and begin a new one with what could be read of the old; False if that fails too."""
        if self._path is None:
            return False
        rows: list[Row] = []
        with contextlib.suppress(sqlite3.Error, OSError):
            rows = salvage(self._database or self._path)
        self._close_database()
        try:
            if not isinstance(error, FileNotFoundError):
                self.set_aside = set_aside(self._path).name
            log.error(
                "outbox: %s: %s; %sa new file begins, with %d events that waited in it", self._path, _reason(error),
                f"set aside as {self.set_aside}, " if self.set_aside else "", len(rows),
            )  # fmt: skip
            for position, kept_ms, text in rows:
                if position not in self._acknowledged:
                    with contextlib.suppress(ValueError):
                        self._held[position] = Entry(position, kept_ms, decode(text))
            self._held = dict(sorted(self._held.items()))
            self._series, self._next_seq = uuid.uuid4().hex, 1
            self._enter(open_store(self._path))
        except (sqlite3.Error, OSError) as again:
            self._note(_reason(again))
            return False
        return True

    def _enter(self, database: sqlite3.Connection) -> None:
        """Take over what an opened file says."""
        facts = dict(database.execute("SELECT name, value FROM facts"))
        if "series" in facts:
            self._series, self._next_seq = facts["series"], int(facts.get("next_seq", "1"))
        self._facts = {**facts, **self._unwritten_facts}
        self._unwritten_facts["series"] = self._series
        (newest,) = database.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()
        # A position is never given twice while this runs: a late confirmation would be taken for another event's.
        known = (self._next_position, newest + 1, int(facts.get("next_position", "1")))
        self._next_position = max(*known, *(position + 1 for position in self._held))
        self._acknowledged.clear()
        self._refresh(database)
        self._inode = 0 if self._path is None else _inode(self._path)
        self._database = database
        self.generation += 1

    def _refresh(self, database: sqlite3.Connection) -> None:
        """Count anew what the file holds."""
        self._stored, self._stored_bytes = database.execute(
            f"SELECT count(*), coalesce(sum({_SIZE}), 0) FROM events WHERE waiting = {WAITING}"
        ).fetchone()
        rows = database.execute(
            "SELECT series, first_seq, last_seq, reason, time FROM losses ORDER BY position"
        )
        self._lost = 0
        self._recent.clear()
        self._count_losses([*(Loss(*row) for row in rows), *self._unwritten_losses])

    def _close_database(self) -> None:
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
            self._database = None

    def _note(self, problem: str) -> None:
        if problem:
            problem = f'outbox.folder = "{self._folder}": cannot be written: {problem}; events are kept in memory only'
        if problem != self.problem:
            if problem:
                log.error("%s", problem)
            else:
                log.info("outbox: %s takes events again", self._path)
        self.problem = problem


def _record(database: sqlite3.Connection, loss: Loss) -> None:
    """Write a loss, joined to the last one if it goes on from there."""
    last = database.execute(
        "UPDATE losses SET last_seq = ?, time = ? WHERE position = (SELECT max(position) FROM losses) "
        "AND series = ? AND last_seq = ? AND reason = ?",
        (loss.last_seq, loss.time, loss.series, loss.first_seq - 1, loss.reason),
    )
    if last.rowcount == 0:
        database.execute(
            "INSERT INTO losses (series, first_seq, last_seq, reason, time) VALUES (?, ?, ?, ?, ?)",
            (loss.series, loss.first_seq, loss.last_seq, loss.reason, loss.time),
        )


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0


def _reason(error: Exception) -> str:
    """Put an error of the file system or of SQLite in words."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)
