"""Train the landmark net: `python -m tools.faces.train_landmarks --photos DIR --labels NPZ --out DIR`."""

import sys
from functools import partial

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edge.face.landmarks import CELL_PX, CELLS, OFFSET_LIMIT
from edge.records import LANDMARKS
from tools.faces.crops import sample
from tools.faces.fitting import Batches, fit
from tools.faces.nets import landmark_net, multiply_accumulates
from tools.faces.quantise import quantise
from tools.faces.runs import draw_parts, training_options

POINTS = len(LANDMARKS)
HEAT_SIGMA = 0.8
"""Spread of the heat target, cells: wide enough that int8 noise of single cells averages out."""


def map_loss(truth: tf.Tensor, maps: tf.Tensor) -> tf.Tensor:
    """Give the loss of heat and offset maps, one value per sample.

    Three parts: cross-entropy of the heat map; the offsets around the truth; the error of the decoded point.
    Offsets beyond their limit are punished everywhere: they would stretch the int8 scale.

    Args:
        truth: (B, 113) 56 x, 56 y in cells, then 1 for a face and 0 for none.
        maps: (B, 16, 16, 168) heat, x offsets, y offsets.
    """
    cells = CELLS * CELLS
    flat = tf.reshape(maps, (-1, cells, 3 * POINTS))
    heat, shift_x, shift_y = tf.split(flat, 3, axis=2)
    number = tf.range(cells)
    centre_x = tf.cast(number % CELLS, tf.float32)[None, :, None]
    centre_y = tf.cast(number // CELLS, tf.float32)[None, :, None]
    target_x, target_y = truth[:, None, :POINTS], truth[:, None, POINTS : 2 * POINTS]
    away_x, away_y = target_x - centre_x, target_y - centre_y
    near = tf.cast(tf.maximum(tf.abs(away_x), tf.abs(away_y)) <= OFFSET_LIMIT, tf.float32)
    weight = near * tf.exp(-(away_x**2 + away_y**2) / (2 * HEAT_SIGMA**2))
    weight /= tf.reduce_sum(weight, axis=1, keepdims=True) + 1e-6
    entropy = -tf.reduce_sum(weight * tf.nn.log_softmax(heat, axis=1), axis=1)
    off_by = tf.reduce_sum(weight * (tf.abs(shift_x - away_x) + tf.abs(shift_y - away_y)), axis=1)
    share = tf.nn.softmax(heat, axis=1)
    found_x = tf.reduce_sum(share * (centre_x + shift_x), axis=1)
    found_y = tf.reduce_sum(share * (centre_y + shift_y), axis=1)
    missed = tf.abs(found_x - target_x[:, 0]) + tf.abs(found_y - target_y[:, 0])
    beyond = tf.nn.relu(tf.abs(shift_x) - OFFSET_LIMIT) + tf.nn.relu(tf.abs(shift_y) - OFFSET_LIMIT)
    placed = tf.reduce_mean(entropy + 2 * off_by + 4 * missed, axis=1)
    return truth[:, 2 * POINTS] * placed + tf.reduce_mean(beyond, axis=(1, 2))


def trainable(net: tf.keras.Model) -> tf.keras.Model:
    """Give the net with its maps joined, so that one loss sees both."""
    outputs = net.output
    maps = tf.keras.layers.Concatenate(name="maps")([outputs["heat"], outputs["offsets"]])
    presence = tf.keras.layers.Reshape((1,), name="placed")(outputs["presence"])
    return tf.keras.Model(net.input, {"maps": maps, "placed": presence})


def as_arrays(samples: list) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.float32]]]:
    """Stack samples into the pictures and the truth that the losses read."""
    pictures = np.stack([made.picture for made in samples])
    points = np.stack([made.points for made in samples])
    cells = np.clip((points - (CELL_PX - 1) / 2) / CELL_PX, 0, CELLS - 1)
    is_face = np.array([[made.is_face] for made in samples], np.float32)
    maps = np.hstack([cells[..., 0], cells[..., 1], is_face]).astype(np.float32)
    return pictures, {"maps": maps, "placed": is_face}


def main() -> int:
    options = training_options(__doc__, "landmark.tflite", epochs=16, rate=3e-3)
    tf.keras.utils.set_random_seed(options.seed)
    drawn = draw_parts(options, sample, as_arrays)
    net = landmark_net(POINTS)
    print(f"{multiply_accumulates(net) / 1e6:.2f} MMAC, {net.count_params()} parameters", flush=True)
    if options.weights:
        net.load_weights(options.weights)
    joined = trainable(net)
    joined.compile(
        tf.keras.optimizers.Adam(),
        {"maps": map_loss, "placed": tf.keras.losses.BinaryCrossentropy(from_logits=True)},
        loss_weights={"maps": 1.0, "placed": 2.0},
        metrics={"placed": [tf.keras.metrics.BinaryAccuracy(threshold=0.0)]},
    )
    fit(joined, Batches(*drawn["train"], options.seed), Batches(*drawn["validation"], options.seed),
        rate=options.rate, epochs=options.epochs, folder=options.out)  # fmt: skip
    net.save(options.out / "landmark.keras")
    quantise(partial(landmark_net, POINTS), net, drawn["train"][0][:400], options.out / "landmark.tflite")
    return 0


if __name__ == "__main__":
    sys.exit(main())
