"""The hand-crafted optical-flow spotter of the field, as an honest yardstick for the trained one.

It knows nothing of confusers or emotions; it sees the same frames, and to be fair the device's own face tracker
finds the face and its landmarks. What it takes from where:

- Frames are cut alike and adjusted by the nose's shift; what flow is left there, rigid motion, is taken off the flow
  of brows, nose wings and mouth corners; the eyes are left out because they blink (He 2021, doi
  10.1145/3474085.3479225, "OF-FD").
- The signal is the difference of two displacements from the frame k earlier: now, less k later. A skin that
  comes back within 2 k shows, one that stays away does not (Wang et al. 2017, "MDMD", Neurocomputing 230).
- k is half the mean duration; the signal is averaged over k. Peaks are k apart and rise above
  mean + p (max - mean) of the recording, p = 0.55 (Moilanen et al. 2014; Liong et al. 2021, "SOFTNet").
- An interval ends where the signal has fallen to a third of its peak (Zhao et al. 2022, doi
  10.1145/3503161.3551602); what is too short or too long is dropped, and of two that overlap the lower one.

Chosen on 16 rendered clips of validation people with 95 micro-expressions of 0.4-2.5 % IOD, with and without
confusers: the regions, the difference instead of the plain flow to the frame k later (pooled F1 0.40 against 0.24),
the third instead of k to both sides (0.40 against 0.36), the cutting alike (three clips with confusers: five found
and two false instead of six and six). Without the floor, below which nothing is a peak, every still recording would
have one. p = 0.55 is not the best everywhere: on four clips without confusers 0.2 finds twice as many (F1 0.62
against 0.39), on six with them it gives 3.6 times the false alarms (0.35 against 0.39).
"""

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.signal import find_peaks

from edge.config import Config
from edge.errors import ConfigError
from edge.face.detect import CONFIRMED_SCORE, Detector
from edge.face.landmarks import LandmarkNet
from edge.face.track import Tracker
from edge.inference.models import Models
from edge.records import CROP_IOD_PX, CROP_SIZE, Frame, TrackedFace
from edge.regions import LANDMARK_INDEX
from tools.evaluate.records import Answer

REGIONS: tuple[tuple[int, ...], ...] = tuple(
    tuple(LANDMARK_INDEX[name.replace("*", side)] for name in names)
    for names in (
        ("*_brow_inner", "*_brow_inner_mid"),
        ("*_brow_mid",),
        ("*_brow_outer_mid", "*_brow_outer"),
        ("*_nose_wing",),
        ("mouth_*",),
    )
    for side in ("right", "left")
)
"""The landmarks whose windows make up each region."""
RIGID = tuple(LANDMARK_INDEX[name] for name in ("nose_bridge_upper", "nose_bridge_lower", "nose_tip"))
NOSE = np.s_[44:84, 44:84]
"""The square of the crop by which the cutting is adjusted: between the eyes to below the tip."""
_HANNING = cv2.createHanningWindow((40, 40), cv2.CV_32F)
WINDOW_PX = 9
"""Side of the square around a landmark over which the flow is averaged: 14 % IOD."""
FLOOR_IOD = 0.0015
"""No peak below: 0.1 px of the crop. A quiet face stayed below in nine clips of ten, not with the noise of a night."""
EDGE = 0.33
"""Share of the peak's height at which its interval ends."""
DURATION_S = (0.04, 0.22)
"""Shortest and longest interval; the average over k lengthens the longest a little."""
FULL_SCORE_IOD = 0.01
"""Height of a peak that scores 1."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is kept of a frame until its partners have come."""

    luma: NDArray[np.uint8]
    """The whole frame."""
    face_id: int
    crop_from_image: NDArray[np.float32]
    places: NDArray[np.intp]
    """(landmarks,) flat indices into the aligned crop."""


class ClassicSpotter:
    """Takes a whole recording and then gives its micro-expressions; nothing is known before the end.

    Dropped frames are not made up for: k counts frames, as in the field. Where no face is tracked nothing moves.
    """

    def __init__(
        self,
        config: Config,
        models: Models,
        *,
        rate_hz: float,
        mean_duration_s: float = 0.12,
        p: float = 0.55,
    ) -> None:
        """Prepare for one recording.

        Args:
            config: its section `face` is for the tracker.
            models: detector and landmark net are used; whoever loaded them closes them.
            rate_hz: frames per second.
            mean_duration_s: of the micro-expressions that are looked for.
            p: how far above the mean a peak must rise, 0 (the mean) to 1 (the greatest peak).

        Raises:
            ConfigError: half the mean duration is under one frame, or p is not within 0..1.
        """
        half = mean_duration_s * rate_hz / 2
        if not 1 <= half < float("inf"):
            raise ConfigError(
                f"mean_duration_s = {mean_duration_s:g} at rate_hz = {rate_hz:g}: half of it is {half:g} frames; "
                "at least 1"
            )
        if not 0 <= p <= 1:
            raise ConfigError(f"p = {p:g}: must be within 0 and 1")
        self._k, self._p = round(half), p
        detector = Detector(models.detector, score_min=CONFIRMED_SCORE)
        self._tracker = Tracker(detector, LandmarkNet(models.landmark), config.face)
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        # The preset stops at quarter resolution, where half of a local motion is lost.
        self._flow.setFinestScale(1)
        self._seen: deque[_Seen | None] = deque(maxlen=2 * self._k + 1)
        self._times_s: list[float] = []
        self._signal: list[float] = [0.0] * self._k
        """IOD, for all but the last k frames."""

    def feed(self, frame: Frame) -> None:
        """Take the next frame."""
        face = self._tracker.track(frame)
        self._times_s.append(frame.timestamp_ns * 1e-9)
        self._seen.append(_seen(frame, face) if face else None)
        if len(self._seen) == 2 * self._k + 1:
            self._signal.append(self._returned())

    def finish(self) -> list[Answer]:
        """Give the answers for the whole recording, in order of onset."""
        signal = np.array(self._signal[self._k :])
        if len(signal) < self._k or not signal.any():
            return []
        signal = np.convolve(signal, np.full(self._k, 1 / self._k), "same")
        threshold = max(signal.mean() + self._p * (signal.max() - signal.mean()), FLOOR_IOD)
        peaks, _ = find_peaks(signal, height=threshold, distance=self._k)
        answers: list[Answer] = []
        for peak in sorted((int(peak) for peak in peaks), key=lambda peak: -signal[peak]):
            answer = self._answer(signal, peak)
            length_s = answer.offset_s - answer.onset_s
            is_apart = all(a.onset_s >= answer.offset_s or answer.onset_s >= a.offset_s for a in answers)
            if is_apart and DURATION_S[0] <= length_s <= DURATION_S[1]:
                answers.append(answer)
        return sorted(answers, key=lambda answer: answer.onset_s)

    def _returned(self) -> float:
        """Give how far the skin of the frame k ago stood from k earlier, less how far it stands now, IOD."""
        before, centre, now = self._seen[0], self._seen[self._k], self._seen[-1]
        if (
            before is None
            or centre is None
            or now is None
            or not before.face_id == centre.face_id == now.face_id
        ):
            return 0.0
        first = _cut(before.luma, before.crop_from_image)
        there, here = (
            self._displacements(first, _cut_alike(seen.luma, before.crop_from_image, first), before.places)
            for seen in (centre, now)
        )
        return max(float((there - here).max()), 0.0)

    def _displacements(
        self, before: NDArray[np.uint8], after: NDArray[np.uint8], places: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        """Give how far each region has moved against the nose, (regions,) IOD."""
        flow = cv2.blur(self._flow.calc(before, after, None), (WINDOW_PX, WINDOW_PX))
        at = flow.reshape(-1, 2)[places]
        moved = np.array([at[list(region)].mean(axis=0) for region in REGIONS]) - at[list(RIGID)].mean(axis=0)
        return np.asarray(np.linalg.norm(moved, axis=1) / CROP_IOD_PX, np.float64)

    def _answer(self, signal: NDArray[np.float64], peak: int) -> Answer:
        """Spread a peak to both sides; `signal` begins k frames into the recording."""
        low = np.flatnonzero(signal < EDGE * signal[peak])
        onset = max((int(i) for i in low if i < peak), default=0)
        offset = min((int(i) for i in low if i > peak), default=len(signal) - 1)
        onset_s, apex_s, offset_s = (self._times_s[i + self._k] for i in (onset, peak, offset))
        return Answer(
            onset_s,
            apex_s,
            offset_s,
            score=min(1.0, float(signal[peak]) / FULL_SCORE_IOD),
            emotion="uncertain",
            confidence=0.0,
            intensity_iod=max(self._signal[onset + self._k : offset + self._k + 1]),
        )


def _cut(luma: NDArray[np.uint8], matrix: NDArray[np.floating]) -> NDArray[np.uint8]:
    crop = cv2.warpAffine(luma, matrix, (CROP_SIZE, CROP_SIZE), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(crop, np.uint8)


def _cut_alike(
    luma: NDArray[np.uint8], matrix: NDArray[np.floating], first: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Cut a later frame with the same placing, then shifted so that the nose lies where it lay in `first`.

    With a placing of its own each, the tracker's tremble and lag would look like motion; without the shift the
    flow, which finds a part of any motion only, would leave much of a quick nod.
    """
    noses = (image[NOSE].astype(np.float32) for image in (first, _cut(luma, matrix)))
    (x, y), _ = cv2.phaseCorrelate(*noses, _HANNING)
    return _cut(luma, matrix - np.array([[0, 0, x], [0, 0, y]]))


def _seen(frame: Frame, face: TrackedFace) -> _Seen:
    x, y = np.clip(np.rint(face.landmarks), 0, CROP_SIZE - 1).astype(np.intp).T
    return _Seen(frame.luma.copy(), face.face_id, face.crop_from_image, y * CROP_SIZE + x)
