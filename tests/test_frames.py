"""Every frame source keeps the same contract; bad recordings give one clear error or a stated warning."""

import socket
import sys
import threading
import types
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from edge.errors import SourceError
from edge.frames import FrameSource
from edge.frames.camera import CameraSource
from edge.frames.portrait import load_portrait, portrait_landmarks
from edge.frames.replay import ReplaySource
from edge.frames.synthetic import SyntheticSource
from edge.frames.timing import FrameCounter
from edge.frames.webcam import WebcamSource

SECOND_NS = 1_000_000_000


def picture(index: int, width: int, height: int) -> np.ndarray:
    """A grey ramp with a bright bar that moves; 16..235, so that limited-range codecs keep it."""
    ramp = (
        np.linspace(40, 160, width, dtype=np.float32) + np.linspace(0, 40, height, dtype=np.float32)[:, None]
    )
    image = ramp.astype(np.uint8)
    image[height // 3 : height // 2 + 1, : 1 + (index * 3) % width] = 220
    return image


def grey_frame(image: np.ndarray, pixel_format: str) -> av.VideoFrame:
    """A frame in `pixel_format` whose luma is exactly `image` (YUV formats) or whose grey is (RGB)."""
    if pixel_format in ("yuv420p", "yuv420p10le"):
        frame = av.VideoFrame(image.shape[1], image.shape[0], pixel_format)
        for index, plane in enumerate(frame.planes):
            deep = pixel_format.endswith("10le")
            rows = np.zeros((plane.height, plane.line_size), np.uint8)
            values = image if index == 0 else np.full((plane.height, plane.width), 128, np.uint8)
            stored = (values.astype("<u2") << 2).view(np.uint8) if deep else values
            rows[:, : stored.shape[1]] = stored
            plane.update(rows.tobytes())
        return frame
    if pixel_format in ("nv12", "yuyv422"):
        return grey_frame(image, "yuv420p").reformat(format=pixel_format)
    return av.VideoFrame.from_ndarray(image, format="gray").reformat(format=pixel_format)


def write_video(
    path: Path,
    *,
    codec: str = "ffv1",
    pixel_format: str = "yuv420p",
    size: tuple[int, int] = (64, 48),
    stamps: list[int] | None = None,
    count: int = 12,
    rate: int = 25,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
    container_format: str | None = None,
) -> Path:
    """Write `count` frames; `stamps` are presentation times in milliseconds, else the rate is constant."""
    with av.open(str(path), "w", format=container_format, options=muxer or {}) as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format
        if stamps is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index in range(count if stamps is None else len(stamps)):
            frame = grey_frame(picture(index, *size), pixel_format)
            frame.pts = index if stamps is None else stamps[index]
            frame.time_base = Fraction(1, rate) if stamps is None else Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


# --- a stand-in for picamera2, at the one place where it is imported -------------------------------------


class FakeRequest:
    """A completed request with a buffer; counts its references as picamera2's CompletedRequest does."""

    def __init__(self, camera: "FakeCamera", index: int, sensor_ns: int):
        width, height, stride = *camera.size, camera.stride
        self.buffer = np.zeros(height * 3 // 2 * stride, np.uint8)
        self.buffer[: height * stride].reshape(height, stride)[:, :width] = picture(index, width, height)
        self.camera, self.sensor_ns, self.references = camera, sensor_ns, 1
        self.lock = threading.Lock()

    def acquire(self) -> None:
        with self.lock:
            assert self.references > 0
            self.references += 1

    def release(self) -> None:
        with self.lock:
            self.references -= 1
            assert self.references >= 0
            if self.references == 0:
                self.camera.free.release()

    def get_metadata(self) -> dict[str, Any]:
        return {"SensorTimestamp": self.sensor_ns, "FrameDuration": self.camera.period_us}


class FakeMappedArray:
    def __init__(self, request: FakeRequest, stream: str, reshape: bool = True, write: bool = True):
        assert (stream, reshape, write) == ("main", False, False)
        self.array = request.buffer

    def __enter__(self) -> "FakeMappedArray":
        return self

    def __exit__(self, *_: object) -> None:
        return None


CAMERAS: "list[FakeCamera]" = []
"""The cameras that a test has opened."""


class FakeCamera:
    """Gives frames from a thread as long as it has free buffers, like the real one; never two at once."""

    lost: frozenset[int] = frozenset()
    silent = False
    gives_format = "YUV420"
    fastest_us = 4_000

    def __init__(self, camera_num: int):
        self.camera_properties = {"Model": "imx219"}
        self.camera_controls = {
            "FrameDurationLimits": (self.fastest_us, 1_000_000, 33_333),
            "NoiseReductionMode": (0, 4, 1),
        }
        self.sensor_modes = [
            {"fps": 206.65, "size": (640, 480), "bit_depth": 10, "crop_limits": (1000, 752, 1280, 960)},
            {"fps": 41.85, "size": (1640, 1232), "bit_depth": 10, "crop_limits": (0, 0, 3280, 2464)},
        ]
        self.pre_callback: Callable[[Any], None] | None = None
        self.events: list[str] = []
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        CAMERAS.append(self)

    @staticmethod
    def global_camera_info() -> list[dict[str, Any]]:
        return [{"Model": "imx219", "Num": 0}]

    def create_video_configuration(self, **wanted: Any) -> dict[str, Any]:
        return wanted

    def configure(self, configuration: dict[str, Any]) -> None:
        self.configuration = configuration
        self.size = configuration["main"]["size"]
        self.stride = self.size[0] + 32
        self.period_us = configuration["controls"]["FrameDurationLimits"][0]
        self.free = threading.Semaphore(configuration["buffer_count"])

    def camera_configuration(self) -> dict[str, Any]:
        return {"main": {"size": self.size, "stride": self.stride, "format": self.gives_format}}

    def start(self) -> None:
        self.events.append("start")
        if not self.silent:
            self._thread = threading.Thread(target=self._run)
            self._thread.start()

    def _run(self) -> None:
        index = 0
        while not self._stopping.is_set():
            index += 1
            if index in self.lost or not self.free.acquire(timeout=0.02):
                continue
            assert self.pre_callback is not None
            request = FakeRequest(self, index, 1_000 * SECOND_NS + index * self.period_us * 1000)
            self.pre_callback(request)
            request.release()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(10)
        self.events.append("stop")

    def close(self) -> None:
        self.events.append("close")


@pytest.fixture
def picamera2(monkeypatch: pytest.MonkeyPatch) -> type[FakeCamera]:
    class Camera(FakeCamera):
        pass

    CAMERAS.clear()
    module = types.ModuleType("picamera2")
    module.Picamera2 = Camera  # type: ignore[attr-defined]
    module.MappedArray = FakeMappedArray  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "picamera2", module)
    return Camera


# --- the contract ----------------------------------------------------------------------------------------

RECORDINGS: dict[str, dict[str, Any]] = {
    "h264.mp4": {"codec": "libx264"},
    "mpeg1.mpg": {"codec": "mpeg1video"},
    "grey.mkv": {"codec": "ffv1", "pixel_format": "gray"},
    "yuv.mkv": {"codec": "ffv1"},
    "rgb-png.mov": {"codec": "png", "pixel_format": "rgb24"},
    "mjpeg.avi": {"codec": "mjpeg", "pixel_format": "yuvj420p", "options": {"q:v": "2"}},
    "ten-bit.mkv": {"codec": "ffv1", "pixel_format": "yuv420p10le"},
    "nv12.nut": {"codec": "rawvideo", "pixel_format": "nv12"},
    "packed.nut": {"codec": "rawvideo", "pixel_format": "yuyv422"},
    "bottom-up.avi": {"codec": "rawvideo", "pixel_format": "bgr24"},
    "odd.mkv": {"codec": "ffv1", "size": (61, 47)},
    "tiny.mkv": {"codec": "ffv1", "size": (10, 10)},
    "8k.mkv": {"codec": "mpeg4", "size": (7680, 4320), "count": 2},
}
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


@pytest.fixture(params=[*RECORDINGS, "synthetic", "picamera2", "webcam"])
def source(request: pytest.FixtureRequest, recorded: Callable[[str], Path]) -> Iterator[FrameSource]:
    made: FrameSource
    if request.param == "synthetic":
        made = SyntheticSource(load_portrait(), portrait_landmarks(), seconds=0.1, size=(320, 240))
    elif request.param == "picamera2":
        request.getfixturevalue("picamera2")
        made = CameraSource(rate_hz=200.0, size=(64, 48))
    elif request.param == "webcam":
        if not Path("/dev/video0").is_char_device():
            pytest.skip("no webcam at /dev/video0")
        made = WebcamSource("/dev/video0")
    else:
        made = ReplaySource(recorded(request.param))
    yield made
    made.close()


def test_a_source_gives_luma_frames_with_rising_media_time_from_zero(source: FrameSource) -> None:
    assert isinstance(source, FrameSource)
    stamps, sequences = [], []
    for frame in source.frames():
        assert frame.luma.shape == (source.size[1], source.size[0])
        assert frame.luma.dtype == np.uint8
        assert frame.luma.strides[1] == 1, "pixels of a row lie side by side"
        stamps.append(frame.timestamp_ns)
        sequences.append(frame.sequence)
        if len(stamps) == 12:
            break
    assert len(stamps) >= 2
    assert (stamps[0], sequences[0]) == (0, 0)
    assert all(earlier < later for earlier, later in pairwise(stamps))
    assert all(earlier < later for earlier, later in pairwise(sequences))
    assert source.name
    assert source.frames_out_of_order == 0
    assert source.warnings == []


def test_a_source_may_be_closed_twice_and_ends_then(source: FrameSource) -> None:
    frames = source.frames()
    next(frames)
    source.close()
    source.close()
    assert list(frames) == []


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


# --- cameras ---------------------------------------------------------------------------------------------


def test_the_camera_is_asked_for_luma_at_a_locked_rate_in_a_fast_mode(picamera2: type[FakeCamera]) -> None:
    source = CameraSource(rate_hz=200.0, size=(64, 48), controls={"ExposureTime": 3000}, buffer_count=9)
    source.close()
    wanted = CAMERAS[0].configuration
    assert wanted["main"] == {"format": "YUV420", "size": (64, 48)}
    assert wanted["controls"]["FrameDurationLimits"] == (5000, 5000)
    assert wanted["controls"]["ExposureTime"] == 3000
    assert wanted["sensor"] == {"output_size": (640, 480), "bit_depth": 10}
    assert wanted["buffer_count"] == 9
    assert CAMERAS[0].events == ["start", "stop", "close"]


def test_a_frame_lost_by_the_sensor_shows_as_a_jump(picamera2: type[FakeCamera]) -> None:
    # The camera waits for buffers, so with a prompt reader only these are missing.
    picamera2.lost = frozenset(range(40, 43))
    source = CameraSource(rate_hz=200.0, size=(64, 48))
    steps = set()
    last = None
    for frame in source.frames():
        if last is not None:
            interval = frame.timestamp_ns - last.timestamp_ns
            steps.add((frame.sequence - last.sequence) * 5_000_000 - interval)
        last = frame
        if frame.sequence >= 60:
            break
    source.close()
    assert steps == {0}, "sequence follows the sensor's clock"
    assert last is not None
    assert last.sequence == round(last.timestamp_ns / 5_000_000)


def test_a_slow_reader_loses_the_oldest_frames_and_they_are_counted(
    picamera2: type[FakeCamera], until: Callable[..., None]
) -> None:
    source = CameraSource(rate_hz=200.0, size=(64, 48), buffer_count=6)
    frames = source.frames()
    before = next(frames).sequence
    already = source.frames_dropped  # some may have gone before the first was taken
    until(lambda: source.frames_dropped > already + 5, "a full hand-over queue")
    sequences = [next(frames).sequence for _ in range(2)]
    source.close()
    assert sequences[0] > before + 1


def test_every_request_goes_back_to_the_camera(picamera2: type[FakeCamera]) -> None:
    source = CameraSource(rate_hz=200.0, size=(64, 48), buffer_count=6)
    for count, _ in enumerate(source.frames()):
        if count == 30:
            break
    source.close()
    camera = CAMERAS[0]
    free = 0
    while camera.free.acquire(blocking=False):
        free += 1
    assert free == 6


def test_closing_from_another_thread_ends_the_frames(picamera2: type[FakeCamera]) -> None:
    source = CameraSource(rate_hz=200.0, size=(64, 48))
    started = threading.Event()

    def read() -> None:
        for _ in source.frames():
            started.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert started.wait(10)
    source.close()
    reader.join(10)
    assert not reader.is_alive()


def test_a_camera_that_is_silent_is_reported_and_stopped(picamera2: type[FakeCamera]) -> None:
    picamera2.silent = True
    with pytest.raises(SourceError, match=r"no frame within 0\.05 s; check the camera's cable"):
        CameraSource(size=(64, 48), stall_s=0.05)
    assert CAMERAS[0].events == ["start", "stop", "close"]


def test_a_rate_that_the_sensor_cannot_reach_is_a_warning(picamera2: type[FakeCamera]) -> None:
    picamera2.fastest_us = 10_000
    source = CameraSource(rate_hz=200.0, size=(64, 48))
    source.close()
    assert source.warnings == ["the sensor mode gives at most 100.0 frames/s, not 200"]


def test_a_camera_without_luma_planes_is_refused_and_closed(picamera2: type[FakeCamera]) -> None:
    picamera2.gives_format = "MJPEG"
    with pytest.raises(SourceError, match="gives MJPEG, not one of YUV420"):
        CameraSource(size=(64, 48))
    assert CAMERAS[0].events == ["stop", "close"]


def test_an_absent_camera_is_named(picamera2: type[FakeCamera]) -> None:
    with pytest.raises(SourceError, match="camera 3: not there, 1 found"):
        CameraSource(3)


def test_without_picamera2_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(SourceError, match="apt install python3-picamera2"):
        CameraSource()


def test_a_webcam_gives_driver_time_and_shows_lost_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No webcam here: a recording with the stamps of one stands in for the driver, /dev/null for the node.
    produced = [0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12]
    recording = write_video(tmp_path / "driver.mkv", stamps=[70_000 + 40 * index for index in produced])
    real_open = av.open
    monkeypatch.setattr("edge.frames.webcam.av.open", lambda device, **_: real_open(str(recording)))
    source = WebcamSource("/dev/null", rate_hz=25.0, size=(64, 48))
    frames = source.frames()
    seen = [next(frames) for _ in produced]
    assert [(frame.sequence, frame.timestamp_ns) for frame in seen] == [
        (index, index * 40_000_000) for index in produced
    ]
    with pytest.raises(SourceError, match="the webcam stopped giving frames"):
        next(frames)
    source.close()


def test_an_absent_webcam_is_named() -> None:
    with pytest.raises(SourceError, match="/dev/video99: no such webcam"):
        WebcamSource("/dev/video99")


def test_a_device_that_is_no_webcam_is_refused() -> None:
    with pytest.raises(SourceError, match="/dev/null: cannot be opened as a webcam with 640x480 at 30/s"):
        WebcamSource("/dev/null")


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
