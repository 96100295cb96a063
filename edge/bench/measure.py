"""Measure the device's own path: as fast as it can beside the yardstick, at the camera's pace, and what it keeps."""

import gc
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.app import App
from edge.bench.machine import resident_mb
from edge.bench.peer import FaceMesh
from edge.bench.yardstick import load_yardstick
from edge.commands import ATTEND_S
from edge.config import Config
from edge.errors import EdgeError
from edge.frame_queue import FrameQueue
from edge.frames import FrameSource
from edge.frames.paced import PacedSource
from edge.inference.models import load_models
from edge.pipeline import Pipeline
from edge.records import Frame
from edge.stages import Spread, Stage, spreads

BLOCK = 200
"""Frames of a block: one second at 200 Hz, so that each holds the same share of landmark passes."""
_YARDSTICKS = 20
_PEER_FRAMES = 40
_WARM_UP = 300
"""Frames before anything is measured: the face is found, and the person's baseline has begun."""
_SETTLED_S, _SETTLED_MAX, _TRACED = 7.5, 1500, 200
"""Media time, and frames at most, until all bounded histories are full, and frames watched from then on."""


@dataclass(frozen=True, slots=True)
class Quartiles:
    """A figure of several blocks: its median, and where the middle half of the blocks lies."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Quartiles":
        low, median, high = np.percentile(values, (25, 50, 75)).tolist()
        return cls(median, low, high)


@dataclass(frozen=True, slots=True)
class Unpaced:
    """Frames one after the other in one thread, in blocks that take turns with the yardstick."""

    frames: int
    engine: str
    stages: dict[Stage, Spread]
    """Wall time."""
    cpu_ms: Quartiles
    """CPU time per frame: what else the machine does hardly shows."""
    wall_ms: Quartiles
    yardstick_ms: Quartiles
    """CPU time of one inference of `edge.bench.yardstick`."""
    multiple: Quartiles
    """CPU time per frame in yardsticks, block by block."""
    peer: "Peer | None"
    rss_mb: float
    rss_growth_mb: float
    """From the end of the first block to the end of the last."""
    events: int
    face_share: float
    """Of the frames, those in which a face was followed."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Another tool on the same frames, in the same run."""

    name: str
    cpu_ms: Quartiles
    wall_ms: Quartiles
    times_ours: Quartiles
    """Its CPU time per frame over ours, block by block."""
    found_share: float
    """Of the frames, those in which it saw a face."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a frame leaves behind and needs for a moment."""

    blocks_per_frame: float
    """Memory blocks that Python holds more after a frame than before, mean over 7.5 s of frames; 0 if nothing grows."""
    usual_kb: float
    """Most that a frame's work held at once, KiB, its luma not counted: the median frame,"""
    largest_kb: float
    """and the largest of 200, one that renews its anchor or looks for other faces."""
    copies_per_frame: int
    """Of the whole frame, from the source's buffer to the crop."""


@dataclass(frozen=True, slots=True)
class Paced:
    """The whole device, with its threads, at the camera's pace; no broker and no LEDs."""

    rate_hz: float
    seconds: float
    frames: int
    dropped: int
    frame_ms: Spread
    """Of the last 2,000 frames."""
    process_cpu_ms: float
    """CPU time of the process per frame, all threads: reading, waiting and health included."""


def unpaced(
    config: Config, looped: FrameSource, *, repeats: int, peer: FaceMesh | None, progress: Callable[[], None]
) -> Unpaced:
    """Run blocks of frames, each followed by the yardstick and, where given, by the peer on the same frames."""
    cv2.setNumThreads(1)
    models = load_models(config)
    yardstick = load_yardstick()
    picture = np.random.default_rng(0).integers(-128, 128, yardstick.input.shape, np.int8)
    pipeline = Pipeline(config, models, clock_ns=time.perf_counter_ns)
    frames = _copied(looped.frames())
    events = sum(len(pipeline.feed(frame)) for frame in islice(frames, _WARM_UP))
    times: list[NDArray[np.float64]] = []
    cpu_ms: list[float] = []
    wall_ms: list[float] = []
    yardstick_ms: list[float] = []
    peer_ms: list[tuple[float, float]] = []
    rss_first = 0.0
    faces = 0
    try:
        for number in range(repeats):
            cpu_s, wall_s = time.process_time(), time.perf_counter()
            for frame in islice(frames, BLOCK):
                events += len(pipeline.feed(frame))
                faces += pipeline.face is not None
            cpu_ms.append((time.process_time() - cpu_s) * 1000 / BLOCK)
            wall_ms.append((time.perf_counter() - wall_s) * 1000 / BLOCK)
            times.append(pipeline.stopwatch.times_ms(BLOCK))
            cpu_s = time.process_time()
            for _ in range(_YARDSTICKS):
                yardstick.run(picture)
            yardstick_ms.append((time.process_time() - cpu_s) * 1000 / _YARDSTICKS)
            if peer is not None:
                shown = [frame.luma for frame in islice(looped.frames(), _PEER_FRAMES)]
                peer_ms.append(peer.run(shown))
            if number == 0:
                rss_first = resident_mb()
            progress()
        rss = resident_mb()
    finally:
        pipeline.close()
        yardstick.close()
    return Unpaced(
        frames=repeats * BLOCK,
        engine=models.landmark.engine,
        stages=spreads(np.concatenate(times)),
        cpu_ms=Quartiles.of(cpu_ms),
        wall_ms=Quartiles.of(wall_ms),
        yardstick_ms=Quartiles.of(yardstick_ms),
        multiple=Quartiles.of([ours / unit for ours, unit in zip(cpu_ms, yardstick_ms, strict=True)]),
        peer=_peer(peer, peer_ms, cpu_ms) if peer is not None else None,
        rss_mb=rss,
        rss_growth_mb=rss - rss_first,
        events=events,
        face_share=faces / (repeats * BLOCK),
    )


def _peer(peer: FaceMesh, peer_ms: Sequence[tuple[float, float]], cpu_ms: Sequence[float]) -> Peer:
    return Peer(
        peer.name,
        Quartiles.of([cpu for cpu, _ in peer_ms]),
        Quartiles.of([wall for _, wall in peer_ms]),
        Quartiles.of([cpu / ours for (cpu, _), ours in zip(peer_ms, cpu_ms, strict=True)]),
        peer.found / peer.seen,
    )


def _copied(frames: Iterator[Frame]) -> Iterator[Frame]:
    """Copy each frame once into the same buffer, as the device's reader copies it out of the camera's."""
    buffer: NDArray[np.uint8] | None = None
    for frame in frames:
        if buffer is None:
            buffer = np.empty_like(frame.luma)
        np.copyto(buffer, frame.luma)
        yield Frame(buffer, frame.timestamp_ns, frame.sequence)


def memory(config: Config, looped: FrameSource) -> Memory:
    """Watch a pipeline's allocations; not timed, because watching slows it down several times."""
    pipeline = Pipeline(config, load_models(config))
    peaks: list[int] = []
    try:
        frames = looped.frames()
        settled = min(round(_SETTLED_S * looped.nominal_rate_hz), _SETTLED_MAX)
        for frame in islice(frames, settled):
            pipeline.feed(frame)
        # What only the next collection would free is not kept.
        gc.collect()
        before = sys.getallocatedblocks()
        for frame in islice(frames, settled):
            pipeline.feed(frame)
        gc.collect()
        blocks = sys.getallocatedblocks() - before
        tracemalloc.start()
        for frame in islice(frames, _TRACED):
            held, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            pipeline.feed(frame)
            peaks.append(tracemalloc.get_traced_memory()[1] - held)
    finally:
        tracemalloc.stop()
        pipeline.close()
    usual = statistics.median(peaks)
    return Memory(blocks / settled, usual / 1024, max(peaks) / 1024, _copies(looped, usual))


def _copies(looped: FrameSource, held_bytes: float) -> int:
    """Count copies of a whole frame: in the queue between source and path, and as memory that the path took."""
    queue = FrameQueue(2, drops_oldest=True)
    given = next(looped.frames())
    queue.put(given)
    taken = queue.get()
    is_copied = taken is None or not np.shares_memory(given.luma, taken.luma)
    return int(is_copied) + int(held_bytes) // given.luma.nbytes


def paced(config: Config, looped: FrameSource, *, seconds: float, progress: Callable[[float], None]) -> Paced:
    """Run the whole device for so long.

    Raises:
        EdgeError: it did not start, or ended before its time.
    """
    with App(config, lambda: PacedSource(looped), is_live=True) as app:
        start_s, cpu_s = time.monotonic(), time.process_time()
        while app.is_running and (elapsed_s := time.monotonic() - start_s) < seconds:
            app.attend()
            time.sleep(ATTEND_S)
            progress(elapsed_s)
        cpu_s = time.process_time() - cpu_s
        statistic, stages = app.statistics, app.stages
    if app.failure:
        raise EdgeError(app.failure)
    if Stage.PATH not in stages:
        raise EdgeError(f"--seconds {seconds:g}: no frame went through in this time")
    return Paced(
        rate_hz=looped.nominal_rate_hz,
        seconds=seconds,
        frames=statistic.frames,
        dropped=statistic.dropped,
        frame_ms=stages[Stage.PATH],
        process_cpu_ms=1000 * cpu_s / statistic.frames,
    )
