"""Make the int8 file from a training run's last checkpoint: `python -m tools.faces.export detector RUN OUT.tflite`.

Training writes its file at the end; this one serves a run that is still going or was stopped.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import numpy as np

from tools.faces import train_detector, train_landmarks
from tools.faces.nets import detector_net, landmark_net
from tools.faces.quantise import quantise


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=("detector", "landmark"))
    parser.add_argument("run", type=Path, help="folder that training wrote to")
    parser.add_argument("out", type=Path, help="the .tflite file; a .keras file is written beside it")
    parser.add_argument("--calibration", type=Path, help="samples to calibrate on; by default the run's own")
    options = parser.parse_args()
    with np.load(options.calibration or options.run / "train.npz") as table:
        calibration = table["pictures"][:400]
    if options.kind == "detector":
        build, join = detector_net, train_detector.trainable
    else:
        build, join = partial(landmark_net, train_landmarks.POINTS), train_landmarks.trainable
    net = build()
    join(net).load_weights(options.run / "latest.weights.h5")
    net.save(options.out.with_suffix(".keras"))
    quantise(build, net, calibration, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
