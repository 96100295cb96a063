"""The two network shapes: small, separable, and made only of operators that the Edge TPU maps.

Built for TensorFlow 2.15: its post-training quantisation gives the operator versions that the Edge TPU
compiler is known to accept (later ones quantise fully connected layers by channel). Sources: Howard et al.
2017 (MobileNets, depthwise-separable convolution), Sandler et al. 2018 (linear bottleneck, ReLU6), Zhou et
al. 2019 (Objects as Points: one heat map, geometry at its peaks).
"""

import tensorflow as tf
from keras import Model, layers

from edge.face.tensors import INPUT_SIZE


def _conv(x: tf.Tensor, channels: int, size: int = 1, stride: int = 1, *, active: bool = True) -> tf.Tensor:
    x = layers.Conv2D(channels, size, stride, "same", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.98)(x)
    return layers.ReLU(6.0)(x) if active else x


def _separable(x: tf.Tensor, channels: int, stride: int = 1) -> tf.Tensor:
    """Filter each channel, then mix them; with a residual where the shape stays."""
    y = layers.DepthwiseConv2D(3, stride, "same", use_bias=False)(x)
    y = layers.BatchNormalization(momentum=0.98)(y)
    y = layers.ReLU(6.0)(y)
    y = _conv(y, channels, active=False)
    if stride == 1 and x.shape[-1] == channels:
        y = layers.Add()([x, y])
    return layers.ReLU(6.0)(y)


def _enlarge(x: tf.Tensor) -> tf.Tensor:
    return layers.UpSampling2D(2, interpolation="bilinear")(x)


def landmark_net(points: int, batch: int | None = None) -> Model:
    """Build the landmark net, about 10 MMAC.

    Outputs (named): heat (B, 16, 16, points) logits; offsets (B, 16, 16, 2 points) in cells, first all x,
    then all y; presence (B, 1, 1, 1) logit.
    """
    image = layers.Input((INPUT_SIZE, INPUT_SIZE, 1), batch, name="image")
    x = _conv(image, 16, 3, 2)
    x = _separable(x, 24, 2)
    x = _separable(x, 24)
    x = _separable(x, 48, 2)
    x = _separable(x, 48)
    fine = _separable(x, 48)
    x = _separable(fine, 96, 2)
    for _ in range(4):
        x = _separable(x, 96)
    presence = layers.GlobalAveragePooling2D(keepdims=True)(x)
    presence = layers.Conv2D(1, 1, name="presence")(presence)
    x = layers.Add()([_enlarge(_conv(x, 64, active=False)), _conv(fine, 64, active=False)])
    x = _separable(layers.ReLU(6.0)(x), 64)
    heat = layers.Conv2D(points, 1, name="heat")(x)
    offsets = layers.Conv2D(2 * points, 1, name="offsets")(x)
    return Model(image, {"heat": heat, "offsets": offsets, "presence": presence}, name="landmarks")


def detector_net(batch: int | None = None) -> Model:
    """Build the detector, about 14 MMAC.

    Outputs (named): heat (B, 32, 32, 1) logits; geometry (B, 32, 32, 3): dx, dy in cells from the cell's
    centre to the face's, and the natural logarithm of size / 24 px.
    """
    image = layers.Input((INPUT_SIZE, INPUT_SIZE, 1), batch, name="image")
    x = _separable(_conv(image, 12, 3, 2), 12)
    x = _separable(x, 32, 2)
    quarter = _separable(x, 32)
    x = _separable(quarter, 64, 2)
    x = _separable(x, 64)
    eighth = _separable(x, 64)
    x = _separable(eighth, 96, 2)
    x = _separable(x, 96)
    sixteenth = _separable(x, 96)
    x = _separable(sixteenth, 128, 2)
    x = _separable(x, 128)
    x = layers.Add()([_enlarge(_conv(x, 96, active=False)), sixteenth])
    x = _separable(x, 96)
    x = layers.Add()([_enlarge(_conv(x, 64, active=False)), eighth])
    x = _separable(x, 64)
    x = layers.Add()([_enlarge(_conv(x, 32, active=False)), quarter])
    x = _separable(_separable(x, 32), 32)
    rare = tf.keras.initializers.Constant(-4.0)  # most cells hold no face: start from that
    heat = layers.Conv2D(1, 1, bias_initializer=rare, name="heat")(x)
    geometry = layers.Conv2D(3, 1, name="geometry")(x)
    return Model(image, {"geometry": geometry, "heat": heat}, name="detector")


def multiply_accumulates(net: Model) -> int:
    """Count the multiply-accumulate operations of one pass, convolutions only."""
    total = 0
    for layer in net.layers:
        if isinstance(layer, layers.DepthwiseConv2D):
            rows, columns, channels = layer.output_shape[1:]
            total += rows * columns * channels * layer.kernel_size[0] * layer.kernel_size[1]
        elif isinstance(layer, layers.Conv2D):
            rows, columns, channels = layer.output_shape[1:]
            total += (
                rows
                * columns
                * channels
                * layer.input_shape[-1]
                * layer.kernel_size[0]
                * layer.kernel_size[1]
            )
    return total
