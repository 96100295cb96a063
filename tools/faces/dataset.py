"""Load the labelled photos of one part (train, validation, test) into memory, as luma with a small
pyramid."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.faces.photos import MESH_INDEX, read_manifest, split_of

RIGHT_EYE_OUTER, LEFT_EYE_OUTER = 33, 263
"""Mesh vertices whose distance is the IOD."""


@dataclass(frozen=True, slots=True)
class LabelledFace:
    """One photo with its teacher mesh."""

    id: str
    subject: str
    kind: str
    pyramid: tuple[NDArray[np.uint8], ...]
    """Luma at full, half, quarter and eighth size."""
    mesh: NDArray[np.float32]
    """(468, 3) float32, px of the full-size photo; z in the unit of x, smaller is nearer."""

    @property
    def landmarks(self) -> NDArray[np.float32]:
        """Give the (56, 2) landmarks in px of the full-size photo."""
        return self.mesh[list(MESH_INDEX), :2]

    @property
    def iod_px(self) -> float:
        """Give the inter-ocular distance in px of the full-size photo."""
        return float(np.linalg.norm(self.mesh[LEFT_EYE_OUTER, :2] - self.mesh[RIGHT_EYE_OUTER, :2]))


def to_luma(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give the luma of a picture as OpenCV reads it (grey or BGR)."""
    return pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)


def halve(luma: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give the picture at half size, every output pixel the mean of four."""
    rows, columns = luma.shape[0] // 2 * 2, luma.shape[1] // 2 * 2
    return cv2.resize(luma[:rows, :columns], (columns // 2, rows // 2), interpolation=cv2.INTER_AREA)


def level_matrix(level: int) -> NDArray[np.float64]:
    """Give the (3, 3) matrix from full-size pixels to those of a pyramid level (pixel centres are
    integers)."""
    scale = 0.5**level
    shift = 0.5 * scale - 0.5
    return np.array([[scale, 0, shift], [0, scale, shift], [0, 0, 1]])


def load_faces(photos: Path, labels: Path, part: str) -> list[LabelledFace]:
    """Load the faces of one part.

    Args:
        photos: folder with MANIFEST.csv.
        labels: file that `tools.faces.teacher` wrote.
        part: "train", "validation" or "test".

    Raises:
        ValueError: the labels do not belong to these photos.
    """
    with np.load(labels) as table:
        ids, found, mesh = table["ids"], table["found"], table["mesh"]
    row_of = {str(name): row for row, name in enumerate(ids)}
    faces = []
    for photo in read_manifest(photos):
        if photo.id not in row_of:
            raise ValueError(f"{labels}: no label for photo {photo.id}; run tools.faces.teacher on {photos}")
        row = row_of[photo.id]
        if split_of(photo.subject) != part or not found[row]:
            continue
        pixels = cv2.imread(str(photo.path), cv2.IMREAD_COLOR)
        pyramid = [to_luma(pixels)]
        while len(pyramid) < 4:
            pyramid.append(halve(pyramid[-1]))
        faces.append(LabelledFace(photo.id, photo.subject, photo.kind, tuple(pyramid), mesh[row]))
    return faces


def load_pictures(folder: Path | None) -> list[NDArray[np.uint8]]:
    """Load face-free pictures to use as backgrounds; an absent folder gives none."""
    if folder is None:
        return []
    pictures = [cv2.imread(str(path), cv2.IMREAD_COLOR) for path in sorted(folder.iterdir())]
    return [to_luma(pixels) for pixels in pictures if pixels is not None]
