"""Small head motion of a person who sits still, and deliberate turns, as a backward map of the canvas."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.records import LANDMARKS

_COMPONENTS = 8
"""Sinusoids for each degree of freedom."""
_RMS = {"yaw": 2.0, "pitch": 1.2, "roll": 0.8, "across": 0.025, "down": 0.02, "scale": 0.006}
"""Size of the motion at strength 1: degrees, IOD and ratio. The speeds that result (2-5 degrees/s) are those
of listening people; evidence from video puts calm head rotation below 10 degrees/s."""


@dataclass(frozen=True, slots=True)
class HeadPose:
    """Head against rest. Angles in degrees; yaw to the subject's left and pitch up are positive."""

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    across: float = 0.0
    """IOD, to the right in the image."""
    down: float = 0.0
    """IOD."""
    scale: float = 0.0
    """Growth as a ratio; 0 is the size at rest."""


class HeadMotion:
    """Smooth motion, a sum of sinusoids of 0.05 to 1 Hz whose amplitude falls with frequency."""

    def __init__(self, strength: float, seed: int):
        random = np.random.default_rng([seed, 2])
        self._rates = np.exp(random.uniform(np.log(0.05), np.log(1.0), (len(_RMS), _COMPONENTS))) * 2 * np.pi
        self._phases = random.uniform(0, 2 * np.pi, (len(_RMS), _COMPONENTS))
        sizes = 1 / (self._rates / (2 * np.pi) + 0.1)
        sizes /= np.sqrt((sizes**2).sum(1, keepdims=True) / 2)
        self._sizes = sizes * np.array(list(_RMS.values()))[:, None] * strength
        self._start = self._values(0.0)

    def at(self, time_s: float, turn_deg: float = 0.0) -> HeadPose:
        """Give the pose; at time 0 the head is at rest. `turn_deg` is added to the yaw."""
        yaw, pitch, roll, across, down, scale = self._values(time_s) - self._start
        return HeadPose(yaw + turn_deg, pitch, roll, across, down, scale)

    def _values(self, time_s: float) -> NDArray[np.float64]:
        values: NDArray[np.float64] = (self._sizes * np.sin(self._rates * time_s + self._phases)).sum(1)
        return values


class HeadShape:
    """What part of the canvas is head, and how far it stands out.

    Depth is half an ellipsoid through temples and chin plus a nose; it only has to give a face-like parallax.
    """

    def __init__(self, landmarks: NDArray[np.float32], grid: NDArray[np.float64]):
        point = dict(zip(LANDMARKS, landmarks.astype(np.float64), strict=True))
        across = point["left_eye_outer"] - point["right_eye_outer"]
        self._iod_px = float(np.hypot(*across))
        across /= self._iod_px
        down = np.array([-across[1], across[0]])
        half_width = float(np.hypot(*(point["left_temple"] - point["right_temple"]))) / 2
        eyes = (point["left_eye_outer"] + point["right_eye_outer"]) / 2
        half_height = float((point["chin"] - eyes) @ down) * 1.12
        self.centre: NDArray[np.float64] = eyes + down * 0.12 * half_height
        offset = grid - self.centre
        x, y = offset @ across, offset @ down
        radius = np.sqrt((x / (1.08 * half_width)) ** 2 + (y / half_height) ** 2)
        depth = half_width * np.sqrt(np.clip(1 - (radius / 1.25) ** 2, 0, 1))
        nose = grid - point["nose_tip"]
        spread = (nose @ across / (0.14 * self._iod_px)) ** 2 + (nose @ down / (0.22 * self._iod_px)) ** 2
        self._depth = depth + 0.20 * self._iod_px * np.exp(-spread / 2)
        # Head and hair move as one; in the ring around them the background gives way softly.
        self._share = 1 - _smooth((radius - 1.25) / (head_reach() - 1.25))
        self._offset = offset
        self._moved_depth = (across, down)

    def source(self, pose: HeadPose) -> NDArray[np.float32]:
        """Give, for each grid point, by how many px to step to the canvas point that it shows."""
        across, down = self._moved_depth
        yaw, pitch, roll = np.radians([pose.yaw, pose.pitch, pose.roll])
        # Undo translation, roll and scale, then the foreshortening of yaw and pitch.
        local = self._offset - np.array([pose.across, pose.down]) * self._iod_px
        cos, sin = np.cos(roll) / (1 + pose.scale), np.sin(roll) / (1 + pose.scale)
        turned = local @ np.array([[cos, -sin], [sin, cos]])
        x, y = turned @ across, turned @ down
        # Orthographic rotation: seen = x cos(yaw) + depth sin(yaw), likewise for pitch (up is -y).
        x_rest = (x - self._depth * np.sin(yaw)) / np.cos(yaw)
        y_rest = (y + self._depth * np.sin(pitch)) / np.cos(pitch)
        rest = x_rest[..., None] * across + y_rest[..., None] * down
        return np.asarray((rest - self._offset) * self._share[..., None], np.float32)


def head_reach() -> float:
    """How far the moving region reaches, as a multiple of the face ellipse."""
    return 1.9


def _smooth(ratio: NDArray[np.float64]) -> NDArray[np.float64]:
    clipped = np.clip(ratio, 0, 1)
    smooth: NDArray[np.float64] = clipped * clipped * (3 - 2 * clipped)
    return smooth
