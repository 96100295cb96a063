"""Running int8 models: one protocol, on the CPU or on an accelerator."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of a model."""

    name: str
    shape: tuple[int, ...]
    """Static, batch 1."""
    scale: float
    """real = scale * (int8 - zero_point)"""
    zero_point: int

    def quantize(self, real: NDArray[np.float32]) -> NDArray[np.int8]:
        """Give the int8 nearest to `real`, saturated at the ends of the range."""
        steps = np.rint(real / self.scale)
        steps += self.zero_point
        np.minimum(np.maximum(steps, -128, out=steps), 127, out=steps)
        quantized: NDArray[np.int8] = steps.astype(np.int8)
        return quantized

    def is_like(self, other: "Tensor") -> bool:
        """Tell whether both have one shape and one quantisation; a name may differ."""
        alike = (self.shape, self.zero_point) == (other.shape, other.zero_point)
        # A model's file holds float32, the manifest its decimals.
        return alike and math.isclose(self.scale, other.scale, rel_tol=1e-6)

    def dequantize(self, quantized: NDArray[np.int8]) -> NDArray[np.float32]:
        """Give the real values that `quantized` stands for, float32, same shape."""
        return (quantized.astype(np.float32) - self.zero_point) * self.scale


@dataclass(frozen=True, slots=True)
class AcceleratorStatus:
    """How the accelerator is doing."""

    asked: str
    """The setting `inference.accelerator`."""
    engine: str
    """What runs the models now."""
    state: str
    """ "off" (not asked for), "absent" (nothing to use), "starting", "in use" or "lost"."""
    restarts: int = 0
    """How often it came back."""
    fallback_runs: int = 0
    """Calls that the CPU answered in its place."""
    reason: str = ""
    """Why it is absent or lost."""


class Model(Protocol):
    """A loaded int8 model with one input.

    Ready when constructed: hash, shapes and types are checked then (`ModelError`), so `run` only works.
    `run` may be called from one thread at a time. Who constructs it closes it.
    """

    name: str
    """Its name in `models/manifest.toml`."""
    sha256: str
    input: Tensor
    outputs: tuple[Tensor, ...]
    """Sorted by name."""
    calibration: Mapping[str, float]
    """The numbers of its passport that make its outputs honest, by name; may be empty."""

    @property
    def engine(self) -> str:
        """What runs it now: "litert", "tflite-runtime" or "edgetpu"."""
        ...

    def run(self, values: NDArray[np.int8]) -> tuple[NDArray[np.int8], ...]:
        """Give the outputs, in the order of `outputs`, for one input of `input.shape`.

        The arrays returned are the caller's until the next call of `run`.
        """
        ...

    def close(self) -> None: ...
