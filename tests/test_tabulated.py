"""The fast simulator: it answers as the rendered chain and the device's own arithmetic do."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the simulator fits faces with scipy")

from edge import motion
from edge.frames.portrait import load_portrait, portrait_landmarks
from edge.records import CROP_IOD_PX, CROP_SIZE, LANDMARKS, TrackedFace
from edge.regions import CHANNELS, REGIONS
from tools.simulate import signals, tabulated, tabulated_bench, tabulated_motion
from tools.simulate.rig import Rig
from tools.simulate.sensor import Alignment, Conditions
from tools.simulate.timeline import Planted, Script, profile

MODEL = (
    Path(os.environ.get("MICROEDGE_DATA", Path(__file__).resolve().parents[2] / "shared"))
    / "ict_facekit"
    / "ict_expressions.npz"
)
RATE_HZ = 200.0
CAMERA = Conditions(iod_px=90.0, noise=3.0, contrast=0.9)


@pytest.fixture(scope="module")
def face() -> tabulated.Face:
    if not MODEL.is_file():
        pytest.skip(f"no {MODEL}; set MICROEDGE_DATA")
    from tools.simulate import ict

    depth = np.zeros(len(LANDMARKS), np.float32)
    return tabulated.Face(Rig(ict.load(MODEL), load_portrait(), portrait_landmarks(), depth))


def script_of(face: tabulated.Face, seconds: float, peak_iod: float = 0.0, **shapes: float) -> Script:
    """A script in which the given shapes come and go between 0.3 and 0.5 s."""
    script = Script(seconds, len(face.rig.shapes))
    weights = np.zeros(len(face.rig.shapes), np.float32)
    for number, name in enumerate(face.rig.shapes):
        weights[number] = shapes.get(name, shapes.get(name.removesuffix("_L").removesuffix("_R"), 0.0))
    if peak_iod:
        weights *= peak_iod / face.rig.size_of(weights)
    script.weights[:] = profile(script.times_s, 0.3, 0.4, 0.5)[:, None] * weights
    script.planted.append(Planted("micro", 0.3, 0.4, 0.5))
    return script


def measured(way: object, what: object, script: Script, camera: Conditions, seed: int = 0) -> np.ndarray:
    lost = np.zeros(int(script.duration_s * RATE_HZ), bool)
    times, values = way(what, script, camera, RATE_HZ, lost, np.random.default_rng(seed))  # type: ignore[operator]
    assert len(times) == len(values) == len(lost) - 1
    return values


def skin_px(values: np.ndarray) -> np.ndarray:
    return values[:, : 2 * len(REGIONS)].reshape(len(values), -1, 2) * CROP_IOD_PX


def portrait_crops(shifts_px: np.ndarray) -> list[TrackedFace]:
    """The portrait's face in an aligned crop, shifted."""
    import cv2

    photo, points = load_portrait(), portrait_landmarks()
    right, left = (points[LANDMARKS.index(f"{side}_eye_outer")] for side in ("right", "left"))
    scale = CROP_IOD_PX / np.linalg.norm(left - right)
    faces = []
    for shift in shifts_px:
        corner = np.array([64.0, 44.0]) - scale * (right + left) / 2 + shift
        matrix = np.array([[scale, 0, corner[0]], [0, scale, corner[1]]], np.float32)
        crop = cv2.warpAffine(photo, matrix, (CROP_SIZE, CROP_SIZE))
        still = matrix - np.array([[0, 0, shift[0]], [0, 0, shift[1]]], np.float32)
        landmarks = (points @ still[:, :2].T + still[:, 2]).astype(np.float32)
        # The crop is said to have stayed where it was: what moved is the head.
        faces.append(TrackedFace(1, landmarks, still, crop, 100.0, 160.0, 1.0, 0))
    return faces


def test_the_head_motion_fit_is_the_devices():
    face = portrait_crops(np.zeros((1, 2)))[0]
    anchor = motion._Anchor(tabulated_bench.picture_of(face), face)
    rng = np.random.default_rng(1)
    shift = rng.normal(0, 0.8, (6, len(REGIONS), 2)).astype(np.float32)
    residual = rng.uniform(0, 1, (6, len(REGIONS))).astype(np.float32)
    found = tabulated_motion.head_motion(anchor.rows, anchor.windows.information, shift, residual)
    for row in range(6):
        expected = motion._head_motion(anchor, shift[row], residual[row])
        assert found[row] == pytest.approx(expected, abs=1e-6)


def test_anchors_are_renewed_and_carried_over_as_on_the_device():
    times = np.arange(300) / RATE_HZ
    path = np.stack([3.0 * np.sin(times * 5), 2.0 * (1 - np.cos(times * 3))], axis=1)
    faces = portrait_crops(path)
    device = motion.RegionalMotion()
    expected = [device.measure(face, round(at * 1e9)) for face, at in zip(faces, times, strict=True)]
    regions = len(REGIONS)
    anchor = motion._Anchor(tabulated_bench.picture_of(faces[0]), faces[0])
    gain = np.tile(np.eye(2), (regions, 1, 1))
    zeros = np.zeros((len(times), regions))
    seen = tabulated_motion.Seen(
        times_s=times,
        crop_from_image=np.array([face.crop_from_image for face in faces], float),
        shift_px=np.repeat(path[:, None], regions, axis=1),
        noise_px=np.zeros((len(times), regions, 2)),
        turned=np.zeros((len(times), 2)),
        turn_residual=np.zeros(regions),
        look=zeros,
        grain=zeros,
        grain_cross=np.zeros(regions),
        coded_grain=np.zeros(regions),
        coded_s=1.0,
        light=np.ones((len(times), regions)),
        luma=np.full(len(times), 100.0),
    )
    anchors = [tabulated_motion.Anchor(anchor.rows, anchor.windows.information, gain, 0 * gain)]
    found = tabulated_motion.measure(seen, anchors, np.random.default_rng(0))
    shift = [CHANNELS.index("head.shift_x"), CHANNELS.index("head.shift_y")]
    values = np.array([one.values for one in expected[1:] if one is not None])
    assert np.abs(found[:, shift] - path[1:] / CROP_IOD_PX).max() < 1e-6
    assert np.abs(found[:, shift] - values[:, shift]).max() * CROP_IOD_PX < 0.15


def test_equal_scripts_and_seeds_give_equal_signals(face):
    script = script_of(face, 0.7, 0.015, mouthSmile=1.0)
    one, other = (measured(tabulated.measure, face, script, CAMERA, seed=3) for _ in range(2))
    assert np.array_equal(one, other)
    assert np.isfinite(one).all()


def test_a_still_script_gives_noise_of_the_size_that_the_rendered_chain_has(face):
    script = script_of(face, 0.5)
    fast, rendered = (
        np.diff(skin_px(measured(way, what, script, CAMERA)), axis=0).std(axis=0).mean(axis=1)
        for way, what in ((tabulated.measure, face), (signals.measure, face.rig))
    )
    assert np.median(fast / rendered) == pytest.approx(1.0, abs=0.2)
    assert np.corrcoef(np.log(fast), np.log(rendered))[0, 1] > 0.6


def test_without_noise_a_still_face_moves_only_by_how_the_crop_is_sampled(face):
    values = measured(tabulated.measure, face, script_of(face, 0.5), replace(CAMERA, noise=0.0))
    # The portrait's cracks are finer than the crop's pixels: the rendered chain has 0.3 px in the same place.
    assert np.abs(np.diff(skin_px(values), axis=0)).max() < 0.5
    assert np.median(np.diff(skin_px(values), axis=0).std(axis=0)) < 0.02


@pytest.mark.parametrize(
    ("shapes", "peak_iod"),
    [
        ({"browInnerUp": 1.0, "browOuterUp": 1.0}, 0.015),
        ({"mouthSmile": 1.0}, 0.02),
        ({"eyeBlink": 1.0}, 0.08),
    ],
    ids=["brows up", "smile", "blink"],
)
def test_a_planted_movement_is_answered_as_in_the_rendered_chain(face, shapes, peak_iod):
    script = script_of(face, 0.55, peak_iod, **shapes)
    quiet = replace(CAMERA, noise=0.5)
    changes = []
    for way, what in ((tabulated.measure, face), (signals.measure, face.rig)):
        skin = skin_px(measured(way, what, script, quiet))
        changes.append((skin[78:81].mean(axis=0) - skin[50:58].mean(axis=0)).ravel())
    fast, rendered = changes
    strong = np.abs(rendered) > 0.3 * np.abs(rendered).max()
    assert (fast @ rendered) / (rendered @ rendered) == pytest.approx(1.0, abs=0.15)
    assert np.corrcoef(fast, rendered)[0, 1] > 0.9
    assert np.median(fast[strong] / rendered[strong]) == pytest.approx(1.0, abs=0.2)


def test_the_trackers_crops_are_those_of_the_alignment_at_every_frame(face):
    script = script_of(face, 0.5)
    script.poses[:, 3] = 0.1 * np.sin(3 * script.times_s)
    times = np.flatnonzero(np.arange(100) % 17 != 3) / RATE_HZ
    states = tabulated._States.of(script, times, 0.0)
    camera, side = np.array([[1, 0, 0], [0, 1, 0]], np.float32), 200
    crops, _, _ = tabulated._track(face, states, camera, side, CAMERA, np.random.default_rng(5))
    alignment = Alignment(np.random.default_rng(5))
    for row, at in enumerate(times):
        seen = tabulated._Sight(face.rig, camera, states, row, side, CAMERA.iod_px).landmarks(face.neutral)
        tracked = alignment.align(np.zeros((2, 2), np.uint8), seen, float(at))
        assert crops[row] == pytest.approx(tracked.crop_from_image, rel=1e-5, abs=2e-3)


def test_a_paths_corners_hold_the_rest_near_the_lines_between_them():
    times = np.linspace(0, 1, 200)
    path = np.stack([3 * profile(times, 0.1, 0.3, 0.5), 2 * profile(times, 0.2, 0.5, 0.9)], axis=1)
    corners = tabulated_bench._corners(path)
    rebuilt = tabulated_bench._between(path, corners, path[corners], path[corners])
    assert len(corners) < 40
    assert np.abs(rebuilt - path).max() < 0.25
