"""Training samples of the detector: faces of any size laid over face-free backgrounds."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.face.tensors import INPUT_SIZE
from tools.faces.augment import degrade, occlude
from tools.faces.backgrounds import background, beside_face, shuffled, texture
from tools.faces.dataset import LabelledFace, level_matrix

Picture = NDArray[np.uint8]
SMALLEST_PX, LARGEST_PX = 8.0, 125.0
MOST_FACES = 5


@dataclass(frozen=True, slots=True)
class Scene:
    """One input of the detector with its truth."""

    picture: Picture
    faces: NDArray[np.float32]
    """(F, 3) float32: x, y of the centre and side of the square around the landmarks, px."""
    unclear: NDArray[np.float32]
    """(U, 3) float32: faces that darkness or noise hides; neither finding nor missing them is wrong."""


def face_extent(points: NDArray[np.float32]) -> tuple[float, float, float]:
    """Give x, y and side of a face as `edge.records.FaceBox` defines them, from its (N, 2) landmarks."""
    centre = points.mean(axis=0)
    return float(centre[0]), float(centre[1]), float(np.ptp(points, axis=0).max())


def _placed(
    face: LabelledFace, size: float, centre: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Give the (3, 3) matrix that lays a photo so that its face has `size` at `centre`, and the landmarks
    there."""
    points = face.landmarks.astype(np.float64)
    scale = size / np.ptp(points, axis=0).max()
    roll = np.radians(np.clip(rng.normal(0, 15), -38, 38))
    turn = scale * np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    turn = turn @ np.diag([np.exp(rng.normal(0, 0.06)) * rng.choice((-1, 1)), 1])
    matrix = np.eye(3)
    matrix[:2, :2] = turn
    matrix[:2, 2] = centre - turn @ points.mean(axis=0)
    return matrix, (points @ turn.T + matrix[:2, 2]).astype(np.float32)


def _lay(
    picture: Picture,
    face: LabelledFace,
    matrix: NDArray[np.float64],
    points: NDArray[np.float32],
    *,
    rng: np.random.Generator,
) -> None:
    """Lay a photo over `picture` in place: all of it, or only the head with a soft edge."""
    size = float(np.ptp(points, axis=0).max())
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
    level = int(np.clip(np.floor(np.log2(1 / scale) + rng.uniform(0, 0.7)), 0, len(face.pyramid) - 1))
    laid = (matrix @ np.linalg.inv(level_matrix(level)))[:2]
    shape = (picture.shape[1], picture.shape[0])
    photo = face.pyramid[level]
    drawn = cv2.warpAffine(photo, laid, shape, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    cover = cv2.warpAffine(np.full(photo.shape, 255, np.uint8), laid, shape)
    if rng.random() < 0.45:
        middle = points.mean(axis=0) - (0, 0.08 * size)
        oval = np.zeros(picture.shape, np.uint8)
        roll = float(np.degrees(np.arctan2(*(points[28] - points[19])[::-1])))
        axes = (max(2, round(size * rng.uniform(0.6, 0.8))), max(2, round(size * rng.uniform(0.75, 0.95))))
        cv2.ellipse(
            oval, (round(float(middle[0])), round(float(middle[1]))), axes, roll % 180, 0, 360, 255, -1
        )
        cover = np.minimum(cover, oval)
    share = cv2.GaussianBlur(cover, (0, 0), max(0.5, size * 0.03)).astype(np.float32) / 255
    share[cover == 0] = 0
    picture[:] = (picture * (1 - share) + drawn * share).astype(np.uint8)


def scene(faces: list[LabelledFace], pictures: list[Picture], rng: np.random.Generator) -> Scene:
    """Draw one training scene with 0 to 5 faces."""
    picture = background(INPUT_SIZE, faces, pictures, rng)
    truth: list[tuple[float, float, float]] = []
    if rng.random() < 0.35:
        _clutter(picture, faces, rng)
    wanted = int(rng.choice((0, 1, 2, 3, MOST_FACES), p=(0.3, 0.4, 0.16, 0.09, 0.05)))
    for _ in range(wanted):
        face = faces[int(rng.integers(len(faces)))]
        size = float(np.exp(rng.uniform(np.log(SMALLEST_PX), np.log(LARGEST_PX if not truth else 50))))
        # A face may be cut off by the border, but its centre stays in the picture.
        reach = min(size * 0.35, INPUT_SIZE / 2 - 1)
        centre = rng.uniform(reach, INPUT_SIZE - 1 - reach, 2)
        if any(np.hypot(*(centre - (x, y))) < 0.75 * (size + other) for x, y, other in truth):
            continue
        matrix, points = _placed(face, size, centre, rng)
        _lay(picture, face, matrix, points, rng=rng)
        truth.append(face_extent(points))
        if rng.random() < 0.15:
            spot = points[int(rng.integers(len(points)))]
            patch = background(INPUT_SIZE, faces, pictures, rng)
            occlude(picture, patch, (float(spot[0]), float(spot[1])), size * rng.uniform(0.2, 0.6), rng)
    if rng.random() < 0.2:
        _letterbox(picture, truth, rng)
    # Some stay as they are: a detector that never saw a sharp texture takes its edges for eyes.
    seen = degrade(picture, rng, finest=0.6) if rng.random() < 0.75 else picture.copy()
    table = np.array(truth, np.float32).reshape(-1, 3)
    clear = np.array([_is_clear(picture, seen, *face) for face in table], bool)
    return Scene(seen, table[clear], table[~clear])


def _is_clear(clean: Picture, seen: Picture, x: float, y: float, size: float) -> bool:
    """Say whether a face still shows after degrading: enough contrast, and more likeness than noise."""
    reach = 0.6 * size
    rows, columns = (slice(max(0, int(at - reach)), int(at + reach) + 1) for at in (y, x))
    before, after = clean[rows, columns].astype(np.float32), seen[rows, columns].astype(np.float32)
    if before.std() < 3 or after.std() < 3:
        return False
    return float(np.corrcoef(before.ravel(), after.ravel())[0, 1]) > 0.65


def _clutter(picture: Picture, faces: list[LabelledFace], rng: np.random.Generator) -> None:
    """Lay shuffled faces and shoulders over the background in place: what a detector mistakes for faces."""
    for _ in range(int(rng.integers(1, 4))):
        side = int(np.exp(rng.uniform(np.log(12), np.log(110))))
        face = faces[int(rng.integers(len(faces)))]
        if rng.random() < 0.6:
            x, y, size = face_extent(face.landmarks)
            reach = size * 0.6
            luma = face.pyramid[0]
            part = luma[max(0, int(y - reach)) : int(y + reach), max(0, int(x - reach)) : int(x + reach)]
            part = shuffled(
                cv2.resize(part, (120, 120), interpolation=cv2.INTER_AREA), int(rng.integers(2, 5)), rng
            )
        else:
            part = beside_face(face, 96, rng)
        part = cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA)
        left, top = (int(value) for value in rng.integers(0, INPUT_SIZE - side + 1, 2))
        picture[top : top + side, left : left + side] = part


def _letterbox(picture: Picture, truth: list[tuple[float, float, float]], rng: np.random.Generator) -> None:
    """Blank two opposite borders in place, as for a wide or tall frame, as far as no face is touched."""
    edge = int(rng.uniform(8, 45))
    flipped = rng.random() < 0.5
    rows = picture.T if flipped else picture
    spans = [(x, size) if flipped else (y, size) for x, y, size in truth]
    room = min((min(at, INPUT_SIZE - at) - 0.6 * size for at, size in spans), default=float(edge))
    edge = min(edge, int(room))
    if edge > 2:
        rows[:edge], rows[-edge:] = 0, 0


def face_free(faces: list[LabelledFace], pictures: list[Picture], rng: np.random.Generator) -> Picture:
    """Draw a picture without a face, degraded like any other, to count false faces on."""
    picture = background(INPUT_SIZE, faces, pictures, rng) if rng.random() < 0.7 else texture(INPUT_SIZE, rng)
    return degrade(picture, rng, finest=0.6)
