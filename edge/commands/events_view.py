"""How events of the history look in a terminal: a table that may go on, and sentences about what is missing."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, tzinfo

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edge.commands.summary import action_units
from edge.store.history import MOVEMENT, Kept, Lost

WIDTH = 110
"""Columns of a table that does not go to a terminal."""
RECENT_LOSSES = 3
"""Runs of lost numbers that are named one by one."""
_STYLES = {"waiting": "yellow", "lost": "bold red"}


class View:
    """Prints events and what became of them, in one time zone."""

    def __init__(self, zone: tzinfo | None, *, to_stderr: bool = False) -> None:
        """Take a time zone (None: the local one), and whether standard output is needed for something else."""
        self._zone = zone
        self.console = Console(stderr=to_stderr, highlight=False)
        if not self.console.is_terminal:
            self.console = Console(stderr=to_stderr, highlight=False, width=WIDTH)
        self._has_head = False

    def show(self, events: Sequence[Kept]) -> None:
        """Print events as rows; a second call goes on below the first, in the same columns."""
        if not events:
            return
        # `expand` and minimal widths give every table of a run the same columns.
        table = Table(
            box=None, show_header=not self._has_head, expand=True, pad_edge=False, padding=(0, 1, 0, 0)
        )
        self._has_head = True
        table.add_column("seq", justify="right", min_width=5, no_wrap=True)
        table.add_column("local time" if self._zone is None else "UTC", min_width=23, no_wrap=True)
        table.add_column("emotion", min_width=9, no_wrap=True)
        table.add_column("conf", justify="right", min_width=4, no_wrap=True)
        table.add_column("ms", justify="right", min_width=3, no_wrap=True)
        table.add_column("% IOD", justify="right", min_width=5, no_wrap=True)
        table.add_column("action units", ratio=1)
        table.add_column("session", ratio=1)
        table.add_column("delivery", min_width=9, no_wrap=True)
        for kept in events:
            payload = kept.payload
            confidence = payload.get("confidence")
            table.add_row(
                str(kept.seq),
                self.moment(kept.time, "milliseconds"),
                payload.get("emotion", MOVEMENT),
                "" if confidence is None else f"{confidence:.2f}",
                str(payload.get("duration_ms", "")),
                f"{100 * payload['intensity_iod']:.2f}" if "intensity_iod" in payload else "",
                action_units(payload) if "action_units" in payload else "",
                Text(printable(payload.get("context", {}).get("session", ""))),
                Text(kept.delivery, style=_STYLES.get(kept.delivery, "")),
            )
        self.console.print(table)

    def say(self, text: str, style: str = "") -> None:
        """Print a sentence."""
        self.console.print(Text(text, style=style), soft_wrap=True)

    def moment(self, time: datetime, precision: str = "seconds") -> str:
        """Give an instant in the view's zone, as `--since` takes it."""
        return time.astimezone(self._zone).replace(tzinfo=None).isoformat(" ", precision)

    def losses(self, losses: Sequence[Lost]) -> None:
        """Say which events never went out, or that there are none."""
        if not losses:
            self.say("Given up before delivery: none.", "dim")
            return
        reasons = Counter[str]()
        for lost in losses:
            reasons[lost.reason] += lost.events
        why = ", ".join(f"{reason} {number}" for reason, number in reasons.items())
        total = sum(reasons.values())
        self.say(f"Given up before delivery: {count(total)} ({why}); the last:", "bold red")
        for lost in losses[-RECENT_LOSSES:]:
            self.loss(lost)

    def loss(self, lost: Lost) -> None:
        """Say which numbers were lost at once."""
        numbers = f"seq {lost.first_seq}" + (f"-{lost.last_seq}" if lost.events > 1 else "")
        meaning = {
            "full": "the outbox was full",
            "expired": "older than outbox.expire_h",
            "wiped": "removed by a wipe",
        }.get(lost.reason, lost.reason)
        self.say(f"  {self.moment(lost.time)}  {numbers} of series {lost.series[:8]}: {meaning}", "red")


class Tally:
    """Counts events that pass through."""

    def __init__(self) -> None:
        self.first: Kept | None = None
        self.last: Kept | None = None
        self._by_delivery: Counter[str] = Counter()
        self._series: set[str] = set()

    def through(self, events: Iterable[Kept]) -> Iterator[Kept]:
        """Give the events as they come, and count them."""
        for kept in events:
            self.first, self.last = self.first or kept, kept
            self._by_delivery[kept.delivery] += 1
            self._series.add(kept.series)
            yield kept

    def sentence(self, view: View) -> str:
        """Say how many there were, from when to when, and what became of them."""
        if self.first is None or self.last is None:
            return "No event found."
        began, ended = view.moment(self.first.time), view.moment(self.last.time)
        fates = ", ".join(f"{number} {fate}" for fate, number in sorted(self._by_delivery.items()))
        series = f", {len(self._series)} series" if len(self._series) > 1 else ""
        return f"{count(self._by_delivery.total())}, {began} to {ended}: {fates}{series}."


def count(events: int) -> str:
    """Give a number of events in words."""
    return f"{events:,} event" + ("" if events == 1 else "s")


def printable(text: str) -> str:
    """Replace what could steer a terminal: the text came from somewhere in the network."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
