"""The inference child: loads the models, answers one call at a time, and may die without harm.

libedgetpu ends the whole process when a USB transfer fails, so it is loaded here and nowhere else. Started by
`edge.inference.process`; ends with the program.
"""

import ctypes
import hashlib
import mmap
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import ModelError
from edge.inference.channel import (
    DONE,
    FAILED,
    HEADER,
    LONGEST,
    READY,
    RUN,
    ModelOrder,
    Order,
    areas,
    message,
)
from edge.inference.cpu import CpuModel
from edge.inference.edgetpu import ENGINE, best_runtime, delegate

_PR_SET_PDEATHSIG = 1
"""Source: prctl(2)."""


class Loaded:
    """A model whose outputs come in the order asked for."""

    def __init__(self, wanted: ModelOrder, order: Order) -> None:
        """Load it and hold it against what is wanted.

        Raises:
            ModelError: it cannot be read or loaded, or is another model.
        """
        try:
            content = Path(wanted.path).read_bytes()
        except OSError as error:
            raise ModelError(f"model {wanted.name}: {wanted.path}: {error.strerror}") from error
        found = hashlib.sha256(content).hexdigest()
        if wanted.sha256 and found != wanted.sha256:
            raise ModelError(
                f"model {wanted.name}: {wanted.path}: SHA-256 expected {wanted.sha256}, found {found}"
            )
        delegates: list[Any] = []
        engine = order.engine
        if engine == ENGINE:
            engine, _ = best_runtime()
            delegates = [delegate(engine, order.library, order.device)]
        self._model = CpuModel(
            content, name=wanted.name, sha256=found, engine=engine, threads=order.threads, delegates=delegates
        )
        if not self._model.input.is_like(wanted.input):
            raise ModelError(f"model {wanted.name}: {wanted.path}: has another input")
        # The compiler keeps shapes and scales, but not always the names.
        self._places = [
            [place for place, output in enumerate(self._model.outputs) if output.is_like(each)]
            for each in wanted.outputs
        ]
        if [len(places) for places in self._places] != [1] * len(self._model.outputs):
            raise ModelError(f"model {wanted.name}: {wanted.path}: has other outputs")

    def run(self, values: NDArray[np.int8]) -> list[NDArray[np.int8]]:
        """Give the outputs in the order asked for."""
        outputs = self._model.run(values)
        return [outputs[place] for (place,) in self._places]


def serve(order: Order) -> None:
    """Load, then answer until the program closes its end.

    Raises:
        ModelError, OSError, RuntimeError, ValueError: what keeps it from going on; the program was told.
    """
    with socket.socket(fileno=order.socket) as link, mmap.mmap(order.memory, 0) as memory:
        try:
            laid = areas(memory, order.models)
            loaded = [Loaded(model, order) for model in order.models]
            link.send(message(READY))
            while asked := link.recv(LONGEST):
                kind, sequence, place, size = HEADER.unpack(asked)
                area = laid[place]
                if kind != RUN or size != area.input.nbytes:
                    raise ValueError(f"asked for {kind!r} with {size} bytes")
                for target, output in zip(area.outputs, loaded[place].run(area.input), strict=True):
                    np.copyto(target, output)
                link.send(message(DONE, sequence, place, area.output_bytes))
        except Exception as error:
            link.send(message(FAILED, text=str(error) or type(error).__name__))
            raise


def _leave_no_core() -> None:
    """Keep an abort from writing this process's memory, which holds pictures of a face, to disk.

    Source: linux, fs/coredump.c: a limit of 1 byte is too small for a file, and the one value (0 is not) that also
    keeps a dump from being piped to a program such as systemd-coredump.
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0 if most == 0 else 1, most))


def main() -> None:
    """Serve the order given on the command line."""
    order = Order.of_text(sys.argv[1])
    # Sent when the thread that started this process ends, which lives as long as this child is wanted.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != order.parent:  # it has ended before the line above
        return
    # A service manager's SIGTERM reaches both at once; the program says when this ends, not whoever stops the program.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _leave_no_core()
    try:
        serve(order)
    except Exception:
        # Told already; os._exit also spares us what a broken driver does when it is unloaded.
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
