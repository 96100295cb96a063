"""What `edge.frames.FrameSource` promises, asked of every source: recordings, synthetic ones, webcam and camera.

The cameras here are stand-ins at the seam of their libraries. The same file asks a real one, alone, where
`MICROEDGE_CAMERA` names it:

    MICROEDGE_CAMERA=picamera2 pytest --noconftest tests/test_source_contract.py
    MICROEDGE_CAMERA=webcam:/dev/video0 MICROEDGE_CAMERA_SIZE=640x480 MICROEDGE_CAMERA_RATE_HZ=30 pytest ...

`picamera2` may be followed by the camera's number. Needed are numpy, pytest and the camera's library, nothing else
of the project's tests; what a library must be told first (libcamera's virtual pipeline has no raw stream, and its
own allocator) can come from a plug-in: `-p NAME`. Frames need not come at the rate asked for, nor be lost.
`MICROEDGE_CAMERA_FRAMES` says how many frames a long run has, 600 of a real camera by default.
"""

import importlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.errors import SourceError
from edge.frames import FrameSource

REAL = os.environ.get("MICROEDGE_CAMERA", "")
FRAMES = int(os.environ.get("MICROEDGE_CAMERA_FRAMES", "600" if REAL else "300"))
SECOND_NS = 1_000_000_000


@dataclass(frozen=True)
class Kind:
    """A kind of source: how to open one, and what is known of it."""

    open: Callable[[], FrameSource]
    open_absent: Callable[[], FrameSource] | None = None
    """Opens one that is not there."""
    is_live: bool = False
    """Frames come from now on, without end."""
    is_timely: bool = True
    """Its clock is the computer's; that of a stand-in which makes frames as fast as it can runs ahead."""
    check: Callable[[], None] = lambda: None
    """Asked after each test whether the source has kept the rules of what it uses."""


def real_camera() -> Kind:
    library, _, which = REAL.partition(":")
    width, _, height = os.environ.get("MICROEDGE_CAMERA_SIZE", "640x480").partition("x")
    wanted: dict[str, Any] = {
        "rate_hz": float(os.environ.get("MICROEDGE_CAMERA_RATE_HZ", "60")),
        "size": (int(width), int(height)),
    }
    if library == "picamera2":
        camera = importlib.import_module("edge.frames.camera").CameraSource
        return Kind(lambda: camera(int(which or 0), **wanted), lambda: camera(9, **wanted), is_live=True)
    webcam = importlib.import_module("edge.frames.webcam").WebcamSource
    node = which or "/dev/video0"
    return Kind(lambda: webcam(node, **wanted), lambda: webcam("/dev/video99", **wanted), is_live=True)


def recording(name: str, folder: Path) -> Kind:
    recordings = importlib.import_module("recordings")
    replay = importlib.import_module("edge.frames.replay").ReplaySource
    path = folder / name
    if not path.exists():
        recordings.write_video(path, **recordings.RECORDINGS[name])
    return Kind(lambda: replay(path), lambda: replay(folder / "absent.mkv"))


def synthetic(wrapped: str = "") -> Kind:
    portrait = importlib.import_module("edge.frames.portrait")
    source = importlib.import_module("edge.frames.synthetic").SyntheticSource

    def opened() -> FrameSource:
        made: FrameSource = source(
            portrait.load_portrait(), portrait.portrait_landmarks(), seconds=0.1, size=(320, 240)
        )
        if wrapped == "paced":
            made = importlib.import_module("edge.frames.paced").PacedSource(made)
        elif wrapped == "looped":
            made = importlib.import_module("edge.frames.looped").LoopedSource(made)
        return made

    return Kind(opened)


def stand_in_camera(monkeypatch: pytest.MonkeyPatch, **about: Any) -> Kind:
    machine = importlib.import_module("camera_stand_in").Machine(**about)
    machine.install(monkeypatch.setitem)
    camera = importlib.import_module("edge.frames.camera").CameraSource

    def check() -> None:
        assert machine.misuse == []
        assert not any(device.is_open for device in machine.devices)
        assert all(len(device.free) == len(device.buffers) for device in machine.devices)

    return Kind(
        lambda: camera(size=(64, 48)),
        lambda: camera(9),
        is_live=True,
        is_timely=not machine.hasty,
        check=check,
    )


def stand_in_webcam(monkeypatch: pytest.MonkeyPatch) -> Kind:
    webcam = importlib.import_module("webcam_stand_in").Webcam()
    monkeypatch.setattr("edge.frames.webcam.av.open", webcam.open)
    source = importlib.import_module("edge.frames.webcam").WebcamSource

    def check() -> None:
        assert webcam.misuse == []

    return Kind(
        lambda: source(webcam.NODE, size=(64, 48)), lambda: source("/dev/video99"), is_live=True, check=check
    )


def names() -> list[str]:
    if REAL:
        return [REAL]
    recordings = importlib.import_module("recordings")
    stand_ins = ["webcam", "picamera2", "picamera2 mono", "picamera2 virtual", "picamera2 hasty"]
    return [
        *recordings.RECORDINGS,
        "synthetic",
        "synthetic paced",
        "synthetic looped",
        *stand_ins,
        "/dev/video0",
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(params=names())
def kind(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kind]:
    name = request.param
    if REAL:
        made = real_camera()
    elif name == "/dev/video0":
        if not Path(name).is_char_device():
            pytest.skip("no webcam at /dev/video0: its contract is kept by a stand-in only")
        webcam = importlib.import_module("edge.frames.webcam").WebcamSource
        made = Kind(lambda: webcam(name), lambda: webcam("/dev/video99"), is_live=True)
    elif name.startswith("synthetic"):
        made = synthetic(name.partition(" ")[2])
    elif name == "webcam":
        made = stand_in_webcam(monkeypatch)
    elif name.startswith("picamera2"):
        about: dict[str, dict[str, Any]] = {
            "mono": {"cameras": ["ov9281"], "gives_format": "R8"},
            "virtual": {"cameras": ["Virtual0"], "is_virtual": True},
            "hasty": {"hasty": True},
        }
        made = stand_in_camera(monkeypatch, **about.get(name.partition(" ")[2], {}))
    else:
        made = recording(name, folder)
    yield made
    made.check()


@pytest.fixture
def source(kind: Kind) -> Iterator[FrameSource]:
    made = kind.open()
    yield made
    made.close()


def test_a_source_says_what_it_is_before_its_first_frame(source: FrameSource, kind: Kind) -> None:
    assert isinstance(source, FrameSource)
    assert source.name
    assert all(side > 0 for side in source.size)
    assert source.nominal_rate_hz >= 0
    assert source.duration_s is None if kind.is_live else source.duration_s is None or source.duration_s > 0
    assert source.frames_out_of_order == 0
    assert all(text and "\n" not in text for text in source.warnings)


def test_frames_are_luma_with_rising_media_time_and_numbers_from_zero(source: FrameSource) -> None:
    stamps, sequences = [], []
    for frame in islice(source.frames(), 12):
        assert frame.luma.shape == (source.size[1], source.size[0])
        assert frame.luma.dtype == np.uint8
        assert frame.luma.strides[1] == 1, "pixels of a row lie side by side"
        assert frame.luma.strides[0] >= source.size[0], "rows do not overlap"
        stamps.append(frame.timestamp_ns)
        sequences.append(frame.sequence)
    assert len(stamps) >= 2
    assert (stamps[0], sequences[0]) == (0, 0)
    assert all(earlier < later for earlier, later in pairwise(stamps))
    assert all(earlier < later for earlier, later in pairwise(sequences))
    assert source.frames_out_of_order == 0


def test_a_long_run_goes_on_in_order(source: FrameSource, kind: Kind) -> None:
    wanted = FRAMES if kind.is_live else 12
    count, last = 0, None
    for frame in islice(source.frames(), wanted):
        count += 1
        if last is not None:
            assert frame.timestamp_ns > last[0]
            assert frame.sequence > last[1]
        last = frame.timestamp_ns, frame.sequence
    assert count == wanted or not kind.is_live, "a live source does not end by itself"


def test_a_frame_stays_as_it_is_until_the_next_is_asked_for(source: FrameSource, kind: Kind) -> None:
    frames = source.frames()
    for _ in range(3 if kind.is_live else 1):
        frame = next(frames)
        copy = frame.luma.copy()
        # Time for a camera to make more than it has buffers for.
        threading.Event().wait(0.05 if kind.is_live else 0)
        np.testing.assert_array_equal(frame.luma, copy)


def test_the_utc_of_the_first_frame_is_known(source: FrameSource, kind: Kind) -> None:
    next(source.frames())
    if kind.is_live and kind.is_timely:
        assert abs(source.start_time_ns - time.time_ns()) < 5 * SECOND_NS
    else:
        assert source.start_time_ns >= 0


def test_a_source_may_be_closed_twice_and_its_frames_end(source: FrameSource) -> None:
    frames = source.frames()
    next(frames)
    source.close()
    source.close()
    assert list(frames) == []


def test_a_source_may_be_closed_before_its_first_frame(source: FrameSource) -> None:
    frames = source.frames()
    source.close()
    assert list(frames) == []


def test_a_source_whose_frames_nobody_takes_to_the_end_can_be_closed(source: FrameSource) -> None:
    for _ in source.frames():
        break
    source.close()


def test_closing_from_another_thread_ends_the_frames(kind: Kind) -> None:
    source = kind.open()
    if not kind.is_live and source.duration_s is not None:
        source.close()
        pytest.skip("it ends by itself")
    started, outcome = threading.Event(), []

    def read() -> None:
        try:
            for _ in source.frames():
                started.set()
            outcome.append("ended")
        except Exception as error:
            outcome.append(repr(error))

    reader = threading.Thread(target=read)
    reader.start()
    assert started.wait(10)
    source.close()
    reader.join(10)
    assert outcome == ["ended"]


def test_a_source_can_be_opened_again_once_it_is_closed(kind: Kind) -> None:
    for _ in range(2):
        source = kind.open()
        assert next(source.frames()).sequence == 0
        source.close()


def test_what_is_not_there_gives_one_sentence(kind: Kind) -> None:
    if kind.open_absent is None:
        pytest.skip("it is always there")
    with pytest.raises(SourceError) as caught:
        kind.open_absent()
    assert str(caught.value)
    assert "\n" not in str(caught.value)
