"""Asks the service's SQLite file a question, also while the service writes to it, and changes nothing in its folder.

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

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from edge.errors import HistoryError
from edge.store.file import FILE, VERSION

BUSY_S = 5.0
"""Time to wait for the service's own exclusive moments."""
_ATTEMPTS = 20
_MEMORY_DISK = Path("/dev/shm")
_NONE = "no history here; the first `microedge run` begins it"
_WHERE = "; outbox.folder or --folder names another folder"

Row = tuple[Any, ...]
Marks = tuple[tuple[int, int, int] | None, ...]
"""Inode, size (bytes) and time of change (ns) of the database, its log and its index; None for one that is absent."""


class HistoryFile:
    """The file in one folder, to be asked. Used from one thread; whoever constructs it closes it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._copy: sqlite3.Connection | None = None
        self._copy_marks: Marks = ()

    def close(self) -> None:
        """Let go of what is held in memory. May be called again."""
        if self._copy is not None:
            self._copy.close()
            self._copy = None

    def ask(self, question: str, values: Sequence[int] = ()) -> list[Row]:
        """Answer one question in one transaction, from the file as it is now.

        Raises:
            HistoryError: one line that names the file, which is absent, closed to this user, foreign, damaged, or of
                another version.
        """
        why = "changes too fast to be read; try again"
        for _ in range(_ATTEMPTS):
            marks = self._marks()
            database, log, index = marks
            if database is None:
                raise HistoryError(f"{self.path}: {_NONE}{_WHERE}")
            is_settled = log is None or log[1] == 0
            try:
                if is_settled:
                    rows = _ask_file(self.path, "immutable=1", question, values)
                elif index is None:
                    rows = _ask(self._copied(marks), question, values)
                else:
                    # Should the service end this moment, SQLite may make an empty log, which it gives to the file's
                    # owner, root or not.
                    return _ask_file(self.path, "mode=ro&readonly_shm=1", question, values)
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
        if isinstance(error, _Unfit):
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


class _Unfit(sqlite3.DatabaseError):
    """The file has no tables, or such as this program does not know; says so in words."""


def _ask_file(path: Path, mode: str, question: str, values: Sequence[int]) -> list[Row]:
    address = f"file:{quote(str(path.absolute()))}?{mode}"
    with closing(sqlite3.connect(address, uri=True, timeout=BUSY_S, isolation_level=None)) as database:
        return _ask(database, question, values)


def _ask(database: sqlite3.Connection, question: str, values: Sequence[int]) -> list[Row]:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise _Unfit(f"has version {version}: this microedge reads version {VERSION}")
    if version == 0 and database.execute("SELECT 1 FROM sqlite_schema").fetchone() is None:
        # The service makes the file, and then its tables.
        raise _Unfit(_NONE)
    return database.execute(question, values).fetchall()


def _is_readable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.R_OK, effective_ids=True)
