"""A device's process seen from outside: what it has promised, and the ways it may end."""

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tools.delivery.judge import Promise

DEVICE = (sys.executable, "-m", "tools.delivery.device")
"""The command of a device; its further arguments are those of `tools.delivery.device`."""
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class State:
    """What a device said of itself last."""

    waiting: int
    lost: int
    connected: bool
    problem: str


class DeviceProcess:
    """One life of a device, from its start to its end. Whoever starts it ends it."""

    def __init__(self, command: Sequence[str], device_id: str, life: str, log: Path) -> None:
        """Start it.

        Args:
            command: with all arguments.
            device_id: what it was given as `device.id`.
            life: a name for this process among those of the run.
            log: takes what it logs, behind what earlier lives did.
        """
        self.life = life
        self.is_killed = False
        self.promises: list[Promise] = []
        """In the order of the outbox."""
        self.durable_series: set[str] = set()
        """Series of those that were on the disk at once."""
        self._durable = 0
        """How many of the first promises are on the disk."""
        self.commit_ms: list[float] = []
        self.state: State | None = None
        self.end: dict[str, Any] | None = None
        """What it said at last; None: it had no time to."""
        self.is_begun, self.is_open, self.is_quiet = threading.Event(), threading.Event(), threading.Event()
        self._device_id = device_id
        with log.open("ab") as errors:
            errors.write(f"--- {life}\n".encode())
            errors.flush()
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd=ROOT
            )
        self._reader = threading.Thread(target=self._read, name=life, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def is_drained(self) -> bool:
        """Whether everything is kept, on the disk, and confirmed by the broker."""
        state = self.state
        return self.is_quiet.is_set() and state is not None and state.waiting == 0 and not state.problem

    def ask(self, command: str) -> None:
        """Give it a command; one that is no more does not mind."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(f"{command}\n".encode())
            self._process.stdin.flush()

    def freeze(self, is_frozen: bool) -> None:
        """Stop it from doing anything, as a machine under load or a slow card would, or let it go on."""
        self._process.send_signal(signal.SIGSTOP if is_frozen else signal.SIGCONT)

    def kill(self) -> None:
        """End it as a power cut would, as far as a process can; returns once all it had said is read."""
        self.is_killed = True
        self._process.send_signal(signal.SIGKILL)
        self._ended()

    def stop(self, timeout_s: float = 20.0) -> int:
        """End it in good order and give its exit status; -9 if it did not end in time and was killed."""
        self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
        return self._ended()

    def _ended(self) -> int:
        status = self._process.wait()
        self._reader.join()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.stdout.close()
        return status

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            # A line that a kill has torn apart was not said.
            if line.endswith(b"\n"):
                said = json.loads(line)
                self._take(said.pop("kind"), said)

    def _take(self, kind: str, said: dict[str, Any]) -> None:
        if kind == "kept":
            self.commit_ms.append(said.pop("commit_ms"))
            self.promises.append(Promise(device_id=self._device_id, life=self.life, **said))
            if said["durable"]:
                self.durable_series.add(said["series"])
                self._raise_to_durable(len(self.promises))
        elif kind == "state":
            promised = said.pop("promised")
            self.state = State(**said)
            if not self.state.problem:
                self._raise_to_durable(promised)
        elif kind == "end":
            self.end = said
        else:
            # What it said of itself before it was quiet does not tell that all is delivered.
            self.state = None if kind == "quiet" else self.state
            {"begun": self.is_begun, "open": self.is_open, "quiet": self.is_quiet}[kind].set()

    def _raise_to_durable(self, number: int) -> None:
        """What was promised from memory is on the disk once the disk takes events again."""
        for index in range(self._durable, number):
            self.promises[index] = replace(self.promises[index], durable=True)
        self._durable = max(self._durable, number)
