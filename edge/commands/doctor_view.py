"""How the doctor's report looks: a table in a terminal, one line for each check elsewhere."""

import sys
from itertools import groupby

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from edge.commands.events_view import printable
from edge.doctor.examine import Line, Report
from edge.doctor.finding import Verdict

# Nobody should need to tell red from green: each verdict has its word, and a sign of its own.
SIGNS = {Verdict.PASS: "✓", Verdict.SKIPPED: "-", Verdict.WARN: "!", Verdict.FAIL: "✗"}
PLAIN_SIGNS = {**SIGNS, Verdict.PASS: "+", Verdict.FAIL: "x"}
"""For terminals that cannot show the others."""
STYLES = {Verdict.PASS: "green", Verdict.SKIPPED: "dim", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}

VERDICT_WIDTH, NAME_WIDTH = 9, 15


class View:
    """Prints a report."""

    def __init__(self, console: Console | None = None) -> None:
        """Take where to print; None: standard output."""
        self.console = console or Console(highlight=False, emoji=False)
        self._shows_progress = self.console.is_terminal and sys.stderr.isatty()
        self._signs = SIGNS if self.console.encoding.startswith("utf") else PLAIN_SIGNS

    def begun(self, area: str) -> None:
        """Show in a terminal what is being looked at."""
        if self._shows_progress:
            # No spinner: it would be a thread, and the checks run in forks of this process.
            print(f"\r\033[Klooking at: {area} ...", end="", file=sys.stderr, flush=True)

    def show(self, report: Report, *, is_root: bool) -> None:
        """Print everything."""
        if self._shows_progress:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        if self.console.is_terminal:
            self._table(report)
        else:
            for line in report.lines:
                self._line(line)
        self._summary(report, is_root=is_root)

    def _table(self, report: Report) -> None:
        for area, lines in groupby(report.lines, key=lambda line: line.area):
            self.console.print(Text(area.capitalize(), style="bold"))
            table = Table.grid(padding=(0, 1, 0, 0), expand=True)
            # The same in every area, so that the eye can run down.
            table.add_column(width=VERDICT_WIDTH, no_wrap=True)
            table.add_column(width=NAME_WIDTH)
            table.add_column(ratio=1, overflow="fold")
            for line in lines:
                found = line.finding
                style = STYLES[found.verdict]
                # Long red sentences are hard to read: the colour is for what one looks for.
                is_noted = found.verdict in (Verdict.WARN, Verdict.FAIL)
                words = Text(printable(found.words), style="dim" if found.verdict is Verdict.SKIPPED else "")
                if found.advice:
                    words.append(
                        f"\n{self._arrow} {printable(found.advice)}", style="bold" if is_noted else ""
                    )
                verdict = Text(f"{self._signs[found.verdict]} {found.verdict}", style=style)
                table.add_row(verdict, Text(found.name, style=style if is_noted else ""), words)
            self.console.print(Padding(table, (0, 0, 0, 2)))
        self.console.print()

    @property
    def _arrow(self) -> str:
        return "→" if self._signs is SIGNS else "->"

    def _line(self, line: Line) -> None:
        found = line.finding
        advice = f"; do: {printable(found.advice)}" if found.advice else ""
        print(f"{found.verdict:7} {line.area}: {found.name}: {printable(found.words)}{advice}")

    def _summary(self, report: Report, *, is_root: bool) -> None:
        counts = ", ".join(f"{report.count(verdict)} {word}" for verdict, word in (
            (Verdict.FAIL, "failed"), (Verdict.WARN, "with a warning"), (Verdict.PASS, "passed"),
            (Verdict.SKIPPED, "skipped"),
        ))  # fmt: skip
        self._say(f"{len(report.lines)} checks in {report.seconds:.1f} s: {counts}.", STYLES[report.verdict])
        if report.unseen:
            why = "This user" if not is_root else "Even root"
            self._say(f"{why} could not see: {'; '.join(report.unseen)}.", "")
            if not is_root:
                self._say("With root's rights: sudo microedge doctor", "")

    def _say(self, text: str, style: str) -> None:
        self.console.print(Text(text, style=style), soft_wrap=not self.console.is_terminal)
