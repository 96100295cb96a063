"""Commands do what they say, to a real reader, outbox and LEDs, and what they set outlives a restart."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpiozero.pins.mock import MockFactory

from edge.config import History
from edge.config import Leds as LedsConfig
from edge.config import Outbox as OutboxConfig
from edge.control import Control, was_paused
from edge.errors import SourceError
from edge.feed import FrameQueue, Reader
from edge.out import Payload
from edge.out.commands import CAPACITY, Answer, CommandDesk, Received
from edge.out.leds import WHITE, Leds
from edge.out.outbox import Outbox
from edge.payload import PayloadWriter, validate
from edge.records import Event, Frame

Until = Callable[..., None]
MakeEvent = Callable[..., Event]
CONTEXT = {"session": "interview-7", "note": "Frage 4: „Müde?“", "tags": ["left", "🎥"]}


class Camera:
    """Gives frames at a camera's pace, unless it hangs."""

    name = "test camera"
    nominal_rate_hz = 1000.0
    size = (8, 6)
    duration_s: float | None = None
    start_time_ns = frames_out_of_order = 0

    def __init__(self, hangs: threading.Event) -> None:
        self.warnings = list[str]()
        self._hangs = hangs

    def frames(self) -> Iterator[Frame]:
        began_ns = time.monotonic_ns()
        for sequence in range(1_000_000):
            time.sleep(0.001)  # a camera's pace
            while self._hangs.is_set():
                time.sleep(0.001)
            yield Frame(np.zeros((6, 8), np.uint8), time.monotonic_ns() - began_ns, sequence)

    def close(self) -> None:
        """Nothing is held."""


class Device:
    """The parts of a device that commands act upon; may be started again over the same folder."""

    looks = False
    """Whether the capture LED is lit."""

    def __init__(self, folder: Path, *, is_live: bool = True, leds_config: LedsConfig | None = None) -> None:
        self.pins = MockFactory()
        self.leds = None if leds_config is None else Leds(leds_config, pin_factory=self.pins)
        self.is_absent = False
        self.hangs = threading.Event()
        self.answers: list[Answer] = []
        self.desk = CommandDesk("microedge/lab-03", "lab-03")
        self.outbox = Outbox(folder, OutboxConfig(), History())
        self.queue = FrameQueue(4, drops_oldest=True)
        self.reader = Reader(
            self._open, self.queue, is_live=is_live, light=self._light, retried=lambda: None,
            paused=was_paused(self.outbox),
        )  # fmt: skip
        self.control = Control(
            self.desk, self.reader, self.outbox, answer=self.answers.append, leds=self.leds
        )
        self.reader.start()

    def ask(self, name: str, **fields: Any) -> Payload:
        """Send a command, have it carried out, and give the answer."""
        payload = json.dumps(fields).encode() if fields else b""
        received = Received(name, payload, False, "me/answers", b"7")
        refusal = self.desk.take(received)
        assert refusal is None, refusal
        self.control.attend()
        answer = self.answers.pop()
        assert self.answers == []
        assert (answer.topic, answer.correlation) == ("me/answers", b"7")
        validate(answer.payload)
        return answer.payload

    def result(self, name: str, **fields: Any) -> Payload:
        answer = self.ask(name, **fields)
        assert answer["ok"], answer
        return dict(answer["result"])

    def problem(self, name: str, **fields: Any) -> str:
        error = self.ask(name, **fields)["error"]
        assert error["code"] == "failed"
        return str(error["message"])

    def _light(self, on: bool) -> None:
        self.looks = on

    def _open(self) -> Camera:
        if self.is_absent:
            raise SourceError("no camera")
        return Camera(self.hangs)

    def close(self) -> None:
        self.hangs.clear()
        self.reader.close(20.0)
        if self.leds is not None:
            self.leds.close()
        self.outbox.close()


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Device]]:
    """Start a device over the test's folder; one that runs is stopped first."""
    monkeypatch.setattr("edge.feed.RETRY_S", (0.001, 0.004))
    running: list[Device] = []

    def start(**settings: Any) -> Device:
        for device in running:
            device.close()
        running[:] = [Device(tmp_path, **settings)]
        return running[0]

    yield start
    for device in running:
        device.close()


def keep_events(outbox: Outbox, make_event: MakeEvent, context: Any, number: int) -> list[Payload]:
    writer = PayloadWriter("lab-03", "boot-1", 0, {"spotter": "0" * 64}, context=context)
    series, seq = outbox.number
    return outbox.append([writer.write(make_event(), series, seq + index) for index in range(number)])


def test_a_pause_is_answered_once_the_camera_is_closed(start: Callable[..., Device]) -> None:
    device = start()
    assert device.looks
    assert device.ask("pause", id="7-a")["id"] == "7-a"
    assert not device.looks
    assert device.control.is_paused
    assert device.result("pause") == {"changed": False}
    assert device.result("resume") == {"changed": True}
    assert not device.control.is_paused
    assert device.result("resume") == {"changed": False}
    assert device.result("pause") == {"changed": True}


def test_a_pause_outlives_a_restart_and_so_does_its_end(start: Callable[..., Device], until: Until) -> None:
    start().result("pause")
    device = start()
    assert device.control.is_paused
    assert not device.looks
    device.result("resume")
    until(lambda: device.looks, "the camera")
    assert not start().control.is_paused


def test_resuming_a_camera_that_is_gone_is_answered_and_tried_until_it_is_back(
    start: Callable[..., Device], until: Until
) -> None:
    device = start()
    device.result("pause")
    device.is_absent = True
    assert device.result("resume") == {"changed": True}
    until(lambda: device.reader.problem == "no camera", "the camera's problem")
    device.is_absent = False
    until(lambda: device.reader.problem == "", "the camera")


def test_a_camera_that_hangs_is_not_said_to_be_closed(
    start: Callable[..., Device], until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.control.CLOSE_S", 0.01)
    device = start()
    assert device.queue.get() is not None
    device.hangs.set()
    assert device.problem("pause").startswith("the camera has not given a frame for 0.01 s and is still open")
    assert device.looks
    assert device.control.is_paused
    device.hangs.clear()
    until(lambda: not device.looks, "the camera's end")
    assert device.result("pause") == {"changed": False}


def test_a_recording_is_not_paused(start: Callable[..., Device]) -> None:
    device = start(is_live=False)
    for name in ("pause", "resume"):
        assert device.problem(name) == "a recording is being played: only a camera can be paused"
    assert not was_paused(device.outbox)


def test_a_context_replaces_the_one_before_outlives_a_restart_and_fits_into_events(
    start: Callable[..., Device], make_event: MakeEvent
) -> None:
    device = start()
    assert device.control.context == {}
    assert device.result("context", **CONTEXT) == {"changed": True}
    assert device.result("context", **CONTEXT) == {"changed": False}
    assert keep_events(device.outbox, make_event, device.control.context, 1)[0]["context"] == CONTEXT
    device = start()
    assert device.control.context == CONTEXT
    before = device.control.context
    assert device.result("context", session=None, note="", tags=["left"]) == {"changed": True}
    assert device.control.context == {"tags": ["left"]}
    assert before == CONTEXT  # who holds it keeps what it was
    assert device.result("context") == {"changed": True}
    assert start().control.context == {}


@pytest.mark.parametrize(
    "kept", ["{", '{"note": 3}', '{"session": "' + "x" * 201 + '"}', "[]", '{"secret": "x"}']
)
def test_a_kept_context_that_is_damaged_is_none(start: Callable[..., Device], kept: str) -> None:
    device = start()
    device.outbox.remember("context", kept)
    assert start().control.context == {}


def test_a_wipe_removes_events_and_context_counts_them_and_leaves_no_text_of_theirs(
    start: Callable[..., Device], make_event: MakeEvent, tmp_path: Path
) -> None:
    device = start()
    device.result("context", session="geheime-sitzung")
    keep_events(device.outbox, make_event, device.control.context, 5)
    device.outbox.acknowledge(device.outbox.peek(0, 1)[0].position)
    device.outbox.flush()
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    assert any(b"geheime-sitzung" in path.read_bytes() for path in files)
    assert device.result("wipe", confirm="lab-03") == {"events": 5, "undelivered": 4}
    assert device.control.context == {}
    assert not any(b"geheime-sitzung" in path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert device.result("wipe", confirm="lab-03") == {"events": 0, "undelivered": 0}
    assert start().control.context == {}


def test_identify_blinks_for_as_long_as_was_asked(start: Callable[..., Device], until: Until) -> None:
    device = start(leds_config=LedsConfig())
    assert device.leds is not None
    assert device.result("identify") == {"seconds": 5}
    until(lambda: device.leds is not None and device.leds.state.event == WHITE, "white")
    assert device.result("identify", seconds=1.5) == {"seconds": 1.5}


def test_identify_says_what_is_missing(start: Callable[..., Device]) -> None:
    assert "leds.enabled = false" in start().problem("identify")
    only_capture = LedsConfig(red_pin=-1, green_pin=-1, blue_pin=-1, fault_pin=-1)
    assert "leds.fault_pin = -1" in start(leds_config=only_capture).problem("identify")


def test_a_command_that_fails_is_answered_and_the_next_one_is_done(
    start: Callable[..., Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = start()
    monkeypatch.setattr(device.outbox, "wipe", lambda: 1 / 0)
    assert device.problem("wipe", confirm="lab-03") == "ZeroDivisionError: division by zero"
    assert device.result("pause") == {"changed": True}


def test_waiting_commands_are_done_in_order_and_a_flood_of_them_ends(start: Callable[..., Device]) -> None:
    device = start()
    for number in range(CAPACITY):
        assert device.desk.take(Received("context", b'{"note": "%d"}' % number, False)) is None
    refusal = device.desk.take(Received("context", b"", False))
    assert refusal is not None
    assert refusal.payload["error"]["code"] == "busy"
    device.control.attend()
    assert [answer.topic for answer in device.answers] == ["microedge/lab-03/response/context"] * CAPACITY
    assert device.control.context == {"note": str(CAPACITY - 1)}
    flooded = Control(
        device.desk, device.reader, device.outbox,
        answer=lambda _: assert_taken(device.desk.take(Received("resume", b"", False))),
    )  # fmt: skip
    device.desk.take(Received("resume", b"", False))
    flooded.attend()  # each answer brings another command, and yet it returns


def assert_taken(refusal: Answer | None) -> None:
    assert refusal is None
