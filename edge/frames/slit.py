"""An opening whose edges slide over what lies behind: the lids over the eye, the lips over the teeth.

A smooth displacement field would smear the eyeball or the teeth. Here the skin above and below is stretched
towards the edges, what lies behind stays where it is, and the three layers are put together with the exact
share of each pixel that each one covers, so that sub-pixel motion of an edge stays smooth.
"""

from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

FloatImage = NDArray[np.float32]

_MOUTH_DARKNESS = 0.28
"""Brightness of an opened mouth relative to the lips."""
_PARTED = 0.06
"""A mouth whose opening is higher than this share of its width stands open in the photo."""
_LASH_DARKENING = 0.45
"""How much darker the lash line is when the eye is shut."""
_LID_MARGIN = 0.40
"""Marked lid edges are off by a pixel or two, and a lid stretched from inside the eye would carry pieces of
the iris. So the nearer an eye is to being shut, the farther outside the marks its lids are taken from: by up
to this share of the opening."""
_MOST_RAISED = 0.35
"""An upper lid rises by no more than this share of the opening: the photo has no more eyeball to show."""
_EYE_CORNERS = 0.06
"""Marked eye corners lie inside the real ones: the lids are wider by this share of the eye at each end."""


class Slit:
    """One eye or the mouth on the canvas.

    Args:
        upper: (N, 2) px, canvas: edge above the opening, from the subject's right to left or left to right.
        lower: (N, 2) px, canvas: edge below, same ends.
        right_to_left: unit vector across the face.
        above_px: how far above the upper edge the skin stretches.
        below_px: the same below the lower edge.
        edge_px: how far the sliding edges lie inside the marked ones.
        kind: an eye's edge moves in proportion to the local opening, a lip's on a parabola over the mouth.
    """

    def __init__(
        self,
        upper: NDArray[np.float64],
        lower: NDArray[np.float64],
        right_to_left: NDArray[np.float64],
        *,
        above_px: float,
        below_px: float,
        edge_px: float,
        kind: Literal["eye", "mouth"],
    ):
        self._across = right_to_left
        self._down = np.array([-right_to_left[1], right_to_left[0]])
        self.centre: NDArray[np.float64] = np.concatenate([upper, lower]).mean(0)
        self._above_px, self._below_px, self._kind = above_px, below_px, kind
        if kind == "eye":
            upper, lower = _widened(upper), _widened(lower)
        upper_x, upper_y = (upper - self.centre) @ self._across, (upper - self.centre) @ self._down
        lower_x, lower_y = (lower - self.centre) @ self._across, (lower - self.centre) @ self._down
        ends = sorted((float(upper_x[0]), float(upper_x[-1])))
        self._x = np.arange(ends[0], ends[1] + 0.25, 0.25)
        top = np.polyval(np.polyfit(upper_x, upper_y, len(upper) - 1), self._x)
        bottom = np.polyval(np.polyfit(lower_x, lower_y, len(lower) - 1), self._x)
        middle = (top + bottom) / 2
        half = np.maximum((bottom - top) / 2 - edge_px, 0.0)
        self._top, self._bottom = middle - half, middle + half
        self.opening_px = float(2 * half.max())
        """Greatest height of the opening, px."""
        # Behind a raised upper lip come more teeth, not the dark.
        self._shows_teeth = kind == "mouth" and self.opening_px > _PARTED * (ends[1] - ends[0])
        share = np.linspace(-1.0, 1.0, len(self._x))
        self._profile = half / max(half.max(), 1e-6) if kind == "eye" else 1.0 - share**2
        reach_x = (ends[1] - ends[0]) / 2 + 2
        self._reach = (reach_x, max(above_px - top.min(), 2.0), max(below_px + bottom.max(), 2.0))

    def box(self, shift: NDArray[np.float32], bounds: tuple[int, int, int, int]) -> tuple[slice, slice]:
        """Give (rows, columns) of the frame that the slit touches when it has moved by `shift` px.

        Args:
            bounds: (x, y, width, height) px that the box must not leave.
        """
        across, above, below = self._reach
        corners = np.array(
            [
                side * across * self._across + level * self._down
                for side in (-1, 1)
                for level in (-above, below)
            ]
        )
        low = np.floor(self.centre + shift + corners.min(0) - 4).astype(int)
        high = np.ceil(self.centre + shift + corners.max(0) + 5).astype(int)
        x, y, width, height = bounds
        return (
            slice(min(max(low[1], y), y + height), min(max(high[1], y), y + height)),
            slice(min(max(low[0], x), x + width), min(max(high[0], x), x + width)),
        )

    def draw(
        self, base: NDArray[np.int16], base_scale: int, source: FloatImage, upper_px: float, lower_px: float
    ) -> FloatImage:
        """Render one box with the edges moved.

        Args:
            base: the canvas at `base_scale` times its resolution.
            source: (rows, columns, 2) float32: for each pixel of the box the canvas point that it would show
                with the edges at rest.
            upper_px: how far the upper edge comes down at its widest; negative opens.
            lower_px: how far the lower edge comes up.

        Returns:
            (rows, columns) float32, in the units of `base`.
        """
        if self._kind == "eye":
            upper_px = max(upper_px, -_MOST_RAISED * self.opening_px)
        offset = source - self.centre.astype(np.float32)
        across = offset @ self._across.astype(np.float32)
        level = offset @ self._down.astype(np.float32)
        top, bottom, profile = (
            np.interp(across, self._x, curve).astype(np.float32)
            for curve in (self._top, self._bottom, self._profile)
        )
        profile = np.where((across < self._x[0]) | (across > self._x[-1]), np.float32(0), profile)
        new_top, new_bottom = top + profile * np.float32(upper_px), bottom - profile * np.float32(lower_px)
        # Lids that meet do not pass through each other.
        crossing = np.maximum(new_top - new_bottom, 0) / 2
        new_top, new_bottom = new_top - crossing, new_bottom + crossing

        shut = self._shut(upper_px + lower_px)
        margin = np.float32(_LID_MARGIN * self.opening_px * shut) * np.sqrt(profile)
        anchor = top - np.float32(self._above_px)
        upper_level = np.where(
            level > anchor, anchor + (level - anchor) * (top - margin - anchor) / (new_top - anchor), level
        )
        anchor = bottom + np.float32(self._below_px)
        lower_level = np.where(
            level < anchor,
            anchor + (level - anchor) * (bottom + margin - anchor) / (new_bottom - anchor),
            level,
        )
        behind_level = np.clip(level, top, bottom)

        above = np.clip(new_top - level + np.float32(0.5), 0, 1)
        below = np.clip(level - new_bottom + np.float32(0.5), 0, 1 - above)
        image = self._sample(base, base_scale, source, upper_level - level) * above
        image += self._sample(base, base_scale, source, lower_level - level) * below
        behind = self._sample(base, base_scale, source, behind_level - level)
        if self._kind == "mouth":
            uncovered = _covered(level, np.maximum(bottom, new_top), new_bottom)
            if not self._shows_teeth:
                uncovered += _covered(level, new_top, np.minimum(top, new_bottom))
            share = np.clip(uncovered / np.maximum(1 - above - below, np.float32(1e-3)), 0, 1)
            behind = behind * (1 - np.float32(1 - _MOUTH_DARKNESS) * share)
        image += behind * (1 - above - below)
        if shut > 0:
            line = np.exp(-(((level - new_top) / np.float32(0.06 * self.opening_px + 0.7)) ** 2))
            image *= 1 - np.float32(_LASH_DARKENING * shut) * np.sqrt(profile) * line
        return np.asarray(image, np.float32)

    def _shut(self, closing_px: float) -> float:
        """Give how far an eye is shut, 0..1; a mouth is never shut over anything."""
        if self._kind == "mouth" or self.opening_px < 1e-6:
            return 0.0
        return float(np.clip(closing_px / self.opening_px, 0.0, 1.0))

    def _sample(
        self, base: NDArray[np.int16], base_scale: int, source: FloatImage, move: FloatImage
    ) -> FloatImage:
        """Look the canvas up at `source` moved by `move` px down the face."""
        points = source + move[..., None] * self._down.astype(np.float32)
        points = points * np.float32(base_scale) + np.float32((base_scale - 1) / 2)
        return np.asarray(sampled(base, points.astype(np.float32)), np.float32)


def sampled(image: NDArray[Any], points: FloatImage, border: int = cv2.BORDER_REPLICATE) -> NDArray[Any]:
    """Look an image or a field up between its pixels.

    Args:
        image: (rows, columns) or (rows, columns, channels), int16 or float32.
        points: (rows, columns, 2) float32, (x, y) px of `image`.
        border: OpenCV border type: what lies outside.
    """
    # OpenCV takes both coordinates in one map; its type stubs demand a second one.
    no_map: Any = None
    return np.asarray(cv2.remap(image, points, no_map, cv2.INTER_LINEAR, borderMode=border))


def _widened(edge: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move the two ends of an eye's edge outwards."""
    outwards = (edge[-1] - edge[0]) * _EYE_CORNERS
    return np.concatenate([[edge[0] - outwards], edge[1:-1], [edge[-1] + outwards]])


def _covered(level: FloatImage, start: FloatImage, end: FloatImage) -> FloatImage:
    """Share of each pixel, 1 px high and centred on `level`, that lies between `start` and `end`."""
    half = np.float32(0.5)
    overlap = np.minimum(level + half, end) - np.maximum(level - half, start)
    return np.asarray(np.clip(overlap, 0, 1), np.float32)
