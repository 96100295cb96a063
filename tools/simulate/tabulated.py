"""Make training material for the spotter some eight times faster than by rendering every frame.

    python -m tools.simulate.tabulated --photos DIR --labels NPZ --model NPZ --split train --clips 4000 --out DIR

The same scripts, people, cameras and files as tools.simulate.signals. But the face is rendered only where its
state changes (tabulated_bench), noise is studied on a few dozen pictures and drawn from its statistics
(tabulated_noise), the tracker runs on the true landmarks alone, and the device's anchors and head-motion fit are
followed on displacements (tabulated_motion). `tools.simulate.compare` sets the two side by side.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.records import CROP_IOD_PX, LANDMARKS
from edge.regions import REGIONS
from tools.simulate import tabulated_motion
from tools.simulate.people import People, add_arguments
from tools.simulate.rig import Pose, Rig
from tools.simulate.script import Script
from tools.simulate.sensor import Alignment, Conditions
from tools.simulate.signals import VIEW_IOD, Take
from tools.simulate.tabulated_bench import Bench, parameters
from tools.simulate.tabulated_noise import CODED_S, study
from tools.simulate.timeline import CURVE_HZ

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_CLIPS_PER_RIG = 4
"""Fitting a face costs as much as half a clip."""
_PASS_S = 0.0299
"""Time after which tools.simulate.sensor.Alignment looks at the landmarks again."""
_MOMENTS = 3
"""Moments whose mean stands for an exposure."""
_NO_PICTURE = np.zeros((2, 2), np.uint8)


class Face:
    """A rig with what is computed once for it."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.neutral = np.zeros(len(rig.shapes), np.float32)
        self.sizes_iod = np.array([rig.size_of(row) for row in np.eye(len(rig.shapes), dtype=np.float32)])


@dataclass(frozen=True, slots=True)
class _States:
    """The script's curves as T frames see them: means over their exposures."""

    times_s: Doubles
    """(T,) start of exposure"""
    weights: Doubles
    """(T, 55)"""
    poses: Doubles
    """(T, 6)"""
    gaze_iod: Doubles
    """(T, 2)"""
    light: Doubles
    gain: Doubles
    camera: Doubles
    """(T, 3)"""

    @classmethod
    def of(cls, script: Script, times_s: Doubles, exposure_s: float) -> "_States":
        moments = times_s[:, None] + (np.arange(_MOMENTS) + 0.5) / _MOMENTS * exposure_s
        position = np.clip(moments * CURVE_HZ, 0, len(script.times_s) - 1.001)
        before = position.astype(int)
        share = position - before

        def mean(curve: Floats) -> Doubles:
            part = share if curve.ndim == 1 else share[:, :, None]
            return np.asarray((curve[before] + part * (curve[before + 1] - curve[before])).mean(axis=1))

        weights = np.zeros((len(times_s), script.weights.shape[1]))
        used = np.flatnonzero(script.weights.any(axis=0))
        weights[:, used] = mean(script.weights[:, used])
        curves = (script.poses, script.gaze_iod, script.light, script.gain, script.camera)
        return cls(times_s, weights, *(mean(curve) for curve in curves))


def measure(
    face: Face,
    script: Script,
    conditions: Conditions,
    rate_hz: float,
    lost: NDArray[np.bool_],
    rng: np.random.Generator,
) -> tuple[Doubles, Floats]:
    """Give what tools.simulate.signals.measure would, up to chance: times (T,) s and channels (T, C)."""
    rig = face.rig
    times = np.flatnonzero(~lost[: int(script.duration_s * rate_hz)]) / rate_hz
    exposure_s = conditions.exposure_share / rate_hz
    states = _States.of(script, times, exposure_s)
    turned = states.poses[:, :2]
    attitude = (float(np.median(turned[:, 0])), float(np.median(turned[:, 1])))
    side = int(VIEW_IOD * conditions.iod_px) // 2 * 2
    scale = conditions.iod_px / rig.iod_px
    first = script.at(0.0)
    corner = scale * rig.landmarks(first.weights, first.pose).mean(axis=0) - side / 2
    camera = np.array([[scale, 0, -corner[0]], [0, scale, -corner[1]]], np.float32)

    crops, target, bias = _track(face, states, camera, side, conditions, rng)
    bench = Bench(rig, conditions, camera, side, attitude, target, bias, face.sizes_iod)
    noise = study(bench, rig, conditions, rate_hz, attitude, rng)
    expression = bench.expressions(states.weights, states.gaze_iod)
    turn, upright = bench.attitudes(turned)
    misplaced, places = _misplacement(
        rig, camera, side, conditions, states, upright, crops, bench.anchor.rows
    )
    regions = len(REGIONS)
    face_px = (expression + turn)[:, : 2 * regions].reshape(-1, regions, 2) + noise.coded(times, rng)
    shift = noise.hold(face_px, rng) + (misplaced @ bench.anchor.rows[:, :4].T).reshape(face_px.shape)
    errors, grain, luma_error = noise.frames(len(times), rng)
    lamps, slant = _lamps(conditions, exposure_s, times, places[:, :, 1], rng)
    light = states.light * lamps.mean(axis=1)
    levels = np.linspace(light.min(), light.max() + 1e-6, 7)
    luma = np.interp(light, levels, [bench.luma(float(level)) for level in levels])
    surround = expression[:, -1] + turn[:, -1] + bench.luma_by_place(states.poses)
    surround += misplaced @ bench.luma_by_crop()
    gain = states.gain[:, None]
    seen = tabulated_motion.Seen(
        times_s=times,
        crop_from_image=crops,
        shift_px=shift + noise.sampling(places, rng),
        noise_px=errors * gain[:, :, None] + slant[:, :, None] * noise.slant_px,
        turned=turned,
        turn_residual=bench.turn_residual(),
        look=expression[:, 2 * regions : 3 * regions],
        grain=grain * gain**2,
        grain_cross=noise.grain_cross,
        coded_grain=noise.coded_grain,
        coded_s=CODED_S,
        light=states.light[:, None] * lamps,
        luma=luma + light * surround + luma_error,
    )
    values = tabulated_motion.measure(seen, noise.anchors, rng)
    return times[1:], values.astype(np.float32)


def _shaken(points: NDArray[np.complexfloating], states: _States, side: int, iod_px: float) -> Any:
    """Move sensor points, as complex numbers, with the camera's own shaking."""
    middle = side / 2 * (1 + 1j)
    x, y, roll = states.camera.T
    return middle + np.exp(1j * roll) * (points - middle) + (x + 1j * y) * iod_px


class _Sight:
    """The camera at one moment."""

    def __init__(self, rig: Rig, camera: Floats, states: _States, row: int, side: int, iod_px: float) -> None:
        self._rig, self._pose = rig, Pose.of(states.poses[row])
        x, y, roll = states.camera[row]
        turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
        middle = np.array([side / 2, side / 2])
        self._inner = turn @ camera[:, :2]
        self._shift = turn @ (camera[:, 2] - middle) + middle + np.array([x, y]) * iod_px

    def landmarks(self, weights: NDArray[np.floating]) -> Doubles:
        """Give the true landmarks (56, 2) px of the sensor."""
        points = self._rig.landmarks(weights.astype(np.float32), self._pose)
        return np.asarray(points @ self._inner.T + self._shift)


def _track(
    face: Face, states: _States, camera: Floats, side: int, conditions: Conditions, rng: np.random.Generator
) -> tuple[Doubles, Doubles, Doubles]:
    """Run the tracker on the true landmarks.

    Returns:
        The crops (T, 2, 3); where the neutral face's landmarks lie in the first (56, 2), and the tracker's
        constant error there (56, 2).
    """
    alignment, times = Alignment(rng), states.times_s
    target = bias = np.zeros((len(LANDMARKS), 2))
    found = np.empty((len(times), 4))
    row = 0
    while row < len(times):
        see = _Sight(face.rig, camera, states, row, side, conditions.iod_px)
        seen = see.landmarks(states.weights[row])
        tracked = alignment.align(_NO_PICTURE, seen, float(times[row]))
        if row == 0:
            matrix = tracked.crop_from_image.astype(float)
            target = see.landmarks(face.neutral) @ matrix[:, :2].T + matrix[:, 2]
            bias = tracked.landmarks - (seen @ matrix[:, :2].T + matrix[:, 2])
        # The tracker has looked at `row` and goes on at an even speed until it looks again.
        following = max(int(np.searchsorted(times, times[row] + _PASS_S)), row + 1)
        elapsed = times[row:following, None] - times[row]
        found[row:following] = alignment._state + elapsed * alignment._speed
        row = following
    x, y, log_scale, roll = found.T
    cosine, sine = np.exp(log_scale) * np.cos(roll), np.exp(log_scale) * np.sin(roll)
    return np.stack([cosine, -sine, x, sine, cosine, y], axis=1).reshape(-1, 2, 3), target, bias


def _misplacement(
    rig: Rig,
    camera: Floats,
    side: int,
    conditions: Conditions,
    states: _States,
    upright: Doubles,
    crops: Doubles,
    rows: Doubles,
) -> tuple[Doubles, Doubles]:
    """Compare the tracker's crops with those that follow the head without error.

    Args:
        upright: (T, 4) of Bench.attitudes: crops for the same yaw and pitch at no roll, shift or scale.
        rows: (2 R, 6) of an anchor.

    Returns:
        (T, 4) shift x, y (IOD), scale and roll that a head at rest seems to have in the tracker's crop, and
        where the windows lie on the sensor (T, R, 2) px.
    """
    # Similarities as complex numbers: crop = middle + exp(turn) * (sensor - place).
    turn, place = upright[:, 0] + 1j * upright[:, 1], upright[:, 2] + 1j * upright[:, 3]
    tracked = parameters(crops)
    turn_now, place_now = tracked[:, 0] + 1j * tracked[:, 1], tracked[:, 2] + 1j * tracked[:, 3]
    axis = complex(*(camera[:, :2] @ _axis(rig) + camera[:, 2]))
    rolled = np.exp(states.poses[:, 5] + 1j * states.poses[:, 2])
    shifted = conditions.iod_px * (states.poses[:, 3] + 1j * states.poses[:, 4])
    seen = _shaken(axis + shifted + rolled * (place - axis), states, side, conditions.iod_px)
    gain = rolled * np.exp(1j * states.camera[:, 2] + turn_now - turn)
    shift = np.exp(turn_now) * (seen - place_now) / CROP_IOD_PX
    at = rows[0::2, 2] - 1j * rows[0::2, 3]
    places = place_now[:, None] + np.exp(-turn_now)[:, None] * at
    return (
        np.stack([shift.real, shift.imag, gain.real - 1, gain.imag], axis=1),
        np.stack([places.real, places.imag], axis=2),
    )


def _lamps(
    conditions: Conditions, exposure_s: float, times_s: Doubles, rows_px: Doubles, rng: np.random.Generator
) -> tuple[Doubles, Doubles]:
    """Give the lamps' light on each region (T, R), and its relative change from row to row of the sensor (T, R)."""
    c = conditions
    depth = c.mains_depth * np.sinc(c.mains_hz * exposure_s)
    late_s = times_s[:, None] + c.line_us * 1e-6 * rows_px + exposure_s / 2
    phase = 2 * np.pi * c.mains_hz * late_s + rng.uniform(0, 2 * np.pi)
    slope = depth * np.cos(phase) * 2 * np.pi * c.mains_hz * c.line_us * 1e-6
    light = 1 + depth * np.sin(phase)
    return light, slope / light


def _axis(rig: Rig) -> Doubles:
    """Give the point (2,) px of the photo about which the head rolls."""
    neutral = np.zeros(len(rig.shapes), np.float32)
    angle = 0.5
    before, after = (rig.landmarks(neutral, Pose(roll=roll)).mean(axis=0) for roll in (0.0, angle))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.asarray(np.linalg.solve(np.eye(2) - turn, after - turn @ before))


def main() -> None:
    """Write `clip_<number>.npz` files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--split", choices=("train", "validation", "test"), default="train")
    parser.add_argument("--clips", type=int, default=4000)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--first", type=int, default=10000, help="number of the first clip")
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    cv2.setNumThreads(1)  # the work is shared by --part
    people = People.read(options.photos, options.labels, options.model, options.split)
    options.out.mkdir(parents=True, exist_ok=True)
    part, parts = map(int, options.part.split("/"))
    for group in range(part, -(-options.clips // _CLIPS_PER_RIG), parts):
        face = None
        photo = int(np.random.default_rng([group, len(options.split), 1]).integers(len(people.photos)))
        for one in range(group * _CLIPS_PER_RIG, min((group + 1) * _CLIPS_PER_RIG, options.clips)):
            number = options.first + one
            path = options.out / f"clip_{number:05d}.npz"
            if path.exists():
                continue
            face = face or Face(people.rig(photo))
            rng = np.random.default_rng([number, len(options.split)])
            take = Take.draw(face.rig, number, options.seconds, rng)
            times, values = measure(face, take.script, take.conditions, take.rate_hz, take.lost, rng)
            take.store(path, times, values, people.photos[photo].subject)


if __name__ == "__main__":
    main()
