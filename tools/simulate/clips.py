"""Rendered clips with planted truth, as a frame source or as video files.

    python -m tools.simulate.clips --photos DIR --labels NPZ --model NPZ --split test --clips 4 --out DIR

writes `NN.mkv` (H.264, or lossless with --lossless) and `NN.json`, the truth, for `microedge replay`.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from edge.records import Frame
from tools.simulate.people import People
from tools.simulate.rig import Rig
from tools.simulate.script import Mix, Planted, Script, Writer
from tools.simulate.sensor import Conditions, Sensor


class RenderedClip:
    """One person's clip, rendered frame by frame.

    Attributes:
        truth: what is planted, in order of onset.
    """

    def __init__(
        self,
        rig: Rig,
        *,
        seconds: float,
        rate_hz: float,
        mix: Mix,
        conditions: Conditions,
        seed: int,
        size: tuple[int, int] = (640, 480),
    ) -> None:
        self._rig, self._conditions, self.size, self._seed = rig, conditions, size, seed
        self.rate_hz = rate_hz
        self._script: Script = Writer(rig, np.random.default_rng([seed, 1]), mix).write(seconds, rate_hz)
        self.truth: list[Planted] = self._script.planted

    def frames(self) -> Iterator[Frame]:
        """Yield the frames; the same seed gives the same ones."""
        script, scale = self._script, self._conditions.iod_px / self._rig.iod_px
        points = scale * self._rig.landmarks(script.weights[0], script.poses[0])
        width, height = self.size
        corner = points.mean(axis=0) - np.array([width / 2, height / 2])
        camera = np.array([[scale, 0, -corner[0]], [0, scale, -corner[1]]], np.float32)
        background = cv2.warpAffine(
            self._rig.photo, camera, self.size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        side = int(3.3 * self._conditions.iod_px)
        left, top = max(0, (width - side) // 2), max(0, (height - side) // 2)
        box = np.s_[top : min(height, top + side), left : min(width, left + side)]
        inner = camera.copy()
        inner[:, 2] -= (left, top)
        sensor = Sensor(self._conditions, np.random.default_rng([self._seed, 2]))
        for number, time_s in enumerate(script.times_s):
            clean = background.copy()
            clean[box] = self._rig.render(
                script.weights[number],
                script.poses[number],
                tuple(script.gaze_iod[number]),
                inner,
                (clean[box].shape[1], clean[box].shape[0]),
            )
            luma = sensor.expose(clean, float(script.light[number]), float(time_s))
            yield Frame(luma, round(number * 1e9 / self.rate_hz), number)


def main() -> None:
    """Write clips as video files with their truth."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("photos", "labels", "model", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--split", choices=("train", "validation", "test"), default="test")
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--lossless", action="store_true")
    options = parser.parse_args()
    people = People.read(options.photos, options.labels, options.model, options.split)
    options.out.mkdir(parents=True, exist_ok=True)
    for number in range(options.clips):
        rng = np.random.default_rng([number, 77])
        clip = RenderedClip(
            people.rig(int(rng.integers(len(people.photos)))),
            seconds=options.seconds,
            rate_hz=options.rate,
            mix=Mix(),
            conditions=Conditions.draw(rng),
            seed=number,
        )
        write_video(clip, options.out / f"{number:02d}.mkv", lossless=options.lossless)
        truth = [asdict(planted) for planted in clip.truth]
        (options.out / f"{number:02d}.json").write_text(json.dumps(truth, indent=1))


def write_video(clip: RenderedClip, path: Path, *, lossless: bool) -> None:
    """Encode a clip: H.264 at visually good quality, or FFV1."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1" if lossless else "libx264", rate=int(clip.rate_hz))
        stream.width, stream.height = clip.size
        stream.pix_fmt = "gray" if lossless else "yuv420p"
        if not lossless:
            stream.options = {"crf": "18", "preset": "veryfast"}
        stream.time_base = Fraction(1, int(clip.rate_hz))
        for frame in clip.frames():
            picture = av.VideoFrame.from_ndarray(frame.luma, format="gray").reformat(format=stream.pix_fmt)
            picture.pts = frame.sequence
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


if __name__ == "__main__":
    main()
