"""Contact sheets to look at: each emotion and each confuser of the simulator on a few people.

    python -m tools.simulate.sheet --photos DIR --labels NPZ --model NPZ --out DIR [--split train] [--people 3]

writes `<photo>.png` for each person: a row for every emotion and every confuser with the face before, half-way
and at the apex, and ten times the difference between the apex and before. Noise is left out, the camera's
movement and the light are kept; the head is held still, except by what the row is about.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.records import EMOTIONS
from tools.simulate.confusers import CONFUSERS
from tools.simulate.expressions import expression, scaled
from tools.simulate.film import Film
from tools.simulate.people import People, add_arguments
from tools.simulate.rig import Rig
from tools.simulate.sensor import Conditions
from tools.simulate.timeline import Scene

_RATE_HZ = 200.0
_START_S = 0.3
_CAPTION_PX = 18
_GAIN = 10


@dataclass(frozen=True, slots=True)
class Row:
    """What one row shows."""

    caption: str
    before: NDArray[np.uint8]
    halfway: NDArray[np.uint8]
    apex: NDArray[np.uint8]

    def drawn(self) -> NDArray[np.uint8]:
        """Give the row as a picture, caption above."""
        change = self.apex.astype(np.int16) - self.before
        difference = np.clip(128 + _GAIN * change, 0, 255).astype(np.uint8)
        strip = np.hstack([self.before, self.halfway, self.apex, difference])
        head = np.full((_CAPTION_PX, strip.shape[1]), 255, np.uint8)
        cv2.putText(head, self.caption, (4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, 0, 1, cv2.LINE_AA)
        return np.vstack([head, strip])


def emotion_row(rig: Rig, emotion: str, peak_iod: float, rng: np.random.Generator, iod_px: float) -> Row:
    """Show one of an emotion's expressions at `peak_iod`."""
    scene = Scene.of(rig, rng, 1.0)
    weights, units = expression(scene, emotion)
    scene.play(scene.pulse(_START_S, _START_S + 0.1, _START_S + 0.2), scaled(scene, weights, peak_iod))
    named = " ".join(au if side == "both" else f"{au} {side}" for au, side in units)
    return _filmed(scene, f"{emotion}: {named}, {100 * peak_iod:.1f} % IOD", _START_S, _START_S + 0.1, iod_px)


def confuser_row(rig: Rig, kind: str, rng: np.random.Generator, iod_px: float) -> Row:
    """Show one event of a kind, at its stated apex or wherever the face has changed most."""
    scene = Scene.of(rig, rng, 4.0)
    CONFUSERS[kind](scene, _START_S)
    np.clip(scene.script.weights, 0, 1.3, out=scene.script.weights)
    planted = scene.script.planted[0]
    moved = np.abs(scene.script.curves - scene.script.curves[0]).sum(axis=1)
    apex_s = float(scene.script.times_s[np.argmax(moved)])
    length_ms = 1000 * (planted.offset_s - planted.onset_s)
    return _filmed(scene, f"{kind} of {length_ms:.0f} ms", planted.onset_s, apex_s, iod_px)


def _filmed(scene: Scene, caption: str, onset_s: float, apex_s: float, iod_px: float) -> Row:
    side = int(2.6 * iod_px) // 2 * 2
    film = Film(
        scene.rig,
        scene.script,
        Conditions(iod_px=iod_px, exposure_share=0.2),
        rate_hz=_RATE_HZ,
        size=(side, side),
        rng=np.random.default_rng(0),
    )
    wanted = [round(_RATE_HZ * time_s) for time_s in (onset_s - 0.05, (onset_s + apex_s) / 2, apex_s)]
    lost = np.ones(film.frames, bool)
    lost[wanted] = False
    shots = {shot.number: shot.luma for shot in film.shots(lost)}
    return Row(caption, *(shots[number] for number in wanted))


def sheet(rig: Rig, *, seed: int, iod_px: float, peak_iod: float) -> NDArray[np.uint8]:
    """Give all rows in two columns, emotions first."""
    rows = [
        emotion_row(rig, emotion, peak_iod, np.random.default_rng([seed, number]), iod_px)
        for number, emotion in enumerate(EMOTIONS)
    ]
    rows += [
        confuser_row(rig, kind, np.random.default_rng([seed, 50 + number]), iod_px)
        for number, kind in enumerate(CONFUSERS)
    ]
    drawn = [row.drawn() for row in rows]
    if len(drawn) % 2:
        drawn.append(np.full_like(drawn[0], 255))
    half = len(drawn) // 2
    return np.hstack([np.vstack(drawn[:half]), np.vstack(drawn[half:])])


def main() -> None:
    """Write the sheets."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", choices=("train", "validation", "test"), default="train")
    parser.add_argument("--people", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iod", type=float, default=90.0, help="size of the faces, px from eye to eye")
    parser.add_argument("--peak", type=float, default=2.0, help="peak of the emotions, %% of IOD")
    options = parser.parse_args()
    people = People.read(options.photos, options.labels, options.model, options.split)
    options.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(options.seed)
    for photo in rng.choice(len(people.photos), options.people, replace=False):
        picture = sheet(
            people.rig(int(photo)),
            seed=options.seed + int(photo),
            iod_px=options.iod,
            peak_iod=options.peak / 100,
        )
        path = options.out / f"{people.photos[int(photo)].id.replace('/', '_')}.png"
        cv2.imwrite(str(path), picture)
        print(path)


if __name__ == "__main__":
    main()
