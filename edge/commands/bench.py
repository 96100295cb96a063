"""`microedge bench`: what the path costs on this computer, beside a yardstick in the same run."""

import argparse
import json
import os
import shlex
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from edge.bench.machine import Machine, describe
from edge.bench.measure import BLOCK, Memory, Paced, Quartiles, Unpaced, memory, paced, unpaced
from edge.bench.peer import FaceMesh
from edge.bench.startup import Startup, measure
from edge.commands import log_to_stderr
from edge.config import Config, load
from edge.frames import FrameSource
from edge.frames.looped import LoopedSource
from edge.frames.portrait import moving_portrait
from edge.frames.replay import ReplaySource
from edge.stages import Spread, Stage

PREPARED_S = 4.0
PREPARED_BYTES = 1 << 28
"""Most that is rendered or decoded beforehand and then played to and fro."""
_SILENT = ("mqtt.enabled=false", "leds.enabled=false", "log.level=error")


@dataclass(frozen=True, slots=True)
class Result:
    """All that was measured."""

    machine: Machine
    source: str
    size: tuple[int, int]
    rate_hz: float
    settings: tuple[str, ...]
    unpaced: Unpaced
    paced: Paced
    memory: Memory
    startup: Startup

    def as_json(self) -> dict[str, Any]:
        """Give it as plain values: the figures that most people want first."""
        path = self.unpaced.stages[Stage.PATH]
        return {
            "frame_ms": _points(path),
            "stages": {
                stage.name.lower(): {**_points(spread), "share": spread.share, "mean": spread.mean}
                for stage, spread in self.unpaced.stages.items()
            },
            "frames_per_second": 1000 / self.unpaced.wall_ms.median,
            "cpu_ms_per_frame": self.unpaced.cpu_ms.median,
            "yardstick_ms": self.unpaced.yardstick_ms.median,
            "yardstick_multiple": self.unpaced.multiple.median,
            "rss_mb": self.unpaced.rss_mb,
            "dropped": self.paced.dropped,
            "start_to_assessable_s": self.startup.assessable_s,
            "machine": asdict(self.machine),
            "engine": self.unpaced.engine,
            "source": self.source,
            "size": self.size,
            "rate_hz": self.rate_hz,
            "settings": self.settings,
            "frames": self.unpaced.frames,
            "events": self.unpaced.events,
            "face_share": self.unpaced.face_share,
            "blocks": {
                "cpu_ms": asdict(self.unpaced.cpu_ms),
                "wall_ms": asdict(self.unpaced.wall_ms),
                "yardstick_ms": asdict(self.unpaced.yardstick_ms),
                "multiple": asdict(self.unpaced.multiple),
            },
            "rss_growth_mb": self.unpaced.rss_growth_mb,
            "memory": asdict(self.memory),
            "paced": {**asdict(self.paced), "frame_ms": _points(self.paced.frame_ms)},
            "startup": asdict(self.startup),
            "peer": asdict(self.unpaced.peer) if self.unpaced.peer else None,
        }


def main(arguments: argparse.Namespace) -> int:
    """Prepare frames, measure, print.

    Raises:
        EdgeError: the recording cannot be used, or a peer is asked for that is not installed.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # for the process that start-up is measured in
    overrides = (*arguments.overrides, f"camera.rate_hz={arguments.rate:g}", *_SILENT)
    config = load(arguments.config, overrides)
    log_to_stderr(config)
    with ExitStack() as parts:
        progress = parts.enter_context(Progress(console=Console(stderr=True), transient=True))
        peer = parts.enter_context(FaceMesh()) if arguments.peer else None
        task = progress.add_task("preparing frames", total=None)
        looped = LoopedSource(_source(arguments.video, config))
        progress.update(task, description="as fast as it goes", total=arguments.repeats)
        fast = unpaced(
            config, looped, repeats=arguments.repeats, peer=peer, progress=lambda: progress.advance(task)
        )
        progress.update(task, description="memory and start", total=None)
        kept = memory(config, looped)
        start = measure(overrides, arguments.config, looped)
        progress.update(task, description="at the camera's pace", total=arguments.seconds, completed=0)
        # Last, because the device closes its source.
        slow = paced(
            config, looped, seconds=arguments.seconds, progress=lambda at: progress.update(task, completed=at)
        )
    result = Result(
        describe(), looped.name, looped.size, looped.nominal_rate_hz, tuple(arguments.overrides), fast, slow, kept,
        start,
    )  # fmt: skip
    if arguments.json:
        print(json.dumps(result.as_json()))
    else:
        console = Console(highlight=False)
        show(console if console.is_terminal else Console(highlight=False, width=100), result)
    return 0


def _source(video: Path | None, config: Config) -> FrameSource:
    if video is not None:
        source = ReplaySource(video)
        seconds = _kept_s(source.size, source.nominal_rate_hz)
        source.close()
        return ReplaySource(video, seconds=seconds)
    camera = config.camera
    seconds = _kept_s((camera.width, camera.height), camera.rate_hz)
    return moving_portrait(camera, seconds=seconds, seed=1)


def _kept_s(size: tuple[int, int], rate_hz: float) -> float:
    """Give how many seconds of frames are prepared: large ones fewer, but no fewer than two."""
    frames = max(PREPARED_BYTES // (size[0] * size[1]), 2)
    return min(PREPARED_S, frames / rate_hz) if rate_hz > 0 else PREPARED_S


def show(console: Console, result: Result) -> None:
    """Print everything for people."""
    machine, fast, slow = result.machine, result.unpaced, result.paced
    versions = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    place = f"{machine.board}, {machine.cpu}" if machine.board else machine.cpu
    clock = f", governor {machine.governor}" if machine.governor else ""
    console.print(f"{place}, {machine.cores} cores{clock}, load {machine.load:g}; {machine.system}")
    console.print(f"Python {machine.python}, models run by {fast.engine}; {versions}", soft_wrap=True)
    settings = f"; {shlex.join(result.settings)}" if result.settings else ""
    width, height = result.size
    console.print(f"{result.source}, {width}x{height}, {result.rate_hz:g} frames/s{settings}")

    table = Table(
        title="Wall time of a frame, ms, one thread, as fast as it goes",
        title_justify="left",
    )
    for heading in ("stage", "frames", "p50", "p95", "p99", "max", "mean of all"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage, spread in fast.stages.items():
        if stage is Stage.PATH:
            table.add_section()
        table.add_row(
            stage.name.lower(), f"{100 * spread.share:.1f} %",
            *(f"{value:.3f}" for value in (spread.p50, spread.p95, spread.p99, spread.max, spread.mean)),
        )  # fmt: skip
    console.print(table)

    rows = Table.grid(padding=(0, 2))
    path = fast.stages[Stage.PATH]
    for name, text in (
        ("frames per second", f"{1000 / fast.wall_ms.median:.0f}, {fast.frames} frames in blocks of {BLOCK}"),
        ("CPU per frame", f"{_ms(fast.cpu_ms)}"),
        ("yardstick", f"{_ms(fast.yardstick_ms)}, MobileNet-V2 int8, 301 MMAC, same run"),
        ("frame / yardstick", f"[bold]{fast.multiple.median:.3f}[/]  ({_range(fast.multiple, 3)})"),
        ("p99 / p50", f"{path.p99 / path.p50:.2f}"),
        ("memory", f"{fast.rss_mb:.0f} MiB, {fast.rss_growth_mb:+.1f} MiB over {fast.frames - BLOCK} frames"),
        ("per frame", f"copies of the luma: {result.memory.copies_per_frame}; held for a moment: "
         f"{result.memory.usual_kb:.0f} KiB, at most {result.memory.largest_kb:.0f}; "
         f"kept: {result.memory.blocks_per_frame:+.3f} blocks"),
        ("at the camera's pace", f"{slow.frames} frames in {slow.seconds:g} s, {slow.dropped} dropped, "
         f"p50 {slow.frame_ms.p50:.2f}, p99 {slow.frame_ms.p99:.2f}, max {slow.frame_ms.max:.2f} ms; "
         f"CPU of all threads {slow.process_cpu_ms:.2f} ms per frame"),
        ("from start", f"{result.startup.imported_s:.2f} s imported, {result.startup.models_s:.2f} s models, "
         f"{result.startup.first_frame_s:.2f} s first frame, {_assessable(result.startup)}"),
    ):  # fmt: skip
        rows.add_row(name, text)
    if fast.peer is not None:
        peer = fast.peer
        rows.add_row(
            peer.name,
            f"CPU {_ms(peer.cpu_ms)}, wall {peer.wall_ms.median:.2f} ms per frame on the same frames, a face in "
            f"{100 * peer.found_share:.0f} %: [bold]{peer.times_ours.median:.1f}[/] times ours "
            f"({_range(peer.times_ours, 1)})",
        )
    console.print(rows)
    if fast.face_share < 0.95:
        console.print(
            f"A face was followed in {100 * fast.face_share:.0f} % of the frames; the others cost less than one with "
            "a face.",
            style="yellow",
        )
    console.print("Medians over blocks; in brackets the middle half of the blocks.", style="dim")


def _assessable(startup: Startup) -> str:
    if startup.assessable_s is None:
        return "no frame could be assessed"
    return f"{startup.assessable_s:.2f} s first assessable"


def _ms(figure: Quartiles) -> str:
    return f"{figure.median:.3f} ms ({_range(figure, 3)})"


def _range(figure: Quartiles, digits: int) -> str:
    return f"{figure.low:.{digits}f}-{figure.high:.{digits}f}"


def _points(spread: Spread) -> dict[str, float]:
    return {"p50": spread.p50, "p95": spread.p95, "p99": spread.p99, "max": spread.max}
