"""The events that the service keeps on this device, in order, with what became of them and what was lost."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from edge.config import Config
from edge.errors import HistoryError
from edge.out import Payload
from edge.payload import decode
from edge.store.file import DROPPED, FILE, WAITING, state_folder
from edge.store.reading import HistoryFile, Row

SERVICE_FOLDER = Path("/var/lib/microedge")
"""Where systemd keeps the service's state (`StateDirectory=microedge`)."""
MOVEMENT = "movement"
"""Stands for the emotion of an event that has none."""
BATCH_ROWS = 500
"""Rows of one transaction: some milliseconds."""
_COLUMNS = "position, series, seq, kept_ms, waiting, payload"


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
    """`WAITING`, `CONFIRMED` or `DROPPED` of `edge.store.file`."""
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
        self._file = HistoryFile(folder)

    def __enter__(self) -> "History":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file. May be called again."""
        self._file.close()

    @property
    def path(self) -> Path:
        return self._file.path

    def events(self, selection: Selection | None = None, *, to: int | None = None) -> Iterator[Kept]:
        """Give what is asked for, oldest first.

        Args:
            selection: which; None: all.
            to: position of the last event to look at; None: the newest now, so that it ends while events come in.
        """
        selection = selection or Selection()
        to = self.newest() if to is None else to
        after, rows = self.before(selection, to=to), None
        while rows is None or len(rows) == BATCH_ROWS:
            rows = self._file.ask(
                f"SELECT {_COLUMNS} FROM events WHERE position > ? AND position <= ? ORDER BY position LIMIT ?",
                (after, to, BATCH_ROWS),
            )
            yield from filter(selection.takes, (_kept(row, self.path) for row in rows))
            after = rows[-1][0] if rows else after

    def newest(self) -> int:
        """Give the position of the newest event; -1 if there is none."""
        ((position,),) = self._file.ask("SELECT coalesce(max(position), -1) FROM events")
        return int(position)

    def oldest(self) -> Kept | None:
        """Give the event with which the history begins."""
        rows = self._file.ask(f"SELECT {_COLUMNS} FROM events ORDER BY position LIMIT 1")
        return _kept(rows[0], self.path) if rows else None

    def losses(self, after: int = -1) -> list[Lost]:
        """Give the losses with a position above `after`, oldest first."""
        return _losses(self._file, after)

    def follow(self, after: int, selection: Selection | None = None) -> "Follower":
        """Give what tells of later events.

        Args:
            after: position of the last event that is known already (`newest`, `before`); -1: none.
            selection: which; its `last` has no say here.
        """
        return Follower(self._file, after, selection or Selection())

    def before(self, selection: Selection, *, to: int | None = None) -> int:
        """Give the position behind which what is asked for lies; -1: from the start. Arguments as for `events`."""
        to = self.newest() if to is None else to
        if selection.last is None:
            return -1
        wanted, before = selection.last, to + 1
        if wanted <= 0:
            return to
        while rows := self._file.ask(
            f"SELECT {_COLUMNS} FROM events WHERE position < ? ORDER BY position DESC LIMIT ?",
            (before, min(BATCH_ROWS, max(wanted, 50))),
        ):
            for row in rows:
                wanted -= selection.takes(_kept(row, self.path))
                if not wanted:
                    return int(row[0]) - 1
            before = rows[-1][0]
        return -1


class Follower:
    """Tells of events that are committed after a known one; made by `History.follow`.

    It goes on after a wipe, and in a new file that has taken the place of a damaged one, where positions may begin
    anew; no event is given twice.
    """

    def __init__(self, file: HistoryFile, after: int, selection: Selection) -> None:
        self._file, self._after, self._selection = file, after, selection
        known = file.ask(
            "SELECT series, seq FROM events WHERE position <= ? ORDER BY position DESC LIMIT ?",
            (after, BATCH_ROWS),
        )
        self._given: dict[str, int] = dict(reversed(known))
        """The highest `seq` that is known, by series."""
        self._anchor: Row = known[0] if known else ()
        """Series and seq of the event at `_after`."""
        self._losses: list[Lost] = []
        """Those that were read last."""

    def lost(self) -> list[Lost]:
        """Give the losses that are new or have grown since the last call; the first call gives all.

        Raises:
            HistoryError: as `more`.
        """
        after = self._losses[-1].position - 1 if self._losses else -1
        losses = _losses(self._file, after)
        if self._losses and not losses:
            # The file was replaced, and positions begin anew.
            losses = _losses(self._file, -1)
        news = [loss for loss in losses if loss not in self._losses]
        self._losses = losses
        return news

    def more(self) -> list[Kept]:
        """Give the events since the last call, oldest first, at most some hundred at once; it does not wait.

        Raises:
            HistoryError: as for `History`; it may be asked again, and has then forgotten nothing.
        """
        while True:
            # The newest that is known comes first in the answer, unless the file was emptied or replaced, or events
            # are kept no longer than until they are delivered.
            rows = self._file.ask(
                f"SELECT {_COLUMNS} FROM events WHERE position >= ? ORDER BY position LIMIT ?",
                (self._after, BATCH_ROWS),
            )
            if rows and rows[0][0] == self._after and rows[0][1:3] == self._anchor:
                rows = rows[1:]
            elif self._after >= 0:
                self._after, self._anchor = -1, ()
                continue
            fresh = [_kept(row, self._file.path) for row in rows if row[2] > self._given.get(row[1], 0)]
            if rows:
                self._after, self._anchor = rows[-1][0], rows[-1][1:3]
            self._given.update((kept.series, kept.seq) for kept in fresh)
            if fresh or not rows:
                return list(filter(self._selection.takes, fresh))


def _kept(row: Row, path: Path) -> Kept:
    """Read a row of _COLUMNS."""
    try:
        position, series, seq, kept_ms, waiting, text = row
        payload = decode(text)
        time = datetime.fromisoformat(payload["time"])
        return Kept(position, series, seq, kept_ms, waiting, text, time, payload)
    except (ValueError, TypeError, KeyError) as error:
        raise HistoryError(f"{path}: the event at position {row[0]} cannot be read: {error}") from error


def _losses(file: HistoryFile, after: int) -> list[Lost]:
    columns = "position, series, first_seq, last_seq, reason, time"
    rows = file.ask(f"SELECT {columns} FROM losses WHERE position > ? ORDER BY position", (after,))
    try:
        return [
            Lost(position, series, first, last, reason, datetime.fromisoformat(time))
            for position, series, first, last, reason, time in rows
        ]
    except (ValueError, TypeError) as error:
        raise HistoryError(f"{file.path}: the table of losses cannot be read: {error}") from error
