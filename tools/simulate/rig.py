"""A face photo that can be moved: expressions of the ICT model, head attitude, gaze, any camera.

The photo is the texture; the fitted model says where every point of it goes, in three dimensions. A frame
is rendered by looking up, for every sensor pixel, the photo point that moved there. Lids slide over the
eyeball and lips over the mouth's inside, because skin and inside are two layers.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import LinearNDInterpolator

from edge.records import LANDMARKS
from tools.simulate.ict import FaceModel, fit

Floats = NDArray[np.float32]

_CELLS = 104
"""Side of the displacement grid."""
_GRID_IOD = 3.4
"""Side of the square that the grid covers, IOD; the head with hair."""

_EYES = {
    side: tuple(
        LANDMARKS.index(f"{side}_eye_{name}")
        for name in ("outer", "upper_outer", "upper_inner", "inner", "lower_inner", "lower_outer")
    )
    for side in ("right", "left")
}
_MOUTH = tuple(index for index, name in enumerate(LANDMARKS) if name.startswith("inner_"))


@dataclass(frozen=True, slots=True)
class Pose:
    """Where the head is, against the photo."""

    yaw: float = 0.0
    """Radians, positive to the subject's left."""
    pitch: float = 0.0
    """Radians, positive down."""
    roll: float = 0.0
    shift_iod: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0


class Rig:
    """One photo, fitted.

    Args:
        photo: (rows, columns) uint8 luma.
        points_px: (56, 2) landmarks in the photo.
        depth_px: (56,) towards the camera, px; a rough guess will do.

    Attributes:
        shapes: names of the model's shapes in the order of the weights that `render` takes.
        iod_px: inter-ocular distance in the photo.
    """

    def __init__(
        self, model: FaceModel, photo: NDArray[np.uint8], points_px: Floats, depth_px: Floats
    ) -> None:
        self.photo = photo
        self.shapes = model.expression_names
        right, left = (
            points_px[LANDMARKS.index("right_eye_outer")],
            points_px[LANDMARKS.index("left_eye_outer")],
        )
        self.iod_px = float(np.linalg.norm(right - left))
        placed = fit(model, points_px, depth_px)
        self._moves_landmarks = (model.expressions[:, model.landmark_vertices] @ placed.basis_px).astype(
            np.float32
        )
        self._landmarks = np.column_stack([points_px, placed.vertices[model.landmark_vertices, 2]]).astype(
            np.float32
        )
        centre = (right + left) / 2
        self._centre = np.array(
            [centre[0], centre[1] + 0.4 * self.iod_px, self._landmarks[:, 2].mean() - 0.7 * self.iod_px],
            np.float32,
        )
        """Middle of the head, about which it turns: 0.7 IOD behind the landmarks' mean."""
        self._make_grid(model, placed.vertices, placed.basis_px, points_px)
        self._make_layers(points_px)

    def _make_grid(self, model: FaceModel, vertices: Floats, basis_px: Floats, points_px: Floats) -> None:
        side = _GRID_IOD * self.iod_px
        self._step = side / (_CELLS - 1)
        self._corner = self._centre[:2] - side / 2
        axis = np.arange(_CELLS, dtype=np.float32) * self._step
        x, y = np.meshgrid(self._corner[0] + axis, self._corner[1] + axis)
        normals = np.zeros_like(vertices)
        faces = np.cross(
            vertices[model.triangles[:, 1]] - vertices[model.triangles[:, 0]],
            vertices[model.triangles[:, 2]] - vertices[model.triangles[:, 0]],
        )
        for corner in range(3):
            np.add.at(normals, model.triangles[:, corner], faces)
        # The y axis was flipped, so outward normals point away from the camera (z < 0).
        seen = normals[:, 2] < -0.1 * np.linalg.norm(normals, axis=1)
        seen &= vertices[:, 2] > self._centre[2]
        moves = model.expressions[:, seen] @ basis_px
        values = np.concatenate(
            [vertices[seen, 2][:, None], moves.transpose(1, 0, 2).reshape(seen.sum(), -1)], axis=1
        )
        at = LinearNDInterpolator(vertices[seen, :2], values)(np.column_stack([x.ravel(), y.ravel()]))
        inside = np.isfinite(at[:, 0]).reshape(x.shape)
        at = np.nan_to_num(at).reshape(_CELLS, _CELLS, -1).astype(np.float32)
        # Beyond the model's skin (hair, ears) depth goes on as on the rim and expressions fade out.
        blur = 0.12 * self.iod_px / self._step
        rim = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), blur)
        weight = inside.astype(np.float32)
        depth, share = at[:, :, 0] * weight, weight.copy()
        for _ in range(6):
            depth, share = (cv2.GaussianBlur(a, (0, 0), blur * 1.5) for a in (depth, share))
            depth = np.where(inside, at[:, :, 0], depth / np.maximum(share, 1e-6)).astype(np.float32)
            share = np.maximum(weight, (share > 1e-4).astype(np.float32))
            depth *= share
        depth = np.where(share > 0, depth, self._centre[2]).astype(np.float32)
        self._depth = cv2.GaussianBlur(depth, (0, 0), 1.0)
        moves = at[:, :, 1:] * np.where(inside, 1.0, 0.0)[:, :, None]
        soft = cv2.GaussianBlur(rim, (0, 0), blur)
        self._moves = np.ascontiguousarray(
            (moves * np.clip(soft * 2 - 0.6, 0, 1)[:, :, None])
            .reshape(_CELLS, _CELLS, len(self.shapes), 3)
            .transpose(2, 0, 1, 3)
        ).astype(np.float32)
        self._close_over_eyes(points_px)
        distance = np.hypot(
            (x - self._centre[0]) / (1.15 * self.iod_px), (y - self._centre[1]) / (1.45 * self.iod_px)
        )
        self._hold = np.clip((1.12 - distance) / 0.3, 0, 1).astype(np.float32)[:, :, None]
        """1 on the head, 0 where the background stays."""
        self._rest = np.dstack([x, y, self._depth]).astype(np.float32)
        self._skin = inside
        self._cells = np.dstack(np.meshgrid(np.arange(_CELLS), np.arange(_CELLS))).astype(np.float32)
        self._camera: _Camera | None = None

    def _close_over_eyes(self, points_px: Floats) -> None:
        """Let the lid's displacement reach across the eye's opening, where the model has a hole."""
        for corners in _EYES.values():
            outline = _smooth_outline(points_px[list(corners)])
            grid = (outline - self._corner) / self._step
            for column in range(int(np.ceil(grid[:, 0].min())), int(grid[:, 0].max()) + 1):
                crossing = _crossings(grid, float(column))
                if crossing is None:
                    continue
                top, bottom = crossing
                first, last = int(np.floor(top - 0.6)), int(np.ceil(bottom + 0.6))
                rows = np.arange(first + 1, last)
                share = np.clip((rows - top) / max(bottom - top, 1.0), 0, 1)
                lower = np.clip((share - 0.6) / 0.35, 0, 1)[None, :, None]
                above, below = self._moves[:, first, column], self._moves[:, last, column]
                self._moves[:, rows, column] = above[:, None] * (1 - lower) + below[:, None] * lower

    def _make_layers(self, points_px: Floats) -> None:
        scale = 2  # the masks' edge is drawn at twice the photo's resolution, then averaged
        mask = np.zeros((self.photo.shape[0] * scale, self.photo.shape[1] * scale), np.uint8)
        inner = self.photo.copy()
        for corners in _EYES.values():
            outline = _smooth_outline(points_px[list(corners)])
            cv2.fillPoly(mask, [np.rint(outline * scale).astype(np.int32)], 255)
        mouth = points_px[list(_MOUTH)]
        gap = float(np.ptp(mouth[:, 1]))
        cv2.fillPoly(mask, [np.rint(mouth * scale).astype(np.int32)], 255)
        low, high = mouth.min(axis=0) - 3, mouth.max(axis=0) + 3
        rows = slice(max(int(low[1]), 0), max(int(high[1]) + 1, 1))
        columns = slice(max(int(low[0]), 0), max(int(high[0]) + 1, 1))
        if gap < 0.06 * self.iod_px:  # closed lips: behind them it is dark
            inner[rows, columns] = (0.35 * self.photo[rows, columns].mean()).astype(np.uint8)
        self._opening = cv2.resize(mask, self.photo.shape[::-1], interpolation=cv2.INTER_AREA)
        self._inner = inner
        self.eye_open_iod = float(
            np.mean([np.ptp(points_px[list(corners)][[1, 2, 4, 5], 1]) for corners in _EYES.values()])
            / self.iod_px
        )

    def size_of(self, weights: Floats) -> float:
        """Give the greatest displacement of visible skin that `weights` (55,) makes, in IOD (99.5th percentile)."""
        moved = np.tensordot(weights, self._moves[:, :, :, :2], 1)
        return float(np.percentile(np.linalg.norm(moved[self._skin], axis=1), 99.5) / self.iod_px)

    def _place(self, points: Floats, pose: Pose) -> Floats:
        """Turn, scale and shift (..., 3) px about the head's middle; weak perspective at 7 IOD distance."""
        cy, sy, cp, sp, cr, sr = (f(a) for a in (pose.yaw, pose.pitch, pose.roll) for f in (np.cos, np.sin))
        turn = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]]) @ np.array(
            [[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]]
        )
        turn = turn @ np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
        from_centre = points.reshape(-1, 3) - self._centre
        turned = from_centre @ np.asarray(pose.scale * turn.T, np.float32)
        nearer = 1 / (1 - (turned[:, 2] - from_centre[:, 2]) * np.float32(1 / (7.0 * self.iod_px)))
        shift = np.array([*pose.shift_iod, 0.0], np.float32) * np.float32(self.iod_px)
        turned *= nearer[:, None]
        return np.asarray((turned + (self._centre + shift)).reshape(points.shape), np.float32)

    def landmarks(self, weights: Floats, pose: Pose) -> Floats:
        """Give the true landmarks (56, 2) px, photo frame, for shape weights (55,) and a pose."""
        active = np.flatnonzero(weights)
        moved = self._landmarks + np.tensordot(weights[active], self._moves_landmarks[active], 1)
        return self._place(moved.astype(np.float32), pose)[:, :2]

    def render(
        self,
        weights: Floats,
        pose: Pose,
        gaze_iod: tuple[float, float],
        sensor_from_photo: Floats,
        size: tuple[int, int],
    ) -> NDArray[np.uint8]:
        """Render one frame without noise.

        Args:
            weights: (55,) of the model's shapes.
            gaze_iod: shift of the eyeballs' texture, IOD.
            sensor_from_photo: (2, 3) affine, photo px to sensor px.
            size: (width, height) of the sensor.

        Returns:
            (height, width) uint8.
        """
        if self._camera is None or not self._camera.fits(sensor_from_photo, size):
            self._camera = _Camera.make(sensor_from_photo, size, self._corner, self._step)
        camera = self._camera
        active = np.flatnonzero(weights)
        head = self._backward(self._rest, pose)
        moved = self._rest
        if len(active):
            moved = moved + np.tensordot(weights[active], self._moves[active], 1)
        x, y = camera.look_up(self._backward(moved, pose) if len(active) else head)
        result = np.asarray(cv2.remap(self.photo, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
        opening = cv2.remap(self._opening, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        rows, columns = np.flatnonzero(opening.any(axis=1)), np.flatnonzero(opening.any(axis=0))
        if len(rows) and len(columns):
            box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            x, y = camera.look_up(head - np.array(gaze_iod, np.float32) * self.iod_px, box)
            inside = cv2.remap(self._inner, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            share = opening[box].astype(np.float32) / 255
            result[box] = np.rint(result[box] + share * (inside.astype(np.float32) - result[box])).astype(
                np.uint8
            )
        return result

    def _backward(self, moved: Floats, pose: Pose) -> Floats:
        """Give where each grid point's content comes from, as a shift (cells, cells, 2) px of the photo."""
        forward = ((self._place(moved, pose) - self._rest)[:, :, :2] * self._hold).astype(np.float32)
        shift = -forward
        for _ in range(4):  # fixed point of shift(x) = -forward(x + shift(x))
            where = self._cells + shift / self._step
            shift = -cv2.remap(forward, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(shift, np.float32)


@dataclass(frozen=True, slots=True)
class _Camera:
    """Sensor pixels as photo coordinates, computed once per camera."""

    matrix: Floats
    size: tuple[int, int]
    x: Floats
    y: Floats
    grid_from_sensor: NDArray[np.float64]

    @classmethod
    def make(cls, sensor_from_photo: Floats, size: tuple[int, int], corner: Floats, step: float) -> "_Camera":
        inverse = cv2.invertAffineTransform(sensor_from_photo.astype(np.float64))
        row, column = np.mgrid[0 : size[1], 0 : size[0]].astype(np.float64)
        x = inverse[0, 0] * column + inverse[0, 1] * row + inverse[0, 2]
        y = inverse[1, 0] * column + inverse[1, 1] * row + inverse[1, 2]
        grid = inverse / step
        grid[:, 2] -= corner / step
        return cls(sensor_from_photo.copy(), size, x.astype(np.float32), y.astype(np.float32), grid)

    def fits(self, sensor_from_photo: Floats, size: tuple[int, int]) -> bool:
        return size == self.size and bool(np.array_equal(sensor_from_photo, self.matrix))

    def look_up(self, shift: Floats, box: tuple[slice, slice] | None = None) -> tuple[Floats, Floats]:
        """Give the photo x and y for every sensor pixel (of `box`) from the grid's shifts."""
        matrix, size = self.grid_from_sensor, self.size
        rows, columns = box or (slice(0, size[1]), slice(0, size[0]))
        if box:
            matrix = matrix.copy()
            matrix[:, 2] += matrix[:, :2] @ np.array([columns.start, rows.start])
            size = (columns.stop - columns.start, rows.stop - rows.start)
        fine = cv2.warpAffine(
            shift,
            matrix,
            size,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return self.x[rows, columns] + fine[:, :, 0], self.y[rows, columns] + fine[:, :, 1]


def _smooth_outline(corners: Floats) -> Floats:
    """Give 24 points on a closed Catmull-Rom curve through the six points of an eye."""
    before, after, beyond = (np.roll(corners, shift, axis=0) for shift in (1, -1, -2))
    pieces = []
    for share in (0.0, 0.25, 0.5, 0.75):
        square, cube = share**2, share**3
        pieces.append(
            0.5
            * (
                2 * corners
                + (after - before) * share
                + (2 * before - 5 * corners + 4 * after - beyond) * square
                + (3 * corners - before - 3 * after + beyond) * cube
            )
        )
    return np.stack(pieces, axis=1).reshape(-1, 2).astype(np.float32)


def _crossings(outline: Floats, column: float) -> tuple[float, float] | None:
    """Give the rows where a vertical line at `column` enters and leaves the outline."""
    rows = []
    for start, end in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        low, high = sorted((float(start[0]), float(end[0])))
        if low <= column < high:
            rows.append(float(start[1] + (end[1] - start[1]) * (column - start[0]) / (end[0] - start[0])))
    return (min(rows), max(rows)) if len(rows) >= 2 else None
