"""From photos to the shipped spotter: simulate, train, quantise, calibrate, write the passport.

    python -m tools.spotter.make --photos DIR --labels NPZ --model NPZ --out DIR [--jobs 2] [--models models]

Every step keeps what it has done in OUT, so an interrupted run goes on where it stopped; the seeds are fixed.
The new model and its passport take the place of those in --models at the end.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from edge.inference.manifest import read_manifest
from tools.simulate.people import add_arguments
from tools.spotter.calibrate import KEY


def main() -> None:
    """Run the steps one after the other; each is a command of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--models", type=Path, default=Path("models"), help="where the device finds its models"
    )
    parser.add_argument("--rendered", type=int, default=500, help="clips rendered for training")
    parser.add_argument("--tabulated", type=int, default=3000, help="clips made from tabulated responses")
    parser.add_argument("--validation", type=int, default=100, help="clips rendered for validation")
    parser.add_argument("--epochs", type=int, default=36)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    data = ["--photos", options.photos, "--labels", options.labels, "--model", options.model]
    out, jobs = options.out, options.jobs

    for kind, split, clips in (
        ("signals", "train", options.rendered),
        ("tabulated", "train", options.tabulated),
        ("signals", "validation", options.validation),
    ):
        split_of = ["--split", split, "--clips", clips, "--out", out / f"{kind}_{split}"]
        _side_by_side(
            [[f"tools.simulate.{kind}", *data, *split_of, "--part", f"{n}/{jobs}"] for n in range(jobs)]
        )
    _run(
        "tools.spotter.train",
        *("--signals", out / "signals_train", out / "tabulated_train"),
        *("--validation", out / "signals_validation", "--out", out, "--epochs", options.epochs),
    )
    # Calibrated on the whole path with the new model in place; the old one goes on until all has worked.
    models, content = out / "models", (out / "spotter.tflite").read_bytes()
    if not models.exists() or (models / "spotter.tflite").read_bytes() != content:
        shutil.copytree(options.models, models, dirs_exist_ok=True)
        (models / "spotter.tflite").write_bytes(content)
        _run("tools.passport", models / "spotter.tflite")
    if KEY not in read_manifest(models)["spotter"].calibration:
        digest = hashlib.sha256(content).hexdigest()[:8]
        answers = {renderer: out / f"validation_{renderer}_{digest}.jsonl" for renderer in ("ict", "facs")}
        for renderer, path in answers.items():
            _run(
                *("tools.evaluate", "rendered", *data, "--split", "validation", "--renderer", renderer),
                *("--clips", 24, "--jobs", jobs, "--save", path, "--set", f"inference.models={models}"),
            )
        _run("tools.spotter.calibrate", *answers.values(), "--models", models)
    for name in ("spotter.tflite", "manifest.toml"):
        shutil.copy(models / name, options.models / name)
    print(f"{options.models}: the new spotter is in place, with its {KEY}")


def _run(module: str, *words: object) -> None:
    _side_by_side([[module, *words]])


def _side_by_side(commands: list[list[object]]) -> None:
    """Run commands at the same time; stop all at the first that fails."""
    running = [
        subprocess.Popen([sys.executable, "-m", *(str(word) for word in command)]) for command in commands
    ]
    try:
        failed = [command[0] for command, process in zip(commands, running, strict=True) if process.wait()]
    finally:
        for process in running:
            process.terminate()
    if failed:
        sys.exit(f"make: {failed[0]} failed; what is done is kept, and the same command goes on")


if __name__ == "__main__":
    main()
