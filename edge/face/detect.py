"""Find faces in a whole frame, with one int8 inference of 128x128 per call.

The net gives a heat map of face centres and, for each of its 32x32 cells, where the centre lies and how large
the face is (Zhou et al. 2019, Objects as Points). A frame is letterboxed whole; while that finds nothing,
further calls look at zoomed, overlapping parts in turn, so that a face far away is found after a few calls at
the same cost each.
"""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.face.tensors import INPUT_SIZE, as_input, check_tensors
from edge.inference import Model
from edge.records import FaceBox

CELLS = 32
CELL_PX = 4
SIZE_UNIT_PX = 24.0
"""The net gives ln(size / this)."""
MOST_FACES = 16
"""Peaks looked at per call."""


CONFIRMED_SCORE = 0.4
"""`score_min` for whoever asks the landmark net about each face, as the tracker does: more small faces are found,
and of the 5 % of face-free pictures in which one is seen the landmark net leaves one in ten."""


class Detector:
    """Finds faces; says nothing about who they are."""

    def __init__(
        self, model: Model, *, score_min: float = 0.6, overlap_max: float = 0.3, zoomed_looks: bool = True
    ) -> None:
        """Take a loaded detector model.

        Args:
            model: `detector` of the manifest.
            score_min: least score of a face, 0..1. At 0.6 it finds 99.2 % of the photos of unseen people and a
                face in 1.0 % of face-free pictures; see also CONFIRMED_SCORE.
            overlap_max: intersection over union above which the weaker of two faces is the same face.
            zoomed_looks: after a look that found nothing, look closer at parts of the frame, one a call.

        Raises:
            ModelError: the model's tensors are not those of a detector.
        """
        check_tensors(model, {"geometry": (1, CELLS, CELLS, 3), "heat": (1, CELLS, CELLS, 1)})
        self._model = model
        self._geometry, self._heat = model.outputs
        self._score_min = score_min
        self._overlap_max = overlap_max
        self._zoomed_looks = zoomed_looks
        self._misses = 0
        self._canvas = np.zeros((INPUT_SIZE, INPUT_SIZE), np.uint8)

    def detect(self, luma: NDArray[np.uint8]) -> list[FaceBox]:
        """Give the faces seen in this look, largest first.

        Args:
            luma: (rows, columns) uint8, any size, any row stride. Not written to.
        """
        part = self._next_part(luma.shape[0], luma.shape[1])
        faces = self._look(luma, *part)
        self._misses = 0 if faces else self._misses + 1
        return faces

    def _next_part(self, rows: int, columns: int) -> tuple[int, int, int, int]:
        """Choose what to look at, (top, left, rows, columns): everything, then every second miss a closer
        part."""
        parts = zoomed_parts(rows, columns)
        if not self._zoomed_looks or not parts or self._misses % 2 == 0:
            return 0, 0, rows, columns
        return parts[self._misses // 2 % len(parts)]

    def _look(self, luma: NDArray[np.uint8], top: int, left: int, rows: int, columns: int) -> list[FaceBox]:
        """Run the net on a part of the frame and give its faces in px of the whole frame."""
        zoom = INPUT_SIZE / max(rows, columns)
        width, height = max(1, round(columns * zoom)), max(1, round(rows * zoom))
        x, y = (INPUT_SIZE - width) // 2, (INPUT_SIZE - height) // 2
        self._canvas[:] = 0
        shrink = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
        cv2.resize(
            luma[top : top + rows, left : left + columns], (width, height),
            dst=self._canvas[y : y + height, x : x + width], interpolation=shrink,
        )  # fmt: skip
        heat, geometry = self._run()
        scores, found = peaks(heat, geometry, self._score_min)
        if not len(scores):
            return []
        step_x, step_y = columns / width, rows / height
        centre_x = (found[:, 0] - x + 0.5) * step_x - 0.5 + left
        centre_y = (found[:, 1] - y + 0.5) * step_y - 0.5 + top
        size = found[:, 2] * max(step_x, step_y)
        kept = suppress(centre_x, centre_y, size, scores, self._overlap_max)
        faces = [
            FaceBox((float(centre_x[i]), float(centre_y[i])), float(size[i]), float(scores[i]))
            for i in kept
            if left <= centre_x[i] < left + columns and top <= centre_y[i] < top + rows
        ]
        return sorted(faces, key=lambda face: -face.size_px)

    def _run(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        geometry, heat = self._model.run(as_input(self._canvas))
        return self._heat.dequantize(heat)[0, ..., 0], self._geometry.dequantize(geometry)[0]


def worth_placing(faces: list[FaceBox], most: int = 4) -> list[FaceBox]:
    """Give the faces worth a landmark pass, largest first: of many, the strongest few."""
    strongest = sorted(faces, key=lambda face: -face.score)[:most]
    return sorted(strongest, key=lambda face: -face.size_px)


def zoomed_parts(rows: int, columns: int) -> list[tuple[int, int, int, int]]:
    """Give overlapping square parts of a frame, (top, left, rows, columns), half as large as its shorter side
    or more.

    Nothing for a frame no larger than the net's input: there is no more to see in its parts.
    """
    side = max(INPUT_SIZE, round(min(rows, columns) * 0.55))
    if max(rows, columns) <= INPUT_SIZE * 1.25:
        return []
    side_y, side_x = min(side, rows), min(side, columns)
    parts = [
        (top, left, side_y, side_x) for top in _starts(rows, side_y) for left in _starts(columns, side_x)
    ]
    # People put themselves in the middle of the picture: look there first.
    middle = ((rows - side_y) / 2, (columns - side_x) / 2)
    return sorted(parts, key=lambda part: math.hypot(part[0] - middle[0], part[1] - middle[1]))


def _starts(length: int, side: int) -> list[int]:
    """Place parts of `side` px over `length` px evenly, a third or more overlapping."""
    count = 1 if side >= length else 1 + math.ceil((length - side) / (side * 0.65))
    return [round(i * (length - side) / max(1, count - 1)) for i in range(count)]


def peaks(
    heat: NDArray[np.float32], geometry: NDArray[np.float32], score_min: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Find local maxima of the heat map.

    Args:
        heat: (32, 32) float32 logits.
        geometry: (32, 32, 3) float32 dx, dy in cells, ln(size / 24 px).

    Returns:
        Scores, (F,) float32 0..1, strongest first, and (F, 3) float32 x, y, size in px of the net's input.
    """
    logit_min = (
        float(np.log(score_min / (1 - score_min)))
        if 0 < score_min < 1
        else (-99.0 if score_min <= 0 else 99.0)
    )
    if heat.max() < logit_min:
        return np.zeros(0, np.float32), np.zeros((0, 3), np.float32)
    highest = cv2.dilate(heat, np.ones((3, 3), np.uint8))
    rows, columns = np.nonzero((heat >= highest) & (heat >= logit_min))
    order = np.argsort(-heat[rows, columns], kind="stable")[:MOST_FACES]
    rows, columns = rows[order], columns[order]
    dx, dy, log_size = geometry[rows, columns].T
    x = (columns + dx) * CELL_PX + (CELL_PX - 1) / 2
    y = (rows + dy) * CELL_PX + (CELL_PX - 1) / 2
    size = SIZE_UNIT_PX * np.exp(np.clip(log_size, -2.5, 2.5))
    scores = 1 / (1 + np.exp(-heat[rows, columns]))
    return scores.astype(np.float32), np.stack([x, y, size], 1).astype(np.float32)


def suppress(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    size: NDArray[np.float32],
    scores: NDArray[np.float32],
    overlap_max: float,
) -> list[int]:
    """Keep the strongest of faces that overlap; gives their places in the arrays, strongest first."""
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        for j in kept:
            wide = min(x[i] + size[i] / 2, x[j] + size[j] / 2) - max(x[i] - size[i] / 2, x[j] - size[j] / 2)
            tall = min(y[i] + size[i] / 2, y[j] + size[j] / 2) - max(y[i] - size[i] / 2, y[j] - size[j] / 2)
            shared = max(0.0, float(wide)) * max(0.0, float(tall))
            # A face inside another one's box is the same face seen twice at two sizes.
            smaller = float(min(size[i], size[j])) ** 2
            union = float(size[i]) ** 2 + float(size[j]) ** 2 - shared
            if shared > overlap_max * union or shared > 0.6 * smaller:
                break
        else:
            kept.append(int(i))
    return kept
