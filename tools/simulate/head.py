"""The head behind a photo: its depth and its movable skin on a grid, from the visible side of the fitted model."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import LinearNDInterpolator

from tools.simulate.ict import FaceModel, Fit
from tools.simulate.skin import Patch

Floats = NDArray[np.float32]

_CELLS = 104
"""Side of the grid."""
_GRID_IOD = 3.4
"""Side of the square that the grid covers; the head with hair."""
_BESIDE_IOD, _ABOVE_IOD = 0.12, 0.13
"""How far a fine patch reaches beyond its eye or mouth."""
_FINER = 4
"""Rows of a fine patch for each of the grid's."""


@dataclass(frozen=True, slots=True)
class Head:
    """Depth and skin over one photo."""

    iod_px: float
    corner_px: Floats
    """(x, y) px of the photo where the grid begins."""
    step_px: float
    rest: Floats
    """(cells, cells, 3) px: x and y of the photo, z towards the camera."""
    hold: Floats
    """(cells, cells, 2): 1 on the head, 0 where the background stays; the same for x and y."""
    face: Patch
    """All skin that expressions move."""
    visible: NDArray[np.bool_]
    """The nodes of `face` that show the model's skin; at the others is hair, or what is near."""
    skin: LinearNDInterpolator
    """Photo px to depth and to the three components of each shape's movement, px."""

    @classmethod
    def make(cls, model: FaceModel, placed: Fit, centre_px: Floats, iod_px: float) -> "Head":
        """Lay the grid over the photo.

        Args:
            centre_px: (3,) the middle of the head; skin behind it is not seen.
        """
        step = _GRID_IOD * iod_px / (_CELLS - 1)
        corner = centre_px[:2] - _GRID_IOD * iod_px / 2
        axis = np.arange(_CELLS, dtype=np.float32) * step
        x, y = np.meshgrid(corner[0] + axis, corner[1] + axis)
        skin = _visible_skin(model, placed, float(centre_px[2]))
        at = skin(np.column_stack([x.ravel(), y.ravel()]))
        inside = np.isfinite(at[:, 0]).reshape(x.shape)
        at = np.nan_to_num(at).reshape(_CELLS, _CELLS, -1).astype(np.float32)
        blur = 0.12 * iod_px / step
        depth = _continued(at[:, :, 0], inside, float(centre_px[2]), 1.5 * blur)
        # Beyond the model's skin expressions fade out.
        rim = cv2.GaussianBlur(cv2.GaussianBlur(inside.astype(np.float32), (0, 0), blur), (0, 0), blur)
        moves = at[:, :, 1:] * (inside * np.clip(rim * 2 - 0.6, 0, 1))[:, :, None]
        moves = moves.reshape(_CELLS, _CELLS, -1, 3).transpose(2, 0, 1, 3)
        rows, columns = (np.flatnonzero(moves.any(axis=(0, 3)).any(axis=axis)) for axis in (1, 0))
        box = np.s_[max(rows[0] - 1, 0) : rows[-1] + 2, max(columns[0] - 1, 0) : columns[-1] + 2]
        face = Patch(
            corner + np.array([box[1].start, box[0].start]) * step,
            (step, step),
            np.ascontiguousarray(moves[:, box[0], box[1]], dtype=np.float32),
        )
        distance = np.hypot((x - centre_px[0]) / (1.15 * iod_px), (y - centre_px[1]) / (1.45 * iod_px))
        hold = np.clip((1.12 - distance) / 0.3, 0, 1).astype(np.float32)
        return cls(
            iod_px,
            corner.astype(np.float32),
            step,
            np.dstack([x, y, depth]).astype(np.float32),
            np.dstack([hold, hold]),
            face,
            inside[box],
            skin,
        )

    def about(self, points_px: Floats, below_iod: float) -> Patch:
        """Sample the skin finely about an eye or the mouth: there one cell would hold both lids or lips.

        Args:
            points_px: (N, 2) the opening's corners.
            below_iod: how far the patch reaches below them.
        """
        low = points_px.min(axis=0) - self.iod_px * np.array([_BESIDE_IOD, _ABOVE_IOD])
        high = points_px.max(axis=0) + self.iod_px * np.array([_BESIDE_IOD, below_iod])
        step = (self.step_px, self.step_px / _FINER)
        x, y = np.arange(low[0], high[0], step[0]), np.arange(low[1], high[1], step[1])
        moves = np.nan_to_num(self.skin(np.dstack(np.meshgrid(x, y)).reshape(-1, 2)))[:, 1:]
        moves = moves.reshape(len(y), len(x), -1, 3).transpose(2, 0, 1, 3)
        return Patch(low, step, np.ascontiguousarray(moves, dtype=np.float32))


def _visible_skin(model: FaceModel, placed: Fit, back_px: float) -> LinearNDInterpolator:
    """Interpolate depth and movement over the triangles that face the camera and lie before `back_px`."""
    vertices = placed.vertices
    normals = np.zeros_like(vertices)
    faces = np.cross(
        vertices[model.triangles[:, 1]] - vertices[model.triangles[:, 0]],
        vertices[model.triangles[:, 2]] - vertices[model.triangles[:, 0]],
    )
    for corner in range(3):
        np.add.at(normals, model.triangles[:, corner], faces)
    # The y axis was flipped, so outward normals point away from the camera (z < 0).
    seen = normals[:, 2] < -0.1 * np.linalg.norm(normals, axis=1)
    seen &= vertices[:, 2] > back_px
    moves = model.expressions[:, seen] @ placed.basis_px
    values = np.concatenate(
        [vertices[seen, 2][:, None], moves.transpose(1, 0, 2).reshape(seen.sum(), -1)], axis=1
    )
    return LinearNDInterpolator(vertices[seen, :2], values)


def _continued(depth: Floats, inside: NDArray[np.bool_], back: float, blur: float) -> Floats:
    """Let depth go on beyond the model's skin (hair, ears) as it is on the rim, and be `back` far from it."""
    weight = inside.astype(np.float32)
    grown, share = depth * weight, weight.copy()
    for _ in range(6):
        grown, share = (cv2.GaussianBlur(a, (0, 0), blur) for a in (grown, share))
        grown = np.where(inside, depth, grown / np.maximum(share, 1e-6)).astype(np.float32)
        share = np.maximum(weight, (share > 1e-4).astype(np.float32))
        grown *= share
    return np.asarray(cv2.GaussianBlur(np.where(share > 0, grown, np.float32(back)), (0, 0), 1.0), np.float32)
