"""How long a start takes, from the process to the first frame that can be assessed, in a process of its own.

`measure` runs this module as a program: it imports what `microedge run` imports, builds the path, and plays prepared
frames at the camera's pace. It stops at the first assessable frame, or when they are over.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from edge.errors import EdgeError
from edge.frames import FrameSource
from edge.frames.looped import to_and_fro
from edge.records import Frame

_FRAMES = 400
_STORED_BYTES = 1 << 26
_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Startup:
    """Seconds from the start of the process."""

    imported_s: float
    models_s: float
    """Models loaded and checked, path built."""
    first_frame_s: float
    """The first frame is through."""
    assessable_s: float | None
    """The first time that could be assessed: the face is found and the pose has settled. None: no frame could be."""


def measure(overrides: tuple[str, ...], config_file: Path | None, looped: FrameSource) -> Startup:
    """Start a process and give how long it took.

    Args:
        overrides: section.key=value.
        config_file: the configuration, None for the defaults.
        looped: frames to start with.

    Raises:
        EdgeError: it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        stored = Path(folder) / "frames.npy"
        width, height = looped.size
        few = min(max(_STORED_BYTES // (width * height), 2), _FRAMES)
        np.save(stored, np.array([frame.luma for frame in islice(looped.frames(), few)]))
        task = {
            "frames": str(stored),
            "rate_hz": looped.nominal_rate_hz,
            "config": str(config_file) if config_file else None,
            "set": overrides,
        }
        began_s = time.monotonic()
        try:
            child = subprocess.run(
                [sys.executable, "-m", "edge.bench.startup"], input=json.dumps(task), capture_output=True,
                text=True, timeout=_LIMIT_S, check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise EdgeError(f"start-up: not over within {_LIMIT_S:g} s") from error
    if child.returncode:
        last = child.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise EdgeError(f"start-up: {last[0]}")
    moments: dict[str, float] = json.loads(child.stdout)
    since_s = {name: moment - began_s for name, moment in moments.items()}
    return Startup(
        since_s["imported_s"], since_s["models_s"], since_s["first_frame_s"], since_s.get("assessable_s")
    )


def main() -> int:
    """Start as the device does, and print the moments (CLOCK_MONOTONIC, which parent and child share)."""
    task = json.load(sys.stdin)
    # What `microedge run` would have imported by now.
    import edge.commands.run  # noqa: F401
    from edge.config import load
    from edge.frames.paced import PacedSource
    from edge.inference.models import load_models
    from edge.pipeline import Pipeline

    moments = {"imported_s": time.monotonic()}
    config = load(Path(task["config"]) if task["config"] else None, task["set"])
    pipeline = Pipeline(config, load_models(config))
    moments["models_s"] = time.monotonic()
    for frame in PacedSource(_Stored(np.load(task["frames"], mmap_mode="r"), task["rate_hz"])).frames():
        pipeline.feed(frame)
        moments.setdefault("first_frame_s", time.monotonic())
        if pipeline.statistics.assessable_s > 0:
            moments["assessable_s"] = time.monotonic()
            break
    print(json.dumps(moments))
    return 0


class _Stored:
    """A `FrameSource` of (frames, rows, columns) uint8."""

    def __init__(self, lumas: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]", rate_hz: float) -> None:
        self._lumas = lumas
        self.name, self.size = "prepared frames", (lumas.shape[2], lumas.shape[1])
        self.nominal_rate_hz = rate_hz
        self.duration_s: float | None = None
        self.start_time_ns = self.frames_out_of_order = 0
        self.warnings: list[str] = []

    def frames(self) -> Iterator[Frame]:
        for number in range(_FRAMES):
            luma = self._lumas[to_and_fro(number, len(self._lumas))]
            yield Frame(luma, round(number * 1e9 / self.nominal_rate_hz), number)

    def close(self) -> None:
        """Nothing to close."""


if __name__ == "__main__":
    sys.exit(main())
