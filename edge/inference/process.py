"""One inference child as the program sees it: started, asked within a deadline, and ended.

The child's own side is `edge.inference.child`.
"""

import contextlib
import fcntl
import mmap
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.errors import EdgeError
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
    memory_size,
    message,
)  # fmt: skip

Outputs = tuple[NDArray[np.int8], ...]

ENDED = "has ended"
"""The words of `ChildError` for a child that is gone."""
_START = "import sys; sys.path.append(sys.argv.pop(1)); from edge.inference.child import main; main()"
_LATE_OVER = 40
_LATE_SHARE = 0.3
"""A child that misses its deadline in more than this share of its last calls, by an exponential mean over
`_LATE_OVER`, costs more than it brings: each miss is a wait and then the CPU's own time. A share and not a row,
because the one slow model of three must not hide behind the others."""
_WORDS_MOST = 1 << 16
"""Bytes kept of what the child writes to stderr."""
_END_S = 5.0
"""Time that a killed child gets to be gone; one that its device holds in the kernel may need longer."""


@dataclass(frozen=True, slots=True)
class Isolation:
    """What runs in the child, and the patience with it."""

    engine: str = "edgetpu"
    """ "edgetpu", or a CPU engine, with which isolation can be tried without the device."""
    library: str = ""
    device: str = ""
    threads: int = 1
    deadline_s: float = 0.003
    """After which the CPU model answers a call."""
    hang_s: float = 0.5
    """After which a child that owes an answer is killed."""
    load_s: float = 30.0
    """For loading all models; a Coral gets its firmware first."""
    first_retry_s: float = 0.2
    longest_retry_s: float = 60.0
    """The time before a new child doubles up to this."""
    healthy_s: float = 10.0
    """A child that was used for so long counts as sound: the next one is tried after `first_retry_s` again."""
    command: tuple[str, ...] = (sys.executable, "-P", "-c", _START, str(Path(__file__).resolve().parents[2]))
    """Starts the child, which imports nothing from the working directory; the order follows as the last argument."""


class ChildError(EdgeError):
    """The child is of no use any more, in words."""


class Child:
    """One child process with its shared memory. Used by one thread at a time."""

    def __init__(self, isolation: Isolation, models: Sequence[ModelOrder]) -> None:
        """Start it; it loads while this returns.

        Raises:
            OSError: no process or memory to be had.
        """
        self._isolation = isolation
        self._sequence, self._asked_s, self._late_share = 0, 0.0, 0.0
        self._expected = b""
        """The answer to the call that is out; empty: none is."""
        with contextlib.ExitStack() as given:
            self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            given.callback(theirs.close)
            memory = _shared(given, "microedge tensors", memory_size(models))
            self._words_fd = os.memfd_create("microedge child's words", os.MFD_CLOEXEC)
            # So that what it writes after `trim_words` begins anew.
            fcntl.fcntl(self._words_fd, fcntl.F_SETFL, os.O_APPEND)
            self._areas = areas(mmap.mmap(memory, 0), models)
            order = Order(
                isolation.engine, isolation.library, isolation.device, isolation.threads, os.getpid(),
                theirs.fileno(), memory, tuple(models),
            )  # fmt: skip
            # Not the service manager's socket: only the program itself may report to it.
            environment = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
            try:
                # A session of its own, so that Ctrl-C reaches the program alone.
                self.process = subprocess.Popen(
                    [*isolation.command, order.to_text()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                    stderr=self._words_fd, pass_fds=(theirs.fileno(), memory), env=environment,
                    start_new_session=True,
                )  # fmt: skip
            except OSError:
                self._link.close()
                os.close(self._words_fd)
                raise

    def await_ready(self) -> None:
        """Wait until it has loaded its models.

        Raises:
            ChildError: it has ended, or not loaded in time.
        """
        self._expected = message(READY)
        self._asked_s = time.monotonic()
        if not self._has_answered(self._isolation.load_s):
            raise ChildError(f"not ready after {self._isolation.load_s:g} s")

    def run(self, place: int, values: NDArray[np.int8], deadline_s: float) -> Outputs | None:
        """Give a model's outputs; None where it does not answer in time, or still owes an earlier answer.

        Raises:
            ChildError: it has ended, failed, hangs or answers something else.
        """
        if self._expected and not self._has_answered(0.0):
            if time.monotonic() - self._asked_s > self._isolation.hang_s:
                raise ChildError(f"hangs: no answer for {self._isolation.hang_s:g} s")
            return None
        area = self._areas[place]
        np.copyto(area.input, values)
        self._sequence += 1
        self._expected = message(DONE, self._sequence, place, area.output_bytes)
        self._asked_s = time.monotonic()
        try:
            self._link.settimeout(deadline_s)
            self._link.send(message(RUN, self._sequence, place, area.input.nbytes))
        except OSError as error:
            raise ChildError(ENDED) from error
        is_late = not self._has_answered(deadline_s)
        self._late_share += (is_late - self._late_share) / _LATE_OVER
        if is_late:
            if self._late_share > _LATE_SHARE:
                raise ChildError(
                    f"answers later than inference.deadline_ms = {1000 * deadline_s:g} in more than "
                    f"{_LATE_SHARE:.0%} of its calls"
                )
            return None
        return tuple(output.copy() for output in area.outputs)

    def _has_answered(self, timeout_s: float) -> bool:
        """Take the expected answer, if it comes in time."""
        try:
            self._link.settimeout(timeout_s)
            answer = self._link.recv(LONGEST)
        except (TimeoutError, BlockingIOError):
            return False
        except OSError as error:
            raise ChildError(ENDED) from error
        if answer != self._expected:
            raise ChildError(_objection(answer))
        self._expected = b""
        return True

    def trim_words(self) -> None:
        """Forget what it wrote to stderr if that has become much: a driver may complain for weeks."""
        if os.fstat(self._words_fd).st_size > _WORDS_MOST:
            os.ftruncate(self._words_fd, 0)

    def kill(self) -> None:
        """End it at once, without waiting."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    def end(self, grace_s: float) -> tuple[str, str]:
        """Kill it if it does not end by itself, free what it held; give how it ended, and its last line on stderr."""
        self._link.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(grace_s)
        self.kill()
        try:
            status = self.process.wait(_END_S)
            how = f"killed by {_signal_name(-status)}" if status < 0 else f"exit status {status}"
        except subprocess.TimeoutExpired:
            how = "does not end"
        words = os.pread(self._words_fd, LONGEST, max(os.fstat(self._words_fd).st_size - LONGEST, 0))
        os.close(self._words_fd)
        return how, words.decode(errors="replace").strip().rpartition("\n")[2][:200]


def _shared(given: contextlib.ExitStack, name: str, size: int) -> int:
    """Give the descriptor of zeroed memory that another process can map; closed with `given`."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    given.callback(os.close, descriptor)
    os.ftruncate(descriptor, size)
    return descriptor


def _objection(answer: bytes) -> str:
    """Say what is wrong with an answer."""
    if not answer:
        return ENDED
    if answer.startswith(FAILED):
        return answer[HEADER.size :].decode(errors="replace")
    return f"answers {answer[: HEADER.size]!r}, which was not asked for"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
