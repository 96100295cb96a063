"""The public-domain portrait that ships in matplotlib's wheel, for `demo` and for tests."""

import importlib.util
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.errors import SourceError


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
