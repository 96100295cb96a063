"""A face is found, placed, followed, lost and found again; what is no face is not."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib import cbook

from edge.config import Face
from edge.errors import ModelError
from edge.face.detect import CONFIRMED_SCORE, Detector, peaks, suppress, zoomed_parts
from edge.face.landmarks import CELL_PX, CELLS, LandmarkNet, decode, find_in_still, pose_of_box
from edge.face.shape import MEAN_SHAPE, apply, compose, fit_pose, image_from_face, invert
from edge.face.steady import SteadyPose, crop_from_image
from edge.face.track import Tracker
from edge.inference.manifest import load_model
from edge.records import CROP_EYES_PX, CROP_IOD_PX, LANDMARKS, FaceBox, Frame, Reason, TrackedFace

SECOND_NS = 1_000_000_000
DATA = Path(os.environ.get("MICROEDGE_DATA", Path(__file__).resolve().parents[2] / "shared"))
MIDDLE = (266.0, 231.0)
"""Of the portrait's face, px."""
RIGHT_EYE, LEFT_EYE = LANDMARKS.index("right_eye_outer"), LANDMARKS.index("left_eye_outer")


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    """Rear Admiral Grace Hopper (public domain), 512 x 600 px, the face about 178 px wide, middle (266, 231)."""
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        return cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_GRAYSCALE)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(load_model("detector"), score_min=CONFIRMED_SCORE)


@pytest.fixture(scope="module")
def net() -> LandmarkNet:
    return LandmarkNet(load_model("landmark"))


@pytest.fixture
def tracker(net: LandmarkNet) -> Tracker:
    return Tracker(Detector(load_model("detector"), score_min=CONFIRMED_SCORE), net, Face())


def placed(
    portrait: np.ndarray, size: tuple[int, int], x: float, y: float, scale: float, roll_deg: float = 0
) -> np.ndarray:
    """Lay the portrait into a grey frame of (width, height) with its face's middle at (x, y)."""
    turn = cv2.getRotationMatrix2D(MIDDLE, roll_deg, scale)
    turn[:, 2] += (x - MIDDLE[0], y - MIDDLE[1])
    return cv2.warpAffine(
        portrait, turn, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_CONSTANT, borderValue=110
    )


def stream(pictures: Iterator[np.ndarray] | list[np.ndarray], rate_hz: float) -> Iterator[Frame]:
    for number, luma in enumerate(pictures):
        yield Frame(luma, round(number * SECOND_NS / rate_hz), number)


# --- detection


def test_the_face_of_a_portrait_is_found_where_it_is(portrait: np.ndarray, detector: Detector) -> None:
    (face,) = detector.detect(portrait)
    assert math.dist(face.centre_px, MIDDLE) < 20
    assert 140 < face.size_px < 225


@pytest.mark.parametrize("face_px", [12, 18, 32, 64, 96])
def test_a_face_is_found_at_any_size_in_the_nets_input(
    portrait: np.ndarray, detector: Detector, face_px: int
) -> None:
    frame = cv2.resize(
        placed(portrait, (512, 512), 256, 240, 4 * face_px / 178), (128, 128), interpolation=cv2.INTER_AREA
    )
    faces = detector.detect(frame)
    assert faces
    assert math.dist(faces[0].centre_px, (64, 60)) < 0.3 * face_px + 2


@pytest.mark.parametrize("roll_deg", [-30, 30])
def test_a_tilted_head_is_found(portrait: np.ndarray, detector: Detector, roll_deg: float) -> None:
    assert detector.detect(placed(portrait, (640, 480), 320, 240, 1.0, roll_deg))


def test_two_faces_are_found_largest_first(portrait: np.ndarray, detector: Detector) -> None:
    frame = placed(portrait, (640, 480), 160, 240, 0.6)
    frame[:, 320:] = placed(portrait, (320, 480), 160, 240, 1.0)
    faces = detector.detect(frame)
    assert len(faces) == 2
    assert faces[0].centre_px[0] > 320 > faces[1].centre_px[0]


@pytest.mark.parametrize("size", [(10, 10), (1, 1), (3, 900), (900, 3), (640, 20), (7680, 4320)])
def test_any_frame_size_is_searched_and_an_empty_one_holds_no_face(
    detector: Detector, size: tuple[int, int]
) -> None:
    frame = np.full(size[::-1], 90, np.uint8)
    assert [detector.detect(frame) for _ in range(3)] == [[], [], []]


def test_a_view_with_row_stride_gives_what_its_copy_gives(portrait: np.ndarray, net: LandmarkNet) -> None:
    padded = np.zeros((portrait.shape[0], 700), np.uint8)
    padded[:, : portrait.shape[1]] = portrait
    view = padded[:, : portrait.shape[1]]
    assert not view.flags.c_contiguous
    one, other = Detector(load_model("detector")), Detector(load_model("detector"))
    assert one.detect(view) == other.detect(portrait)
    box = one.detect(portrait)[0]
    assert np.array_equal(net.find(view, box)[0], net.find(portrait, box)[0])


def test_a_face_too_small_for_the_whole_view_is_found_by_the_closer_looks(portrait: np.ndarray) -> None:
    frame = placed(portrait, (1920, 1080), 1500, 700, 0.55)
    detector = Detector(load_model("detector"))
    found = next((faces for faces in (detector.detect(frame) for _ in range(24)) if faces), None)
    assert found is not None
    assert math.dist(found[0].centre_px, (1500, 700)) < 40


@pytest.mark.parametrize("seed", range(6))
def test_textures_hold_no_face_that_the_landmark_net_confirms(
    detector: Detector, net: LandmarkNet, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    grain = rng.integers(0, 256, (4 * 2**seed, 6 * 2**seed), np.uint8)
    frame = cv2.resize(grain, (640, 480), interpolation=cv2.INTER_CUBIC)
    assert find_in_still(frame, detector, net) is None


def test_closer_parts_cover_the_whole_frame_and_overlap() -> None:
    for rows, columns in ((480, 640), (4320, 7680), (480, 5000), (129, 600)):
        seen = np.zeros((rows, columns), bool)
        for top, left, height, width in zoomed_parts(rows, columns):
            assert top >= 0 <= left
            assert top + height <= rows
            assert left + width <= columns
            seen[top : top + height, left : left + width] = True
        assert seen.all()
    assert zoomed_parts(128, 128) == []


def test_a_peak_is_placed_by_its_offsets_and_sized_by_its_logarithm() -> None:
    heat = np.full((32, 32), -8, np.float32)
    geometry = np.zeros((32, 32, 3), np.float32)
    heat[5, 9], heat[5, 10] = 3.0, 2.0
    geometry[5, 9] = 0.25, -0.5, math.log(2)
    scores, faces = peaks(heat, geometry, 0.5)
    assert scores == pytest.approx([1 / (1 + math.exp(-3))])
    assert faces[0] == pytest.approx([9.25 * 4 + 1.5, 4.5 * 4 + 1.5, 48])


def test_of_overlapping_faces_the_stronger_stays() -> None:
    x = y = np.array([50, 52, 90], np.float32)
    size, scores = np.array([40, 20, 20], np.float32), np.array([0.7, 0.9, 0.6], np.float32)
    assert suppress(x, y, size, scores, 0.3) == [1, 2]


def test_a_model_of_another_kind_is_refused() -> None:
    with pytest.raises(ModelError, match="expected"):
        Detector(load_model("landmark"))
    with pytest.raises(ModelError, match="expected"):
        LandmarkNet(load_model("detector"))


# --- shape and landmarks


def test_a_pose_comes_back_from_the_points_it_made() -> None:
    pose = np.array([311.0, 207.5, math.log(83.0), 0.3])
    assert fit_pose(apply(image_from_face(pose), MEAN_SHAPE.astype(np.float32))) == pytest.approx(
        pose, abs=1e-4
    )


def test_the_inverse_undoes_a_similarity() -> None:
    matrix = image_from_face(np.array([31.0, -7.5, math.log(8.0), 1.3]))
    assert compose(matrix, invert(matrix)) == pytest.approx(np.eye(3)[:2], abs=1e-9)


def test_speech_and_blinks_do_not_move_the_pose() -> None:
    still = MEAN_SHAPE.astype(np.float32) * 80
    moving = still.copy()
    for row, name in enumerate(LANDMARKS):
        if "lip" in name or "mouth" in name or name == "chin":
            moving[row, 1] += 15
        if "upper" in name and "eye" in name:
            moving[row, 1] += 6
    assert fit_pose(moving) == pytest.approx(fit_pose(still), abs=1e-6)


def test_maps_are_decoded_to_the_points_they_were_made_of() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(8, 120, (len(LANDMARKS), 2))
    cells = (points - (CELL_PX - 1) / 2) / CELL_PX
    y, x = np.mgrid[:CELLS, :CELLS]
    away_x, away_y = cells[:, 0] - x[..., None], cells[:, 1] - y[..., None]
    heat = np.rint(60 - 40 * (away_x**2 + away_y**2)).clip(-128, 127).astype(np.int8)
    offsets = np.rint(np.concatenate([away_x, away_y], axis=2) / 0.02 + 3).clip(-128, 127).astype(np.int8)
    found = decode(heat, offsets, 0.05, 0.02, 3)
    assert np.abs(found - points).max() < 0.1


def test_the_eyes_of_the_portrait_are_placed(
    portrait: np.ndarray, detector: Detector, net: LandmarkNet
) -> None:
    landmarks = find_in_still(portrait, detector, net)
    assert landmarks is not None
    # Placed by eye on the photo enlarged four times.
    assert math.dist(landmarks[RIGHT_EYE], (201, 192)) < 8
    assert math.dist(landmarks[LEFT_EYE], (323, 190)) < 8


@pytest.mark.parametrize("roll_deg", [-20, 15])
def test_landmarks_turn_with_the_picture(
    portrait: np.ndarray, detector: Detector, net: LandmarkNet, roll_deg: float
) -> None:
    straight = find_in_still(placed(portrait, (512, 600), *MIDDLE, 1.0), detector, net)
    turned = find_in_still(placed(portrait, (512, 600), *MIDDLE, 1.0, roll_deg), detector, net)
    assert straight is not None
    assert turned is not None
    turn = cv2.getRotationMatrix2D(MIDDLE, roll_deg, 1.0)
    iod = math.dist(straight[RIGHT_EYE], straight[LEFT_EYE])
    assert np.hypot(*(apply(turn, straight) - turned).T).mean() < 0.05 * iod


def test_a_blank_picture_has_no_landmarks(detector: Detector, net: LandmarkNet) -> None:
    assert find_in_still(np.full((480, 640), 77, np.uint8), detector, net) is None


def test_presence_is_low_beside_the_face(portrait: np.ndarray, net: LandmarkNet, detector: Detector) -> None:
    (face,) = detector.detect(portrait)
    on_face = net.find(portrait, face)[1]
    beside = net.find(portrait, FaceBox((90.0, 500.0), face.size_px, 1.0))[1]
    assert on_face > 0.9
    assert beside < 0.3


def test_the_pose_of_a_box_is_an_upright_face_that_fills_it() -> None:
    points = apply(
        image_from_face(pose_of_box(FaceBox((100.0, 90.0), 80.0, 1.0))), MEAN_SHAPE.astype(np.float32)
    )
    assert points.mean(axis=0) == pytest.approx((100, 90), abs=0.5)
    assert np.ptp(points, axis=0).max() == pytest.approx(80, rel=0.03)


# --- tracking


def follow(tracker: Tracker, frames: Iterator[Frame]) -> list[TrackedFace | None]:
    return [tracker.track(frame) for frame in frames]


def test_the_first_frame_gives_an_aligned_crop(
    portrait: np.ndarray, tracker: Tracker, net: LandmarkNet
) -> None:
    (face,) = follow(tracker, stream([portrait], 200))
    assert face is not None
    assert (face.face_id, face.others) == (1, 0)
    assert face.crop.shape == (128, 128)
    eyes = face.landmarks[[RIGHT_EYE, LEFT_EYE]]
    assert eyes.mean(axis=0) == pytest.approx(CROP_EYES_PX, abs=2.5)
    assert math.dist(*eyes) == pytest.approx(CROP_IOD_PX, rel=0.06)
    again = apply(face.crop_from_image.astype(float), net.find(portrait, fit_pose(apply(
        invert(face.crop_from_image.astype(float)), face.landmarks)))[0])  # fmt: skip
    assert np.abs(again - face.landmarks).mean() < 1.5


def test_the_crop_is_the_picture_seen_through_its_own_matrix(portrait: np.ndarray, tracker: Tracker) -> None:
    (face,) = follow(tracker, stream([portrait], 200))
    assert face is not None
    expected = cv2.warpAffine(portrait, face.crop_from_image, (128, 128), borderMode=cv2.BORDER_REPLICATE)
    assert np.array_equal(face.crop, expected)


def test_a_still_noisy_face_gives_a_crop_that_hardly_moves(portrait: np.ndarray, tracker: Tracker) -> None:
    base = placed(portrait, (640, 480), 320, 230, 1.3).astype(np.float32)
    rng = np.random.default_rng(5)
    noisy = (np.clip(base + rng.normal(0, 3, base.shape), 0, 255).astype(np.uint8) for _ in range(150))
    faces = follow(tracker, stream(noisy, 100))
    assert all(face is not None for face in faces)
    corners = np.array([[10, 10], [64, 64], [118, 118]], np.float32)
    seen = np.array([apply(invert(face.crop_from_image.astype(float)), corners) for face in faces if face])
    seen *= CROP_IOD_PX / faces[-1].iod_px
    # A micro-expression lasts 200 ms at most; what the crop moves within that time could look like one.
    windows = [seen[start : start + 20].std(axis=0).max() for start in range(50, 150, 20)]
    assert max(windows) < 0.1
    assert np.abs(np.diff(seen[50:], axis=0)).max() < 0.15


def test_a_head_that_moves_150_px_per_second_is_followed(portrait: np.ndarray, tracker: Tracker) -> None:
    def at(second: float) -> tuple[float, float]:
        return 220 + 150 * max(0.0, second - 0.3), 230.0

    pictures = (placed(portrait, (640, 480), *at(n / 100), 1.0) for n in range(150))
    faces = follow(tracker, stream(pictures, 100))
    assert all(face is not None and face.face_id == 1 for face in faces)
    centres = [invert(face.crop_from_image.astype(float)) @ (64, 64, 1) for face in faces if face]
    moved = np.array([centre[0] - at(n / 100)[0] for n, centre in enumerate(centres)])
    lag_px = np.abs(moved - moved[20])[60:] * CROP_IOD_PX / faces[-1].iod_px
    assert lag_px.max() < 4


def test_a_face_that_leaves_is_lost_and_found_again_under_a_new_number(
    portrait: np.ndarray, tracker: Tracker
) -> None:
    there, gone = placed(portrait, (640, 480), 320, 230, 1.0), np.full((480, 640), 110, np.uint8)
    faces = follow(tracker, stream([there] * 30 + [gone] * 60, 100))
    assert all(face is not None for face in faces[:30])
    assert faces[-1] is None
    assert tracker.why_not in (Reason.FACE_LOST, Reason.NO_FACE)
    lost = next(n for n, face in enumerate(faces) if face is None)
    assert lost <= 30 + 8
    later = (Frame(there, (90 + n) * SECOND_NS // 100, 90 + n) for n in range(60))
    back = follow(tracker, later)
    assert back[-1] is not None
    assert back[-1].face_id == 2


def test_no_face_says_no_face(tracker: Tracker) -> None:
    assert follow(tracker, stream([np.full((480, 640), 80, np.uint8)] * 20, 30)) == [None] * 20
    assert tracker.why_not is Reason.NO_FACE


def test_the_larger_of_two_faces_is_followed_and_the_other_counted(
    portrait: np.ndarray, tracker: Tracker
) -> None:
    frame = placed(portrait, (640, 480), 150, 240, 0.9)
    frame[:, 320:] = placed(portrait, (320, 480), 160, 240, 1.2)
    (face,) = follow(tracker, stream([frame], 30))
    assert face is not None
    assert face.others == 1
    assert (invert(face.crop_from_image.astype(float)) @ (64, 64, 1))[0] > 320


def test_a_face_below_the_smallest_size_is_not_followed(portrait: np.ndarray, net: LandmarkNet) -> None:
    tracker = Tracker(Detector(load_model("detector"), score_min=CONFIRMED_SCORE), net, Face(min_face_px=200))
    assert follow(tracker, stream([portrait] * 5, 30)) == [None] * 5


def test_a_long_gap_begins_a_new_face(portrait: np.ndarray, tracker: Tracker) -> None:
    first = tracker.track(Frame(portrait, 0, 0))
    second = tracker.track(Frame(portrait, 5 * SECOND_NS, 1000))
    assert first is not None
    assert second is not None
    assert (first.face_id, second.face_id) == (1, 2)


@pytest.mark.parametrize("size", [(10, 10), (7680, 4320)])
def test_tiny_and_huge_frames_pass_through(tracker: Tracker, size: tuple[int, int]) -> None:
    assert tracker.track(Frame(np.zeros(size[::-1], np.uint8), 0, 0)) is None


def test_a_steady_pose_follows_a_constant_speed_without_lag() -> None:
    iod = math.log(64)
    steady = SteadyPose(np.array([0.0, 0.0, iod, 0.0]), 0.0)
    for n in range(1, 60):
        steady.measure(np.array([n * 0.03 * 100, 0.0, iod, 0.0]), n * 0.03)
    assert steady.at(59 * 0.03 + 0.02)[0] == pytest.approx((59 * 0.03 + 0.02) * 100, abs=0.5)


def test_the_aligned_crop_puts_the_eyes_where_the_records_say() -> None:
    pose = [200.0, 100.0, math.log(90), 0.4]
    eyes = apply(
        crop_from_image(pose),
        apply(image_from_face(np.array(pose)), np.array([[-0.5, 0], [0.5, 0]], np.float32)),
    )
    assert eyes.mean(axis=0) == pytest.approx(CROP_EYES_PX, abs=1e-3)
    assert eyes[1] - eyes[0] == pytest.approx((CROP_IOD_PX, 0), abs=1e-3)


@pytest.mark.parametrize("name", ["v01.mpg", "v03.mpg"])
def test_every_frame_of_a_frontal_clip_is_followed(name: str, tracker: Tracker) -> None:
    path = DATA / "clips" / name
    if not path.exists():
        pytest.skip(f"no {path}; set MICROEDGE_DATA")
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        pictures = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    faces = follow(tracker, stream(pictures, 25))
    assert all(face is not None and face.face_id == 1 for face in faces)
