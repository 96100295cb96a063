"""`microedge replay`: a recording through the same path as the camera, and a summary of what came of it."""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from edge.app import App
from edge.commands import ATTEND_S, StopRequest, configuration, log_to_stderr
from edge.commands.summary import EventList, Recording, show
from edge.config import Config
from edge.errors import EdgeError
from edge.frames.replay import ReplaySource
from edge.out import EventSink
from edge.out.journal import Journal
from edge.out.jsonlines import JsonLinesSink

DELIVERY_S = 10.0
"""Time that the broker gets to confirm the last events; the file is over, nobody waits for a frame."""


def main(arguments: argparse.Namespace) -> int:
    """Replay, write and publish as asked, and print the summary unless told to be quiet.

    Raises:
        EdgeError: the file cannot be used, or events could not be written or published.
    """
    config = _of_replay(configuration(arguments), arguments.publish)
    # The summary repeats what a source warns of; a log line in a progress bar would only tear it.
    log_to_stderr(config, least=100)
    source = ReplaySource(arguments.video, start_s=arguments.start, seconds=arguments.seconds)
    found = EventList()
    sinks: list[EventSink] = [found]
    to_stdout = arguments.out == "-"
    journal: Journal | None = None
    try:
        if arguments.journal is not None:
            journal = Journal(arguments.journal)
        if arguments.out:
            sinks.append(JsonLinesSink(None if to_stdout else Path(arguments.out)))
        app, failure = _play(config, source, sinks, journal, Console(stderr=True, quiet=arguments.quiet))
        if journal is not None:
            journal.conclude(app.statistics)
    finally:
        source.close()
        for sink in (*sinks, *([journal] if journal is not None else [])):
            sink.close()
    if not arguments.quiet:
        recording = Recording(source.name, source.size, source.frames_out_of_order, tuple(source.warnings))
        # Events keep standard output to themselves.
        console = Console(stderr=to_stdout, highlight=False)
        if not console.is_terminal:
            console = Console(stderr=to_stdout, highlight=False, width=110)
        show(console, recording, app.statistics, found.payloads, config)
    if failure:
        raise EdgeError(failure)
    return 0


def _of_replay(config: Config, publish: bool) -> Config:
    """Switch off what belongs to the device, and publish under a name that is not the device's own.

    The service may run on this machine; a second client of its name would push it off the broker.
    """
    return replace(
        config,
        device=replace(config.device, id=f"{config.device.id[:57]}-replay") if publish else config.device,
        leds=replace(config.leds, enabled=False),
        mqtt=replace(config.mqtt, enabled=publish),
    )


def _play(
    config: Config,
    source: ReplaySource,
    sinks: list[EventSink],
    journal: Journal | None,
    console: Console,
) -> tuple[App, str]:
    """Play to the end or to the first Ctrl-C; give the app, closed, and what went wrong."""
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[found]}"),
        TimeRemainingColumn(), console=console, disable=not sys.stderr.isatty(), transient=True,
    )  # fmt: skip
    with (
        StopRequest() as stop,
        App(config, lambda: source, is_live=False, is_replay=True, sinks=sinks, journal=journal) as app,
        progress,
    ):
        task = progress.add_task(source.name, total=source.duration_s, found="")
        while app.is_running and not stop.is_made:
            app.attend()
            progress.update(task, completed=app.media_s, found=f"{app.statistics.events} events")
            time.sleep(ATTEND_S)
        is_interrupted = app.is_running
        undelivered = _await_delivery(app, stop)
    interrupted = f"interrupted at {app.media_s:.2f} s of the video" if is_interrupted else ""
    return app, app.failure or interrupted or undelivered


def _await_delivery(app: App, stop: StopRequest) -> str:
    """Wait until the broker has confirmed every event; give what did not arrive and why."""
    if app.mqtt is None:
        return ""
    deadline_s = time.monotonic() + DELIVERY_S
    while app.outbox.counts().waiting or not app.mqtt.connected:
        if time.monotonic() > deadline_s or stop.is_made:
            break
        time.sleep(ATTEND_S)
    counts = app.outbox.counts()
    if missing := counts.waiting + counts.lost:
        why = app.mqtt.problem or "not confirmed in time"
        return f"mqtt: {missing} of {app.events} events did not arrive: {why}"
    return f"mqtt: nothing could be published: {app.mqtt.problem}" if app.mqtt.problem else ""
