"""Fit a net to drawn samples: seeded, checkpointed after each epoch, resumed where it was cut off."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tools.faces.quantise import to_input

BATCH = 32
Drawn = tuple[NDArray[np.uint8], dict[str, NDArray[np.float32]]]
"""Pictures, (N, 128, 128), and the truth by name, (N, ...)."""


class Batches(tf.keras.utils.Sequence):
    """Shuffled batches of uint8 pictures with their truth."""

    def __init__(self, pictures: NDArray[np.uint8], truth: dict[str, NDArray[np.float32]], seed: int) -> None:
        super().__init__()
        self._pictures, self._truth = pictures, truth
        self._rng = np.random.default_rng(seed)
        self._order = self._rng.permutation(len(pictures))

    def __len__(self) -> int:
        return len(self._pictures) // BATCH

    def __getitem__(self, number: int) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
        rows = self._order[number * BATCH : (number + 1) * BATCH]
        return to_input(self._pictures[rows]), {name: values[rows] for name, values in self._truth.items()}

    def on_epoch_end(self) -> None:
        self._order = self._rng.permutation(len(self._pictures))


def kept(path: Path, draw: Callable[[], Drawn]) -> Drawn:
    """Give what `draw` gives, drawing only once: the samples stay in `path` for the next run."""
    if not path.exists():
        pictures, truth = draw()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npz")
        np.savez(part, pictures=pictures, **truth)
        part.rename(path)
    with np.load(path) as table:
        return table["pictures"], {name: table[name] for name in table.files if name != "pictures"}


def fit(
    net: tf.keras.Model, batches: Batches, checked: Batches, *, rate: float, epochs: int, folder: Path
) -> None:
    """Fit a compiled net with a warm-up and a cosine schedule.

    Args:
        net: compiled with its losses and an optimiser; the optimiser's rate is set here.
        checked: batches of people not trained on, looked at after each epoch.
        folder: where checkpoints and the loss curve go; a run that was cut off goes on from there.
    """
    schedule = tf.keras.optimizers.schedules.CosineDecay(
        rate * 0.1,
        epochs * len(batches),
        alpha=0.005,
        warmup_target=rate,
        warmup_steps=min(200, len(batches)),
    )
    net.optimizer.learning_rate = schedule
    folder.mkdir(parents=True, exist_ok=True)
    net.fit(
        batches, validation_data=checked, epochs=epochs, verbose=2,
        callbacks=[
            tf.keras.callbacks.BackupAndRestore(str(folder / "resume"), delete_checkpoint=False),
            tf.keras.callbacks.CSVLogger(str(folder / "losses.csv"), append=True),
            tf.keras.callbacks.ModelCheckpoint(str(folder / "latest.weights.h5"), save_weights_only=True),
        ],
    )  # fmt: skip
