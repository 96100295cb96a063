"""Pictures for the virtual camera: faces, each with its number in a row of black and white squares.

The squares are read back from the frames that come out, so that a lost, doubled or swapped frame shows without
anybody's counter.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.frames.portrait import load_portrait

SIZE = (640, 480)
"""(width, height) px; both even, as the camera wants it."""
BITS = 8
_SQUARE_PX = 16


def write_pictures(folder: Path, photos: Sequence[NDArray[np.uint8]], count: int) -> None:
    """Write `count` pictures (at most 256) as 0.jpg, 1.jpg and so on, from `photos` in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture = framed(photos[number % len(photos)])
        for bit in range(BITS):
            left = bit * _SQUARE_PX
            picture[:_SQUARE_PX, left : left + _SQUARE_PX] = 235 if number >> bit & 1 else 16
        # Grey as colour: the camera reads JPEG with three components only.
        colour = cv2.merge([picture] * 3)
        cv2.imwrite(str(folder / f"{number}.jpg"), colour, [cv2.IMWRITE_JPEG_QUALITY, 95])


def number_in(luma: NDArray[np.uint8]) -> int:
    """Read a picture's number from its squares."""
    middle = _SQUARE_PX // 2
    return sum(int(luma[middle, bit * _SQUARE_PX + middle] > 125) << bit for bit in range(BITS))


def framed(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Fit a photo into `SIZE`, grey around it."""
    width, height = SIZE
    scale = min(width / photo.shape[1], height / photo.shape[0])
    small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[:height, :width]
    picture = np.full((height, width), 96, np.uint8)
    top, left = (height - small.shape[0]) // 2, (width - small.shape[1]) // 2
    picture[top : top + small.shape[0], left : left + small.shape[1]] = small
    return picture


def load_photos(folder: Path | None, most: int) -> list[NDArray[np.uint8]]:
    """Give up to `most` photos of a folder as luma, sorted by name; without one, the portrait in matplotlib's wheel.

    Raises:
        ValueError: the folder holds no picture that can be read.
    """
    if folder is None:
        return [load_portrait()]
    photos = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png") and len(photos) < most:
            photo = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            if photo is not None:
                photos.append(np.asarray(photo, np.uint8))
    if not photos:
        raise ValueError(f"{folder}: no .jpg or .png in it can be read")
    return photos
