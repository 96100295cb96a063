"""What the program and its inference child say to each other, and where the tensors lie.

Tensors lie in shared memory. Messages go over a pair of SOCK_SEQPACKET sockets, which keep their boundaries and show
at once that the other side has ended. The program asks with RUN, the child answers with DONE, one at a time; a
header names the call by a sequence number that never repeats and states how many bytes were written. READY is the
child's first message, FAILED its last.
"""

import json
import mmap
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from edge.inference import Tensor

RUN, DONE, READY, FAILED = b"RUN.", b"DONE", b"REDY", b"FAIL"
HEADER = struct.Struct("<4sQII")
"""Kind, sequence number, place of the model in the order, bytes written. Text follows READY and FAILED."""
LONGEST = 1024
"""Bytes of the longest message."""
_ALIGNED = 64
"""A cache line, so that no two tensors share one."""


@dataclass(frozen=True, slots=True)
class ModelOrder:
    """One model that the child is to load."""

    name: str
    path: str
    sha256: str
    """The file's; empty: whatever it holds, for a compiled model without a passport."""
    input: Tensor
    outputs: tuple[Tensor, ...]
    """In the order in which the program wants them."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the child is to do."""

    engine: str
    """ "edgetpu", or a CPU engine."""
    library: str
    """Path of libedgetpu; empty for a CPU engine."""
    device: str
    """As in `inference.device`."""
    threads: int
    parent: int
    """The program's process id: without it the child has no work."""
    socket: int
    """File descriptor."""
    memory: int
    """File descriptor."""
    models: tuple[ModelOrder, ...]

    def to_text(self) -> str:
        """Give it as JSON, for the command line."""
        return json.dumps(asdict(self))

    @classmethod
    def of_text(cls, text: str) -> "Order":
        """Read it back."""
        entries = json.loads(text)
        models = tuple(
            ModelOrder(
                each["name"], each["path"], each["sha256"], _tensor(each["input"]),
                tuple(map(_tensor, each["outputs"])),
            )
            for each in entries.pop("models")
        )  # fmt: skip
        return cls(**entries, models=models)


def _tensor(entry: dict[str, object]) -> Tensor:
    shape = entry["shape"]
    assert isinstance(shape, list)
    return Tensor(str(entry["name"]), tuple(shape), float(str(entry["scale"])), int(str(entry["zero_point"])))


@dataclass(frozen=True, slots=True)
class Area:
    """One model's tensors in the shared memory, int8."""

    input: NDArray[np.int8]
    outputs: tuple[NDArray[np.int8], ...]

    @property
    def output_bytes(self) -> int:
        """Bytes of all outputs together."""
        return sum(output.nbytes for output in self.outputs)


def memory_size(models: Sequence[ModelOrder]) -> int:
    """Give the bytes that the tensors of all models need."""
    return sum(_padded(tensor) for model in models for tensor in (model.input, *model.outputs))


def areas(memory: mmap.mmap, models: Sequence[ModelOrder]) -> list[Area]:
    """Lay the tensors out in `memory`, in the same way on both sides."""
    begin = 0
    laid = []
    for model in models:
        views = []
        for tensor in (model.input, *model.outputs):
            count = int(np.prod(tensor.shape))
            views.append(np.frombuffer(memory, np.int8, count, begin).reshape(tensor.shape))
            begin += _padded(tensor)
        laid.append(Area(views[0], tuple(views[1:])))
    return laid


def _padded(tensor: Tensor) -> int:
    return -(-int(np.prod(tensor.shape)) // _ALIGNED) * _ALIGNED


def message(kind: bytes, sequence: int = 0, place: int = 0, size: int = 0, text: str = "") -> bytes:
    """Give a message; the text is cut where it would be too long."""
    return (HEADER.pack(kind, sequence, place, size) + text.encode())[:LONGEST]
