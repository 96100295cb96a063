"""The ICT face model: neutral head, expression and identity bases, and its fit to a photo's landmarks.

Li et al., "Learning Formation of Physically-Based Face Attributes", CVPR 2020; github.com/ICT-VGL/ICT-FaceKit,
MIT. The file read here holds the model's light version as arrays (`neutral`, `triangles`,
`expression_names`, `expression_deltas`, `identity_deltas`, `landmarks68`), centimetres, x to the subject's
left, y up, z towards the camera.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.records import LANDMARKS

_FACE_VERTICES = 11248
"""Face, head and neck come first in the vertex list; sockets, gums, teeth and eyeballs follow."""

_POSITION_ONLY = {"chin": 8, "right_jaw": 4, "left_jaw": 12, "right_temple": 0, "left_temple": 16}
"""Multi-PIE 68 numbers of the landmarks that are not among its 51 inner points."""

INNER = tuple(index for index, name in enumerate(LANDMARKS) if name not in _POSITION_ONLY)


@dataclass(frozen=True, slots=True)
class FaceModel:
    """The arrays of the model, expressions as float32."""

    neutral: NDArray[np.float32]
    """(V, 3) cm, skin only."""
    triangles: NDArray[np.int32]
    """(T, 3), skin only."""
    expression_names: tuple[str, ...]
    expressions: NDArray[np.float32]
    """(55, V, 3) cm at weight 1."""
    identities: NDArray[np.float32]
    """(20, V, 3) cm at coefficient 1."""
    landmark_vertices: NDArray[np.int32]
    """(56,) vertex of each of our landmarks."""

    @property
    def iod_cm(self) -> float:
        """Inter-ocular distance of the neutral head."""
        right, left = (LANDMARKS.index(f"{side}_eye_outer") for side in ("right", "left"))
        ends = self.neutral[self.landmark_vertices[[right, left]]]
        return float(np.linalg.norm(ends[0] - ends[1]))


def load(path: Path) -> FaceModel:
    """Read the model from `ict_expressions.npz`."""
    arrays = np.load(path)
    triangles = arrays["triangles"].astype(np.int32)
    numbers = [_POSITION_ONLY.get(name, 17 + index) for index, name in enumerate(LANDMARKS)]
    return FaceModel(
        neutral=arrays["neutral"][:_FACE_VERTICES].astype(np.float32),
        triangles=triangles[(triangles < _FACE_VERTICES).all(axis=1)],
        expression_names=tuple(str(name) for name in arrays["expression_names"]),
        expressions=arrays["expression_deltas"][:, :_FACE_VERTICES].astype(np.float32),
        identities=arrays["identity_deltas"][:, :_FACE_VERTICES].astype(np.float32),
        landmark_vertices=arrays["landmarks68"][numbers].astype(np.int32),
    )


@dataclass(frozen=True, slots=True)
class Fit:
    """A head of the model placed on a photo by scaled orthography."""

    vertices: NDArray[np.float32]
    """(V, 3) px: x right, y down as in the photo, z towards the camera; the face as the photo shows it."""
    basis_px: NDArray[np.float32]
    """(3, 3): a displacement in model centimetres times this is one in px of `vertices`."""


def fit(model: FaceModel, points_px: NDArray[np.float32], depth_px: NDArray[np.float32]) -> Fit:
    """Place the model on the 56 landmarks of a photo.

    Args:
        points_px: (56, 2) px.
        depth_px: (56,) px, towards the camera; only sets the first guess of the head's attitude.

    The attitude comes from a 3-D Procrustes fit, identity and expression from ridge regression on the 2-D
    residual, three rounds. What is left (a few px) is spread smoothly over the skin, so that lids and lips
    lie where the photo has them.
    """
    inner = np.array(INNER)
    target = np.column_stack([points_px[inner], -depth_px[inner]]).astype(np.float64)
    target[:, 1:] *= -1.0  # to the model's axes: y up, z to the camera
    names = model.expression_names
    shapes = [index for index, name in enumerate(names) if not name.startswith(("eyeLook", "cheekPuff"))]
    basis = np.concatenate([model.identities, model.expressions[shapes]]).astype(np.float64)
    penalty = np.concatenate([np.full(len(model.identities), 1.0), np.full(len(shapes), 6.0)])
    corners = model.landmark_vertices[inner]
    at_landmarks = basis[:, corners]
    coefficients = np.zeros(len(basis))
    for _ in range(4):
        points = model.neutral[corners] + np.tensordot(coefficients, at_landmarks, 1)
        scale, rotation, shift = _similarity(points, target)
        projected = scale * points @ rotation.T + shift
        target[:, 2] = projected[:, 2]  # after the first round only the photo's two axes count
        rows = scale * (at_landmarks @ rotation.T)[:, :, :2].reshape(len(basis), -1).T
        residual = (target - projected)[:, :2].ravel() + rows @ coefficients
        ridge = np.diag(penalty) * (0.15 * scale) ** 2  # a landmark is trusted to about 1.5 mm
        coefficients = np.linalg.solve(rows.T @ rows + ridge, rows.T @ residual)
        expression = coefficients[len(model.identities) :]
        coefficients[len(model.identities) :] = np.clip(expression, 0.0, 1.2)
        coefficients[: len(model.identities)] = np.clip(coefficients[: len(model.identities)], -3.0, 3.0)
    flip = np.diag([1.0, -1.0, 1.0])
    vertices = model.neutral + np.tensordot(coefficients, basis, 1)
    placed = (scale * vertices @ rotation.T + shift) @ flip
    wanted = np.column_stack([points_px[inner], placed[corners, 2]])
    placed += _spread(placed[corners, :2], wanted - placed[corners], placed[:, :2], scale)
    return Fit(placed.astype(np.float32), (scale * rotation.T @ flip).astype(np.float32))


def _similarity(
    points: NDArray[np.float64], target: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Give scale, rotation and shift of the least-squares similarity (Umeyama 1991, eq. 40-42)."""
    mean, target_mean = points.mean(axis=0), target.mean(axis=0)
    left, singular, right = np.linalg.svd((target - target_mean).T @ (points - mean))
    handed = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    rotation = left @ np.diag(handed) @ right
    scale = float((singular * handed).sum() / ((points - mean) ** 2).sum())
    return scale, rotation, target_mean - scale * rotation @ mean


def _spread(
    where: NDArray[np.float64], residual: NDArray[np.float64], points: NDArray[np.float64], scale: float
) -> NDArray[np.float64]:
    """Interpolate the landmark residual over the skin with Gaussians of 1.2 cm, fading beyond 3 cm."""

    def kernel(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        squared = ((a[:, None] - b[None]) ** 2).sum(axis=2)
        return np.asarray(np.exp(-squared / (2 * (1.2 * scale) ** 2)))

    weights = np.linalg.solve(kernel(where, where) + 0.05 * np.eye(len(where)), residual)
    return kernel(points, where) @ weights
