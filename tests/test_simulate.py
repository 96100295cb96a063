"""The training simulator: its truth is what its pictures show."""

import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.emotions import table
from edge.frames.portrait import load_portrait, portrait_landmarks
from edge.frames.replay import ReplaySource
from edge.motion import RegionalMotion
from edge.records import CROP_IOD_PX, EMOTIONS, LANDMARKS
from edge.regions import CHANNELS
from tools.simulate.clips import RenderedClip, write_video
from tools.simulate.codec import H264
from tools.simulate.confusers import CONFUSERS
from tools.simulate.expressions import expression, macro
from tools.simulate.film import Film
from tools.simulate.rig import Pose, Rig
from tools.simulate.script import Mix, Writer, profile
from tools.simulate.sensor import Alignment, Conditions, Sensor
from tools.simulate.sheet import confuser_row
from tools.simulate.signals import draw_losses, measure
from tools.simulate.skin import Patch
from tools.simulate.timeline import Scene

MODEL = (
    Path(os.environ.get("MICROEDGE_DATA", Path(__file__).resolve().parents[2] / "shared"))
    / "ict_facekit"
    / "ict_expressions.npz"
)
QUIET = Conditions(iod_px=100.0)
BROWS, EYES, MOUTH = (
    [number for number, name in enumerate(LANDMARKS) if part in name] for part in ("brow", "eye", "lip")
)
CHIN = LANDMARKS.index("chin")


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


def centred(rig: Rig, iod_px: float, side: int) -> np.ndarray:
    """A camera that has the face in the middle of a square of `side` px."""
    scale = iod_px / rig.iod_px
    corner = scale * rig.landmarks(weights(rig), Pose()).mean(axis=0) - side / 2
    return np.array([[scale, 0, -corner[0]], [0, scale, -corner[1]]], np.float32)


def box_of(points: np.ndarray, margin: float) -> tuple[slice, slice]:
    low, high = points.min(axis=0) - margin, points.max(axis=0) + margin
    return np.s_[int(low[1]) : int(high[1]), int(low[0]) : int(high[0])]


class Played:
    """One confuser alone, a second after the clip's start, seen as landmarks (IOD) and as curves."""

    def __init__(self, rig: Rig, kind: str, seed: int) -> None:
        scene = Scene.of(rig, np.random.default_rng(seed), 6.0)
        CONFUSERS[kind](scene, 1.0)
        self.script = scene.script
        self.kinds = {planted.kind for planted in scene.script.planted}
        self.onset_s = min(planted.onset_s for planted in scene.script.planted)
        self.offset_s = max(planted.offset_s for planted in scene.script.planted)
        times = np.arange(0.9, min(self.offset_s + 0.1, 5.9), 0.02)
        moments = [scene.script.at(time_s) for time_s in times]
        points = np.array([rig.landmarks(moment.weights, moment.pose) for moment in moments])
        self.moved = np.linalg.norm(points - points[0], axis=2).max(axis=0) / rig.iod_px
        """(56,) greatest displacement of each landmark, IOD."""
        self.risen = (points[0, :, 1] - points[:, :, 1]).max(axis=0) / rig.iod_px

    def changed(self, name: str) -> bool:
        curve = getattr(self.script, name)
        return bool(np.abs(curve - curve[0]).max() > 1e-6)


# What a script holds


def test_a_profile_is_zero_outside_one_at_the_apex_and_smooth_between():
    times = np.linspace(0, 1, 1001).astype(np.float32)
    curve = profile(times, 0.2, 0.35, 0.6)
    assert curve[times < 0.2].max() == 0
    assert curve[times > 0.6].max() == 0
    assert curve[350] == pytest.approx(1.0, abs=1e-3)
    assert np.abs(np.diff(curve)).max() < 0.02


def test_a_script_keeps_to_its_mix_and_is_the_same_for_the_same_seed(rig):
    only_micro = Mix(micro=1.0, long_share=0.0, peak_iod=(0.01, 0.02))
    one, other = (Writer(rig, np.random.default_rng(5), only_micro).write(8.0) for _ in range(2))
    micro = [planted for planted in one.planted if planted.kind == "micro"]
    assert one.planted == other.planted
    assert np.array_equal(one.curves, other.curves)
    assert len(micro) >= 4
    assert all(0.04 <= p.offset_s - p.onset_s <= 0.2 and 0.01 <= p.peak_iod <= 0.02 for p in micro)
    assert all(p.onset_s < p.apex_s < p.offset_s for p in one.planted)


def test_every_kind_of_confuser_turns_up_in_a_long_script(rig):
    scripts = [Writer(rig, np.random.default_rng(seed), Mix(micro=0.0)).write(20.0) for seed in range(12)]
    assert {planted.kind for script in scripts for planted in script.planted} == set(CONFUSERS)


def test_cameras_of_any_rate_film_the_same_events_and_the_same_movement(rig):
    clips = {
        rate: RenderedClip(rig, seconds=2.0, rate_hz=rate, mix=Mix(), conditions=QUIET, seed=11)
        for rate in (200.0, 120.0, 90.0)
    }
    truths = [clip.truth for clip in clips.values()]
    assert truths[0] == truths[1] == truths[2]
    shots = {}
    for rate in (200.0, 120.0, 90.0):
        script = Writer(rig, np.random.default_rng([11, 1]), Mix()).write(2.0)
        share = rate / 2000.0  # so that all three expose for half a millisecond
        film = Film(
            rig,
            script,
            replace(QUIET, exposure_share=share),
            rate_hz=rate,
            size=(120, 120),
            rng=np.random.default_rng(0),
        )
        every = round(rate / 10)
        lost = np.arange(film.frames) % every != 0
        shots[rate] = [(shot.time_s, shot.landmarks) for shot in film.shots(lost)]
    for slow in (120.0, 90.0):
        for (time_s, points), (slow_s, slow_points) in zip(shots[200.0], shots[slow], strict=True):
            assert slow_s == pytest.approx(time_s)
            assert np.abs(points - slow_points).max() < 0.05


def test_happiness_is_never_one_sided_and_contempt_always_is(rig):
    scene = Scene.of(rig, np.random.default_rng(2), 1.0)
    corners = [rig.shapes.index(f"{name}_{side}") for name in ("mouthSmile", "mouthDimple") for side in "RL"]
    weak = {"happiness": [], "contempt": []}
    for emotion, shares in weak.items():
        for _ in range(200):
            drawn = expression(scene, emotion)[0][corners].reshape(2, 2)
            pair = drawn[drawn.any(axis=1)]
            shares.extend(pair.min(axis=1) / pair.max(axis=1))
    assert min(weak["happiness"]) >= 0.45
    assert max(weak["contempt"]) <= 0.15


def test_other_movements_are_no_emotions_action_units(rig):
    scene = Scene.of(rig, np.random.default_rng(3), 1.0)
    known = {frozenset(units) for sets in table().prototypes.values() for units in sets}
    for _ in range(100):
        _, units = expression(scene, "other")
        assert frozenset(au for au, _ in units) not in known


def test_every_emotion_shows_in_the_ways_that_the_table_lists(rig):
    scene = Scene.of(rig, np.random.default_rng(4), 1.0)
    for emotion in EMOTIONS:
        seen = {tuple(au for au, _ in expression(scene, emotion)[1]) for _ in range(150)}
        assert seen == set(table().prototypes[emotion])


def test_some_ordinary_expressions_rise_as_fast_as_a_micro_one_and_stay(rig):
    scene = Scene.of(rig, np.random.default_rng(6), 1.0)
    for _ in range(120):
        macro(scene, 0.1)
    fast = [
        p
        for p in scene.script.planted
        if p.apex_s - p.onset_s <= 0.12 and p.offset_s - p.onset_s >= 0.65 and p.peak_iod > 0
    ]
    assert len(fast) > 18


# What each confuser does


@pytest.mark.parametrize("kind", sorted(CONFUSERS))
def test_a_confuser_plants_its_own_kind_and_is_over_when_it_says(rig, kind):
    for seed in range(6):
        played = Played(rig, kind, seed)
        assert played.kinds == {kind}
        times = played.script.times_s
        outside = (times < played.onset_s - 0.002) | (times > played.offset_s + 0.002)
        for name in ("weights", "poses", "gaze_iod", "camera"):
            curve = getattr(played.script, name)
            assert np.abs(curve[outside]).max() < 1e-5


def test_a_blink_moves_lids_alone_and_often_one_eye_or_half_way(rig):
    right = [LANDMARKS.index(f"right_eye_upper_{part}") for part in ("outer", "inner")]
    left = [LANDMARKS.index(f"left_eye_upper_{part}") for part in ("outer", "inner")]
    lids = [number for number, name in enumerate(rig.shapes) if name.startswith("eyeBlink")]
    one_eyed, depths = 0, []
    for seed in range(80):
        played = Played(rig, "blink", seed)
        sides = [played.moved[side].mean() for side in (right, left)]
        one_eyed += min(sides) < 0.2 * max(sides)
        depths.append(np.abs(played.script.weights[:, lids]).max() / rig.eye_shut)
        assert played.moved[MOUTH].max() < 0.01
    assert 5 <= one_eyed <= 22
    assert sum(depth < 0.65 for depth in depths) > 10
    assert sum(depth > 1.0 for depth in depths) > 30


def test_a_full_blink_hides_the_eye(rig):
    camera, points = centred(rig, 150.0, 340), rig.landmarks(weights(rig), Pose())
    eye = [LANDMARKS.index(f"right_eye_{name}") for name in ("outer", "inner", "lower_inner", "upper_outer")]
    box = box_of(points[eye] @ camera[:, :2].T + camera[:, 2], -2)
    open_eye, shut_eye = (
        rig.render(weights(rig, eyeBlink=closed), Pose(), (0.0, 0.0), camera, (340, 340))[box].astype(float)
        for closed in (0.0, 1.05 * rig.eye_shut)
    )
    assert shut_eye.mean() > open_eye.mean() + 12  # the portrait's lid is brighter than its iris and lashes
    assert np.corrcoef(open_eye.ravel(), shut_eye.ravel())[0, 1] < 0.5


def test_a_brow_flash_raises_the_brows_widely_and_leaves_the_mouth(rig):
    for seed in range(8):
        played = Played(rig, "brow flash", seed)
        assert played.risen[BROWS].max() > 0.02
        assert played.moved[MOUTH].max() < 0.3 * played.moved[BROWS].max()
        assert 0.25 <= played.offset_s - played.onset_s <= 0.7


@pytest.mark.parametrize("kind", ["speech", "chewing", "swallow", "fidget"])
def test_mouth_confusers_move_the_mouth_against_the_rest_of_the_face(rig, kind):
    for seed in range(8):
        played = Played(rig, kind, seed)
        played.script.poses[:] = 0  # the nod that goes along is not what is looked at
        active = played.script.weights[
            int(1000 * (played.onset_s + 0.35 * (played.offset_s - played.onset_s)))
        ]
        moved = rig.landmarks(active, Pose()) - rig.landmarks(weights(rig), Pose())
        size = np.linalg.norm(moved, axis=1) / rig.iod_px
        assert size[[*MOUTH, CHIN]].max() > 0.004
        assert size[BROWS].max() < 0.15 * size[[*MOUTH, CHIN]].max()


def test_gaze_shifts_change_the_picture_only_about_the_eyes(rig):
    row = confuser_row(rig, "gaze", np.random.default_rng(1), 100.0)
    change = np.abs(row.apex.astype(int) - row.before)
    camera = centred(rig, 100.0, 260)
    points = rig.landmarks(weights(rig), Pose()) @ camera[:, :2].T + camera[:, 2]
    around = np.zeros(change.shape, bool)
    around[box_of(points[EYES], 22)] = True
    assert change[around].max() > 25
    assert change[~around].max() <= 2


def test_head_moves_and_chair_rocking_leave_the_expression_alone(rig):
    for kind in ("head", "vibration"):
        for seed in range(10):
            played = Played(rig, kind, seed)
            assert not played.changed("weights")
            assert played.changed("poses") or played.changed("camera")


def test_a_vibrating_camera_moves_background_and_face_alike(rig):
    for seed in range(20):
        played = Played(rig, "vibration", seed)
        if played.changed("camera"):
            break
    strongest = int(np.argmax(np.abs(played.script.camera[:, :2]).sum(axis=1)))
    film = Film(
        rig,
        played.script,
        replace(QUIET, exposure_share=0.01),
        rate_hz=1000.0,
        size=(420, 420),
        rng=np.random.default_rng(0),
    )
    lost = np.ones(film.frames, bool)
    lost[[0, strongest]] = False
    before, after = (shot.luma.astype(np.float32) for shot in film.shots(lost))
    x, y, roll = played.script.at(strongest / 1000).camera
    turn = cv2.getRotationMatrix2D((210, 210), -np.degrees(roll), 1.0)
    turn[:, 2] += QUIET.iod_px * np.array([x, y])
    shaken = cv2.warpAffine(before, turn, (420, 420), borderMode=cv2.BORDER_REPLICATE)
    for part in (np.s_[120:300, 120:300], np.s_[300:410, 10:410]):
        assert np.abs(after - shaken)[part].mean() < 0.4 * np.abs(after - before)[part].mean()


def test_light_changes_move_nothing_and_gain_brings_noise(rig):
    gained = 0
    for seed in range(20):
        played = Played(rig, "light", seed)
        assert played.moved.max() == 0
        assert played.changed("light")
        gained += played.changed("gain")
    assert 4 <= gained <= 14


# What a rendered frame shows


def test_a_neutral_rig_gives_the_photo_back(rig):
    identity = np.eye(2, 3, dtype=np.float32)
    height, width = rig.photo.shape
    frame = rig.render(weights(rig), Pose(), (0.0, 0.0), identity, (width, height))
    assert np.abs(frame.astype(int) - rig.photo).mean() < 1.0


def test_nothing_pops_in_with_the_first_trace_of_a_movement(rig):
    camera, pose = centred(rig, 100.0, 230), Pose(0.05, 0.03, 0.02)

    def look(gaze: float = 0.0, **shapes: float) -> np.ndarray:
        return rig.render(weights(rig, **shapes), pose, (gaze, 0.0), camera, (230, 230)).astype(int)

    rest = look()
    for trace in (look(jawOpen=1e-6), look(browInnerUp=1e-6), look(gaze=1e-7)):
        assert np.abs(trace - rest).max() <= 1


def test_skin_is_found_again_wherever_lids_and_lips_have_taken_it():
    rows, columns = 60, 40
    y = np.linspace(0, 1, rows)[:, None] * np.ones(columns)
    x = np.linspace(0, 1, columns) * np.ones((rows, 1))
    # Down by 0.24 at 0.4, so the skin above is stretched by half and that below squeezed to a third.
    down = 0.24 * np.interp(y, [0.0, 0.2, 0.4, 0.76, 1.0], [0.0, 0.0, 1.0, 0.0, 0.0]) * np.sin(np.pi * x)
    across = 0.05 * np.sin(np.pi * x) * np.sin(np.pi * y)
    moves = np.dstack([across * columns, down * rows, np.zeros_like(x)])[None].astype(np.float32)
    patch = Patch(np.zeros(2), (1.0, 1.0), moves)
    back = patch.back(np.ones(1, np.float32), np.eye(2, 3))
    column, row = np.meshgrid(np.arange(columns, dtype=np.float32), np.arange(rows, dtype=np.float32))
    source = np.dstack([column, row]) + back
    again = source + cv2.remap(moves[0, :, :, :2].copy(), source.astype(np.float32), None, cv2.INTER_LINEAR)
    inner = np.s_[4:-4, 3:-3]
    assert np.abs(again - np.dstack([column, row]))[inner].max() < 0.25
    assert np.array_equal(patch.back(np.zeros(1, np.float32), np.eye(2, 3)), np.zeros_like(back))


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
    camera, points = centred(rig, 100.0, 260), rig.landmarks(weights(rig), Pose())
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


def test_what_the_device_measures_rises_and_peaks_when_the_truth_says(rig):
    scene = Scene.of(rig, np.random.default_rng(8), 1.0)
    smile = weights(rig, mouthSmile=1.0)
    onset, apex, offset = 0.5, 0.56, 0.66
    scene.play(scene.pulse(onset, apex, offset), smile * (0.02 / rig.size_of(smile)))
    conditions = replace(QUIET, exposure_share=0.2)
    times, values = measure(
        rig, scene.script, conditions, 200.0, np.zeros(200, bool), np.random.default_rng(0)
    )
    risen = -values[:, CHANNELS.index("right_lip_corner.y")]
    risen -= np.median(risen[times < onset])
    assert times[np.argmax(risen)] == pytest.approx(apex, abs=0.0051)
    moving = times[risen > 0.15 * risen.max()]
    assert moving[0] == pytest.approx(onset, abs=0.025)
    assert moving[-1] == pytest.approx(offset, abs=0.04)
    assert risen.max() > 0.006


# What the camera makes of it


def test_the_sensor_is_deterministic_and_its_noise_has_the_stated_size():
    clean = np.full((200, 200), 128, np.uint8)
    for noisy in (replace(QUIET, noise=3.0), replace(QUIET, noise=12.0, grain_px=0.8)):
        first = Sensor(noisy, np.random.default_rng(1)).expose(clean, 1.0, 0.0)
        again = Sensor(noisy, np.random.default_rng(1)).expose(clean, 1.0, 0.0)
        assert np.array_equal(first, again)
        assert first.std() == pytest.approx(noisy.noise, rel=0.05)
        assert Sensor(noisy, np.random.default_rng(1)).expose(clean, 1.0, 0.0, 1.3).std() == pytest.approx(
            1.3 * noisy.noise, rel=0.05
        )


def brightness(conditions: Conditions, rate_hz: float, frames: int) -> np.ndarray:
    """Mean luma (frames, rows) of a grey wall."""
    sensor, wall = Sensor(conditions, np.random.default_rng(0), rate_hz), np.full((96, 32), 120, np.uint8)
    return np.array([sensor.expose(wall, 1.0, number / rate_hz).mean(axis=1) for number in range(frames)])


@pytest.mark.parametrize(
    ("mains_hz", "rate_hz", "beat_hz"), [(100.0, 90.0, 10.0), (120.0, 200.0, 80.0), (100.0, 120.0, 20.0)]
)
def test_lamps_flicker_at_their_beat_with_the_frame_rate(mains_hz, rate_hz, beat_hz):
    lit = replace(QUIET, mains_hz=mains_hz, mains_depth=0.2, exposure_share=0.2)
    curve = brightness(lit, rate_hz, int(2 * rate_hz)).mean(axis=1)
    spectrum = np.abs(np.fft.rfft(curve - curve.mean()))
    assert np.fft.rfftfreq(len(curve), 1 / rate_hz)[np.argmax(spectrum)] == pytest.approx(beat_hz)


def test_an_exposure_of_a_whole_lamp_cycle_sees_no_flicker():
    lit = replace(QUIET, mains_hz=100.0, mains_depth=0.25, exposure_share=0.9)
    assert np.ptp(brightness(lit, 90.0, 60)) == 0
    assert np.ptp(brightness(replace(lit, exposure_share=0.2), 90.0, 60).mean(axis=1)) > 20


def test_a_rolling_shutter_shows_bands_that_drift_and_a_global_one_none():
    lit = replace(QUIET, mains_hz=100.0, mains_depth=0.2, exposure_share=0.2)
    rolling = brightness(replace(lit, line_us=100.0), 90.0, 12)
    assert np.ptp(rolling, axis=1).min() > 10
    assert len({int(np.argmax(rows)) for rows in rolling}) > 3
    assert np.ptp(brightness(lit, 90.0, 12), axis=1).max() == 0


def scene_picture(shift: int) -> np.ndarray:
    y, x = np.mgrid[0:128, 0:160]
    noise = np.random.default_rng(4).normal(0, 6, (128, 160))
    picture = 120 + 60 * np.sin((x + shift) / 9.0) * np.cos(y / 7.0) + noise
    return np.clip(picture, 0, 255).astype(np.uint8)


def test_frames_really_pass_through_the_codec():
    loss = {}
    for crf in (18, 30):
        codec = H264((160, 128), rate_hz=200.0, crf=crf, preset="ultrafast")
        sizes, errors = [], []
        for number in range(12):
            sent = scene_picture(number)
            before = codec.bytes
            shown = codec.pass_through(sent)
            sizes.append(codec.bytes - before)
            errors.append(np.abs(shown.astype(int) - sent).mean())
            assert shown.shape == sent.shape
        loss[crf] = np.mean(errors)
        assert all(size > 0 for size in sizes)
        assert sizes[0] > 1.3 * np.median(sizes[1:])  # the first is coded alone, the others from it
    assert 0.3 < loss[18] < loss[30] < 12


def test_the_codec_refuses_odd_sizes_with_the_size():
    with pytest.raises(ValueError, match="161 x 128"):
        H264((161, 128), rate_hz=200.0, crf=23, preset="veryfast")


def moving_film(rig: Rig, **conditions: float) -> Film:
    """A head that shifts sideways quickly."""
    scene = Scene.of(rig, np.random.default_rng(0), 0.4)
    scene.script.poses[:, 3] = 3.0 * np.maximum(scene.script.times_s - 0.05, 0)
    return Film(
        rig,
        scene.script,
        replace(QUIET, **conditions),
        rate_hz=50.0,
        size=(230, 230),
        rng=np.random.default_rng(0),
    )


def test_long_exposures_blur_what_moves_and_leave_what_is_still(rig):
    sharpness = {}
    for share in (0.05, 1.0):
        shots = [shot.luma.astype(np.float32) for shot in moving_film(rig, exposure_share=share).shots()]
        sharpness[share] = [float(np.abs(np.diff(shots[number], axis=1)).mean()) for number in (0, 6)]
    assert sharpness[1.0][0] == pytest.approx(sharpness[0.05][0], rel=0.02)
    assert sharpness[1.0][1] < 0.8 * sharpness[0.05][1]


def test_the_same_seed_films_the_same_frames_and_lost_ones_are_left_out(rig):
    lost = np.zeros(20, bool)
    lost[[3, 4]] = True
    night = {"noise": 9.0, "contrast": 0.4, "mains_hz": 100.0, "mains_depth": 0.1, "line_us": 12.0}
    one, other = (list(moving_film(rig, **night, crf=25).shots(lost)) for _ in range(2))
    assert [shot.number for shot in one] == [0, 1, 2, *range(5, 20)]
    assert all(np.array_equal(a.luma, b.luma) for a, b in zip(one, other, strict=True))


def test_conditions_span_cameras_from_daylight_to_night():
    drawn = [Conditions.draw(np.random.default_rng(seed)) for seed in range(400)]
    sizes = np.array([conditions.iod_px for conditions in drawn])
    assert 40 <= sizes.min() < 45
    assert 180 < sizes.max() <= 200
    assert {conditions.noise for conditions in drawn} >= {1.0, 12.0}
    assert all(c.contrast <= 0.7 for c in drawn if c.noise >= 7)
    assert 0.2 < np.mean([conditions.crf > 0 for conditions in drawn]) < 0.4
    assert {round(c.mains_hz) for c in drawn} == {0, 100, 120}


def test_lost_frames_come_singly_and_in_bursts():
    drawn = [draw_losses(np.random.default_rng(seed), 1600) for seed in range(200)]
    longest = [
        max((len(run) for run in "".join("x" if one else " " for one in lost).split()), default=0)
        for lost in drawn
    ]
    assert sum(run == 0 for run in longest) > 60
    assert sum(run >= 3 for run in longest) > 10
    assert max(longest) < 25


def test_signals_are_the_devices_channels_without_the_lost_frames(rig):
    script = Writer(rig, np.random.default_rng(1), Mix()).write(1.0)
    lost = np.zeros(60, bool)
    lost[20:25] = True
    conditions = replace(QUIET, iod_px=60.0, noise=3.0, crf=24)
    times, values = measure(rig, script, conditions, 60.0, lost, np.random.default_rng(0))
    assert values.shape == (60 - 5 - 1, len(CHANNELS))
    assert np.isfinite(values).all()
    assert np.diff(times).max() == pytest.approx(6 / 60)


def test_a_clip_becomes_a_video_of_its_rate(rig, tmp_path):
    clip = RenderedClip(
        rig,
        seconds=0.2,
        rate_hz=59.94,
        mix=Mix(),
        conditions=replace(QUIET, iod_px=50.0),
        seed=1,
        size=(240, 180),
    )
    for name, crf in (("good", 18), ("poor", 34), ("lossless", None)):
        write_video(clip, tmp_path / f"{name}.mkv", crf=crf)
    sizes = [(tmp_path / f"{name}.mkv").stat().st_size for name in ("poor", "good", "lossless")]
    assert sizes == sorted(sizes)
    source = ReplaySource(tmp_path / "lossless.mkv")
    frames = list(source.frames())
    source.close()
    assert len(frames) == 11
    assert frames[-1].timestamp_ns == pytest.approx(10 / 59.94 * 1e9, rel=0.01)
