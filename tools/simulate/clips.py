"""Rendered clips with planted truth, as a frame source or as video files.

    python -m tools.simulate.clips --photos DIR --labels NPZ --model NPZ --split test --clips 4 --out DIR

writes `NN.mkv` (H.264 of quality --crf, or lossless with --lossless) and `NN.json`, the truth, for
`microedge replay`.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np

from edge.records import Frame
from tools.simulate.film import Film
from tools.simulate.people import People, add_arguments
from tools.simulate.rig import Rig
from tools.simulate.script import Mix, Planted, Writer
from tools.simulate.sensor import Conditions


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
        self.size, self.rate_hz = size, rate_hz
        script = Writer(rig, np.random.default_rng([seed, 1]), mix).write(seconds)
        self.truth: list[Planted] = script.planted
        self._film = partial(
            Film, rig, script, conditions, rate_hz=rate_hz, size=size, rng=np.random.default_rng([seed, 2])
        )

    def frames(self) -> Iterator[Frame]:
        """Yield the frames; the same seed gives the same ones."""
        for shot in self._film().shots():
            yield Frame(shot.luma, round(shot.number * 1e9 / self.rate_hz), shot.number)


def main() -> None:
    """Write clips as video files with their truth."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", choices=("train", "validation", "test"), default="test")
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--crf", type=int, default=18, help="quality of H.264: 18 good, 30 blocky")
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
            conditions=replace(Conditions.draw(rng), crf=0),  # the file itself is compressed
            seed=number,
        )
        write_video(clip, options.out / f"{number:02d}.mkv", crf=None if options.lossless else options.crf)
        truth = [asdict(planted) for planted in clip.truth]
        (options.out / f"{number:02d}.json").write_text(json.dumps(truth, indent=1))


def write_video(clip: RenderedClip, path: Path, *, crf: int | None) -> None:
    """Encode a clip: H.264 at the given constant rate factor, or FFV1 for None."""
    rate = Fraction(clip.rate_hz).limit_denominator(1001)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1" if crf is None else "libx264", rate=rate)
        stream.width, stream.height = clip.size
        stream.pix_fmt = "gray" if crf is None else "yuv420p"
        if crf is not None:
            stream.options = {"crf": str(crf), "preset": "veryfast"}
        stream.time_base = 1 / rate
        for frame in clip.frames():
            picture = av.VideoFrame.from_ndarray(frame.luma, format="gray").reformat(format=stream.pix_fmt)
            picture.pts = frame.sequence
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


if __name__ == "__main__":
    main()
