"""Draw many training samples in worker processes, the same for the same seed whatever the number of
workers."""

import multiprocessing
import os
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

BLOCK = 250

_draw: Callable[[np.random.Generator], Any]


def _begin(draw: Callable[[np.random.Generator], Any]) -> None:
    global _draw  # noqa: PLW0603 - a worker process has one task, set once; arguments would be pickled per block
    _draw = draw
    cv2.setNumThreads(1)


def _block(seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [_draw(rng) for _ in range(BLOCK)]


def draw_samples(
    draw: Callable[[np.random.Generator], Any], count: int, seed: int, workers: int
) -> list[Any]:
    """Call `draw` at least `count` times.

    Args:
        draw: makes one sample from a generator; must survive pickling (a module's function, or its
            `partial`). count: rounded up to whole blocks of 250, each with its own seed.
    """
    # Fresh processes: one forked after OpenCV or TensorFlow made their threads hangs at its first call.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    seeds = [seed * 1_000_000 + number for number in range(-(-count // BLOCK))]
    with multiprocessing.get_context("spawn").Pool(workers, _begin, (draw,)) as pool:
        return [made for block in pool.imap(_block, seeds) for made in block]
