"""Recordings of every kind, and bad ones: one clear error or a stated warning. How lost frames are counted."""

import socket
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from recordings import RECORDINGS, picture, write_video

from edge.errors import SourceError
from edge.frames.replay import ReplaySource
from edge.frames.timing import FrameCounter

SECOND_NS = 1_000_000_000


TOLERANCE = {
    "h264.mp4": 12,
    "mpeg1.mpg": 24,
    "mjpeg.avi": 12,
    "8k.mkv": 40,
    "rgb-png.mov": 1,
    "bottom-up.avi": 1,
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give a recording by name; each is written once."""
    folder = tmp_path_factory.mktemp("recordings")

    def path_of(name: str) -> Path:
        path = folder / name
        return path if path.exists() else write_video(path, **RECORDINGS[name])

    return path_of


# --- replay ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECORDINGS)
def test_luma_is_what_was_recorded(name: str, recorded: Callable[[str], Path]) -> None:
    source = ReplaySource(recorded(name))
    width, height = RECORDINGS[name].get("size", (64, 48))
    count = RECORDINGS[name].get("count", 12)
    seen = 0
    for index, frame in enumerate(source.frames()):
        step = max(1, width // 640)
        expected = picture(index, width, height)[::step, ::step]
        difference = np.abs(frame.luma[::step, ::step].astype(int) - expected)
        # Lossy codecs ring at the bar's edge; the bulk of the picture must still be right.
        assert np.percentile(difference, 95) <= TOLERANCE.get(name, 0)
        assert frame.timestamp_ns == round(index * SECOND_NS / 25)
        seen += 1
    assert seen == count
    if (
        name != "mpeg1.mpg"
    ):  # a program stream states no length; FFmpeg's estimate needs more than half a second
        assert source.duration_s == pytest.approx(count / 25, abs=0.05)


def test_planar_luma_is_handed_out_without_a_copy(tmp_path: Path) -> None:
    source = ReplaySource(write_video(tmp_path / "a.mkv"))
    kept = [frame.luma for frame in source.frames()]
    source.close()
    assert all(not luma.flags.owndata and not luma.flags.writeable for luma in kept)
    # Views stay right although the decoder went on and the file is closed.
    for index, luma in enumerate(kept):
        np.testing.assert_array_equal(luma, picture(index, 64, 48))


def test_a_variable_frame_rate_is_kept(tmp_path: Path) -> None:
    stamps = [0, 40, 45, 200, 233, 1000]
    source = ReplaySource(write_video(tmp_path / "vfr.mkv", stamps=stamps))
    assert [frame.timestamp_ns for frame in source.frames()] == [stamp * 1_000_000 for stamp in stamps]
    assert source.warnings == []


def test_media_time_starts_at_the_first_frame_of_the_file(tmp_path: Path) -> None:
    source = ReplaySource(write_video(tmp_path / "late.mkv", stamps=[500, 540, 580]))
    assert [frame.timestamp_ns for frame in source.frames()] == [0, 40_000_000, 80_000_000]


def test_start_and_seconds_cut_exactly(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "long.mp4", codec="libx264", count=100, options={"g": "30", "bf": "2"}, size=(64, 48)
    )
    whole = ReplaySource(path)
    luma = [frame.luma.copy() for frame in whole.frames()]
    part = ReplaySource(path, start_s=1.4, seconds=0.4)
    cut = [(frame.timestamp_ns, frame.luma.copy()) for frame in part.frames()]
    assert [stamp for stamp, _ in cut] == [index * 40_000_000 for index in range(10)]
    for index, (_, image) in enumerate(cut):
        np.testing.assert_array_equal(image, luma[35 + index])
    assert part.duration_s == pytest.approx(0.4)
    assert part.start_time_ns - whole.start_time_ns == 1_400_000_000


def test_a_start_beyond_the_end_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "short.mkv")
    with pytest.raises(SourceError, match=r"no frame at or after start 9 s in this video of 0\.4\d s"):
        ReplaySource(path, start_s=9.0)


def test_the_start_time_comes_from_the_file_or_else_its_change_time(tmp_path: Path) -> None:
    stamped = write_video(
        tmp_path / "a.mp4", codec="libx264", metadata={"creation_time": "2026-03-04T05:06:07Z"}
    )
    assert ReplaySource(stamped).start_time_ns == 1_772_600_767 * SECOND_NS
    plain = write_video(tmp_path / "b.avi", codec="mjpeg", pixel_format="yuvj420p")
    assert ReplaySource(plain).start_time_ns == plain.stat().st_mtime_ns


def test_a_phone_video_is_turned_upright(tmp_path: Path) -> None:
    path = write_video(tmp_path / "turned.mp4", codec="libx264", options={"qp": "0"})
    content = path.read_bytes()
    upright = np.array([1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30], ">i4").tobytes()
    turned = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30], ">i4").tobytes()
    header = content.index(b"tkhd")
    matrix = content.index(upright, header)
    path.write_bytes(content[:matrix] + turned + content[matrix + 36 :])
    source = ReplaySource(path)
    assert source.size == (48, 64)
    np.testing.assert_array_equal(next(source.frames()).luma, np.rot90(picture(0, 64, 48), -1))


def test_frames_without_timestamps_get_them_from_the_stated_rate(tmp_path: Path) -> None:
    source = ReplaySource(write_video(tmp_path / "raw.h264", codec="libx264", options={"bf": "0"}))
    assert [frame.timestamp_ns for frame in source.frames()] == [index * 40_000_000 for index in range(12)]
    assert source.warnings == ["frames carry no timestamps; derived from the stated 25 frames/s"]


def test_frames_whose_time_jumps_back_are_left_out_and_counted(tmp_path: Path) -> None:
    first = write_video(tmp_path / "1.ts", codec="mpeg1video", container_format="mpegts", count=10)
    second = write_video(tmp_path / "2.ts", codec="mpeg1video", container_format="mpegts", count=20)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    source = ReplaySource(joined)
    stamps = [frame.timestamp_ns for frame in source.frames()]
    assert all(earlier < later for earlier, later in pairwise(stamps))
    assert source.frames_out_of_order >= 8
    assert len([text for text in source.warnings if "jump back" in text]) == 1


@pytest.mark.parametrize(
    ("name", "options"),
    [("cut.mkv", {}), ("cut.mp4", {"codec": "libx264", "muxer": {"movflags": "faststart"}})],
)
def test_a_truncated_file_gives_what_is_there_and_says_so(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    path = write_video(tmp_path / name, count=100, **options)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    source = ReplaySource(path)
    count = sum(1 for _ in source.frames())
    assert 20 < count < 90
    assert any("truncated or damaged" in text for text in source.warnings)


def test_damage_in_the_middle_is_passed_over_and_named(tmp_path: Path) -> None:
    path = write_video(tmp_path / "holed.mov", codec="png", pixel_format="rgb24", count=50)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 1500] = np.random.default_rng(1).bytes(1500)
    path.write_bytes(bytes(content))
    source = ReplaySource(path)
    stamps = [frame.timestamp_ns for frame in source.frames()]
    assert 40 <= len(stamps) < 50
    assert stamps[-1] == 49 * 40_000_000, "what follows the damage keeps its time"
    assert any("could not be decoded" in text for text in source.warnings)


def test_a_picture_size_that_changes_is_scaled_to_the_first(tmp_path: Path) -> None:
    small = write_video(tmp_path / "s.h264", codec="libx264", options={"bf": "0"}, count=5)
    large = write_video(tmp_path / "l.h264", codec="libx264", options={"bf": "0"}, count=5, size=(128, 96))
    joined = tmp_path / "sizes.h264"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    source = ReplaySource(joined)
    shapes = {frame.luma.shape for frame in source.frames()}
    assert shapes == {(48, 64)}
    assert any("picture size changes to 128x96" in text for text in source.warnings)


def text_file(folder: Path) -> Path:
    path = folder / "notes.txt"
    path.write_text("not a video\n" * 50)
    return path


def disguised_text(folder: Path) -> Path:
    return text_file(folder).rename(folder / "notes.mp4")


def empty_file(folder: Path) -> Path:
    path = folder / "empty.mp4"
    path.touch()
    return path


def audio_file(folder: Path) -> Path:
    path = folder / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def headless_file(folder: Path) -> Path:
    path = write_video(folder / "headless.mp4", codec="libx264")
    path.write_bytes(path.read_bytes()[:600])
    return path


def frameless_file(folder: Path) -> Path:
    path = write_video(folder / "frameless.avi", codec="mjpeg", pixel_format="yuvj420p", count=3)
    content = path.read_bytes()
    start = content.index(b"movi") + 4
    path.write_bytes(content[:start] + bytes(len(content) - start))
    return path


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: folder / "absent.mp4", "no such file"),
        (lambda folder: folder, "is a directory"),
        (empty_file, "is an empty file"),
        (text_file, "is a text file|not a video file"),
        (disguised_text, "not a video file"),
        (audio_file, "no video in it, only audio"),
        (headless_file, "not a video file|not one frame"),
        (frameless_file, "not one frame of it can be decoded|not a video file"),
    ],
)
def test_what_is_not_a_video_gives_one_clear_sentence(
    make: Callable[[Path], Path], says: str, tmp_path: Path
) -> None:
    path = make(tmp_path)
    with pytest.raises(SourceError, match=says) as caught:
        ReplaySource(path)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


def test_a_playlist_does_not_reach_into_the_network(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        playlist = tmp_path / "list.m3u8"
        port = server.getsockname()[1]
        playlist.write_text(f"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n")
        with pytest.raises(SourceError):
            ReplaySource(playlist)
        with pytest.raises(BlockingIOError):
            server.accept()


# --- counting frames -------------------------------------------------------------------------------------


@pytest.mark.parametrize("nominal_hz", [30.0, 0.0])
def test_lost_frames_are_counted_from_jittering_timestamps(nominal_hz: float) -> None:
    random = np.random.default_rng(4)
    produced = [index for index in range(300) if index < 10 or index % 23]
    counter = FrameCounter(nominal_hz)
    stamps = [round((index + random.uniform(-0.15, 0.15)) * SECOND_NS / 30) for index in produced]
    assert [counter.sequence(stamp) for stamp in stamps] == produced


def test_a_rate_that_changes_for_good_is_followed() -> None:
    counter = FrameCounter(30.0)
    for index in range(40):
        counter.sequence(round(index * SECOND_NS / 30))
    slow = [counter.sequence(round(40 * SECOND_NS / 30 + index * SECOND_NS / 15)) for index in range(60)]
    assert slow[-1] - slow[-2] == 1


@pytest.mark.parametrize("step_s", [-2, 3600])
def test_a_jump_of_the_sensors_clock_is_no_lost_frame(step_s: int) -> None:
    counter = FrameCounter(200.0)
    stamps = [index * SECOND_NS // 200 + (step_s * SECOND_NS if index >= 50 else 0) for index in range(100)]
    assert [counter.sequence(stamp) for stamp in stamps] == list(range(100))
