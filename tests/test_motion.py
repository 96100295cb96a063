"""Regional motion: known displacements come back, head motion and light do not."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge.frames.portrait import load_portrait, portrait_landmarks
from edge.motion import RegionalMotion
from edge.records import CROP_EYES_PX, CROP_IOD_PX, CROP_SIZE, LANDMARKS, TrackedFace
from edge.regions import CHANNELS, REGIONS

PERIOD_NS = 5_000_000
RIGHT_EYE, LEFT_EYE = LANDMARKS.index("right_eye_outer"), LANDMARKS.index("left_eye_outer")


@pytest.fixture(scope="module")
def portrait() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The portrait's aligned crop, float, with its landmarks."""
    points = portrait_landmarks()
    axis = points[LEFT_EYE] - points[RIGHT_EYE]
    scale, angle = CROP_IOD_PX / np.hypot(*axis), -np.arctan2(axis[1], axis[0])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shift = np.array(CROP_EYES_PX) - turn @ (points[LEFT_EYE] + points[RIGHT_EYE]) / 2
    matrix = np.column_stack([turn, shift]).astype(np.float32)
    luma = load_portrait().astype(np.float32)
    crop = cv2.warpAffine(luma, matrix, (CROP_SIZE, CROP_SIZE), flags=cv2.INTER_CUBIC)
    return crop, (points @ turn.T + shift).astype(np.float32)


def tracked(crop: NDArray[np.float32], landmarks: NDArray[np.float32]) -> TrackedFace:
    luma = np.clip(np.rint(crop), 0, 255).astype(np.uint8)
    return TrackedFace(1, landmarks, np.eye(2, 3, dtype=np.float32), luma, 64.0, 100.0, 1.0, 0)


def bump(
    centre: NDArray[np.float32], move: tuple[float, float], size: float
) -> tuple[NDArray[np.float32], ...]:
    """Maps for cv2.remap that move the skin around `centre` by `move` px."""
    y, x = np.mgrid[0:CROP_SIZE, 0:CROP_SIZE].astype(np.float32)
    weight = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * size**2))
    return x - move[0] * weight, y - move[1] * weight


def warped(crop: NDArray[np.float32], maps: tuple[NDArray[np.float32], ...]) -> NDArray[np.float32]:
    return np.asarray(cv2.remap(crop, *maps, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE))


def measure(
    crops: list[NDArray[np.float32]], landmarks: NDArray[np.float32], **options: float
) -> NDArray[np.float32]:
    """Motion values (crops - 1, C) of a sequence."""
    motion = RegionalMotion(**options)
    measured = [
        motion.measure(tracked(crop, landmarks), number * PERIOD_NS) for number, crop in enumerate(crops)
    ]
    assert measured[0] is None
    return np.array([m.values for m in measured[1:] if m is not None])


def skin(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Displacements (frames, R, 2) px of the crop."""
    return values[:, : 2 * len(REGIONS)].reshape(len(values), -1, 2) * CROP_IOD_PX


def test_equal_crops_give_exactly_zero(portrait):
    crop, landmarks = portrait
    values = measure([crop] * 130, landmarks, anchor_period_ms=100)
    assert np.all(skin(values) == 0)
    assert np.all(values[:, CHANNELS.index("light")] == 0)


@pytest.mark.parametrize("move", [(0.0, -0.4), (0.5, 0.0), (-0.3, -0.9)])
def test_a_local_movement_comes_back_where_it_was_made(portrait, move):
    crop, landmarks = portrait
    corner = landmarks[LANDMARKS.index("mouth_right")]
    values = measure([crop, warped(crop, bump(corner, move, 9.0))], landmarks)
    found = skin(values)[0]
    region = [region.name for region in REGIONS].index("right_lip_corner")
    # A Gaussian window of 4.8 px over a bump of 9 px sees about 0.8 of its height.
    assert found[region] == pytest.approx(0.8 * np.array(move), abs=0.15)
    far = [number for number, r in enumerate(REGIONS) if r.group == "brows"]
    assert np.abs(found[far]).max() < 0.1


def test_a_shift_and_turn_of_the_head_leaves_no_skin_motion(portrait):
    crop, landmarks = portrait
    matrix = cv2.getRotationMatrix2D((64, 64), 1.0, 1.01)
    matrix[:, 2] += (1.3, -0.8)
    moved = cv2.warpAffine(
        crop, matrix, (CROP_SIZE, CROP_SIZE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    values = measure([crop, moved], landmarks)
    assert np.median(np.abs(skin(values))) < 0.05
    assert values[0, CHANNELS.index("head.roll")] == pytest.approx(-np.radians(1.0), abs=0.003)


def test_an_exposure_step_is_light_and_not_motion(portrait):
    crop, landmarks = portrait
    values = measure([crop, 0.8 * crop + 10], landmarks)
    assert np.abs(skin(values)).max() < 0.1
    assert abs(values[0, CHANNELS.index("light")]) > 0.05


def test_an_event_keeps_its_shape_across_renewals_of_the_anchor(portrait):
    crop, landmarks = portrait
    corner = landmarks[LANDMARKS.index("mouth_left")]
    heights = np.concatenate([np.zeros(15), np.hanning(31), np.zeros(15)])
    crops = [warped(crop, bump(corner, (0.0, -1.0 * height), 9.0)) for height in heights]
    column = CHANNELS.index("left_lip_corner.y")
    once = measure(crops, landmarks, anchor_period_ms=5000)[:, column]
    often = measure(crops, landmarks, anchor_period_ms=100)[:, column]
    assert np.abs(often - once).max() * CROP_IOD_PX < 0.12
    assert abs(int(often.argmin()) - 29) <= 2


def test_blink_texture_rises_while_the_eye_is_closed(portrait):
    crop, landmarks = portrait
    closed = crop.copy()
    eye = landmarks[[index for index, name in enumerate(LANDMARKS) if name.startswith("right_eye")]].mean(
        axis=0
    )
    cv2.ellipse(closed, tuple(np.rint(eye).astype(int).tolist()), (14, 6), 0, 0, 360, float(crop.mean()), -1)
    values = measure([crop, closed, crop], landmarks)
    texture = values[:, CHANNELS.index("right_upper_lid.texture")]
    assert texture[0] > 0.3
    assert texture[0] > 3 * texture[1]
