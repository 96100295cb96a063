"""Check that a model can be compiled for the Edge TPU, without its compiler: `python -m tools.edgetpu_check FILE...`.

Reads the flatbuffer and holds it against `edgetpu_ops.toml` and the rules of the Edge TPU: int8 throughout, fixed
shapes, batch 1, known operator versions, one weight scale for FULLY_CONNECTED. The models named are meant to be
compiled together and to stay on the chip at once, so their weights must fit its memory together. It cannot know all
that the compiler looks at (sizes of single layers); `edgetpu_compiler FILE...` on an x86 Debian has the last word.
"""

import argparse
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

OPERATORS = Path(__file__).with_name("edgetpu_ops.toml")
MEMORY_BYTES = round(7.7 * 2**20)
"""What the chip has for weights, of its 8 MB; weights beyond it are sent again at every inference. Source:
ricardodeazambuja/LibrEdgeTPU, which measured 7.73 to 7.88 MiB."""
_INT8, _INT32 = schema.TensorType.INT8, schema.TensorType.INT32
_NAMES = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
_TYPES = {number: name for name, number in vars(schema.TensorType).items() if isinstance(number, int)}


def complaints(content: bytes) -> list[str]:
    """Give what would keep a model off the Edge TPU, one sentence each; nothing for a sound one.

    Args:
        content: a .tflite file.
    """
    try:
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        graphs = model.subgraphs or []
    except Exception as error:  # the generated reader fails in any way on a damaged file
        return [f"not a model file ({type(error).__name__})"]
    if len(graphs) != 1:
        return [f"{len(graphs)} subgraphs, expected 1"]
    graph = graphs[0]
    found = _of_interface(graph) + _of_tensors(graph)
    for operator in graph.operators:
        found += _of_operator(model, graph, operator)
    return list(dict.fromkeys(found))


def weight_bytes(content: bytes) -> int:
    """Give the bytes of all constants of a model, which the chip keeps.

    Args:
        content: a sound .tflite file.
    """
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    constants = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    return sum(len(model.buffers[each].data) for each in constants if model.buffers[each].data is not None)


def complaint_together(sizes: dict[str, int]) -> str:
    """Say why models do not fit the chip's memory together; empty if they do.

    Args:
        sizes: bytes of weights by model.
    """
    total = sum(sizes.values())
    if total <= MEMORY_BYTES:
        return ""
    parts = ", ".join(f"{name} {size / 2**20:.2f}" for name, size in sizes.items())
    return (
        f"together: {total / 2**20:.2f} MiB of weights, more than the {MEMORY_BYTES / 2**20:.1f} MiB on the chip "
        f"({parts}); each inference would send the rest again"
    )


def _name(tensor: Any) -> str:
    return tensor.name.decode() if isinstance(tensor.name, bytes) else str(tensor.name)


def _of_interface(graph: Any) -> list[str]:
    found = []
    if len(graph.inputs) != 1:
        found.append(f"{len(graph.inputs)} inputs, expected 1")
    for kind, indices in (("input", graph.inputs), ("output", graph.outputs)):
        for index in indices:
            tensor = graph.tensors[index]
            if tensor.type != _INT8:
                found.append(f"{kind} {_name(tensor)} is {_TYPES[tensor.type]}, expected INT8")
            if tensor.shape is None or len(tensor.shape) == 0 or tensor.shape[0] != 1:
                found.append(f"{kind} {_name(tensor)} has shape {tensor.shape}, expected batch 1")
    return found


def _of_tensors(graph: Any) -> list[str]:
    found = []
    for tensor in graph.tensors:
        # int32 holds biases, shapes and axes; everything that is computed on is int8.
        if tensor.type not in (_INT8, _INT32):
            found.append(f"tensor {_name(tensor)} is {_TYPES[tensor.type]}, expected INT8 or INT32")
        signature = tensor.shapeSignature
        if signature is not None and np.any(np.asarray(signature) < 0):
            found.append(f"tensor {_name(tensor)} has a free dimension {list(signature)}")
    return found


def _of_operator(model: Any, graph: Any, operator: Any) -> list[str]:
    code = model.operatorCodes[operator.opcodeIndex]
    # Files of old converters hold the number in the first field, new ones in the second.
    name = _NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]
    with OPERATORS.open("rb") as file:
        allowed = tomllib.load(file)["operators"]
    if name not in allowed:
        return [f"operator {name} is not known to map; allowed: {', '.join(allowed)}"]
    versions = allowed[name]["versions"]
    found = []
    if code.version not in versions:
        found.append(f"operator {name} has version {code.version}, known to map: {versions}")
    if name == "FULLY_CONNECTED":
        weights = graph.tensors[operator.inputs[1]]
        scales = weights.quantization.scale
        if scales is None or len(scales) != 1:
            count = 0 if scales is None else len(scales)
            found.append(f"FULLY_CONNECTED weights {_name(weights)} have {count} scales, expected 1")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path, nargs="+", metavar="FILE", help=".tflite files")
    options = parser.parse_args()
    failed = False
    sizes: dict[str, int] = {}
    for path in options.models:
        try:
            content = path.read_bytes()
            found = complaints(content)
            if not found:
                sizes[str(path)] = weight_bytes(content)
        except OSError as error:
            found = [error.strerror or str(error)]
        failed |= bool(found)
        print(f"{path}: {'; '.join(found) or 'ok'}")
    together = complaint_together(sizes)
    if len(sizes) > 1 or together:
        share = f"together: {sum(sizes.values()) / 2**20:.2f} of {MEMORY_BYTES / 2**20:.1f} MiB on the chip"
        print(together or f"{share}: ok")
    return 1 if failed or together else 0


if __name__ == "__main__":
    sys.exit(main())
