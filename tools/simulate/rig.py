"""A face photo that can be moved: expressions of the ICT model, head attitude, gaze, any camera.

The photo is the texture; the fitted model says where every point of it goes, in three dimensions. A frame
is rendered by looking up, for every sensor pixel, the photo point that moved there. Lids slide over the
eyeball and lips over the mouth's inside, because skin and inside are two layers.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.records import LANDMARKS
from tools.simulate.head import Head
from tools.simulate.ict import FaceModel, fit
from tools.simulate.skin import Patch
from tools.simulate.view import View, make_layers

Floats = NDArray[np.float32]

_ROUNDS = 6
_SETTLED_IOD = 0.001
"""A tenth of a pixel on a face of 100 px IOD; what is left after the last round is a third of it at most."""

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
        eye_shut: weight of the blink shapes at which the photo's eyes are closed.
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
        self._head = Head.make(model, placed, self._centre, self.iod_px)
        self._rest_xy = np.ascontiguousarray(self._head.rest[:, :, :2])
        self._cell_from_px = (
            np.column_stack([np.eye(2), -self._head.corner_px.astype(np.float64)]) / self._head.step_px
        )
        eyes = [points_px[list(corners)] for corners in _EYES.values()]
        mouth = points_px[list(_MOUTH)]
        self._openings = [
            *((self._head.about(eye, 0.13), True) for eye in eyes),
            (self._head.about(mouth, 0.4), False),
        ]
        """Fine patches about the eyes and the mouth, and whether an eye lies behind."""
        self._rims = np.array([self._corners_of(patch) for patch, _ in self._openings])
        self._layers = make_layers(photo, eyes, mouth, self.iod_px)
        self._behind_lips = self._dark_behind_lips(mouth, points_px)
        self.eye_shut = self._shutting()
        self._views: list[View] = []
        self._projected = (Pose(scale=0.0), np.zeros((3, 4)), np.zeros((2, 3)))

    def _corners_of(self, patch: Patch) -> list[list[float]]:
        """Give a patch's corners (4, 4), homogeneous px, less a rim that a turned head may need."""
        rim, depth = 0.05 * self.iod_px, float(self._landmarks[:, 2].mean())
        (left, top), (right, bottom) = patch.corner_px + rim, patch.corner_px + patch.size_px - rim
        return [[float(x), float(y), depth, 1.0] for x in (left, right) for y in (top, bottom)]

    def _dark_behind_lips(self, mouth_px: Floats, points_px: Floats) -> float | None:
        """Give the luma behind lips that the photo shows closed; None where they are open, since it shows it then."""
        upper, lower = (LANDMARKS.index(f"inner_{lip}_lip") for lip in ("upper", "lower"))
        if points_px[lower, 1] - points_px[upper, 1] >= 0.05 * self.iod_px:
            return None
        low = np.maximum(mouth_px.min(axis=0) - 3, 0).astype(int)
        high = (mouth_px.max(axis=0) + 4).astype(int)
        return 0.35 * float(self.photo[low[1] : high[1], low[0] : high[0]].mean())

    def _shutting(self) -> float:
        """Give the weight of the blink shapes at which the lids of this photo meet."""
        blink = np.array([float(name.startswith("eyeBlink")) for name in self.shapes], np.float32)
        moved = (blink @ self._moves_landmarks).reshape(-1, 3)
        shares = []
        for eye in _EYES.values():
            for upper, lower in ((eye[1], eye[5]), (eye[2], eye[4])):
                gap = self._landmarks[lower, 1] - self._landmarks[upper, 1]
                shares.append(gap / max(moved[upper, 1] - moved[lower, 1], 1e-3 * self.iod_px))
        return float(np.clip(np.mean(shares), 0.2, 1.2))

    def size_of(self, weights: Floats) -> float:
        """Give the greatest displacement of visible skin that `weights` (55,) makes, in IOD (99.5th percentile)."""
        moved = np.tensordot(weights, self._head.face.moves[:, :, :, :2], 1)
        return float(np.percentile(np.linalg.norm(moved[self._head.visible], axis=1), 99.5) / self.iod_px)

    def _projection(self, pose: Pose) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Give two matrices: where a point is seen, and what a small movement looks like on the unturned head.

        The first, (3, 4), takes a point, px, to homogeneous coordinates. The second, (2, 3), takes a movement
        in three dimensions to one in the photo that the pose turns into the same movement in the picture.

        The head is turned about its middle, scaled, shifted and seen in weak perspective from 7 IOD: a point
        that has not moved towards the camera has the third coordinate 1.
        """
        if self._projected[0] == pose:
            return self._projected[1:]
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
        tilt = np.linalg.solve(turn[:2, :2], turn[:2])
        turn[2] = (np.array([0.0, 0.0, 1.0]) - turn[2]) / (7.0 * self.iod_px)
        shift = -turn @ self._centre
        shift[2] += 1.0
        matrix = np.column_stack([turn, shift])
        target = self._centre[:2] + np.array(pose.shift_iod) * self.iod_px
        matrix[:2] += target[:, None] * matrix[2]
        self._projected = (pose, matrix, tilt)
        return matrix, tilt

    def landmarks(self, weights: Floats, pose: Pose) -> Floats:
        """Give the true landmarks (56, 2) px, photo frame, for shape weights (55,) and a pose."""
        moved = self._landmarks + (weights @ self._moves_landmarks).reshape(-1, 3)
        matrix, _ = self._projection(pose)
        seen = moved @ matrix[:, :3].T + matrix[:, 3]
        return np.asarray(seen[:, :2] / seen[:, 2:], np.float32)

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
        view = self._view_of(sensor_from_photo, size)
        layers = self._layers[min(view.level, len(self._layers) - 1)]
        matrix, tilt = self._projection(pose)
        head, face = self._posed(matrix, view), self._head.face
        skin = head
        if weights.any():
            skin = head + face.at(face.back(weights, tilt), view.coarse + head)
        result = layers.look_up(layers.skin, view.places(skin))
        gaze = np.array(gaze_iod, np.float32) * np.float32(self.iod_px)
        for (patch, looks), box in zip(self._openings, self._boxes(matrix, view), strict=True):
            moves = patch.moved_by(weights)
            # Eyes are put together even when they are still, because their rim blends with what is behind it.
            if box is None or not (looks or moves):
                continue
            behind = view.places_in(head, box)
            places = behind + patch.at(patch.back(weights, tilt), behind) if moves else behind
            outside = layers.look_up(layers.skin, places).astype(np.int16)
            if looks:
                inside = layers.look_up(layers.eyeballs, behind - gaze)
            else:
                inside = self._mouth(layers.look_up(layers.skin, behind), weights)
            opening = layers.look_up(layers.opening, places).astype(np.int16)
            result[box] = outside + ((inside - outside) * opening + 127) // 255
        return result

    def _mouth(self, shown: NDArray[np.uint8], weights: Floats) -> NDArray[np.uint8]:
        """Give what lies behind the lips: what the photo shows, or the dark that comes as they part by 3 % IOD."""
        if self._behind_lips is None:
            return shown
        moved = (weights @ self._moves_landmarks).reshape(-1, 3)
        gap = moved[LANDMARKS.index("inner_lower_lip"), 1] - moved[LANDMARKS.index("inner_upper_lip"), 1]
        parted = float(np.clip(gap / (0.03 * self.iod_px), 0.0, 1.0))
        return np.rint(shown * (1 - parted) + self._behind_lips * parted).astype(np.uint8)

    def backdrop(self, sensor_from_photo: Floats, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Give the photo as the camera sees it, unmoved: what surrounds the head."""
        view = self._view_of(sensor_from_photo, size)
        layers = self._layers[min(view.level, len(self._layers) - 1)]
        return layers.look_up(layers.skin, view.at[: size[1], : size[0]])

    def _view_of(self, sensor_from_photo: Floats, size: tuple[int, int]) -> View:
        """Give the camera's view; of those in use, the last few are kept."""
        for view in self._views:
            if view.size == size and np.array_equal(view.matrix, sensor_from_photo):
                return view
        self._views = [*self._views[-1:], View.make(sensor_from_photo, size, self.iod_px)]
        return self._views[-1]

    def _posed(self, matrix: NDArray[np.float64], view: View) -> Floats:
        """Give where what the view sees at `coarse` was before the pose moved it, as a shift (..., 2) px.

        It is the fixed point shift(x) = -forward(x + shift(x)). Rounds go on until no point moves by more than
        _SETTLED_IOD any longer; each shrinks the error by the field's slope, 0.3 at most.
        """
        seen = cv2.convertPointsFromHomogeneous(cv2.transform(self._head.rest, matrix).reshape(-1, 1, 3))
        forward = seen.reshape(self._rest_xy.shape) - self._rest_xy
        forward *= self._head.hold
        cells = cv2.transform(view.coarse, self._cell_from_px)
        shift = np.zeros_like(cells)
        for _ in range(_ROUNDS):
            where = cv2.scaleAdd(shift, 1 / self._head.step_px, cells)
            before, shift = (
                shift,
                cv2.remap(forward, where, None, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE),
            )
            shift *= -1.0
            if cv2.norm(before, shift, cv2.NORM_INF) < _SETTLED_IOD * self.iod_px:
                break
        return np.asarray(shift, np.float32)

    def _boxes(self, matrix: NDArray[np.float64], view: View) -> list[tuple[slice, slice] | None]:
        """Give the sensor's rows and columns in which each opening's patch appears; None where it does not."""
        seen = self._rims @ matrix.T
        points = seen[:, :, :2] / seen[:, :, 2:] @ view.matrix[:, :2].T + view.matrix[:, 2]
        lows = np.maximum(np.floor(points.min(axis=1)), 0).astype(int).tolist()
        highs = np.minimum(np.ceil(points.max(axis=1)), view.size).astype(int).tolist()
        return [
            np.s_[top:bottom, left:right] if left < right and top < bottom else None
            for (left, top), (right, bottom) in zip(lows, highs, strict=True)
        ]
