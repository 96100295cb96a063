"""Train the face detector: `python -m tools.faces.train_detector --photos DIR --labels NPZ --out DIR`."""

import sys

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edge.face.detect import CELL_PX, CELLS, SIZE_UNIT_PX
from tools.faces.compose import Scene, scene
from tools.faces.fitting import Batches, fit
from tools.faces.nets import detector_net, multiply_accumulates
from tools.faces.quantise import quantise
from tools.faces.runs import draw_parts, training_options

UNCLEAR_HEAT = 0.97
"""Target where either answer is right: not a peak, and a false one costs (1 - 0.97)^4."""


def target_maps(made: Scene) -> NDArray[np.float32]:
    """Give the truth of one scene as maps, (32, 32, 5) float32: heat 0..1, dx, dy, log size, weight of these
    three."""
    maps = np.zeros((CELLS, CELLS, 5), np.float32)
    y, x = np.mgrid[:CELLS, :CELLS].astype(np.float32)
    for centre_x, centre_y, size in made.faces:
        dx = (centre_x - (CELL_PX - 1) / 2) / CELL_PX - x
        dy = (centre_y - (CELL_PX - 1) / 2) / CELL_PX - y
        # The heat falls off over about a twelfth of the face, but no faster than the grid can show.
        sigma = max(0.5, size / CELL_PX / 12)
        heat = np.exp(-(dx**2 + dy**2) / (2 * sigma**2))
        row, column = np.unravel_index(int(heat.argmax()), heat.shape)
        heat[row, column] = 1.0
        closer = heat > maps[..., 0]
        maps[closer] = np.stack([heat, dx, dy, np.full_like(dx, np.log(size / SIZE_UNIT_PX)), heat], -1)[
            closer
        ]
    maps[..., 4] *= maps[..., 4] > 0.3
    for centre_x, centre_y, size in made.unclear:
        away = np.hypot(x * CELL_PX + 1.5 - centre_x, y * CELL_PX + 1.5 - centre_y)
        hidden = (away < max(6.0, size / 3)) & (maps[..., 0] < UNCLEAR_HEAT)
        maps[hidden, 0] = UNCLEAR_HEAT
    return maps


def detector_loss(truth: tf.Tensor, maps: tf.Tensor) -> tf.Tensor:
    """Give the focal loss of the heat map and the distance of the geometry near the faces, one value per
    sample.

    Source: Zhou et al. 2019, Objects as Points, equation 1 (alpha 2, beta 4).
    """
    wanted, geometry, weight = truth[..., 0], truth[..., 1:4], truth[..., 4]
    logit = maps[..., 3]
    is_peak = tf.cast(wanted >= 1.0, tf.float32)
    heat = tf.sigmoid(logit)
    found = is_peak * (1 - heat) ** 2 * tf.nn.softplus(-logit)
    false = (1 - is_peak) * (1 - wanted) ** 4 * heat**2 * tf.nn.softplus(logit)
    faces = tf.maximum(1.0, tf.reduce_sum(is_peak, axis=(1, 2)))
    focal = tf.reduce_sum(found + false, axis=(1, 2)) / faces
    away = tf.abs(geometry - maps[..., :3]) * tf.constant((1.0, 1.0, 2.0))
    placed = tf.reduce_sum(weight * tf.reduce_sum(away, axis=-1), axis=(1, 2))
    placed /= tf.reduce_sum(weight, axis=(1, 2)) + 1e-3
    # What no face binds would otherwise stretch the int8 scale of the whole map.
    beyond = tf.nn.relu(tf.abs(maps[..., :3]) - 2.0)
    return focal + placed + 0.5 * tf.reduce_mean(beyond, axis=(1, 2, 3))


def trainable(net: tf.keras.Model) -> tf.keras.Model:
    """Give the net with its maps joined, so that one loss sees both."""
    outputs = net.output
    maps = tf.keras.layers.Concatenate(name="maps")([outputs["geometry"], outputs["heat"]])
    return tf.keras.Model(net.input, {"maps": maps})


def as_arrays(scenes: list[Scene]) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.float32]]]:
    """Stack scenes into the pictures and the truth that the loss reads."""
    maps = np.stack([target_maps(made) for made in scenes])
    return np.stack([made.picture for made in scenes]), {"maps": maps}


def main() -> int:
    options = training_options(__doc__, "detector.tflite", epochs=12, rate=2e-3)
    tf.keras.utils.set_random_seed(options.seed)
    drawn = draw_parts(options, scene, as_arrays)
    net = detector_net()
    print(f"{multiply_accumulates(net) / 1e6:.2f} MMAC, {net.count_params()} parameters", flush=True)
    if options.weights:
        net.load_weights(options.weights)
    joined = trainable(net)
    joined.compile(tf.keras.optimizers.Adam(), {"maps": detector_loss})
    fit(joined, Batches(*drawn["train"], options.seed), Batches(*drawn["validation"], options.seed),
        rate=options.rate, epochs=options.epochs, folder=options.out)  # fmt: skip
    net.save(options.out / "detector.keras")
    quantise(detector_net, net, drawn["train"][0][:400], options.out / "detector.tflite")
    return 0


if __name__ == "__main__":
    sys.exit(main())
