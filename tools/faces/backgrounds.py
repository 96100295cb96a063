"""Face-free pictures: procedural textures, patches of photos beside the face, shuffled faces."""

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.faces.dataset import LabelledFace

Picture = NDArray[np.uint8]


def _levels(field: NDArray[np.float32], rng: np.random.Generator) -> Picture:
    """Stretch a field to a random range of grey levels."""
    low, high = float(field.min()), float(field.max())
    dark, bright = np.sort(rng.uniform(0, 255, 2))
    return (dark + (field - low) * ((bright - dark) / max(high - low, 1e-6))).astype(np.uint8)


def _octaves(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Sum smooth noise over scales; the fall-off decides between clouds and sand."""
    total = np.zeros((size, size), np.float32)
    fall = rng.uniform(0.3, 1.0)
    for octave in range(int(rng.integers(2, 7))):
        cells = 2 ** (octave + 1)
        grain = rng.standard_normal((cells, cells), np.float32)
        total += cv2.resize(grain, (size, size), interpolation=cv2.INTER_CUBIC) * np.float32(fall**octave)
    return total


def _waves(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw stripes, checkers or rings."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    angle, period = rng.uniform(0, np.pi), rng.uniform(3, 60)
    u = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
    v = y * np.float32(np.cos(angle)) - x * np.float32(np.sin(angle))
    kind = rng.integers(4)
    if kind == 0:
        field = np.sin(u * np.float32(2 * np.pi / period))
    elif kind == 1:
        field = np.sin(u * np.float32(2 * np.pi / period)) * np.sin(
            v * np.float32(2 * np.pi / (period * rng.uniform(0.5, 2)))
        )
    elif kind == 2:
        away = np.hypot(x - np.float32(rng.uniform(0, size)), y - np.float32(rng.uniform(0, size)))
        field = np.sin(away * np.float32(2 * np.pi / period))
    else:
        field = u / np.float32(size)
    return np.sign(field) if rng.random() < 0.4 and kind != 3 else field.astype(np.float32)


def _shapes(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Scatter ellipses, boxes, lines and letters; some ellipses carry dots, as a face does its features."""
    field = np.full((size, size), rng.uniform(0, 1), np.float32)
    for _ in range(int(rng.integers(2, 25))):
        shade = float(rng.uniform(0, 1))
        x, y = (int(value) for value in rng.integers(0, size, 2))
        reach = int(rng.uniform(3, size / 2.5))
        kind = rng.integers(5)
        if kind == 0:
            axes = (reach, int(reach * rng.uniform(0.4, 1)) + 1)
            cv2.ellipse(field, (x, y), axes, rng.uniform(0, 180), 0, 360, shade, -1)
            for _ in range(int(rng.integers(0, 4))):
                spot = (x + int(rng.normal(0, reach / 3)), y + int(rng.normal(0, reach / 3)))
                cv2.circle(field, spot, max(1, reach // 8), float(rng.uniform(0, 1)), -1)
        elif kind == 1:
            cv2.rectangle(field, (x, y), (x + reach, y + int(reach * rng.uniform(0.3, 2))), shade, -1)
        elif kind == 2:
            end = (int(rng.integers(0, size)), int(rng.integers(0, size)))
            cv2.line(field, (x, y), end, shade, int(rng.integers(1, 8)), cv2.LINE_AA)
        elif kind == 3:
            letters = "".join(chr(code) for code in rng.integers(48, 123, int(rng.integers(1, 9))))
            cv2.putText(field, letters, (x - 20, y), int(rng.integers(0, 5)), rng.uniform(0.3, 2.5), shade,
                        int(rng.integers(1, 4)), cv2.LINE_AA)  # fmt: skip
        else:
            cv2.circle(field, (x, y), reach // 2 + 1, shade, int(rng.integers(1, 6)))
    return field


def texture(size: int, rng: np.random.Generator) -> Picture:
    """Give a procedural face-free picture, (size, size) uint8."""
    kind = rng.integers(5)
    if kind == 0:
        return np.full((size, size), rng.integers(0, 256), np.uint8)
    if kind == 1:
        return _levels(_octaves(size, rng), rng)
    if kind == 2:
        return _levels(_waves(size, rng), rng)
    if kind == 3:
        return _levels(_shapes(size, rng), rng)
    return _levels(_shapes(size, rng) + _octaves(size, rng) * np.float32(rng.uniform(0.05, 0.3)), rng)


def cut(picture: Picture, size: int, rng: np.random.Generator) -> Picture:
    """Give a random square part of a picture, turned at random, as (size, size)."""
    rows, columns = picture.shape
    side = int(rng.uniform(min(48, rows, columns), min(rows, columns)))
    top, left = int(rng.integers(0, rows - side + 1)), int(rng.integers(0, columns - side + 1))
    part = cv2.resize(
        picture[top : top + side, left : left + side], (size, size), interpolation=cv2.INTER_AREA
    )
    part = np.rot90(part, int(rng.integers(4))) if rng.random() < 0.3 else part
    return np.ascontiguousarray(part[:, ::-1] if rng.random() < 0.5 else part)


def beside_face(face: LabelledFace, size: int, rng: np.random.Generator) -> Picture:
    """Give a strip of a photo that leaves the face out (shoulders, hair, wall), stretched to (size, size)."""
    luma = face.pyramid[0]
    rows, columns = luma.shape
    low, high = face.landmarks.min(axis=0), face.landmarks.max(axis=0)
    reach = 0.15 * (high - low)
    left, right = int(max(0, low[0] - reach[0])), int(min(columns, high[0] + reach[0]))
    top, bottom = int(max(0, low[1] - 3 * reach[1])), int(min(rows, high[1] + reach[1]))
    strips = [luma[:, :left], luma[:, right:], luma[:top], luma[bottom:]]
    strips = [strip for strip in strips if min(strip.shape) >= 16]
    if not strips:
        return texture(size, rng)
    strip = strips[int(rng.integers(len(strips)))]
    side = min(strip.shape)
    start = int(rng.integers(0, max(strip.shape) - side + 1))
    part = strip[start : start + side] if strip.shape[0] > side else strip[:, start : start + side]
    return cv2.resize(part, (size, size), interpolation=cv2.INTER_LINEAR)


def shuffled(picture: Picture, blocks: int, rng: np.random.Generator) -> Picture:
    """Cut a square picture into blocks and put them back in another order: right texture, no face."""
    side = picture.shape[0] // blocks
    cut_up = picture[: side * blocks, : side * blocks].reshape(blocks, side, blocks, side).swapaxes(1, 2)
    mixed = rng.permutation(cut_up.reshape(-1, side, side)).reshape(blocks, blocks, side, side)
    whole = mixed.swapaxes(1, 2).reshape(side * blocks, side * blocks)
    return cv2.resize(whole, picture.shape[::-1], interpolation=cv2.INTER_LINEAR)


def background(
    size: int, faces: list[LabelledFace], pictures: list[Picture], rng: np.random.Generator
) -> Picture:
    """Give a face-free picture of any of the kinds, (size, size) uint8."""
    kind = rng.random()
    if kind < 0.35:
        return texture(size, rng)
    if kind < 0.6 and pictures:
        return cut(pictures[int(rng.integers(len(pictures)))], size, rng)
    if kind < 0.8:
        return beside_face(faces[int(rng.integers(len(faces)))], size, rng)
    tiles = [beside_face(faces[int(rng.integers(len(faces)))], size // 2, rng) for _ in range(4)]
    return np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:])])
