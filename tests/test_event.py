"""The gate between spots and events, and the intervals that evidence gives."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import ConfigError
from edge.event import Conditions, Gate, shortest_event_ms
from edge.evidence import CONFUSERS, OUTPUTS, STEP_NS, Evidence
from edge.records import Event, NotAssessable, Reason, Spot
from edge.regions import CHANNELS
from edge.settings import Event as EventConfig
from edge.spot import _spot

MS = 1_000_000


def make_spot(
    onset_ms: float, duration_ms: float, *, score: float = 0.9, confusers: tuple[float, ...] = (0.0,) * 5
) -> Spot:
    onset = int(onset_ms * MS)
    return Spot(
        1,
        onset,
        onset + int(duration_ms * MS / 2),
        onset + int(duration_ms * MS),
        score,
        (0.7, 0.1, 0.05, 0.05, 0.05, 0.02, 0.02, 0.01),
        (),
        (0.1, 0.1, 0.1, 0.9),
        0.012,
        confusers,
    )


def decide(
    spots: list[Spot],
    *,
    rate_hz: float = 200.0,
    excluded: tuple[NotAssessable, ...] = (),
    report: str = "emotion",
    **config: float,
) -> tuple[list[Event], list[Reason]]:
    gate = Gate(replace(EventConfig(), **config), threshold=0.5, report=report)
    for number in range(2000):
        gate.note(Conditions(number * 5 * MS, rate_hz, 0, 1.0, 200.0))
    for stretch in excluded:
        gate.exclude(stretch)
    events, refusals = gate.consider(spots, None)
    return events, [refusal.reason for refusal in refusals]


def test_a_spot_within_the_limits_becomes_an_event():
    events, reasons = decide([make_spot(6000, 100)])
    assert [event.emotion for event in events] == ["happiness"]
    assert events[0].confidence == pytest.approx(0.7)
    assert reasons == []


@pytest.mark.parametrize(("duration_ms", "reason"), [(20, Reason.TOO_SHORT), (260, Reason.TOO_LONG)])
def test_a_duration_beyond_the_gate_is_refused_with_its_reason(duration_ms, reason):
    assert decide([make_spot(6000, duration_ms)]) == ([], [reason])


def test_the_gate_reaches_half_a_second_by_setting():
    events, _ = decide([make_spot(6000, 450)], max_duration_ms=500)
    assert len(events) == 1


@given(duration_ms=st.floats(1, 600), onset_ms=st.floats(5500, 8000))
def test_every_event_lies_within_the_limits_and_in_order(duration_ms, onset_ms):
    events, reasons = decide([make_spot(onset_ms, duration_ms)])
    assert len(events) + len(reasons) == 1
    for event in events:
        assert 40 * MS <= event.spot.offset_ns - event.spot.onset_ns <= 200 * MS
        assert event.spot.onset_ns <= event.spot.apex_ns <= event.spot.offset_ns


@pytest.mark.parametrize("number", range(len(CONFUSERS)))
def test_weak_evidence_beside_a_confuser_names_the_confuser(number):
    confusers = tuple(0.9 if n == number else 0.1 for n in range(5))
    assert decide([make_spot(6000, 100, score=0.3, confusers=confusers)]) == ([], [Reason(CONFUSERS[number])])


def test_weak_evidence_alone_is_refused_as_weak():
    assert decide([make_spot(6000, 100, score=0.3)]) == ([], [Reason.WEAK])


def test_a_spot_in_time_that_cannot_be_assessed_is_refused_with_that_reason():
    gap = NotAssessable(6050 * MS, 6060 * MS, Reason.GAP)
    assert decide([make_spot(6000, 100)], excluded=(gap,)) == ([], [Reason.GAP])


def test_an_event_shorter_than_four_frames_is_too_short_for_the_rate():
    assert shortest_event_ms(30.0) == pytest.approx(133.3, abs=0.1)
    assert decide([make_spot(6000, 60)], rate_hz=30.0) == ([], [Reason.TOO_SHORT])
    assert len(decide([make_spot(6000, 60)], rate_hz=200.0)[0]) == 1


def test_spots_closer_than_the_merge_gap_become_one_event():
    events, _ = decide([make_spot(6000, 60), make_spot(6080, 60)])
    assert [(e.spot.onset_ns // MS, e.spot.offset_ns // MS) for e in events] == [(6000, 6140)]
    assert len(decide([make_spot(6000, 60), make_spot(6200, 60)])[0]) == 2


def test_an_event_waits_no_longer_than_the_merge_gap():
    gate = Gate(EventConfig(), threshold=0.5, report="emotion")
    gate.note(Conditions(6_000 * MS, 200.0, 0, 0.0, 200.0))
    assert gate.consider([make_spot(6000, 60)], 6_070 * MS) == ([], [])
    assert len(gate.consider([], 6_091 * MS)[0]) == 1


def test_a_low_probability_is_uncertain_and_movement_reports_no_emotion():
    unsure = replace(make_spot(6000, 100), probabilities=(0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05))
    assert decide([unsure])[0][0].emotion == "uncertain"
    assert decide([unsure], report="movement")[0][0].emotion is None


def test_limits_that_exclude_everything_are_an_error_that_names_both():
    with pytest.raises(ConfigError, match=r"min_duration_ms = 200.*max_duration_ms = 100"):
        Gate(
            replace(EventConfig(), min_duration_ms=200, max_duration_ms=100), threshold=0.5, report="emotion"
        )


def test_onset_apex_and_offset_come_from_the_evidence_and_the_motion():
    steps = 80
    time = np.arange(steps)
    phase = np.stack(
        [np.exp(-0.5 * ((time - at) / 2) ** 2) for at in (30, 40, 56)]
        + [((time >= 30) & (time <= 56)) * 0.95],
        axis=1,
    )
    motion = np.zeros((steps, len(CHANNELS)), np.float32)
    motion[30:57, CHANNELS.index("right_lip_corner.y")] = -0.012 * np.sin(np.pi * np.arange(27) / 26)
    flat = {
        name: np.full((steps, width), 0.1, np.float32) for name, width in OUTPUTS.items() if name != "phase"
    }
    evidence = Evidence(1_000 * MS, phase=phase.astype(np.float32), motion=motion, **flat)
    spot = _spot(3, evidence, 30, 57)
    assert abs(spot.onset_ns - (1_000 * MS + 30 * STEP_NS)) <= STEP_NS
    assert abs(spot.offset_ns - (1_000 * MS + 56 * STEP_NS)) <= STEP_NS
    assert abs(spot.apex_ns - (1_000 * MS + 40 * STEP_NS)) <= 2 * STEP_NS
    assert spot.intensity_iod == pytest.approx(0.012, rel=0.15)
    assert spot.regions[3] > 0.8
    assert spot.regions[1] < 0.1


def test_an_interval_whose_onset_was_not_seen_is_no_evidence():
    steps = 60
    phase = np.zeros((steps, 4), np.float32)
    phase[20:45, 3] = 0.9
    phase[30, 1] = 0.5
    phase[44, 2] = 0.8
    flat = {
        name: np.full((steps, width), 0.1, np.float32) for name, width in OUTPUTS.items() if name != "phase"
    }
    still = np.zeros((steps, len(CHANNELS)), np.float32)
    unseen = _spot(1, Evidence(0, phase=phase, motion=still, **flat), 20, 45)
    phase = phase.copy()
    phase[20, 0] = 0.8
    seen = _spot(1, Evidence(0, phase=phase, motion=still, **flat), 20, 45)
    assert unseen.score == 0
    assert seen.score > 0.9


@given(first=st.integers(0, 38), length=st.integers(1, 40), seed=st.integers(0, 50))
def test_any_interval_of_any_evidence_is_described_in_order(first, length, seed):
    generator = np.random.default_rng(seed)
    steps = 40
    outputs = {name: generator.random((steps, width)).astype(np.float32) for name, width in OUTPUTS.items()}
    motion = generator.normal(0, 0.01, (steps, len(CHANNELS))).astype(np.float32)
    spot = _spot(1, Evidence(0, motion=motion, **outputs), first, min(first + length, steps))
    assert 0 <= spot.onset_ns <= spot.apex_ns <= spot.offset_ns
    assert sum(spot.probabilities) == pytest.approx(1.0, abs=1e-4)
    assert all(0 <= share <= 1 for share in (*spot.regions, spot.score))
