"""What the camera adds to a rendered frame: light, noise, compression; and where the tracker puts the crop."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.records import CROP_EYES_PX, CROP_IOD_PX, CROP_SIZE, LANDMARKS, TrackedFace

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Conditions:
    """One camera in one room."""

    iod_px: float
    """Size of the face on the sensor."""
    noise: float
    """Standard deviation at mid grey, grey levels; half of its variance is shot noise."""
    brightness: float
    contrast: float
    flicker: float
    """Amplitude of the mains beat, relative."""
    flicker_hz: float
    jpeg: int
    """Quality of the compression, 0 for none."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Conditions":
        """Draw what an indoor installation may look like."""
        return cls(
            iod_px=float(np.exp(rng.uniform(np.log(55), np.log(160)))),
            noise=float(rng.choice([1.0, 2.0, 3.0, 4.5, 7.0], p=[0.2, 0.3, 0.25, 0.17, 0.08])),
            brightness=float(rng.uniform(-25, 15)),
            contrast=float(rng.uniform(0.55, 1.1)),
            flicker=float(rng.choice([0.0, rng.uniform(0.002, 0.03)])),
            flicker_hz=float(rng.uniform(0.5, 60)),
            jpeg=int(rng.choice([0, 0, 0, rng.integers(60, 95)])),
        )


class Sensor:
    """Turns clean frames into what the sensor would have given. Deterministic by `rng`."""

    _TILE = 700

    def __init__(self, conditions: Conditions, rng: np.random.Generator) -> None:
        self._conditions, self._rng = conditions, rng
        self._noise = rng.standard_normal((self._TILE, self._TILE)).astype(np.float32) * conditions.noise

    def expose(self, clean: NDArray[np.uint8], light: float, time_s: float) -> NDArray[np.uint8]:
        """Give the noisy frame (rows, columns) uint8 for a clean one under `light` times the usual light."""
        c = self._conditions
        flicker = 1 + c.flicker * np.sin(2 * np.pi * c.flicker_hz * time_s)
        luma = clean.astype(np.float32) * np.float32(c.contrast * light * flicker) + np.float32(c.brightness)
        height, width = clean.shape
        top = int(self._rng.integers(0, max(self._TILE - height, 1)))
        left = int(self._rng.integers(0, max(self._TILE - width, 1)))
        tile = (
            self._noise[:height, :width]
            if height > self._TILE or width > self._TILE
            else self._noise[top : top + height, left : left + width]
        )
        if tile.shape != clean.shape:
            tile = cv2.resize(tile, (width, height), interpolation=cv2.INTER_NEAREST)
        strength = np.sqrt(np.maximum(luma, 0) * np.float32(0.5 / 128) + np.float32(0.5))
        noisy = np.clip(np.rint(luma + tile * strength), 0, 255).astype(np.uint8)
        if c.jpeg:
            _, coded = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, c.jpeg])
            noisy = cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE)
        return noisy


_STEADY = [
    LANDMARKS.index(name)
    for name in (
        "right_eye_outer",
        "right_eye_inner",
        "left_eye_inner",
        "left_eye_outer",
        "nose_bridge_top",
        "nose_base",
    )
]


class Alignment:
    """Stands in for the tracker where only signals are wanted: the true landmarks with the net's errors.

    Args:
        jitter_iod: standard deviation of a landmark's error from pass to pass.
        bias_iod: its constant part, which differs between people.
    """

    def __init__(
        self, rng: np.random.Generator, *, jitter_iod: float = 0.006, bias_iod: float = 0.012
    ) -> None:
        self._rng, self._jitter = rng, jitter_iod
        self._bias = rng.normal(0, bias_iod, (len(LANDMARKS), 2))
        self._state: NDArray[np.float64] | None = None
        self._speed = np.zeros(4)
        self._at_s = -1.0
        self._shape: NDArray[np.float64] | None = None
        self._crop = np.zeros((CROP_SIZE, CROP_SIZE), np.uint8)

    def align(self, frame: NDArray[np.uint8], landmarks: Floats, time_s: float) -> TrackedFace:
        """Give the face as the tracker would, for the true landmarks (56, 2) in the frame."""
        iod = float(np.linalg.norm(landmarks[_STEADY[0]] - landmarks[_STEADY[3]]))
        if self._state is None or time_s - self._at_s >= 0.0299:
            seen = landmarks + (self._bias + self._rng.normal(0, self._jitter, landmarks.shape)) * iod
            measured = self._fit(seen)
            if self._state is None:
                self._state = measured
            else:
                elapsed = time_s - self._at_s
                expected = self._state + self._speed * elapsed
                self._state = expected + 0.6 * (measured - expected)
                self._speed += 0.15 * (measured - expected) / elapsed
            self._at_s = time_s
        x, y, log_scale, roll = self._state + self._speed * (time_s - self._at_s)
        cosine, sine = np.exp(log_scale) * np.cos(roll), np.exp(log_scale) * np.sin(roll)
        matrix = np.array([[cosine, -sine, x], [sine, cosine, y]], np.float32)
        cv2.warpAffine(
            frame,
            matrix,
            (CROP_SIZE, CROP_SIZE),
            dst=self._crop,
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        placed = landmarks + self._bias * iod
        crop_points = (placed @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
        return TrackedFace(1, crop_points, matrix, self._crop, iod, 1.6 * iod, 1.0, 0)

    def _fit(self, seen: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give (x, y, log scale, roll) of the similarity that puts the steady points where the first pass had them."""
        steady = seen[_STEADY]
        if self._shape is None:
            axis = steady[3] - steady[0]
            scale = CROP_IOD_PX / np.hypot(*axis)
            angle = -np.arctan2(axis[1], axis[0])
            turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            self._shape = (steady - (steady[0] + steady[3]) / 2) @ turn.T + np.array(CROP_EYES_PX)
        mean, goal = steady.mean(axis=0), self._shape.mean(axis=0)
        a, b = steady - mean, self._shape - goal
        size = (a**2).sum()
        cosine, sine = (a * b).sum() / size, (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / size
        shift = goal - np.array([[cosine, -sine], [sine, cosine]]) @ mean
        return np.array([*shift, 0.5 * np.log(cosine**2 + sine**2), np.arctan2(sine, cosine)])
