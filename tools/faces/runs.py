"""What the two face trainings have in common: their options, and the samples they draw once and keep."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tools.faces.blocks import draw_samples
from tools.faces.dataset import load_faces, load_pictures
from tools.faces.fitting import Drawn, kept


def training_options(about: str | None, product: str, *, epochs: int, rate: float) -> argparse.Namespace:
    """Read the command line of a training.

    Args:
        about: the help text.
        product: name of the file that the training writes.
        epochs, rate: defaults.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--photos", type=Path, required=True, help="folder with MANIFEST.csv and the photos")
    parser.add_argument("--labels", type=Path, required=True, help="file written by tools.faces.teacher")
    parser.add_argument("--out", type=Path, required=True, help=f"folder for checkpoints and {product}")
    parser.add_argument("--pictures", type=Path, help="folder of face-free pictures for backgrounds")
    parser.add_argument("--samples", type=int, default=40_000)
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--rate", type=float, default=rate)
    parser.add_argument("--weights", type=Path, help="weights to start from")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    return parser.parse_args()


def draw_parts(
    options: argparse.Namespace, make: Callable[..., Any], as_arrays: Callable[[list[Any]], Drawn]
) -> dict[str, Drawn]:
    """Draw the samples of training and validation people, or read those that an earlier run kept in `out`.

    Args:
        make: makes one sample from (faces, pictures, rng).
        as_arrays: stacks samples into pictures and truth.
    """
    pictures = load_pictures(options.pictures)

    def draw(part: str, count: int) -> Drawn:
        faces = load_faces(options.photos, options.labels, part)
        return as_arrays(draw_samples(partial(make, faces, pictures), count, options.seed, options.workers))

    counts = {"train": options.samples, "validation": 1500}
    return {
        part: kept(options.out / f"{part}.npz", partial(draw, part, count)) for part, count in counts.items()
    }
