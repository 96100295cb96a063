"""Steady a measured head pose: still when the head is still, without lag when it moves, predicted in between.

An alpha-beta filter (position and velocity) whose gains follow the recent innovation. Landmarks from an int8
net tremble by a few tenths of a pixel; a crop that trembles with them would look like facial motion. A head
that sets off makes innovations of one sign, their running mean rises above the tremble, and the gains open
within a few passes.

Source: Kalata 1984, the tracking index (alpha-beta filter); Casiez et al. 2012, 1 Euro filter (gain by
speed).
"""

import math

import numpy as np
from numpy.typing import NDArray

from edge.records import CROP_EYES_PX, CROP_IOD_PX

_RADIUS_PX = 32.0
"""Mean distance of facial points from the eyes' midpoint, aligned px: what a change of scale or roll moves
them."""
_STILL_PX, _MOVING_PX = 0.35, 1.6
"""Running mean of the innovation below which the head counts as still, and above which as moving, aligned px.
An int8 pass of a still face with sensor noise stays below the first."""
_SUDDEN_PX = 4.0
"""A single innovation beyond this opens the gains at once."""
_ALPHA = (0.05, 0.7)
_BETA = (0.002, 0.3)
"""Gains for a still and a moving head."""
_CREEP_PX_S = 2.0
"""Velocity below which nothing is predicted, aligned px/s."""
_CALM_PX_S = 8.0
"""Velocity below which a head is coming to rest, aligned px/s."""
_BRISK_PX_S = 80.0
"""Velocity at which the gains are held half open, aligned px/s."""
_LONGEST_PREDICTION_S = 0.12


class SteadyPose:
    """The pose of one head over time. Poses are those of `edge.face.shape.fit_pose`."""

    def __init__(self, pose: NDArray[np.float64], time_s: float) -> None:
        """Begin with a measured pose and no motion."""
        self._pose = [float(value) for value in pose]
        self._velocity = [0.0, 0.0, 0.0, 0.0]
        self._innovation = [0.0, 0.0, 0.0, 0.0]
        self._time_s = time_s
        self._measured = 0

    def at(self, time_s: float) -> list[float]:
        """Give the pose expected at a time not before the last measurement: x, y, ln IOD, roll."""
        ahead = min(time_s - self._time_s, _LONGEST_PREDICTION_S)
        if ahead <= 0 or self._speed() < _CREEP_PX_S:
            return list(self._pose)
        return [place + ahead * rate for place, rate in zip(self._pose, self._velocity, strict=True)]

    def measure(self, pose: NDArray[np.float64], time_s: float) -> None:
        """Take in a measured pose."""
        since = max(1e-3, min(time_s - self._time_s, _LONGEST_PREDICTION_S))
        expected = self.at(time_s)
        away = [float(pose[i]) - expected[i] for i in range(4)]
        away[3] = math.remainder(away[3], math.tau)
        units = self._units()
        self._innovation = [
            0.65 * m + 0.35 * a * u for m, a, u in zip(self._innovation, away, units, strict=True)
        ]
        lasting = math.hypot(*self._innovation)
        at_once = math.hypot(*(a * u for a, u in zip(away, units, strict=True)))
        speed = self._speed()
        openness = max(
            0.0,
            min(1.0, (lasting - _STILL_PX) / (_MOVING_PX - _STILL_PX)),
            min(1.0, at_once / _SUDDEN_PX - 1),
            min(0.5, speed / _BRISK_PX_S - 0.1),
        )
        self._measured += 1
        # The first passes count alike, as in any estimate that has just begun: the detection was a rough guess.
        alpha = max(_ALPHA[0] + openness * (_ALPHA[1] - _ALPHA[0]), 1 / (self._measured + 1))
        beta = _BETA[0] + openness * (_BETA[1] - _BETA[0])
        # What was motion a moment ago dies away once the head stands still; a lasting motion is not slowed down.
        keep = 1.0 if speed > _CALM_PX_S else 0.85 + 0.15 * openness
        self._pose = [e + alpha * a for e, a in zip(expected, away, strict=True)]
        self._velocity = [keep * v + beta * a / since for v, a in zip(self._velocity, away, strict=True)]
        self._time_s = time_s

    def coast(self, time_s: float) -> None:
        """Note that a measurement failed: hold the expected pose and slow down."""
        self._pose = self.at(time_s)
        self._velocity = [0.5 * v for v in self._velocity]
        self._time_s = time_s

    def _speed(self) -> float:
        """Give how fast facial points move by the pose, aligned px/s."""
        return math.hypot(*(rate * unit for rate, unit in zip(self._velocity, self._units(), strict=True)))

    def _units(self) -> tuple[float, float, float, float]:
        """Give what one unit of each component moves in the aligned crop, px."""
        scale = CROP_IOD_PX / math.exp(self._pose[2])
        return scale, scale, _RADIUS_PX, _RADIUS_PX


def crop_from_image(pose: list[float]) -> NDArray[np.float64]:
    """Give the (2, 3) similarity from image px to the aligned crop of `edge.records` for a head pose."""
    x, y, log_iod, roll = pose
    scale = CROP_IOD_PX / math.exp(log_iod)
    along, across = scale * math.cos(roll), scale * math.sin(roll)
    shift_x = CROP_EYES_PX[0] - along * x - across * y
    shift_y = CROP_EYES_PX[1] + across * x - along * y
    return np.array([[along, across, shift_x], [-across, along, shift_y]])
