"""Render one face only where its state changes, and register what is seen: the clean part of a tabulated clip.

Expression and gaze are rendered at the corners of their path through the space of shapes, attitude on a
grid of yaw and pitch that is filled where the head goes. Between them the registration's answer is linear.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from edge import motion
from edge.records import CROP_IOD_PX, CROP_SIZE, TrackedFace
from edge.regions import REGIONS
from tools.simulate.rig import Pose, Rig
from tools.simulate.sensor import Conditions, Sensor

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

GRID_RAD = 0.06
"""Step of the grid of yaw and pitch; a displacement between its nodes is linear within 0.01 px."""
_TOLERANCE_PX = 0.06
_TOLERANCE_SHARE = 0.05
"""A state may lie this far off the line between two rendered ones: a constant, and a share of its size."""
_STRIDE_PX = 0.9
_STRIDE_SHARE = 0.3
"""Two neighbours on a path lie at most this far apart: registration saturates, lids cover the eye."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the registration says of one state, against the neutral face at the bench's attitude."""

    shift_px: Doubles
    """(R, 2)"""
    residual: Doubles
    """(R,)"""
    luma: float

    def row(self) -> Doubles:
        """All in one, (3 R + 1,)."""
        return np.concatenate([self.shift_px.ravel(), self.residual, [self.luma]])


class Bench:
    """One face before one camera, without noise.

    Args:
        attitude: (yaw, pitch) rad at which expressions are rendered and the grid is centred.
        target_px: (56, 2) where the neutral face's landmarks lie in the crop.
        bias_px: (56, 2) the tracker's constant error there.
        sizes_iod: (55,) displacement that each shape makes at weight 1, IOD.
    """

    def __init__(
        self,
        rig: Rig,
        conditions: Conditions,
        camera: Floats,
        side: int,
        attitude: tuple[float, float],
        target_px: Doubles,
        bias_px: Doubles,
        sizes_iod: Doubles,
    ) -> None:
        self._rig, self._camera, self.size = rig, camera, (side, side)
        self.compressed = conditions.crf > 0
        self._attitude, self._target, self._bias = attitude, target_px, bias_px
        quiet = replace(conditions, noise=0.0, mains_depth=0.0, crf=0)
        self.sensor = Sensor(quiet, np.random.default_rng(0))
        self._neutral = np.zeros(len(rig.shapes), np.float32)
        self._units_px = np.array([*sizes_iod, 1.0, 1.0]) * CROP_IOD_PX
        self.crop_from_sensor = self.upright(Pose(*attitude))
        self._still = self.raw(self._neutral, (0.0, 0.0), Pose(*attitude))
        self.frame = self.sensor.expose(self._still, 1.0, 0.0)
        self.face = self.track(self.frame, self.crop_from_sensor, Pose(*attitude))
        picture = picture_of(self.face)
        self.anchor = motion._Anchor(picture, self.face)
        self._luma = picture.luma
        self._anchors = {(0, 0): self.anchor}
        still = np.zeros((len(REGIONS), 2))
        self._nodes = {(0, 0): (Answer(still, np.zeros(len(REGIONS)), picture.luma), self.crop_from_sensor)}

    def render(self, weights: Floats, gaze: tuple[float, float], pose: Pose) -> NDArray[np.uint8]:
        """Give what the noiseless sensor sees."""
        return self.sensor.expose(self.raw(weights, gaze, pose), 1.0, 0.0)

    def raw(self, weights: Floats, gaze: tuple[float, float], pose: Pose) -> NDArray[np.uint8]:
        """Give the picture before any sensor."""
        return self._rig.render(weights, pose, gaze, self._camera, self.size)

    def luma(self, light: float) -> float:
        """Give the mean grey level of the neutral face's crop under `light` times the usual light."""
        frame = self.sensor.expose(self._still, light, 0.0)
        face = self.track(frame, self.crop_from_sensor, Pose(*self._attitude))
        return picture_of(face).luma

    def luma_by_crop(self, step: float = 0.02) -> Doubles:
        """Give (4,) the change of the mean grey level for each IOD of shift x, y, unit of log scale and radian."""
        result = []
        for number in range(4):
            levels = []
            for sign in (1, -1):
                x, y, size, roll = (sign * step * (number == place) for place in range(4))
                gain = np.exp(size) * np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
                moved = gain @ self.crop_from_sensor
                moved[:, 2] += CROP_SIZE / 2 * (1 - gain.sum(axis=1)) + np.array([x, y]) * CROP_IOD_PX
                face = self.track(self.frame, moved.astype(np.float32), Pose(*self._attitude))
                levels.append(picture_of(face).luma)
            result.append((levels[0] - levels[1]) / (2 * step))
        return np.array(result)

    def luma_by_place(self, poses: Doubles) -> Doubles:
        """Give (T,) the change of the mean grey level for heads that roll, shift and come nearer.

        The crop follows the head; what changes is the background in it.

        Args:
            poses: (T, 6), fields of tools.simulate.rig.Pose with the logarithm of scale.
        """
        total = np.zeros(len(poses))
        for column in range(2, 6):
            knots, levels = [0.0], [0.0]
            for end in (float(poses[:, column].min()), float(poses[:, column].max())):
                if abs(end) > 0.02:
                    row = np.zeros(6)
                    row[:2], row[column] = self._attitude, end
                    pose = Pose.of(row)
                    face = self.track(self.render(self._neutral, (0.0, 0.0), pose), self.upright(pose), pose)
                    knots.append(end)
                    levels.append(picture_of(face).luma - self._luma)
            order = np.argsort(knots)
            total += np.interp(poses[:, column], np.array(knots)[order], np.array(levels)[order])
        return total

    def upright(self, pose: Pose) -> Floats:
        """Give the crop (2, 3) that follows the neutral face at a pose without error."""
        seen = self._rig.landmarks(self._neutral, pose) @ self._camera[:, :2].T + self._camera[:, 2]
        return similarity(seen, self._target)

    def track(self, frame: NDArray[np.uint8], crop_from_sensor: Floats, pose: Pose) -> TrackedFace:
        """Give the face as the tracker would."""
        crop = cv2.warpAffine(
            frame,
            crop_from_sensor,
            (CROP_SIZE, CROP_SIZE),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        seen = self._rig.landmarks(self._neutral, pose) @ self._camera[:, :2].T + self._camera[:, 2]
        points = seen @ crop_from_sensor[:, :2].T + crop_from_sensor[:, 2] + self._bias
        return TrackedFace(1, points.astype(np.float32), crop_from_sensor, crop, 100.0, 160.0, 1.0, 0)

    def expressions(self, weights: Doubles, gaze_iod: Doubles) -> Doubles:
        """Give the answers (T, 3 R + 1) for shape weights (T, 55) and gaze (T, 2), head still."""
        path = np.concatenate([weights, gaze_iod], axis=1) * self._units_px
        used = np.flatnonzero(path.any(axis=0))
        path = path[:, used]
        corners = _corners(path)
        pose = Pose(*self._attitude)
        known: list[tuple[Doubles, NDArray[np.uint8]]] = [(np.zeros(len(used)), self.frame)]
        states, rows = [], []
        guess = np.zeros((len(REGIONS), 2), np.float32)
        for corner in corners:
            state = path[corner]
            slack = 0.02 + 0.5 * _tolerance(state)
            at = min(range(len(known)), key=lambda n: float(np.linalg.norm(known[n][0] - state)))
            if np.linalg.norm(known[at][0] - state) > slack:
                frame = self.render(
                    weights[corner], (float(gaze_iod[corner, 0]), float(gaze_iod[corner, 1])), pose
                )
                known.append((state, frame))
                at = len(known) - 1
            face = self.track(known[at][1], self.crop_from_sensor, pose)
            answer, guess = register(self.anchor, face, guess)
            states.append(known[at][0])
            rows.append(answer.row())
        table = np.array(rows) - np.array([0.0] * (3 * len(REGIONS)) + [self._luma])
        return _between(path, corners, np.array(states), table)

    def attitudes(self, turned: Doubles) -> tuple[Doubles, Doubles]:
        """Give the answers (T, 3 R + 1) and the upright crops (T, 4) for yaw and pitch (T, 2), face neutral.

        The crops are given as logarithm of scale, roll, and where the crop's centre lies on the sensor.
        """
        steps = (turned - np.array(self._attitude)) / GRID_RAD
        low = np.floor(steps).astype(int)
        part = steps - low
        answers, crops = 0.0, 0.0
        for right in (0, 1):
            for down in (0, 1):
                share = np.abs(1 - right - part[:, 0]) * np.abs(1 - down - part[:, 1])
                cells = low + np.array([right, down])
                unique, which = np.unique(cells, axis=0, return_inverse=True)
                nodes = [self._node((int(i), int(j))) for i, j in unique]
                rows = np.array([answer.row() for answer, _ in nodes])
                rows[:, -1] -= self._luma
                matrices = np.array([parameters(matrix) for _, matrix in nodes])
                which = which.ravel()
                answers = answers + share[:, None] * rows[which]
                crops = crops + share[:, None] * matrices[which]
        return np.asarray(answers), np.asarray(crops)

    def turn_residual(self) -> Doubles:
        """Give (R,) the residual for each radian between a face and its anchor."""
        near = [answer.residual / (GRID_RAD * np.hypot(*node)) for node, (answer, _) in self._nodes.items()
                if 0 < max(map(abs, node)) <= 2]  # fmt: skip
        return np.sqrt(np.mean(np.square(near), axis=0)) if near else np.zeros(len(REGIONS))

    def _node(self, node: tuple[int, int]) -> tuple[Answer, Floats]:
        if node not in self._nodes:
            inner = (0, 0) if max(map(abs, node)) <= 2 else (_inward(node[0]), _inward(node[1]))
            before, _ = self._node(inner)
            pose = self._pose(node)
            matrix = self.upright(pose)
            face = self.track(self.render(self._neutral, (0.0, 0.0), pose), matrix, pose)
            answer, _ = register(self._anchor_at(inner), face, np.zeros((len(REGIONS), 2), np.float32))
            answer = replace(answer, shift_px=answer.shift_px + before.shift_px)
            self._nodes[node] = (answer, matrix)
        return self._nodes[node]

    def _pose(self, node: tuple[int, int]) -> Pose:
        return Pose(self._attitude[0] + GRID_RAD * node[0], self._attitude[1] + GRID_RAD * node[1])

    def _anchor_at(self, node: tuple[int, int]) -> motion._Anchor:
        if node not in self._anchors:
            pose = self._pose(node)
            face = self.track(self.render(self._neutral, (0.0, 0.0), pose), self.upright(pose), pose)
            self._anchors[node] = motion._Anchor(picture_of(face), face)
        return self._anchors[node]


def _inward(step: int) -> int:
    """Give the even grid number next to `step` on the way to zero."""
    return int(np.sign(step)) * 2 * ((abs(step) - 1) // 2) if step else 0


def register(anchor: motion._Anchor, face: TrackedFace, guess: Floats) -> tuple[Answer, Floats]:
    """Register a face against an anchor until it settles."""
    picture, windows = picture_of(face), anchor.windows
    shift = guess
    for _ in range(6):
        sample = windows.sample(picture.patches, shift)
        moved = windows.moved(sample, shift)
        change = float(np.abs(moved - shift).max())
        if change > motion._JUMP_PX:
            half = anchor.coarse.moved(anchor.coarse.sample(picture.coarse_patches(), shift / 2), shift / 2)
            far = np.abs(2 * half - shift).max(axis=1, keepdims=True) > motion._JUMP_PX
            nearer = np.where(far, 2 * half, shift)
            sample = windows.sample(picture.patches, nearer)
            moved = windows.moved(sample, nearer)
        shift = moved
        if change < 0.02:
            break
    return Answer(shift.astype(float), windows.residual(sample).astype(float), picture.luma), shift


def picture_of(face: TrackedFace) -> motion._Picture:
    picture = motion._Picture()
    picture.take(face.crop)
    return picture


def similarity(points: NDArray[np.floating], target: NDArray[np.floating]) -> Floats:
    """Give the similarity (2, 3) that brings points (N, 2) nearest to their targets."""
    mean, goal = points.mean(axis=0), target.mean(axis=0)
    a, b = points - mean, target - goal
    size = (a**2).sum()
    cosine, sine = (a * b).sum() / size, (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / size
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([turn, goal - turn @ mean]).astype(np.float32)


def parameters(matrices: NDArray[np.floating]) -> Doubles:
    """Give crops (..., 2, 3) as (..., 4): logarithm of scale, roll, and the sensor point x, y at the crop's centre."""
    inner = matrices[..., :2].astype(float)
    point = np.linalg.solve(inner, (CROP_SIZE / 2 - matrices[..., 2].astype(float))[..., None])[..., 0]
    size = 0.5 * np.log(np.linalg.det(inner))
    roll = np.arctan2(inner[..., 1, 0], inner[..., 0, 0])
    return np.concatenate([size[..., None], roll[..., None], point], axis=-1)


def _tolerance(state: Doubles) -> float:
    return _TOLERANCE_PX + _TOLERANCE_SHARE * float(np.linalg.norm(state))


def _corners(path: Doubles) -> list[int]:
    """Give the rows of a path (T, D) px that hold all others near the lines between them."""
    corners = {0, len(path) - 1}
    open_ends = [(0, len(path) - 1)]
    while open_ends:
        first, last = open_ends.pop()
        if last - first < 2:
            continue
        chord = path[last] - path[first]
        along = path[first + 1 : last] - path[first]
        share = np.clip(along @ chord / max(float(chord @ chord), 1e-12), 0, 1)
        away = np.linalg.norm(along - share[:, None] * chord, axis=1)
        farthest = int(np.argmax(away))
        split = None
        if away[farthest] > _tolerance(path[first + 1 + farthest]):
            split = first + 1 + farthest
        else:
            nearer = min(np.linalg.norm(path[first]), np.linalg.norm(path[last]))
            if np.linalg.norm(chord) > _STRIDE_PX + _STRIDE_SHARE * nearer:
                middle = first + 1 + int(np.argmin(np.abs(share - 0.5)))
                if 0.05 < share[middle - first - 1] < 0.95:
                    split = middle
        if split is not None:
            corners.add(split)
            open_ends += [(first, split), (split, last)]
    return sorted(corners)


def _between(path: Doubles, corners: list[int], states: Doubles, table: Doubles) -> Doubles:
    """Interpolate the table's rows along the path, by where a state lies between its corners."""
    result = np.empty((len(path), table.shape[1]))
    result[corners] = table
    for number, (first, last) in enumerate(pairwise(corners)):
        if last - first < 2:
            continue
        start, chord = states[number], states[number + 1] - states[number]
        long = float(chord @ chord)
        if long < 1e-6:
            result[first:last] = table[number]
            continue
        share = np.clip((path[first:last] - start) @ chord / long, 0, 1)[:, None]
        result[first:last] = table[number] + share * (table[number + 1] - table[number])
    return result
