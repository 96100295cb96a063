"""How long a device takes to get rid of what waited through an outage, and what keeping one event costs.

    python -m tools.drain [--events 10000] [--folder FOLDER] [--protocol 5]

Events are committed one by one while there is no broker, the device is closed and opened again, as after a power cut,
and a broker of its own (mosquitto) and a subscriber are started. The last line is one JSON object: `commit_ms` of one
event, `drain_s` from the device's start to the last confirmation, and what the subscriber found.

FOLDER should lie on the disk that is meant; without it the events lie in a temporary folder.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from edge.config import Config, load
from tools.delivery.broker import Broker
from tools.delivery.device import Device, Simulation
from tools.delivery.judge import Promise, judge, percentile
from tools.delivery.subscriber import Subscriber

LIMIT_S = 600.0
"""Time after which the tool gives up."""


def main() -> int:
    """Measure and print; 0 if everything arrived, in order and once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=10_000, metavar="N", help="events that wait (10000)")
    parser.add_argument("--folder", type=Path, metavar="FOLDER", help="where the outbox lies; must be empty")
    parser.add_argument("--protocol", default="5", choices=("5", "3.1.1"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        broker = Broker(Path(scratch) / "broker")
        folder = options.folder or Path(scratch) / "device"
        config = load(
            None, ["device.id=drained", f"mqtt.port={broker.port}", f"mqtt.protocol={options.protocol}"]
        )
        # The outage: nothing listens at the port yet.
        promised, commit_ms = _keep(config, folder, options.events)
        with broker, Subscriber(broker.port, protocol=options.protocol) as subscriber:
            drain_s = _drain(config, folder)
            subscriber.collect()
            verdict = judge(promised, subscriber.arrived)
    figures = {
        "events": options.events, "protocol": options.protocol,
        "commit_ms": {"p50": percentile(commit_ms, 50), "p99": percentile(commit_ms, 99), "max": max(commit_ms)},
        "drain_s": round(drain_s, 2), "lost": verdict.lost, "out_of_order": verdict.out_of_order,
        "holes": verdict.holes, "duplicates_seen": verdict.duplicates_seen,
        "duplicates_after_dedup": verdict.duplicates_after_dedup,
    }  # fmt: skip
    print(json.dumps(figures))
    return 0 if verdict.is_clean else 1


def _keep(config: Config, folder: Path, number: int) -> tuple[list[Promise], list[float]]:
    """Commit events one by one without a broker; give what was promised and what each commit took, ms, sorted."""
    promised: list[Promise] = []
    commit_ms: list[float] = []

    def tell(kind: str, **fields: Any) -> None:
        if kind == "kept":
            commit_ms.append(fields.pop("commit_ms"))
            promised.append(Promise(device_id=config.device.id, life="first", **fields))

    device = Device(config, folder, tell)
    simulation = Simulation(0)
    for done in range(number):
        device.hand(simulation.event(device.elapsed_ns))
        while len(promised) <= done:
            time.sleep(0.0002)
    device.close()
    return promised, sorted(commit_ms)


def _drain(config: Config, folder: Path) -> float:
    """Start the device again and wait until all is confirmed; give the time that took, s."""
    began_s = time.monotonic()
    device = Device(config, folder, lambda _kind, **_fields: None)
    try:
        while device.outbox.counts().waiting:
            if time.monotonic() - began_s > LIMIT_S:
                raise SystemExit(f"{device.outbox.counts()} after {LIMIT_S:g} s: {device.sink.problem}")
            time.sleep(0.01)
        return time.monotonic() - began_s
    finally:
        device.close()


if __name__ == "__main__":
    raise SystemExit(main())
