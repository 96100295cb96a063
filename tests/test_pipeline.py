"""The whole path on real models: planted events come back, and what cannot be assessed is said."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge.config import Config, load
from edge.errors import ConfigError, ModelError
from edge.frames.portrait import load_portrait, portrait_landmarks
from edge.frames.script import DEMO, PlantedEvent, Script
from edge.frames.synthetic import SyntheticSource
from edge.inference.manifest import MANIFEST, models_folder
from edge.inference.models import load_models
from edge.pipeline import Pipeline, Statistics, run
from edge.records import Event, Frame, NotAssessable, Reason

STILL = replace(DEMO, micro_per_min=0.0, blink_per_min=0.0)
PERIOD_NS = 5_000_000


@cache
def rendered(
    seconds: float, script: Script, seed: int = 3
) -> tuple[tuple[Frame, ...], tuple[PlantedEvent, ...]]:
    source = SyntheticSource(load_portrait(), portrait_landmarks(), seconds=seconds, script=script, seed=seed,
                             size=(480, 360), face_px=190.0)  # fmt: skip
    frames = tuple(Frame(f.luma.copy(), f.timestamp_ns, f.sequence) for f in source.frames())
    return frames, tuple(source.truth)


def feed(frames: Iterator[Frame] | tuple[Frame, ...], *settings: str) -> tuple[list[Event], Statistics]:
    config = load(None, settings)
    pipeline = Pipeline(config, load_models(config))
    events = run(pipeline, iter(frames))
    statistics = pipeline.statistics
    pipeline.close()
    return events, statistics


def watch(
    frames: list[Frame] | tuple[Frame, ...],
) -> tuple[list[Event], list[NotAssessable], Statistics]:
    """Feed and keep the stretches that could not be assessed, too."""
    config = Config()
    pipeline = Pipeline(config, load_models(config))
    events, stretches = [], []
    for frame in frames:
        events += pipeline.feed(frame)
        stretches += pipeline.not_assessable
    events += pipeline.finish()
    stretches += pipeline.not_assessable
    pipeline.close()
    return events, stretches, pipeline.statistics


def stamped(lumas: list[NDArray[np.uint8]], start: int = 0) -> list[Frame]:
    return [Frame(luma, (start + n) * PERIOD_NS, start + n) for n, luma in enumerate(lumas)]


def overlap(planted: PlantedEvent, event: Event) -> float:
    onset, offset = event.spot.onset_ns * 1e-9, event.spot.offset_ns * 1e-9
    common = min(planted.offset_s, offset) - max(planted.onset_s, onset)
    return common / (max(planted.offset_s, offset) - min(planted.onset_s, onset))


def test_planted_micro_expressions_of_a_real_face_become_events():
    frames, truth = rendered(
        12.0, replace(DEMO, micro_duration_ms=(80.0, 180.0), micro_peak_iod=(0.015, 0.025))
    )
    events, statistics = feed(frames)
    micro = [planted for planted in truth if planted.kind == "micro"]
    found = [planted for planted in micro if any(overlap(planted, event) >= 0.5 for event in events)]
    assert len(micro) >= 3
    assert len(found) >= 0.5 * len(micro)
    assert len(events) - len(found) <= 1
    assert statistics.assessable_s > 11.0
    assert statistics.frame_rate_hz == pytest.approx(200, rel=0.001)


def test_a_calm_face_gives_no_event_and_is_assessable():
    frames, _ = rendered(4.0, STILL)
    events, statistics = feed(frames)
    assert events == []
    assert statistics.assessable_s == pytest.approx(statistics.duration_s - 0.25, abs=0.02)


def test_the_same_frames_give_the_same_events_twice():
    frames, _ = rendered(12.0, replace(DEMO, micro_duration_ms=(80.0, 180.0), micro_peak_iod=(0.015, 0.025)))
    assert feed(frames[:1600])[0] == feed(frames[:1600])[0]


def test_nothing_of_a_frames_buffer_is_needed_once_the_frame_has_been_fed():
    frames, _ = rendered(12.0, replace(DEMO, micro_duration_ms=(80.0, 180.0), micro_peak_iod=(0.015, 0.025)))
    config = Config()
    pipeline = Pipeline(config, load_models(config))
    buffer = np.empty_like(frames[0].luma)
    events = []
    for frame in frames[:1600]:
        buffer[:] = frame.luma
        events += pipeline.feed(replace(frame, luma=buffer))
        buffer[:] = frame.sequence % 256
    events += pipeline.finish()
    pipeline.close()
    assert events == feed(frames[:1600])[0]


def test_shifting_media_time_shifts_events_and_nothing_else():
    frames, _ = rendered(12.0, replace(DEMO, micro_duration_ms=(80.0, 180.0), micro_peak_iod=(0.015, 0.025)))
    shift = 1_000_000_000
    there, _ = feed(frames[:1600])
    later, _ = feed(tuple(replace(frame, timestamp_ns=frame.timestamp_ns + shift) for frame in frames[:1600]))
    assert [e.spot.onset_ns + shift for e in there] == [e.spot.onset_ns for e in later]


def test_no_face_means_no_assessable_time_and_says_so():
    generator = np.random.default_rng(0)
    noise = [generator.integers(90, 160, (120, 160)).astype(np.uint8) for _ in range(100)]
    events, statistics = feed(stamped(noise))
    assert events == []
    assert statistics.assessable_s == 0
    assert statistics.not_assessable_s == {Reason.NO_FACE: pytest.approx(99 * 0.005)}


def test_a_face_that_leaves_and_returns_is_found_again_under_a_new_number():
    frames, _ = rendered(4.0, STILL)
    empty = np.full_like(frames[0].luma, 128)
    lumas = [f.luma for f in frames[:200]] + [empty] * 200 + [f.luma for f in frames[200:500]]
    events, statistics = feed(stamped(lumas))
    assert events == []
    assert statistics.faces == 2
    lost = sum(statistics.not_assessable_s.get(reason, 0.0) for reason in (Reason.FACE_LOST, Reason.NO_FACE))
    assert 0.8 < lost < 1.7


def test_stretches_that_cannot_be_assessed_are_whole_and_leave_exactly_the_assessable_time():
    frames, _ = rendered(12.0, replace(DEMO, micro_duration_ms=(80.0, 180.0), micro_peak_iod=(0.015, 0.025)))
    empty = np.full_like(frames[0].luma, 128)
    lumas = [f.luma for f in frames[:700]] + [empty] * 150 + [f.luma for f in frames[700:1500]]
    # A hole of 100 ms, and a second one while no face is there.
    stream = [f for f in stamped(lumas) if not 400 <= f.sequence < 420 and not 750 <= f.sequence < 760]
    events, stretches, statistics = watch(stream)
    assert events
    reasons = [stretch.reason for stretch in stretches]
    assert reasons[:3] == [Reason.WARMING_UP, Reason.GAP, Reason.WARMING_UP]
    assert reasons.count(Reason.GAP) == 2
    for before, after in pairwise(stretches):
        assert before.end_ns < after.start_ns or before.reason != after.reason
        assert before.end_ns <= after.start_ns
    lost_ns = sum(stretch.end_ns - stretch.start_ns for stretch in stretches)
    assert lost_ns == round(1e9 * sum(statistics.not_assessable_s.values()))
    assert lost_ns + round(1e9 * statistics.assessable_s) == stream[-1].timestamp_ns
    for event in events:
        assert all(
            event.spot.offset_ns <= stretch.start_ns or stretch.end_ns <= event.spot.onset_ns
            for stretch in stretches
        )


def test_a_stretch_that_lasts_to_the_end_is_given_at_the_end():
    _, stretches, statistics = watch(stamped([np.full((120, 160), 90, np.uint8)] * 60))
    assert stretches == [NotAssessable(0, 59 * PERIOD_NS, Reason.NO_FACE)]
    assert statistics.assessable_s == 0


def test_the_baseline_is_learnt_from_calm_time_and_forgotten_with_the_face():
    frames, _ = rendered(4.0, STILL)
    config = load(None, ["baseline.seconds=2"])
    pipeline = Pipeline(config, load_models(config))
    for frame in frames[:200]:
        pipeline.feed(frame)
    early = pipeline.statistics.rest
    assert not early.ready
    assert 0.1 < early.progress < 0.5
    for frame in frames[200:]:
        pipeline.feed(frame)
    rest = pipeline.statistics.rest
    assert rest.ready
    assert 1e-5 < rest.noise_floor_iod < 2e-3
    assert 0 < rest.asymmetry_iod < 0.1
    assert rest.blinks_per_min == 0
    empty = np.full_like(frames[0].luma, 128)
    for frame in stamped([empty] * 200 + [f.luma for f in frames[:100]], start=800):
        pipeline.feed(frame)
    pipeline.close()
    assert pipeline.statistics.faces == 2
    assert not pipeline.statistics.rest.ready


def test_of_two_faces_the_larger_is_followed_and_the_other_counted():
    frames, _ = rendered(4.0, STILL)
    pictures = []
    for frame in frames[:60]:
        small = cv2.resize(frame.luma, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
        beside = cv2.copyMakeBorder(
            small, 0, frame.luma.shape[0] - small.shape[0], 0, 0, cv2.BORDER_REPLICATE
        )
        pictures.append(np.hstack([frame.luma, beside]))
    config = Config()
    pipeline = Pipeline(config, load_models(config))
    run(pipeline, stamped(pictures))
    assert pipeline.statistics.others == 1
    assert pipeline.face is not None
    assert pipeline.face.face_px > 140
    pipeline.close()


def test_a_hole_in_the_stream_is_a_gap_and_its_frames_are_counted():
    frames, _ = rendered(4.0, STILL)
    _, statistics = feed(frames[:300] + frames[320:600])
    assert statistics.dropped == 20
    assert statistics.not_assessable_s[Reason.GAP] == pytest.approx(21 * 0.005)


def test_a_short_gap_costs_its_own_time_and_no_new_warm_up():
    frames, _ = rendered(4.0, STILL)
    _, whole = feed(frames[:600])
    _, short = feed(frames[:300] + frames[310:600])
    _, long = feed(frames[:300] + frames[340:600])
    assert short.not_assessable_s == {**whole.not_assessable_s, Reason.GAP: pytest.approx(11 * 0.005)}
    assert long.not_assessable_s[Reason.WARMING_UP] > whole.not_assessable_s[Reason.WARMING_UP]


def test_timestamps_that_jump_back_are_counted_and_ignored():
    frames, _ = rendered(4.0, STILL)
    _, statistics = feed((*frames[:100], frames[50], frames[20], *frames[100:150]))
    assert statistics.out_of_order == 2
    assert statistics.frames == 150


@pytest.mark.parametrize("step_s", [3600.0, -2.0])
def test_a_clock_that_steps_is_a_gap_that_no_event_spans_and_the_stream_goes_on(step_s):
    frames, _ = rendered(12.0, replace(DEMO, micro_duration_ms=(80.0, 180.0), micro_peak_iod=(0.015, 0.025)))
    before, _, _ = watch(frames[:1600])
    during = before[-1].spot
    at = round((during.onset_ns + during.offset_ns) / 2 / PERIOD_NS)
    stepped = [
        replace(frame, timestamp_ns=frame.timestamp_ns + (round(step_s * 1e9) if n >= at else 0))
        for n, frame in enumerate(frames[:1600])
    ]
    events, stretches, statistics = watch(stepped)
    assert [event.spot for event in events if event.spot.offset_ns <= at * PERIOD_NS] == [
        event.spot for event in before[:-1]
    ]
    assert statistics.clock_steps == 1
    assert (statistics.dropped, statistics.out_of_order, statistics.frames) == (0, 4, 1596)
    gap = next(stretch for stretch in stretches if stretch.reason == Reason.GAP)
    lasts_s = 0.025 + max(step_s, 0.0)
    assert (gap.start_ns, gap.end_ns - gap.start_ns) == ((at - 1) * PERIOD_NS, round(lasts_s * 1e9))
    assert all(e.spot.offset_ns <= gap.start_ns or gap.end_ns <= e.spot.onset_ns for e in events)
    assert statistics.duration_s == pytest.approx(1599 * 0.005 + max(step_s, 0.0))


def test_darkness_is_not_assessable():
    frames, _ = rendered(4.0, STILL)
    dark = [(f.luma // 3 if n < 60 else f.luma // 25).astype(np.uint8) for n, f in enumerate(frames[:200])]
    _, statistics = feed(stamped(dark))
    lost = statistics.not_assessable_s
    assert lost.get(Reason.TOO_DARK, 0) + lost.get(Reason.FACE_LOST, 0) + lost.get(Reason.NO_FACE, 0) > 0.6


def test_a_frame_rate_that_cannot_place_any_event_is_said_and_not_scored():
    frames, _ = rendered(4.0, STILL)
    slow = [Frame(f.luma, n * 100_000_000, n) for n, f in enumerate(frames[:40])]
    _, statistics = feed(tuple(slow))
    assert statistics.assessable_s == 0
    assert statistics.not_assessable_s[Reason.FRAME_RATE] > 3
    assert statistics.shortest_event_ms == pytest.approx(400)


@pytest.mark.parametrize("size", [(10, 10), (1, 1), (4320, 7680)])
def test_frames_of_any_size_pass(size):
    lumas = [np.full(size, 90, np.uint8)] * 4
    events, statistics = feed(stamped(lumas))
    assert events == []
    assert statistics.frames == 4


@pytest.mark.parametrize("name", ["detector", "landmark", "spotter"])
def test_a_damaged_model_is_refused_with_its_name(tmp_path: Path, name):
    folder = tmp_path / "models"
    shutil.copytree(models_folder(), folder)
    path = folder / f"{name}.tflite"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=rf"{name}.*SHA-256"):
        load_models(load(None, [f"inference.models={folder}"]))


def test_every_bad_model_is_named_in_one_report(tmp_path: Path):
    folder = tmp_path / "models"
    shutil.copytree(models_folder(), folder)
    (folder / "landmark.tflite").unlink()
    (folder / "spotter.tflite").write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"(?s)landmark.*spotter"):
        load_models(load(None, [f"inference.models={folder}"]))


def test_an_accelerator_that_cannot_be_driven_is_refused_and_not_ignored():
    with pytest.raises(ConfigError, match=r"inference\.accelerator = edgetpu"):
        load_models(load(None, ["inference.accelerator=edgetpu"]))


def test_a_swapped_model_is_refused(tmp_path: Path):
    folder = tmp_path / "models"
    shutil.copytree(models_folder(), folder)
    shutil.copy(folder / "detector.tflite", folder / "spotter.tflite")
    with pytest.raises(ModelError, match="spotter"):
        load_models(load(None, [f"inference.models={folder}"]))
    assert (folder / MANIFEST).is_file()
