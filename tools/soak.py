"""Run the device for hours on frames that cost nothing to make, and watch its memory, cost and latency.

    python -m tools.soak --out soak.csv [--seconds 7200] [--every 10] [--unpaced] [--set section.key=value]
    python -m tools.soak --plot soak.csv soak.png                (draws and sums up a finished or a running soak)

Four seconds of the animated portrait are rendered beforehand and played to and fro at `camera.rate_hz`, as a camera
would: frames that find the queue full are dropped and counted. `--unpaced` gives them as fast as they are taken,
without dropping. Every ten seconds a line goes to the CSV; the columns are the fields of `Line`. The end, also
after Ctrl-C or SIGTERM, is one line of JSON and a plot beside the CSV. MQTT and LEDs are off unless `--set` says so.
"""

import argparse
import csv
import gc
import json
import os
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from edge import app as composition
from edge.app import App
from edge.bench.machine import process_status
from edge.commands import ATTEND_S, StopRequest
from edge.config import Config, load
from edge.frames import FrameSource
from edge.frames.looped import LoopedSource
from edge.frames.paced import PacedSource
from edge.frames.portrait import moving_portrait
from edge.frames.synthetic import SyntheticSource
from edge.pipeline import Pipeline
from edge.records import Event, Frame

_WINDOW_S = 600.0
"""Percentiles are also stated over windows of this length: the target of the frame time's p99 / p50 names it."""
_RENDERED_S = 4.0


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the CSV: an interval, or a state at its end."""

    elapsed_s: float
    media_s: float
    frames: int
    """Handled since the start, like the counts that follow."""
    dropped: int
    """Lost on the way from sensor to pipeline, those dropped by the queue included."""
    queue_dropped: int
    events: int
    refusals: int
    not_assessable_s: float
    rss_kb: int
    """VmRSS, with the rendered frames, which lie in a mapped file."""
    anon_kb: int
    """RssAnon: what the process itself keeps."""
    cpu_ms: float
    """CPU time of the whole process in the interval, per frame."""
    worker_ms: float
    """CPU time of the thread that runs the pipeline in the interval, per frame."""
    p50_ms: float
    """Wall time of `Pipeline.feed`, over the interval's frames."""
    p95_ms: float
    p99_ms: float
    max_ms: float
    gc_runs: int
    gc_pause_ms: float
    """The longest pause for the garbage collector in the interval."""
    threads: int
    """Of the process, those of libraries included."""
    open_files: int


class Histogram:
    """Counts of times in steps of 1 %: percentiles over any number of frames in constant memory."""

    _LEAST_MS, _STEP = 0.001, 1.01

    def __init__(self) -> None:
        self._counts = np.zeros(2048, np.int64)

    def add(self, values_ms: NDArray[np.float64]) -> None:
        places = np.log(np.maximum(values_ms, self._LEAST_MS) / self._LEAST_MS) / np.log(self._STEP)
        np.add.at(self._counts, np.minimum(places.astype(int), len(self._counts) - 1), 1)

    def percentile(self, percent: float) -> float:
        """Give the middle of the step in which the percentile lies, ms."""
        total = int(self._counts.sum())
        if total == 0:
            return 0.0
        place = int(np.searchsorted(np.cumsum(self._counts), percent / 100 * total))
        return float(self._LEAST_MS * self._STEP ** (place + 0.5))


class TimedPipeline(Pipeline):
    """The device's pipeline, with the wall time of each frame and its thread's CPU time noted."""

    last: "TimedPipeline"
    """The one that was made last: the App makes its own."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        TimedPipeline.last = self
        self.times_ms: list[float] = []
        self.thread_cpu_s = 0.0

    def feed(self, frame: Frame) -> list[Event]:
        began_s = time.perf_counter()
        events = super().feed(frame)
        self.times_ms.append(1000 * (time.perf_counter() - began_s))
        self.thread_cpu_s = time.thread_time()
        return events

    def taken(self) -> NDArray[np.float64]:
        """Give the times since the last call and begin anew."""
        times_ms, self.times_ms = self.times_ms, []
        return np.array(times_ms, np.float64)


class Collections:
    """Notes how often and how long the garbage collector ran."""

    def __init__(self) -> None:
        self.runs, self.longest_ms, self._began_s = 0, 0.0, 0.0

    def __call__(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._began_s = time.perf_counter()
            return
        self.runs += 1
        self.longest_ms = max(self.longest_ms, 1000 * (time.perf_counter() - self._began_s))


class Soak:
    """Follows one App and writes down how it is doing."""

    def __init__(self, app: App, pipeline: TimedPipeline, collections: Collections) -> None:
        self._app, self._pipeline, self._collections = app, pipeline, collections
        self._start_s = time.monotonic()
        self._cpu_s, self._worker_s = time.process_time(), pipeline.thread_cpu_s
        self._window, self._window_end_s = Histogram(), _WINDOW_S
        self.windows: list[dict[str, float]] = []
        self.lines: list[Line] = []

    def note(self) -> Line:
        """Take what happened since the last line."""
        app, times_ms = self._app, self._pipeline.taken()
        numbers = app.statistics
        elapsed_s, cpu_s = time.monotonic() - self._start_s, time.process_time()
        worker_s = self._pipeline.thread_cpu_s
        each = 1000 / max(len(times_ms), 1)
        p50, p95, p99, worst = np.percentile(times_ms, (50, 95, 99, 100)) if len(times_ms) else np.zeros(4)
        process = process_status()
        line = Line(
            elapsed_s=round(elapsed_s, 2), media_s=round(app.media_s, 3), frames=numbers.frames,
            dropped=numbers.dropped, queue_dropped=app.frames_dropped, events=app.events,
            refusals=sum(numbers.refusals.values()),
            not_assessable_s=round(sum(numbers.not_assessable_s.values()), 2),
            rss_kb=process["VmRSS"], anon_kb=process["RssAnon"],
            cpu_ms=round((cpu_s - self._cpu_s) * each, 4),
            worker_ms=round((worker_s - self._worker_s) * each, 4),
            p50_ms=round(float(p50), 4), p95_ms=round(float(p95), 4), p99_ms=round(float(p99), 4),
            max_ms=round(float(worst), 4),
            gc_runs=self._collections.runs, gc_pause_ms=round(self._collections.longest_ms, 3),
            threads=process["Threads"], open_files=len(os.listdir("/proc/self/fd")),
        )  # fmt: skip
        self._cpu_s, self._worker_s, self._collections.longest_ms = cpu_s, worker_s, 0.0
        self.lines.append(line)
        self._window.add(times_ms)
        if elapsed_s >= self._window_end_s:
            self._end_window(elapsed_s)
        return line

    def finish(self) -> None:
        """End the last window, if it is long enough to say something."""
        elapsed_s = time.monotonic() - self._start_s
        if elapsed_s > self._window_end_s - _WINDOW_S / 2 or not self.windows:
            self._end_window(elapsed_s)

    def _end_window(self, elapsed_s: float) -> None:
        p50, p99 = self._window.percentile(50), self._window.percentile(99)
        ratio = round(p99 / p50, 2) if p50 else 0.0
        window = {
            "end_s": round(elapsed_s, 1),
            "p50_ms": round(p50, 3),
            "p99_ms": round(p99, 3),
            "p99_by_p50": ratio,
        }
        self.windows.append(window)
        # Told at once, so that a soak that is killed has told it.
        print(json.dumps(window), flush=True)
        self._window, self._window_end_s = Histogram(), self._window_end_s + _WINDOW_S


def summary(lines: Sequence[Line]) -> dict[str, Any]:
    """Sum a soak up: memory at its end against after one minute, cost at its end against its start."""
    last = lines[-1]
    minute = next((line for line in lines if line.elapsed_s >= 60), lines[-1])
    # The first interval holds the models' loading and the first detection.
    settled = lines[1:] or lines
    head = [line for line in settled if line.elapsed_s <= _WINDOW_S]
    tail = [line for line in settled if line.elapsed_s > last.elapsed_s - _WINDOW_S]
    return {
        "seconds": last.elapsed_s,
        "frames": last.frames,
        "frames_lost": last.dropped,
        "queue_dropped": last.queue_dropped,
        "events": last.events,
        "rss_mb": {
            "minute": round(minute.rss_kb / 1024, 1),
            "end": round(last.rss_kb / 1024, 1),
            "ratio": round(last.rss_kb / minute.rss_kb, 4),
        },
        "anon_mb": {
            "minute": round(minute.anon_kb / 1024, 1),
            "end": round(last.anon_kb / 1024, 1),
            "ratio": round(last.anon_kb / minute.anon_kb, 4),
        },
        "cpu_ms_per_frame": _parts(head, tail, settled, "cpu_ms"),
        "worker_ms_per_frame": _parts(head, tail, settled, "worker_ms"),
        "p50_ms": _parts(head, tail, settled, "p50_ms"),
        "p99_ms": _parts(head, tail, settled, "p99_ms"),
        "max_ms": max(line.max_ms for line in settled),
        "gc_pause_ms": max(line.gc_pause_ms for line in settled),
        "open_files": [lines[0].open_files, last.open_files],
    }


def draw(lines: Sequence[Line], path: Path) -> None:
    """Plot memory, cost, latency and losses over time into a PNG."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    minutes = [line.elapsed_s / 60 for line in lines]

    def course(name: str) -> list[float]:
        return [float(getattr(line, name)) for line in lines]

    figure, (memory, cost, latency, losses) = pyplot.subplots(4, 1, figsize=(13, 14), sharex=True)
    for name, label in (
        ("rss_kb", "resident, rendered frames included"),
        ("anon_kb", "resident, own (RssAnon)"),
    ):
        memory.plot(minutes, [value / 1024 for value in course(name)], label=label)
    memory.set_ylabel("memory, MB")
    memory.set_ylim(bottom=0)
    for name, label in (("cpu_ms", "process"), ("worker_ms", "pipeline's thread")):
        cost.plot(minutes[1:], course(name)[1:], label=label)
    cost.set_ylabel("CPU per frame, ms")
    cost.set_ylim(bottom=0)
    for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms"):
        latency.plot(minutes[1:], course(name)[1:], label=name.removesuffix("_ms"))
    latency.plot(minutes[1:], course("gc_pause_ms")[1:], ":", label="longest gc pause")
    latency.set_ylabel("wall time per frame, ms")
    latency.set_yscale("log")
    for name in ("dropped", "queue_dropped", "events", "refusals"):
        losses.plot(minutes, course(name), label=name.replace("_", " "))
    losses.set_ylabel("count since the start")
    losses.set_xlabel("minutes")
    for axis in (memory, cost, latency, losses):
        axis.legend(loc="upper left", fontsize=8)
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def read(path: Path) -> list[Line]:
    """Read a soak's CSV; a last line that is still being written is left out."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if None not in row.values()]
    kinds = {field.name: float if field.type is float else int for field in fields(Line)}
    return [Line(**{name: kind(row[name]) for name, kind in kinds.items()}) for row in rows]


def run(config: Config, path: Path, *, seconds: float, every_s: float, is_paced: bool) -> dict[str, Any]:
    """Soak for so many seconds or until stopped; give the summary."""
    looped = LoopedSource(portrait(config))

    def source() -> FrameSource:
        return PacedSource(looped) if is_paced else looped

    collections = Collections()
    gc.callbacks.append(collections)
    try:
        with (
            path.open("w", newline="", encoding="utf-8") as file,
            StopRequest() as stop,
            mock.patch.object(composition, "Pipeline", TimedPipeline),
            App(config, source, is_live=is_paced) as app,
        ):
            table = csv.writer(file)
            table.writerow([field.name for field in fields(Line)])
            soak = Soak(app, TimedPipeline.last, collections)
            start_s = time.monotonic()
            due_s = start_s + every_s
            while app.is_running and not stop.is_made and time.monotonic() < start_s + seconds:
                app.attend()
                time.sleep(ATTEND_S)
                if time.monotonic() >= due_s:
                    due_s += every_s
                    table.writerow(astuple(soak.note()))
                    file.flush()
            if time.monotonic() - due_s > -0.5 * every_s or not soak.lines:
                table.writerow(astuple(soak.note()))
            soak.finish()
        failure = app.failure
    finally:
        gc.callbacks.remove(collections)
    return {**summary(soak.lines), "windows": soak.windows, "failure": failure}


def main() -> None:
    """Soak, or draw a soak."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="the CSV to write")
    parser.add_argument("--seconds", type=float, default=7200.0)
    parser.add_argument("--every", type=float, default=10.0, metavar="SECONDS")
    parser.add_argument("--unpaced", action="store_true")
    parser.add_argument("--plot", type=Path, nargs=2, metavar=("CSV", "PNG"))
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value")
    options = parser.parse_args()
    if options.plot:
        lines = read(options.plot[0])
        if not lines:
            parser.error(f"--plot {options.plot[0]}: holds no line yet")
        draw(lines, options.plot[1])
        print(json.dumps(summary(lines)))
        return
    if not options.out:
        parser.error("--out: name the CSV to write")
    config = load(None, ["mqtt.enabled=false", "leds.enabled=false", *options.set])
    result = run(
        config, options.out, seconds=options.seconds, every_s=options.every, is_paced=not options.unpaced
    )
    print(json.dumps(result), flush=True)
    draw(read(options.out), options.out.with_suffix(".png"))
    if result["failure"]:
        raise SystemExit(1)


def portrait(config: Config) -> SyntheticSource:
    """Give a short stream of the animated portrait as `camera` would see it."""
    return moving_portrait(config.camera, seconds=_RENDERED_S, seed=1, start_time_ns=time.time_ns())


def _parts(head: Sequence[Line], tail: Sequence[Line], whole: Sequence[Line], name: str) -> dict[str, float]:
    """Give the medians over the first ten minutes, the last ten and all."""
    parts = (("first_10_min", head), ("last_10_min", tail), ("whole", whole))
    return {part: round(median(getattr(line, name) for line in lines), 4) for part, lines in parts if lines}


if __name__ == "__main__":
    main()
