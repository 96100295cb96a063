"""Models on the Coral, in a child process that may die: killed, aborted, hung, unplugged or babbling.

The CPU models stay loaded. A call goes to the child and is answered by the CPU model where the child fails or does
not answer within the deadline. A late child is left alone until it has answered, and that answer is thrown away; one
that stays silent or does anything wrong is killed. A thread then starts a new child, with new shared memory, and puts
it to use once it has answered a test input of each model as the CPU does. The path never waits for any of this.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.inference import AcceleratorStatus, Model
from edge.inference.channel import ModelOrder
from edge.inference.process import ENDED, Child, ChildError, Isolation, Outputs

log = logging.getLogger(__name__)

_TEST_STEPS = 12
"""int8 steps between engines for all but `_TEST_OUTLIERS` of a model's output values; see tests/test_inference.py."""
_TEST_OUTLIERS = 0.02
_GRACE_S = 1.0
_LOOK_S = 1.0
"""How often the keeper looks at the child in use. Calls notice most of what can happen, but there may be none."""
_JOIN_S = 10.0


class Accelerator:
    """Keeps a child at work for several models, and answers for it when there is none."""

    def __init__(
        self,
        models: Sequence[Model],
        files: Mapping[str, tuple[Path, str]],
        isolation: Isolation,
        *,
        asked: str,
    ) -> None:
        """Start; until the child is ready, calls are the CPU's.

        Args:
            models: on the CPU; the accelerator closes them.
            files: path and SHA-256 (or "") of what the child loads, by model name.
            isolation: what runs in the child.
            asked: the setting `inference.accelerator`, to be shown.
        """
        self._isolation, self._asked = isolation, asked
        self._cpu_engine = models[0].engine
        self._orders = [
            ModelOrder(
                model.name, str(files[model.name][0]), files[model.name][1], model.input, model.outputs
            )
            for model in models
        ]
        # Taken now, while no one else uses the CPU models.
        self._tests = [(values, model.run(values)) for model in models for values in [_test_input(model)]]
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._newest: Child | None = None
        self._lost, self._closing = threading.Event(), threading.Event()
        self._state, self._reason = "starting", ""
        self._uses = self._fallback_runs = 0
        self.models = tuple(_Guarded(model, place, self) for place, model in enumerate(models))
        self._thread = threading.Thread(target=self._keep, name="accelerator", daemon=True)
        self._thread.start()

    @property
    def status(self) -> AcceleratorStatus:
        """How it is doing now."""
        in_use = self._state == "in use"
        return AcceleratorStatus(
            self._asked, self._isolation.engine if in_use else self._cpu_engine, self._state,
            max(self._uses - 1, 0), self._fallback_runs, self._reason and f"inference child: {self._reason}",
        )  # fmt: skip

    @property
    def pid(self) -> int | None:
        """The process id of the child in use."""
        child = self._child
        return child.process.pid if child is not None else None

    def run(self, place: int, values: NDArray[np.int8]) -> Outputs | None:
        """Give the child's answer; None where the CPU has to give one."""
        with self._lock:
            answer = None
            if (child := self._child) is not None:
                try:
                    answer = child.run(place, values, self._isolation.deadline_s)
                except ChildError as error:
                    self._give_up(str(error))
            self._fallback_runs += answer is None
            return answer

    def _give_up(self, reason: str) -> None:
        """Use the child no more, and have the keeper end it; with the lock held."""
        if self._child is not None:
            self._child = None
            self._state, self._reason = "lost", reason
        self._lost.set()

    def close(self) -> None:
        """End the child and its keeper; may be called again."""
        self._closing.set()
        with self._lock:
            self._child = None
        self._lost.set()
        if (child := self._newest) is not None:
            child.kill()
        self._thread.join(_JOIN_S)

    def _keep(self) -> None:
        """Start child after child, each put to use once it has proven itself; the keeper's thread."""
        pause_s, told = self._isolation.first_retry_s, ""
        while not self._closing.is_set():
            used_s = 0.0
            try:
                self._newest = child = Child(self._isolation, self._orders)
            except OSError as error:
                reason = f"cannot be started ({error.strerror})"
            else:
                try:
                    self._prove(child)
                    used_s = self._use(child)
                    reason = self._reason
                except ChildError as error:
                    reason = str(error)
                except Exception as error:
                    # Without a keeper the accelerator would never come back; the next child may do better.
                    log.exception("inference child: failed")
                    reason = f"{type(error).__name__}: {error}"
                # Its link breaks a moment before it has ended; how it did is worth knowing.
                how, words = child.end(grace_s=_GRACE_S if reason == ENDED else 0.0)
                parts = (f"{reason} ({how})" if reason == ENDED else reason, words)
                reason = "; ".join(filter(None, parts))
            if self._closing.is_set():
                return
            if used_s >= self._isolation.healthy_s:
                pause_s = self._isolation.first_retry_s
            self._state, self._reason = "lost", reason
            # A Coral that stays away is told once, not at each attempt.
            level = logging.DEBUG if reason == told and used_s == 0 else logging.WARNING
            log.log(level, "inference child: %s; the CPU answers, next try in %g s", reason, pause_s)
            told = reason
            self._closing.wait(pause_s)
            pause_s = min(2 * pause_s, self._isolation.longest_retry_s)

    def _prove(self, child: Child) -> None:
        """Wait until it is ready and let it answer the test inputs.

        Raises:
            ChildError: it does not get ready, or answers unlike the CPU.
        """
        if self._closing.is_set():
            raise ChildError("not needed any more")
        child.await_ready()
        for place, (values, wanted) in enumerate(self._tests):
            found = child.run(place, values, self._isolation.load_s)
            if found is None:
                raise ChildError(f"no answer in {self._isolation.load_s:g} s")
            apart = np.concatenate(
                [np.abs(a.astype(np.int16) - b).ravel() for a, b in zip(found, wanted, strict=True)]
            )
            share = float((apart > _TEST_STEPS).mean())
            if share > _TEST_OUTLIERS:
                name = self._orders[place].name
                raise ChildError(f"{name}: {share:.0%} of a test answer is unlike the CPU's")

    def _use(self, child: Child) -> float:
        """Let calls go to the child until it is lost; give how long that took, s."""
        began_s = time.monotonic()
        self._lost.clear()
        with self._lock:
            if self._closing.is_set():
                return 0.0
            self._child = child
            self._uses += 1
            self._state, self._reason = "in use", ""
        log.info("inference child: %s in use (process %d)", self._isolation.engine, child.process.pid)
        while not self._lost.wait(_LOOK_S):
            child.trim_words()
            if child.process.poll() is not None:
                with self._lock:
                    self._give_up(ENDED)
        return time.monotonic() - began_s


class _Guarded:
    """An `edge.inference.Model` that the child answers for, or else the CPU."""

    def __init__(self, cpu: Model, place: int, accelerator: Accelerator) -> None:
        self._cpu, self._place, self._accelerator = cpu, place, accelerator
        self.name, self.sha256 = cpu.name, cpu.sha256
        self.input, self.outputs, self.calibration = cpu.input, cpu.outputs, cpu.calibration

    @property
    def engine(self) -> str:
        """What runs it now."""
        return self._accelerator.status.engine

    def run(self, values: NDArray[np.int8]) -> Outputs:
        """Give the outputs for one input; see `edge.inference.Model`."""
        if values.shape == self.input.shape and values.dtype == np.int8:
            answer = self._accelerator.run(self._place, values)
            if answer is not None:
                return answer
        return self._cpu.run(values)

    def close(self) -> None:
        """End the child, for all its models, and close the CPU model; may be called again."""
        self._accelerator.close()
        self._cpu.close()


def _test_input(model: Model) -> NDArray[np.int8]:
    """Give a smooth input, as pictures and motion are: engines agree on those."""
    noise = np.random.default_rng(1).normal(0, 40, model.input.shape)
    for axis in range(1, noise.ndim):
        noise = np.cumsum(noise, axis=axis) / np.sqrt(noise.shape[axis])
    return np.clip(noise, -128, 127).astype(np.int8)
