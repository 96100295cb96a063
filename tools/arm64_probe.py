"""What a machine makes of a clip and of fixed inputs, for comparison with another: run on both by `tools.arm64`.

    python arm64_probe.py CLIP FOLDER

Needs nothing but an installed microedge. FOLDER gets `answers.npz` (each model's outputs on each engine),
`events.jsonl` and `about.json`.
"""

import json
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.inference.cpu import installed_engines
from edge.inference.manifest import load_model
from edge.inference.models import NAMES

INPUTS = 3


def answers(engine: str) -> dict[str, NDArray[np.int8]]:
    """Give the outputs of every model for a few fixed inputs, int8, by "engine/model/output/number"."""
    given = {}
    for name in NAMES:
        model = load_model(name, engine=engine)
        random = np.random.default_rng(0)
        for number in range(INPUTS):
            # Smooth, as pictures and signals are: noise would drive every layer into its limits.
            coarse = random.normal(0.0, 60.0, (8, 8)).astype(np.float32)
            shape = model.input.shape
            side = int(np.ceil(np.sqrt(np.prod(shape))))
            smooth = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_LINEAR).ravel()[
                : np.prod(shape)
            ]
            outputs = model.run(np.clip(smooth, -128, 127).astype(np.int8).reshape(shape))
            for output, tensor in zip(outputs, model.outputs, strict=True):
                given[f"{engine}/{name}/{tensor.name}/{number}"] = np.array(output, copy=True)
        model.close()
    return given


def main() -> None:
    """Answer the fixed inputs, replay the clip, write both down."""
    clip, folder = Path(sys.argv[1]), Path(sys.argv[2])
    began_s = time.monotonic()
    given: dict[str, NDArray[np.int8]] = {}
    for engine in installed_engines():
        given |= answers(engine)
    np.savez(folder / "answers.npz", **given)
    answered_s = time.monotonic()
    replay = [
        sys.executable,
        "-m",
        "edge",
        "replay",
        str(clip),
        "--quiet",
        "--out",
        str(folder / "events.jsonl"),
    ]
    subprocess.run(replay, check=True)
    about = {
        "machine": platform.machine(), "python": platform.python_version(), "engines": installed_engines(),
        "numpy": np.__version__, "opencv": cv2.__version__, "av": version("av"),
        "answers_s": round(answered_s - began_s, 1), "replay_s": round(time.monotonic() - answered_s, 1),
    }  # fmt: skip
    (folder / "about.json").write_text(json.dumps(about))


if __name__ == "__main__":
    main()
