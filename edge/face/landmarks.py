"""Place 56 landmarks on one face, with one int8 inference of 128x128 per pass.

The net sees a crop wider than the aligned one of `edge.records`, so that chin and temples lie inside. It
gives a heat map and a bounded offset for each point on 16x16 cells; they are decoded here in float, because
an int8 coordinate over the whole crop would come in steps of half a pixel.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.face.detect import Detector, worth_placing
from edge.face.shape import CENTRE_BELOW_EYES_IOD, SIDE_IOD, apply, compose, fit_pose, image_from_face, invert
from edge.face.tensors import INPUT_SIZE, as_input, check_tensors
from edge.inference import Model
from edge.records import LANDMARKS, FaceBox

__all__ = ["LANDMARKS", "LandmarkNet", "decode", "find_in_still", "pose_of_box"]

INPUT_IOD_PX = 50.0
"""Inter-ocular distance in the net's input: the tallest faces reach 1.35 IOD below their eyes, 20 % more
speaking."""
INPUT_EYES_PX = (64.0, 46.0)
"""Where the point between the outer eye corners lies in the net's input, (x, y) px."""
CELLS = 16
CELL_PX = 8
OFFSET_LIMIT = 1.5
"""Offsets are trained within this many cells of a cell's centre."""

_INPUT_FROM_FACE = np.array([[INPUT_IOD_PX, 0.0, INPUT_EYES_PX[0]], [0.0, INPUT_IOD_PX, INPUT_EYES_PX[1]]])
_FACE_FROM_INPUT = invert(_INPUT_FROM_FACE)
_POINTS = len(LANDMARKS)
_COLUMNS = np.arange(_POINTS)
_COORDINATES = np.arange(2 * _POINTS).reshape(2, _POINTS)
"""Channels of the offsets: all x, then all y."""
_NEAR = (np.arange(-1, 2)[:, None] * CELLS + np.arange(-1, 2)[None]).reshape(9, 1)
_NEAR_CELLS = np.array([(x, y) for y in (-1, 0, 1) for x in (-1, 0, 1)], np.float32)[:, :, None]
"""(9, 2, 1) the same neighbours as steps to the right and down, cells."""


def pose_of_box(box: FaceBox) -> NDArray[np.float64]:
    """Guess the pose of an upright mean face in a detected box; see `edge.face.shape.fit_pose`."""
    iod = box.size_px / SIDE_IOD
    return np.array([box.centre_px[0], box.centre_px[1] - CENTRE_BELOW_EYES_IOD * iod, np.log(iod), 0.0])


class LandmarkNet:
    """Places the landmarks of one face."""

    def __init__(self, model: Model) -> None:
        """Take a loaded landmark model.

        Raises:
            ModelError: the model's tensors are not those of a landmark net.
        """
        check_tensors(
            model,
            {
                "heat": (1, CELLS, CELLS, _POINTS),
                "offsets": (1, CELLS, CELLS, 2 * _POINTS),
                "presence": (1, 1, 1, 1),
            },
        )
        self._model = model
        self._heat, self._offsets, self._presence = model.outputs
        self._crop = np.zeros((INPUT_SIZE, INPUT_SIZE), np.uint8)

    def find(
        self, luma: NDArray[np.uint8], guess: NDArray[np.float64] | FaceBox
    ) -> tuple[NDArray[np.float32], float]:
        """Run one pass.

        Args:
            luma: (rows, columns) uint8, any row stride. Not written to.
            guess: where the face should be: a pose (`edge.face.shape.fit_pose`) or a detected box.

        Returns:
            (56, 2) float32 landmarks, px of the frame, and the probability that a face is well placed in the
            crop, 0..1. Landmarks of an absent face mean nothing.
        """
        return self.read(self.look(luma, guess))

    def look(self, luma: NDArray[np.uint8], guess: NDArray[np.float64] | FaceBox) -> "Look":
        """Run the net for a pass that `read` concludes; arguments as for `find`."""
        pose = pose_of_box(guess) if isinstance(guess, FaceBox) else guess
        image_from_input = compose(image_from_face(pose), _FACE_FROM_INPUT)
        cv2.warpAffine(
            luma, image_from_input, (INPUT_SIZE, INPUT_SIZE), dst=self._crop,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        return Look(image_from_input, *self._model.run(as_input(self._crop)))

    def read(self, look: "Look") -> tuple[NDArray[np.float32], float]:
        """Give what `find` gives; no other pass may have been run in between."""
        points = decode(
            look.heat[0], look.offsets[0], self._heat.scale, self._offsets.scale, self._offsets.zero_point
        )
        logit = (int(look.presence.item()) - self._presence.zero_point) * self._presence.scale
        return apply(look.image_from_input, points), 1 / (1 + math.exp(-logit))


@dataclass(frozen=True, slots=True)
class Look:
    """What the net said of one crop, not read yet."""

    image_from_input: NDArray[np.float64]
    heat: NDArray[np.int8]
    offsets: NDArray[np.int8]
    presence: NDArray[np.int8]


def decode(
    heat: NDArray[np.int8],
    offsets: NDArray[np.int8],
    heat_scale: float,
    offset_scale: float,
    offset_zero: int,
) -> NDArray[np.float32]:
    """Turn the net's maps into points.

    Around each heat map's peak, 3x3 cells vote with the place that their offset points to, weighted by the
    softmax of their heat: one cell's int8 step is averaged away (measured: 0.18 px instead of 0.50 px).

    Args:
        heat: (16, 16, 56) int8.
        offsets: (16, 16, 112) int8, first all x, then all y.
        heat_scale: real per step of `heat`; its zero point does not matter to a softmax.
        offset_scale: cells per step of `offsets`.
        offset_zero: zero point of `offsets`.

    Returns:
        (56, 2) float32, px of the net's input.
    """
    flat_heat = heat.reshape(CELLS * CELLS, _POINTS)
    row, column = np.divmod(flat_heat.argmax(axis=0), CELLS)
    row = np.minimum(np.maximum(row, 1), CELLS - 2)
    column = np.minimum(np.maximum(column, 1), CELLS - 2)
    near = (row * CELLS + column) + _NEAR
    logits = flat_heat[near, _COLUMNS].astype(np.float32)
    logits -= logits.max(axis=0)
    share = np.exp(logits * np.float32(heat_scale))
    share /= share.sum(axis=0)
    steps = offsets.reshape(CELLS * CELLS, 2 * _POINTS)[near[:, None], _COORDINATES].astype(np.float32)
    shift = (steps - offset_zero) * np.float32(offset_scale)
    limit = np.float32(OFFSET_LIMIT)
    cells = np.minimum(np.maximum(shift, -limit), limit) + _NEAR_CELLS
    places = (share[:, None] * cells).sum(axis=0)
    places[0] += column
    places[1] += row
    return np.ascontiguousarray(places.T) * np.float32(CELL_PX) + np.float32((CELL_PX - 1) / 2)


def find_in_still(
    luma: NDArray[np.uint8],
    detector: Detector,
    net: LandmarkNet,
    *,
    passes: int = 3,
    presence_min: float = 0.5,
) -> NDArray[np.float32] | None:
    """Find the landmarks of the largest face of one picture.

    Args:
        luma: (rows, columns) uint8.
        passes: each one starts from the pose that the one before found.

    Returns:
        (56, 2) float32, px; None where no face is found.
    """
    for _ in range(2):  # the second call is the detector's closer look
        for face in worth_placing(detector.detect(luma)):
            landmarks, presence = net.find(luma, face)
            for _ in range(passes - 1):
                landmarks, presence = net.find(luma, fit_pose(landmarks))
            if presence >= presence_min:
                return landmarks
    return None
