"""The yardstick of `bench`: an int8 network of MobileNet-V2's operators, made here with random weights.

Machines differ, so a cost is told as a multiple of one inference of this net in the same run. The plan is
MobileNet-V2 1.0 at 224 px (Sandler et al. 2018, table 2) as TensorFlow converts it: 300.8 million
multiply-accumulates, batch norms folded, strides behind an explicit PAD, int8 in and out, per-channel weights.
Written straight into a flatbuffer, so that neither TensorFlow nor a file is needed. What the weights say does
not matter: int8 kernels take the same time for any values.
"""

from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import EdgeError
from edge.inference.cpu import CpuModel

SIDE = 224
CLASSES = 1000
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""(expansion, channels, repeats, stride of the first); Sandler et al. 2018, table 2."""
_FIRST, _LAST = 32, 1280
_INPUT_SCALE, _INPUT_ZERO = 1 / 127.5, -1
_RELU6_SCALE, _RELU6_ZERO = 6 / 255, -128
_LINEAR_SCALE, _LINEAR_ZERO = 0.05, 0
_LOGIT_SCALE = 0.1
_SOFTMAX_SCALE, _SOFTMAX_ZERO = 1 / 256, -128
"""Demanded by the int8 softmax of TensorFlow Lite (its quantisation specification)."""
_VERSIONS = {
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "PAD": 2,
    "ADD": 2,
    "MEAN": 2,
    "FULLY_CONNECTED": 4,
    "SOFTMAX": 2,
}
"""Operators with the versions that TensorFlow 2.15 writes, which tflite-runtime 2.14 reads as well."""


def load_yardstick(engine: str = "auto") -> CpuModel:
    """Give the yardstick, ready to run on one thread.

    Raises:
        ModelError: the engine is not installed.
        EdgeError: the flatbuffer schema, which comes with ai-edge-litert, is not installed.
    """
    content, _ = make_yardstick()
    return CpuModel(content, name="yardstick", sha256="", engine=engine, threads=1)


@cache
def make_yardstick() -> tuple[bytes, int]:
    """Give the .tflite file, the same bytes at each call, and its multiply-accumulates per inference."""
    net = _Net(*_modules())
    x = net.input()
    x = net.conv(x, _FIRST, kernel=3, stride=2, relu=True)
    for expansion, channels, repeats, first_stride in _STAGES:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            y = net.conv(x, expansion * net.channels(x), relu=True) if expansion > 1 else x
            y = net.depthwise(net.pad(y) if stride > 1 else y, stride)
            y = net.conv(y, channels, relu=False)
            x = net.add(x, y) if repeat else y
    x = net.conv(x, _LAST, relu=True)
    x = net.mean(x)
    return net.finish(net.softmax(net.fully_connected(x, CLASSES))), net.macs


def _modules() -> tuple[ModuleType, ModuleType]:
    try:
        import flatbuffers
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise EdgeError(f"the yardstick needs ai-edge-litert and flatbuffers: {error}") from error
    return schema_py_generated, flatbuffers


class _Net:
    """A model file that grows operator by operator; tensors are known by their index."""

    def __init__(self, schema: ModuleType, flatbuffers: ModuleType) -> None:
        self.macs = 0
        self._schema, self._flatbuffers = schema, flatbuffers
        self._random = np.random.default_rng(0)
        self._shapes: list[tuple[int, ...]] = []
        self._scales: list[tuple[float, int]] = []
        self._codes: dict[str, int] = {}
        # By the format's rule buffer 0 is the empty one, which every computed tensor names.
        self._buffers = [schema.BufferT()]
        self._graph = schema.SubGraphT()
        self._graph.name = "main"
        self._graph.tensors, self._graph.operators = [], []

    def channels(self, tensor: int) -> int:
        return self._shapes[tensor][-1]

    def input(self) -> int:
        return self._computed((1, SIDE, SIDE, 3), _INPUT_SCALE, _INPUT_ZERO)

    def conv(self, x: int, channels: int, *, kernel: int = 1, stride: int = 1, relu: bool) -> int:
        """Add a convolution that pads its own borders."""
        schema = self._schema
        _, rows, columns, depth = self._shapes[x]
        shape = (1, -(-rows // stride), -(-columns // stride), channels)
        self.macs += shape[1] * shape[2] * channels * kernel * kernel * depth
        options = schema.Conv2DOptionsT()
        options.strideW = options.strideH = stride
        options.dilationWFactor = options.dilationHFactor = 1
        options.padding = schema.Padding.SAME
        options.fusedActivationFunction = self._activation(relu)
        weights, bias = self._weights(x, (channels, kernel, kernel, depth), 0, kernel * kernel * depth)
        return self._operator("CONV_2D", options, (x, weights, bias), self._layer(shape, relu))

    def depthwise(self, x: int, stride: int) -> int:
        """Add a 3x3 depthwise convolution with ReLU6; with a stride it expects `pad` before it."""
        schema = self._schema
        _, rows, columns, depth = self._shapes[x]
        shape = (1, rows // stride, columns // stride, depth)
        self.macs += shape[1] * shape[2] * depth * 9
        options = schema.DepthwiseConv2DOptionsT()
        options.strideW = options.strideH = stride
        options.dilationWFactor = options.dilationHFactor = options.depthMultiplier = 1
        options.padding = schema.Padding.SAME if stride == 1 else schema.Padding.VALID
        options.fusedActivationFunction = self._activation(True)
        weights, bias = self._weights(x, (1, 3, 3, depth), 3, 9)
        return self._operator("DEPTHWISE_CONV_2D", options, (x, weights, bias), self._layer(shape, True))

    def pad(self, x: int) -> int:
        """Add one row and one column behind, as Keras does before a stride of 2."""
        _, rows, columns, depth = self._shapes[x]
        margins = self._constant(np.array([[0, 0], [0, 1], [0, 1], [0, 0]], np.int32))
        padded = self._computed((1, rows + 1, columns + 1, depth), *self._scales[x])
        return self._operator("PAD", self._schema.PadOptionsT(), (x, margins), padded)

    def add(self, x: int, y: int) -> int:
        options = self._schema.AddOptionsT()
        return self._operator("ADD", options, (x, y), self._layer(self._shapes[y], False))

    def mean(self, x: int) -> int:
        """Average over rows and columns."""
        options = self._schema.ReducerOptionsT()
        options.keepDims = False
        axes = self._constant(np.array([1, 2], np.int32))
        return self._operator("MEAN", options, (x, axes), self._layer((1, self.channels(x)), True))

    def fully_connected(self, x: int, units: int) -> int:
        depth = self.channels(x)
        self.macs += depth * units
        weights = self._constant(self._int8((units, depth)), (0.002,), 0)
        scores = self._computed((1, units), _LOGIT_SCALE, 0)
        # No bias, and one scale: the file's int8 rules know no scales per unit here before version 12.
        return self._operator(
            "FULLY_CONNECTED", self._schema.FullyConnectedOptionsT(), (x, weights, -1), scores
        )

    def softmax(self, x: int) -> int:
        options = self._schema.SoftmaxOptionsT()
        options.beta = 1.0
        return self._operator(
            "SOFTMAX", options, (x,), self._computed(self._shapes[x], _SOFTMAX_SCALE, _SOFTMAX_ZERO)
        )

    def finish(self, output: int) -> bytes:
        schema = self._schema
        self._graph.inputs, self._graph.outputs = [0], [output]
        model = schema.ModelT()
        model.version = 3
        model.description = "microedge yardstick: MobileNet-V2 1.0 224 int8, random weights"
        model.subgraphs, model.buffers, model.operatorCodes = [self._graph], self._buffers, []
        for name in self._codes:
            code = schema.OperatorCodeT()
            code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
            code.version = _VERSIONS[name]
            model.operatorCodes.append(code)
        builder = self._flatbuffers.Builder(4 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _activation(self, relu: bool) -> int:
        kinds = self._schema.ActivationFunctionType
        return int(kinds.RELU6 if relu else kinds.NONE)

    def _layer(self, shape: tuple[int, ...], relu: bool) -> int:
        scale = (_RELU6_SCALE, _RELU6_ZERO) if relu else (_LINEAR_SCALE, _LINEAR_ZERO)
        return self._computed(shape, *scale)

    def _int8(self, shape: tuple[int, ...]) -> NDArray[np.int8]:
        return self._random.integers(-127, 128, shape, np.int8)

    def _weights(self, x: int, shape: tuple[int, ...], axis: int, fan_in: int) -> tuple[int, int]:
        """Add weights whose size keeps the signal's (He et al. 2015) and a bias, both with scales per channel."""
        channels = shape[axis]
        step = float(np.sqrt(2 / fan_in) / 73.3)  # 73.3: standard deviation of evenly spread -127..127
        scales = step * self._random.uniform(0.8, 1.25, channels)
        weights = self._constant(self._int8(shape), scales, axis)
        bias = self._random.integers(-2000, 2000, channels, np.int32)
        return weights, self._constant(bias, scales * self._scales[x][0], 0)

    def _constant(self, values: NDArray[Any], scales: Any = None, axis: int = 0) -> int:
        buffer = self._schema.BufferT()
        buffer.data = values.reshape(-1).view(np.uint8)
        self._buffers.append(buffer)
        kind = self._schema.TensorType.INT8 if values.dtype == np.int8 else self._schema.TensorType.INT32
        return self._tensor(
            values.shape, kind, len(self._buffers) - 1, scales, np.zeros(np.size(scales)), axis
        )

    def _computed(self, shape: tuple[int, ...], scale: float, zero_point: int) -> int:
        return self._tensor(shape, self._schema.TensorType.INT8, 0, (scale,), (zero_point,), 0)

    def _tensor(
        self, shape: tuple[int, ...], kind: int, buffer: int, scales: Any, zero_points: Any, axis: int
    ) -> int:
        tensor = self._schema.TensorT()
        tensor.name = f"tensor_{len(self._shapes)}"
        tensor.shape, tensor.type, tensor.buffer = np.array(shape, np.int32), kind, buffer
        tensor.hasRank = True
        if scales is not None:
            quantisation = self._schema.QuantizationParametersT()
            quantisation.scale = np.array(scales, np.float32)
            quantisation.zeroPoint = np.array(zero_points, np.int64)
            quantisation.quantizedDimension = axis
            tensor.quantization = quantisation
        self._shapes.append(shape)
        self._scales.append((float(scales[0]), int(zero_points[0])) if scales is not None else (1.0, 0))
        self._graph.tensors.append(tensor)
        return len(self._shapes) - 1

    def _operator(self, name: str, options: Any, inputs: tuple[int, ...], output: int) -> int:
        operator = self._schema.OperatorT()
        operator.opcodeIndex = self._codes.setdefault(name, len(self._codes))
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        operator.builtinOptions = options
        operator.builtinOptionsType = getattr(self._schema.BuiltinOptions, type(options).__name__[:-1])
        self._graph.operators.append(operator)
        return output
