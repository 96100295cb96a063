"""The public-domain portrait that ships in matplotlib's wheel: still, with its landmarks, and animated."""

import importlib.util
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.errors import SourceError
from edge.frames.synthetic import SyntheticSource
from edge.settings import Camera

_LANDMARKS = (
    (179.5, 173.4), (191.5, 168.6), (203.7, 163.9), (220.9, 162.9), (241.5, 163.5), (283.7, 161.4),
    (303.9, 158.9), (320.6, 158.4), (332.8, 161.9), (344.9, 164.5), (263.8, 184.7), (265.1, 204.7),
    (266.3, 224.3), (267.1, 236.5), (247.3, 247.2), (255.8, 251.9), (267.6, 251.8), (279.2, 250.6),
    (287.1, 244.9), (201.1, 193.7), (209.7, 188.8), (224.2, 186.9), (239.5, 192.7), (227.6, 195.9),
    (213.4, 196.9), (287.9, 190.0), (302.4, 182.5), (317.0, 182.8), (325.9, 186.8), (314.2, 191.2),
    (300.0, 191.9), (231.8, 276.8), (245.8, 270.6), (256.9, 268.5), (268.0, 269.5), (279.0, 267.4),
    (290.1, 268.5), (304.2, 273.4), (288.3, 283.6), (279.1, 286.7), (268.6, 288.0), (258.1, 287.8),
    (248.6, 285.7), (236.2, 275.7), (260.0, 276.3), (268.2, 276.4), (276.3, 275.5), (299.5, 272.7),
    (276.8, 276.0), (268.1, 276.7), (259.4, 276.8), (271.1, 332.6), (192.6, 288.1), (343.2, 279.6),
    (170.8, 200.9), (355.5, 190.3),
)  # fmt: skip
"""Marked with the mesh model that labels our training photos, rounded to 0.1 px; the file is 512x600 px."""


def load_portrait() -> NDArray[np.uint8]:
    """Give the portrait of Rear Admiral Grace Hopper (US Navy, public domain) as (rows, columns) luma.

    Raises:
        SourceError: matplotlib, which carries the picture, is not installed or has no such file.
    """
    # The spec alone says where the package lies; importing matplotlib would take a second.
    package = importlib.util.find_spec("matplotlib")
    if package is None or package.origin is None:
        raise SourceError(
            "the demo portrait ships in matplotlib, which is absent: pip install 'microedge[demo]'"
        )
    path = Path(package.origin).parent / "mpl-data" / "sample_data" / "grace_hopper.jpg"
    luma = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if luma is None:
        raise SourceError(f"{path}: the demo portrait is missing from this matplotlib")
    return np.asarray(luma, np.uint8)


def portrait_landmarks() -> NDArray[np.float32]:
    """Give the portrait's (56, 2) float32 landmarks, px, in the order of `edge.records.LANDMARKS`."""
    return np.array(_LANDMARKS, np.float32)


def moving_portrait(
    camera: Camera, *, seconds: float, seed: int = 0, start_time_ns: int = 0
) -> SyntheticSource:
    """Give the animated portrait as `camera` would see it, its face 220 px wide where the frame allows.

    Raises:
        SourceError: as `load_portrait`.
    """
    return SyntheticSource(
        load_portrait(), portrait_landmarks(), rate_hz=camera.rate_hz, size=(camera.width, camera.height),
        seconds=seconds, seed=seed, face_px=220.0, start_time_ns=start_time_ns,
    )  # fmt: skip
