"""Print how far each facial region lies in front of the eye corners, in IOD, on the neutral ICT head.

python -m tools.simulate.depth ict_expressions.npz
"""

import sys
from pathlib import Path

import numpy as np

from edge.records import LANDMARKS
from edge.regions import REGIONS
from tools.simulate.ict import load


def main() -> None:
    """Look up the foremost skin near each region's centre."""
    model = load(Path(sys.argv[1]))
    points = model.neutral[model.landmark_vertices] / model.iod_cm
    skin = model.neutral / model.iod_cm
    corners = points[[LANDMARKS.index("right_eye_outer"), LANDMARKS.index("left_eye_outer")], 2].mean()
    for region in REGIONS:
        centre = points[[LANDMARKS.index(name) for name in region.landmarks], :2].mean(axis=0)
        centre = centre + np.array([region.shift_iod[0], -region.shift_iod[1]])
        near = np.linalg.norm(skin[:, :2] - centre, axis=1) < 0.06
        print(f"{region.name:20s} {np.percentile(skin[near, 2], 95) - corners:6.2f}")


if __name__ == "__main__":
    main()
