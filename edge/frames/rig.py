"""A face photo made movable: where its places are, and which skin each action unit carries along.

Everything is in *canvas* pixels: the photo after it was scaled and placed into the frame, head at rest.
Smooth skin motion comes from dense displacement fields; the edges that slide over something else (lids over
the eye, lips over the teeth) are slits, see `edge.frames.slit`.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.frames.action_units import MIDLINE, MOVEMENTS
from edge.frames.slit import Slit
from edge.records import LANDMARKS, ActionUnit

GRID_STEP = 4
"""Spacing of the displacement fields, px. They are wide Gaussians: a quarter of the resolution holds them."""

Points = NDArray[np.float32]
Field = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Pose:
    """What an expression asks of the rig, linear in its strength."""

    field: Field
    """(rows, columns, 2) float32, px: where the skin goes, on the grid."""
    lids: NDArray[np.float32]
    """(2, 2) float32, px: right and left eye; upper lid down, lower lid up."""
    lips: NDArray[np.float32]
    """(2,) float32, px: upper lip up, lower lip down."""

    def scaled(self, factor: float) -> "Pose":
        scale = np.float32(factor)
        return Pose(self.field * scale, self.lids * scale, self.lips * scale)

    def __add__(self, other: "Pose") -> "Pose":
        return Pose(self.field + other.field, self.lids + other.lids, self.lips + other.lips)


class Rig:
    """The places, fields and slits of one face on the canvas.

    Args:
        canvas: (rows, columns) int16, brightness in any unit.
        landmarks: (56, 2) float32, px, canvas, in the order of `edge.records.LANDMARKS`.
        region: (x, y, width, height) px of the canvas that may move; width and height are multiples of
            `GRID_STEP`.
    """

    def __init__(self, canvas: NDArray[np.int16], landmarks: Points, region: tuple[int, int, int, int]):
        self.landmarks = landmarks
        self.region = region
        point = dict(zip(LANDMARKS, landmarks.astype(np.float64), strict=True))
        across = point["left_eye_outer"] - point["right_eye_outer"]
        self.iod_px = float(np.hypot(*across))
        self.right_to_left = across / self.iod_px
        self.down = np.array([-self.right_to_left[1], self.right_to_left[0]])
        self.places = _places(point, self.right_to_left, self.down, self.iod_px)
        self.grid = _grid(region)
        self.eyes = tuple(self._eye(side, point) for side in ("right", "left"))
        self.mouth = self._mouth(point, canvas)
        still = self._still_parts(point)
        self._fields = {
            (au, side): self._field(au, side) * still[..., None]
            for au in MOVEMENTS
            for side in ("right", "left")
        }

    def neutral(self) -> Pose:
        return Pose(
            np.zeros((*self.grid.shape[:2], 2), np.float32),
            np.zeros((2, 2), np.float32),
            np.zeros(2, np.float32),
        )

    def pose(self, units: tuple[ActionUnit, ...], peak_iod: float) -> Pose:
        """Combine action units so that the point that moves most moves by `peak_iod`.

        For AU45 alone `peak_iod` is the share of the eye that closes.
        """
        if [unit.au for unit in units] == ["AU45"]:
            closing = self._sum(units)
            eyes = np.array([[eye.opening_px] for eye in self.eyes], np.float32)
            return Pose(closing.field * eyes.mean(), closing.lids * eyes, closing.lips).scaled(peak_iod)
        combined = self._sum(units)
        return combined.scaled(peak_iod * self.iod_px / max(self._largest(combined), 1e-6))

    def _sum(self, units: tuple[ActionUnit, ...]) -> Pose:
        total = self.neutral()
        for unit in units:
            movement = MOVEMENTS[unit.au]
            sides = ("right", "left") if unit.side == "both" else (unit.side,)
            field = sum((self._fields[unit.au, side] for side in sides), np.zeros_like(total.field))
            lids = np.zeros((2, 2), np.float32)
            for side in sides:
                lids[0 if side == "right" else 1] = movement.upper_lid, movement.lower_lid
            lips = np.array([movement.upper_lip, movement.lower_lip], np.float32)
            total = total + Pose(field, lids, lips).scaled(unit.score)
        return total

    def _largest(self, pose: Pose) -> float:
        """The largest displacement of a pose; a lip's edge also rides on the skin below it."""
        skin = float(np.hypot(pose.field[..., 0], pose.field[..., 1]).max())
        middle = self.at(pose.field, self.mouth.centre[None].astype(np.float32))[0]
        edges = float(pose.lips.max()) + (abs(float(middle @ self.down)) if pose.lips.any() else 0.0)
        return max(skin, edges, float(np.abs(pose.lids).max()))

    def at(self, field: Field, points: Points) -> Points:
        """Sample a grid field at (N, 2) canvas points."""
        x, y, _, _ = self.region
        grid_points = (points - np.array([x, y], np.float32) + np.float32(0.5)) / GRID_STEP - np.float32(0.5)
        columns = np.ascontiguousarray(grid_points[None, :, 0], np.float32)
        rows = np.ascontiguousarray(grid_points[None, :, 1], np.float32)
        return np.asarray(cv2.remap(field, columns, rows, cv2.INTER_LINEAR)[0], np.float32)

    def _field(self, au: str, side: str) -> Field:
        """Spread the moves of one side over the grid.

        Weights g_i are Gaussians; the field is sum(g_i^2 d_i) / sum(g_i): at a lone place its own move, where
        places overlap a mean of them, far away nothing.
        """
        numerator = np.zeros((*self.grid.shape[:2], 2), np.float64)
        denominator = np.full(self.grid.shape[:2], 1e-9)
        out = self.right_to_left if side == "left" else -self.right_to_left
        for move in MOVEMENTS[au].moves:
            place = self.places[move.place if move.place in MIDLINE else f"{side}_{move.place}"]
            direction = move.out * out - move.up * self.down
            if move.place in MIDLINE:
                direction = direction * 0.5
            offset = self.grid - place
            weight = np.exp(-(offset**2).sum(-1) / (2 * (move.width * self.iod_px) ** 2))
            numerator += (weight**2)[..., None] * direction
            denominator += weight
        return np.asarray(numerator / denominator[..., None], np.float32)

    def _still_parts(self, point: dict[str, NDArray[np.float64]]) -> NDArray[np.float32]:
        """Give 0 on the eyeballs (and in a mouth that stands open in the photo) and 1 elsewhere, softly."""
        x, y, width, height = self.region
        moving = np.ones((height, width), np.float32)
        outlines = [
            [f"{side}_eye_{name}" for name in
             ("outer", "upper_outer", "upper_inner", "inner", "lower_inner", "lower_outer")]
            for side in ("right", "left")
        ]  # fmt: skip
        if self.mouth.opening_px > 0.03 * self.iod_px:
            outlines.append([name for name in LANDMARKS if name.startswith("inner_")])
        for outline in outlines:
            corners = np.array([point[name] for name in outline]) - (x, y)
            cv2.fillPoly(moving, [np.rint(corners).astype(np.int32)], (0.0,))
        soft = cv2.GaussianBlur(moving, (0, 0), 0.02 * self.iod_px)
        size = (self.grid.shape[1], self.grid.shape[0])
        return np.asarray(cv2.resize(soft, size, interpolation=cv2.INTER_AREA), np.float32)

    def _eye(self, side: str, point: dict[str, NDArray[np.float64]]) -> Slit:
        order = ("outer", "{}_outer", "{}_inner", "inner")
        upper = np.array([point[f"{side}_eye_{name.format('upper')}"] for name in order])
        lower = np.array([point[f"{side}_eye_{name.format('lower')}"] for name in order])
        brow = np.array([point[f"{side}_brow_{name}"] for name in ("outer_mid", "mid", "inner_mid")])
        to_brow = float((upper[1:3].mean(0) - brow.mean(0)) @ self.down)
        opening = float(((lower - upper) @ self.down).max())
        return Slit(
            upper, lower, self.right_to_left,
            above_px=float(np.clip(0.6 * to_brow, opening, 2.5 * opening)),
            below_px=max(1.3 * opening, 0.06 * self.iod_px),
            # The lashes belong to the lid: its edge lies a little inside the marked points.
            edge_px=0.012 * self.iod_px,
            kind="eye",
        )  # fmt: skip

    def _mouth(self, point: dict[str, NDArray[np.float64]], canvas: NDArray[np.int16]) -> Slit:
        upper = ("mouth_right", "upper_lip_right", "upper_lip", "upper_lip_left", "mouth_left")
        lower = ("mouth_right", "lower_lip_right", "lower_lip", "lower_lip_left", "mouth_left")
        top = np.array([point[f"inner_{name}"] for name in upper])
        bottom = np.array([point[f"inner_{name}"] for name in lower])
        if float(((bottom - top) @ self.down).max()) < 0.03 * self.iod_px:
            shift = self._lip_line_shift((top + bottom) / 2, canvas)
            top, bottom = top + shift, bottom + shift
        lip_to_nose = float((point["inner_upper_lip"] - point["nose_base"]) @ self.down)
        lip_to_chin = float((point["chin"] - point["inner_lower_lip"]) @ self.down)
        return Slit(
            top, bottom, self.right_to_left,
            above_px=0.85 * lip_to_nose, below_px=0.8 * lip_to_chin, edge_px=0.0, kind="mouth",
        )  # fmt: skip

    def _lip_line_shift(self, line: NDArray[np.float64], canvas: NDArray[np.int16]) -> NDArray[np.float64]:
        """Find how far the marked line of a closed mouth lies from the dark line between the lips, px."""
        shades = cv2.GaussianBlur(canvas.astype(np.float32), (0, 0), 0.006 * self.iod_px)
        share = np.linspace(0.15, 0.85, 25) * (len(line) - 1)
        points = np.stack([np.interp(share, np.arange(len(line)), line[:, axis]) for axis in (0, 1)], axis=1)
        steps = np.linspace(-0.05, 0.05, 41) * self.iod_px
        tried = (points[None] + steps[:, None, None] * self.down).astype(np.float32)
        darkness = cv2.remap(shades, tried[..., 0], tried[..., 1], cv2.INTER_LINEAR).mean(1)
        return self.down * float(steps[int(darkness.argmin())])


def _grid(region: tuple[int, int, int, int]) -> NDArray[np.float64]:
    """Canvas coordinates (rows, columns, 2) of the grid: centres of `GRID_STEP` squares of the region."""
    x, y, width, height = region
    columns = x + np.arange(width // GRID_STEP) * GRID_STEP + (GRID_STEP - 1) / 2
    rows = y + np.arange(height // GRID_STEP) * GRID_STEP + (GRID_STEP - 1) / 2
    return np.stack(np.meshgrid(columns, rows), axis=-1)


def _places(
    point: dict[str, NDArray[np.float64]],
    right_to_left: NDArray[np.float64],
    down: NDArray[np.float64],
    iod_px: float,
) -> dict[str, NDArray[np.float64]]:
    """Name the places that `action_units` moves: landmarks, and areas laid out between them."""
    places: dict[str, NDArray[np.float64]] = {}
    for side in ("right", "left"):
        out = (right_to_left if side == "left" else -right_to_left) * iod_px
        drop = down * iod_px
        for name in (
            "brow_outer",
            "brow_outer_mid",
            "brow_mid",
            "brow_inner_mid",
            "brow_inner",
            "nose_wing",
            "jaw",
        ):
            places[f"{side}_{name}"] = point[f"{side}_{name}"]
        mouth, wing = point[f"mouth_{side}"], point[f"{side}_nose_wing"]
        upper = (point[f"{side}_eye_upper_outer"] + point[f"{side}_eye_upper_inner"]) / 2
        lower = (point[f"{side}_eye_lower_outer"] + point[f"{side}_eye_lower_inner"]) / 2
        outer = point[f"{side}_eye_outer"]
        chin_lip = (point[f"lower_lip_{side}_outer"] + point["chin"]) / 2
        places |= {
            f"{side}_mouth": mouth,
            f"{side}_upper_lip": point[f"upper_lip_{side}"],
            f"{side}_upper_lip_outer": point[f"upper_lip_{side}_outer"],
            f"{side}_lower_lip": point[f"lower_lip_{side}"],
            f"{side}_lower_lip_outer": point[f"lower_lip_{side}_outer"],
            f"{side}_forehead_inner": point[f"{side}_brow_inner_mid"] - 0.26 * drop,
            f"{side}_forehead_outer": point[f"{side}_brow_outer_mid"] - 0.22 * drop,
            f"{side}_lid_fold": (upper + point[f"{side}_brow_mid"]) / 2,
            f"{side}_under_eye": lower + 0.10 * drop,
            f"{side}_crow_foot": outer + 0.12 * out,
            f"{side}_cheek": 0.55 * lower + 0.45 * mouth + 0.05 * out,
            f"{side}_cheek_outer": (outer + mouth) / 2 + 0.08 * out,
            f"{side}_cheek_low": mouth + 0.22 * out,
            f"{side}_infraorbital": (wing + lower) / 2,
            f"{side}_nose_side": (wing + point["nose_bridge_upper"]) / 2,
            f"{side}_nasolabial": (wing + mouth) / 2 + 0.05 * out,
            f"{side}_chin_side": chin_lip + 0.08 * out,
        }
    inner = (point["right_brow_inner"] + point["left_brow_inner"]) / 2
    places |= {
        "glabella": (inner + point["nose_bridge_top"]) / 2,
        "chin_boss": 0.45 * point["lower_lip_bottom"] + 0.55 * point["chin"],
    }
    for name in ("nose_bridge_top", "nose_bridge_upper", "upper_lip_top", "lower_lip_bottom", "chin"):
        places[name] = point[name]
    return places
