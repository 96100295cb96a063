"""Measure what the whole path costs per frame, beside one MobileNet-V2 int8 inference in the same run.

    python -m tools.cost --yardstick mobilenet.tflite [--frames 3000] [--set section.key=value]
    python -m tools.cost --make-yardstick mobilenet.tflite        (needs the `train` extra)

The yardstick is MobileNet-V2 1.0 at 224 px (301 MMAC) with random weights, quantised to int8, on one thread of
LiteRT. Frames are the animated portrait, 640x480 at 200 Hz with a face of 220 px, rendered beforehand; path and
yardstick take turns in blocks, and each block's CPU time counts, so other work on the machine hardly shows.
"""

import argparse
import platform
import statistics
import time
from pathlib import Path

import cv2
import numpy as np

from edge.config import load
from edge.frames.portrait import load_portrait, portrait_landmarks
from edge.frames.synthetic import SyntheticSource
from edge.inference.cpu import CpuModel
from edge.inference.models import load_models
from edge.pipeline import Pipeline
from edge.records import Frame

_BLOCK = 200


def main() -> None:
    """Print medians over the blocks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--yardstick", type=Path)
    parser.add_argument("--make-yardstick", type=Path)
    parser.add_argument("--frames", type=int, default=3000)
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value")
    options = parser.parse_args()
    if options.make_yardstick:
        options.make_yardstick.write_bytes(_make_yardstick())
        return
    if not options.yardstick:
        parser.error("--yardstick: name the file that --make-yardstick wrote")
    cv2.setNumThreads(1)
    yardstick = CpuModel(options.yardstick.read_bytes(), name="yardstick", sha256="", engine="litert")
    image = np.random.default_rng(0).integers(-128, 127, yardstick.input.shape, np.int8)
    config = load(None, options.set)
    pipeline = Pipeline(config, load_models(config))
    source = SyntheticSource(
        load_portrait(),
        portrait_landmarks(),
        seconds=options.frames / 200,
        rate_hz=200.0,
        seed=1,
        face_px=220,
    )
    path_ms: list[float] = []
    wall_ms: list[float] = []
    yardstick_ms: list[float] = []
    block: list[Frame] = []
    for frame in source.frames():
        block.append(Frame(frame.luma.copy(), frame.timestamp_ns, frame.sequence))
        if len(block) < _BLOCK:
            continue
        cpu, wall = time.process_time(), time.perf_counter()
        for item in block:
            pipeline.feed(item)
        path_ms.append((time.process_time() - cpu) * 1000 / _BLOCK)
        wall_ms.append((time.perf_counter() - wall) * 1000 / _BLOCK)
        cpu = time.process_time()
        for _ in range(20):
            yardstick.run(image)
        yardstick_ms.append((time.process_time() - cpu) * 1000 / 20)
        block = []
    path, unit = statistics.median(path_ms), statistics.median(yardstick_ms)
    print(
        f"machine            {platform.processor() or platform.machine()}, Python {platform.python_version()}"
    )
    print(f"frames             {len(path_ms) * _BLOCK}, {pipeline.statistics.events} events")
    print(f"path, CPU          {path:.3f} ms per frame (median of {len(path_ms)} blocks)")
    print(f"path, wall         {statistics.median(wall_ms):.3f} ms per frame")
    print(f"yardstick, CPU     {unit:.3f} ms per inference")
    print(f"path / yardstick   {path / unit:.3f}")


def _make_yardstick() -> bytes:
    import tensorflow as tf

    from tools.int8 import convert

    tf.keras.utils.set_random_seed(0)
    net = tf.keras.applications.MobileNetV2(
        weights=None, input_tensor=tf.keras.Input((224, 224, 3), batch_size=1)
    )
    generator = np.random.default_rng(0)
    return convert(net, (generator.random((1, 224, 224, 3), np.float32) * 2 - 1 for _ in range(20)))


if __name__ == "__main__":
    main()
