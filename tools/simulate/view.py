"""The photo as a camera looks it up: its layers at several resolutions, and which point each sensor pixel shows."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_STRIDE_IOD = 0.03
"""Head movement is worked out this far apart, and interpolated between."""


@dataclass(frozen=True, slots=True)
class Layers:
    """The photo, and where its eyes and mouth are open, at one resolution."""

    level: int
    """Halvings against the photo."""
    skin: NDArray[np.uint8]
    eyeballs: NDArray[np.uint8]
    """What lies behind the lids; means something about the eyes alone."""
    opening: NDArray[np.uint8]
    """255 inside eyes and mouth."""

    def look_up(self, layer: NDArray[np.uint8], places_px: Floats) -> NDArray[np.uint8]:
        """Give a layer's luma at places (rows, columns, 2) px of the unhalved photo."""
        where = places_px * np.float32(0.5**self.level) if self.level else places_px
        return np.asarray(
            cv2.remap(layer, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8
        )

    def halved(self) -> "Layers":
        """Give the same at half the resolution."""
        return Layers(
            self.level + 1, *(cv2.pyrDown(layer) for layer in (self.skin, self.eyeballs, self.opening))
        )


@dataclass(frozen=True, slots=True)
class View:
    """Sensor pixels as places in the photo, computed once per camera."""

    matrix: Floats
    """(2, 3) photo px to sensor px."""
    size: tuple[int, int]
    """(width, height) of the sensor, px."""
    level: int
    """How often the photo must be halved so that bilinear look-up does not skip pixels."""
    stride: int
    at: Floats
    """(height, width, 2) px of the photo for every sensor pixel; padded to whole strides."""
    coarse: Floats
    """(height / stride, width / stride, 2) px of the photo: the middle of each block of pixels."""

    @classmethod
    def make(cls, matrix: Floats, size: tuple[int, int], iod_px: float) -> "View":
        """Work out the places; `iod_px` is the face's size in the photo."""
        inverse = cv2.invertAffineTransform(matrix.astype(np.float64))
        photo_px = float(np.hypot(*inverse[:, 0]))
        stride = max(1, int(_STRIDE_IOD * iod_px / photo_px))
        blocks = [-(-side // stride) for side in size]
        middle = (stride - 1) / 2
        return cls(
            matrix.copy(),
            size,
            max(0, int(np.log2(photo_px) + 0.4)),
            stride,
            _lattice(inverse, *(np.arange(stride * count) for count in blocks)),
            _lattice(inverse, *(stride * np.arange(count) + middle for count in blocks)),
        )

    def places(self, shift_px: Floats) -> Floats:
        """Give where every sensor pixel looks, (height, width, 2) px, from the shifts at `coarse`."""
        height, width = self.at.shape[:2]
        where = cv2.resize(shift_px, (width, height), interpolation=cv2.INTER_LINEAR)
        where += self.at
        return np.asarray(where[: self.size[1], : self.size[0]], np.float32)

    def places_in(self, shift_px: Floats, box: tuple[slice, slice]) -> Floats:
        """Give the same for the pixels of `box` alone."""
        rows, columns = box
        middle = (self.stride - 1) / 2
        matrix = np.array([[1, 0, columns.start - middle], [0, 1, rows.start - middle]]) / self.stride
        where = cv2.warpAffine(
            shift_px,
            matrix,
            (columns.stop - columns.start, rows.stop - rows.start),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        where += self.at[box]
        return np.asarray(where, np.float32)


def _lattice(matrix: NDArray[np.float64], x: NDArray[np.floating], y: NDArray[np.floating]) -> Floats:
    """Give the images (len(y), len(x), 2) of all points of a lattice."""
    out = np.empty((len(y), len(x), 2), np.float32)
    for axis in range(2):
        out[:, :, axis] = matrix[axis, 0] * x + (matrix[axis, 1] * y + matrix[axis, 2])[:, None]
    return out
