"""Reads the history that the service keeps in its file, also while the service writes to it, and changes nothing there.

Decisions
- A question is one short transaction on a connection of its own. So no reader holds up a wipe, which needs the log for
  itself, and a file that has been replaced is noticed with the next question.
- No file is made or written, whoever asks: SQLite makes a log as soon as it opens a database that has none, even for
  reading, and what root has made can lock the service out. So there are three ways in. Log and index both there:
  read-only, the index too. No log: `immutable`, which looks at this one file and takes no locks; the answer counts if
  the file is the same afterwards. A log without its index (a copy, a power cut): from a copy of both in memory.
- Inside the service's own process it may be used only while the outbox is open: SQLite shares an index within a
  process, and the first who opens it decides whether it can be written.

Source: sqlite.org/wal.html section 5, sqlite.org/uri.html (`immutable`), SQLite's src/os_unix.c (`readonly_shm`).
"""

import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from edge.config import Config
from edge.errors import HistoryError
from edge.out import Payload
from edge.out.store import DROPPED, FILE, VERSION, WAITING, state_folder

SERVICE_FOLDER = Path("/var/lib/microedge")
"""Where systemd keeps the service's state (`StateDirectory=microedge`)."""
MOVEMENT = "movement"
"""Stands for the emotion of an event that has none."""
BATCH_ROWS = 500
"""Rows of one transaction: some milliseconds."""
BUSY_S = 5.0
"""Time to wait for the service's own exclusive moments."""
_ATTEMPTS = 20
_MEMORY_DISK = Path("/dev/shm")
_COLUMNS = "position, series, seq, kept_ms, waiting, payload"
_WHERE = "; outbox.folder or --folder names another folder"

Row = tuple[Any, ...]
Marks = tuple[tuple[int, int, int] | None, ...]
"""Inode, size (bytes) and time of change (ns) of the database, its log and its index; None for one that is absent."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One event of the history."""

    position: int
    """Its place in the order of publication."""
    series: str
    seq: int
    kept_ms: int
    """UTC at which it was committed, ms since 1970."""
    waiting: int
    """`WAITING`, `CONFIRMED` or `DROPPED` of `edge.out.store`."""
    text: str
    """The event as one line of JSON."""
    time: datetime
    """UTC of the onset."""
    payload: Payload
    """`text`, read."""

    @property
    def delivery(self) -> str:
        """What became of it, in one word."""
        return {WAITING: "waiting", DROPPED: "lost"}.get(self.waiting, "delivered")


@dataclass(frozen=True, slots=True)
class Lost:
    """Numbers that no subscriber may ever see."""

    position: int
    """Rises from loss to loss."""
    series: str
    first_seq: int
    last_seq: int
    reason: str
    """full, expired or wiped."""
    time: datetime
    """UTC of the moment at which they were given up."""

    @property
    def events(self) -> int:
        return self.last_seq - self.first_seq + 1


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events are asked for; all of them unless something is said."""

    since: datetime | None = None
    """Onset at this instant or later; with a time zone."""
    until: datetime | None = None
    """Onset before this instant; with a time zone."""
    emotion: str = ""
    """As in the event, or MOVEMENT."""
    session: str = ""
    """As the device was told."""
    last: int | None = None
    """Only so many of the newest that fit the rest."""

    def takes(self, kept: Kept) -> bool:
        """Whether the event is one of those asked for, `last` aside."""
        return (
            (self.since is None or kept.time >= self.since)
            and (self.until is None or kept.time < self.until)
            and (not self.emotion or kept.payload.get("emotion", MOVEMENT) == self.emotion)
            and (not self.session or kept.payload.get("context", {}).get("session") == self.session)
        )


def history_folder(config: Config) -> Path:
    """Give the folder to read, which for a person at the device is mostly the service's and not their own.

    Without `outbox.folder` and outside the service, it is the service's folder if that holds a history.
    """
    own = state_folder(config)
    if config.outbox.folder or os.environ.get("STATE_DIRECTORY"):
        return own
    try:
        return SERVICE_FOLDER if (SERVICE_FOLDER / FILE).exists() else own
    except PermissionError:
        # It is there and closed to this user. Reading it will say so, unless there is something of the user's own.
        return own if (own / FILE).exists() else SERVICE_FOLDER


class History:
    """The history in one folder. Used from one thread; whoever constructs it closes it.

    Every method that reads may raise HistoryError, one line that names the file: absent, closed to this user, foreign,
    damaged, or of another version.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._copy: sqlite3.Connection | None = None
        self._copy_marks: Marks = ()

    def __enter__(self) -> "History":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of what is held in memory. May be called again."""
        if self._copy is not None:
            self._copy.close()
            self._copy = None

    def events(self, selection: Selection | None = None, *, to: int | None = None) -> Iterator[Kept]:
        """Give what is asked for, oldest first.

        Args:
            selection: which; None: all.
            to: position of the last event to look at; None: the newest now, so that it ends while events come in.
        """
        selection = selection or Selection()
        to = self.newest() if to is None else to
        after = -1 if selection.last is None else self._before_last(selection, to)
        while rows := self._query(
            f"SELECT {_COLUMNS} FROM events WHERE position > ? AND position <= ? ORDER BY position LIMIT ?",
            (after, to, BATCH_ROWS),
        ):
            yield from filter(selection.takes, map(self._kept, rows))
            after = rows[-1][0]

    def newest(self) -> int:
        """Give the position of the newest event; -1 if there is none."""
        ((position,),) = self._query("SELECT coalesce(max(position), -1) FROM events")
        return int(position)

    def oldest(self) -> Kept | None:
        """Give the event with which the history begins."""
        rows = self._query(f"SELECT {_COLUMNS} FROM events ORDER BY position LIMIT 1")
        return self._kept(rows[0]) if rows else None

    def losses(self, after: int = -1) -> list[Lost]:
        """Give the losses with a position above `after`, oldest first."""
        columns = "position, series, first_seq, last_seq, reason, time"
        rows = self._query(f"SELECT {columns} FROM losses WHERE position > ? ORDER BY position", (after,))
        try:
            return [Lost(*row[:5], datetime.fromisoformat(row[5])) for row in rows]
        except (ValueError, TypeError) as error:
            raise HistoryError(f"{self.path}: the table of losses cannot be read: {error}") from error

    def follow(self, after: int, selection: Selection | None = None) -> Iterator[list[Kept]]:
        """Give, each time it is asked, the events committed since, oldest first; the list may be empty.

        It neither waits nor ends; the caller decides how often to ask. It goes on after a wipe and in a new file that
        has taken the place of a damaged one, where positions may begin anew; no event is given twice.

        Args:
            after: position of the last event that is known already (`newest`); -1: none.
            selection: which; its `last` has no say here.
        """
        selection = selection or Selection()
        known = self._query(
            "SELECT series, seq FROM events WHERE position <= ? ORDER BY position DESC LIMIT ?",
            (after, BATCH_ROWS),
        )
        given: dict[str, int] = dict(reversed(known))
        anchor: Row = known[0] if known else ()
        while True:
            # The newest that is known comes first in the answer, unless the file was emptied or replaced, or events
            # are kept no longer than until they are delivered.
            rows = self._query(
                f"SELECT {_COLUMNS} FROM events WHERE position >= ? ORDER BY position LIMIT ?",
                (after, BATCH_ROWS),
            )
            if rows and rows[0][0] == after and rows[0][1:3] == anchor:
                rows = rows[1:]
            elif after >= 0:
                after, anchor = -1, ()
                continue
            if rows:
                after, anchor = rows[-1][0], rows[-1][1:3]
            fresh = [row for row in rows if row[2] > given.get(row[1], 0)]
            given.update(row[1:3] for row in fresh)
            if fresh or not rows:
                yield list(filter(selection.takes, map(self._kept, fresh)))

    def _before_last(self, selection: Selection, to: int) -> int:
        """Give the position behind which the last events asked for lie, up to `to`."""
        wanted, before = selection.last or 0, to + 1
        if wanted <= 0:
            return to
        while rows := self._query(
            f"SELECT {_COLUMNS} FROM events WHERE position < ? ORDER BY position DESC LIMIT ?",
            (before, min(BATCH_ROWS, max(wanted, 50))),
        ):
            for row in rows:
                wanted -= selection.takes(self._kept(row))
                if not wanted:
                    return int(row[0]) - 1
            before = rows[-1][0]
        return -1

    def _kept(self, row: Row) -> Kept:
        try:
            payload = json.loads(row[-1])
            return Kept(*row, datetime.fromisoformat(payload["time"]), payload)
        except (ValueError, TypeError, KeyError) as error:
            raise HistoryError(
                f"{self.path}: the event at position {row[0]} cannot be read: {error}"
            ) from error

    def _query(self, question: str, values: Sequence[int] = ()) -> list[Row]:
        """Answer one question in one transaction, from the file as it is now."""
        why = "changes too fast to be read; try again"
        for _ in range(_ATTEMPTS):
            marks = self._marks()
            database, log, index = marks
            if database is None:
                raise HistoryError(
                    f"{self.path}: no history here; the first `microedge run` begins it{_WHERE}"
                )
            is_settled = log is None or log[1] == 0
            try:
                if is_settled:
                    rows = _ask_file(self.path, "immutable=1", question, values)
                elif index is None:
                    rows = _ask(self._copied(marks), question, values)
                else:
                    # Should the service end this moment, SQLite may make an empty log, which it gives to the file's
                    # owner, root or not.
                    rows = _ask_file(self.path, "mode=ro&readonly_shm=1", question, values)
                    return rows
                if self._marks() == marks:
                    return rows
            except (sqlite3.Error, OSError) as error:
                why = self._reason(error)
                if self._marks() == marks:
                    break
        raise HistoryError(f"{self.path}: {why}{_WHERE}")

    def _copied(self, marks: Marks) -> sqlite3.Connection:
        """Give file and log as they are, in memory; made anew when they have changed."""
        if self._copy is not None and self._copy_marks == marks:
            return self._copy
        self.close()
        # On a disk in memory where there is one: what is wiped here must not lie about elsewhere.
        disk = _MEMORY_DISK if _MEMORY_DISK.is_dir() else None
        with tempfile.TemporaryDirectory(prefix="microedge-", dir=disk) as folder:
            copy = Path(folder) / FILE
            for ending in ("", "-wal"):
                shutil.copyfile(f"{self.path}{ending}", f"{copy}{ending}")
            memory = sqlite3.connect(":memory:", isolation_level=None)
            try:
                with closing(sqlite3.connect(copy, isolation_level=None)) as source:
                    source.backup(memory)
            except BaseException:
                memory.close()
                raise
        self._copy, self._copy_marks = memory, marks
        return memory

    def _marks(self) -> Marks:
        marks: list[tuple[int, int, int] | None] = []
        for ending in ("", "-wal", "-shm"):
            try:
                about = os.stat(f"{self.path}{ending}")
                marks.append((about.st_ino, about.st_size, about.st_mtime_ns))
            except (FileNotFoundError, NotADirectoryError):
                marks.append(None)
            except OSError as error:
                raise HistoryError(f"{self.path}: {self._reason(error)}{_WHERE}") from error
        return tuple(marks)

    def _reason(self, error: Exception) -> str:
        name = getattr(error, "sqlite_errorname", "")
        if isinstance(error, _OtherVersion):
            return str(error)
        if name == "SQLITE_NOTADB" or str(error).startswith("no such"):
            return "is not a history of microedge"
        if name.startswith("SQLITE_CORRUPT"):
            return (
                f"is damaged ({error}); the service sets it aside and begins a new one when it next needs it"
            )
        if isinstance(error, PermissionError) or (name == "SQLITE_CANTOPEN" and not _is_readable(self.path)):
            return "may not be read by this user; try `sudo -u microedge microedge events`"
        if name in ("SQLITE_BUSY", "SQLITE_LOCKED"):
            return f"was locked for {BUSY_S:g} s; try again"
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"


class _OtherVersion(sqlite3.DatabaseError):
    """The file has tables that this program does not know."""


def _ask_file(path: Path, mode: str, question: str, values: Sequence[int]) -> list[Row]:
    address = f"file:{quote(str(path.absolute()))}?{mode}"
    with closing(sqlite3.connect(address, uri=True, timeout=BUSY_S, isolation_level=None)) as database:
        return _ask(database, question, values)


def _ask(database: sqlite3.Connection, question: str, values: Sequence[int]) -> list[Row]:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise _OtherVersion(f"has version {version}: this microedge reads version {VERSION}")
    return database.execute(question, values).fetchall()


def _is_readable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.R_OK, effective_ids=True)
