"""What the camera adds to a rendered frame: light, noise, compression; and where the tracker puts the crop."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.records import CROP_EYES_PX, CROP_IOD_PX, CROP_SIZE, LANDMARKS, TrackedFace

Floats = NDArray[np.float32]

_LEVELS = np.arange(256, dtype=np.float32)
_NOISES = (1.0, 2.0, 3.0, 4.5, 7.0, 9.5, 12.0)
_NIGHT = 7.0
"""Noise from which on the room is dark: little contrast is left."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """One camera in one room."""

    iod_px: float
    """Size of the face on the sensor."""
    noise: float = 0.0
    """Standard deviation at mid grey, grey levels; half of its variance is shot noise."""
    grain_px: float = 0.0
    """Width to which the camera's own filter has spread the noise, 0 where every pixel has its own."""
    brightness: float = 0.0
    contrast: float = 1.0
    mains_hz: float = 0.0
    """Frequency at which the lamps flicker, twice the mains'; 0 for daylight."""
    mains_depth: float = 0.0
    """Amplitude of the lamps' light, relative."""
    line_us: float = 0.0
    """Time from row to row of a rolling shutter; 0 for a global one."""
    exposure_share: float = 0.4
    """Exposure as a share of the frame period."""
    crf: int = 0
    """Constant rate factor of the H.264 encoder; 0 for no compression."""
    preset: str = "veryfast"

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Conditions":
        """Draw what an indoor installation may look like."""
        noise = float(rng.choice(_NOISES, p=[0.18, 0.27, 0.22, 0.15, 0.10, 0.05, 0.03]))
        lit = rng.random() < 0.5
        return cls(
            iod_px=float(np.exp(rng.uniform(np.log(40), np.log(200)))),
            noise=noise,
            grain_px=float(rng.choice([0.0, rng.uniform(0.4, 0.9)], p=[0.7, 0.3])),
            # In the dark the camera lifts what little there is; noise keeps black from being black.
            brightness=float(rng.uniform(-5, 40) if noise >= _NIGHT else rng.uniform(-25, 15)),
            contrast=float(rng.uniform(0.3, 0.7) if noise >= _NIGHT else rng.uniform(0.55, 1.1)),
            mains_hz=float(rng.choice([100.0, 120.0]) * (1 + rng.normal(0, 3e-4))) * lit,
            mains_depth=float(np.exp(rng.uniform(np.log(0.005), np.log(0.25)))) * lit,
            line_us=float(rng.choice([0.0, rng.uniform(4, 20)])),
            exposure_share=float(rng.uniform(0.2, 1.0)),
            crf=int(rng.integers(18, 31)) if rng.random() < 0.3 else 0,
            preset=str(rng.choice(["ultrafast", "veryfast"])),
        )


class Sensor:
    """Turns clean frames into what the sensor would have given. Deterministic by `rng`.

    Args:
        rate_hz: frames a second; with the exposure's share it sets how much of a flicker is averaged out.
    """

    _SPARE = 64
    """The noise is one larger picture from which every frame takes another part."""

    def __init__(self, conditions: Conditions, rng: np.random.Generator, rate_hz: float = 200.0) -> None:
        self._conditions, self._rng = conditions, rng
        self._exposure_s = conditions.exposure_share / rate_hz
        self._noise = np.zeros((0, 0), np.float32)
        self._mean, self._spread = self._noise, self._noise
        self._phase = float(rng.uniform(0, 2 * np.pi))

    def expose(
        self, clean: NDArray[np.uint8], light: float, time_s: float, gain: float = 1.0
    ) -> NDArray[np.uint8]:
        """Give the noisy frame (rows, columns) uint8.

        Args:
            light: factor on the usual light.
            time_s: start of the first row's exposure.
            gain: factor on the usual noise.
        """
        c = self._conditions
        lamps = self._lamps(time_s, clean.shape[0])
        level = _LEVELS * np.float32(c.contrast * light * (1.0 if lamps.size > 1 else lamps[0, 0]))
        luma = level + np.float32(c.brightness)
        # The buffers are kept: fresh ones of this size cost more in page faults than what is computed in them.
        if self._mean.shape != clean.shape:
            self._mean, self._spread = np.empty(clean.shape, np.float32), np.empty(clean.shape, np.float32)
        mean, noise = self._mean, self._spread
        if lamps.size > 1:
            cv2.LUT(clean, level, mean)
            mean *= lamps
            mean += np.float32(c.brightness)
        else:
            cv2.LUT(clean, luma, mean)
        if c.noise == 0:
            return np.asarray(cv2.add(mean, 0.0, dtype=cv2.CV_8U), np.uint8)
        spread = np.sqrt(np.maximum(luma, 0) * np.float32(0.5 / 128) + np.float32(0.5)) * np.float32(gain)
        cv2.LUT(clean, spread, noise)
        cv2.multiply(self._grain(clean.shape), noise, noise)
        return np.asarray(cv2.add(mean, noise, dtype=cv2.CV_8U), np.uint8)  # rounds and saturates

    def _lamps(self, time_s: float, rows: int) -> Floats:
        """Give the lamps' light, integrated over each row's exposure: (rows, 1), or (1, 1) for a global shutter."""
        c = self._conditions
        if not c.mains_depth:
            return np.ones((1, 1), np.float32)
        start_s = time_s + c.line_us * 1e-6 * np.arange(rows if c.line_us else 1)
        middle = 2 * np.pi * c.mains_hz * (start_s + self._exposure_s / 2) + self._phase
        depth = c.mains_depth * np.sinc(c.mains_hz * self._exposure_s)
        return np.asarray(1 + depth * np.sin(middle), np.float32)[:, None]

    def _grain(self, shape: tuple[int, ...]) -> Floats:
        height, width = shape
        if self._noise.shape != (height + self._SPARE, width + self._SPARE):
            c = self._conditions
            noise = self._rng.standard_normal((height + self._SPARE, width + self._SPARE), np.float32)
            if c.grain_px:
                noise = cv2.GaussianBlur(noise, (0, 0), c.grain_px)
            self._noise = np.asarray(noise * np.float32(c.noise / noise.std()), np.float32)
        top, left = (int(value) for value in self._rng.integers(0, self._SPARE, 2))
        return self._noise[top : top + height, left : left + width]


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
