"""Make training material for the spotter: simulated faces, measured by the device's own motion stage.

    python -m tools.simulate.signals --photos DIR --labels NPZ --model NPZ --split train --clips 600 --out DIR

Each clip renders the face as a sensor would see it, aligns it as the tracker would, and stores what
`edge.motion` measures, with the truth. Nothing of the pictures is stored. Clips that exist are kept, so an
interrupted run goes on where it stopped; `--part 0/2` shares the work between processes.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.motion import RegionalMotion
from tools.simulate.film import Film
from tools.simulate.people import People, add_arguments
from tools.simulate.rig import Rig
from tools.simulate.script import Mix, Script, Writer
from tools.simulate.sensor import Alignment, Conditions

RATES_HZ = (200, 120, 90, 150, 250, 300, 60, 30, 25)
RATE_SHARES = (0.40, 0.13, 0.11, 0.09, 0.07, 0.05, 0.07, 0.05, 0.03)
VIEW_IOD = 2.3
"""Side of the square that is rendered: what the aligned crop shows, and room for the head to move."""


def main() -> None:
    """Write `clip_<number>.npz` files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
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
        take = Take.draw(rig, number, options.seconds, rng)
        times, values = measure(rig, take.script, take.conditions, take.rate_hz, take.lost, rng)
        take.store(path, times, values, people.photos[photo].subject)


@dataclass(frozen=True, slots=True)
class Take:
    """What is filmed, and how."""

    rate_hz: float
    script: Script
    conditions: Conditions
    lost: NDArray[np.bool_]
    """(frames,)"""

    @classmethod
    def draw(cls, rig: Rig, number: int, seconds: float, rng: np.random.Generator) -> "Take":
        """Draw clip `number`."""
        rate_hz = float(rng.choice(RATES_HZ, p=RATE_SHARES))
        script = Writer(rig, np.random.default_rng([number, 1]), Mix()).write(seconds)
        conditions = Conditions.draw(rng)
        return cls(rate_hz, script, conditions, draw_losses(rng, int(seconds * rate_hz)))

    def store(self, path: Path, times_s: np.ndarray, values: np.ndarray, subject: str) -> None:
        """Write what was measured with its truth, under its final name only when it is whole."""
        partial = path.with_suffix(".part.npz")
        np.savez(
            partial,
            times_s=times_s,
            values=values.astype(np.float16),
            rate_hz=self.rate_hz,
            truth=json.dumps([asdict(planted) for planted in self.script.planted]),
            subject=subject,
            conditions=json.dumps(asdict(self.conditions) | {"lost": int(self.lost.sum())}),
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
    side = int(VIEW_IOD * conditions.iod_px) // 2 * 2
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
