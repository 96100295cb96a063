"""The spotter's architecture: a small temporal U-net of plain convolutions that an Edge TPU can map."""

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edge.evidence import INPUTS, OUTPUTS, WINDOW
from tools.int8 import convert

_WIDTHS = (32, 48, 64, 96)


def _conv(values: tf.Tensor, width: int, span: int, *, stride: int = 1, name: str) -> tf.Tensor:
    values = tf.keras.layers.Conv2D(
        width, (1, span), strides=(1, stride), padding="same", use_bias=False, name=name
    )(values)
    values = tf.keras.layers.BatchNormalization(name=f"{name}_norm")(values)
    return tf.keras.layers.ReLU(6.0, name=f"{name}_relu")(values)


def build(batch: int | None = None) -> tf.keras.Model:
    """Make the net: (1, 128, C) in; logits out, `phase` per step, the others per two steps."""
    motion = tf.keras.Input((1, WINDOW, len(INPUTS)), batch_size=batch, name="motion")
    mixed = _conv(motion, _WIDTHS[0], 1, name="mix")
    fine = _conv(mixed, _WIDTHS[0], 5, name="fine")
    levels, values = [fine], fine
    for number, width in enumerate(_WIDTHS[1:], start=1):
        values = _conv(values, width, 5, stride=2, name=f"down{number}")
        values = _conv(values, width, 3, name=f"down{number}b")
        levels.append(values)
    values = _conv(values, _WIDTHS[-1], 5, name="bottom")
    half = values
    for number in (2, 1, 0):
        width = _WIDTHS[number]
        values = tf.keras.layers.UpSampling2D((1, 2), interpolation="bilinear", name=f"up{number}")(values)
        values = _conv(values, width, 1, name=f"narrow{number}")
        values = tf.keras.layers.Add(name=f"join{number}")([values, levels[number]])
        values = _conv(values, width, 3, name=f"merge{number}")
        half = values if number == 1 else half
    half = tf.keras.layers.SpatialDropout2D(0.1, name="drop")(half)
    half = _conv(half, 64, 3, name="meaning")

    def head(source: tf.Tensor, name: str) -> tf.Tensor:
        return tf.keras.layers.Conv2D(OUTPUTS[name], (1, 1), name=name)(source)

    return tf.keras.Model(
        motion,
        {
            "phase": head(values, "phase"),
            **{name: head(half, name) for name in ("emotion", "units", "confusers")},
        },
        name="spotter",
    )


def to_int8(model: tf.keras.Model, examples: NDArray[np.float32]) -> bytes:
    """Quantise after training, int8 in and out, batch 1.

    Args:
        examples: (n, WINDOW, C) encoded windows to take the ranges from.
    """
    fixed = build(batch=1)
    fixed.set_weights(model.get_weights())
    return convert(fixed, (window[None, None] for window in examples))
