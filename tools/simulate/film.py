"""Film a script: the frames that a camera of given conditions takes of it."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.simulate.codec import H264
from tools.simulate.rig import Rig
from tools.simulate.sensor import Conditions, Sensor
from tools.simulate.timeline import Floats, Moment, Script

_HEAD_IOD = 3.3
"""Side of the square that is rendered; beyond it the photo stands still."""
_BLUR_PX = 0.3
"""Motion within one exposure from which on it is rendered as blur..."""
_BLUR_STEP_PX = 0.8
"""...as the mean of sub-poses that are this far apart, of which there are at most..."""
_SUB_POSES = 6


@dataclass(frozen=True, slots=True)
class Shot:
    """One frame with what only the simulator knows."""

    number: int
    time_s: float
    """Start of exposure."""
    luma: NDArray[np.uint8]
    landmarks: Floats
    """(56, 2) px of the frame, mean over the exposure."""


class Film:
    """One script before one camera.

    Args:
        size: (width, height) of the frames, even; the face's first position is their middle.
        rng: chance of the sensor's noise.
    """

    def __init__(
        self,
        rig: Rig,
        script: Script,
        conditions: Conditions,
        *,
        rate_hz: float,
        size: tuple[int, int],
        rng: np.random.Generator,
    ) -> None:
        self._rig, self._script, self._conditions = rig, script, conditions
        self._rate_hz, self._size = rate_hz, size
        self._sensor = Sensor(conditions, rng, rate_hz)
        self.frames = int(script.duration_s * rate_hz)
        """Count of frames in the clip."""
        scale = conditions.iod_px / rig.iod_px
        first = script.at(0.0)
        corner = scale * rig.landmarks(first.weights, first.pose).mean(axis=0) - np.array(size) / 2
        self._camera = np.array([[scale, 0, -corner[0]], [0, scale, -corner[1]]], np.float32)
        width, height = (min(side, int(_HEAD_IOD * conditions.iod_px) // 2 * 2) for side in size)
        left, top = (size[0] - width) // 2, (size[1] - height) // 2
        self._box = np.s_[top : top + height, left : left + width]
        self._corner = np.array([left, top], np.float32)
        self._box_size = (width, height)
        self._still: tuple[Floats, NDArray[np.uint8]] | None = None
        self._codec = (
            H264(self._box_size, rate_hz=rate_hz, crf=conditions.crf, preset=conditions.preset)
            if conditions.crf
            else None
        )

    def shots(self, lost: NDArray[np.bool_] | None = None) -> Iterator[Shot]:
        """Yield the frames in order; the same seed gives the same ones.

        Args:
            lost: (frames,) true for those that the camera drops.
        """
        views = [self._view(self._middle_s(number)) for number in (-1, 0)]
        for number in range(self.frames):
            views = [*views[-2:], self._view(self._middle_s(number + 1))]
            if lost is not None and lost[number]:
                continue
            time_s = number / self._rate_hz
            clean, landmarks = self._exposed(time_s, *views)
            moment = views[1].moment
            luma = self._sensor.expose(clean, moment.light, time_s, moment.gain)
            if self._codec is not None:
                luma[self._box] = self._codec.pass_through(luma[self._box])
            yield Shot(number, time_s, luma, landmarks)

    def _middle_s(self, number: int) -> float:
        return (number + self._conditions.exposure_share / 2) / self._rate_hz

    def _exposed(
        self, time_s: float, before: "_View", now: "_View", after: "_View"
    ) -> tuple[NDArray[np.uint8], Floats]:
        """Give the clean frame over one exposure that starts at `time_s`, and its landmarks in px of the frame.

        The motion within the exposure is taken from the frame before to the one after.
        """
        moved_px = max(float(np.abs(view.landmarks - now.landmarks).max()) for view in (before, after))
        blur_px = moved_px * self._conditions.exposure_share
        if blur_px < _BLUR_PX:
            return self._render(now), now.landmarks
        count = min(1 + int(np.ceil(blur_px / _BLUR_STEP_PX)), _SUB_POSES)
        total = np.zeros(self._size[::-1], np.float32)
        landmarks = np.zeros_like(now.landmarks)
        for number in range(count):
            share = (number + 0.5) / count * self._conditions.exposure_share
            view = self._view(time_s + share / self._rate_hz)
            cv2.accumulate(self._render(view), total)
            landmarks += view.landmarks / count
        return np.rint(total / count).astype(np.uint8), landmarks

    def _view(self, time_s: float) -> "_View":
        moment = self._script.at(time_s)
        camera = self._shaken(moment)
        points = self._rig.landmarks(moment.weights, moment.pose)
        return _View(moment, camera, (points @ camera[:, :2].T + camera[:, 2]).astype(np.float32))

    def _shaken(self, moment: Moment) -> Floats:
        """Give photo px to frame px at one moment, the camera's own movement included."""
        x, y, roll = moment.camera
        if not (x or y or roll):
            return self._camera
        cosine, sine = np.cos(roll), np.sin(roll)
        turn = np.array([[cosine, -sine], [sine, cosine]])
        middle = np.array(self._size) / 2
        shift = turn @ (self._camera[:, 2] - middle) + middle + np.array([x, y]) * self._conditions.iod_px
        return np.column_stack([turn @ self._camera[:, :2], shift]).astype(np.float32)

    def _render(self, view: "_View") -> NDArray[np.uint8]:
        moment, inner = view.moment, view.camera.copy()
        inner[:, 2] -= self._corner
        face = self._rig.render(
            moment.weights,
            moment.pose,
            moment.gaze_iod,
            inner,
            self._box_size,
        )
        if self._box_size == self._size:
            return face
        if self._still is None or not np.array_equal(self._still[0], view.camera):
            self._still = (view.camera, self._rig.backdrop(view.camera, self._size))
        frame = self._still[1].copy()
        frame[self._box] = face
        return frame


@dataclass(frozen=True, slots=True)
class _View:
    """One instant before the camera."""

    moment: Moment
    camera: Floats
    """(2, 3) photo px to frame px."""
    landmarks: Floats
    """(56, 2) px of the frame."""
