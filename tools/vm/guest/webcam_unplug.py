"""Takes a webcam away from the reader that is at it, in the machine, and gives it back: the kernel's `vivid` driver."""

import json
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from edge.feed import Reader
from edge.frame_queue import FrameQueue
from edge.frames.webcam import WebcamSource

DRIVER, DEVICE = Path("/sys/bus/platform/drivers/vivid"), "vivid.0"
NODE = Path("/dev/video0")
FRAMES, TIMES = 30, 3
LIMIT_S = 60.0


def main() -> None:
    queue = FrameQueue(8, drops_oldest=True)
    lit: list[bool] = []
    reader = Reader(
        lambda: WebcamSource(NODE, rate_hz=30.0, size=(320, 180)), queue, is_live=True, light=lit.append,
        retried=lambda: None,
    )  # fmt: skip
    stamps: list[int] = []

    def work() -> None:
        while (frame := queue.get()) is not None:
            stamps.append(frame.timestamp_ns)

    worker = threading.Thread(target=work)
    worker.start()
    reader.start()
    problems: list[str] = []
    for _ in range(TIMES):
        seen = len(stamps)
        wait_for(lambda: len(stamps) > seen + FRAMES, "frames")  # noqa: B023
        (DRIVER / "unbind").write_text(DEVICE)
        wait_for(lambda: reader.problem and not NODE.exists(), "the reader to notice")
        problems.append(reader.problem)
        (DRIVER / "bind").write_text(DEVICE)
    seen = len(stamps)
    wait_for(lambda: len(stamps) > seen + FRAMES, "frames")
    begun_s = time.monotonic()
    reader.close(10.0)
    worker.join(10.0)
    found = {
        "times": TIMES,
        "problems": sorted(set(problems)),
        "frames": len(stamps),
        "media_time_rises": all(before < after for before, after in pairwise(stamps)),
        "failure": reader.failure,
        "led": "".join("x" if is_lit else "." for is_lit in lit[:2] + lit[-1:]),
        "closed_s": round(time.monotonic() - begun_s, 2),
    }
    print("RESULT", json.dumps({"unplug": found}), flush=True)


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise SystemExit(f"waited {LIMIT_S:g} s in vain for {what}")
        time.sleep(0.02)


main()
