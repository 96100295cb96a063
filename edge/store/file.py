"""The SQLite file that holds the outbox and the local history: where it lies, how it is opened, checked and mended.

Decisions
- One table for both: an event is written once, *waiting*, and stays as history after it was confirmed. Events are
  rare, so each is a transaction of its own that has reached the disk (write-ahead log, `synchronous=FULL`) before
  anything else happens with it.
- A damaged file is never repaired in place. It is set aside under a name that says when, what still waited in it is
  read out of it as far as it goes, and a new file begins.
- The log is made as long as it gets before it is needed. A commit then changes no file's size, which spares the file
  system's own journal a write: with 1,000 devices on one disk half of all commits took 13 ms instead of 363. And when
  the disk is full, there is room for some hundred events.
- What is deleted is overwritten (`secure_delete`), and nothing goes to temporary files.

Source: sqlite.org/pragma.html, sqlite.org/wal.html, sqlite.org/rescode.html.
"""

import contextlib
import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from edge.config import Config
from edge.errors import PublishError

log = logging.getLogger(__name__)

FILE = "events.db"
VERSION = 1
"""Of the tables below (`user_version`)."""
KEPT_ASIDE = 3
"""Damaged files that are kept; older ones are removed, so that a dying card does not fill itself."""
LOG_BYTES = 6 << 20
"""Length of the write-ahead log from the start. SQLite begins it anew after 1000 pages of 4 KB; an event takes four."""
BUSY_S = 5.0
"""Time to wait for a reader that is in the way."""

WAITING, CONFIRMED, DROPPED = 1, 0, -1
"""Values of `events.waiting`; dropped: told of as lost, never confirmed."""

_TABLES = f"""
CREATE TABLE events (
    position INTEGER PRIMARY KEY,
    series TEXT NOT NULL,
    seq INTEGER NOT NULL,
    id TEXT NOT NULL,
    kept_ms INTEGER NOT NULL,
    waiting INTEGER NOT NULL,
    payload TEXT NOT NULL
);
CREATE INDEX waiting_events ON events (position) WHERE waiting = {WAITING};
CREATE TABLE losses (
    position INTEGER PRIMARY KEY,
    series TEXT NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    reason TEXT NOT NULL,
    time TEXT NOT NULL
);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
PRAGMA user_version = {VERSION};
"""


def state_folder(config: Config) -> Path:
    """Give the folder of the device's file: `outbox.folder`, else the service manager's, else the user's own.

    Source: systemd.exec(5), StateDirectory; XDG Base Directory Specification, XDG_STATE_HOME.
    """
    if config.outbox.folder:
        return Path(config.outbox.folder)
    if given := os.environ.get("STATE_DIRECTORY", ""):
        # Several folders would be joined by colons; ours is the first.
        return Path(given.split(":")[0])
    home = os.environ.get("XDG_STATE_HOME", "")
    return (Path(home) if home else Path.home() / ".local" / "state") / "microedge"


class FolderLock:
    """Keeps a second process from numbering events in the same folder. Whoever constructs it closes it.

    Raises:
        BlockingIOError: another process holds it.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(folder / "events.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            raise

    def close(self) -> None:
        os.close(self._descriptor)


def open_store(path: Path | None) -> sqlite3.Connection:
    """Open the file, made if it is absent, and check it (None: in memory). May be used from any one thread at a time.

    Raises:
        PublishError: another version of microedge wrote it.
        sqlite3.Error, OSError: it cannot be used; `is_damage` tells whether it is damaged.
    """
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The log and its index get the same mode from SQLite.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640))
    database = sqlite3.connect(
        path or ":memory:", timeout=BUSY_S, isolation_level=None, check_same_thread=False
    )
    try:
        database.execute("PRAGMA temp_store = MEMORY")
        database.execute("PRAGMA secure_delete = ON")
        (answer,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if answer != "ok":
            raise Damage(f"quick_check: {answer}")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version == 0:
            with transaction(database):
                for statement in _TABLES.split(";"):
                    database.execute(statement)
        elif version != VERSION:
            raise PublishError(f"{path}: has version {version}: this microedge reads version {VERSION}")
        # A file that opens may still not take a word: found now, not with the first event.
        with transaction(database):
            database.execute("INSERT OR REPLACE INTO facts VALUES ('opened', ?)", (_utc_name(),))
        if path is not None:
            lengthen_log(path)
    except BaseException:
        database.close()
        raise
    return database


def lengthen_log(path: Path) -> None:
    """Fill the log up to its full length with zeros, which SQLite takes for the end of what was written.

    A disk that has no room for that has none to spare; events are committed all the same.
    """
    with contextlib.suppress(OSError), path.with_name(path.name + "-wal").open("r+b") as log:
        missing = LOG_BYTES - log.seek(0, os.SEEK_END)
        log.write(bytes(max(0, missing)))
        log.flush()
        os.fsync(log.fileno())


class Damage(sqlite3.DatabaseError):
    """The file was opened and its check found something wrong."""


def is_damage(error: Exception) -> bool:
    """Tell a file that is damaged from one that cannot be reached, read or written at the moment."""
    name = getattr(error, "sqlite_errorname", "")
    missing = isinstance(error, sqlite3.OperationalError) and "no such" in str(error)
    return isinstance(error, Damage) or name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or missing


@contextlib.contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Run the block as one transaction: once it is left, all of it is on the disk, or an error says that none is."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        # Some failures have rolled back already; a second attempt is then refused.
        with contextlib.suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise


Row = tuple[int, int, str]
"""position, kept_ms, payload."""


def salvage(source: sqlite3.Connection | Path) -> list[Row]:
    """Read what waits in a damaged file, or one that was removed under an open connection, as far as it can be read."""
    rows: list[Row] = []
    database = sqlite3.connect(source, timeout=BUSY_S) if isinstance(source, Path) else source
    try:
        # Not through the index, which may be what is damaged.
        waiting = f"FROM events NOT INDEXED WHERE waiting = {WAITING} ORDER BY position"
        for row in database.execute(f"SELECT position, kept_ms, payload {waiting}"):
            rows.append(row)
    except (sqlite3.Error, OSError) as error:
        log.warning(
            "outbox: %d waiting events could be read from the damaged file, then: %s", len(rows), error
        )
    finally:
        if isinstance(source, Path):
            database.close()
    return [row for row in rows if [type(value) for value in row] == [int, int, str]]


def set_aside(path: Path) -> Path:
    """Rename a damaged file with its log, remove the oldest of those set aside before, and give the new name.

    Raises:
        OSError: the folder cannot be written.
    """
    aside = path.with_name(f"{path.stem}.damaged-{_utc_name()}{path.suffix}")
    for ending in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + ending).rename(aside.with_name(aside.name + ending))
    path.rename(aside)
    for old in set_aside_files(path)[:-KEPT_ASIDE]:
        remove(old)
    return aside


def set_aside_files(path: Path) -> list[Path]:
    """Give the damaged files that lie beside `path`, oldest first."""
    return sorted(path.parent.glob(f"{path.stem}.damaged-*{path.suffix}"))


def remove(path: Path) -> None:
    """Remove a database with its log and index."""
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)


def inode(path: Path) -> int:
    """Give what tells this file from another that takes its name; 0 if there is none."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


def free_bytes(folder: Path) -> int | None:
    """Give the room that is left for this user on the folder's disk, bytes; None if that cannot be asked."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return None
    return disk.f_bavail * disk.f_frsize


def reason(error: Exception) -> str:
    """Put an error of the file system or of SQLite in words."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)


def _utc_name() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
