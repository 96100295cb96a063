"""The composition: frames in order, nothing dropped in silence, LEDs that tell the truth, an orderly end."""

import itertools
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import pytest
from gpiozero.pins.mock import MockFactory
from paho.mqtt.enums import CallbackAPIVersion

from edge.app import App
from edge.config import Config, load
from edge.errors import ConfigError, EdgeError, PublishError, SourceError
from edge.feed import Reader
from edge.frame_queue import FrameQueue
from edge.frames.paced import PacedSource
from edge.out import Payload
from edge.out.leds import Fault
from edge.records import Event, Frame

Until = Callable[..., None]
BLANK = np.zeros((48, 64), np.uint8)


def frame(sequence: int) -> Frame:
    return Frame(BLANK, sequence * 5_000_000, sequence)


class Camera:
    """A camera whose frames the test hands out one by one, and which it can break."""

    name = "test camera"
    size = (64, 48)
    nominal_rate_hz = 200.0
    duration_s: float | None = None
    start_time_ns = 1_795_000_000_000_000_000

    def __init__(self, frames: int | None = None, breaks_with: str = "") -> None:
        """Give `frames` frames (None: as long as it is open), then break or end."""
        self.frames_out_of_order = 0
        self.warnings: list[str] = []
        self.is_closed = threading.Event()
        self._frames, self._breaks_with = frames, breaks_with

    def frames(self) -> Iterator[Frame]:
        sequence = 0
        while self._frames is None or sequence < self._frames:
            yield frame(sequence)
            sequence += 1
            # As fast as a camera of 200 Hz; ends at once when closed.
            if self._frames is None and self.is_closed.wait(0.005):
                return
        if self._breaks_with:
            raise SourceError(self._breaks_with)

    def close(self) -> None:
        self.is_closed.set()


@pytest.fixture
def config() -> Config:
    """No broker and no LEDs unless the test asks for them."""
    return load(None, ["device.id=bench", "mqtt.enabled=false", "leds.enabled=false"])


def with_leds(config: Config) -> Config:
    return replace(config, leds=replace(config.leds, enabled=True))


def capture_states(pins: MockFactory, config: Config) -> list[bool]:
    return [bool(state.state) for state in pins.pin(config.leds.capture_pin).states]


class Kept:
    """A sink that keeps everything, or fails as a full disk does."""

    def __init__(self, problem: str = "") -> None:
        self.payloads: list[Payload] = []
        self._problem = problem

    def publish(self, event: Event, payload: Payload) -> None:
        if self._problem:
            raise PublishError(self._problem)
        self.payloads.append(payload)

    def close(self) -> None:
        """Nothing is held."""


def test_a_full_queue_of_a_camera_drops_the_oldest_and_counts_it() -> None:
    frames = FrameQueue(3, drops_oldest=True)
    for sequence in range(8):
        assert frames.put(frame(sequence))
    frames.end()
    assert [got.sequence for got in iter(frames.get, None)] == [5, 6, 7]
    assert frames.dropped == 5


def test_a_full_queue_of_a_file_makes_the_reader_wait_and_drops_nothing() -> None:
    frames = FrameQueue(2, drops_oldest=False)
    reader = threading.Thread(target=lambda: [frames.put(frame(n)) for n in range(50)] and frames.end())
    reader.start()
    assert [got.sequence for got in iter(frames.get, None)] == list(range(50))
    reader.join()
    assert frames.dropped == 0


def test_closing_a_queue_frees_both_the_reader_and_the_worker() -> None:
    frames = FrameQueue(1, drops_oldest=False)
    frames.put(frame(0))
    refused: list[bool] = []
    reader = threading.Thread(target=lambda: refused.append(frames.put(frame(1))))
    reader.start()
    frames.close()
    reader.join()
    assert refused == [False]
    assert frames.get() is None


def test_frames_are_copied_because_a_source_may_reuse_its_buffer() -> None:
    class Reusing(Camera):
        def frames(self) -> Iterator[Frame]:
            buffer = np.zeros((4, 4), np.uint8)
            for sequence in range(3):
                buffer[:] = sequence
                yield Frame(buffer, sequence * 5_000_000, sequence)

    frames = FrameQueue(10, drops_oldest=False)
    reader = Reader(Reusing, frames, is_live=False, light=lambda _: None, retried=lambda: None)
    reader.start()
    assert [int(got.luma[0, 0]) for got in iter(frames.get, None)] == [0, 1, 2]
    reader.close(5.0)


def test_a_camera_that_comes_back_goes_on_in_the_same_media_time() -> None:
    cameras = iter([Camera(5, "cable pulled"), Camera(5, "cable pulled again"), Camera(5)])
    frames = FrameQueue(100, drops_oldest=True)
    retries: list[None] = []
    lamp: list[bool] = []
    reader = Reader(
        lambda: next(cameras), frames, is_live=True, light=lamp.append, retried=lambda: retries.append(None)
    )
    reader.start()
    got = list(iter(frames.get, None))
    reader.close(5.0)
    times = [each.timestamp_ns for each in got]
    for one, other in itertools.pairwise(got):
        # What the camera would have given while it was away is lost.
        assert other.sequence - one.sequence == round((other.timestamp_ns - one.timestamp_ns) / 5_000_000)
    assert all(later > earlier for earlier, later in itertools.pairwise(times))
    assert times[5] - times[4] > 100_000_000  # the wait shows as a gap
    assert len(retries) == 2
    assert lamp == [True, False] * 3
    assert reader.failure == ""


def test_a_camera_that_is_away_is_shown_and_tried_again(
    config: Config, pins: MockFactory, until: Until
) -> None:
    attempts: list[None] = []

    def open_source() -> Camera:
        attempts.append(None)
        if len(attempts) == 1:
            return Camera(3, "cable pulled")
        raise SourceError("no such camera")

    config = with_leds(config)
    with App(config, open_source, is_live=True, pin_factory=pins) as app:
        until(lambda: len(attempts) >= 3, "a second attempt to open the camera")
        app.attend()
        assert app.is_running
        assert app.leds is not None
        assert Fault.CAMERA in app.leds.faults
        assert not app.leds.state.capture
    assert app.failure == ""


def test_the_capture_led_is_lit_before_the_camera_opens_and_goes_out_after_it_closes(
    config: Config, pins: MockFactory, until: Until
) -> None:
    config = with_leds(config)
    pin = config.leds.capture_pin
    seen: list[tuple[str, int]] = []

    class Watched(Camera):
        def __init__(self) -> None:
            super().__init__()
            seen.append(("open", pins.pin(pin).state))

        def close(self) -> None:
            seen.append(("close", pins.pin(pin).state))
            super().close()

    with App(config, Watched, is_live=True, pin_factory=pins) as app:
        until(lambda: app.statistics.frames > 3, "frames")
        assert pins.pin(pin).state == 1
    assert seen == [("open", 1), ("close", 1)]
    assert capture_states(pins, config)[-1] is False
    assert sum(capture_states(pins, config)) == 1  # lit once, without a flicker


def test_a_camera_that_is_absent_at_the_start_leaves_the_capture_led_dark(
    config: Config, pins: MockFactory
) -> None:
    def absent() -> Camera:
        raise SourceError("camera 0: not there")

    config = with_leds(config)
    with pytest.raises(EdgeError, match="camera 0: not there"):
        App(config, absent, is_live=True, pin_factory=pins)
    assert capture_states(pins, config)[-1] is False


def test_start_up_reports_everything_that_is_missing_at_once(config: Config, tmp_path: Path) -> None:
    def absent() -> Camera:
        raise SourceError("camera 0: not there")

    config = replace(
        config,
        inference=replace(config.inference, models=str(tmp_path)),
        mqtt=replace(config.mqtt, enabled=True, username="me", password_file=str(tmp_path / "secret")),
    )
    with pytest.raises(ConfigError) as caught:
        App(config, absent, is_live=True)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    for part in ("inference.models", "mqtt.password_file", "camera 0: not there"):
        assert any(part in line for line in lines)


def test_a_service_that_cannot_start_blinks_why_before_it_ends(
    config: Config, pins: MockFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.start_failure.BLINK_S", 0.01)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    shown: list[Fault] = []
    monkeypatch.setattr("edge.app.Leds.fault", lambda _, fault, present: shown.append(fault))
    config = with_leds(config)
    config = replace(
        config,
        inference=replace(config.inference, models=str(tmp_path)),
        mqtt=replace(config.mqtt, enabled=True, username="me", password_file=str(tmp_path / "secret")),
    )
    with pytest.raises(ConfigError) as caught:
        App(config, _absent, is_live=True, folder=tmp_path, pin_factory=pins)
    # Under systemd an absent camera alone would be waited for, but a report leaves nothing out.
    assert "camera 0: not there" in str(caught.value)
    assert set(shown) == {Fault.MODELS, Fault.CONFIGURATION, Fault.CAMERA}
    assert capture_states(pins, config)[-1] is False


def _absent() -> Camera:
    raise SourceError("camera 0: not there")


def test_the_end_of_a_file_ends_the_run_without_a_failure(config: Config, until: Until) -> None:
    with App(config, lambda: Camera(40), is_live=False, is_replay=True) as app:
        until(lambda: not app.is_running, "the end of the stream")
        assert app.statistics.frames == 40
        assert app.statistics.dropped == 0
    assert app.failure == ""


def test_a_file_that_breaks_ends_the_run_with_its_reason(config: Config, until: Until) -> None:
    with App(config, lambda: Camera(10, "disk failed"), is_live=False, is_replay=True) as app:
        until(lambda: not app.is_running, "the end of the run")
    assert app.failure == "disk failed"
    assert app.statistics.frames == 10


def test_a_source_that_raises_something_unknown_ends_the_run_with_a_reason(
    config: Config, until: Until
) -> None:
    class Faulty(Camera):
        def frames(self) -> Iterator[Frame]:
            yield frame(0)
            raise RuntimeError("driver bug")

    with App(config, Faulty, is_live=True) as app:
        until(lambda: not app.is_running, "the end of the run")
    assert "driver bug" in app.failure


def test_closing_twice_is_allowed_and_frees_the_source(config: Config) -> None:
    camera = Camera()
    app = App(config, lambda: camera, is_live=True)
    app.close()
    app.close()
    assert camera.is_closed.is_set()


def test_a_broker_that_is_absent_does_not_hold_up_a_frame(
    config: Config, pins: MockFactory, until: Until
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        config = replace(config, mqtt=replace(config.mqtt, enabled=True, host="127.0.0.1", port=port))
        with App(config, lambda: Camera(60), is_live=False, pin_factory=pins) as app:
            until(lambda: not app.is_running, "the end of the stream")
            assert app.statistics.frames == 60
            assert app.mqtt is not None
            assert app.mqtt.problem


def test_health_and_info_are_retained_and_tell_the_state(
    config: Config, shared_broker: Any, topic_prefix: str, until: Until
) -> None:
    config = replace(
        config,
        mqtt=replace(
            config.mqtt, enabled=True, host="127.0.0.1", port=shared_broker.port, topic_prefix=topic_prefix
        ),
    )
    seen: dict[str, list[dict[str, Any]]] = {"health": [], "info": [], "availability": []}
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.on_connect = lambda client, *_: client.subscribe(f"{topic_prefix}/bench/#", qos=1)
    client.on_message = lambda _client, _data, message: seen[message.topic.rpartition("/")[2]].append(
        json.loads(message.payload)
    )
    client.connect("127.0.0.1", shared_broker.port)
    client.loop_start()
    try:
        with App(config, Camera, is_live=True) as app:
            until(lambda: app.statistics.frames > 20, "frames")
            until(
                lambda: app.attend() or any(health["state"] == "running" for health in seen["health"]),
                "health that says running",
            )
        until(lambda: seen["availability"][-1]["state"] == "offline", "the farewell")
    finally:
        client.disconnect()
        client.loop_stop()
    running = next(health for health in seen["health"] if health["state"] == "running")
    assert running["face"] is False
    assert running["frames"] > 0
    assert running["refusals"] == {"total": 0, "by_reason": {}}
    assert set(running["not_assessable_s"]) == {"no face"}
    assert running["baseline"] == {"ready": False, "progress": 0.0}
    assert running["stage_ms"]["path"]["p50"] > 0
    assert seen["health"][-1]["state"] == "stopping"
    names = ("availability", "event", "health", "info", "command/pause", "response/pause")
    assert {f"{topic_prefix}/bench/{name}" for name in names} <= set(seen["info"][0]["topics"])
    assert len(seen["info"]) == 1


class _Clock:
    """Time that passes only in `sleep`."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.slept_s: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_s += seconds


def test_paced_frames_come_no_faster_than_real_time_and_do_not_race_after_a_pause() -> None:
    clock = _Clock()
    paced = PacedSource(Camera(300), clock_s=clock, sleep=clock.sleep)
    arrivals: list[float] = []
    for got in paced.frames():
        if got.sequence == 100:
            clock.now_s += 2.0
        arrivals.append(clock.now_s - 100.0)
    assert arrivals[99] == pytest.approx(99 * 0.005)
    # Two seconds late: the timetable starts anew there.
    assert arrivals[-1] == pytest.approx(2.0 + 299 * 0.005, abs=0.02)


def test_a_device_is_paused_and_resumed_over_mqtt_and_stays_paused_over_a_restart(
    config: Config, shared_broker: Any, topic_prefix: str, pins: MockFactory, tmp_path: Path, until: Until
) -> None:
    config = with_leds(config)
    config = replace(
        config,
        mqtt=replace(
            config.mqtt, enabled=True, host="127.0.0.1", port=shared_broker.port, topic_prefix=topic_prefix
        ),
    )
    seen: dict[str, list[dict[str, Any]]] = {}
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.on_connect = lambda client, *_: client.subscribe(f"{topic_prefix}/bench/#", qos=1)
    client.on_message = lambda _client, _data, message: seen.setdefault(
        message.topic.removeprefix(f"{topic_prefix}/bench/"), []
    ).append(json.loads(message.payload or "{}"))
    client.connect("127.0.0.1", shared_broker.port)
    client.loop_start()
    cameras: list[Camera] = []

    def open_camera() -> Camera:
        cameras.append(Camera())
        return cameras[-1]

    def start() -> App:
        return App(config, open_camera, is_live=True, folder=tmp_path, pin_factory=pins)

    def state(app: App) -> str:
        app.attend()
        return str(seen["health"][-1]["state"]) if seen.get("health") else ""

    try:
        with start() as app:
            until(lambda: state(app) == "running", "health that says running")
            client.publish(f"{topic_prefix}/bench/command/pause", qos=1)
            until(lambda: state(app) == "paused", "health that says paused")
            assert cameras[0].is_closed.is_set()
            assert app.leds is not None
            assert not app.leds.state.capture
        with start() as app:
            until(lambda: seen["health"][-1]["state"] == "stopping", "the end of the first")
            until(lambda: state(app) == "paused", "health that says paused again")
            assert len(cameras) == 1, "a paused device does not look again because it was started again"
            client.publish(f"{topic_prefix}/bench/command/resume", qos=1)
            until(lambda: state(app) == "running", "health that says running again")
            assert app.leds is not None
            assert app.leds.state.capture
            assert seen["health"][-1]["frames_dropped"] == 0
    finally:
        client.disconnect()
        client.loop_stop()
    assert [seen[f"response/{name}"][0]["result"] for name in ("pause", "resume")] == [{"changed": True}] * 2


def test_two_apps_do_not_share_a_folder(config: Config, tmp_path: Path) -> None:
    with (
        App(config, Camera, is_live=True, folder=tmp_path),
        pytest.raises(EdgeError, match=r"outbox\.folder"),
    ):
        App(config, Camera, is_live=True, folder=tmp_path)
