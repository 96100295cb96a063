"""Kills a node of a NATS cluster while a device publishes, and proves that no event is lost.

    python -m tools.cluster --events 2000 [--kill device|subscriber|bystander|random] [--rate 200] [--down 3]

Three nats-server nodes (`pip install -e .[cluster]`) with JetStream and MQTT listeners stand on this machine, and every
MQTT stream has three replicas. A device in a process of its own, with the real outbox, dispatcher and MQTT sink, knows
all three by `mqtt.host` and `mqtt.alternates`; so does a subscriber with a session that outlives its connections. When
a third of the events has arrived, one node is killed with SIGKILL: the device's, the subscriber's, or the third. After
`--down` seconds it comes back. Every event that the device has committed must arrive.

What these servers are told beyond their defaults, under `mqtt` in the configuration below:

- `stream_replicas: 3`: by default a stream gets as many replicas as there are nodes, up to three, at the moment when
  the first client connects; one that was made while a node was missing stays with less, so this looks before it begins.
- `max_ack_pending: 1`: what a subscriber had not confirmed when its node died comes again, but behind what was
  published later. With 100 on their way, the default, that was so in 4 of 10 runs; with one the order holds, and 400
  events a second still pass. `ack_wait: "2s"` is the time after which it comes again, 30 s by default.
- `js_api_timeout: "3s"`: what the killed node led (a stream, the subscriber's place in it) gets another leader within
  4 to 7 s, and events wait in the outbox so long. A client that connects meanwhile is sent away after this time, and
  not kept waiting for 5 s, the default. With 1 s a busy machine refused subscriptions although nothing was wrong.

NATS speaks MQTT 3.1.1 only. To survive a power cut of all nodes at once it needs `sync_interval: always` under
`jetstream`, which is slower.

The last line is JSON. Ends with status 1 if anything was lost, out of order, doubled or missing.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.delivery.broker import free_port
from tools.delivery.child import DEVICE, DeviceProcess
from tools.delivery.judge import Verdict, judge
from tools.delivery.subscriber import Subscriber

NATS_SERVER = shutil.which(
    "nats-server", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
)
"""None: not installed."""
NODES = 3
START_S = 30.0
"""Time that nodes get to find each other, and a device to begin."""
DRAIN_S = 120.0
"""Time that the device gets to deliver everything once all nodes are there again."""
ARRIVE_S = 30.0
"""Time that events get from the cluster to the subscriber once the cluster has confirmed them all."""
DEVICE_ID = "clustered"
CLIENT_ID = f"microedge-{DEVICE_ID}"
"""As the device names itself to brokers."""
MESSAGES = "$MQTT_msgs"
"""The stream that holds what was published with QoS 1."""
ROLES = ("device", "subscriber", "bystander")
_LOOK_S = 0.02

_CONFIG = """
server_name: {name}
listen: "127.0.0.1:{clients}"
http: "127.0.0.1:{monitor}"
jetstream {{ store_dir: "{folder}/{name}" }}
cluster {{ name: microedge, listen: "127.0.0.1:{peers}", routes: [{routes}] }}
mqtt {{
  listen: "127.0.0.1:{mqtt}"
  stream_replicas: {nodes}
  max_ack_pending: 1
  ack_wait: "2s"
  js_api_timeout: "3s"
}}
accounts {{
  SYSTEM {{ users: [{{ user: system, password: system }}] }}
  EDGE {{ jetstream: enabled, users: [{{ user: edge, password: edge }}] }}
}}
system_account: SYSTEM
no_auth_user: edge
"""


class Node:
    """One nats-server. Whoever starts it stops it."""

    def __init__(self, folder: Path, name: str, ports: dict[str, int], routes: Sequence[int]) -> None:
        """Write its configuration.

        Args:
            folder: of all nodes.
            name: tells it from the others.
            ports: of `clients`, `monitor`, `peers` and `mqtt`.
            routes: the nodes' `peers` ports.
        """
        self.name, self.port, self._monitor = name, ports["mqtt"], ports["monitor"]
        self._config, self._log = folder / f"{name}.conf", folder / f"{name}.log"
        addresses = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
        self._config.write_text(
            _CONFIG.format(name=name, folder=folder, routes=addresses, nodes=NODES, **ports)
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert NATS_SERVER is not None
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([NATS_SERVER, "-c", self._config], stdout=log, stderr=log)

    def kill(self) -> None:
        """End it as a power cut of its machine would. May be called again."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def is_healthy(self) -> bool:
        """Whether it has found the others and caught up with them."""
        try:
            return bool(self.ask("healthz")["status"] == "ok")
        except OSError:
            return False

    def ask(self, what: str) -> Any:
        """Give what its monitoring says.

        Raises:
            OSError: it does not answer.
        """
        with urllib.request.urlopen(f"http://127.0.0.1:{self._monitor}/{what}", timeout=5) as answer:
            return json.load(answer)


class Cluster:
    """Three nodes, started and found healthy. Whoever constructs it closes it.

    Raises:
        FileNotFoundError: nats-server is not installed.
        TimeoutError: they do not find each other.
    """

    def __init__(self, folder: Path) -> None:
        if NATS_SERVER is None:
            raise FileNotFoundError("nats-server: is not installed (pip install -e .[cluster])")
        self._folder = folder
        free: set[int] = set()
        while len(free) < 4 * NODES:
            free.add(free_port())
        ports = iter(free)
        each = [dict(zip(("clients", "monitor", "peers", "mqtt"), ports, strict=False)) for _ in range(NODES)]
        routes = [its["peers"] for its in each]
        self.nodes = [Node(folder, f"node-{index}", its, routes) for index, its in enumerate(each, start=1)]
        try:
            for node in self.nodes:
                node.start()
            self.wait_healthy()
        except BaseException:
            self.close()
            raise

    @property
    def ports(self) -> list[int]:
        """Where each listens for MQTT."""
        return [node.port for node in self.nodes]

    def wait_healthy(self) -> None:
        wait_until(
            lambda: all(node.is_healthy() for node in self.nodes), START_S, f"nodes, see {self._folder}"
        )

    def streams(self) -> dict[str, tuple[int, str]]:
        """Give the number of replicas of each MQTT stream, and the name of the node that leads it."""
        found: dict[str, tuple[int, str]] = {}
        for node in self.nodes:
            for account in node.ask("jsz?accounts=1&streams=1&config=1").get("account_details", []):
                for stream in account.get("stream_detail", []):
                    leader = stream.get("cluster", {}).get("leader", "")
                    found[stream["name"]] = (stream["config"]["num_replicas"], leader)
        return found

    def victim(self, killed: str, client_ids: Mapping[str, str]) -> Node:
        """Give the node to kill.

        Args:
            killed: one of ROLES.
            client_ids: of the device and the subscriber, by role.

        Raises:
            TimeoutError: one of them is connected to no node.
        """
        homes: dict[str, Node] = {}

        def are_at_home() -> bool:
            for node in self.nodes:
                for role, client_id in client_ids.items():
                    if node.ask(f"connz?mqtt_client={client_id}")["connections"]:
                        homes[role] = node
            return len(homes) == len(client_ids)

        wait_until(are_at_home, START_S, "device and subscriber at a node each")
        return homes.get(killed) or next(node for node in self.nodes if node not in homes.values())

    def close(self) -> None:
        for node in self.nodes:
            node.kill()

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run."""

    verdict: Verdict
    killed: str
    """The role of the node that was killed."""
    led: bool
    """Whether that node led the stream of messages."""
    problems: tuple[str, ...]
    """What else was wrong, in words."""

    @property
    def is_clean(self) -> bool:
        return self.verdict.is_clean and not self.problems

    def summary(self) -> dict[str, Any]:
        """Give the last line."""
        verdict = self.verdict
        return {
            "events": verdict.promised,
            "lost": verdict.lost,
            "out_of_order": verdict.out_of_order,
            "holes": verdict.holes,
            "duplicates_after_dedup": verdict.duplicates_after_dedup,
            "longest_gap_s": round(verdict.longest_silence_s, 2),
            "killed": self.killed,
        }


def run(folder: Path, *, events: int, killed: str, rate_hz: float, down_s: float, seed: int) -> Outcome:
    """Let a device publish while a node dies and comes back; judge what arrived.

    Args:
        folder: takes everything that is written.
        events: at least so many are published.
        killed: one of ROLES.
        rate_hz: events a second, on average.
        down_s: time from the node's death to its return.
        seed: of the simulated events.

    Raises:
        FileNotFoundError: nats-server is not installed.
        TimeoutError: the cluster, the subscriber or the device does not get to work at all.
    """
    problems: list[str] = []
    with ExitStack() as parts:
        cluster = parts.enter_context(Cluster(folder))
        first, second, third = cluster.ports
        # Each knows all nodes and begins with one of its own.
        subscriber = parts.enter_context(Subscriber(second, alternates=(third, first), protocol="3.1.1"))
        streams = cluster.streams()
        if {replicas for replicas, _ in streams.values()} != {NODES}:
            problems.append(f"replicas and leaders of streams: {streams}: each must have {NODES} replicas")
        settings = {
            "device.id": DEVICE_ID, "mqtt.protocol": "3.1.1", "mqtt.keep_alive_s": 5,
            "mqtt.alternates": f"127.0.0.1:{second},127.0.0.1:{third}",
        }  # fmt: skip
        arguments = [
            "--folder", str(folder / "device"), "--port", str(first), "--rate", f"{rate_hz:g}", "--seed", str(seed),
            *(f"--set={name}={value}" for name, value in settings.items()),
        ]  # fmt: skip
        device = DeviceProcess([*DEVICE, *arguments], DEVICE_ID, "the device", folder / "device.log")
        parts.callback(lambda: device.kill() if device.is_alive else None)
        wait_until(
            lambda: len(subscriber.arrived) >= events // 3,
            START_S + events / rate_hz,
            "a third of the events",
        )

        victim = cluster.victim(killed, {"device": CLIENT_ID, "subscriber": subscriber.client_id})
        led = cluster.streams()[MESSAGES][1] == victim.name
        victim.kill()
        time.sleep(down_s)
        victim.start()
        cluster.wait_healthy()

        wait_until(lambda: len(device.promises) >= events, START_S + events / rate_hz, "the last events")
        device.ask("quiet")
        if not _came_true(lambda: device.is_drained, DRAIN_S):
            problems.append(f"not everything was confirmed within {DRAIN_S:g} s: {device.state}")
        if status := device.stop():
            problems.append(f"the device ended with status {status}")
        # What the subscriber had not confirmed comes again later than a message of its own would.
        _came_true(lambda: _has_all(subscriber, device), ARRIVE_S)
        if subscriber.sessions_lost or subscriber.unreadable:
            problems.append(
                f"the cluster forgot the subscriber {subscriber.sessions_lost} times, "
                f"{len(subscriber.unreadable)} messages were no events"
            )
        return Outcome(judge(device.promises, list(subscriber.arrived)), killed, led, tuple(problems))


def _has_all(subscriber: Subscriber, device: DeviceProcess) -> bool:
    arrived = {arrival.id for arrival in list(subscriber.arrived)}
    return all(promise.id in arrived for promise in device.promises)


def wait_until(condition: Callable[[], bool], limit_s: float, what: str) -> None:
    """Look again until `condition` holds.

    Raises:
        TimeoutError: it does not, within `limit_s`.
    """
    if not _came_true(condition, limit_s):
        raise TimeoutError(f"waited {limit_s:g} s in vain for {what}")


def _came_true(condition: Callable[[], bool], limit_s: float) -> bool:
    deadline_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(_LOOK_S)
    return True


def main() -> int:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=2000, help="at least so many are published")
    parser.add_argument("--kill", choices=(*ROLES, "random"), default="random", help="whose node is killed")
    parser.add_argument("--rate", type=float, default=200.0, metavar="HZ", help="events a second, on average")
    parser.add_argument("--down", type=float, default=3.0, metavar="S", help="how long the node is away")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    # A SIGTERM must not leave servers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    killed = random.Random(options.seed).choice(ROLES) if options.kill == "random" else options.kill
    folder = Path(tempfile.mkdtemp(prefix="microedge-cluster-"))
    try:
        outcome = run(
            folder,
            events=options.events,
            killed=killed,
            rate_hz=options.rate,
            down_s=options.down,
            seed=options.seed,
        )
    except (FileNotFoundError, TimeoutError) as error:
        sys.exit(str(error))
    for finding in (*outcome.problems, *outcome.verdict.findings):
        print(finding)
    leader = "led the stream of messages" if outcome.led else "did not lead the stream of messages"
    print(f"the killed node {leader}; {outcome.verdict.duplicates_seen} events were sent again")
    if outcome.is_clean:
        shutil.rmtree(folder)
    else:
        print(f"logs are in {folder}")
    print(json.dumps(outcome.summary()))
    return 0 if outcome.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
