"""The photo as a camera looks it up: its layers at several resolutions, and which point each sensor pixel shows."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_STRIDE_IOD = 0.03
"""Head movement is worked out this far apart, and interpolated between."""
_SMALLEST_PX = 35.0
"""IOD in the smallest of the halved photos."""


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
    buffer: Floats
    """Like `at`: what `places` gave last. A fresh one would cost more in page faults than is computed in it."""

    @classmethod
    def make(cls, matrix: Floats, size: tuple[int, int], iod_px: float) -> "View":
        """Work out the places; `iod_px` is the face's size in the photo."""
        inverse = cv2.invertAffineTransform(matrix.astype(np.float64))
        photo_px = float(np.hypot(*inverse[:, 0]))
        stride = max(1, int(_STRIDE_IOD * iod_px / photo_px))
        blocks = [-(-side // stride) for side in size]
        middle = (stride - 1) / 2
        at = _lattice(inverse, *(np.arange(stride * count) for count in blocks))
        return cls(
            matrix.copy(),
            size,
            max(0, int(np.log2(photo_px) + 0.4)),
            stride,
            at,
            _lattice(inverse, *(stride * np.arange(count) + middle for count in blocks)),
            np.empty_like(at),
        )

    def places(self, shift_px: Floats) -> Floats:
        """Give where each sensor pixel looks, (height, width, 2) px, from the shifts at `coarse`; until asked again."""
        height, width = self.at.shape[:2]
        cv2.resize(shift_px, (width, height), self.buffer, interpolation=cv2.INTER_LINEAR)
        cv2.add(self.buffer, self.at, self.buffer)
        return self.buffer[: self.size[1], : self.size[0]]

    def places_in(self, shift_px: Floats, box: tuple[slice, slice]) -> Floats:
        """Give the same for the pixels of `box` alone."""
        rows, columns = box
        # Whole blocks and one more all round, so that what is interpolated is the same to the last bit.
        top, left = max(rows.start // self.stride - 1, 0), max(columns.start // self.stride - 1, 0)
        bottom, right = -(-rows.stop // self.stride) + 1, -(-columns.stop // self.stride) + 1
        part = shift_px[top:bottom, left:right]
        where = cv2.resize(
            part,
            (part.shape[1] * self.stride, part.shape[0] * self.stride),
            interpolation=cv2.INTER_LINEAR,
        )
        down, across = rows.start - top * self.stride, columns.start - left * self.stride
        where = where[down : down + rows.stop - rows.start, across : across + columns.stop - columns.start]
        return np.asarray(where + self.at[box], np.float32)


def _lattice(matrix: NDArray[np.float64], x: NDArray[np.floating], y: NDArray[np.floating]) -> Floats:
    """Give the images (len(y), len(x), 2) of all points of a lattice."""
    out = np.empty((len(y), len(x), 2), np.float32)
    for axis in range(2):
        out[:, :, axis] = matrix[axis, 0] * x + (matrix[axis, 1] * y + matrix[axis, 2])[:, None]
    return out


def make_layers(
    photo: NDArray[np.uint8], eyes_px: list[Floats], mouth_px: Floats, iod_px: float
) -> list[Layers]:
    """Cut a photo into layers, at full size and halved as long as the face stays larger than 35 px IOD.

    Args:
        eyes_px: corners (6, 2) of each eye's opening, in order round it.
        mouth_px: (8, 2) of the mouth's.
    """
    eyes, lips = np.zeros_like(photo), np.zeros_like(photo)
    for corners in eyes_px:
        _fill(eyes, _smooth_outline(corners))
    _fill(lips, mouth_px)
    # Behind the lids the eyeball goes on: every pixel there is as the nearest one that the photo shows.
    open_here = eyes > 127
    _, nearest = cv2.distanceTransformWithLabels(
        np.where(open_here, 0, 255).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    shown = np.zeros(int(nearest.max()) + 1, np.uint8)
    shown[nearest[open_here]] = photo[open_here]
    eyeballs = np.where(open_here, photo, cv2.GaussianBlur(shown[nearest], (0, 0), 0.01 * iod_px))
    layers = [Layers(0, photo, eyeballs, np.maximum(eyes, lips))]
    while iod_px / 2 ** len(layers) > _SMALLEST_PX:
        layers.append(layers[-1].halved())
    return layers


def _fill(mask: NDArray[np.uint8], outline_px: Floats) -> None:
    """Draw a filled outline with a smooth edge: at twice the resolution, then averaged."""
    fine = np.zeros((2 * mask.shape[0], 2 * mask.shape[1]), np.uint8)
    cv2.fillPoly(fine, [np.rint(outline_px * 2 + 0.5).astype(np.int32)], 255)
    np.maximum(mask, cv2.resize(fine, mask.shape[::-1], interpolation=cv2.INTER_AREA), out=mask)


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
