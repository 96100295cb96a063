"""Make a clean luma picture look as a small, cheap, badly lit camera would show it. Labels stay as they
are."""

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]


def relight(picture: Picture, rng: np.random.Generator) -> NDArray[np.float32]:
    """Change gamma, gain and black level, and lay a light gradient over the picture. Gives float32,
    0..255."""
    levels = np.linspace(0, 1, 256, dtype=np.float32) ** np.exp(rng.normal(0, 0.35))
    low = rng.uniform(0, 0.25) if rng.random() < 0.5 else 0.0
    high = rng.uniform(max(0.12, low + 0.08), 1.1)
    if rng.random() < 0.5:
        low, high = 0.0, rng.uniform(0.75, 1.15)
    lit = (np.float32(255) * (low + (high - low) * levels))[picture].astype(np.float32)
    if rng.random() < 0.5:
        rows, columns = picture.shape
        angle, depth = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.8)
        x = np.linspace(-0.5, 0.5, columns, dtype=np.float32) * np.float32(np.cos(angle))
        y = np.linspace(-0.5, 0.5, rows, dtype=np.float32) * np.float32(np.sin(angle))
        lit *= np.float32(1) + np.float32(depth) * (x[None] + y[:, None])
    return lit


def blur(picture: NDArray[np.float32], rng: np.random.Generator, finest: float) -> NDArray[np.float32]:
    """Lose detail: out of focus, motion, or a sensor with fewer pixels.

    Args:
        finest: smallest factor of the shrink-and-enlarge step (0.3: a third of the pixels a side).
    """
    rows, columns = picture.shape
    kind = rng.random()
    if kind < 0.25:
        return cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 1.6))
    if kind < 0.4:
        length = int(rng.integers(3, 9))
        kernel = np.zeros((length, length), np.float32)
        angle = rng.uniform(0, np.pi)
        centre, reach = (length - 1) / 2, (length - 1) / 2
        ends = [
            (round(centre + sign * reach * np.cos(angle)), round(centre + sign * reach * np.sin(angle)))
            for sign in (-1, 1)
        ]
        cv2.line(kernel, ends[0], ends[1], 1.0)
        return cv2.filter2D(picture, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)
    if kind < 0.7:
        factor = rng.uniform(finest, 0.9)
        small = (max(4, round(columns * factor)), max(4, round(rows * factor)))
        fewer = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
        return cv2.resize(fewer, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return picture


def add_noise(picture: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Add sensor noise, from none to that of a night scene; half of it grows with the light (shot noise)."""
    sigma = rng.choice(
        (0.0, rng.uniform(0.5, 3), rng.uniform(2, 7), rng.uniform(6, 16)), p=(0.2, 0.4, 0.3, 0.1)
    )
    if sigma == 0:
        return picture
    grain = rng.standard_normal(picture.shape, np.float32)
    return picture + grain * (np.float32(sigma) * (np.float32(0.6) + picture * np.float32(0.4 / 128)))


def degrade(picture: Picture, rng: np.random.Generator, *, finest: float = 0.3) -> Picture:
    """Relight, blur, add noise and compress a picture, each at random."""
    seen = add_noise(blur(relight(picture, rng), rng, finest), rng)
    result = np.clip(seen, 0, 255).astype(np.uint8)
    if rng.random() < 0.2:
        quality = int(rng.integers(25, 90))
        result = cv2.imdecode(
            cv2.imencode(".jpg", result, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_GRAYSCALE
        )
    return result


def occlude(
    picture: Picture, patch: Picture, centre: tuple[float, float], size: float, rng: np.random.Generator
) -> None:
    """Cover part of `picture` in place with a rounded shape filled from `patch` (same size), like a hand."""
    mask = np.zeros(picture.shape, np.uint8)
    angle = rng.uniform(0, 180)
    middle = (round(centre[0]), round(centre[1]))
    axes = (max(1, round(size / 2)), max(1, round(size * rng.uniform(0.15, 0.5))))
    if rng.random() < 0.3:
        corners = cv2.boxPoints((middle, (2.0 * axes[0], 2.0 * axes[1]), angle))
        cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], 255)
    else:
        cv2.ellipse(mask, middle, axes, angle, 0, 360, 255, -1)
    picture[mask > 0] = patch[mask > 0]
