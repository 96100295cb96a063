"""Strike the service under real systemd, a hundred times in a row, and see that it is well again without a human.

    python -m tools.recovery [--runs 100] [--jobs 1] [--seed 0] [--release bookworm]

In a container with the shipped unit, its limits and its sandbox untouched but for the program that it starts, and with
a real broker that asks for a password. In random order: kill -9; the whole process stopped; worker, store, main
thread or camera driver hung for ever; a camera that cannot be closed (all of these end in a new process); a camera that
stalls, one that is gone and comes back, a broker that is gone and comes back, a lost Coral (these must be mended in
process). After each a new event must arrive. In the
end a subscriber must have every event that was committed, in order. `--jobs` shares the runs out to containers that
work side by side.

Prints one line for each fault; the last line is JSON. Status 1 if anything did not come back, was lost or out of order.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

from tools.container import ContainerError, boot, layer, rootfs
from tools.container.device import PYTHON, SETTINGS, SOURCE, equip
from tools.container.root import RELEASES

CONFIGURATION = f"{SETTINGS}rate_hz = 100.0\n"
_RUN_S = 150.0
"""For one fault at most: a hang that the watchdog finds takes 45 s."""
_LOST = ("lost", "holes", "out_of_order", "duplicates_after_dedup", "renumbered", "altered")


def trial(release: str, runs: int, seed: int) -> list[dict[str, Any]]:
    """Run one container to its end; give what it has printed.

    Raises:
        ContainerError: something did not come back.
    """
    with layer(rootfs(release)) as over:
        binds = equip(over.root, CONFIGURATION)
        script = f"cd {SOURCE} && exec {PYTHON} -m tools.recovery.faults --runs {runs} --seed {seed}"
        printed = boot(over.root, script=script, timeout_s=60 + runs * _RUN_S, binds=binds)
    lines = [dict(json.loads(line)) for line in printed.splitlines() if line.startswith("{")]
    for line in lines[:-1]:
        print(
            f"{line['kind']:23} well again after {line['recovered_s']:6.2f} s, "
            f"next event {line['event_s']:5.2f} s later, {line['restarts']} restarts",
            flush=True,
        )
    return lines


def summary(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up all containers."""
    times: dict[str, list[float]] = defaultdict(list)
    verdicts = [line for line in lines if "verdict" in line]
    for line in lines:
        if "kind" in line:
            times[line["kind"]].append(line["recovered_s"])
    return {
        "runs": sum(map(len, times.values())),
        "recovered_s": {
            kind: {"runs": len(each), "median": round(median(each), 2), "max": max(each)}
            for kind, each in sorted(times.items())
        },
        "restarts": sum(line.get("restarts", 0) for line in lines),
        "events": sum(line["verdict"]["promised"] for line in verdicts),
        **{name: sum(line["verdict"][name] for line in verdicts) for name in _LOST},
        "is_clean": all(line["is_clean"] for line in verdicts),
    }


def main() -> int:
    """Strike, and tell what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--release", default="bookworm", choices=RELEASES)
    options = parser.parse_args()
    began_s = time.monotonic()
    shares = [len(range(job, options.runs, options.jobs)) for job in range(options.jobs)]
    try:
        rootfs(options.release)
        with ThreadPoolExecutor(options.jobs) as pool:
            jobs = [
                pool.submit(trial, options.release, runs, options.seed + job)
                for job, runs in enumerate(shares)
            ]
            lines = [line for job in jobs for line in job.result()]
    except ContainerError as error:
        print(error, file=sys.stderr)
        print(json.dumps({"runs": options.runs, "is_clean": False, "problem": str(error)[:300]}))
        return 1
    result = summary(lines) | {"seed": options.seed, "seconds": round(time.monotonic() - began_s)}
    print(json.dumps(result), flush=True)
    return 0 if result["is_clean"] and result["runs"] == options.runs else 1


if __name__ == "__main__":
    sys.exit(main())
