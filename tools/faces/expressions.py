"""Give a photographed face another expression and pose: mesh points move, the picture follows.

The photos are mostly neutral or smiling and look at the camera. Blinking, speaking and turning faces are made
from them by moving the teacher's mesh (lids, lips, jaw, brows; a small 3-D rotation) and warping the picture
with a polyharmonic spline from the moved to the photographed points, so the labels stay exact.

Source: Duchon 1977, splines minimizing rotation-invariant semi-norms (kernel r in the plane, affine part).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.faces.dataset import LEFT_EYE_OUTER, RIGHT_EYE_OUTER, LabelledFace, level_matrix
from tools.faces.photos import MESH_INDEX

Points = NDArray[np.float32]

LIDS = (
    ((246, 7), (161, 163), (160, 144), (159, 145), (158, 153), (157, 154), (173, 155)),
    ((466, 249), (388, 390), (387, 373), (386, 374), (385, 380), (384, 381), (398, 382)),
)
"""(upper, lower) lid vertices of the right and the left eye."""
INNER_LIPS = (
    (191, 95),
    (80, 88),
    (81, 178),
    (82, 87),
    (13, 14),
    (312, 317),
    (311, 402),
    (310, 318),
    (415, 324),
)
OUTER_UPPER_LIP = (185, 40, 39, 37, 0, 267, 269, 270, 409)
OUTER_LOWER_LIP = (146, 91, 181, 84, 17, 314, 405, 321, 375)
MOUTH_CORNERS = ((61, 78), (291, 308))
BROWS = (
    ((71, 46), (63, 53), (105, 52), (66, 65), (107, 55)),
    ((301, 276), (293, 283), (334, 282), (296, 295), (336, 285)),
)
"""(upper, lower) edge of the right and the left brow, from outer to inner."""
JAW = {
    152: 1.0, 148: 1.0, 377: 1.0, 176: 0.95, 400: 0.95, 149: 0.9, 378: 0.9, 150: 0.8, 379: 0.8,
    136: 0.7, 365: 0.7, 172: 0.5, 397: 0.5, 58: 0.2, 288: 0.2, 18: 1.0, 200: 1.0, 199: 1.0, 175: 1.0,
}  # fmt: skip
"""How far each chin or jaw vertex follows the chin when the jaw opens."""
OVAL = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109)
INSIDE = (168, 6, 197, 5, 4, 1, 2, 98, 327, 129, 358, 50, 280, 205, 425, 151, 9, 117, 346)
CONTROL = tuple(
    dict.fromkeys(
        (
            *MESH_INDEX,
            *(
                vertex
                for pairs in (*LIDS, INNER_LIPS, MOUTH_CORNERS, *BROWS)
                for pair in pairs
                for vertex in pair
            ),
            *(*OUTER_UPPER_LIP, *OUTER_LOWER_LIP, *JAW, *OVAL, *INSIDE),
        )
    )
)
"""Mesh vertices that steer the warp; the 56 landmarks come first."""
ROW = {vertex: row for row, vertex in enumerate(CONTROL)}
RING = np.array(
    [(2.6 * np.cos(a), 0.4 + 2.6 * np.sin(a)) for a in np.linspace(0, 2 * np.pi, 16, endpoint=False)]
)
"""Points around the head that stay where they are, face frame."""


@dataclass(frozen=True, slots=True)
class Pose:
    """A face in its own frame: origin between the outer eye corners, IOD = 1, eyes level."""

    photographed: NDArray[np.float64]
    """(C, 3) control points as photographed."""
    moved: NDArray[np.float64]
    """(C, 3) control points with the new expression and pose."""
    photo_from_face: NDArray[np.float64]
    """(3, 3) similarity from this frame to px of the full-size photo."""
    mouth_gap: float
    """Opening that was added to the mouth, IOD."""


def face_frame(face: LabelledFace) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the control points in the face's own frame and the (3, 3) matrix back to the photo."""
    mesh = face.mesh.astype(np.float64)
    right, left = mesh[RIGHT_EYE_OUTER, :2], mesh[LEFT_EYE_OUTER, :2]
    x, y = left - right
    middle, iod = (right + left) / 2, float(np.hypot(x, y))
    photo_from_face = np.array([[x, -y, middle[0]], [y, x, middle[1]], [0, 0, 1]])
    points = mesh[list(CONTROL)]
    flat = (points[:, :2] - middle) @ np.array([[x, -y], [y, x]]) / iod**2
    depth = (points[:, 2:] - mesh[[RIGHT_EYE_OUTER, LEFT_EYE_OUTER], 2].mean()) / iod
    return np.hstack([flat, depth]), photo_from_face


def _express(points: NDArray[np.float64], rng: np.random.Generator) -> float:
    """Move lids, brows and mouth in place; gives the opening added to the mouth, IOD."""
    closing = rng.choice((rng.uniform(-0.35, 0.4), rng.uniform(0.5, 0.97)), p=(0.6, 0.4))
    for eye in LIDS:
        amount = closing if rng.random() < 0.93 else rng.uniform(0, 0.97)
        for upper, lower in eye:
            gap = points[ROW[lower]] - points[ROW[upper]]
            points[ROW[upper]] += 0.86 * amount * gap
            points[ROW[lower]] -= 0.12 * amount * gap
    lifts = rng.normal(0, 0.03, 2)
    for brow in BROWS:
        inner, outer = lifts if rng.random() < 0.8 else rng.normal(0, 0.03, 2)
        for place, pair in enumerate(brow):
            for vertex in pair:
                points[ROW[vertex], 1] -= outer + (inner - outer) * place / 4
    return _speak(points, rng)


def _speak(points: NDArray[np.float64], rng: np.random.Generator) -> float:
    """Move jaw and lips in place; gives the opening added to the mouth, IOD."""
    corners = np.array([points[ROW[outer], :2] for outer, _ in MOUTH_CORNERS])
    middle, half = corners.mean(axis=0), max(0.15, float(np.ptp(corners[:, 0])) / 2)
    gap = float(points[ROW[14], 1] - points[ROW[13], 1])
    opening = rng.choice(
        (rng.uniform(-gap, 0.03), rng.uniform(0, 0.12), rng.uniform(0.1, 0.36)), p=(0.3, 0.4, 0.3)
    )
    wider, raised = rng.normal(0, 0.035), rng.normal(0, 0.025)
    sneer = max(0.0, rng.normal(0, 0.02))
    lower = {v: 1.0 for pair in INNER_LIPS for v in pair[1:]} | dict.fromkeys(OUTER_LOWER_LIP, 1.0)
    upper = {v: 1.0 for pair in INNER_LIPS for v in pair[:1]} | dict.fromkeys(OUTER_UPPER_LIP, 1.0)
    ends = {v: 1.0 for pair in MOUTH_CORNERS for v in pair}
    for vertex in (*lower, *upper, *ends):
        point = points[ROW[vertex]]
        aside = float(np.clip((point[0] - middle[0]) / half, -1, 1))
        arch = 1 - aside**2
        if vertex in lower:
            point[1] += opening * (0.4 + 0.6 * arch)
        elif vertex in upper:
            point[1] += 0.4 * opening * (1 - arch) - sneer * arch
        else:
            point[1] += 0.4 * opening
        point[0] += (wider - 0.15 * max(0.0, opening)) * aside
        point[1] -= raised * aside**2
    for vertex, share in JAW.items():
        points[ROW[vertex], 1] += max(-0.5 * gap, opening) * share
    return max(0.0, opening)


def repose(
    face: LabelledFace, rng: np.random.Generator, *, most_yaw_deg: float = 16, most_pitch_deg: float = 12
) -> Pose:
    """Give a face a random expression and turn its head a little."""
    photographed, photo_from_face = face_frame(face)
    moved = photographed.copy()
    gap = _express(moved, rng)
    yaw, pitch = np.radians(rng.uniform(-1, 1, 2) * (most_yaw_deg, most_pitch_deg))
    cos_y, sin_y, cos_p, sin_p = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    turn = np.array(
        [[cos_y, 0, sin_y], [sin_y * sin_p, cos_p, -cos_y * sin_p], [-sin_y * cos_p, sin_p, cos_y * cos_p]]
    )
    pivot = np.array([0.0, 0.3, 0.9])  # about the neck joint's depth behind the eyes, IOD
    moved = (moved - pivot) @ turn.T + pivot
    return Pose(photographed, moved, photo_from_face, gap)


def _spline_map(
    target: NDArray[np.float64], source: NDArray[np.float64], size: int, step: int
) -> tuple[Points, Points]:
    """Give cv2.remap maps, (size, size) each, of the spline that takes `target` points to `source` points."""
    count = len(target)
    reach = np.linalg.norm(target[:, None] - target[None], axis=2)
    system = np.zeros((count + 3, count + 3))
    # A trace of smoothing keeps shut lids (two points at almost one place) from tearing the picture.
    system[:count, :count] = reach - 0.05 * np.eye(count)
    system[:count, count:] = np.hstack([np.ones((count, 1)), target])
    system[count:, :count] = system[:count, count:].T
    weights = np.linalg.solve(system, np.vstack([source, np.zeros((3, 2))])).astype(np.float32)
    cells = size // step + 1
    axis = np.arange(cells, dtype=np.float32) * step
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    points = target.astype(np.float32)
    squared = (grid**2).sum(1)[:, None] + (points**2).sum(1)[None] - 2 * grid @ points.T
    kernel = np.sqrt(np.maximum(squared, 0))
    coarse = kernel @ weights[:count] + weights[count] + grid @ weights[count + 1 :]
    coarse = coarse.reshape(cells, cells, 2)
    # Grid nodes lie at multiples of `step`; warpAffine places them exactly, cv2.resize would shift by half a
    # cell.
    spread = np.array([[step, 0, 0], [0, step, 0]], np.float32)
    fine = cv2.warpAffine(
        coarse, spread, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.ascontiguousarray(fine[..., 0]), np.ascontiguousarray(fine[..., 1])


def render(
    face: LabelledFace, pose: Pose, crop_from_face: NDArray[np.float64], size: int, *, level: int, border: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], Points]:  # fmt: skip
    """Draw the reposed face.

    Args:
        crop_from_face: (3, 3) affine from the face's frame to px of the picture wanted.
        size: side of that picture, px.
        level: pyramid level of the photo to draw from.
        border: OpenCV border mode beyond the photo.

    Returns:
        The picture, (size, size) uint8, and the 56 landmarks in it, (56, 2) float32 px.
    """
    target = np.vstack([pose.moved[:, :2], RING]) @ crop_from_face[:2, :2].T + crop_from_face[:2, 2]
    level_from_face = level_matrix(level) @ pose.photo_from_face
    source = np.vstack([pose.photographed[:, :2], RING]) @ level_from_face[:2, :2].T + level_from_face[:2, 2]
    map_x, map_y = _spline_map(target, source, size, 2)
    picture = cv2.remap(face.pyramid[level], map_x, map_y, cv2.INTER_LINEAR, borderMode=border)
    if pose.mouth_gap > 0.03:
        _fill_mouth(picture, target, rng)
    return picture, target[: len(MESH_INDEX)].astype(np.float32)


def _fill_mouth(picture: NDArray[np.uint8], points: NDArray[np.float64], rng: np.random.Generator) -> None:
    """Darken the opened mouth in place, with or without a row of teeth, instead of smeared lips."""
    ring = [78, *(upper for upper, _ in INNER_LIPS), 308, *(lower for _, lower in reversed(INNER_LIPS))]
    outline = points[[ROW[vertex] for vertex in ring]]
    mask = np.zeros(picture.shape, np.float32)
    fixed = np.round(outline * 16).astype(np.int32)
    cv2.fillPoly(mask, [fixed], 1.0, cv2.LINE_8, 4)
    mask = cv2.GaussianBlur(mask, (0, 0), 0.7) * np.float32(rng.uniform(0.5, 1.0))
    shade = np.full(picture.shape, rng.uniform(0.1, 0.5) * float(picture.mean()), np.float32)
    if rng.random() < 0.5:
        top, bottom = outline[5], outline[len(INNER_LIPS) + 6]
        depth = rng.uniform(0.15, 0.5)
        teeth = outline.copy()
        teeth[len(INNER_LIPS) + 2 :] = teeth[1 : len(INNER_LIPS) + 1][::-1] + (bottom - top) * depth
        bright = rng.uniform(0.8, 1.6) * float(picture.mean())
        cv2.fillPoly(shade, [np.round(teeth * 16).astype(np.int32)], bright, cv2.LINE_8, 4)
    picture[:] = np.clip(picture * (1 - mask) + shade * mask, 0, 255).astype(np.uint8)
