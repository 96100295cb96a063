"""Inside of the container: strikes the service again and again, and waits until it is well by itself.

    python -m tools.recovery.faults --runs N --seed S

Prints a JSON object a line: one for each fault, and at last one with what arrived at a subscriber.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tools.container.device import PYTHON, SOURCE
from tools.container.inside import OBSERVER_PORT, Unit, until
from tools.delivery.judge import Promise, judge
from tools.delivery.subscriber import Subscriber
from tools.recovery.device import MARKS, STATE

SERVICE, BROKER = Unit("microedge.service"), Unit("mosquitto.service")
_DROP_IN = f"""\
[Service]
Environment=GPIOZERO_PIN_FACTORY=mock PYTHONPATH={SOURCE}
ExecStart=
ExecStart={PYTHON} -m tools.recovery.device --config /etc/microedge/config.toml
"""
_LIMIT_S = 120.0
_EVENTS = Path("/var/lib/microedge/events.db")


class Trial:
    """The service under fire, and who listens to it."""

    def __init__(self, watcher: Subscriber, chance: random.Random) -> None:
        self._watcher, self._chance = watcher, chance
        self.kinds: dict[str, Callable[[], float]] = {
            "kill": self._kill,
            "stop": self._stop,
            "worker hangs": lambda: self._hang("worker"),
            "store hangs": lambda: self._hang("store"),
            "main thread hangs": lambda: self._hang("main"),
            "camera hangs": lambda: self._hang("reader"),
            "camera cannot be closed": lambda: self._hang("stuck"),
            "camera stalls": self._stall,
            "camera gone and back": self._unplug,
            "broker gone and back": self._stop_broker,
            "Coral lost": self._lose_coral,
        }
        """What befalls it; each is done, waits until all is well, and gives how long that took, s."""

    def strike(self, kind: str) -> dict[str, Any]:
        """Let one thing befall the service, and wait until it has sent a new event by itself."""
        time.sleep(self._chance.uniform(0.0, 2.0))
        restarts = int(SERVICE["NRestarts"])
        recovered_s = self.kinds[kind]()
        began_s, heard = time.monotonic(), len(self._watcher.arrived)
        until(lambda: len(self._watcher.arrived) > heard, f"an event after: {kind}", _LIMIT_S)
        return {
            "kind": kind, "recovered_s": round(recovered_s, 2), "event_s": round(time.monotonic() - began_s, 2),
            "restarts": int(SERVICE["NRestarts"]) - restarts,
        }  # fmt: skip

    def _kill(self) -> float:
        with self._restarted() as pid:
            began_s = time.monotonic()
            os.kill(pid, signal.SIGKILL)
        return time.monotonic() - began_s

    def _stop(self) -> float:
        with self._restarted() as pid:
            began_s = time.monotonic()
            os.kill(pid, signal.SIGSTOP)
        return time.monotonic() - began_s

    def _hang(self, what: str) -> float:
        with self._restarted() as pid:
            began_s = time.monotonic()
            mark(what, pid)
        (MARKS / what).unlink()
        return time.monotonic() - began_s

    def _stall(self) -> float:
        with self._in_process() as pid:
            began_s = time.monotonic()
            mark("stall", pid)
            until(stands_still, "frames to stop", _LIMIT_S)
            (MARKS / "stall").unlink()
            self._wait_for_frames(state()["frames"])
        return time.monotonic() - began_s

    def _unplug(self) -> float:
        with self._in_process():
            mark("gone", 0)
            time.sleep(self._chance.uniform(0.2, 6.0))
            (MARKS / "gone").unlink()
            began_s = time.monotonic()
            self._wait_for_frames(state()["frames"])
        return time.monotonic() - began_s

    def _stop_broker(self) -> float:
        with self._in_process():
            BROKER.do("stop")
            time.sleep(self._chance.uniform(0.2, 6.0))
            BROKER.do("start")
            began_s = time.monotonic()
            until(lambda: state()["connected"] and not state()["waiting"], "everything delivered", _LIMIT_S)
        return time.monotonic() - began_s

    def _lose_coral(self) -> float:
        with self._in_process():
            child = until(lambda: state()["child"], "an inference child in use", _LIMIT_S)
            os.kill(child, self._chance.choice((signal.SIGKILL, signal.SIGABRT, signal.SIGSTOP)))
            began_s = time.monotonic()
            until(lambda: state()["child"] not in (None, child), "another inference child in use", _LIMIT_S)
        return time.monotonic() - began_s

    @contextlib.contextmanager
    def _restarted(self) -> Iterator[int]:
        """Wait, once the block is left, for another process that is ready; give the id of the present one."""
        pid = SERVICE.pid
        yield pid
        until(
            lambda: SERVICE.pid not in (0, pid) and SERVICE.is_active,
            "another process that is ready",
            _LIMIT_S,
        )
        until(lambda: state()["pid"] != pid, "its state", _LIMIT_S)

    @contextlib.contextmanager
    def _in_process(self) -> Iterator[int]:
        """Hold it to having the same process when the block is left; give its id."""
        pid = SERVICE.pid
        yield pid
        if SERVICE.pid != pid:
            raise AssertionError("the process was replaced, although it could have gone on")

    def _wait_for_frames(self, before: int) -> None:
        until(lambda: state()["frames"] > before + 10, "frames", _LIMIT_S)


def mark(what: str, pid: int) -> None:
    """Have a part of the device fail; see `tools.recovery.device`."""
    new = MARKS / f".{what}"
    new.write_text(str(pid))
    new.rename(MARKS / what)


def stands_still() -> bool:
    """Tell whether no frame comes for half a second."""
    before = state()["frames"]
    time.sleep(0.5)
    return bool(state()["frames"] == before)


def state() -> dict[str, Any]:
    """Give what the device knows of itself; nothing while it has no process."""
    try:
        return dict(json.loads(STATE.read_text()))
    except OSError:
        return {"pid": 0, "frames": 0, "child": None, "connected": False, "waiting": 0}


def promises() -> list[Promise]:
    """Give every event that the device has ever committed to its disk."""
    with contextlib.closing(sqlite3.connect(_EVENTS)) as store:
        rows = store.execute("SELECT series, seq, id, kept_ms FROM events ORDER BY position").fetchall()
    return [
        Promise("trial", series, seq, event_id, True, "", kept_ms * 1_000_000)
        for series, seq, event_id, kept_ms in rows
    ]


def main() -> None:
    """Strike."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    MARKS.mkdir()
    with Subscriber(OBSERVER_PORT) as watcher:
        SERVICE.drop_in("trial", _DROP_IN)
        SERVICE.do("start")
        trial = Trial(watcher, chance)
        rounds = -(-options.runs // len(trial.kinds))
        # Each kind as often as any other, each round in another order.
        kinds = [kind for _ in range(rounds) for kind in chance.sample(list(trial.kinds), len(trial.kinds))]
        kinds = kinds[: options.runs]
        for kind in kinds:
            print(json.dumps(trial.strike(kind)), flush=True)
        SERVICE.do("stop")
        until(lambda: watcher.availability.get("trial") == "offline", "`offline`")
        assert watcher.collect()
        verdict = judge(promises(), watcher.arrived)
        numbers = {name: value for name, value in asdict(verdict).items() if name != "delays_ms"}
        print(json.dumps({"verdict": numbers, "is_clean": verdict.is_clean}), flush=True)


if __name__ == "__main__":
    main()
