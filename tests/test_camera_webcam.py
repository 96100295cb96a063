"""The webcam source: the driver's time, lost frames, and what users read when it fails."""

from collections.abc import Callable

import pytest
from webcam_stand_in import Webcam

from edge.errors import SourceError
from edge.frames.webcam import WebcamSource

Plug = Callable[[Webcam], Webcam]


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch) -> Plug:
    def plug(webcam: Webcam) -> Webcam:
        monkeypatch.setattr("edge.frames.webcam.av.open", webcam.open)
        return webcam

    return plug


def test_a_webcam_gives_driver_time_and_shows_lost_frames(plugged: Plug) -> None:
    plugged(Webcam(25, lost=frozenset((8, 9))))
    source = WebcamSource(Webcam.NODE, rate_hz=25.0, size=(64, 48))
    frames = source.frames()
    seen = [next(frames) for _ in range(10)]
    source.close()
    produced = [0, 1, 2, 3, 4, 5, 6, 7, 10, 11]
    assert [(frame.sequence, frame.timestamp_ns) for frame in seen] == [
        (index, index * 40_000_000) for index in produced
    ]


def test_another_rate_or_size_than_asked_is_a_warning(plugged: Plug) -> None:
    plugged(Webcam(30))
    source = WebcamSource(Webcam.NODE, rate_hz=200.0, size=(640, 480))
    source.close()
    assert source.warnings == [
        "frames are 64x48 px, not 640x480 as asked",
        "camera.rate_hz = 200: the webcam's driver gives 30 frames/s",
    ]


def test_a_webcam_that_hangs_is_reported_and_can_be_closed(plugged: Plug) -> None:
    webcam = plugged(Webcam(silent_from=5))
    source = WebcamSource(Webcam.NODE, size=(64, 48), stall_s=0.05)
    with pytest.raises(SourceError, match=r"/dev/null: no frame for 0\.05 s; unplug it"):
        for _ in source.frames():
            pass
    source.close()
    assert webcam.misuse == []


def test_a_webcam_that_gives_no_frame_at_all_is_closed_again(plugged: Plug) -> None:
    plugged(Webcam(silent_from=0))
    with pytest.raises(SourceError, match=r"/dev/null: no frame for 0\.05 s"):
        WebcamSource(Webcam.NODE, stall_s=0.05)


def test_a_webcam_that_is_unplugged_ends_in_an_error_and_works_when_it_is_back(plugged: Plug) -> None:
    plugged(Webcam(unplugged_at=5))
    source = WebcamSource(Webcam.NODE, size=(64, 48))
    with pytest.raises(SourceError, match="/dev/null: the webcam was unplugged"):
        for _ in source.frames():
            pass
    source.close()
    plugged(Webcam())
    source = WebcamSource(Webcam.NODE, size=(64, 48))
    assert next(source.frames()).sequence == 0
    source.close()


def test_an_absent_webcam_is_named() -> None:
    with pytest.raises(SourceError, match="/dev/video99: no such webcam"):
        WebcamSource("/dev/video99")


def test_a_device_that_is_no_webcam_is_refused() -> None:
    with pytest.raises(SourceError, match="/dev/null: cannot be opened as a webcam with 640x480 at 30/s"):
        WebcamSource("/dev/null")
