"""Run the device's pipeline over a set of recordings, on several cores, keeping what is done."""

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from edge.config import Config, load
from edge.inference.manifest import models_folder, read_manifest
from edge.inference.models import load_models
from edge.records import Frame
from tools.evaluate.matching import touches
from tools.evaluate.records import Answer, Recording, Refused, Run, Source, Stretch, watch


class RecordingSet(Protocol):
    """Recordings by name; made again from its header in each worker process."""

    def header(self) -> dict[str, Any]: ...

    def source(self, name: str) -> Source: ...


@dataclass(frozen=True, slots=True)
class Work:
    """How recordings are run."""

    kind: str
    """`rendered` or `dataset`."""
    header: dict[str, Any]
    """As the set gives it."""
    settings: tuple[str, ...]
    """section.key=value"""
    compare: bool
    """Let the classic spotter see the same frames."""

    def as_header(self) -> dict[str, Any]:
        """Give what a saved run says about itself: the set, the settings and the models."""
        config = load(None, self.settings)
        folder = Path(config.inference.models) if config.inference.models else None
        models = {
            name: {"sha256": passport.sha256, **getattr(passport, "calibration", {})}
            for name, passport in read_manifest(models_folder(folder)).items()
        }
        # As JSON gives it back, so that a header can be held against one that was read.
        plain: dict[str, Any] = json.loads(
            json.dumps(
                {
                    "kind": self.kind,
                    "of": self.header,
                    "set": self.settings,
                    "compare": self.compare,
                    "models": models,
                }
            )
        )
        return plain

    @classmethod
    def of(cls, header: dict[str, Any]) -> "Work":
        """Make it from the header of a saved run."""
        return cls(header["kind"], header["of"], tuple(header["set"]), header["compare"])

    @property
    def config(self) -> Config:
        """The device's configuration."""
        return load(None, self.settings)


def open_set(work: Work) -> RecordingSet:
    """Give the set that the header describes.

    Raises:
        ValueError, OSError: its files are not there or not what they should be.
    """
    if work.kind == "rendered":
        from tools.evaluate.rendered import RenderedSet

        return RenderedSet.of(work.header)
    from tools.evaluate.dataset import DatasetSet

    return DatasetSet.of(work.header)


def run(work: Work, names: Sequence[str], saved: Run, jobs: int = 1) -> list[Recording]:
    """Run what is not in `saved` yet; give the recordings of all `names` in their order."""
    done = {recording.name for recording in saved.recordings}
    waiting = [name for name in names if name not in done]
    began_s = time.monotonic()
    with_results = _results(work, waiting, jobs)
    for number, recordings in enumerate(with_results, 1):
        for recording in recordings:
            saved.add(recording)
        left_s = (time.monotonic() - began_s) / number * (len(waiting) - number)
        print(
            f"\r{len(names) - len(waiting) + number}/{len(names)} recordings, {left_s / 60:.1f} min left ",
            end="\n" if number == len(waiting) else "",
            file=sys.stderr,
            flush=True,
        )
    place = {name: number for number, name in enumerate(names)}
    wanted = [recording for recording in saved.recordings if recording.name in place]
    return sorted(wanted, key=lambda recording: (place[recording.name], recording.spotter != "device"))


def _results(work: Work, names: Sequence[str], jobs: int) -> Iterator[list[Recording]]:
    if jobs <= 1 or len(names) <= 1:
        recordings = open_set(work) if names else None
        for name in names:
            assert recordings is not None
            yield _watch(work, recordings.source(name))
        return
    # Each worker has one core: OpenCV and BLAS must not divide it further. They read this when first imported,
    # so the workers are started afresh instead of being copies of this process.
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(jobs, len(names)), initializer=_prepare, initargs=(work,)) as pool:
        yield from pool.imap_unordered(_watch_by_name, names, chunksize=1)


_worker: tuple[Work, RecordingSet] | None = None
"""Of a worker process: opened once, used for each recording."""


def _prepare(work: Work) -> None:
    global _worker  # noqa: PLW0603
    import cv2

    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends the pool
    _worker = work, open_set(work)


def _watch_by_name(name: str) -> list[Recording]:
    assert _worker is not None
    work, recordings = _worker
    return _watch(work, recordings.source(name))


def _watch(work: Work, source: Source) -> list[Recording]:
    """Run the device, and the classic spotter where asked, over one pass of the frames."""
    if not work.compare:
        return [watch(source.frames(), work.config, source.truth, source.name, source.subject)]
    # Here, because it needs scipy.signal, which takes longer to import than a short run takes.
    from tools.evaluate.classic import ClassicSpotter

    models = load_models(work.config)
    try:
        classic = ClassicSpotter(work.config, models, rate_hz=source.rate_hz)

        def shown_to_both() -> Iterator[Frame]:
            for frame in source.frames():
                classic.feed(frame)
                yield frame

        device = watch(shown_to_both(), work.config, source.truth, source.name, source.subject)
        return [device, as_gated(device, classic.finish())]
    finally:
        models.close()


def as_gated(device: Recording, answers: Iterable[Answer]) -> Recording:
    """Give the classic spotter's recording on the device's terms.

    It knows nothing of gaps and lost faces, so it is spared what the device is spared: answers that touch time
    which the device declared not assessable are turned down, and the same hours count for both.
    """
    kept: list[Answer] = []
    refused: list[Refused] = []
    for answer in answers:
        lost = _lost_in(answer, device.not_assessable)
        if lost is None:
            kept.append(answer)
        else:
            refused.append(Refused(answer, lost.reason))
    return replace(device, answers=tuple(kept), refused=tuple(refused), spotter="classic")


def _lost_in(answer: Answer, stretches: Iterable[Stretch]) -> Stretch | None:
    return next((s for s in stretches if touches(answer, s.start_s, s.end_s)), None)
