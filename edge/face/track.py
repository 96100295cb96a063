"""Follow the largest face: detection when there is none, landmarks at their own rate, an aligned crop every
frame.

States: searching (detections, at most one per `detect_period_s` of media time) and following (a landmark pass
per `landmark_period_ms`; the pose in between is predicted). A face is lost after `lost_after` passes in a row
in which the net sees no well-placed face or its answer is no face's geometry.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.config import Face
from edge.face.detect import Detector, worth_placing
from edge.face.landmarks import LandmarkNet, Look
from edge.face.shape import (
    CENTRE_BELOW_EYES_IOD,
    MEAN_SHAPE,
    SIDE_IOD,
    WIDTH_IOD,
    apply,
    fit_pose,
    image_from_face,
)
from edge.face.steady import SteadyPose, crop_from_image
from edge.records import CROP_SIZE, FaceBox, Frame, Reason, TrackedFace
from edge.stages import Stage, Stopwatch

RECOUNT_PERIOD_S = 2.0
"""While a face is followed, how often the whole frame is searched for others."""
MUCH_LARGER = 1.5
"""Another face this many times as large as the followed one takes its place."""
PLACING_PASSES = 3
"""Landmark passes on a newly detected face: a detection is off by up to a tenth of the face and knows no
roll."""
_JUMP_IOD, _JUMP_LOG_SIZE, _JUMP_RAD = 0.6, 0.35, 0.5
"""No head moves further between two passes; beyond it the net has jumped to something else."""
_MISSHAPEN_IOD = 0.35
"""Root mean square distance from the mean shape beyond which points form no face. The labelled photos stay below
0.12 (99 %, the worst 0.20); with simulated expressions and turns of 30 degrees below 0.28 (99 %)."""
_MEAN_SHAPE = MEAN_SHAPE.astype(np.float32)
_CENTRE = np.array([[0.0, CENTRE_BELOW_EYES_IOD]], np.float32)
_QUICK_FRAME_S = 0.012
"""Frame period up to which a landmark pass may be read one frame later."""
_LONG_GAP_S = 0.5
"""After a gap this long in the stream a face is searched anew: where it went is anyone's guess."""


@dataclass(slots=True)
class _Following:
    """What is known about the followed face."""

    steady: SteadyPose
    landmarks: NDArray[np.float32]
    """(56, 2) px of the aligned crop."""
    presence: float
    measured_s: float
    """Media time of the last landmark pass."""
    misses: int = 0
    unread: tuple[NDArray[np.float64], Look] | None = None
    """A pass whose answer is still to be read: where the face was expected, and the answer."""


class Tracker:
    """Follows one face through a stream of frames."""

    why_not: Reason
    """Why the last call of `track` gave no face."""

    def __init__(
        self,
        detector: Detector,
        landmark_net: LandmarkNet,
        settings: Face | None = None,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        """Take the two nets, the `[face]` section of the configuration (None: its defaults) and what times them."""
        self._stopwatch = stopwatch or Stopwatch()
        self.reconfigure(settings or Face())
        self.why_not = Reason.NO_FACE
        self._detector = detector
        self._net = landmark_net
        self._following: _Following | None = None
        self._face_id = 0
        self._others = 0
        self._detected_s: float | None = None
        self._last_s = 0.0
        self._crop = np.zeros((CROP_SIZE, CROP_SIZE), np.uint8)

    def reconfigure(self, settings: Face) -> None:
        """Go on with other settings; the face is followed on."""
        self._settings = settings
        # Frames come on their own beat: a pass is due when the next frame would be further from the beat.
        self._landmark_period_s = settings.landmark_period_ms / 1000 - 0.002

    def track(self, frame: Frame) -> TrackedFace | None:
        """Give the followed face in this frame; None where there is none, and `why_not` says why."""
        now_s = frame.timestamp_ns * 1e-9
        if self._following is not None and now_s - self._last_s > _LONG_GAP_S:
            self._lose()
            self._detected_s = None
        period_s, self._last_s = now_s - self._last_s, now_s
        if self._following is not None:
            self._measure(self._following, frame.luma, period_s)
        if self._following is None:
            self._search(frame.luma, now_s)
        elif self._is_recount_due():
            self._recount(self._following, frame.luma, now_s)
        if self._following is None:
            return None
        return self._result(self._following, frame.luma, now_s)

    def _detect(self, luma: NDArray[np.uint8]) -> list[FaceBox]:
        faces = self._detector.detect(luma)
        self._stopwatch.lap(Stage.DETECT)
        return faces

    def _search(self, luma: NDArray[np.uint8], now_s: float) -> None:
        """Detect, when a detection is due, and start following the largest face that is one."""
        if self._detected_s is not None and now_s - self._detected_s < self._settings.detect_period_s:
            return
        # The stream's first frame gets a second, closer look: a short recording should not lose half a
        # second.
        for _ in range(2 if self._detected_s is None else 1):
            faces = self._detect(luma)
            followed = next((face for face in worth_placing(faces) if self._start(face, luma, now_s)), None)
            if followed is not None:
                self._others = self._count([face for face in faces if face is not followed], luma)
                break
        self._detected_s = now_s
        if self._following is None and self.why_not is Reason.FACE_LOST and not faces:
            self.why_not = Reason.NO_FACE

    def _start(self, face: FaceBox, luma: NDArray[np.uint8], now_s: float) -> bool:
        """Place the landmarks on a detected face and follow it from now on, if it is one."""
        placed = self._place(face, luma)
        if placed is None:
            return False
        landmarks, presence, pose = placed
        if self._is_followed(pose, now_s):
            return False
        steady = SteadyPose(pose, now_s)
        aligned = apply(crop_from_image(steady.at(now_s)), landmarks)
        self._following = _Following(steady, aligned, presence, now_s)
        self._face_id += 1
        return True

    def _place(
        self, face: FaceBox, luma: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], float, NDArray[np.float64]] | None:
        """Give landmarks, presence and pose of a detected face; None if the landmark net sees no face there."""
        if face.size_px < 0.8 * self._settings.min_face_px:  # a detection knows the size to about 20 %
            return None
        landmarks, presence = self._net.find(luma, face)
        for _ in range(PLACING_PASSES - 1):
            landmarks, presence = self._net.find(luma, fit_pose(landmarks))
        pose = fit_pose(landmarks)
        self._stopwatch.lap(Stage.LANDMARKS)
        is_face = _is_face(landmarks, pose, float(self._settings.min_face_px))
        return (landmarks, presence, pose) if presence >= self._settings.presence_min and is_face else None

    def _count(self, faces: list[FaceBox], luma: NDArray[np.uint8]) -> int:
        """Count the detections that the landmark net confirms."""
        return sum(self._place(face, luma) is not None for face in worth_placing(faces))

    def _measure(self, followed: _Following, luma: NDArray[np.uint8], period_s: float) -> None:
        """Read the answer of the last frame's landmark pass, and run the next one when it is due.

        A pass is half net and half reading. At a high frame rate they fall to two frames, so that the longest
        frame is not twice the usual one; at a low rate a frame later would be too late.
        """
        if followed.unread is not None:
            self._read(followed)
            self._stopwatch.lap(Stage.LANDMARKS)
        if self._following is None or self._last_s - followed.measured_s < self._landmark_period_s:
            return
        expected = np.array(followed.steady.at(self._last_s))
        followed.unread = expected, self._net.look(luma, expected)
        followed.measured_s = self._last_s
        if period_s > _QUICK_FRAME_S or self._is_recount_due():
            self._read(followed)
        self._stopwatch.lap(Stage.LANDMARKS)

    def _is_recount_due(self) -> bool:
        return self._detected_s is None or self._last_s - self._detected_s >= RECOUNT_PERIOD_S

    def _read(self, followed: _Following) -> None:
        """Take in the answer of the last landmark pass."""
        assert followed.unread is not None
        expected, look = followed.unread
        followed.unread, now_s = None, followed.measured_s
        landmarks, followed.presence = self._net.read(look)
        pose = fit_pose(landmarks)
        is_there = followed.presence >= self._settings.presence_min and not _has_jumped(expected, pose)
        # A face at the limit must not flicker: once followed, it may be a little smaller.
        if not (is_there and _is_face(landmarks, pose, 0.8 * self._settings.min_face_px)):
            followed.misses += 1
            followed.steady.coast(now_s)
            if followed.misses >= self._settings.lost_after:
                self._lose()
            return
        followed.misses = 0
        followed.steady.measure(pose, now_s)
        placed = apply(crop_from_image(followed.steady.at(now_s)), landmarks)
        moved = placed - followed.landmarks
        # Steps below half a pixel are the net's tremble; a mouth that opens moves by several.
        gain = np.clip(np.abs(moved).max(axis=1, keepdims=True) / np.float32(3.0), 0.12, 0.85)
        followed.landmarks = followed.landmarks + gain * moved

    def _is_followed(self, pose: NDArray[np.float64], now_s: float) -> bool:
        """Say whether a pose is that of the face already followed: a box beside it may lead back to it."""
        if self._following is None:
            return False
        current = self._following.steady.at(now_s)
        return math.hypot(pose[0] - current[0], pose[1] - current[1]) < math.exp(current[2])

    def _lose(self) -> None:
        self._following = None
        self._others = 0
        self.why_not = Reason.FACE_LOST

    def _recount(self, followed: _Following, luma: NDArray[np.uint8], now_s: float) -> None:
        """Count the other faces; follow the largest instead if it is much larger."""
        faces = self._detect(luma)
        self._detected_s = now_s
        pose = followed.steady.at(now_s)
        centre, size = apply(image_from_face(np.array(pose)), _CENTRE)[0], SIDE_IOD * math.exp(pose[2])
        others = [face for face in faces if math.dist(face.centre_px, centre) > 0.5 * max(size, face.size_px)]
        if others and others[0].size_px > MUCH_LARGER * size and self._start(others[0], luma, now_s):
            others = [face for face in faces if face is not others[0]]
        self._others = self._count(others, luma)

    def _result(self, followed: _Following, luma: NDArray[np.uint8], now_s: float) -> TrackedFace:
        pose = followed.steady.at(now_s)
        matrix = crop_from_image(pose).astype(np.float32)
        cv2.warpAffine(
            luma, matrix, (CROP_SIZE, CROP_SIZE), dst=self._crop,
            flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        iod = math.exp(pose[2])
        return TrackedFace(
            face_id=self._face_id, landmarks=followed.landmarks, crop_from_image=matrix, crop=self._crop,
            iod_px=iod, face_px=iod * WIDTH_IOD, score=followed.presence, others=self._others,
        )  # fmt: skip


def _is_face(landmarks: NDArray[np.float32], pose: NDArray[np.float64], least_px: float) -> bool:
    """Say whether landmarks lie as those of a face do, and temple to temple spans at least `least_px`."""
    iod = math.exp(pose[2])
    away = landmarks - apply(image_from_face(pose), _MEAN_SHAPE)
    misshapen_px = float(cv2.norm(away)) / math.sqrt(len(away))
    return iod * WIDTH_IOD >= least_px and misshapen_px < _MISSHAPEN_IOD * iod


def _has_jumped(expected: NDArray[np.float64], found: NDArray[np.float64]) -> bool:
    away = found - expected
    moved_iod = math.hypot(away[0], away[1]) / math.exp(expected[2])
    turned = abs(math.remainder(float(away[3]), math.tau))
    return moved_iod > _JUMP_IOD or abs(float(away[2])) > _JUMP_LOG_SIZE or turned > _JUMP_RAD
