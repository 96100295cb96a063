"""The training simulator: its truth is what its pictures show."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.frames.portrait import load_portrait, portrait_landmarks
from edge.motion import RegionalMotion
from edge.records import CROP_IOD_PX, LANDMARKS
from edge.regions import CHANNELS
from tools.simulate.rig import Pose, Rig
from tools.simulate.script import Mix, Writer, profile
from tools.simulate.sensor import Alignment, Conditions, Sensor

MODEL = (
    Path(os.environ.get("MICROEDGE_DATA", Path(__file__).resolve().parents[2] / "shared"))
    / "ict_facekit"
    / "ict_expressions.npz"
)
QUIET = Conditions(iod_px=100.0)


@pytest.fixture(scope="module")
def rig() -> Rig:
    if not MODEL.is_file():
        pytest.skip(f"no {MODEL}; set MICROEDGE_DATA")
    from tools.simulate import ict

    return Rig(ict.load(MODEL), load_portrait(), portrait_landmarks(), np.zeros(len(LANDMARKS), np.float32))


def weights(rig: Rig, **shapes: float) -> np.ndarray:
    values = np.zeros(len(rig.shapes), np.float32)
    for name, amount in shapes.items():
        for number, shape in enumerate(rig.shapes):
            if shape in (name, f"{name}_L", f"{name}_R"):
                values[number] = amount
    return values


def test_a_profile_is_zero_outside_one_at_the_apex_and_smooth_between():
    times = np.linspace(0, 1, 1001).astype(np.float32)
    curve = profile(times, 0.2, 0.35, 0.6)
    assert curve[times < 0.2].max() == 0
    assert curve[times > 0.6].max() == 0
    assert curve[350] == pytest.approx(1.0, abs=1e-3)
    assert np.abs(np.diff(curve)).max() < 0.02


def test_the_sensor_is_deterministic_and_its_noise_has_the_stated_size():
    clean = np.full((200, 200), 128, np.uint8)
    noisy = replace(QUIET, noise=3.0)
    first = Sensor(noisy, np.random.default_rng(1)).expose(clean, 1.0, 0.0)
    again = Sensor(noisy, np.random.default_rng(1)).expose(clean, 1.0, 0.0)
    assert np.array_equal(first, again)
    assert first.std() == pytest.approx(3.0, rel=0.05)


def test_a_neutral_rig_gives_the_photo_back(rig):
    identity = np.eye(2, 3, dtype=np.float32)
    height, width = rig.photo.shape
    frame = rig.render(weights(rig), Pose(), (0.0, 0.0), identity, (width, height))
    assert np.abs(frame.astype(int) - rig.photo).mean() < 1.0


def test_a_smile_moves_the_landmarks_up_and_out_as_stated(rig):
    smile = weights(rig, mouthSmile=1.0)
    smile *= 0.02 / rig.size_of(smile)
    moved = rig.landmarks(smile, Pose()) - rig.landmarks(weights(rig), Pose())
    right, left = (moved[LANDMARKS.index(f"mouth_{side}")] for side in ("right", "left"))
    assert right[1] < 0
    assert left[1] < 0
    assert left[0] > 0 > right[0]
    assert np.linalg.norm(moved, axis=1).max() / rig.iod_px == pytest.approx(0.02, rel=0.4)


def test_the_device_measures_the_movement_that_the_simulator_states(rig):
    raise_brows = weights(rig, browInnerUp=1.0, browOuterUp=1.0)
    raise_brows *= 0.015 / rig.size_of(raise_brows)
    scale = 100.0 / rig.iod_px
    points = rig.landmarks(weights(rig), Pose())
    corner = scale * points.mean(axis=0) - 130
    camera = np.array([[scale, 0, -corner[0]], [0, scale, -corner[1]]], np.float32)
    alignment, motion = Alignment(np.random.default_rng(0), jitter_iod=0.0, bias_iod=0.0), RegionalMotion()
    values = None
    for number, state in enumerate((weights(rig), weights(rig), raise_brows)):
        frame = rig.render(state, Pose(), (0.0, 0.0), camera, (260, 260))
        landmarks = rig.landmarks(state, Pose()) @ camera[:, :2].T + camera[:, 2]
        measured = motion.measure(alignment.align(frame, landmarks, number * 0.005), number * 5_000_000)
        values = measured.values if measured else None
    assert values is not None
    stated = (rig.landmarks(raise_brows, Pose()) - points)[LANDMARKS.index("right_brow_mid"), 1] / rig.iod_px
    found = values[CHANNELS.index("right_brow_mid.y")]
    # The window averages over skin that moves less, and the head-motion fit takes a share of so wide a movement.
    assert 0.4 < found / stated < 1.1
    assert abs(values[CHANNELS.index("right_lip_corner.y")]) * CROP_IOD_PX < 0.1


def test_a_script_keeps_to_its_mix_and_is_the_same_for_the_same_seed(rig):
    only_micro = Mix(micro=1.0, long_share=0.0, peak_iod=(0.01, 0.02))
    one, other = (Writer(rig, np.random.default_rng(5), only_micro).write(8.0) for _ in range(2))
    micro = [planted for planted in one.planted if planted.kind == "micro"]
    assert one.planted == other.planted
    assert np.array_equal(one.weights, other.weights)
    assert len(micro) >= 4
    assert all(0.04 <= p.offset_s - p.onset_s <= 0.2 and 0.01 <= p.peak_iod <= 0.02 for p in micro)
    assert all(p.onset_s < p.apex_s < p.offset_s for p in one.planted)
