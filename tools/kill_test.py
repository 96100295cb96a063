"""Kill the inference child once a second while the device watches 200 frames a second, and count what is lost.

    python -m tools.kill_test [--seconds 60] [--every 1] [--engine litert] [--set section.key=value]

The whole device runs on four seconds of the animated portrait, played to and fro at `camera.rate_hz`; a CPU engine
takes the Coral's place in the child. The child is killed with SIGKILL, SIGABRT and SIGSTOP in turn, each second if
there is one; a new one is tried after 0.2 s each time, where the device would wait longer and longer. One line for
each kill; the last line is JSON. `--every 0` kills nothing, to see what a busy machine loses by itself. MQTT and LEDs
are off unless `--set` says so. Ends with status 1 if a frame was lost.
"""

import argparse
import json
import math
import os
import signal
import time
from collections import Counter
from functools import partial
from typing import Any
from unittest import mock

import numpy as np

from edge import app as composition
from edge.app import App
from edge.commands import ATTEND_S
from edge.config import Config, load
from edge.frames import FrameSource
from edge.frames.looped import LoopedSource
from edge.frames.paced import PacedSource
from edge.inference.cpu import installed_engines
from edge.inference.models import Models, load_models
from edge.inference.process import Isolation
from tools.soak import TimedPipeline, portrait

SIGNALS = (signal.SIGKILL, signal.SIGABRT, signal.SIGSTOP)
_LOOK_S = 0.01


def run(config: Config, *, seconds: float, every_s: float, engine: str) -> dict[str, Any]:
    """Run the device, kill its child again and again, and give what came of it."""
    source = LoopedSource(portrait(config), seconds=seconds)
    made: list[Models] = []

    def opened() -> FrameSource:
        return PacedSource(source)

    def isolated(config: Config) -> Models:
        made.append(load_models(config, isolation=Isolation(engine=engine, longest_retry_s=0.2)))
        return made[-1]

    replaced = partial(mock.patch.object, composition)
    kills: Counter[str] = Counter()
    states: Counter[str] = Counter()
    on_child_s = 0.0
    with (
        replaced("Pipeline", TimedPipeline),
        replaced("load_models", isolated),
        App(config, opened, is_live=True) as app,
    ):
        (models,) = made
        assert models.accelerator is not None
        began_s = looked_s = attended_s = time.monotonic()
        due_s = began_s + (every_s or math.inf)
        while app.is_running:
            time.sleep(_LOOK_S)
            now_s = time.monotonic()
            state = models.status.state
            states[state] += 1
            on_child_s += (now_s - looked_s) * (state == "in use")
            looked_s = now_s
            if now_s - attended_s >= ATTEND_S:
                attended_s = now_s
                app.attend()
            if now_s >= due_s and (pid := models.accelerator.pid) is not None:
                due_s += every_s * max(1, round((now_s - due_s) / every_s))
                kind = SIGNALS[sum(kills.values()) % len(SIGNALS)]
                os.kill(pid, kind)
                kills[kind.name] += 1
                numbers = app.statistics
                print(
                    f"{now_s - began_s:6.2f} s  {kind.name} to {pid}, {numbers.frames} frames, "
                    f"{numbers.dropped} lost, {models.status.fallback_runs} calls by the CPU",
                    flush=True,
                )
        status, numbers, failure = models.status, app.statistics, app.failure
        queue_dropped = app.frames_dropped
    times_ms = np.array(TimedPipeline.last.times_ms)
    p50, p99, worst = np.percentile(times_ms, (50, 99, 100))
    looks = sum(states.values())
    return {
        "frames": numbers.frames,
        "dropped": numbers.dropped,
        "queue_dropped": queue_dropped,
        "out_of_order": numbers.out_of_order,
        "frame_ms": {"p50": round(float(p50), 3), "p99": round(float(p99), 3), "max": round(float(worst), 3)},
        "kills": dict(kills),
        "restarts": status.restarts,
        "fallback_runs": status.fallback_runs,
        "seconds_on_child": round(on_child_s, 2),
        "states": {state: round(count / looks, 3) for state, count in states.items()},
        "load_average": os.getloadavg()[0],
        "failure": failure,
    }


def main() -> None:
    """Kill, and tell what was lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=1.0, metavar="SECONDS", help="0: never")
    parser.add_argument("--engine", default=installed_engines()[0], choices=installed_engines())
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value")
    options = parser.parse_args()
    config = load(None, ["mqtt.enabled=false", "leds.enabled=false", *options.set])
    result = run(config, seconds=options.seconds, every_s=options.every, engine=options.engine)
    print(json.dumps(result), flush=True)
    if result["failure"] or result["dropped"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
