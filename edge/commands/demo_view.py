"""What the terminal shows of a demo: a live view, or plain lines where nobody watches."""

import time
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from edge.commands.score import MISSED_AFTER_S, Row, Score
from edge.commands.summary import action_units
from edge.frames.synthetic import SyntheticSource
from edge.out.leds import DARK, Colour
from edge.pipeline import Statistics

REDRAW_S = 0.1
SIGNAL_S = 0.4
"""Longest pause within a signal of the event LED, with room to spare."""
WIDE = 92
"""Columns of a terminal from which there is room for action units."""
ROWS = 9
"""Rows of the table: with all else this fits a terminal of 24 lines."""
COLOURS: dict[Colour, str] = {
    (True, False, False): "red",
    (False, True, False): "green",
    (False, False, True): "blue",
    (True, True, False): "yellow",
    (True, False, True): "magenta",
    (False, True, True): "cyan",
    (True, True, True): "white",
}


@dataclass(frozen=True, slots=True)
class Lamps:
    """What the pins are at."""

    capture: bool
    event: Colour
    fault: bool


@dataclass(frozen=True, slots=True)
class Scene:
    """All that a view shows of one moment."""

    media_s: float
    wall_s: float
    statistics: Statistics
    sees_face: bool
    lamps: Lamps
    score: Score


class View(Protocol):
    """Shows a demo while it is entered, and the result afterwards."""

    def __enter__(self) -> "View": ...

    def __exit__(self, *exception: object) -> None: ...

    def came_back(self, row: Row, score: Score) -> None: ...

    def show(self, scene: Scene) -> None: ...

    def show_lamps(self, lamps: Lamps) -> None: ...

    def conclude(self, score: Score, failure: str) -> None: ...


class PlainView:
    """A line when something happens."""

    def __init__(self, console: Console, source: SyntheticSource, broker: str, topic: str) -> None:
        self._console = console
        self._lamps = Lamps(False, DARK, False)
        self._planted_shown = 0
        self._lit_s = -1.0
        seconds = source.duration_s or 0.0
        width, height = source.size
        console.print(
            f"portrait: {width}x{height}, {source.nominal_rate_hz:g} frames/s, {seconds:g} s of media time"
        )
        console.print(f"broker: {broker}, topic {topic}")

    def __enter__(self) -> "PlainView":
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing is held."""

    def came_back(self, row: Row, score: Score) -> None:
        event = row.event
        assert event is not None
        named = f"{event['emotion']} {event['confidence']:.2f}" if "emotion" in event else "movement"
        what = ", ".join(part for part in (named, action_units(event)) if part)
        against = _planted_words(row) if row.is_match else _false_words(row, score)
        self._line(
            row.onset_s,
            f"from the broker: {_interval(event['onset_s'], event['offset_s'])} {what} | {against}",
        )

    def show(self, scene: Scene) -> None:
        micro = [row.planted for row in scene.score.rows if row.planted is not None]
        for planted in micro[self._planted_shown :]:
            if planted.offset_s > scene.media_s:
                break
            self._planted_shown += 1
            self._line(
                planted.onset_s, f"planted: {_interval(planted.onset_s, planted.offset_s)} {planted.emotion}"
            )
        self.show_lamps(scene.lamps)

    def show_lamps(self, lamps: Lamps) -> None:
        before, self._lamps = self._lamps, lamps
        if lamps.capture != before.capture:
            self._console.print(f"LED capture: {'on' if lamps.capture else 'off'}")
        if lamps.fault and not before.fault:
            self._console.print("LED fault: blinks")
        if lamps.event not in (before.event, DARK):
            # A rhythm is one signal: its later marks get no line of their own.
            if time.monotonic() - self._lit_s > SIGNAL_S:
                self._console.print(f"LED event: {COLOURS[lamps.event]}")
            self._lit_s = time.monotonic()

    def conclude(self, score: Score, failure: str) -> None:
        self._console.print(_result(score, failure).plain)

    def _line(self, time_s: float, text: str) -> None:
        self._console.print(f"{time_s:8.3f} s  {text}", soft_wrap=True)


class LiveView:
    """A panel that is drawn anew ten times a second."""

    def __init__(self, console: Console, source: SyntheticSource, broker: str, topic: str) -> None:
        self._console, self._source, self._broker, self._topic = console, source, broker, topic
        self._live = Live(console=console, auto_refresh=False)
        self._drawn_s = -1.0
        self._last: Scene | None = None

    def __enter__(self) -> "LiveView":
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def came_back(self, row: Row, score: Score) -> None:
        """Drawn with the next scene."""

    def show(self, scene: Scene) -> None:
        self._last = scene
        if scene.wall_s - self._drawn_s >= REDRAW_S:
            self._drawn_s = scene.wall_s
            self._live.update(self.drawing(scene), refresh=True)

    def show_lamps(self, lamps: Lamps) -> None:
        if self._last is not None:
            last = self._last
            scene = Scene(last.media_s, last.wall_s, last.statistics, last.sees_face, lamps, last.score)
            self._live.update(self.drawing(scene), refresh=True)

    def conclude(self, score: Score, failure: str) -> None:
        self._console.print(_result(score, failure))

    def drawing(self, scene: Scene) -> Panel:
        """Compose the view of one moment."""
        body = Group(self._state(scene), Text(), _table(scene, self._console.width >= WIDE))
        listen = f"mosquitto_sub -p {self._broker.rpartition(':')[2]} -t '{self._topic}'"
        return Panel(body, title="microedge demo", subtitle=f"[dim]{listen}[/dim]")

    def _state(self, scene: Scene) -> Table:
        lamps, numbers = scene.lamps, scene.statistics
        leds = Text.assemble(
            "LEDs   ", *_dot("capture", "green" if lamps.capture else ""), "   ",
            *_dot("event", COLOURS.get(lamps.event, "")), "   ", *_dot("fault", "red" if lamps.fault else ""),
        )  # fmt: skip
        face = Text("face followed", style="green") if scene.sees_face else Text("no face", style="yellow")
        speed = scene.media_s / scene.wall_s if scene.wall_s > 1 else 1.0
        pace = "in real time" if speed > 0.95 else f"at {speed:.2f} of real time"
        grid = Table.grid(padding=(0, 4))
        grid.add_row(leds, face)
        grid.add_row(
            f"{scene.media_s:5.1f} of {self._source.duration_s or 0:g} s {pace}",
            f"{numbers.frame_rate_hz:.0f} frames/s, {numbers.dropped} dropped",
        )
        return grid


def _table(scene: Scene, is_wide: bool) -> Table:
    """Draw the truth beside what came back, the newest rows at the bottom."""
    table = Table(expand=True, show_edge=False, pad_edge=False)
    table.add_column("planted", no_wrap=True, min_width=25)
    table.add_column("back from the broker", no_wrap=True, min_width=30)
    table.add_column("delay", justify="right", no_wrap=True, min_width=7)
    if is_wide:
        table.add_column("action units", no_wrap=True, ratio=1)
    begun = [row for row in scene.score.rows if row.onset_s <= scene.media_s]
    for row in begun[-ROWS:]:
        table.add_row(*_cells(row, scene)[: len(table.columns)])
    for _ in range(ROWS - len(begun)):
        table.add_row()
    return table


def _cells(row: Row, scene: Scene) -> tuple[Text, Text, str, str]:
    planted = Text("nothing: ", style="red") if row.planted is None else Text(_planted_words(row))
    event = row.event
    if event is None:
        assert row.planted is not None
        is_missed = scene.media_s > row.planted.offset_s + MISSED_AFTER_S
        return planted, Text("missed", style="red") if is_missed else Text("..."), "", ""
    if row.planted is None:
        planted = Text(_false_words(row, scene.score), style="red")
    emotion = event.get("emotion", "movement")
    same = row.planted is not None and emotion == row.planted.emotion
    words = Text(f"{_interval(event['onset_s'], event['offset_s'])} ")
    words.append(emotion, style="bold green" if same else "yellow")
    words.append(f" {event['confidence']:.2f}" if "confidence" in event else "")
    return planted, words, f"{1000 * row.delay_s:.0f} ms", action_units(event)


def _result(score: Score, failure: str) -> Text:
    verdict = f"{score.came_back} of {score.planted} planted micro-expressions came back through the broker"
    others = f", {score.false} other events came" if score.false else ", nothing else came"
    text = Text(verdict + others, style="bold green" if score.came_back and not failure else "bold red")
    if not score.planted:
        text.append("\nthis stream was too short to plant any: --seconds 10 or more")
    return text


def _dot(name: str, colour: str) -> tuple[tuple[str, str], tuple[str, str]]:
    # Lit and dark differ in shape too: nobody needs to tell the colours apart.
    return ("●" if colour else "○", f"bold {colour}" if colour else "dim"), (
        f" {name}",
        "" if colour else "dim",
    )


def _interval(start_s: float, end_s: float) -> str:
    return f"{start_s:6.2f} s {1000 * (end_s - start_s):3.0f} ms"


def _planted_words(row: Row) -> str:
    assert row.planted is not None
    return f"{_interval(row.planted.onset_s, row.planted.offset_s)} {row.planted.emotion}"


def _false_words(row: Row, score: Score) -> str:
    assert row.event is not None
    during = score.during(row.event)
    return f"nothing planted ({during})" if during else "nothing planted"
