"""The gate between spots and events, and the intervals that evidence gives."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.baseline import DEFAULT_FLOOR_IOD, Baseline
from edge.coverage import Coverage
from edge.errors import ConfigError
from edge.event import Conditions, Gate, shortest_event_ms
from edge.evidence import CONFUSERS, OUTPUTS, STEP_NS, Evidence
from edge.records import EMOTIONS, Event, NotAssessable, Reason, Spot
from edge.regions import CHANNELS
from edge.settings import Baseline as BaselineConfig
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


def make_gate(
    config: EventConfig = EventConfig(),  # noqa: B008  (frozen)
    *,
    report: str = "emotion",
    coverage: Coverage | None = None,
    baseline: Baseline | None = None,
    noise_factor: float = 0.0,
) -> Gate:
    return Gate(
        config,
        threshold=0.5,
        noise_factor=noise_factor,
        report=report,
        coverage=coverage or Coverage(),
        baseline=baseline or Baseline(BaselineConfig()),
    )


def decide(
    spots: list[Spot],
    *,
    rate_hz: float = 200.0,
    last_ms: int = 10_000,
    excluded: tuple[NotAssessable, ...] = (),
    report: str = "emotion",
    moved: dict[str, float] | None = None,
    noise_factor: float = 0.0,
    **config: float,
) -> tuple[list[Event], list[Reason]]:
    """Put spots of the media time 5.5 to 10 s before a gate.

    Args:
        moved: displacement, IOD, by the channel, at the apex of the first spot.
    """
    coverage, baseline = Coverage(), Baseline(BaselineConfig())
    for stretch in excluded:
        coverage.book(stretch.start_ns, stretch.end_ns, stretch.reason)
    if moved is not None:
        baseline.feed(movement(spots[0], moved), np.zeros(1000, np.bool_))
    gate = make_gate(
        replace(EventConfig(), **config), report=report, coverage=coverage, baseline=baseline,
        noise_factor=noise_factor,
    )  # fmt: skip
    for number in range(last_ms // 5 + 1):
        gate.note(Conditions(number * 5 * MS, rate_hz, 0, 1.0, 200.0))
    events, refusals = gate.consider(spots, None)
    return events, [refusal.reason for refusal in refusals]


def movement(spot: Spot, moved: dict[str, float]) -> Evidence:
    """Give the evidence of 5 s around a spot, in which the named channels are displaced about its apex alone."""
    steps, start_ns = 1000, 5_000 * MS
    motion = np.zeros((steps, len(CHANNELS)), np.float32)
    apex = (spot.apex_ns - start_ns) // STEP_NS
    for channel, size in moved.items():
        motion[apex - 1 : apex + 2, CHANNELS.index(channel)] = size
    flat = {name: np.zeros((steps, width), np.float32) for name, width in OUTPUTS.items()}
    return Evidence(start_ns, motion=motion, **flat)


def test_a_spot_within_the_limits_becomes_an_event():
    events, reasons = decide([make_spot(6000, 100)])
    assert [event.emotion for event in events] == ["happiness"]
    # Nothing about the mouth is one-sided, so most of what was left for contempt is happiness.
    assert events[0].confidence == pytest.approx(0.72, abs=0.003)
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


@pytest.mark.parametrize(("after_ms", "is_told"), [(20, False), (60, True)])
def test_a_spot_is_told_only_if_what_follows_it_could_be_assessed(after_ms, is_told):
    gap = NotAssessable((6100 + after_ms) * MS, (6200 + after_ms) * MS, Reason.GAP)
    events, refused = decide([make_spot(6000, 100)], excluded=(gap,))
    assert (len(events), refused) == ((1, []) if is_told else (0, [Reason.GAP]))


@pytest.mark.parametrize(("start_ms", "end_ms"), [(5000, 6010), (6090, 7000), (5000, 7000)])
def test_no_event_overlaps_time_that_cannot_be_assessed(start_ms, end_ms):
    lost = NotAssessable(start_ms * MS, end_ms * MS, Reason.TURNING)
    assert decide([make_spot(6000, 100)], excluded=(lost,)) == ([], [Reason.TURNING])


def test_time_that_ends_where_the_spot_begins_does_not_touch_it():
    before = NotAssessable(5000 * MS, 6000 * MS, Reason.WARMING_UP)
    assert len(decide([make_spot(6000, 100)], excluded=(before,))[0]) == 1


@given(
    onset_ms=st.floats(6000, 7000), duration_ms=st.floats(20, 260), start_ms=st.integers(5900, 7300),
    length_ms=st.integers(1, 200),
)  # fmt: skip
def test_whatever_is_widened_or_narrowed_events_stay_clear_of_lost_time(
    onset_ms, duration_ms, start_ms, length_ms
):
    lost = NotAssessable(start_ms * MS, (start_ms + length_ms) * MS, Reason.GAP)
    for event in decide([make_spot(onset_ms, duration_ms)], excluded=(lost,))[0]:
        assert event.spot.offset_ns <= lost.start_ns or event.spot.onset_ns >= lost.end_ns


def test_an_event_at_the_end_of_a_stream_ends_with_its_last_frame():
    (event,), _ = decide([make_spot(6000, 100)], last_ms=6090)
    assert event.spot.offset_ns == 6090 * MS
    assert event.spot.onset_ns == 6000 * MS


def test_an_event_shorter_than_four_frames_is_too_short_for_the_rate():
    assert shortest_event_ms(30.0) == pytest.approx(133.3, abs=0.1)
    assert decide([make_spot(6000, 60)], rate_hz=30.0) == ([], [Reason.TOO_SHORT_FOR_RATE])
    assert decide([make_spot(6000, 20)], rate_hz=30.0) == ([], [Reason.TOO_SHORT])
    assert len(decide([make_spot(6000, 60)], rate_hz=200.0)[0]) == 1


def test_a_movement_within_the_persons_noise_is_refused_and_one_beyond_it_is_not():
    spot = [make_spot(6000, 100)]
    small, clear = DEFAULT_FLOOR_IOD * 2, DEFAULT_FLOOR_IOD * 3
    assert decide(spot, moved={"chin.y": small}, noise_factor=2.5) == ([], [Reason.NOISE])
    assert decide(spot, moved={"chin.y": small}, noise_factor=0.0)[1] == []
    (event,), _ = decide(spot, moved={"chin.y": clear}, noise_factor=2.5)
    assert event.quality.noise_floor_iod == pytest.approx(DEFAULT_FLOOR_IOD)
    assert not event.quality.baseline_ready


def test_a_movement_too_large_for_a_micro_expression_is_refused_as_such():
    large, allowed = (replace(make_spot(6000, 100), intensity_iod=size) for size in (0.041, 0.039))
    assert decide([large]) == ([], [Reason.TOO_LARGE])
    assert len(decide([allowed])[0]) == 1


def test_a_mouth_that_moves_alike_on_both_sides_is_happiness_and_on_one_side_contempt():
    said = {"happiness": 0.4, "contempt": 0.4}
    undecided = tuple(said.get(name, 0.2 / 6) for name in (*EMOTIONS, "other"))
    spot = [replace(make_spot(6000, 100), probabilities=undecided)]
    both = {"right_lip_corner.y": -0.01, "left_lip_corner.y": -0.009}
    (smile,), _ = decide(spot, moved=both)
    (sneer,), _ = decide(spot, moved={"right_lip_corner.y": -0.01, "left_lip_corner.y": -0.001})
    assert (smile.emotion, sneer.emotion) == ("happiness", "contempt")
    for event in (smile, sneer):
        assert event.confidence == max(event.spot.probabilities) > 0.75
        assert sum(event.spot.probabilities) == pytest.approx(1.0)


def test_contempt_must_be_more_one_sided_than_the_persons_rest():
    contempt = tuple(0.999 if name == "contempt" else 0.001 / 7 for name in (*EMOTIONS, "other"))
    spot = [replace(make_spot(6000, 100), probabilities=contempt)]
    below = {"left_lip_corner.x": DEFAULT_FLOOR_IOD}
    assert decide(spot, moved={"left_lip_corner.x": 0.01}, noise_factor=2.5)[0][0].emotion == "contempt"
    still = below | {"chin.y": 0.01}
    assert decide(spot, moved=still, noise_factor=2.5)[0][0].emotion == "uncertain"


@pytest.mark.parametrize("number", range(len(CONFUSERS)))
def test_a_confuser_beside_strong_evidence_decides_nothing(number):
    confusers = tuple(0.9 if n == number else 0.1 for n in range(5))
    assert len(decide([make_spot(6000, 100, confusers=confusers)])[0]) == 1
    assert decide([make_spot(6000, 260, confusers=confusers)]) == ([], [Reason.TOO_LONG])


def test_spots_closer_than_the_merge_gap_become_one_event():
    events, _ = decide([make_spot(6000, 60), make_spot(6080, 60)])
    assert [(e.spot.onset_ns // MS, e.spot.offset_ns // MS) for e in events] == [(6000, 6140)]
    assert len(decide([make_spot(6000, 60), make_spot(6200, 60)])[0]) == 2


def test_an_event_waits_no_longer_than_the_merge_gap():
    gate = make_gate()
    for time_ms in (6_000, 6_100):
        gate.note(Conditions(time_ms * MS, 200.0, 0, 0.0, 200.0))
    assert gate.consider([make_spot(6000, 60)], 6_070 * MS) == ([], [])
    assert len(gate.consider([], 6_091 * MS)[0]) == 1


def test_a_low_probability_is_uncertain_and_movement_reports_no_emotion():
    unsure = replace(make_spot(6000, 100), probabilities=(0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05))
    assert decide([unsure])[0][0].emotion == "uncertain"
    assert decide([unsure], report="movement")[0][0].emotion is None


def test_limits_that_exclude_everything_are_an_error_that_names_both():
    with pytest.raises(ConfigError, match=r"min_duration_ms = 200.*max_duration_ms = 100"):
        make_gate(replace(EventConfig(), min_duration_ms=200, max_duration_ms=100))


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
    spot = _spot(3, evidence, 30, 57, 1.0)
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
    unseen = _spot(1, Evidence(0, phase=phase, motion=still, **flat), 20, 45, 1.0)
    phase = phase.copy()
    phase[20, 0] = 0.8
    seen = _spot(1, Evidence(0, phase=phase, motion=still, **flat), 20, 45, 1.0)
    assert unseen.score == 0
    assert seen.score > 0.9


@given(first=st.integers(0, 38), length=st.integers(1, 40), seed=st.integers(0, 50))
def test_any_interval_of_any_evidence_is_described_in_order(first, length, seed):
    generator = np.random.default_rng(seed)
    steps = 40
    outputs = {name: generator.random((steps, width)).astype(np.float32) for name, width in OUTPUTS.items()}
    motion = generator.normal(0, 0.01, (steps, len(CHANNELS))).astype(np.float32)
    spot = _spot(1, Evidence(0, motion=motion, **outputs), first, min(first + length, steps), 1.0)
    assert 0 <= spot.onset_ns <= spot.apex_ns <= spot.offset_ns
    assert sum(spot.probabilities) == pytest.approx(1.0, abs=1e-4)
    assert all(0 <= share <= 1 for share in (*spot.regions, spot.score))
