"""A synthetic face does what its script says, knows it beforehand, and does it again for the same seed."""

from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest

from edge.emotions import table
from edge.errors import SourceError
from edge.frames import portrait
from edge.frames.action_units import MIDLINE, MOVEMENTS, SIDES
from edge.frames.portrait import load_portrait, portrait_landmarks
from edge.frames.script import DEMO, HARD, PlantedEvent, Script, course, plan, speech_course
from edge.frames.synthetic import SyntheticSource
from edge.records import EMOTIONS, LANDMARKS, ActionUnit

STILL = Script(micro_per_min=0, blink_per_min=0, head_motion=0, noise=0)
"""Nothing happens at all."""


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return load_portrait()


def source_of(photo: np.ndarray, script: Script = STILL, **changes: object) -> SyntheticSource:
    arguments: dict = {"seconds": 1.0, "seed": 3, "script": script} | changes
    return SyntheticSource(photo, portrait_landmarks(), **arguments)


def planted(source: SyntheticSource, *events: PlantedEvent) -> SyntheticSource:
    """Replace what the source planned by events of our own."""
    source.truth[:] = events
    source._onsets[:] = [event.onset_s for event in events]
    return source


def expression(au: str, side: str = "both", peak: float = 0.02, kind: str = "micro") -> PlantedEvent:
    return PlantedEvent(kind, 0.1, 0.2, 0.3, None, (ActionUnit(au, side, 1.0),), peak)  # type: ignore[arg-type]


def image_at(source: SyntheticSource, time_s: float) -> np.ndarray:
    """Give the frame that is nearest to a time."""
    number = round(time_s * source.nominal_rate_hz)
    return next(frame.luma.copy() for frame in source.frames() if frame.sequence >= number)


# --- the plan --------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(photo: np.ndarray) -> None:
    def stream(seed: int) -> bytes:
        source = source_of(photo, HARD, seed=seed, seconds=4.0, rate_hz=5.0, size=(160, 120))
        return b"".join(frame.luma.tobytes() for frame in source.frames())

    assert stream(3) == stream(3)
    assert stream(3) != stream(4)


def test_truth_is_known_before_the_first_frame_and_planned_again_alike(photo: np.ndarray) -> None:
    source = source_of(photo, HARD, seconds=60.0, size=(160, 120))
    assert source.truth == plan(HARD, 60.0, 3)
    assert {event.kind for event in source.truth} == {
        "micro", "blink", "speech", "macro", "head turn", "light"
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_planted_events_keep_to_their_script(seed: int) -> None:
    script = replace(HARD, micro_duration_ms=(40.0, 500.0))
    events = plan(script, 120.0, seed)
    assert [event.onset_s for event in events] == sorted(event.onset_s for event in events)
    for earlier, later in pairwise(events):
        assert later.onset_s - earlier.offset_s >= script.apart_s
    for event in events:
        assert script.quiet_start_s <= event.onset_s < event.apex_s <= event.offset_s < 120.0
        if event.kind == "micro":
            assert 0.04 <= event.offset_s - event.onset_s <= 0.5
            assert script.micro_peak_iod[0] <= event.peak_iod <= script.micro_peak_iod[1]
            assert event.emotion in EMOTIONS
            assert max(unit.score for unit in event.action_units) == 1.0
            assert tuple(unit.au for unit in event.action_units) in table().prototypes[event.emotion]
        if event.emotion in table().one_sided:
            assert {unit.side for unit in event.action_units} in ({"right"}, {"left"})
        if event.emotion == "happiness":  # one-sided it would be contempt
            assert {unit.side for unit in event.action_units} == {"both"}


def test_the_demonstration_plants_a_micro_expression_about_every_three_seconds() -> None:
    micro = [event for event in plan(DEMO, 60.0, 0) if event.kind == "micro"]
    assert 18 <= len(micro) <= 20
    assert {event.emotion for event in plan(DEMO, 180.0, 0) if event.kind == "micro"} == set(EMOTIONS)
    assert any(event.kind == "micro" for event in plan(DEMO, 5.0, 0))


def test_events_leave_neutral_at_onset_peak_at_apex_and_return_at_offset() -> None:
    for event in plan(HARD, 60.0, 1):
        if event.kind in ("speech", "light"):
            continue
        assert course(event, event.onset_s) == 0.0
        assert course(event, event.apex_s) == 1.0
        assert course(event, event.offset_s) == 0.0
        assert course(event, event.onset_s + 1e-3) > 0.0
        assert course(event, event.offset_s - 1e-3) > 0.0


def test_speech_opens_the_mouth_several_times_and_ends_closed() -> None:
    event = next(event for event in plan(HARD, 60.0, 1) if event.kind == "speech")
    times = np.linspace(event.onset_s, event.offset_s, 400)
    opening = np.array([speech_course(event, time_s)[0] for time_s in times])
    assert opening[0] == opening[-1] == 0.0
    assert 0.3 < opening.max() <= 1.0
    peaks = (opening[1:-1] > opening[:-2]) & (opening[1:-1] > opening[2:])
    assert 2 <= peaks.sum() / (event.offset_s - event.onset_s) <= 7


def test_brightness_stays_near_where_it_began() -> None:
    script = replace(STILL, light_per_min=30.0)
    levels = np.cumprod([1 + event.change for event in plan(script, 600.0, 0)])
    assert len(levels) > 100
    assert 0.8 <= levels.min() < levels.max() <= 1.2


# --- the tables ------------------------------------------------------------------------------------------


def test_every_emotion_is_made_of_known_action_units_and_places(photo: np.ndarray) -> None:
    places = source_of(photo)._rig.places
    assert set(table().prototypes) == set(EMOTIONS)
    assert {au for sets in table().prototypes.values() for units in sets for au in units} <= set(MOVEMENTS)
    for movement in MOVEMENTS.values():
        for move in movement.moves:
            assert move.place in MIDLINE or {f"right_{move.place}", f"left_{move.place}"} <= set(places)


# Where FACS says that a point goes: (action unit, landmark stem, outwards, up), 0 = not stated.
DIRECTIONS = [
    ("AU1", "brow_inner", 0, 1),
    ("AU2", "brow_outer_mid", 0, 1),
    ("AU4", "brow_inner", -1, -1),
    ("AU9", "nose_wing", 0, 1),
    ("AU10", "upper_lip", 0, 1),
    ("AU12", "mouth", 1, 1),
    ("AU14", "mouth", 1, 0),
    ("AU15", "mouth", 0, -1),
    ("AU16", "lower_lip", 0, -1),
    ("AU17", "lower_lip", 0, 1),
    ("AU20", "mouth", 1, 0),
    ("AU23", "mouth", -1, 0),
    ("AU24", "upper_lip", 0, -1),
    ("AU24", "lower_lip", 0, 1),
]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("direction", DIRECTIONS, ids=lambda row: f"{row[0]}-{row[1]}")
def test_points_go_where_facs_says(
    direction: tuple[str, str, int, int], side: str, photo: np.ndarray
) -> None:
    au, stem, out, up = direction
    source = planted(source_of(photo), expression(au, side))
    moved = (source.landmarks_at(0.2) - source.landmarks) / (0.02 * source.iod_px)
    for half in ("right", "left"):
        name = f"{stem}_{half}" if f"{stem}_{half}" in LANDMARKS else f"{half}_{stem}"
        across, down = moved[LANDMARKS.index(name)]
        outwards = across if half == "left" else -across
        if side in (half, "both"):
            assert outwards * out > 0.15 or not out
            assert -down * up > 0.25 or not up
        else:
            assert np.hypot(across, down) < 0.45, "the other side is at most dragged along"


@pytest.mark.parametrize("au", sorted(set(MOVEMENTS) - {"AU45"}))
def test_the_largest_displacement_is_the_planted_peak(au: str, photo: np.ndarray) -> None:
    rig = source_of(photo)._rig
    pose = rig.pose((ActionUnit(au, "both", 1.0),), 0.02)
    skin = float(np.hypot(pose.field[..., 0], pose.field[..., 1]).max())
    edges = float(max(np.abs(pose.lids).max(), pose.lips.max()))
    assert max(skin, edges) <= 0.02 * rig.iod_px * 1.001
    assert max(skin, edges) >= 0.5 * 0.02 * rig.iod_px
    twice = rig.pose((ActionUnit(au, "both", 1.0),), 0.04)
    np.testing.assert_allclose(twice.field, 2 * pose.field, rtol=1e-4, atol=1e-6)


# --- the picture -----------------------------------------------------------------------------------------


def test_without_motion_and_noise_all_frames_are_equal(photo: np.ndarray) -> None:
    frames = [frame.luma for frame in source_of(photo, seconds=0.05).frames()]
    assert len(frames) == 10
    assert all(np.array_equal(frames[0], frame) for frame in frames)


def test_an_event_changes_frames_only_between_onset_and_offset(photo: np.ndarray) -> None:
    source = planted(source_of(photo, seconds=0.4), expression("AU12"))
    frames = [frame.luma for frame in source.frames()]
    changed = [not np.array_equal(frames[0], frame) for frame in frames]
    times = np.arange(len(frames)) / 200
    assert not any(np.array(changed)[(times <= 0.1) | (times >= 0.3)])
    assert all(np.array(changed)[(times >= 0.12) & (times <= 0.28)])


def test_the_image_moves_as_far_as_the_truth_says(photo: np.ndarray) -> None:
    source = planted(source_of(photo), expression("AU12", peak=0.02))
    before, apex = image_at(source, 0.0), image_at(source, 0.2)
    flow_of = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow_of.setFinestScale(0)
    flow = flow_of.calc(before, apex, None)
    truth = source.landmarks_at(0.2) - source.landmarks
    for name in ("mouth_right", "mouth_left"):
        index = LANDMARKS.index(name)
        x, y = np.rint(source.landmarks[index]).astype(int)
        seen = flow[y - 3 : y + 4, x - 3 : x + 4].mean((0, 1))
        np.testing.assert_allclose(seen, truth[index], atol=0.35 * 0.02 * source.iod_px)


def test_a_blink_covers_the_eyes_and_gives_them_back(photo: np.ndarray) -> None:
    source = planted(source_of(photo), expression("AU45", peak=1.0, kind="blink"))
    opened, shut, after = (image_at(source, time_s) for time_s in (0.0, 0.2, 0.35))
    np.testing.assert_array_equal(opened, after)
    points = dict(zip(LANDMARKS, source.landmarks, strict=True))
    for side in ("right", "left"):
        x, y = np.rint((points[f"{side}_eye_outer"] + points[f"{side}_eye_inner"]) / 2).astype(int)
        eye = np.s_[y - 8 : y + 5, x - 8 : x + 9]
        pupil = opened[eye] < np.percentile(opened[eye], 25)
        assert shut[eye][pupil].mean() > opened[eye][pupil].mean() + 25, "skin is brighter than the pupil"
    changed = np.argwhere(opened != shut)
    spread = changed.max(0) - changed.min(0)
    assert spread[0] < 0.7 * source.iod_px, "a blink moves the eye region alone"


def test_the_background_stands_still_while_the_head_moves(photo: np.ndarray) -> None:
    source = source_of(photo, replace(STILL, head_motion=2.0), rate_hz=4.0, seconds=5.0)
    frames = [frame.luma for frame in source.frames()]
    x, y, width, height = source._rig.region
    outside = np.ones(frames[0].shape, bool)
    outside[y : y + height, x : x + width] = False
    assert outside.any()
    assert all(np.array_equal(frames[0][outside], frame[outside]) for frame in frames)
    moves = [source.landmarks_at(frame / 4).mean(0) for frame in range(20)]
    assert np.ptp(moves, axis=0).max() > 2.0


def test_a_head_turn_moves_the_nose_more_than_the_temples(photo: np.ndarray) -> None:
    turn = PlantedEvent("head turn", 0.1, 0.2, 0.3, change=8.0)
    source = planted(source_of(photo), turn)
    moved = source.landmarks_at(0.2) - source.landmarks
    nose = moved[LANDMARKS.index("nose_tip"), 0]
    temples = [moved[LANDMARKS.index(f"{side}_temple"), 0] for side in ("right", "left")]
    assert nose > 1.3 * max(temples)
    assert nose > 0.05 * source.iod_px


def test_noise_has_the_asked_size_and_never_repeats(photo: np.ndarray) -> None:
    source = source_of(photo, replace(STILL, noise=2.0), seconds=0.1)
    frames = np.stack([frame.luma for frame in source.frames()]).astype(np.float32)
    still = next(source_of(photo).frames()).luma
    mid_grey = (still > 118) & (still < 138)
    assert frames[:, mid_grey].std(0).mean() == pytest.approx(2.0, abs=0.25)
    for earlier, later in pairwise(frames):
        assert not np.array_equal(earlier, later)


def test_light_changes_the_whole_frame_by_its_ratio(photo: np.ndarray) -> None:
    source = planted(source_of(photo), PlantedEvent("light", 0.1, 0.12, 0.12, change=-0.1))
    before, after = image_at(source, 0.0).astype(float), image_at(source, 0.2).astype(float)
    assert after.mean() / before.mean() == pytest.approx(0.9, abs=0.005)


def test_lost_frames_show_as_jumps_of_the_sequence(photo: np.ndarray) -> None:
    source = source_of(photo, replace(STILL, lost_frames=0.2), seconds=1.0, size=(160, 120))
    frames = list(source.frames())
    assert 120 < len(frames) < 190
    assert all(frame.timestamp_ns == frame.sequence * 5_000_000 for frame in frames)


@pytest.mark.parametrize("size", [(640, 480), (320, 240), (200, 640), (1280, 720), (64, 64)])
def test_any_frame_size_holds_the_whole_face(size: tuple[int, int], photo: np.ndarray) -> None:
    source = source_of(photo, HARD, size=size, seconds=0.02, seed=1)
    frames = list(source.frames())
    assert all(frame.luma.shape == (size[1], size[0]) for frame in frames)
    assert source.landmarks.min() >= 0
    assert (source.landmarks.max(0) < size).all()


def test_a_portrait_without_its_package_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portrait.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SourceError, match=r"pip install 'microedge\[demo\]'"):
        load_portrait()


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"rate_hz": 0.0}, "rate 0 Hz"), ({"seconds": -1.0}, "-1 s"), ({"size": (10, 10)}, "size \\(10, 10\\)")],
)
def test_impossible_streams_are_refused(changes: dict[str, object], says: str, photo: np.ndarray) -> None:
    with pytest.raises(SourceError, match=says):
        source_of(photo, **changes)


def test_wrong_pictures_and_landmarks_are_refused(photo: np.ndarray) -> None:
    with pytest.raises(SourceError, match="not \\(rows, columns\\) uint8 luma"):
        SyntheticSource(photo.astype(np.float32), portrait_landmarks(), seconds=1.0)  # type: ignore[arg-type]
    with pytest.raises(SourceError, match="not \\(56, 2\\)"):
        SyntheticSource(photo, portrait_landmarks()[:51], seconds=1.0)
    with pytest.raises(SourceError, match="cannot be animated"):
        SyntheticSource(photo, portrait_landmarks() * 0, seconds=1.0)
