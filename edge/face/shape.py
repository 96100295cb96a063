"""The mean face, and fitting it to landmarks.

The face's own frame has its origin midway between the outer eye corners, x towards the subject's left, y
down, IOD = 1. A similarity takes it to an image: (2, 3) float64, `image = matrix @ (x, y, 1)`.
"""

import math

import numpy as np
from numpy.typing import NDArray

from edge.records import LANDMARKS

_ROWS = (
    (-0.6706, -0.1947), (-0.5582, -0.2135), (-0.4517, -0.2458), (-0.3147, -0.2396), (-0.1595, -0.2229),
    (0.1595, -0.2229), (0.3147, -0.2396), (0.4517, -0.2458), (0.5582, -0.2135), (0.6706, -0.1947),
    (0.0, -0.0404), (0.0, 0.1235), (0.0, 0.2773), (0.0, 0.3740),
    (-0.1521, 0.4633), (-0.0887, 0.5080), (0.0, 0.5116), (0.0887, 0.5080), (0.1521, 0.4633),
    (-0.5, 0.0), (-0.4250, -0.0416), (-0.3080, -0.0483), (-0.1921, 0.0179), (-0.2899, 0.0386),
    (-0.4050, 0.0373),
    (0.1921, 0.0179), (0.3080, -0.0483), (0.4250, -0.0416), (0.5, 0.0), (0.4050, 0.0373), (0.2899, 0.0386),
    (-0.3140, 0.7192), (-0.1856, 0.6632), (-0.0920, 0.6494), (0.0, 0.6622), (0.0920, 0.6494),
    (0.1856, 0.6632),
    (0.3140, 0.7192), (0.1719, 0.8453), (0.0920, 0.8756), (0.0, 0.8840), (-0.0920, 0.8756), (-0.1719, 0.8453),
    (-0.2729, 0.7176), (-0.0732, 0.7187), (0.0, 0.7226), (0.0732, 0.7187), (0.2729, 0.7176), (0.0762, 0.7773),
    (0.0, 0.7818), (-0.0762, 0.7773), (0.0, 1.2266), (-0.6049, 0.8462), (0.6049, 0.8462), (-0.7597, 0.0481),
    (0.7597, 0.0481),
)  # fmt: skip
MEAN_SHAPE: NDArray[np.float64] = np.array(_ROWS)
"""(56, 2), IOD, face frame: mean over the 1,744 training photos, made symmetric."""

CENTRE_BELOW_EYES_IOD = 0.339
"""How far the mean of the landmarks lies below the eyes (training photos; sd 0.03)."""
SIDE_IOD = 1.536
"""Side of the square around the landmarks (training photos, median; sd 0.06)."""
WIDTH_IOD = 1.519
"""Temple to temple in the mean shape."""

_RIGID = {
    "right_eye_outer": 1.0, "left_eye_outer": 1.0, "right_eye_inner": 1.0, "left_eye_inner": 1.0,
    "nose_bridge_top": 0.8, "nose_bridge_upper": 0.6, "nose_bridge_lower": 0.3,
    "nose_base": 0.25, "right_nose_wing": 0.15, "left_nose_wing": 0.15,
    "right_temple": 0.2, "left_temple": 0.2,
}  # fmt: skip
"""How much each point counts in placing the head: blinks, brows and speech barely move these (FACS: AU9 alone
lifts the nose wings, AU6 the outer corners a little). Noses and temples count less, for they differ between
people."""
WEIGHTS: NDArray[np.float64] = np.array([_RIGID.get(name, 0.0) for name in LANDMARKS])


_SHARE = WEIGHTS / WEIGHTS.sum()
_SHAPE_MEAN = complex(*(_SHARE @ MEAN_SHAPE))
_SHAPE = MEAN_SHAPE[:, 0] + 1j * MEAN_SHAPE[:, 1] - _SHAPE_MEAN
_FIT = np.stack([_SHARE * _SHAPE.conj() / (_SHARE @ (abs(_SHAPE) ** 2)), _SHARE + 0j])
"""(2, 56) complex: what landmarks are multiplied with to give size and turn of the face, and its middle."""


def fit_pose(landmarks: NDArray[np.float32]) -> NDArray[np.float64]:
    """Fit the mean shape to landmarks by least squares, weighted by `WEIGHTS`.

    Args:
        landmarks: (56, 2), px.

    Returns:
        (4,) float64: x, y of the point between the eyes, px; ln(IOD / px); roll, radians (positive
        clockwise).

    Source: Umeyama 1991, least-squares estimation of transformation parameters (closed form in the plane, where
    points are complex numbers).
    """
    turn, middle = (_FIT @ landmarks.astype(np.float64).view(np.complex128)[:, 0]).tolist()
    origin = middle - turn * _SHAPE_MEAN
    return np.array(
        [origin.real, origin.imag, math.log(max(abs(turn), 1e-6)), math.atan2(turn.imag, turn.real)]
    )


def image_from_face(pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the (2, 3) similarity of a pose as `fit_pose` gives it."""
    x, y, log_iod, roll = pose.tolist()
    iod = math.exp(log_iod)
    along, across = iod * math.cos(roll), iod * math.sin(roll)
    return np.array([[along, -across, x], [across, along, y]])


def compose(outer: NDArray[np.float64], inner: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the (2, 3) similarity that does `inner` first, then `outer`."""
    result = outer[:, :2] @ inner
    result[:, 2] += outer[:, 2]
    return result


def invert(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the inverse of a (2, 3) similarity."""
    along, across = matrix[0, 0], matrix[1, 0]
    size = along * along + across * across
    back = np.array([[along, across], [-across, along]]) / size
    return np.hstack([back, -back @ matrix[:, 2:]])


def apply(matrix: NDArray[np.float64], points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Move (N, 2) points by a (2, 3) similarity; gives float32."""
    moved: NDArray[np.float32] = (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    return moved
