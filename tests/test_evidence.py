"""The temporal net on the shipped model: its grid, its delay, and what it is fed."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.errors import ModelError
from edge.evidence import INPUTS, STEP_NS, WINDOW, Departure, Evidence, TemporalNet, encode
from edge.inference import Model
from edge.inference.manifest import load_model
from edge.records import Motion
from edge.regions import CHANNELS, REGIONS

MS = 1_000_000
SMILE = {
    "right_lip_corner.y": -0.014,
    "left_lip_corner.y": -0.014,
    "right_lip_corner.x": -0.01,
    "left_lip_corner.x": 0.01,
    "right_cheek.y": -0.006,
    "left_cheek.y": -0.006,
}


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("spotter")


def signal(seconds: float, rate_hz: float) -> list[Motion]:
    """A drifting, trembling face with one quick movement of a lip corner at 1.0 s."""
    generator = np.random.default_rng(4)
    motions = []
    for number in range(int(seconds * rate_hz)):
        time_s = number / rate_hz
        values = np.zeros(len(CHANNELS), np.float32)
        values[: 2 * len(REGIONS)] = 0.002 * np.sin(time_s) + generator.normal(0, 0.0003, 2 * len(REGIONS))
        if 1.0 <= time_s <= 1.12:
            height = np.sin(np.pi * (time_s - 1.0) / 0.12) ** 2
            for name, size in SMILE.items():
                values[CHANNELS.index(name)] += size * height
        motions.append(Motion(round(time_s * 1e9), values, 0.0))
    return motions


def run(model: Model, motions: list[Motion], **options: int) -> list[Evidence]:
    net = TemporalNet(model, **options)
    return [part for motion in motions for part in net.feed(motion)] + net.finish()


def phases(parts: list[Evidence]) -> NDArray[np.float32]:
    return np.concatenate([part.phase for part in parts])


@pytest.mark.parametrize("rate_hz", [90.0, 200.0, 309.0])
def test_a_movement_is_found_where_it_is_at_any_frame_rate(model, rate_hz):
    parts = run(model, signal(2.0, rate_hz))
    apex_s = parts[0].start_ns * 1e-9 + 0.005 * int(phases(parts)[:, 1].argmax())
    assert apex_s == pytest.approx(1.06, abs=0.02)


def test_steps_follow_each_other_without_hole_or_overlap(model):
    parts = run(model, signal(2.0, 200.0))
    assert parts[0].start_ns == 0
    for before, after in pairwise(parts):
        assert after.start_ns == before.start_ns + len(before) * STEP_NS
    assert sum(map(len, parts)) >= 399


def test_evidence_is_final_within_a_fifth_of_a_second(model):
    net = TemporalNet(model)
    for motion in signal(2.0, 200.0):
        for part in net.feed(motion):
            assert motion.timestamp_ns - (part.start_ns + len(part) * STEP_NS) <= 200 * MS


def test_probabilities_of_the_emotions_sum_to_one(model):
    for part in run(model, signal(2.0, 200.0)):
        assert part.emotion.sum(axis=1) == pytest.approx(1.0, abs=1e-5)


def test_after_a_reset_the_past_is_forgotten(model):
    net = TemporalNet(model)
    motions = signal(2.0, 200.0)
    for motion in motions:
        net.feed(motion)
    net.reset()
    again = [part for motion in motions for part in net.feed(motion)] + net.finish()
    assert np.array_equal(phases(again), phases(run(model, motions)))


def test_a_constant_face_is_encoded_as_zero():
    window = np.tile(np.linspace(-1, 1, len(INPUTS), dtype=np.float32), (WINDOW, 1))
    window[:, len(CHANNELS) :] = 0
    assert np.all(encode(window) == 0)


def test_departure_grows_with_a_held_expression_and_then_becomes_usual():
    departure = Departure()
    smiling = np.zeros((4001, len(CHANNELS)), np.float32)
    smiling[:, CHANNELS.index("left_lip_corner.y")] = -0.05
    assert departure.add(np.zeros((1, len(CHANNELS)), np.float32)).max() == 0
    found = departure.add(smiling)
    assert found[0, 3] == pytest.approx(0.05, rel=0.01)
    assert found[0, :3].max() == 0
    assert found[-1, 3] < 0.001


def test_steps_of_motion_depart_alike_however_many_come_at_once():
    steps = np.random.default_rng(0).normal(0, 0.01, (60, len(CHANNELS))).astype(np.float32)
    at_once, in_parts = Departure(), Departure()
    parts = [in_parts.add(part) for part in np.split(steps, [1, 5, 25])]
    assert np.array_equal(at_once.add(steps), np.concatenate(parts))


def test_another_model_is_refused():
    with pytest.raises(ModelError, match="detector: its input is"):
        TemporalNet(load_model("detector"))
