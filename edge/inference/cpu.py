"""Int8 models on the CPU: LiteRT where it is installed, else tflite-runtime.

Both read the same files. LiteRT runs int8 about twenty times faster on x86 and is the only one for Python
3.12 and later; tflite-runtime is what Raspberry Pi OS Bookworm carries. Their outputs differ by a few steps
of int8.
"""

import contextlib
import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import ModelError
from edge.inference import Tensor

ENGINES = {"litert": "ai_edge_litert.interpreter", "tflite-runtime": "tflite_runtime.interpreter"}
"""Engine names and the modules behind them, in the order in which `auto` tries them."""


def installed_engines() -> list[str]:
    """Give the engines that can be imported here, best first."""
    return [name for name in ENGINES if engine_module(name) is not None]


def engine_module(engine: str) -> ModuleType | None:
    """Give the module behind an engine; None where it is not installed."""
    # TensorFlow's own notes about the processor would land in the user's terminal.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        return importlib.import_module(ENGINES[engine])
    except ImportError:
        return None


class CpuModel:
    """A `edge.inference.Model` that an interpreter on the CPU runs."""

    def __init__(
        self,
        content: bytes,
        *,
        name: str,
        sha256: str,
        engine: str = "auto",
        threads: int = 1,
        calibration: Mapping[str, float] = MappingProxyType({}),
        delegates: Sequence[Any] = (),
    ) -> None:
        """Load a model and check its tensors.

        Args:
            content: the .tflite file, its hash already compared: the engines do not verify what they read, and
                tflite-runtime takes the process down on a damaged file.
            name: its name in the manifest.
            sha256: of `content`.
            engine: "auto", "litert" or "tflite-runtime".
            threads: CPU threads for one inference.
            calibration: of its passport.
            delegates: what the engine hands parts of the model to, such as the Edge TPU's driver.

        Raises:
            ModelError: not a model, not int8, a free dimension, more than one input, or the engine is absent.
        """
        self.name = name
        self.sha256 = sha256
        self.calibration = calibration
        self.engine, module = _choose(engine)
        if content[4:8] != b"TFL3":  # the file identifier of the TensorFlow Lite schema
            raise ModelError(f"model {name}: not a TensorFlow Lite file")
        self._interpreter: Any
        try:
            with _quiet():
                self._interpreter = module.Interpreter(
                    model_content=content, num_threads=threads, experimental_delegates=list(delegates) or None
                )
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ModelError(f"model {name}: {self.engine} cannot load it ({first_line})") from error
        inputs, outputs = _named_tensors(self._interpreter)
        if len(inputs) != 1:
            raise ModelError(f"model {name}: {len(inputs)} inputs, expected 1")
        (input_name, input_details), *_ = inputs.items()
        self.input = self._tensor(input_name, input_details)
        self.outputs = tuple(self._tensor(name, details) for name, details in sorted(outputs.items()))
        self._input_index = int(input_details["index"])
        self._output_indices = [int(details["index"]) for _, details in sorted(outputs.items())]

    def _tensor(self, name: str, details: dict[str, Any]) -> Tensor:
        shape = tuple(int(side) for side in details["shape"])
        free = [int(side) for side in details.get("shape_signature", ()) if side < 0]
        if details["dtype"] is not np.int8:
            raise ModelError(
                f"model {self.name}: tensor {name} is {np.dtype(details['dtype'])}, expected int8"
            )
        if free or not shape or shape[0] != 1:
            raise ModelError(
                f"model {self.name}: tensor {name} has shape {shape}, expected a fixed one with batch 1"
            )
        scale, zero_point = details["quantization"]
        if not scale > 0:
            raise ModelError(f"model {self.name}: tensor {name} has scale {scale}, expected a positive one")
        return Tensor(name, shape, float(scale), int(zero_point))

    def run(self, values: NDArray[np.int8]) -> tuple[NDArray[np.int8], ...]:
        """Give the outputs for one input; see `edge.inference.Model`."""
        self._interpreter.set_tensor(self._input_index, values)
        self._interpreter.invoke()
        return tuple(self._interpreter.get_tensor(index) for index in self._output_indices)

    def close(self) -> None:
        """Free the interpreter; may be called again."""
        self._interpreter = None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the engine's own notes ("Created TensorFlow Lite XNNPACK delegate") out of the user's terminal.

    It writes them to file descriptor 2 from C++ and offers no switch. What goes wrong comes as an exception.
    """
    try:
        kept = os.dup(2)
    except OSError:  # a service may run without one
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)


def _choose(engine: str) -> tuple[str, ModuleType]:
    if engine != "auto" and engine not in ENGINES:
        raise ModelError(f"engine {engine!r}: expected auto or one of {', '.join(ENGINES)}")
    for name in ENGINES if engine == "auto" else (engine,):
        module = engine_module(name)
        if module is not None:
            return name, module
    raise ModelError(f"engine {engine}: not installed; install one of ai-edge-litert, tflite-runtime")


def _named_tensors(interpreter: Any) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Give inputs and outputs by name: as the model's signature names them, else as the file does.

    Without a signature the names are what the converter made up, such as `StatefulPartitionedCall:1`.
    """
    signatures = interpreter.get_signature_list()
    if signatures:
        runner = interpreter.get_signature_runner(next(iter(signatures)))
        return runner.get_input_details(), runner.get_output_details()
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    return {str(d["name"]): d for d in inputs}, {str(d["name"]): d for d in outputs}
