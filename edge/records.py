"""The frozen values that pass between stages. Units and axes are defined here, once.

Time is *media time*: nanoseconds since the first frame of the stream, taken from the sensor or the
container, never from a clock in a stage. Images are (row, column) uint8 luma. Points are (N, 2) float32,
x right, y down, pixels of the named frame of reference. *Right* and *left* are the subject's own.
IOD is the inter-ocular distance, outer eye corner to outer eye corner.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

CROP_SIZE = 128
"""Side of the square aligned face crop, px."""

CROP_IOD_PX = 64.0
"""Inter-ocular distance inside the aligned crop, px: 1 % IOD is 0.64 px."""

CROP_EYES_PX = (64.0, 44.0)
"""Where the midpoint of the outer eye corners lies in the aligned crop, (x, y) px."""

EMOTIONS = ("happiness", "sadness", "anger", "fear", "disgust", "surprise", "contempt")
"""The seven emotion words, in the order of every probability vector."""


LANDMARKS = (
    "right_brow_outer",
    "right_brow_outer_mid",
    "right_brow_mid",
    "right_brow_inner_mid",
    "right_brow_inner",
    "left_brow_inner",
    "left_brow_inner_mid",
    "left_brow_mid",
    "left_brow_outer_mid",
    "left_brow_outer",
    "nose_bridge_top",
    "nose_bridge_upper",
    "nose_bridge_lower",
    "nose_tip",
    "right_nose_wing",
    "right_nostril",
    "nose_base",
    "left_nostril",
    "left_nose_wing",
    "right_eye_outer",
    "right_eye_upper_outer",
    "right_eye_upper_inner",
    "right_eye_inner",
    "right_eye_lower_inner",
    "right_eye_lower_outer",
    "left_eye_inner",
    "left_eye_upper_inner",
    "left_eye_upper_outer",
    "left_eye_outer",
    "left_eye_lower_outer",
    "left_eye_lower_inner",
    "mouth_right",
    "upper_lip_right_outer",
    "upper_lip_right",
    "upper_lip_top",
    "upper_lip_left",
    "upper_lip_left_outer",
    "mouth_left",
    "lower_lip_left_outer",
    "lower_lip_left",
    "lower_lip_bottom",
    "lower_lip_right",
    "lower_lip_right_outer",
    "inner_mouth_right",
    "inner_upper_lip_right",
    "inner_upper_lip",
    "inner_upper_lip_left",
    "inner_mouth_left",
    "inner_lower_lip_left",
    "inner_lower_lip",
    "inner_lower_lip_right",
    "chin",
    "right_jaw",
    "left_jaw",
    "right_temple",
    "left_temple",
)
"""The 56 face points, in the order of every landmark array. Brows, nose, eyes and mouth follow the 51 inner
points of the Multi-PIE scheme (Gross et al. 2010); chin, jaw and temples are added."""


class Reason(StrEnum):
    """Why a stretch of time could not be assessed, or why a candidate was turned down."""

    NO_FACE = "no face"
    FACE_LOST = "face lost"
    GAP = "gap"
    TOO_DARK = "too dark"
    TURNING = "turning too fast"
    FRAME_RATE = "frame rate too low"
    WARMING_UP = "warming up"
    BLINK = "blink"
    SPEECH = "speech"
    HEAD_TURN = "head turn"
    MACRO = "macro-expression"
    LIGHT = "light change"
    WEAK = "weak evidence"
    TOO_SHORT = "too short"
    TOO_SHORT_FOR_RATE = "too short for this rate"
    TOO_LONG = "too long"
    TOO_LARGE = "too large"
    NOISE = "within the noise"


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as the sensor or the file gave it."""

    luma: NDArray[np.uint8]
    """(rows, columns) uint8. The source may reuse the buffer once the next frame is asked for."""
    timestamp_ns: int
    """Media time of the start of exposure (camera) or presentation (file), ns. Strictly rising."""
    sequence: int
    """The source's own count from 0, lost frames included: a jump means that frames were lost."""


@dataclass(frozen=True, slots=True)
class FaceBox:
    """A detected face, in pixels of the whole image."""

    centre_px: tuple[float, float]
    """(x, y) of the face's centre: the mean of the landmarks."""
    size_px: float
    """Side of the square around the landmarks."""
    score: float
    """0..1."""


@dataclass(frozen=True, slots=True)
class TrackedFace:
    """Where the followed face is in one frame."""

    face_id: int
    """Rises by one whenever a face is found anew; 1 is the stream's first face."""
    landmarks: NDArray[np.float32]
    """(N, 2) float32, px, aligned-crop frame; N and their names are LANDMARKS."""
    crop_from_image: NDArray[np.float32]
    """(2, 3) float32 similarity that takes image px to aligned-crop px."""
    crop: NDArray[np.uint8]
    """(128, 128) uint8 luma, aligned. Valid until the next frame."""
    iod_px: float
    """Inter-ocular distance in the image, px."""
    face_px: float
    """Width of the face in the image, px (temple to temple)."""
    score: float
    """Confidence that the crop holds a face, 0..1."""
    others: int
    """Further faces seen at the last detection; they are counted, not followed."""


@dataclass(frozen=True, slots=True)
class Motion:
    """Regional motion of one frame against the anchor, head motion removed."""

    timestamp_ns: int
    values: NDArray[np.float32]
    """(C,) float32, one value per channel of `edge.regions.CHANNELS`: displacements in IOD, others as named."""
    head_turn_deg_s: float
    """Speed of out-of-plane head rotation, degrees per second."""


@dataclass(frozen=True, slots=True)
class NotAssessable:
    """A stretch of media time that cannot be assessed, and why. It is never scored as quiet."""

    start_ns: int
    end_ns: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class ActionUnit:
    """One FACS action unit with its side."""

    au: str
    """FACS code, for example AU12."""
    side: str
    """right, left (the subject's) or both."""
    score: float
    """0..1."""


@dataclass(frozen=True, slots=True)
class Spot:
    """A candidate interval that the spotter found."""

    face_id: int
    onset_ns: int
    apex_ns: int
    offset_ns: int
    score: float
    """Evidence that this is a micro-expression, 0..1."""
    probabilities: tuple[float, ...]
    """Seven emotions in the order of EMOTIONS, then other; sums to 1."""
    action_units: tuple[ActionUnit, ...]
    regions: tuple[float, float, float, float]
    """Evidence in eyes, brows, nose and mouth, 0..1."""
    intensity_iod: float
    """Greatest regional displacement between onset and apex, head motion removed, IOD."""
    confusers: tuple[float, ...]
    """Evidence for the confusers in the order of `edge.evidence.CONFUSERS`, 0..1."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A candidate that was turned down, and why."""

    spot: Spot
    reason: Reason


@dataclass(frozen=True, slots=True)
class Quality:
    """The conditions under which an event was seen."""

    frame_rate_hz: float
    frames_dropped: int
    head_turn_deg_s: float
    face_px: float
    baseline_ready: bool = False
    """Whether the person's own rest was known."""
    noise_floor_iod: float = 0.0
    """Noise of the region that stood out most, as `edge.baseline` measures it; 0 if it was not looked at."""


@dataclass(frozen=True, slots=True)
class Event:
    """A spot that passed every gate, with its conditions."""

    spot: Spot
    emotion: str | None
    """One of EMOTIONS, "other" or "uncertain"; None when the configuration reports movement alone."""
    confidence: float
    quality: Quality
