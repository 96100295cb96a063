"""Turn a Keras net of batch 1 into the full-int8 TFLite file that a device runs."""

from collections.abc import Iterable

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray


def convert(net: tf.keras.Model, examples: Iterable[NDArray[np.float32]]) -> bytes:
    """Quantise after training, int8 in and out.

    Args:
        net: with its batch fixed to 1: a free one leaves SHAPE and PACK operators behind, which the Edge TPU does
            not map.
        examples: inputs of the net's shape, batch axis included, from which the ranges are taken.
    """
    converter = tf.lite.TFLiteConverter.from_keras_model(net)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    kept = list(examples)
    converter.representative_dataset = lambda: ([example] for example in kept)
    return bytes(converter.convert())
