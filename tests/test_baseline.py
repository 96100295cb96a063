"""The person's own rest: what is learnt, from which time, and what stands out of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge.baseline import _SIDES, DEFAULT_FLOOR_IOD, Baseline, asymmetry_iod
from edge.evidence import CONFUSERS, OUTPUTS, STEP_NS, Evidence
from edge.face.shape import MEAN_SHAPE
from edge.records import CROP_IOD_PX, LANDMARKS, Spot, TrackedFace
from edge.regions import CHANNELS, REGIONS
from edge.settings import Baseline as BaselineConfig

HOP = 4
NOISE = 0.0007


class Person:
    """A resting face whose skin trembles by `noise` IOD, shown to a baseline hop by hop."""

    def __init__(self, baseline: Baseline, *, noise: float = NOISE, seed: int = 1) -> None:
        self.baseline, self._noise = baseline, noise
        self._generator = np.random.default_rng(seed)
        self.steps = 0
        self._drift = 0.0

    def rest(
        self, seconds: float, *, assessable: bool = True, confuser: str = "", inside: float = 0.0,
        moved: dict[str, float] | None = None,
    ) -> None:  # fmt: skip
        """Go on for so long; what is `moved` is so all that time."""
        for _ in range(round(seconds * 1e9 / (STEP_NS * HOP))):
            flat = {name: np.zeros((HOP, width), np.float32) for name, width in OUTPUTS.items()}
            if confuser:
                flat["confusers"][:, CONFUSERS.index(confuser)] = 0.9
            flat["phase"][:, 3] = inside
            motion = self._generator.normal(0, self._noise, (HOP, len(CHANNELS))).astype(np.float32)
            for channel, size in (moved or {}).items():
                motion[:, CHANNELS.index(channel)] += np.float32(size)
            evidence = Evidence(self.steps * STEP_NS, motion=motion, **flat)
            self.baseline.feed(evidence, np.full(HOP, assessable))
            self.steps += HOP

    def spot(self, *, apex_s: float, duration_s: float = 0.1) -> Spot:
        times = (apex_s - duration_s / 2, apex_s, apex_s + duration_s / 2)
        onset, apex, offset = (round(time * 1e9) for time in times)
        return Spot(1, onset, apex, offset, 0.9, (0.125,) * 8, (), (0.0,) * 4, 0.01, (0.0,) * 5)


@pytest.fixture
def baseline() -> Baseline:
    return Baseline(BaselineConfig())


def face(landmarks: NDArray[np.float64]) -> TrackedFace:
    """Give a tracked face with these landmarks, IOD."""
    crop = np.zeros((128, 128), np.uint8)
    points = (landmarks * CROP_IOD_PX + 64).astype(np.float32)
    return TrackedFace(1, points, np.zeros((2, 3), np.float32), crop, 64.0, 100.0, 1.0, 0)


def test_calm_seconds_make_the_baseline_and_progress_says_how_far_it_is(baseline):
    person = Person(baseline)
    person.rest(2.5)
    assert not baseline.rest.ready
    assert baseline.rest.progress == pytest.approx(0.5, abs=0.02)
    person.rest(2.6)
    assert baseline.rest.ready
    assert baseline.rest.progress == 1.0
    # x and y carry the noise alike, so a region's floor is that of one axis.
    assert baseline.rest.noise_floor_iod == pytest.approx(NOISE, rel=0.05)


@pytest.mark.parametrize(
    "disturbance", [{"assessable": False}, {"inside": 0.9}, *({"confuser": c} for c in CONFUSERS)]
)
def test_time_that_is_not_calm_does_not_count(baseline, disturbance):
    person = Person(baseline)
    person.rest(2.0)
    before = baseline.rest.progress
    person.rest(10.0, **disturbance)
    assert baseline.rest.progress == pytest.approx(before, abs=0.001)


def test_a_difference_never_spans_a_disturbance(baseline):
    person = Person(baseline, noise=1e-4)
    for _ in range(40):
        person.rest(0.2)
        # A smile that stays: the place after it is another one, and that is no noise.
        person.rest(0.1, confuser="macro-expression", moved={"chin.y": 0.1})
    assert baseline.rest.ready
    assert baseline.rest.noise_floor_iod == pytest.approx(1e-4, rel=0.1)


def test_time_after_an_interruption_is_not_compared_with_time_before_it(baseline):
    person = Person(baseline, noise=1e-4)
    for number in range(100):
        person.rest(0.12, moved={"chin.y": 0.05 * (number % 2)})
        person.steps += 100  # half a second without a face
    assert baseline.rest.ready
    moved = person.spot(apex_s=(person.steps - 110) * STEP_NS * 1e-9, duration_s=0.06)
    assert baseline.judge(moved).prominence < 5


def test_slow_drift_of_the_face_does_not_raise_the_floor(baseline):
    person = Person(baseline)
    for number in range(260):
        person.rest(0.02, moved={channel: 2e-4 * number for channel in CHANNELS[: 2 * len(REGIONS)]})
    assert baseline.rest.noise_floor_iod == pytest.approx(NOISE, rel=0.05)


def test_the_floor_follows_slowly_once_there_is_one(baseline):
    person = Person(baseline)
    person.rest(5.2)
    first = baseline.rest.noise_floor_iod
    louder = Person(baseline, noise=2 * NOISE, seed=2)
    louder.steps = person.steps
    louder.rest(5.2)
    second = baseline.rest.noise_floor_iod
    assert first < second < 1.2 * first
    louder.rest(120.0)
    assert baseline.rest.noise_floor_iod == pytest.approx(2 * NOISE, rel=0.1)


def test_a_region_is_judged_by_its_own_noise(baseline):
    person = Person(baseline, noise=1e-4)
    generator = np.random.default_rng(3)
    for _ in range(260):
        person.rest(0.02, moved={"chin.x": generator.normal(0, 0.01), "chin.y": generator.normal(0, 0.01)})
    assert baseline.rest.noise_floor_iod == pytest.approx(1e-4, rel=0.1)
    person.rest(0.2)
    person.rest(0.02, moved={"left_brow_inner.y": 0.001, "chin.y": 0.003})
    person.rest(0.2)
    standing = baseline.judge(person.spot(apex_s=(person.steps - 42) * STEP_NS * 1e-9))
    # The chin moved farther and says less.
    assert standing.noise_floor_iod == pytest.approx(1e-4, rel=0.3)
    assert standing.prominence == pytest.approx(10, rel=0.4)


def test_rest_itself_seldom_stands_out_by_the_default_factor(baseline):
    person = Person(baseline)
    person.rest(8.0)
    times = np.linspace(6.0, 7.8, 200)
    prominences = [baseline.judge(person.spot(apex_s=time)).prominence for time in times]
    assert np.median(prominences) < BaselineConfig().noise_factor
    assert np.percentile(prominences, 99) < 4


def test_until_the_baseline_is_ready_a_usual_floor_is_taken(baseline):
    person = Person(baseline, noise=1e-5)
    person.rest(0.5)
    person.rest(0.02, moved={"chin.y": 10 * DEFAULT_FLOOR_IOD})
    person.rest(0.5)
    standing = baseline.judge(person.spot(apex_s=0.51))
    assert standing.noise_floor_iod == DEFAULT_FLOOR_IOD
    assert standing.prominence == pytest.approx(10, rel=0.1)


def test_a_still_picture_has_no_floor_of_zero(baseline):
    Person(baseline, noise=0.0).rest(6.0)
    assert baseline.rest.ready
    assert baseline.rest.noise_floor_iod > 0


def test_a_movement_of_one_side_is_told_from_one_of_both(baseline):
    person = Person(baseline, noise=1e-4)
    person.rest(6.0)
    both = {"right_lip_corner.x": -0.01, "left_lip_corner.x": 0.01}
    for moved in ({"left_lip_corner.x": 0.01}, both):
        person.rest(0.02, moved=moved)
        person.rest(0.2)
    one_sided, even = (
        baseline.judge(person.spot(apex_s=(person.steps - back) * STEP_NS * 1e-9)).one_sided
        for back in (86, 42)
    )
    assert one_sided > 20
    assert even < 5


def test_every_side_has_its_partner():
    for right, left in _SIDES:
        assert REGIONS[right].name.replace("right", "left") == REGIONS[left].name


@pytest.mark.parametrize("per_min", [0, 6, 20])
def test_the_blink_rate_is_counted_from_the_evidence(baseline, per_min):
    person = Person(baseline)
    for _ in range(max(per_min, 1)):
        person.rest(60 / max(per_min, 1) - 0.2)
        person.rest(0.2, confuser="blink" if per_min else "speech")
    assert baseline.rest.blinks_per_min == pytest.approx(per_min, rel=0.1)


def test_blinks_in_time_that_cannot_be_assessed_are_not_counted_nor_is_the_time(baseline):
    person = Person(baseline)
    person.rest(6.0)
    for _ in range(20):
        person.rest(0.2, confuser="blink", assessable=False)
        person.rest(0.2, assessable=False)
    assert baseline.rest.blinks_per_min == 0


def test_the_resting_asymmetry_is_that_of_the_landmarks_at_rest(baseline):
    person = Person(baseline)
    crooked = MEAN_SHAPE.copy()
    crooked[[LANDMARKS.index("mouth_left"), LANDMARKS.index("lower_lip_left")]] += (0.0, 0.05)
    smiling = crooked + np.random.default_rng(0).normal(0, 0.1, crooked.shape)
    for shape, confuser in ((crooked, ""), (smiling, "macro-expression"), (crooked, "")):
        for _ in range(16):
            baseline.see(face(shape), person.steps * STEP_NS)
            person.rest(0.2, confuser=confuser)
    assert baseline.rest.asymmetry_iod == pytest.approx(asymmetry_iod(crooked.astype(np.float32)), abs=1e-4)


@given(size=st.floats(0.3, 3), roll=st.floats(-0.6, 0.6), x=st.floats(-5, 5), y=st.floats(-5, 5))
def test_asymmetry_does_not_depend_on_where_the_face_is_nor_on_its_tilt(size, roll, x, y):
    crooked = MEAN_SHAPE.copy()
    crooked[: len(LANDMARKS) // 2] += 0.02
    turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    moved = size * crooked @ turn.T + (x, y)
    expected = size * asymmetry_iod(crooked.astype(np.float32))
    assert asymmetry_iod(moved.astype(np.float32)) == pytest.approx(expected, rel=1e-3)


def test_an_even_face_has_no_asymmetry():
    assert asymmetry_iod(MEAN_SHAPE.astype(np.float32)) == pytest.approx(0, abs=1e-4)


def test_another_face_starts_afresh(baseline):
    person = Person(baseline)
    person.rest(6.0)
    baseline.reset()
    assert not baseline.rest.ready
    assert baseline.rest.progress == 0
    assert baseline.rest.blinks_per_min is None
