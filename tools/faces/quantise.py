"""Turn a trained net into the int8 file that ships."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edge.face.tensors import INPUT_SCALE
from tools.int8 import convert


def to_input(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Give what the nets see of uint8 luma (..., 128, 128): float32 with a last axis of one channel."""
    return ((pictures.astype(np.float32) - 128) * np.float32(INPUT_SCALE))[..., None]


def quantise(
    build: Callable[[int], tf.keras.Model], trained: tf.keras.Model, calibration: NDArray[np.uint8], out: Path
) -> None:
    """Write an int8 model with batch 1, int8 input and output.

    Args:
        build: makes the same net for a given batch size.
        calibration: (N, 128, 128) uint8 pictures, a few hundred, as the net will see them.
    """
    net = build(1)
    net.set_weights(trained.get_weights())
    whole_range = np.tile(np.linspace(0, 255, 128).astype(np.uint8), (128, 1))
    examples = (to_input(picture)[None] for picture in (whole_range, *calibration))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(convert(net, examples))
