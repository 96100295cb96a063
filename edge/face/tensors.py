"""What both face nets have in common: their input, and refusing a model of another kind."""

import numpy as np
from numpy.typing import NDArray

from edge.errors import ModelError
from edge.inference import Model

INPUT_SIZE = 128
"""Side of the square luma picture that both nets see, px."""
INPUT_SCALE = 1 / 64
"""The nets were trained on (luma - 128) / 64."""


def check_tensors(model: Model, outputs: dict[str, tuple[int, ...]]) -> None:
    """Make sure that a model has the input of a face net and the outputs named.

    Raises:
        ModelError: it does not, with both sides.
    """
    found = {tensor.name: tensor.shape for tensor in model.outputs}
    shape = (1, INPUT_SIZE, INPUT_SIZE, 1)
    if model.input.shape != shape or found != outputs:
        raise ModelError(
            f"model {model.name}: input {model.input.shape}, outputs {found}; expected {shape} and {outputs}"
        )
    if abs(model.input.scale - INPUT_SCALE) > 1e-6 or model.input.zero_point != 0:
        raise ModelError(
            f"model {model.name}: input scale {model.input.scale} and zero point {model.input.zero_point}, "
            f"expected {INPUT_SCALE} and 0, so that int8 is luma - 128"
        )


def as_input(luma: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Give (128, 128) uint8 luma as the nets' (1, 128, 128, 1) int8 input: luma - 128.

    Subtracting 128 and reading the byte as signed is the same as turning its top bit.
    """
    return (luma ^ np.uint8(0x80)).view(np.int8)[None, ..., None]
