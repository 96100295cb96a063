"""The picamera2 source over a strict stand-in: every frame, in order, in time, and what users read when it fails."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from camera_stand_in import Device, Machine, number_in

from edge.commands.run import open_camera
from edge.config import load
from edge.errors import SourceError, StuckError
from edge.feed import Reader
from edge.frame_queue import FrameQueue
from edge.frames.camera import CameraSource

SECOND_NS = 1_000_000_000


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    machine = Machine()
    machine.install(monkeypatch.setitem)
    yield machine
    assert machine.misuse == []
    assert not any(device.is_open for device in machine.devices)


def opened(machine: Machine, **wanted: Any) -> CameraSource:
    return CameraSource(**{"rate_hz": 200.0, "size": (64, 48)} | wanted)


def device(machine: Machine) -> Device:
    return machine.devices[-1]


# --- frames ------------------------------------------------------------------------------------------------


def test_thousands_of_frames_arrive_each_once_and_in_order(machine: Machine) -> None:
    source = opened(machine)
    numbers, previous = [], None
    for frame in source.frames():
        numbers.append(number_in(frame.luma))
        if previous is not None:
            assert frame.timestamp_ns - previous[0] == (frame.sequence - previous[1]) * 5_000_000
        previous = frame.timestamp_ns, frame.sequence
        if len(numbers) == 3000:
            break
    source.close()
    assert source.frames_dropped == 0
    assert [later - earlier for earlier, later in pairwise(numbers)] == [1] * 2999


def test_luma_is_a_view_without_the_padding_of_its_rows(machine: Machine) -> None:
    source = opened(machine, size=(320, 240))
    frame = next(source.frames())
    assert frame.luma.shape == (240, 320)
    assert frame.luma.strides == (device(machine).stride, 1)
    assert not frame.luma.flags.owndata
    assert int(frame.luma.max()) < 255
    source.close()


@pytest.mark.parametrize("pixel_format", ["YUV420", "YVU420", "NV12", "NV21", "R8"])
def test_every_format_that_begins_with_luma_is_taken(machine: Machine, pixel_format: str) -> None:
    machine.gives_format = pixel_format
    source = opened(machine)
    assert next(source.frames()).luma.shape == (48, 64)
    source.close()


def test_a_frame_lost_by_the_sensor_shows_as_a_jump(machine: Machine) -> None:
    machine.lost = frozenset(range(400, 403))
    source = opened(machine)
    seen = {}
    for frame in source.frames():
        seen[number_in(frame.luma)] = frame.sequence
        if len(seen) == 400:
            break
    source.close()
    assert not seen.keys() & {400, 401, 402}
    assert seen[403] - seen[399] == 4


def test_a_slow_reader_loses_the_oldest_frames_and_they_are_counted_and_seen(
    machine: Machine, until: Callable[..., None]
) -> None:
    machine.hasty = True
    source = opened(machine, buffer_count=6)
    frames = source.frames()
    first = next(frames)
    before, number, picture = first.sequence, number_in(first.luma), first.luma.copy()
    already = source.frames_dropped  # some may have gone before the first was taken
    until(lambda: source.frames_dropped > already + 50, "a full hand-over queue")
    assert np.array_equal(first.luma, picture), "the frame in hand is nobody else's"
    later = next(frames)
    assert later.sequence - before == number_in(later.luma) - number > 50
    source.close()


def test_every_request_goes_back_to_the_camera(machine: Machine) -> None:
    source = opened(machine, buffer_count=6)
    for count, _ in enumerate(source.frames()):
        if count == 30:
            break
    source.close()
    assert len(device(machine).free) == 6


def test_buffers_are_enough_for_a_tenth_of_a_second(machine: Machine) -> None:
    for rate_hz, buffers in ((200.0, 20), (30.0, 8)):
        opened(machine, rate_hz=rate_hz).close()
        assert device(machine).configuration["buffer_count"] == buffers
    machine.cameras = ["ov9281"]
    opened(machine, rate_hz=309.0).close()
    assert device(machine).configuration["buffer_count"] == 31


def test_utc_of_the_first_frame_comes_from_the_sensors_clock(machine: Machine) -> None:
    source = opened(machine)
    frame = next(source.frames())
    assert frame.timestamp_ns == 0
    # The stand-in's clock runs ahead while it settles, by less than this.
    assert abs(source.start_time_ns - time.time_ns()) < 5 * SECOND_NS
    source.close()


# --- how it is asked ---------------------------------------------------------------------------------------


def test_the_camera_is_asked_for_luma_in_a_fast_mode_without_a_raw_stream(machine: Machine) -> None:
    opened(machine, buffer_count=9).close()
    wanted = device(machine).configuration
    assert wanted["main"] == {"format": "YUV420", "size": (64, 48)}
    assert wanted["raw"] is None
    assert wanted["controls"] == {"NoiseReductionMode": 0}
    assert wanted["sensor"] == {"output_size": (640, 480), "bit_depth": 10}
    assert wanted["buffer_count"] == 9
    assert device(machine).calls == ["start", "close"]


@pytest.mark.parametrize(
    ("model", "fastest", "rate_hz"), [("imx708", "1536x864", 120.1), ("imx477", "1332x990", 120.1)]
)
def test_a_sensor_without_the_asked_rate_runs_as_fast_as_it_can_and_says_so(
    machine: Machine, model: str, fastest: str, rate_hz: float
) -> None:
    machine.cameras = [model]
    source = opened(machine)
    source.close()
    assert source.warnings == [
        f"camera.rate_hz = 200: this camera gives at most {rate_hz} frames/s ({fastest} is its fastest mode)"
    ]
    assert source.nominal_rate_hz == pytest.approx(rate_hz, abs=0.1)
    limits = device(machine).sent[-1]["FrameDurationLimits"]
    assert limits[0] == limits[1] == pytest.approx(1e6 / rate_hz, rel=0.002)


def test_another_size_than_asked_is_a_warning(machine: Machine) -> None:
    source = opened(machine, size=(65, 48))
    source.close()
    assert source.size == (64, 48)
    assert source.warnings == ["frames are 64x48 px, not 65x48 as asked"]


def test_the_configuration_says_how_the_camera_is_opened(machine: Machine) -> None:
    machine.cameras = ["ov9281", "imx708"]
    settings = (
        "number=1", "rate_hz=50", "width=320", "height=240", "field_of_view=narrow", "mains_hz=60", "gain=2",
    )  # fmt: skip
    source = open_camera(load(None, [f"camera.{setting}" for setting in settings]))
    next(source.frames())
    source.close()
    assert (source.name, source.size, source.nominal_rate_hz) == ("camera 1 (imx708)", (320, 240), 50.0)
    assert device(machine).configuration["sensor"]["output_size"] == (1536, 864)
    last = device(machine).sent[-1]
    assert (last["AnalogueGain"], last["ExposureTime"]) == (2.0, 6000)  # 12 ms at gain 1, as the scene needs


def test_a_global_shutter_camera_is_cropped_before_its_modes_are_asked_for(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.cameras = ["imx296"]
    asked = []

    def crop(camera_id: str, rate_hz: float) -> int:
        asked.append((camera_id, rate_hz))
        device(machine).model = "imx296 cropped"
        return 136

    monkeypatch.setattr("edge.frames.sensor_crop.crop", crop)
    source = opened(machine, rate_hz=400.0)
    assert next(source.frames()).luma.shape == (48, 64)
    source.close()
    assert asked == [("/base/soc/i2c@0/imx296@1a", 400.0)]
    assert source.warnings == []


def test_a_global_shutter_camera_that_cannot_be_cropped_runs_slowly_and_says_why(machine: Machine) -> None:
    machine.cameras = ["imx296"]
    source = opened(machine)  # this machine has no such device
    source.close()
    assert [text.split(": ", 1)[0] for text in source.warnings] == ["camera.rate_hz = 200"] * 2
    assert "no device under /sys/class/video4linux belongs to this sensor" in source.warnings[0]
    assert source.warnings[1].endswith("at most 60.4 frames/s (1456x1088 is its fastest mode)")
    assert source.nominal_rate_hz == pytest.approx(60.4, abs=0.1)


# --- exposure ----------------------------------------------------------------------------------------------


def test_exposure_and_white_balance_are_locked_before_the_first_frame(machine: Machine) -> None:
    source = opened(machine)
    next(source.frames())
    source.close()
    first, last = device(machine).sent[1], device(machine).sent[-1]
    assert (first["AeEnable"], first["AwbEnable"], first["FrameDurationLimits"]) == (
        True,
        True,
        (33_333, 33_333),
    )
    assert (last["AeEnable"], last["AwbEnable"], last["FrameDurationLimits"]) == (False, False, (5000, 5000))
    assert last["ExposureTime"] == 4850  # as long as a frame leaves time for
    assert last["ExposureTime"] * last["AnalogueGain"] == pytest.approx(12_000, rel=0.02)
    assert source.warnings == []


def test_a_monochrome_camera_has_no_white_balance_to_lock(machine: Machine) -> None:
    machine.cameras = ["ov9281"]
    source = opened(machine, rate_hz=300.0)
    next(source.frames())
    source.close()
    assert source.warnings == []
    assert "AwbEnable" not in device(machine).sent[-1]


def test_a_lens_is_focused_once_and_then_left_alone(machine: Machine) -> None:
    machine.cameras, machine.has_focus = ["imx708"], True
    source = opened(machine, rate_hz=100.0)
    next(source.frames())
    source.close()
    focus = [(sent.get("AfMode"), sent.get("AfTrigger")) for sent in device(machine).sent if "AfMode" in sent]
    assert focus == [(1, 0), (0, None)]


def test_controls_that_picamera2_loses_are_set_again(machine: Machine) -> None:
    machine.loses_controls = 1
    source = opened(machine)
    next(source.frames())
    source.close()
    locked = [sent for sent in device(machine).sent if sent.get("AeEnable") is False]
    assert len(locked) == 2
    assert source.warnings == []


def test_an_exposure_that_cannot_be_locked_is_a_warning(machine: Machine) -> None:
    machine.stuck_exposure, machine.light_us = True, 2_000.0
    source = opened(machine, exposure_us=4000)
    next(source.frames())
    source.close()
    assert len(source.warnings) == 1
    assert source.warnings[0].startswith("the exposure could not be locked: asked for 4000 us and gain 1.00")


def test_too_little_light_for_the_rate_is_a_warning(machine: Machine) -> None:
    machine.light_us = 200_000.0
    source = opened(machine)
    next(source.frames())
    source.close()
    assert source.warnings == [
        "camera.rate_hz = 200: too little light for it: 4850 us and gain 10.7 give 26% of the brightness wanted"
    ]


def test_light_that_changes_for_good_is_followed_and_shows_as_a_gap(machine: Machine) -> None:
    source = opened(machine)
    frames = source.frames()
    next(frames)
    machine.light_us = 1_000.0  # somebody opens the blinds
    before, number, last = None, 0, next(frames)
    while before is None or last.sequence - before.sequence == 1:
        before, number, last = last, number_in(last.luma), next(frames)
    gap_s = (last.timestamp_ns - before.timestamp_ns) / SECOND_NS
    assert 9.9 < before.timestamp_ns / SECOND_NS < 10.2
    assert 0.2 < gap_s < 3
    assert last.sequence - before.sequence == number_in(last.luma) - number, "what was not given is counted"
    assert 60 < float(last.luma.mean()) < 160
    assert device(machine).sent[-1]["ExposureTime"] * device(machine).sent[-1][
        "AnalogueGain"
    ] == pytest.approx(1_000, rel=0.1)
    source.close()


def test_a_camera_that_is_as_bright_as_it_can_be_stays_as_it_is_in_the_dark(machine: Machine) -> None:
    machine.light_us = 4_000_000.0
    source = opened(machine)
    frames = source.frames()
    sent = len(device(machine).sent)
    last = next(frames)
    while last.timestamp_ns < 12 * SECOND_NS:
        last = next(frames)
    assert len(device(machine).sent) == sent
    source.close()


def test_what_is_locked_is_told_once_with_what_lamps_do(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edge.frames")
    opened(machine).close()
    assert [record.getMessage() for record in caplog.records] == [
        "camera: exposure 4850 us and gain 2.47 are locked at 200 frames/s; lamps on 50 Hz may flicker: 10000 us of "
        "light fit into a frame up to 97 frames/s",
        "camera: camera 0 (imx219), 640x480 at up to 206.7 frames/s",
    ]


# --- faults ------------------------------------------------------------------------------------------------


def test_an_absent_camera_is_named_with_those_that_are_there(machine: Machine) -> None:
    with pytest.raises(SourceError, match=r"camera.number = 3: not there; there is 0 \(imx219\)"):
        CameraSource(3)
    machine.cameras = []
    with pytest.raises(
        SourceError, match=r"camera.number = 0: not there; libcamera finds none; check the ribbon"
    ):
        CameraSource()


def test_a_camera_in_use_says_how_to_find_who_uses_it(machine: Machine) -> None:
    machine.is_busy = True
    with pytest.raises(
        SourceError, match=r"camera 0 \(imx219\): in use by another program; `sudo fuser"
    ) as caught:
        opened(machine)
    assert "Device or resource busy" in str(caught.value)


def test_a_camera_that_does_not_start_is_closed_and_gives_its_reason(machine: Machine) -> None:
    machine.fails_to_start = "Failed to start camera: Broken pipe"
    with pytest.raises(
        SourceError, match=r"camera 0 \(imx219\): cannot be started \(Failed to start camera: Broken"
    ):
        opened(machine)
    assert device(machine).calls == ["start", "close"]


def test_a_camera_that_is_silent_is_reported_and_closed(machine: Machine) -> None:
    machine.silent_from = 1
    with pytest.raises(SourceError, match=r"no frame for 0\.05 s; check the camera's cable"):
        opened(machine, stall_s=0.05)
    assert device(machine).calls == ["start", "close"]


def test_a_camera_unplugged_in_the_middle_ends_in_an_error_and_is_there_again_later(machine: Machine) -> None:
    machine.silent_from = 500
    source = opened(machine, stall_s=0.05)
    with pytest.raises(
        SourceError, match=r"camera 0 \(imx219\): no frame for 0\.05 s; check the camera's cable"
    ):
        for _ in source.frames():
            pass
    source.close()
    machine.cameras = []
    with pytest.raises(SourceError, match="not there"):
        opened(machine)
    machine.cameras, machine.silent_from = ["imx219"], None
    source = opened(machine)
    assert next(source.frames()).sequence == 0
    source.close()


def test_a_camera_without_luma_planes_is_refused_and_closed(machine: Machine) -> None:
    machine.gives_format = "MJPEG"
    with pytest.raises(SourceError, match=r'gives MJPEG, not one of YUV420.*camera.source = "webcam"'):
        opened(machine)
    assert device(machine).calls == ["close"]


def test_frames_without_a_sensor_timestamp_are_refused(machine: Machine) -> None:
    machine.stampless = True
    with pytest.raises(SourceError, match="its frames carry no SensorTimestamp; time cannot be known"):
        opened(machine)


def test_a_camera_that_does_not_let_itself_be_closed_is_an_error_in_bounded_time_until_it_is_closed(
    machine: Machine, until: Callable[..., None]
) -> None:
    machine.hangs_at_close = threading.Event()
    source = opened(machine, close_s=0.05)
    frames = source.frames()
    next(frames)
    with pytest.raises(
        StuckError, match=r"camera 0 \(imx219\): hangs, and could not be closed within 0\.05 s; it may"
    ):
        source.close()
    assert list(frames) == []
    source.close()  # there is nothing more to do
    with pytest.raises(
        StuckError, match="hangs since it was to be closed; only a new start of the service helps"
    ):
        opened(machine)
    machine.hangs_at_close.set()
    until(lambda: not machine.devices[0].is_open, "the camera let go")
    until(lambda: not any("closing" in thread.name for thread in threading.enumerate()), "the thread ended")
    machine.hangs_at_close = None
    source = opened(machine)
    assert next(source.frames()).sequence == 0
    source.close()


def test_a_camera_that_fails_to_start_and_then_hangs_says_that_it_may_be_on(
    machine: Machine, until: Callable[..., None]
) -> None:
    machine.fails_to_start, machine.hangs_at_close = "Failed to start camera: Broken pipe", threading.Event()
    with pytest.raises(StuckError, match="it may still be on"):
        opened(machine, close_s=0.05)
    machine.hangs_at_close.set()
    until(lambda: not any("closing" in thread.name for thread in threading.enumerate()), "the thread ended")


class Watched:
    """A reader over the camera, with its LED, until it has ended by itself or is closed."""

    def __init__(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("edge.feed.RETRY_S", (0.001, 0.001))
        self.is_lit, self.attempts = False, 0
        self.queue = FrameQueue(4, drops_oldest=True)
        self.reader = Reader(
            lambda: opened(machine, stall_s=0.05, close_s=0.05), self.queue, is_live=True, light=self._light,
            retried=self._retried,
        )  # fmt: skip

    def _light(self, is_lit: bool) -> None:
        self.is_lit = is_lit

    def _retried(self) -> None:
        self.attempts += 1


def test_a_reader_opens_a_camera_that_has_stalled_again_and_media_time_goes_on(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.silent_from = 300
    watched = Watched(machine, monkeypatch)
    machine.silent_from = None  # from the next time it is opened
    watched.reader.start()
    stamps = []
    while len(stamps) < 1000 and (frame := watched.queue.get()) is not None:
        stamps.append(frame.timestamp_ns)
    assert watched.is_lit
    watched.reader.close(5)
    assert all(later > earlier for earlier, later in pairwise(stamps))
    assert (len(machine.devices), watched.attempts) == (2, 1)
    assert not watched.is_lit


def test_a_camera_that_cannot_be_closed_ends_the_process_with_its_led_lit(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, until: Callable[..., None]
) -> None:
    machine.silent_from, machine.hangs_at_close = 500, threading.Event()
    watched = Watched(machine, monkeypatch)
    watched.reader.start()
    while watched.queue.get() is not None:
        pass
    until(lambda: watched.reader.failure, "the reader has given up")
    assert watched.reader.failure.startswith(
        "camera 0 (imx219): hangs, and could not be closed within 0.05 s"
    )
    assert watched.is_lit, "the camera may still be on"
    assert watched.attempts == 0
    machine.hangs_at_close.set()
    until(lambda: not any("closing" in thread.name for thread in threading.enumerate()), "the thread ended")


def test_without_picamera2_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "picamera2", None)
    with pytest.raises(SourceError, match="apt install python3-picamera2"):
        CameraSource()


# --- libcamera's virtual camera ----------------------------------------------------------------------------


def test_a_camera_with_few_controls_and_another_format_works_as_it_is(machine: Machine) -> None:
    machine.is_virtual, machine.cameras = True, ["Virtual0"]
    source = opened(machine, rate_hz=60.0)
    # The reader still has the last frame when the next is asked for, as a `for` loop does.
    numbers = [number_in(frame.luma) for _, frame in zip(range(50), source.frames(), strict=False)]
    source.close()
    assert [later - earlier for earlier, later in pairwise(numbers)] == [1] * 49
    assert source.warnings == ["this camera's exposure cannot be locked; a change of light may hide movement"]


# --- what is logged ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "of_libcamera", "of_picamera2"), [("INFO", "*:WARN", "WARNING"), ("DEBUG", None, "NOTSET")]
)
def test_the_libraries_log_warnings_only_unless_everything_is_wanted(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    level: str,
    of_libcamera: str | None,
    of_picamera2: str,
) -> None:
    monkeypatch.delenv("LIBCAMERA_LOG_LEVELS", raising=False)
    logging.getLogger("picamera2").setLevel(logging.NOTSET)
    caplog.set_level(level, "edge.frames.picamera")
    opened(machine).close()
    assert os.environ.get("LIBCAMERA_LOG_LEVELS") == of_libcamera
    assert logging.getLevelName(logging.getLogger("picamera2").level) == of_picamera2
