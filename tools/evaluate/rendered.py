"""Recordings that are rendered as they are watched: people that training never saw, with planted truth."""

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from edge.frames.script import HARD
from edge.frames.synthetic import SyntheticSource
from edge.records import Frame
from tools.evaluate.records import Truth
from tools.faces.photos import MESH_INDEX
from tools.simulate.clips import RenderedClip
from tools.simulate.codec import H264
from tools.simulate.people import People
from tools.simulate.people import add_arguments as add_people_arguments
from tools.simulate.script import Mix
from tools.simulate.sensor import Conditions

PEAK_MAX_IOD = 0.025
H264_CRF = 23
"""Constant rate factor of --h264: the encoder's default."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is rendered; the same plan gives the same frames."""

    photos: str
    labels: str
    model: str
    split: str
    renderer: str
    """`ict`: tools.simulate; `facs`: the device's own animator, which training never saw."""
    seconds: float
    peak_min_iod: float
    negatives: bool
    """Plant confusers only."""
    seed: int
    h264: bool
    """Send every frame through an H.264 encoder and back. Without it a share of the `ict` clips is compressed."""


class _Clip(Protocol):
    """What both renderers give."""

    rate_hz: float
    size: tuple[int, int]

    def frames(self) -> Iterator[Frame]: ...


@dataclass(frozen=True, slots=True)
class RenderedSource:
    """One clip; see tools.evaluate.records.Source."""

    name: str
    subject: str
    rate_hz: float
    truth: tuple[Truth, ...]
    clip: _Clip
    h264: bool

    def frames(self) -> Iterator[Frame]:
        """Render the frames, and compress them if the plan says so."""
        if not self.h264:
            yield from self.clip.frames()
            return
        codec = H264(self.clip.size, rate_hz=self.rate_hz, crf=H264_CRF, preset="veryfast")
        for frame in self.clip.frames():
            yield replace(frame, luma=codec.pass_through(frame.luma))


class RenderedSet:
    """Clips by name: `ict-007@200` is clip 7 at 200 frames/s. Clip 7 shows the same at every rate."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    @classmethod
    def of(cls, header: dict[str, Any]) -> "RenderedSet":
        """Make it from what `header` gave."""
        return cls(Plan(**header))

    def header(self) -> dict[str, Any]:
        """Give the plan as it is saved."""
        return asdict(self.plan)

    def names(self, clips: int, rates_hz: list[float]) -> list[str]:
        """Name the first clips at each rate, all rates of a clip together."""
        return [f"{self.plan.renderer}-{number:03d}@{rate:g}" for number in range(clips) for rate in rates_hz]

    @cached_property
    def _people(self) -> People:
        plan = self.plan
        people = People.read(Path(plan.photos), Path(plan.labels), Path(plan.model), plan.split)
        if not people.photos:
            raise ValueError(f"{plan.photos}: no usable photo of a person in the split `{plan.split}`")
        return people

    def source(self, name: str) -> RenderedSource:
        """Give the clip of this name."""
        number, rate_hz = int(name.split("-")[1].split("@", maxsplit=1)[0]), float(name.split("@")[1])
        plan = self.plan
        rng = np.random.default_rng([number, plan.seed])
        photo = int(rng.integers(len(self._people.photos)))
        seed = number * 1000 + plan.seed
        make = self._facs if plan.renderer == "facs" else self._ict
        clip, truth = make(photo, rate_hz, seed, rng)
        return RenderedSource(name, self._people.photos[photo].subject, rate_hz, truth, clip, plan.h264)

    def _ict(
        self, photo: int, rate_hz: float, seed: int, rng: np.random.Generator
    ) -> tuple[_Clip, tuple[Truth, ...]]:
        plan = self.plan
        mix = Mix(
            peak_iod=(plan.peak_min_iod, PEAK_MAX_IOD),
            micro=0.0 if plan.negatives else 0.4,
            gap_s=(0.4, 1.8),
        )
        conditions = Conditions.draw(rng)
        if plan.h264:
            conditions = replace(conditions, crf=0)  # the whole frame is compressed below, not twice
        clip = RenderedClip(
            self._people.rig(photo),
            seconds=plan.seconds,
            rate_hz=rate_hz,
            mix=mix,
            conditions=conditions,
            seed=seed,
        )
        truth = tuple(
            Truth(
                planted.kind,
                float(planted.onset_s),
                float(planted.apex_s),
                float(planted.offset_s),
                planted.emotion,
                tuple(planted.action_units),
                float(planted.peak_iod),
            )
            for planted in clip.truth
        )
        return clip, truth

    def _facs(
        self, photo: int, rate_hz: float, seed: int, rng: np.random.Generator
    ) -> tuple[_Clip, tuple[Truth, ...]]:
        plan, people = self.plan, self._people
        script = replace(HARD, micro_peak_iod=(plan.peak_min_iod, PEAK_MAX_IOD))
        if plan.negatives:
            script = replace(script, micro_per_min=0.0)
        luma = cv2.imread(str(people.photos[photo].path), cv2.IMREAD_GRAYSCALE)
        points = people.meshes[photo][list(MESH_INDEX)][:, :2].copy()
        source = SyntheticSource(
            np.asarray(luma), points, rate_hz=rate_hz, seconds=plan.seconds, seed=seed, script=script
        )
        truth = tuple(
            Truth(
                "head" if event.kind == "head turn" else event.kind,
                event.onset_s,
                event.apex_s,
                event.offset_s,
                event.emotion or "",
                tuple((unit.au, unit.side) for unit in event.action_units),
                event.peak_iod,
            )
            for event in source.truth
        )
        return _Synthetic(source), truth


class _Synthetic:
    """The device's synthetic source with the names that an encoder asks for."""

    def __init__(self, source: SyntheticSource) -> None:
        self.rate_hz, self.size, self.frames = source.nominal_rate_hz, source.size, source.frames


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a plan needs."""
    add_people_arguments(parser)
    parser.add_argument("--split", choices=("train", "validation", "test"), default="test")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of a clip")
    parser.add_argument(
        "--rate", type=float, nargs="+", default=[200.0], help="frames/s; several: each clip at each"
    )
    parser.add_argument("--peak-min", type=float, default=0.4, help="smallest planted peak, %% IOD")
    parser.add_argument("--negatives", action="store_true", help="plant confusers only")
    parser.add_argument(
        "--renderer", choices=("ict", "facs"), default="ict", help="facs: the device's own animator"
    )
    parser.add_argument("--h264", action="store_true", help="compress each clip first")
    parser.add_argument("--seed", type=int, default=9)


def plan_of(options: argparse.Namespace) -> Plan:
    """Read the plan from the command line."""
    return Plan(
        photos=str(options.photos.resolve()),
        labels=str(options.labels.resolve()),
        model=str(options.model.resolve()),
        split=options.split,
        renderer=options.renderer,
        seconds=options.seconds,
        peak_min_iod=options.peak_min / 100,
        negatives=options.negatives,
        seed=options.seed,
        h264=options.h264,
    )
