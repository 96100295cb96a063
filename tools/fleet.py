"""Play a fleet of devices against one broker, and check on the other side that nothing is lost, late or out of order.

    python -m tools.fleet --devices 1000 --rate 1 --seconds 600 [--processes 2] [--host H --port P] [--folder F]

Each device is the real one behind the camera and the models: outbox on disk, dispatcher, MQTT connection, with
simulated events at random moments and a health message every 10 s. The devices are spread over some processes; a
subscriber in a process of its own notes every arrival by its number. The broker is a private mosquitto, or one that
takes anonymous clients at --host and --port (retained messages stay there, below `fleet-...`).

The last line is one JSON object. `delay_ms` is commit to arrival, `late_ms` how far the tool itself fell behind its
plan. Ends with status 1 if an event was lost, doubled or out of order.
"""

import argparse
import contextlib
import gc
import heapq
import json
import logging
import math
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.config import load
from tools.delivery.broker import Broker
from tools.delivery.device import Device, Simulation
from tools.delivery.judge import Arrival
from tools.delivery.subscriber import Subscriber
from tools.fleet_ledger import Ledger, Sight, Sums, add_up

HEALTH_S = 10.0
"""As `edge.health.PERIOD_S`."""
CONNECT_S = 120.0
"""Time for all devices to connect."""
DRAIN_S = 60.0
"""Time for what is on its way after the last event."""
BEHIND_S = 1200.0
"""Time that a machine which is too slow for the plan may fall behind before it is given up."""
SHOW_S = 10.0
SWITCH_S = 0.1
"""Each thread that waits for the interpreter looks again after so long. With the usual 5 ms, hundreds of them are
190,000 changes of thread a second, two thirds of two cores, and what falls behind for a moment never catches up."""
NICE = 5
"""By how much the devices stand back."""
MODELS = 200
"""Different events that a process plays; each is moved to its time."""
_STACK_BYTES = 1 << 19
"""Of a thread: a device has two, and the usual 8 MB of address space each are many."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the processes have in common."""

    devices: int
    events: int
    """Of each device."""
    seconds: float
    host: str
    port: int
    prefix: str
    folder: Path
    settings: tuple[str, ...]
    """Further `section.key=value`."""
    seed: int

    def ledger(self, *, is_new: bool = False) -> Ledger:
        return Ledger(self.folder, self.devices, self.events, is_new=is_new)


def device_id(index: int) -> str:
    """Name the device at `index`, from 0."""
    return f"dev-{index + 1:04d}"


def play(plan: Plan, indices: range, pipe: Connection) -> None:
    """Be some of the devices, in a process of its own.

    Over `pipe` go: "ready" once all are connected; the monotonic time to begin at, to here; what came of it.
    """
    _begin_process()
    threading.stack_size(_STACK_BYTES)
    sys.setswitchinterval(SWITCH_S)
    # Devices have computers of their own; here they must not keep the broker and the subscriber from theirs.
    os.nice(NICE)
    ledger = plan.ledger()
    settings = (f"mqtt.host={plan.host}", f"mqtt.port={plan.port}", f"mqtt.topic_prefix={plan.prefix}")
    config = load(None, [*settings, *plan.settings])

    def tell(index: int, kind: str, **fields: Any) -> None:
        if kind == "kept":
            ledger.promise(
                index, fields["series"], fields["seq"], fields["id"], fields["kept_ns"], fields["commit_ms"]
            )

    devices: dict[int, Device] = {}
    for index in indices:
        own = replace(config, device=replace(config.device, id=device_id(index)))
        # The device's own back-off, so that a broker that is late is not stormed.
        device = Device(own, plan.folder / device_id(index), partial(tell, index), backoff_s=(0.5, 60.0))
        ledger.begin(index, device.outbox.number[0])
        devices[index] = device
    _wait(lambda: all(device.sink.connected for device in devices.values()), CONNECT_S)
    # What is there by now stays: looking through all of it again and again is a cost of a hundred devices in one.
    gc.freeze()
    connected = sum(device.sink.connected for device in devices.values())
    pipe.send({"connected": connected, "problems": _problems(devices)})
    late_s = _let_happen(devices, plan, pipe.recv())
    _wait(lambda: all(_is_done(device) for device in devices.values()), DRAIN_S)
    problems = _problems(devices)
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(Device.close, devices.values()))
    waiting = sum(device.outbox.counts().waiting for device in devices.values())
    unwritten = sum(device.dispatcher.unwritten for device in devices.values())
    pipe.send(
        {
            "waiting": waiting, "unwritten": unwritten, "elsewhere": ledger.elsewhere, "late_s": late_s,
            "cpu_s": time.process_time(), "problems": problems,
        }
    )  # fmt: skip


def _let_happen(devices: dict[int, Device], plan: Plan, begin_s: float) -> float:
    """Let every event happen at its time; give how late the latest was handed over, s."""
    chance = random.Random(f"{plan.seed}/{min(devices)}")
    simulation = Simulation(chance.getrandbits(64))
    # Made beforehand: what it costs to play a device must not be taken for what it costs to be one.
    models = [simulation.event(second * 1_000_000_000) for second in range(MODELS)]
    due: list[tuple[float, int, bool]] = []
    for index in devices:
        # A fixed number at independent moments: a Poisson process of which the number is known.
        due += [(begin_s + chance.random() * plan.seconds, index, False) for _ in range(plan.events)]
        due.append((begin_s + chance.random() * HEALTH_S, index, True))
    heapq.heapify(due)
    end_s, late_s = begin_s + plan.seconds, 0.0
    while due and due[0][0] < end_s:
        at_s, index, is_health = due[0]
        if (early_s := at_s - time.monotonic()) > 0:
            time.sleep(early_s)
            continue
        heapq.heappop(due)
        if is_health:
            devices[index].publish_health()
            heapq.heappush(due, (at_s + HEALTH_S, index, True))
        else:
            late_s = max(late_s, -early_s)
            devices[index].hand(simulation.again(chance.choice(models), devices[index].elapsed_ns))
    return late_s


def watch(plan: Plan, pipe: Connection) -> None:
    """Be the subscriber, in a process of its own. Over `pipe` go: "ready"; anything, to collect; what was seen."""
    _begin_process()
    sight = Sight(plan.ledger())
    known = {device_id(index): index for index in range(plan.devices)}

    def heard(arrival: Arrival) -> None:
        # The subscriber's own list would grow by half a gigabyte in ten minutes; the ledger has it all.
        subscriber.arrived.clear()
        sight.arrive(known.get(arrival.device_id, -1), arrival)

    with Subscriber(plan.port, host=plan.host, topic_prefix=plan.prefix, heard=heard) as subscriber:
        pipe.send({})
        pipe.recv()
        is_whole = subscriber.collect(DRAIN_S)
    pipe.send(
        {
            "is_whole": is_whole,
            "out_of_order": int(sight.out_of_order),
            "duplicates_seen": sight.duplicates_seen,
            "duplicates_after_dedup": sight.duplicates_after_dedup,
            "altered": sight.altered,
            "elsewhere": sight.ledger.elsewhere,
            "unreadable": len(subscriber.unreadable),
            "sessions_lost": subscriber.sessions_lost,
            "cpu_s": time.process_time(),
        }
    )


def run(plan: Plan, processes: int, broker: Broker | None) -> dict[str, Any]:
    """Play the plan and give what came of it."""
    ledger = plan.ledger(is_new=True)
    with ExitStack() as parts:
        watcher = parts.enter_context(_started(watch, plan))
        _answer(watcher, 30.0)
        # In blocks, so that a folder listing shows what ran together.
        bounds = [round(plan.devices * place / processes) for place in range(processes + 1)]
        players = [
            parts.enter_context(_started(play, plan, range(first, last)))
            for first, last in pairwise(bounds)
            if last > first
        ]
        started = [_answer(player, CONNECT_S + 600.0) for player in players]
        connected = sum(each["connected"] for each in started)
        print(f"{connected} of {plan.devices} devices connected", flush=True)
        for problem in {problem for each in started for problem in each["problems"]}:
            print(f"  {problem}", flush=True)
        begin_s = time.monotonic() + 1.0
        for player in players:
            player.send(begin_s)
        _show(ledger, begin_s, plan, players)
        played = [_answer(player, 1.0) for player in players]
        watcher.send({})
        seen = _answer(watcher, DRAIN_S + 30.0)
    for problem in {problem for each in played for problem in each["problems"]}:
        print(f"  {problem}", flush=True)
    before_s = _children_cpu_s()
    if broker is not None:
        broker.stop()
    return _result(plan, add_up(ledger), played, seen) | {
        "connected": connected,
        "cpu_s": {
            "devices": round(sum(each["cpu_s"] for each in played), 1),
            "subscriber": round(seen["cpu_s"], 1),
            "broker": round(_children_cpu_s() - before_s, 1) if broker is not None else None,
        },
        "load_average": round(os.getloadavg()[0], 2),
    }


def _result(plan: Plan, sums: Sums, played: list[dict[str, Any]], seen: dict[str, Any]) -> dict[str, Any]:
    for index, missing in sums.worst:
        print(f"  {device_id(index)}: {missing} events lost or missing", flush=True)
    elsewhere = seen["elsewhere"] + sum(each["elsewhere"] for each in played)
    return {
        "devices": plan.devices,
        "seconds": plan.seconds,
        "planned": plan.devices * plan.events,
        "published": sums.published,
        "arrived": sums.arrived,
        # An event that was numbered and is in no place of the ledger is unproven, so it counts as lost.
        "lost": sums.lost + elsewhere,
        "out_of_order": seen["out_of_order"],
        "holes": sums.holes,
        "duplicates_after_dedup": seen["duplicates_after_dedup"] + sums.renumbered,
        "duplicates_seen": seen["duplicates_seen"],
        "altered": seen["altered"],
        "unpromised": sums.unpromised,
        "unwritten": sum(each["unwritten"] for each in played),
        "waiting": sum(each["waiting"] for each in played),
        "unreadable": seen["unreadable"],
        "sessions_lost": seen["sessions_lost"],
        "is_whole": seen["is_whole"],
        "delay_ms": _spread(sums.delays_ms),
        "commit_ms": _spread(sums.commits_ms),
        "late_ms": round(max(each["late_s"] for each in played) * 1e3, 1),
    }


def is_clean(result: dict[str, Any]) -> bool:
    """Whether the broker got every event once, in order, and the plan was carried out."""
    faults = (
        "lost", "out_of_order", "holes", "duplicates_after_dedup", "altered", "unpromised", "unwritten", "waiting",
        "unreadable", "sessions_lost",
    )  # fmt: skip
    return result["published"] == result["planned"] and not any(result[fault] for fault in faults)


def _show(ledger: Ledger, begin_s: float, plan: Plan, players: list[Connection]) -> None:
    """Print how far it is until every process has said what came of it, or far too late."""
    deadline_s = begin_s + plan.seconds + BEHIND_S
    while (silent := [player for player in players if not player.poll()]) and time.monotonic() < deadline_s:
        wait(silent, SHOW_S)
        kept = int((ledger.places["promised_ns"] > 0).sum())
        arrived = int((ledger.places["arrived_ns"] > 0).sum())
        print(f"{time.monotonic() - begin_s:6.1f} s  {kept} events kept, {arrived} arrived", flush=True)


@contextlib.contextmanager
def _started(target: Any, plan: Plan, *arguments: Any) -> Iterator[Connection]:
    """Run `target` in a process of its own and give its pipe; it is ended with the block."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process: SpawnProcess = context.Process(target=target, args=(plan, *arguments, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
        process.join(30)
    finally:
        ours.close()
        process.terminate()
        process.join()


def _answer(pipe: Connection, timeout_s: float) -> dict[str, Any]:
    """Wait for what a process has to say.

    Raises:
        RuntimeError: it has died, or says nothing.
    """
    try:
        if pipe.poll(timeout_s):
            answer: dict[str, Any] = pipe.recv()
            return answer
    except EOFError as error:
        raise RuntimeError("a process of the fleet has died; what it said stands above") from error
    raise RuntimeError(f"a process of the fleet said nothing for {timeout_s:g} s")


def _begin_process() -> None:
    # Ctrl-C reaches every process of a terminal; the one that started this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(name)s: %(message)s")


def _problems(devices: dict[int, Device]) -> list[str]:
    """Give what keeps devices from working, each once, with how many have it."""
    found: dict[str, int] = {}
    for device in devices.values():
        for problem in (device.outbox.problem, device.sink.problem, device.dispatcher.problem):
            if problem:
                found[problem] = found.get(problem, 0) + 1
    return [f"{number} devices: {problem}" for problem, number in found.items()]


def _is_done(device: Device) -> bool:
    return device.is_idle and device.outbox.counts().waiting == 0


def _wait(condition: Any, limit_s: float) -> None:
    deadline_s = time.monotonic() + limit_s
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.1)


def _children_cpu_s() -> float:
    """CPU time of all processes that were started here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _spread(values: NDArray[np.float64]) -> dict[str, float | None]:
    """Give percentiles of sorted values, ms."""
    if not len(values):
        return {"p50": None, "p99": None, "max": None}
    ranks = {"p50": 50, "p99": 99, "max": 100}
    return {
        name: round(float(values[math.ceil(rank / 100 * len(values)) - 1]), 2) for name, rank in ranks.items()
    }


def main() -> None:
    """Play, and tell what arrived."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", type=int, default=50)
    parser.add_argument(
        "--rate", type=float, default=1.0, metavar="HZ", help="events a second of each device"
    )
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--processes", type=int, default=2, help="that share the devices")
    parser.add_argument("--host", default="", help="of a broker that is there; else one is started")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--folder", type=Path, help="for the outboxes: absent or empty; else a temporary one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--set", action="append", default=[], metavar="section.key=value", help="of all devices"
    )
    options = parser.parse_args()
    # So that every process is ended after SIGTERM too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A device has seven descriptors, and the broker one for each device.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with ExitStack() as parts:
        folder = options.folder
        if folder is None:
            folder = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="microedge-fleet-")))
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            parser.error(f"--folder {folder}: must be empty: each event is known by its number from 1 on")
        broker = None
        if not options.host:
            # Its log of every packet would be larger than all events.
            broker = parts.enter_context(Broker(folder / "broker", settings="log_dest none"))
        plan = Plan(
            options.devices, max(1, round(options.rate * options.seconds)), options.seconds,
            options.host or "127.0.0.1", broker.port if broker is not None else options.port,
            f"fleet-{uuid.uuid4().hex[:8]}", folder, tuple(options.set), options.seed,
        )  # fmt: skip
        result = run(plan, max(1, min(options.processes, options.devices)), broker)
    print(json.dumps(result), flush=True)
    if not is_clean(result):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
