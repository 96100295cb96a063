"""Trouble of every kind for a real device and a real broker, and proof that no event is lost, doubled or out of order.

    python -m tools.chaos [--runs 10] [--seed S] [--jobs 2] [--seconds 5] [--report FILE] [--show]

Each run has a mosquitto of its own, a network that can fail, and a device in a process of its own with the real
outbox, dispatcher and MQTT sink on simulated events. For some seconds a schedule drawn from the run's seed restarts the
broker, cuts, stalls and deafens the network, kills the device with SIGKILL at random instants, also while it starts and
in a burst of commits, and fills its disk; these overlap. Then all is put right, the device delivers and stops. Every
event whose commit had returned must have reached a subscriber, once by its `id` and in the order of its `seq`.

One line for each run, and what went wrong in words; `--show` prints the faults too. A failed run leaves its folder. The
last line is JSON: numbers of events, and of what was done to get there. `commit_ms` is of those runs whose disk is a
real one. Run 7 of `--seed 100` is the only one of `--runs 1 --seed 106`. Ends with status 1 if anything was wrong.
"""

import argparse
import json
import math
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tools.delivery.child import ROOT
from tools.delivery.judge import percentile
from tools.delivery.trial import Outcome, Trial

Report = dict[str, Any]
"""An outcome as JSON."""

SUMS = (
    "promised", "lost", "out_of_order", "holes", "duplicates_after_dedup", "renumbered", "altered", "duplicates_seen",
    "not_durable_lost", "unpromised",
)  # fmt: skip
"""Fields of a verdict that are added up."""


def report(outcome: Outcome) -> Report:
    """Give an outcome as JSON."""
    return {
        "seed": outcome.seed,
        "is_clean": outcome.is_clean,
        **asdict(outcome.verdict),
        "faults": [str(fault) for fault in outcome.faults],
        "counts": dict(outcome.counts),
        "commit_ms": outcome.commit_ms,
        "drain_s": outcome.drain_s,
        "problems": outcome.problems,
        "folder": outcome.folder,
    }


def line(one: Report) -> str:
    """Put a run in a line."""
    done = ", ".join(f"{name} {number}" for name, number in sorted(one["counts"].items()))
    state = "clean" if one["is_clean"] else "VIOLATED"
    return (
        f"seed {one['seed']}: {state}: {one['promised']} events, {one['duplicates_seen']} sent again; {done}"
    )


def summary(reports: Sequence[Report]) -> Report:
    """Add runs up."""
    counts: Counter[str] = Counter()
    for one in reports:
        counts.update(one["counts"])
    sums = {name: sum(one[name] for one in reports) for name in SUMS}
    return {
        "runs": len(reports),
        "published": sums.pop("promised"),
        **sums,
        "failed_runs": [one["seed"] for one in reports if not one["is_clean"]],
        "done": dict(sorted(counts.items())),
        "commit_ms": _spread([ms for one in reports for ms in one["commit_ms"]]),
        "delay_ms": _spread([ms for one in reports for ms in one["delays_ms"]]),
        "drain_s_max": round(max((one["drain_s"] for one in reports), default=0.0), 3),
        "longest_outage_s": round(max((one["longest_silence_s"] for one in reports), default=0.0), 3),
    }


def run_here(seed: int, seconds: float, show: bool) -> Report:
    """Run one trial in this process, and tell of it."""
    trial = Trial(seed, seconds)
    if show:
        print(*trial.faults, sep="\n", flush=True)
    one = report(trial.run())
    print(line(one), flush=True)
    if not one["is_clean"]:
        shown = [] if show else one["faults"]
        print(*(f"    {text}" for text in (*one["problems"], *one["findings"], *shown)), sep="\n")
        print(f"    kept: {one['folder']}", flush=True)
    return one


@contextmanager
def children() -> Iterator[set["subprocess.Popen[str]"]]:
    """Hold the processes that are at work; whoever is left at the end is asked to clean up and waited for."""
    running: set[subprocess.Popen[str]] = set()
    try:
        yield running
    finally:
        for child in tuple(running):
            child.terminate()
        for child in tuple(running):
            child.wait()


def run_apart(seeds: Sequence[int], options: argparse.Namespace) -> Iterator[Report]:
    """Run trials in processes of their own, several at a time, and give them as they end.

    Raises:
        RuntimeError: one of the processes failed as such.
    """
    over = threading.Event()

    def run_one(seed: int) -> tuple[str, Report] | None:
        if over.is_set():
            return None
        path = folder / f"{seed}.json"
        words = [
            sys.executable,
            "-m",
            "tools.chaos",
            "--runs",
            "1",
            "--seed",
            str(seed),
            "--report",
            str(path),
        ]
        words += ["--seconds", str(options.seconds), *(["--show"] if options.show else [])]
        child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        running.add(child)
        said, _ = child.communicate()
        running.discard(child)
        if over.is_set():
            return None
        if not path.exists() or not path.stat().st_size:
            raise RuntimeError(f"seed {seed}: the run failed with status {child.returncode}: {said[-2000:]}")
        return said, json.loads(path.read_text())

    with tempfile.TemporaryDirectory(prefix="microedge-chaos-reports-") as name, children() as running:
        folder = Path(name)
        with ThreadPoolExecutor(options.jobs) as pool:
            try:
                for future in as_completed([pool.submit(run_one, seed) for seed in seeds]):
                    if (done := future.result()) is not None:
                        said, one = done
                        print(said.rpartition("\n{")[0], flush=True)
                        yield one
            finally:
                over.set()
                for child in tuple(running):
                    child.terminate()


def main() -> None:
    """Run trials, and tell what became of them."""
    try:
        _main()
    except KeyboardInterrupt:
        raise SystemExit("interrupted") from None


def _main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--seed", type=int, help="of the first run; the next ones count up from it")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--seconds", type=float, default=5.0, help="of trouble in each run")
    parser.add_argument("--report", type=Path, help="a file to write every run to, one JSON object a line")
    parser.add_argument("--show", action="store_true", help="print the faults of every run")
    options = parser.parse_args()
    # So that everything is cleaned up after SIGTERM too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    first = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    began_s = time.monotonic()
    reports: list[Report] = []
    with (options.report or Path("/dev/null")).open("w", encoding="utf-8") as file:
        seeds = range(first, first + options.runs)
        runs = (
            (run_here(first, options.seconds, options.show) for _ in seeds)
            if options.runs == 1
            else run_apart(seeds, options)
        )
        for one in runs:
            file.write(json.dumps(one) + "\n")
            file.flush()
            reports.append(one)
    result = summary(reports) | {
        "seed": first, "seconds": options.seconds, "wall_s": round(time.monotonic() - began_s, 1),
    }  # fmt: skip
    print(json.dumps(result), flush=True)
    if result["failed_runs"]:
        raise SystemExit(1)


def _spread(values: list[float]) -> dict[str, float | None]:
    values.sort()
    figures = {f"p{percent}": percentile(values, percent) for percent in (50, 99)} | {
        "max": percentile(values, 100)
    }
    return {name: None if math.isnan(figure) else round(figure, 2) for name, figure in figures.items()}


if __name__ == "__main__":
    main()
