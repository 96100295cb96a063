"""A device without camera and models: the real outbox, dispatcher and MQTT sink, with simulated events.

    python -m tools.delivery.device --folder F --port P [--rate 20] [--seed 0] [--set section.key=value]

One JSON object a line on standard output says what has happened. Whoever holds the device to its word reads them:

    {"kind": "begun", "pid": 17}                    nothing is open yet
    {"kind": "open", "problem": ""}                 the outbox is open, events begin
    {"kind": "kept", "id": .., "series": .., "seq": .., "durable": true, "kept_ns": .., "commit_ms": ..}
                                                    after the commit of each event has returned
    {"kind": "state", "promised": 9, "waiting": 3, "lost": 0, "connected": true, "problem": ""}
                                                    some ten times a second
    {"kind": "quiet"}                               no more events, and all are kept
    {"kind": "end", "waiting": 0, "lost": 0, "unwritten": 0}                       everything is closed

Lines on standard input tell it what to do: `burst N` (N events at once), `quiet` (no more events). Its end, or SIGTERM,
stops the device in good order.
"""

import argparse
import json
import logging
import os
import queue
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge.config import Config, History, load
from edge.config import Outbox as OutboxConfig
from edge.dispatch import Dispatcher
from edge.out import Payload
from edge.out.mqtt.sink import MqttSink
from edge.payload import PayloadWriter, health_payload
from edge.records import EMOTIONS, ActionUnit, Event, Quality, Spot
from edge.store.outbox import Outbox

Tell = Callable[..., None]
"""Takes the kind of a line and its further fields."""

STATE_S = 0.1
HEALTH_S = 1.0
BACKOFF_S = (0.05, 0.4)
"""Shorter than the device's own, so that a trial of a few seconds sees many connections."""
_MODELS = {"landmark": "0" * 64, "spotter": "1" * 64}


class TellingOutbox(Outbox):
    """The device's outbox, which tells what it has promised as soon as it has."""

    def __init__(self, folder: Path, config: OutboxConfig, history: History, tell: Tell) -> None:
        """Open it; see `Outbox`. `tell` is called by whoever appends."""
        self._tell = tell
        self.promised = 0
        """Events that were told."""
        super().__init__(folder, config, history)

    def append(self, payloads: Sequence[Payload]) -> list[Payload]:
        began_s = time.perf_counter()
        kept = super().append(payloads)
        commit_ms = round((time.perf_counter() - began_s) * 1e3, 3)
        # Nobody else has appended meanwhile: the dispatcher's thread alone does.
        durable, kept_ns = not self.problem, time.time_ns()
        for payload in kept:
            self._tell(
                "kept", id=payload["id"], series=payload["series"], seq=payload["seq"], durable=durable,
                kept_ns=kept_ns, commit_ms=commit_ms,
            )  # fmt: skip
        self.promised += len(kept)
        return kept


class Device:
    """A device at work, from construction to `close`."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        tell: Tell,
        *,
        make_outbox: type[TellingOutbox] = TellingOutbox,
        backoff_s: tuple[float, float] = BACKOFF_S,
    ) -> None:
        """Open everything.

        Args:
            config: the whole configuration; device, outbox, history and mqtt count.
            folder: where the outbox lives.
            tell: takes what has happened; called from several threads.
            make_outbox: the class of the outbox.
            backoff_s: as of `MqttSink`.
        """
        self._device_id, self._boot_id, self._tell = config.device.id, uuid.uuid4().hex, tell
        self._start_ns, self._handed = time.time_ns(), 0
        self.outbox = make_outbox(folder, config.outbox, config.history, tell)
        self.sink = MqttSink(config.mqtt, self._device_id, self.outbox, backoff_s=backoff_s)
        writer = PayloadWriter(self._device_id, self._boot_id, self._start_ns, _MODELS)
        self.dispatcher = Dispatcher(writer, self.outbox, [self.sink])
        tell("open", problem=self.outbox.problem)

    @property
    def elapsed_ns(self) -> int:
        """Media time of now."""
        return time.time_ns() - self._start_ns

    def hand(self, event: Event) -> None:
        """Let an event happen."""
        self._handed += 1
        self.dispatcher.hand(event, self._start_ns)

    def show_state(self) -> None:
        """Tell how far it is."""
        # In this order: if there is no problem now, all that had been promised before is on the disk.
        promised = self.outbox.promised
        problem, counts = self.outbox.problem, self.outbox.counts()
        self._tell(
            "state", promised=promised, waiting=counts.waiting, lost=counts.lost, connected=self.sink.connected,
            problem=problem,
        )  # fmt: skip

    def publish_health(self) -> None:
        """Publish a retained message between the events, as a device does."""
        state = "degraded" if self.outbox.problem else "running"
        self.sink.publish_health(
            health_payload(self._device_id, self._boot_id, time.time_ns(), state, events=self._handed)
        )

    @property
    def is_idle(self) -> bool:
        """Whether everything that was handed over has been kept, or given up for good."""
        return self.outbox.promised + self.dispatcher.unwritten == self._handed

    def close(self) -> None:
        """Stop in good order: commit, deliver what can be, say goodbye."""
        self.dispatcher.close()
        self.sink.close()
        self.outbox.close()
        counts = self.outbox.counts()
        self._tell("end", waiting=counts.waiting, lost=counts.lost, unwritten=self.dispatcher.unwritten)


class Simulation:
    """Plausible events, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._faces = 0

    def event(self, now_ns: int) -> Event:
        """Give an event that has just been seen to end, at media time `now_ns`."""
        chance = self._chance
        self._faces += 1
        duration_ns = round(chance.uniform(0.04, 0.2) * 1e9)
        onset_ns = max(0, now_ns - duration_ns)
        shares = [chance.random() ** 3 for _ in (*EMOTIONS, "other")]
        probabilities = tuple(share / sum(shares) for share in shares)
        best = max(range(len(EMOTIONS)), key=probabilities.__getitem__)
        spot = Spot(
            # A face of its own for each event, so that those of a burst differ.
            face_id=self._faces,
            onset_ns=onset_ns,
            apex_ns=onset_ns + round(chance.uniform(0.3, 0.6) * duration_ns),
            offset_ns=onset_ns + duration_ns,
            score=chance.uniform(0.8, 1.0),
            probabilities=probabilities,
            action_units=tuple(
                ActionUnit(f"AU{number}", chance.choice(("both", "left", "right")), chance.random())
                for number in chance.sample((1, 2, 4, 6, 7, 9, 12, 14, 15, 23, 25), chance.randrange(1, 5))
            ),
            regions=(chance.random(), chance.random(), chance.random(), chance.random()),
            intensity_iod=chance.uniform(0.004, 0.03),
            confusers=(0.0,) * 5,
        )
        quality = Quality(
            chance.gauss(199.8, 0.1), chance.randrange(2), chance.uniform(0, 20), 212.0, True, 0.0004
        )
        return Event(spot, EMOTIONS[best], probabilities[best], quality)

    def again(self, event: Event, now_ns: int) -> Event:
        """Give an event like `event` that has just been seen to end: another face, at media time `now_ns`.

        A tenth of the time that a new one takes, for who plays hundreds of devices.
        """
        self._faces += 1
        shift_ns = max(now_ns - event.spot.offset_ns, -event.spot.onset_ns)
        spot = replace(
            event.spot, face_id=self._faces, onset_ns=event.spot.onset_ns + shift_ns,
            apex_ns=event.spot.apex_ns + shift_ns, offset_ns=event.spot.offset_ns + shift_ns,
        )  # fmt: skip
        return replace(event, spot=spot)

    def pauses(self, rate_hz: float) -> Iterator[float]:
        """Give the times from event to event of a process without memory, s."""
        while True:
            yield self._chance.expovariate(rate_hz)


def work(
    device: Device, commands: "queue.SimpleQueue[str]", *, seed: int, rate_hz: float, tell: Tell
) -> None:
    """Let events happen and follow commands until `stop`."""
    simulation = Simulation(seed)
    pauses = simulation.pauses(rate_hz)
    event_s = time.monotonic() + next(pauses)
    state_s = health_s = 0.0
    is_ending = False
    while True:
        now_s = time.monotonic()
        if now_s >= event_s:
            device.hand(simulation.event(device.elapsed_ns))
            event_s += next(pauses)
        if now_s >= state_s:
            if is_ending and device.is_idle:
                is_ending = False
                tell("quiet")
            device.show_state()
            state_s = now_s + STATE_S
        if now_s >= health_s:
            device.publish_health()
            health_s = now_s + HEALTH_S
        try:
            command = commands.get(timeout=max(0.0, min(event_s, state_s, health_s) - time.monotonic()))
        except queue.Empty:
            continue
        name, _, number = command.partition(" ")
        if name == "stop":
            return
        if name == "burst":
            for _ in range(int(number)):
                device.hand(simulation.event(device.elapsed_ns))
        elif name == "quiet":
            event_s = float("inf")
            is_ending = True


def tell_stdout(kind: str, **fields: Any) -> None:
    """Write a line in one piece: a kill leaves whole lines only. Source: pipe(7), PIPE_BUF."""
    os.write(1, (json.dumps({"kind": kind, **fields}) + "\n").encode())


def listen(commands: "queue.SimpleQueue[str]") -> None:
    """Take commands from standard input until it ends."""
    rest = b""
    # Not by sys.stdin, whose lock a thread that waits in it would hold when the interpreter ends.
    while data := os.read(0, 4096):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            commands.put(line.decode())
    commands.put("stop")


def main(make_outbox: type[TellingOutbox] = TellingOutbox) -> None:
    """Be a device until told to stop."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="of the outbox")
    parser.add_argument("--port", type=int, required=True, help="of the broker, on this machine")
    parser.add_argument("--rate", type=float, default=20.0, metavar="HZ", help="events a second, on average")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value")
    options = parser.parse_args()
    commands: queue.SimpleQueue[str] = queue.SimpleQueue()

    signal.signal(signal.SIGTERM, lambda *_: commands.put("stop"))
    # Ctrl-C goes to every process of a terminal; whoever started this one will end it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tell_stdout("begun", pid=os.getpid())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    config = load(None, ["mqtt.host=127.0.0.1", f"mqtt.port={options.port}", *options.set])
    device = Device(config, options.folder, tell_stdout, make_outbox=make_outbox)
    threading.Thread(target=listen, args=(commands,), daemon=True).start()
    try:
        work(device, commands, seed=options.seed, rate_hz=options.rate, tell=tell_stdout)
    finally:
        device.close()


if __name__ == "__main__":
    main()
