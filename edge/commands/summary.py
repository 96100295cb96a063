"""The summary of a replay: what was found, under which conditions, and what could not be assessed and why."""

from dataclasses import dataclass

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from edge.baseline import Rest
from edge.config import Config
from edge.out import Payload
from edge.pipeline import Statistics
from edge.records import Event, Reason

MEANING: dict[Reason, str] = {
    Reason.NO_FACE: "no face was found: is one in the picture, upright, larger than face.min_face_px?",
    Reason.FACE_LOST: "the face went away or turned aside",
    Reason.GAP: "frames are missing there",
    Reason.TOO_DARK: "the face is darker than motion.dark_luma",
    Reason.TURNING: "the head turned faster than motion.turn_limit_deg_s",
    Reason.FRAME_RATE: "too few frames a second to place an event of event.max_duration_ms",
    Reason.WARMING_UP: "the path needs a moment of face before it can judge",
}
"""What may be done about time that could not be assessed."""


@dataclass(frozen=True, slots=True)
class Recording:
    """What the source says about the file."""

    name: str
    size: tuple[int, int]
    """(width, height) px."""
    frames_out_of_order: int
    warnings: tuple[str, ...]


class EventList:
    """An `EventSink` that keeps the payloads."""

    def __init__(self) -> None:
        self.payloads: list[Payload] = []

    def publish(self, event: Event, payload: Payload) -> None:
        self.payloads.append(payload)

    def close(self) -> None:
        """Keep them: they are for afterwards."""


def show(
    console: Console,
    recording: Recording,
    statistics: Statistics,
    events: list[Payload],
    config: Config,
) -> None:
    """Print the events, the figures and, where nothing could be assessed, that this is no quiet face."""
    if events:
        console.print(_events(events))
    console.print(_figures(recording, statistics, config))
    if verdict := _verdict(statistics, bool(events)):
        console.print(verdict)


def _events(events: list[Payload]) -> Table:
    table = Table(title="Events", title_justify="left")
    for name in ("onset s", "apex s", "offset s", "ms"):
        table.add_column(name, justify="right")
    has_emotion = any("emotion" in event for event in events)
    if has_emotion:
        table.add_column("emotion")
        table.add_column("confidence", justify="right")
    table.add_column("evidence", justify="right")
    table.add_column("action units")
    for event in events:
        times = [f"{event[name]:.3f}" for name in ("onset_s", "apex_s", "offset_s")]
        emotion = [event.get("emotion", ""), f"{event.get('confidence', 0):.2f}"] if has_emotion else []
        table.add_row(
            *times, str(event["duration_ms"]), *emotion, f"{event['spot_score']:.2f}", action_units(event)
        )
    return table


def action_units(event: Payload) -> str:
    """Give the strongest action units of an event, with their side where it is one."""
    units = sorted(event["action_units"], key=lambda unit: -float(unit["score"]))
    return ", ".join(
        unit["au"] + ("" if unit["side"] == "both" else f" {unit['side']}") for unit in units[:4]
    )


def _figures(recording: Recording, statistics: Statistics, config: Config) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    width, height = recording.size
    table.add_row("recording", f"{recording.name}, {width}x{height}, {statistics.duration_s:.2f} s")
    rate = (
        f"{statistics.frame_rate_hz:.2f} frames/s measured" if statistics.frames > 1 else "one frame: no rate"
    )
    table.add_row("frames", f"{statistics.frames}, {rate}, {statistics.dropped} dropped")
    if recording.frames_out_of_order:
        table.add_row("", f"{recording.frames_out_of_order} left out: their time did not rise")
    if statistics.frames > 1:
        least_ms, most_ms = config.event.min_duration_ms, config.event.max_duration_ms
        shortest_ms = statistics.shortest_event_ms
        table.add_row(
            "shortest event",
            f"{shortest_ms:.0f} ms can be placed at this rate{_missed(shortest_ms, least_ms, most_ms)}",
        )
    others = f", up to {statistics.others} others in the picture" if statistics.others else ""
    table.add_row("faces", f"{statistics.faces} found{others}")
    share = statistics.assessable_s / statistics.duration_s if statistics.duration_s > 0 else 0.0
    table.add_row(
        "assessable", f"{statistics.assessable_s:.2f} s of {statistics.duration_s:.2f} s ({share:.0%})"
    )
    for reason, seconds in sorted(statistics.not_assessable_s.items(), key=lambda item: -item[1]):
        if seconds >= 0.005:
            table.add_row("  not", f"{seconds:.2f} s: {reason}")
    table.add_row("events", str(statistics.events))
    for reason, count in sorted(statistics.refusals.items(), key=lambda item: -item[1]):
        table.add_row("  turned down", f"{count}: {reason}")
    if statistics.faces:
        whose = ", of the last face" if statistics.faces > 1 else ""
        table.add_row("baseline", _rest(statistics.rest, config) + whose)
    for warning in recording.warnings:
        table.add_row("warning", Text(warning, style="yellow"))
    return table


def _rest(rest: Rest, config: Config) -> str:
    """Say what was learnt of the last face."""
    if not rest.ready:
        return (
            f"{rest.progress * config.baseline.seconds:.1f} s of {config.baseline.seconds:g} s of calm face seen: "
            "the noise floor is a usual one, not this person's"
        )
    sizes = (("noise", rest.noise_floor_iod, 2), ("asymmetry", rest.asymmetry_iod, 1))
    figures = [f"{name} {100 * size:.{digits}f} %" for name, size, digits in sizes if size is not None]
    blinks = f", {rest.blinks_per_min:.0f} blinks/min" if rest.blinks_per_min is not None else ""
    return f"at rest {', '.join(figures)} of the inter-ocular distance{blinks}"


def _missed(shortest_ms: float, least_ms: int, most_ms: int) -> str:
    if shortest_ms <= least_ms:
        return ""
    if shortest_ms > most_ms:
        return f"; events of {least_ms}-{most_ms} ms cannot be"
    return f"; those of {least_ms}-{shortest_ms:.0f} ms may go unseen"


def _verdict(statistics: Statistics, has_events: bool) -> Panel | None:
    """Say loudly that silence means nothing here; None where it does mean something."""
    if statistics.assessable_s > 0 or has_events:
        return None
    reasons = sorted(statistics.not_assessable_s.items(), key=lambda item: -item[1])
    lines = [
        f"{reason} ({seconds:.2f} s): {MEANING[reason]}" for reason, seconds in reasons if reason in MEANING
    ]
    if statistics.frames < 2:
        lines = [f"{statistics.frames} frame: there is no motion in it"]
    text = (
        "No event was found because not a single moment could be assessed. "
        "This does not say that the face was still.\n"
    )
    return Panel(
        text + "\n".join(f"- {line}" for line in lines), title="NOTHING COULD BE ASSESSED", style="bold red"
    )
