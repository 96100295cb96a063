"""A face photo that moves, and that knows exactly how: the source of `demo` and of tests with known truth."""

from bisect import bisect_left
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.errors import SourceError
from edge.frames.head import HeadMotion, HeadShape, head_reach
from edge.frames.rig import GRID_STEP, Pose, Rig
from edge.frames.script import DEMO, PlantedEvent, Script, course, plan, speech_course
from edge.frames.slit import sampled
from edge.records import LANDMARKS, ActionUnit, Frame

_BASE_SCALE = 2
"""The canvas is kept at twice its resolution, so that linear sampling does not blur with sub-pixel phase."""
_LEVEL = 64
"""Units of one grey level in the 16-bit canvas: motion and noise are added before rounding to 8 bits."""
_LONGEST_EVENT_S = 4.0
_NOISE_MARGIN = 255
"""The noise tile is larger than a frame by this many px each way; every frame takes it at another place."""


class SyntheticSource:
    """A `FrameSource` that animates a photo: `truth` is known before the first frame is drawn.

    Skin moves as `edge.frames.action_units` says; lids and lips slide (`slit`), the head moves in three
    dimensions with parallax (`head`), and sensor noise, flicker and light changes are added. The background
    stands still except for a soft ring around the head. Frames are drawn one by one as they are asked for,
    never faster or slower than that: who wants real time waits between them. Same arguments, same bytes.

    What it does not show: wrinkles and shading of moved skin, tongue and lower teeth, motion blur, rolling
    shutter, rotation beyond about 15 degrees.

    Args:
        photo: (rows, columns) uint8 luma, one face, roughly frontal.
        landmarks: (56, 2) float32, px of the photo, in the order of `edge.records.LANDMARKS`.
        rate_hz: frames per second.
        size: (width, height) px of the frames.
        seconds: length of the stream.
        seed: of all that is random.
        script: what happens; `edge.frames.script.DEMO` if None.
        face_px: width of the face, temple to temple; made smaller where the frame is too small for it.
        start_time_ns: UTC of media time 0.

    Raises:
        SourceError: the photo or the landmarks have another shape, or rate, size or length is not positive.
    """

    def __init__(
        self,
        photo: NDArray[np.uint8],
        landmarks: NDArray[np.float32],
        *,
        rate_hz: float = 200.0,
        size: tuple[int, int] = (640, 480),
        seconds: float = 60.0,
        seed: int = 0,
        script: Script | None = None,
        face_px: float = 220.0,
        start_time_ns: int = 0,
    ):
        if photo.ndim != 2 or photo.dtype != np.uint8:
            raise SourceError(f"photo: {photo.dtype} {photo.shape} is not (rows, columns) uint8 luma")
        if landmarks.shape != (len(LANDMARKS), 2):
            raise SourceError(f"landmarks: {landmarks.shape} is not ({len(LANDMARKS)}, 2)")
        if rate_hz <= 0 or seconds <= 0 or min(size) < 8 * GRID_STEP:
            raise SourceError(
                f"rate {rate_hz:g} Hz, {seconds:g} s, size {size}: must be above 0, 0 and 31 px"
            )
        self.name = "synthetic face"
        self.size = size
        self.nominal_rate_hz = rate_hz
        self.duration_s: float | None = seconds
        self.start_time_ns = start_time_ns
        self.frames_out_of_order = 0
        self.warnings: list[str] = []
        self._script = script or DEMO
        self._seed = seed
        self.truth: list[PlantedEvent] = plan(self._script, seconds, seed)
        """Everything that will happen, in order of onset."""
        self._onsets = [event.onset_s for event in self.truth]

        self._base, at_rest = _place(photo, landmarks.astype(np.float32), size, face_px)
        region = _moving_region(at_rest, size)
        self._still = np.asarray(cv2.resize(self._base, size, interpolation=cv2.INTER_AREA), np.int16)
        self._rig = Rig(self._still, at_rest, region)
        self._shape = HeadShape(at_rest, self._rig.grid)
        self._motion = HeadMotion(self._script.head_motion, seed)
        self._talk = (
            self._rig.pose((ActionUnit("AU25", "both", 0.5), ActionUnit("AU26", "both", 1.0)), 1.0),
            self._rig.pose((ActionUnit("AU20", "both", 1.0),), 1.0),
        )
        self._poses: dict[int, Pose] = {}
        self._canvas = self._still.copy()
        x, y, width, height = region
        columns, rows = np.meshgrid(
            np.arange(x, x + width, dtype=np.float32), np.arange(y, y + height, dtype=np.float32)
        )
        self._pixels = np.dstack([columns, rows])
        self._tile, self._noise_gain = _noise(self._still, self._script.noise, seed)
        self._closed = False

    @property
    def landmarks(self) -> NDArray[np.float32]:
        """(56, 2) float32, px of the frame: the landmarks at rest (media time 0)."""
        return self._rig.landmarks.copy()

    @property
    def iod_px(self) -> float:
        """Inter-ocular distance at rest, px of the frame."""
        return self._rig.iod_px

    def frames(self) -> Iterator[Frame]:
        """Yield the frames; each has a buffer of its own."""
        random = np.random.default_rng([self._seed, 3])
        assert self.duration_s is not None
        for sequence in range(max(round(self.duration_s * self.nominal_rate_hz), 1)):
            if self._closed:
                return
            lost = random.random() < self._script.lost_frames
            place = random.integers(0, _NOISE_MARGIN + 1, 2)
            if lost and sequence > 0:
                continue
            timestamp_ns = round(sequence * 1_000_000_000 / self.nominal_rate_hz)
            self._draw(timestamp_ns / 1e9)
            yield Frame(
                self._expose(timestamp_ns / 1e9, int(place[0]), int(place[1])), timestamp_ns, sequence
            )

    def close(self) -> None:
        self._closed = True

    def landmarks_at(self, time_s: float) -> NDArray[np.float32]:
        """Give the (56, 2) float32 landmarks, px of the frame, as skin and head carry them at a time.

        The sliding edges of lids and lips are left out: those points move with the skin alone.
        """
        step = self._step(time_s, self._pose(time_s))
        moved = self._rig.landmarks.copy()
        for _ in range(8):
            moved = self._rig.landmarks - self._rig.at(step, moved)
        return moved

    def _pose(self, time_s: float) -> Pose:
        """Add up the events that are under way."""
        first = bisect_left(self._onsets, time_s - _LONGEST_EVENT_S)
        last = bisect_left(self._onsets, time_s)
        for index in [index for index in self._poses if index < first]:
            del self._poses[index]
        pose = self._rig.neutral()
        for index in range(first, last):
            event = self.truth[index]
            if event.kind in ("head turn", "light") or event.offset_s <= time_s:
                continue
            if event.kind == "speech":
                for part, amount in zip(self._talk, speech_course(event, time_s), strict=True):
                    pose = pose + part.scaled(amount * event.peak_iod)
            else:
                if index not in self._poses:
                    self._poses[index] = self._rig.pose(event.action_units, event.peak_iod)
                pose = pose + self._poses[index].scaled(course(event, time_s))
        return pose

    def _step(self, time_s: float, pose: Pose) -> NDArray[np.float32]:
        """Give, for each grid point of the frame, the step to the canvas point that it shows, px."""
        first = bisect_left(self._onsets, time_s - _LONGEST_EVENT_S)
        last = bisect_left(self._onsets, time_s)
        turn_deg = sum(
            event.change * course(event, time_s)
            for event in self.truth[first:last]
            if event.kind == "head turn"
        )
        head = self._shape.source(self._motion.at(time_s, turn_deg))
        if not pose.field.any():
            return head
        # The skin field is known where the skin starts from; two rounds find where that is.
        x, y, _, _ = self._rig.region
        resting = (
            self._rig.grid.astype(np.float32) + head - np.array([x, y], np.float32) + 0.5
        ) / GRID_STEP - 0.5
        skin = np.zeros_like(head)
        for _ in range(2):
            points = (resting - skin / GRID_STEP).astype(np.float32)
            skin = sampled(pose.field, points, cv2.BORDER_CONSTANT)
        return np.asarray(head - skin, np.float32)

    def _draw(self, time_s: float) -> None:
        """Render the moving region of the canvas at a time, without noise and light."""
        pose = self._pose(time_s)
        step = self._step(time_s, pose)
        x, y, width, height = self._rig.region
        source = np.asarray(cv2.resize(step, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
        source += self._pixels
        scaled = source * np.float32(_BASE_SCALE) + np.float32((_BASE_SCALE - 1) / 2)
        self._canvas[y : y + height, x : x + width] = sampled(self._base, scaled)
        for slit, (upper_px, lower_px) in (
            *zip(self._rig.eyes, pose.lids, strict=True),
            (self._rig.mouth, (-pose.lips[0], -pose.lips[1])),
        ):
            if upper_px or lower_px:
                shift = -self._rig.at(step, slit.centre[None].astype(np.float32))[0]
                rows, columns = slit.box(shift, self._rig.region)
                part = source[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
                drawn = slit.draw(self._base, _BASE_SCALE, part, float(upper_px), float(lower_px))
                self._canvas[rows, columns] = np.rint(drawn).astype(np.int16)

    def _expose(self, time_s: float, down: int, right: int) -> NDArray[np.uint8]:
        """Add noise to the canvas, apply the light of the moment and round to 8 bits."""
        width, height = self.size
        image = self._canvas
        if self._script.noise > 0:
            tile = self._tile[down : down + height, right : right + width]
            noise = cv2.multiply(tile, self._noise_gain, scale=1 / 256, dtype=cv2.CV_16S)
            image = np.asarray(cv2.add(image, noise), np.int16)
        brightness = 1.0
        for event in self.truth:
            if event.onset_s >= time_s:
                break
            if event.kind == "light":
                brightness *= 1 + event.change * min(
                    (time_s - event.onset_s) / (event.offset_s - event.onset_s), 1.0
                )
        # Lamps flicker at twice the frequency of the mains.
        brightness *= 1 + self._script.flicker * float(
            np.sin(4 * np.pi * self._script.mains_hz * time_s + 0.7)
        )
        clipped = np.maximum(image, 0) if self._script.noise > 0 else image
        return np.asarray(cv2.convertScaleAbs(clipped, alpha=brightness / _LEVEL), np.uint8)


def _place(
    photo: NDArray[np.uint8], landmarks: NDArray[np.float32], size: tuple[int, int], face_px: float
) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """Scale the photo so that the face has its width and stands in the middle of the frame.

    Returns:
        (rows, columns) int16, `_LEVEL` units per grey level, at `_BASE_SCALE` times the frame's resolution,
        and the landmarks in px of the frame.
    """
    width, height = size
    point = dict(zip(LANDMARKS, landmarks, strict=True))
    photo_px = float(np.hypot(*(point["left_temple"] - point["right_temple"])))
    if photo_px < 8:
        raise SourceError(f"landmarks: a face {photo_px:.1f} px wide cannot be animated; at least 8 px")
    scale = min(face_px, 0.5 * width, 0.5 * height) / photo_px
    fine = scale * _BASE_SCALE
    method = cv2.INTER_AREA if fine < 1 else cv2.INTER_CUBIC
    scaled_size = (max(round(photo.shape[1] * fine), 2), max(round(photo.shape[0] * fine), 2))
    scaled = np.asarray(cv2.resize(photo, scaled_size, interpolation=method), np.uint8)
    factor = np.array([scaled_size[0] / photo.shape[1], scaled_size[1] / photo.shape[0]], np.float32)
    fine_points = (landmarks + 0.5) * factor - 0.5
    middle = (fine_points.min(0) + fine_points.max(0)) / 2
    # Brows to chin is the lower part of a head: it stands a little below the middle of the frame.
    shift = np.rint(np.array([width / 2, height * 0.54]) * _BASE_SCALE - middle).astype(int)
    base = _extended(scaled, (width * _BASE_SCALE, height * _BASE_SCALE), (int(shift[0]), int(shift[1])))
    at_rest = (fine_points + shift + 0.5) / _BASE_SCALE - 0.5
    return (base * np.float32(_LEVEL)).astype(np.int16), at_rest.astype(np.float32)


def _extended(
    picture: NDArray[np.uint8], size: tuple[int, int], shift: tuple[int, int]
) -> NDArray[np.float32]:
    """Place a picture into a larger one; its edges run on and blur, so that no second face is mirrored in."""
    move = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)
    placed = cv2.warpAffine(picture, move, size, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpAffine(np.full(picture.shape, 255, np.uint8), move, size, flags=cv2.INTER_NEAREST)
    away = cv2.distanceTransform(255 - inside, cv2.DIST_L2, 5)
    result = placed.astype(np.float32)
    for blur in (4.0, 12.0, 36.0):
        share = np.clip(away / (2 * blur), 0, 1)
        result += (cv2.GaussianBlur(placed, (0, 0), blur).astype(np.float32) - result) * share
    return result


def _moving_region(landmarks: NDArray[np.float32], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Give (x, y, width, height) px of the part of the frame that head motion reaches."""
    point = dict(zip(LANDMARKS, landmarks.astype(np.float64), strict=True))
    half_width = float(np.hypot(*(point["left_temple"] - point["right_temple"]))) / 2
    eyes = (point["left_eye_outer"] + point["right_eye_outer"]) / 2
    half_height = float(np.hypot(*(point["chin"] - eyes))) * 1.12
    reach = np.array([1.08 * half_width, half_height]) * head_reach()
    # A head that leans makes the ellipse's box wider; a tenth covers 10 degrees.
    low = np.maximum(np.floor(eyes - reach * 1.1), 0).astype(int)
    high = np.minimum(np.ceil(eyes + reach * 1.1 + [0, 0.12 * half_height]), size).astype(int)
    spans = (high - low) // GRID_STEP * GRID_STEP
    return int(low[0]), int(low[1]), int(spans[0]), int(spans[1])


def _noise(
    still: NDArray[np.int16], mid_grey_sigma: float, seed: int
) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Make unit noise (x 256) for more than a frame, and its standard deviation for each pixel.

    Half of the variance at mid-grey does not depend on the light (read noise), half is proportional to it
    (shot noise).
    """
    random = np.random.default_rng([seed, 4])
    shape = (still.shape[0] + _NOISE_MARGIN, still.shape[1] + _NOISE_MARGIN)
    tile = np.clip(random.standard_normal(shape, np.float32) * 256, -1024, 1024).astype(np.int16)
    relative = np.sqrt(0.5 + 0.5 * np.clip(still.astype(np.float32) / _LEVEL, 0, 255) / 128)
    return tile, (relative * mid_grey_sigma * _LEVEL).astype(np.int16)
