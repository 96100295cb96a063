"""Training samples of the landmark net: a crop around a face, placed as tracking or a detection would place
it."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.face.landmarks import INPUT_EYES_PX, INPUT_IOD_PX
from edge.face.tensors import INPUT_SIZE
from edge.records import LANDMARKS
from tools.faces.augment import degrade, occlude
from tools.faces.backgrounds import background, shuffled
from tools.faces.dataset import LabelledFace, level_matrix
from tools.faces.expressions import face_frame, render, repose
from tools.faces.photos import MESH_INDEX

Picture = NDArray[np.uint8]
Points = NDArray[np.float32]

MIRROR = tuple(
    LANDMARKS.index(name.replace("right", "LEFT").replace("left", "right").replace("LEFT", "left"))
    for name in LANDMARKS
)
"""Where each landmark's counterpart on the other side stands."""
NEGATIVE_SHARE = 0.18
BORDERS = (cv2.BORDER_REPLICATE, cv2.BORDER_REFLECT_101, cv2.BORDER_CONSTANT)


@dataclass(frozen=True, slots=True)
class Sample:
    """One input of the net with its truth."""

    picture: Picture
    points: Points
    """(56, 2) px of the picture; zeros where there is no well-placed face."""
    is_face: bool


def placement(rng: np.random.Generator, spread: float) -> NDArray[np.float64]:
    """Give a (3, 3) affine from the face's frame to the net's input.

    Args:
        spread: 1 for a first guess (25 deg, 25 % of size, 12 % of the side), less for steady tracking, 0
            exact.
    """
    roll = np.radians(np.clip(rng.normal(0, 12), -30, 30)) * spread
    scale = INPUT_IOD_PX * np.exp(np.clip(rng.normal(0, 0.11), -0.25, 0.25) * spread)
    aspect = np.exp(rng.normal(0, 0.04) * min(1.0, spread * 2))
    shear = rng.normal(0, 0.03) * min(1.0, spread * 2)
    shift = np.clip(rng.normal(0, 0.06, 2), -0.14, 0.14) * INPUT_SIZE * spread
    turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    matrix = np.eye(3)
    matrix[:2, :2] = scale * turn @ np.array([[aspect, shear], [0, 1 / aspect]])
    # Turn about the middle of the crop, not about the eyes, so that a rolled face stays inside.
    pivot = np.array([0, (INPUT_SIZE / 2 - INPUT_EYES_PX[1]) / INPUT_IOD_PX])
    matrix[:2, 2] = np.array(INPUT_EYES_PX) + scale * pivot + shift - matrix[:2, :2] @ pivot
    return matrix


def plain_crop(
    face: LabelledFace,
    crop_from_face: NDArray[np.float64],
    *,
    level: int | None = None,
    border: int = cv2.BORDER_REPLICATE,
) -> tuple[Picture, Points]:
    """Cut a face as photographed: the picture, (128, 128) uint8, and its landmarks, (56, 2) px."""
    points, photo_from_face = face_frame(face)
    if level is None:
        scale = np.sqrt(abs(np.linalg.det(crop_from_face[:2, :2])))
        level = int(np.clip(np.floor(np.log2(face.iod_px / scale)), 0, len(face.pyramid) - 1))
    level_from_crop = level_matrix(level) @ photo_from_face @ np.linalg.inv(crop_from_face)
    picture = cv2.warpAffine(
        face.pyramid[level], level_from_crop[:2], (INPUT_SIZE, INPUT_SIZE),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=border, borderValue=128,
    )  # fmt: skip
    flat = points[: len(MESH_INDEX), :2]
    return picture, (flat @ crop_from_face[:2, :2].T + crop_from_face[:2, 2]).astype(np.float32)


def mirrored(picture: Picture, points: Points) -> tuple[Picture, Points]:
    """Give the mirror image; right and left landmarks change places."""
    swapped = points[list(MIRROR)].copy()
    swapped[:, 0] = picture.shape[1] - 1 - swapped[:, 0]
    return np.ascontiguousarray(picture[:, ::-1]), swapped


def _negative(faces: list[LabelledFace], pictures: list[Picture], rng: np.random.Generator) -> Picture:
    """Give an input without a well-placed face: no face at all, a shuffled one, or a crop that misses it."""
    kind = rng.random()
    if kind < 0.45:
        return background(INPUT_SIZE, faces, pictures, rng)
    face = faces[int(rng.integers(len(faces)))]
    matrix = placement(rng, 1.0)
    if kind < 0.65:
        return shuffled(plain_crop(face, matrix)[0], int(rng.integers(2, 6)), rng)
    miss = rng.integers(3)
    if miss == 0:
        angle = rng.uniform(0, 2 * np.pi)
        matrix[:2, 2] += rng.uniform(0.45, 0.9) * INPUT_SIZE * np.array([np.cos(angle), np.sin(angle)])
    elif miss == 1:
        zoom = np.exp(rng.choice((-1, 1)) * rng.uniform(0.8, 1.6))
        matrix[:2] *= zoom
        matrix[:2, 2] += INPUT_SIZE / 2 * (1 - zoom)
    else:
        angle = np.radians(rng.uniform(75, 285))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        middle = np.full(2, INPUT_SIZE / 2)
        matrix[:2, 2] = turn @ (matrix[:2, 2] - middle) + middle
        matrix[:2, :2] = turn @ matrix[:2, :2]
    return plain_crop(face, matrix)[0]


def sample(faces: list[LabelledFace], pictures: list[Picture], rng: np.random.Generator) -> Sample:
    """Draw one training sample."""
    if rng.random() < NEGATIVE_SHARE:
        picture = _negative(faces, pictures, rng)
        return Sample(degrade(picture, rng), np.zeros((len(MESH_INDEX), 2), np.float32), is_face=False)
    face = faces[int(rng.integers(len(faces)))]
    spread = float(rng.choice((0.15, 0.5, 1.0), p=(0.4, 0.3, 0.3)))
    matrix = placement(rng, spread)
    border = int(rng.choice(BORDERS))
    if rng.random() < 0.6:
        sharpest = int(np.clip(np.floor(np.log2(face.iod_px / INPUT_IOD_PX)), 0, 3))
        level = 0 if rng.random() < 0.2 else sharpest
        picture, points = render(
            face, repose(face, rng), matrix, INPUT_SIZE, level=level, border=border, rng=rng
        )
    else:
        picture, points = plain_crop(face, matrix, border=border)
    if rng.random() < 0.5:
        picture, points = mirrored(picture, points)
    if rng.random() < 0.22:
        patch = background(INPUT_SIZE, faces, pictures, rng)
        place = points[int(rng.integers(len(points)))] + rng.normal(0, 15, 2)
        occlude(picture, patch, (float(place[0]), float(place[1])), rng.uniform(12, 60), rng)
    # A third of the pixels a side: a face of 40 px in the camera's picture, enlarged to fill the crop.
    return Sample(degrade(picture, rng, finest=0.3), points, is_face=True)
