"""Make training material for the spotter: simulated faces, measured by the device's own motion stage.

    python -m tools.simulate.signals --photos DIR --labels NPZ --model NPZ --split train --clips 600 --out DIR

Each clip renders the face as a sensor would see it, aligns it as the tracker would, and stores what
`edge.motion` measures, with the truth. Nothing of the pictures is stored. Clips that exist are kept, so an
interrupted run goes on where it stopped; `--part 0/2` shares the work between processes.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.motion import RegionalMotion
from tools.simulate.film import Film
from tools.simulate.people import People
from tools.simulate.rig import Rig
from tools.simulate.script import Mix, Script, Writer
from tools.simulate.sensor import Alignment, Conditions

_RATES_HZ = (200, 120, 90, 150, 250, 300, 60, 30, 25)
_SHARES = (0.40, 0.13, 0.11, 0.09, 0.07, 0.05, 0.07, 0.05, 0.03)
_VIEW_IOD = 2.3
"""Side of the square that is rendered: what the aligned crop shows, and room for the head to move."""


def main() -> None:
    """Write `clip_<number>.npz` files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True, help="written by tools.faces.teacher")
    parser.add_argument("--model", type=Path, required=True, help="ict_expressions.npz")
    parser.add_argument("--split", choices=("train", "validation", "test"), default="train")
    parser.add_argument("--clips", type=int, default=600)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    cv2.setNumThreads(1)  # the work is shared by --part; a frame is too small to be
    people = People.read(options.photos, options.labels, options.model, options.split)
    options.out.mkdir(parents=True, exist_ok=True)
    part, parts = map(int, options.part.split("/"))
    for number in range(part, options.clips, parts):
        path = options.out / f"clip_{number:05d}.npz"
        if path.exists():
            continue
        rng = np.random.default_rng([number, len(options.split)])
        photo = int(rng.integers(len(people.photos)))
        rig = people.rig(photo)
        rate = float(rng.choice(_RATES_HZ, p=_SHARES))
        script = Writer(rig, np.random.default_rng([number, 1]), Mix()).write(options.seconds)
        conditions = Conditions.draw(rng)
        lost = draw_losses(rng, int(options.seconds * rate))
        times, values = measure(rig, script, conditions, rate, lost, rng)
        truth = json.dumps([asdict(planted) for planted in script.planted])
        partial = path.with_suffix(".part.npz")
        np.savez(
            partial,
            times_s=times,
            values=values.astype(np.float16),
            rate_hz=rate,
            truth=truth,
            subject=people.photos[photo].subject,
            conditions=json.dumps(asdict(conditions) | {"lost": int(lost.sum())}),
        )
        partial.rename(path)


def draw_losses(rng: np.random.Generator, frames: int) -> NDArray[np.bool_]:
    """Give which frames are lost: in most clips none, in others single ones, or a few bursts of 3-10."""
    lost = rng.random(frames) < rng.choice([0.0, 0.004, 0.02], p=[0.65, 0.25, 0.10])
    if rng.random() < 0.15:
        for start in rng.integers(0, frames, rng.integers(1, 4)):
            lost[start : start + rng.integers(3, 11)] = True
    return lost


def measure(
    rig: Rig,
    script: Script,
    conditions: Conditions,
    rate_hz: float,
    lost: NDArray[np.bool_],
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Render, expose, align and measure a script.

    Returns:
        The frames' times (frames - 1,) s and the motion channels (frames - 1, C) of edge.motion.
    """
    side = int(_VIEW_IOD * conditions.iod_px) // 2 * 2
    film = Film(rig, script, conditions, rate_hz=rate_hz, size=(side, side), rng=rng)
    alignment, motion = Alignment(rng), RegionalMotion()
    times, values = [], []
    for shot in film.shots(lost):
        measured = motion.measure(
            alignment.align(shot.luma, shot.landmarks, shot.time_s), int(shot.time_s * 1e9)
        )
        if measured is not None:
            times.append(shot.time_s)
            values.append(measured.values)
    return np.array(times), np.array(values)


if __name__ == "__main__":
    main()
