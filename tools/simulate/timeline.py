"""What a script is made of: planted events with their truth, and the curves that carry them out.

Curves are sampled every millisecond, whatever the camera's frame rate: the same seed gives the same events and
the same movement to a camera of 90 and to one of 200 frames a second.
"""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tools.simulate.rig import Pose, Rig

Floats = NDArray[np.float32]

CURVE_HZ = 1000


@dataclass(frozen=True, slots=True)
class Planted:
    """One thing that happens, with its truth."""

    kind: str
    """micro, or one of tools.simulate.confusers.CONFUSERS."""
    onset_s: float
    apex_s: float
    offset_s: float
    emotion: str = ""
    action_units: tuple[tuple[str, str], ...] = ()
    """(AU, right | left | both)."""
    peak_iod: float = 0.0


@dataclass(frozen=True, slots=True)
class Moment:
    """The state of face, room and camera at one instant."""

    weights: Floats
    """(55,) of the model's shapes."""
    pose: Pose
    gaze_iod: tuple[float, float]
    light: float
    """Factor on the luma."""
    gain: float
    """Factor on the noise: what the camera's own gain adds."""
    camera: tuple[float, float, float]
    """Shift x, y (IOD) and roll (rad) of the whole picture."""


class Script:
    """The curves of one clip, and what is planted in it.

    Attributes:
        times_s: (T,) every millisecond.
        weights: (T, 55); the arrays below have the fields of Moment as columns, and may be written to.
        poses: (T, 6) yaw, pitch, roll (rad), shift x, y (IOD), log scale.
        gaze_iod: (T, 2)
        light: (T,)
        gain: (T,)
        camera: (T, 3)
        planted: in order of onset once the script is finished.
    """

    def __init__(self, duration_s: float, shapes: int) -> None:
        self.duration_s = duration_s
        self.times_s = (np.arange(int(duration_s * CURVE_HZ) + 2) / CURVE_HZ).astype(np.float32)
        self.curves = np.zeros((len(self.times_s), shapes + 13), np.float32)
        ends = np.cumsum([0, shapes, 6, 2, 1, 1, 3])
        parts = [self.curves[:, start:end] for start, end in pairwise(ends)]
        self.weights, self.poses, self.gaze_iod, light, gain, self.camera = parts
        self.light, self.gain = light[:, 0], gain[:, 0]
        self.light += 1
        self.gain += 1
        self._ends = ends
        self.planted: list[Planted] = []

    def at(self, time_s: float) -> Moment:
        """Give the state at any time within the clip, interpolated."""
        position = min(max(time_s * CURVE_HZ, 0.0), len(self.times_s) - 1.001)
        index = int(position)
        row = self.curves[index] + np.float32(position - index) * (
            self.curves[index + 1] - self.curves[index]
        )
        shapes, pose, gaze, light, gain, _ = self._ends[1:]
        return Moment(
            row[:shapes],
            Pose.of(row[shapes:pose]),
            (float(row[pose]), float(row[pose + 1])),
            float(row[gaze]),
            float(row[light]),
            (float(row[gain]), float(row[gain + 1]), float(row[gain + 2])),
        )


@dataclass(frozen=True, slots=True)
class Scene:
    """What the writers of events work on: one person, one script, one source of chance."""

    rig: Rig
    rng: np.random.Generator
    script: Script
    index: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, rig: Rig, rng: np.random.Generator, duration_s: float) -> "Scene":
        """Start an empty scene."""
        return cls(
            rig,
            rng,
            Script(duration_s, len(rig.shapes)),
            {name: number for number, name in enumerate(rig.shapes)},
        )

    def shapes(self, amounts: dict[str, float], side: str = "both") -> Floats:
        """Give weights (55,) for shape names without their _L and _R."""
        weights = np.zeros(len(self.index), np.float32)
        for name, amount in amounts.items():
            add_shape(weights, self.index, name, side, amount)
        return weights

    def play(self, curve: Floats, weights: Floats) -> None:
        """Add `weights` (55,) along `curve` (T,)."""
        active, shapes = np.flatnonzero(curve), np.flatnonzero(weights)
        if len(active) and len(shapes):
            span = slice(active[0], active[-1] + 1)
            for shape in shapes:
                self.script.weights[span, shape] += curve[span] * weights[shape]

    def pulse(self, onset_s: float, apex_s: float, offset_s: float, hold: float = 0.0) -> Floats:
        """Give `profile` on the script's times."""
        return profile(self.script.times_s, onset_s, apex_s, offset_s, hold)

    def drift(self, period_s: float) -> Floats:
        """Give a smooth random curve (T,) of unit size that turns about once per `period_s`."""
        knots = int(self.script.duration_s / period_s) + 4
        heights = self.rng.standard_normal(knots)
        position = self.script.times_s / period_s + self.rng.random()
        whole = position.astype(int)
        part = position - whole
        smooth = part * part * (3 - 2 * part)
        after = heights[np.minimum(whole + 1, knots - 1)]
        return np.asarray(heights[whole] * (1 - smooth) + after * smooth, np.float32)

    def plant(self, kind: str, onset_s: float, apex_s: float, offset_s: float) -> float:
        """Note an event without emotion; give its end."""
        self.script.planted.append(Planted(kind, onset_s, apex_s, offset_s))
        return offset_s


def add_shape(weights: Floats, index: dict[str, int], name: str, side: str, amount: float) -> None:
    """Add `amount` to a shape on the given side; shapes without sides take all of it."""
    marks = {"right": ("_R",), "left": ("_L",), "both": ("_R", "_L")}[side]
    for full in [name] if name in index else [name + mark for mark in marks]:
        weights[index[full]] += amount


def profile(times_s: Floats, onset_s: float, apex_s: float, offset_s: float, hold: float = 0.0) -> Floats:
    """Give 0..1: a raised cosine up to the apex and one down to the offset.

    Args:
        hold: share of the time that is spent at the apex, taken half from each flank.
    """
    rise_end = apex_s - hold * (apex_s - onset_s)
    fall_start = apex_s + hold * (offset_s - apex_s)
    up = np.clip((times_s - onset_s) / max(rise_end - onset_s, 1e-3), 0, 1)
    down = np.clip((offset_s - times_s) / max(offset_s - fall_start, 1e-3), 0, 1)
    return np.asarray((0.5 - 0.5 * np.cos(np.pi * up)) * (0.5 - 0.5 * np.cos(np.pi * down)), np.float32)


def ease(times_s: Floats, at_s: float, duration_s: float) -> Floats:
    """Give 0 before `at_s`, 1 after `duration_s` more, smooth between."""
    share = np.clip((times_s - at_s) / duration_s, 0, 1)
    return np.asarray(share * share * (3 - 2 * share), np.float32)
