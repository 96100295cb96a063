"""One trial: a device, its broker and the network between them for some seconds of trouble; then what arrived."""

import random
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from tools.delivery.broker import Broker
from tools.delivery.child import DEVICE, DeviceProcess
from tools.delivery.disk import Disk, make_disk
from tools.delivery.faults import Fault, schedule
from tools.delivery.judge import Arrival, Verdict, judge
from tools.delivery.relay import Relay
from tools.delivery.subscriber import Subscriber

DEVICE_ID = "chaos"
OPEN_S = 2.0
"""Time that a process gets to open its outbox before anything is done to it."""
LAST_BURST = 20
"""Events after all trouble: whatever it left behind must not keep them either."""
START_S = 20.0
"""Time that a process gets to begin."""
DRAIN_S = 30.0
"""Time that the device gets to deliver everything once all is well again."""
_LOOK_S = 0.01


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a trial."""

    seed: int
    verdict: Verdict
    faults: tuple[Fault, ...]
    counts: Counter[str]
    """Of what was done: kills, stops, lives, and each kind of fault."""
    commit_ms: tuple[float, ...]
    """Of each event; empty if the disk was one in memory."""
    drain_s: float
    """From the end of all trouble to the last confirmation."""
    problems: tuple[str, ...]
    """What else was wrong, in words."""
    folder: str
    """What is left of a trial that failed; empty otherwise."""

    @property
    def is_clean(self) -> bool:
        return self.verdict.is_clean and not self.problems


class Trial:
    """Runs once. All that it starts has ended when `run` returns, whichever way."""

    def __init__(
        self,
        seed: int,
        seconds: float,
        *,
        faults: Sequence[Fault] | None = None,
        command: Sequence[str] = DEVICE,
    ) -> None:
        """Prepare.

        Args:
            seed: of everything that is left to chance.
            seconds: for how long there is trouble.
            faults: what will happen; None: drawn from the seed.
            command: starts a device.
        """
        self._seed, self._seconds, self._command = seed, seconds, command
        self.faults = tuple(schedule(seed, seconds) if faults is None else faults)
        chance = random.Random(f"trial {seed}")
        self._protocol = chance.choice(("5", "3.1.1"))
        self._history_days = chance.choice((0, 7))
        self._rate_hz = chance.uniform(20, 150)
        self._lives: list[DeviceProcess] = []
        self._counts: Counter[str] = Counter()
        self._problems: list[str] = []
        self._availability_seen: list[str | None] = []
        self._over = threading.Event()
        self._has_full_disk = any(fault.lane == "disk" for fault in self.faults)
        self._folder = Path()

    @property
    def _device(self) -> DeviceProcess:
        return self._lives[-1]

    def run(self) -> Outcome:
        """Let it all happen, and judge. A trial that failed leaves its folder."""
        self._folder = Path(tempfile.mkdtemp(prefix="microedge-chaos-"))
        try:
            outcome = self._run()
        except KeyboardInterrupt:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        if outcome.is_clean:
            shutil.rmtree(self._folder, ignore_errors=True)
        return outcome

    def _run(self) -> Outcome:
        with ExitStack() as parts:
            self._disk: Disk = make_disk(self._folder / "state", small=self._has_full_disk)
            parts.callback(self._disk.remove)
            parts.callback(self._keep_state)
            self._broker = parts.enter_context(Broker(self._folder / "broker"))
            self._relay = parts.enter_context(Relay(self._broker.port))
            subscriber = parts.enter_context(Subscriber(self._broker.port))
            parts.callback(self._kill_survivor)
            self._suffer()
            drain_s = self._recover(subscriber)
            if not subscriber.collect():
                self._problems.append("the subscriber did not get its own last message")
            self._availability_seen.append(subscriber.availability.get(DEVICE_ID))
            if subscriber.sessions_lost or subscriber.unreadable:
                self._problems.append(
                    f"the broker forgot the subscriber {subscriber.sessions_lost} times, "
                    f"{len(subscriber.unreadable)} messages were no events"
                )
            return self._judge(list(subscriber.arrived), drain_s)

    def _judge(self, arrived: Sequence[Arrival], drain_s: float) -> Outcome:
        promised = [promise for life in self._lives for promise in life.promises]
        if self._availability_seen != ["online", "offline"]:
            self._problems.append(f"availability at the end and after it: {self._availability_seen}")
        verdict = judge(promised, arrived, {life.life for life in self._lives[:-1]})
        if verdict.promised < LAST_BURST:
            self._problems.append(f"the devices promised only {verdict.promised} events")
        series = {name for life in self._lives for name in life.durable_series}
        if len(series) > 1:
            self._problems.append(f"the file was not damaged, and held several series: {sorted(series)}")
        commit_ms = [ms for life in self._lives for ms in life.commit_ms]
        return Outcome(
            self._seed,
            verdict,
            self.faults,
            self._counts + Counter(lives=len(self._lives)),
            () if self._has_full_disk else tuple(commit_ms),
            drain_s,
            tuple(self._problems),
            "" if verdict.is_clean and not self._problems else str(self._folder),
        )

    def _suffer(self) -> None:
        """Start the device, and let every lane's faults happen in its own time."""
        self._start()
        began_s = time.monotonic()
        in_order = sorted(self.faults, key=lambda fault: (fault.lane, fault.at_s))
        lanes = [list(faults) for _, faults in groupby(in_order, key=lambda fault: fault.lane)]
        with ThreadPoolExecutor(max(1, len(lanes))) as pool:
            try:
                running = [pool.submit(self._work_off, lane, began_s) for lane in lanes]
                for lane in running:
                    lane.result()
                self._over.wait(max(0.0, began_s + self._seconds - time.monotonic()))
            finally:
                self._over.set()

    def _work_off(self, lane: Sequence[Fault], began_s: float) -> None:
        kinds: dict[str, Callable[[Fault], None]] = {
            "broker": self._end_broker, "network": self._break_network, "process": self._end_process,
            "disk": self._fill_disk,
        }  # fmt: skip
        for fault in lane:
            if self._over.wait(max(0.0, began_s + fault.at_s - time.monotonic())):
                return
            if time.monotonic() - began_s > self._seconds + 2.0:
                return  # a slow machine: what is due now was meant for long ago
            kinds[fault.lane](fault)
            self._counts[fault.kind] += 1

    def _end_broker(self, fault: Fault) -> None:
        if fault.kind == "broker restart":
            self._broker.restart(fault.lasts_s)
            return
        self._broker.freeze(True)
        self._over.wait(fault.lasts_s)
        self._broker.freeze(False)

    def _break_network(self, fault: Fault) -> None:
        if fault.kind == "cut":
            self._relay.refuse()
            self._relay.cut()
        elif fault.kind == "cut within a message":
            self._relay.cut_after(fault.amount)
        elif fault.kind == "half-open":
            self._relay.abandon()
        elif fault.kind == "stall":
            self._relay.stall()
        else:
            self._relay.swallow()
        self._over.wait(fault.lasts_s)
        self._relay.heal()

    def _fill_disk(self, fault: Fault) -> None:
        self._disk.fill(fault.amount)
        self._over.wait(fault.lasts_s)
        self._disk.free()

    def _end_process(self, fault: Fault) -> None:
        if not self._device.is_alive:
            self._problems.append(f"{self._device.life} ended by itself before {fault}")
        # Not at the start: that is a kind of its own, and else a busy machine would see nothing but starts.
        self._device.is_open.wait(OPEN_S)
        if fault.kind == "frozen":
            self._device.freeze(True)
            self._over.wait(fault.lasts_s)
            self._device.freeze(False)
            return
        if fault.kind == "stop":
            self._stop()
        else:
            if fault.kind == "kill in a burst":
                self._device.ask(f"burst {fault.amount}")
                self._over.wait(fault.delays_s[0])
            self._kill()
        if fault.kind == "kill at start":
            for delay_s in fault.delays_s:
                self._start()
                self._over.wait(delay_s)
                self._kill()
        self._over.wait(fault.lasts_s)
        self._start()

    def _start(self) -> None:
        life = len(self._lives) + 1
        settings = {
            "device.id": DEVICE_ID, "mqtt.protocol": self._protocol, "history.days": self._history_days,
            "mqtt.keep_alive_s": 5,
        }  # fmt: skip
        arguments = [
            "--folder", str(self._disk.folder), "--port", str(self._relay.port), "--rate", f"{self._rate_hz:.1f}",
            "--seed", str(self._seed * 1000 + life), *(f"--set={name}={value}" for name, value in settings.items()),
        ]  # fmt: skip
        device = DeviceProcess(
            [*self._command, *arguments], DEVICE_ID, f"life {life}", self._folder / "device.log"
        )
        self._lives.append(device)
        self._disk.began(device.pid)
        if not device.is_begun.wait(START_S):
            self._problems.append(f"{device.life} did not begin within {START_S:g} s")

    def _kill(self) -> None:
        self._device.kill()
        self._counts["kills"] += 1

    def _stop(self) -> None:
        if status := self._device.stop():
            self._problems.append(f"{self._device.life} ended with status {status}")
        self._counts["stops"] += 1

    def _recover(self, subscriber: Subscriber) -> float:
        """Put everything right, let the device deliver, and stop it; give how long delivering took, s."""
        self._relay.heal()
        self._disk.free()
        device = self._device
        began_s = time.monotonic()
        device.ask(f"burst {LAST_BURST}")
        device.ask("quiet")
        while not device.is_drained and device.is_alive and time.monotonic() - began_s < DRAIN_S:
            time.sleep(_LOOK_S)
        drain_s = time.monotonic() - began_s
        if not device.is_drained:
            self._problems.append(
                f"{device.life} had not delivered everything {drain_s:.0f} s later: {device.state}"
            )
        # A broker that keeps a dead connection publishes its will late, and the device has to put that right.
        while subscriber.availability.get(DEVICE_ID) != "online" and time.monotonic() - began_s < DRAIN_S:
            time.sleep(_LOOK_S)
        self._availability_seen.append(subscriber.availability.get(DEVICE_ID))
        self._stop()
        if device.end is None or any(device.end.values()):
            self._problems.append(f"{device.life} ended with {device.end}")
        return drain_s

    def _kill_survivor(self) -> None:
        if self._lives and self._device.is_alive:
            self._device.kill()

    def _keep_state(self) -> None:
        """The disk may be one in memory that goes away."""
        shutil.copytree(self._disk.folder, self._folder / "kept", ignore=shutil.ignore_patterns("ballast"))
