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

import numpy as np

from edge.motion import RegionalMotion
from tools.simulate.people import People
from tools.simulate.rig import Rig
from tools.simulate.script import Mix, Script, Writer
from tools.simulate.sensor import Alignment, Conditions, Sensor

_RATES_HZ = (200, 200, 200, 200, 120, 90, 150, 250, 60, 30, 30)


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
        rate = float(rng.choice(_RATES_HZ))
        script = Writer(rig, rng, Mix()).write(options.seconds, rate)
        times, values = measure(rig, script, Conditions.draw(rng), rng)
        truth = json.dumps([asdict(planted) for planted in script.planted])
        partial = path.with_suffix(".part.npz")
        np.savez(
            partial,
            times_s=times,
            values=values.astype(np.float16),
            rate_hz=rate,
            truth=truth,
            subject=people.photos[photo].subject,
        )
        partial.rename(path)


def measure(
    rig: Rig, script: Script, conditions: Conditions, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Render, expose, align and measure a script.

    Returns:
        The frames' times (frames - 1,) s and the motion channels (frames - 1, C) of edge.motion.
    """
    scale = conditions.iod_px / rig.iod_px
    points = rig.landmarks(script.weights[0], script.poses[0])
    side = int(2.3 * conditions.iod_px)
    corner = scale * points.mean(axis=0) - side / 2
    camera = np.array([[scale, 0, -corner[0]], [0, scale, -corner[1]]], np.float32)
    sensor, alignment, motion = Sensor(conditions, rng), Alignment(rng), RegionalMotion()
    drops = rng.random(len(script.times_s)) < rng.choice([0.0, 0.0, 0.004])
    times, values = [], []
    for number, time_s in enumerate(script.times_s):
        if drops[number]:
            continue
        weights, pose = script.weights[number], script.poses[number]
        clean = rig.render(weights, pose, tuple(script.gaze_iod[number]), camera, (side, side))
        frame = sensor.expose(clean, float(script.light[number]), float(time_s))
        landmarks = rig.landmarks(weights, pose) @ camera[:, :2].T + camera[:, 2]
        measured = motion.measure(alignment.align(frame, landmarks, float(time_s)), int(time_s * 1e9))
        if measured is not None:
            times.append(float(time_s))
            values.append(measured.values)
    return np.array(times), np.array(values)


if __name__ == "__main__":
    main()
