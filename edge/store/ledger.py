"""What stands in the outbox's tables: events, losses and facts, and the transactions that change them."""

import contextlib
import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from edge.config import History
from edge.config import Outbox as OutboxConfig
from edge.out import Payload
from edge.payload import decode, utc
from edge.store.file import CONFIRMED, DROPPED, WAITING, transaction

RECENT_LOSSES = 20
MB = 1_000_000
_SIZE = "length(CAST(payload AS BLOB))"
_WAITING = f"FROM events WHERE waiting = {WAITING}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One event that waits for its confirmation."""

    position: int
    """Rises from entry to entry; its place in the order of publication."""
    kept_ms: int
    """UTC at which it was numbered, ms since 1970."""
    payload: Payload
    text: str
    """`payload`, encoded."""

    @property
    def size(self) -> int:
        """Bytes of `text`."""
        return len(self.text.encode())

    @property
    def place(self) -> tuple[str, int]:
        """Its series and seq."""
        return self.payload["series"], self.payload["seq"]


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

    def joined(self, other: "Loss") -> "Loss | None":
        """Give this and `other` as one, if `other` goes on where this ends."""
        if (self.series, self.last_seq + 1, self.reason) != (other.series, other.first_seq, other.reason):
            return None
        return Loss(self.series, self.first_seq, other.last_seq, self.reason, other.time)


def losses(reason: str, places: Iterable[tuple[str, int]], now_ns: int) -> list[Loss]:
    """Give series and seqs as runs.

    Args:
        reason: as in `Loss`.
        places: (series, seq), in order.
        now_ns: UTC, ns since 1970.
    """
    tally = LossTally()
    tally.add(Loss(series, seq, seq, reason, utc(now_ns)) for series, seq in places)
    return list(tally.runs)


class LossTally:
    """Adds losses up, and joins those that go on from one another."""

    def __init__(self, kept: int | None = None) -> None:
        self.total = 0
        self.runs: deque[Loss] = deque(maxlen=kept)
        """The last `kept` of them (None: all), oldest first."""

    def with_(self, more: Iterable[Loss]) -> "LossTally":
        """Give a tally of these and `more`."""
        tally = LossTally(self.runs.maxlen)
        tally.total, tally.runs = self.total, self.runs.copy()
        tally.add(more)
        return tally

    def add(self, more: Iterable[Loss]) -> None:
        for loss in more:
            self.total += loss.last_seq - loss.first_seq + 1
            if self.runs and (whole := self.runs[-1].joined(loss)) is not None:
                self.runs[-1] = whole
            else:
                self.runs.append(loss)


class Ledger:
    """The tables of one open file. Used under the lock of the outbox."""

    def __init__(self, database: sqlite3.Connection, config: OutboxConfig, history: History) -> None:
        """Read what they hold; see `edge.store.file.open_store`."""
        self.database = database
        self.reconfigure(config, history)
        self.count()

    def reconfigure(self, config: OutboxConfig, history: History) -> None:
        """Take other limits from the next change on."""
        self._config, self._history = config, history

    def count(self) -> None:
        """Count anew what waits and what is lost."""
        self.waiting, self.waiting_bytes = self._ask(
            f"SELECT count(*), coalesce(sum({_SIZE}), 0) {_WAITING}"
        ).fetchone()
        self.lost = LossTally(RECENT_LOSSES)
        rows = self._ask("SELECT series, first_seq, last_seq, reason, time FROM losses ORDER BY position")
        self.lost.add(Loss(*row) for row in rows)

    def facts(self) -> dict[str, str]:
        """Give everything that is remembered, by name."""
        return dict(self._ask("SELECT name, value FROM facts"))

    def newest_position(self) -> int:
        """Give the highest position; 0 if there is none."""
        (newest,) = self._ask("SELECT coalesce(max(position), 0) FROM events").fetchone()
        return int(newest)

    def read(self, after: int, limit: int) -> list[Entry]:
        """Give up to `limit` of the oldest waiting entries with a position above `after`, in order.

        Raises:
            sqlite3.Error: the file cannot be read.
            ValueError: what stands there is no event.
        """
        wanted = f"SELECT position, kept_ms, payload {_WAITING} AND position > ? ORDER BY position LIMIT ?"
        return [
            Entry(position, kept_ms, decode(text), text)
            for position, kept_ms, text in self._ask(wanted, after, limit)
        ]

    @contextlib.contextmanager
    def change(self) -> Iterator["Change"]:
        """Give what takes changes; all of them are on the disk once the block is left, or none.

        Raises:
            sqlite3.Error, OSError: none is.
        """
        change = Change(self.database, self._config, self._history, self.waiting, self.waiting_bytes)
        with transaction(self.database):
            yield change
            change.write_losses()
        self.waiting, self.waiting_bytes = change.waiting, change.waiting_bytes
        self.lost.add(change.losses)

    def scrub(self) -> bool:
        """Make the file and its log forget what was deleted; False if a reader keeps the log."""
        # The freed pages have been overwritten; what the log and the file's end hold goes now.
        self.database.execute("VACUUM")
        (is_busy, *_) = self.database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not is_busy

    def _ask(self, question: str, *values: object) -> sqlite3.Cursor:
        return self.database.execute(question, values)


class Change:
    """The inside of a transaction (`Ledger.change`)."""

    def __init__(
        self,
        database: sqlite3.Connection,
        config: OutboxConfig,
        history: History,
        waiting: int,
        waiting_bytes: int,
    ) -> None:
        self._database, self._config, self._history = database, config, history
        self.waiting, self.waiting_bytes = waiting, waiting_bytes
        """What waits when the transaction is done."""
        self.losses: list[Loss] = []
        """Numbers that are given up."""
        self.dropped: set[int] = set()
        """Positions that are."""

    def insert(self, entries: Iterable[Entry], *, is_awaited: bool) -> None:
        """Add entries, which wait from now on; those that nobody awaits are history, if there is one."""
        if not is_awaited and self._history.days == 0:
            return
        state = WAITING if is_awaited else CONFIRMED
        for entry in entries:
            series, seq = entry.place
            self._database.execute(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)",
                (entry.position, series, seq, entry.payload["id"], entry.kept_ms, state, entry.text),
            )
            if is_awaited:
                self.waiting += 1
                self.waiting_bytes += entry.size

    def confirm(self, sizes: Mapping[int, int]) -> None:
        """Note that entries have arrived; `sizes` are their bytes by position."""
        for position, size in sizes.items():
            self._settle(position, size, CONFIRMED)

    def remember(self, facts: Mapping[str, str]) -> None:
        """Keep facts by name."""
        self._database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())

    def fit(self, now_ns: int) -> None:
        """Give up the oldest waiting entries while there are more than the settings allow."""
        excess = self.waiting - self._config.max_events
        excess_bytes = self.waiting_bytes - self._config.max_mb * MB
        if excess <= 0 and excess_bytes <= 0:
            return
        chosen = []
        for row in self._database.execute(
            f"SELECT position, series, seq, {_SIZE} {_WAITING} ORDER BY position"
        ):
            if excess <= 0 and excess_bytes <= 0:
                break
            chosen.append(row)
            excess, excess_bytes = excess - 1, excess_bytes - row[3]
        self._drop("full", chosen, now_ns)

    def tidy(self, now_ns: int) -> None:
        """Remove history that is too old or too much, and give up entries that have expired."""
        now_ms = now_ns // 1_000_000
        oldest_ms = now_ms - self._history.days * 86_400_000
        self._database.execute("DELETE FROM events WHERE waiting != ? AND kept_ms < ?", (WAITING, oldest_ms))
        # From the newest back, everything after the first that no longer fits.
        self._database.execute(
            f"DELETE FROM events WHERE waiting != {WAITING} AND position <= (SELECT position FROM (SELECT position, "
            f"sum({_SIZE}) OVER (ORDER BY position DESC) AS total FROM events WHERE waiting != {WAITING}) "
            "WHERE total > ? ORDER BY position DESC LIMIT 1)",
            (self._history.max_mb * MB,),
        )
        if self._config.expire_h > 0:
            expired_ms = now_ms - round(self._config.expire_h * 3_600_000)
            expired = f"SELECT position, series, seq, {_SIZE} {_WAITING} AND kept_ms < ? ORDER BY position"
            self._drop("expired", self._database.execute(expired, (expired_ms,)).fetchall(), now_ns)

    def wipe(self, now_ns: int) -> tuple[int, int]:
        """Remove every event; give how many there were, and how many of these were waiting."""
        (events,) = self._database.execute("SELECT count(*) FROM events").fetchone()
        undelivered = self.waiting
        places = self._database.execute(f"SELECT series, seq {_WAITING} ORDER BY position")
        self.losses += losses("wiped", places, now_ns)
        self._database.execute("DELETE FROM events")
        self.waiting = self.waiting_bytes = 0
        return events, undelivered

    def write_losses(self) -> None:
        """Write what is given up; joined to the last loss where it goes on from there."""
        for loss in self.losses:
            last = self._database.execute(
                "UPDATE losses SET last_seq = ?, time = ? WHERE position = (SELECT max(position) FROM losses) "
                "AND series = ? AND last_seq = ? AND reason = ?",
                (loss.last_seq, loss.time, loss.series, loss.first_seq - 1, loss.reason),
            )
            if last.rowcount == 0:
                self._database.execute(
                    "INSERT INTO losses (series, first_seq, last_seq, reason, time) VALUES (?, ?, ?, ?, ?)",
                    (loss.series, loss.first_seq, loss.last_seq, loss.reason, loss.time),
                )

    def _drop(self, reason: str, rows: Sequence[tuple[int, str, int, int]], now_ns: int) -> None:
        for position, _, _, size in rows:
            self._settle(position, size, DROPPED)
            self.dropped.add(position)
        self.losses += losses(reason, ((series, seq) for _, series, seq, _ in rows), now_ns)

    def _settle(self, position: int, size: int, outcome: int) -> None:
        """Take an entry out of the queue, if it still is there; it stays as history, if there is one."""
        this = f"WHERE position = ? AND waiting = {WAITING}"
        if self._history.days > 0:
            done = self._database.execute(f"UPDATE events SET waiting = ? {this}", (outcome, position))
        else:
            done = self._database.execute(f"DELETE FROM events {this}", (position,))
        self.waiting -= done.rowcount
        self.waiting_bytes -= done.rowcount * size
