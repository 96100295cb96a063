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

_STRIDE_IOD = 0.03
_ROUNDS = 6
_SETTLED_IOD = 0.001
"""A tenth of a pixel on a face of 100 px IOD; what is left after the last round is less than a tenth of it."""

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

    @classmethod
    def of(cls, row: NDArray[np.floating]) -> "Pose":
        """Read (yaw, pitch, roll, shift x, shift y, log scale)."""
        yaw, pitch, roll, x, y, log_scale = (float(value) for value in row)
        return cls(yaw, pitch, roll, (x, y), float(np.exp(log_scale)))


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
        at_landmarks = model.expressions[:, model.landmark_vertices] @ placed.basis_px
        self._moves_landmarks = at_landmarks.reshape(len(self.shapes), -1).astype(np.float32)
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
        self._hold = np.repeat(self._hold, 2, axis=2)  # numpy is slow where it must repeat along a short axis
        self._rest = np.dstack([x, y, self._depth]).astype(np.float32)
        self._rest_xy = np.ascontiguousarray(self._rest[:, :, :2])
        self._skin = inside
        rows, columns = (np.flatnonzero(self._moves.any(axis=(0, 3)).any(axis=axis)) for axis in (1, 0))
        self._skin_box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        self._camera: _Camera | None = None
        self._projected = (Pose(scale=0.0), np.zeros((3, 4)))

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
        opening = cv2.resize(mask, self.photo.shape[::-1], interpolation=cv2.INTER_AREA)
        self._layers = [_Layers(0, self.photo, inner, opening)]
        while self.iod_px / 2 ** len(self._layers) > 35:
            self._layers.append(self._layers[-1].halved())
        self.eye_open_iod = float(
            np.mean([np.ptp(points_px[list(corners)][[1, 2, 4, 5], 1]) for corners in _EYES.values()])
            / self.iod_px
        )

    def size_of(self, weights: Floats) -> float:
        """Give the greatest displacement of visible skin that `weights` (55,) makes, in IOD (99.5th percentile)."""
        moved = np.tensordot(weights, self._moves[:, :, :, :2], 1)
        return float(np.percentile(np.linalg.norm(moved[self._skin], axis=1), 99.5) / self.iod_px)

    def _projection(self, pose: Pose) -> NDArray[np.float64]:
        """Give the (3, 4) matrix that takes a point, px, to where it is seen, in homogeneous coordinates.

        The head is turned about its middle, scaled, shifted and seen in weak perspective from 7 IOD: a point
        that has not moved towards the camera has the third coordinate 1.
        """
        if self._projected[0] == pose:
            return self._projected[1]
        cy, sy, cp, sp, cr, sr = (
            float(f(a)) for a in (pose.yaw, pose.pitch, pose.roll) for f in (np.cos, np.sin)
        )
        turn = pose.scale * np.array(
            [
                [cr * cy, cr * sy * -sp - sr * cp, cr * sy * cp - sr * sp],
                [sr * cy, sr * sy * -sp + cr * cp, sr * sy * cp + cr * sp],
                [-sy, cy * -sp, cy * cp],
            ]
        )
        turn[2] = (np.array([0.0, 0.0, 1.0]) - turn[2]) / (7.0 * self.iod_px)
        shift = -turn @ self._centre
        shift[2] += 1.0
        matrix = np.column_stack([turn, shift])
        target = self._centre[:2] + np.array(pose.shift_iod) * self.iod_px
        matrix[:2] += target[:, None] * matrix[2]
        self._projected = (pose, matrix)
        return matrix

    def landmarks(self, weights: Floats, pose: Pose) -> Floats:
        """Give the true landmarks (56, 2) px, photo frame, for shape weights (55,) and a pose."""
        moved = self._landmarks + (weights @ self._moves_landmarks).reshape(-1, 3)
        matrix = self._projection(pose)
        seen = moved @ matrix[:, :3].T + matrix[:, 3]
        return np.asarray(seen[:, :2] / seen[:, 2:], np.float32)

    def render(
        self,
        weights: Floats,
        pose: Pose,
        gaze_iod: tuple[float, float],
        sensor_from_photo: Floats,
        size: tuple[int, int],
        landmarks_px: Floats | None = None,
    ) -> NDArray[np.uint8]:
        """Render one frame without noise.

        Args:
            weights: (55,) of the model's shapes.
            gaze_iod: shift of the eyeballs' texture, IOD.
            sensor_from_photo: (2, 3) affine, photo px to sensor px.
            size: (width, height) of the sensor.
            landmarks_px: (56, 2) of this state on the sensor, where the caller has them.

        Returns:
            (height, width) uint8.
        """
        if self._camera is None or not self._camera.fits(sensor_from_photo, size):
            self._camera = self._camera_of(sensor_from_photo, size)
        camera = self._camera
        layers = self._layers[camera.level]
        forward, head = self._head(pose, camera)
        skin = camera.look_up(self._moved_skin(weights, pose, forward, head, camera))
        result = layers.look_up(layers.skin, skin)
        points = landmarks_px
        if points is None:
            points = self.landmarks(weights, pose) @ sensor_from_photo[:, :2].T + sensor_from_photo[:, 2]
        margin = 2 + 0.06 * self.iod_px * float(np.hypot(*sensor_from_photo[:, 0]))
        gaze = np.array(gaze_iod, np.float32) * np.float32(self.iod_px * 0.5**camera.level)
        for corners in (*_EYES.values(), _MOUTH):
            low = np.maximum(np.floor(points[list(corners)].min(axis=0) - margin), 0).astype(int)
            high = np.minimum(np.ceil(points[list(corners)].max(axis=0) + margin), size).astype(int)
            if (low >= high).any():
                continue
            box = np.s_[low[1] : high[1], low[0] : high[0]]
            opening = layers.look_up(layers.opening, skin[box])
            where = camera.look_up_box(head, box)
            if corners is not _MOUTH:
                where -= gaze
            inside = layers.look_up(layers.inner, where)
            seen = result[box]
            change = np.subtract(inside, seen, dtype=np.int16) * opening.astype(np.int16)
            seen += ((change + 127) // 255).astype(np.uint8)  # modulo 256: a fall wraps to where it should be
        return result

    def backdrop(self, sensor_from_photo: Floats, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Give the photo as the camera sees it, unmoved: what surrounds the head."""
        camera = self._camera_of(sensor_from_photo, size)
        layer = self._layers[camera.level].skin
        return np.asarray(
            cv2.remap(layer, camera.at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[
                : size[1], : size[0]
            ]
        )

    def _camera_of(self, sensor_from_photo: Floats, size: tuple[int, int]) -> "_Camera":
        return _Camera.make(
            sensor_from_photo, size, self._corner, self._step, self.iod_px, len(self._layers) - 1
        )

    def _head(self, pose: Pose, camera: "_Camera") -> tuple[Floats, Floats]:
        """Give where the neutral grid's points go, and where what the camera sees comes from.

        Returns:
            Two shifts in px of the photo: (cells, cells, 2) of the grid, and one of each of the camera's points.
        """
        forward = _project(self._rest, self._projection(pose))
        forward -= self._rest_xy
        forward *= self._hold
        guess = cv2.remap(forward, camera.cells, None, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
        return forward, self._inverse(forward, -guess, camera)

    def _moved_skin(
        self, weights: Floats, pose: Pose, forward: Floats, head: Floats, camera: "_Camera"
    ) -> Floats:
        """Give where the skin at each of the camera's points comes from, px: expression and pose together."""
        active = np.flatnonzero(weights)
        if not len(active):
            return head
        box = self._skin_box
        moves = self._moves[:, box[0], box[1]]
        moved = self._rest[box].copy()
        for number in active:
            cv2.scaleAdd(moves[number], float(weights[number]), moved, moved)
        seen = _project(moved, self._projection(pose))
        seen -= self._rest_xy[box]
        seen *= self._hold[box]
        forward = forward.copy()
        forward[box] = seen
        return self._inverse(forward, head, camera)

    def _inverse(self, forward: Floats, guess: Floats, camera: "_Camera") -> Floats:
        """Give the shift at the camera's points that undoes `forward`: shift(x) = -forward(x + shift(x)).

        Rounds go on until no point moves by more than _SETTLED_IOD any longer, which leaves less than a tenth
        of that, since each round shrinks the change by the field's slope (0.3 at most).
        """
        shift = guess
        for _ in range(_ROUNDS):
            where = cv2.scaleAdd(shift, 1 / self._step, camera.cells)
            before, shift = (
                shift,
                cv2.remap(forward, where, None, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE),
            )
            shift *= -1.0
            if cv2.norm(before, shift, cv2.NORM_INF) < _SETTLED_IOD * self.iod_px:
                break
        return np.asarray(shift, np.float32)


@dataclass(frozen=True, slots=True)
class _Layers:
    """The photo's skin, what lies behind its openings, and where they are, at one resolution."""

    level: int
    """Halvings against the photo."""
    skin: NDArray[np.uint8]
    inner: NDArray[np.uint8]
    opening: NDArray[np.uint8]

    def look_up(self, layer: NDArray[np.uint8], where: Floats) -> NDArray[np.uint8]:
        return np.asarray(
            cv2.remap(layer, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8
        )

    def halved(self) -> "_Layers":
        return _Layers(
            self.level + 1, *(cv2.pyrDown(layer) for layer in (self.skin, self.inner, self.opening))
        )


@dataclass(frozen=True, slots=True)
class _Camera:
    """Sensor pixels as photo coordinates, computed once per camera.

    Movements are worked out at every `stride`-th pixel and interpolated between.
    """

    matrix: Floats
    size: tuple[int, int]
    level: int
    """How often the photo is halved, so that bilinear look-up does not skip pixels."""
    stride: int
    at: Floats
    """(height, width, 2) px of the halved photo for every sensor pixel; padded to whole strides."""
    cells: Floats
    """(height / stride, width / stride, 2): the middle of each block of pixels as a place in the grid."""

    @classmethod
    def make(
        cls,
        sensor_from_photo: Floats,
        size: tuple[int, int],
        corner: Floats,
        step: float,
        iod_px: float,
        levels: int,
    ) -> "_Camera":
        inverse = cv2.invertAffineTransform(sensor_from_photo.astype(np.float64))
        photo_px = float(np.hypot(*inverse[:, 0]))
        level = min(max(0, int(np.log2(photo_px) + 0.4)), levels)
        stride = max(1, int(_STRIDE_IOD * iod_px / photo_px))
        blocks = [-(-side // stride) for side in size]
        middle = (stride - 1) / 2
        cells = _affine(inverse, *(stride * np.arange(count) + middle for count in blocks))
        at = _affine(inverse, *(np.arange(stride * count) for count in blocks))
        return cls(
            sensor_from_photo.copy(),
            size,
            level,
            stride,
            at * np.float32(0.5**level),
            (cells - corner.astype(np.float32)) / np.float32(step),
        )

    def fits(self, sensor_from_photo: Floats, size: tuple[int, int]) -> bool:
        return size == self.size and bool(np.array_equal(sensor_from_photo, self.matrix))

    def look_up(self, shift: Floats) -> Floats:
        """Give where to look in the halved photo for every sensor pixel, from the shifts (px) at `cells`."""
        height, width = self.at.shape[:2]
        where = cv2.resize(
            shift * np.float32(0.5**self.level), (width, height), interpolation=cv2.INTER_LINEAR
        )
        where += self.at
        return np.asarray(where[: self.size[1], : self.size[0]], np.float32)

    def look_up_box(self, shift: Floats, box: tuple[slice, slice]) -> Floats:
        """Give the same for the pixels of `box` alone."""
        rows, columns = box
        middle = (self.stride - 1) / 2
        matrix = (
            np.array([[1, 0, columns.start - middle], [0, 1, rows.start - middle]], np.float64) / self.stride
        )
        where = cv2.warpAffine(
            shift,
            matrix,
            (columns.stop - columns.start, rows.stop - rows.start),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return np.asarray(where * np.float32(0.5**self.level) + self.at[box], np.float32)


def _affine(matrix: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]) -> Floats:
    """Give the images (len(y), len(x), 2) of all points of a lattice."""
    out = np.empty((len(y), len(x), 2), np.float32)
    for axis in range(2):
        out[:, :, axis] = matrix[axis, 0] * x + (matrix[axis, 1] * y + matrix[axis, 2])[:, None]
    return out


def _project(points: Floats, matrix: NDArray[np.float64]) -> Floats:
    """Give (rows, columns, 2) for points (rows, columns, 3) and a matrix to homogeneous coordinates."""
    seen = cv2.transform(points, matrix)
    return np.asarray(cv2.convertPointsFromHomogeneous(seen.reshape(-1, 1, 3)), np.float32).reshape(
        *points.shape[:2], 2
    )


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
