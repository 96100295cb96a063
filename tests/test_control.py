"""Commands do what they say, to real parts and over a real broker, and what they set outlives a restart."""

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import pytest
from gpiozero.pins.mock import MockFactory
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge.config import History, Mqtt
from edge.config import Leds as LedsConfig
from edge.config import Outbox as OutboxConfig
from edge.control import Control, was_paused
from edge.errors import SourceError
from edge.feed import PausedBy, Reader
from edge.frame_queue import FrameQueue
from edge.out import Payload
from edge.out.leds import WHITE, Leds
from edge.out.mqtt.commands import CAPACITY, Answer, CommandDesk, Received
from edge.out.mqtt.sink import MqttSink
from edge.payload import PayloadWriter, validate
from edge.records import Event, Frame
from edge.store.outbox import Outbox

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

    def __init__(
        self,
        folder: Path,
        *,
        is_live: bool = True,
        leds_config: LedsConfig | None = None,
        mqtt: Mqtt | None = None,
    ) -> None:
        self.pins = MockFactory()
        self.leds = None if leds_config is None else Leds(leds_config, pin_factory=self.pins)
        self.is_absent = False
        self.hangs = threading.Event()
        self.answers: list[Answer] = []
        prefix = "microedge" if mqtt is None else mqtt.topic_prefix
        self.desk = CommandDesk(f"{prefix}/lab-03", "lab-03")
        self.outbox = Outbox(folder, OutboxConfig(), History())
        self.sink = None if mqtt is None else MqttSink(mqtt, "lab-03", self.outbox, desk=self.desk)
        self.queue = FrameQueue(4, drops_oldest=True)
        self.reader = Reader(
            self._open, self.queue, is_live=is_live, light=self._light, retried=lambda: None,
            paused=[PausedBy.COMMAND] if was_paused(self.outbox) else [],
        )  # fmt: skip
        answer = self.answers.append if self.sink is None else self.sink.answer
        self.context: Mapping[str, Any] = {"never": "told"}
        self.control = Control(
            self.desk, self.reader, self.outbox, answer=answer, tell=self._told, leds=self.leds
        )
        self.reader.start()

    def _told(self, context: Mapping[str, Any]) -> None:
        self.context = context

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
        if self.sink is not None:
            self.sink.close()
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
    assert device.reader.is_paused
    assert device.result("pause") == {"changed": False}
    assert device.result("resume") == {"changed": True}
    assert not device.reader.is_paused
    assert device.result("resume") == {"changed": False}
    assert device.result("pause") == {"changed": True}


def test_a_pause_outlives_a_restart_and_so_does_its_end(start: Callable[..., Device], until: Until) -> None:
    start().result("pause")
    device = start()
    assert device.reader.is_paused
    assert not device.looks
    device.result("resume")
    until(lambda: device.looks, "the camera")
    assert not start().reader.is_paused


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
    assert device.reader.is_paused
    device.hangs.clear()
    until(lambda: not device.looks, "the camera's end")
    assert device.result("pause") == {"changed": False}


def test_a_resume_is_refused_while_the_privacy_switch_is_on_and_leaves_a_pause_by_command_as_it_is(
    start: Callable[..., Device], until: Until
) -> None:
    device = start()
    device.reader.pause(20.0, PausedBy.SWITCH)
    assert device.problem("resume") == (
        "the privacy switch is on: the camera stays closed until a person turns it off"
    )
    assert device.result("pause") == {"changed": True}
    assert "privacy switch" in device.problem("resume")
    device.reader.resume(PausedBy.SWITCH)
    assert was_paused(device.outbox)
    assert not device.looks
    assert device.result("resume") == {"changed": True}
    until(lambda: device.looks, "the camera")


def test_a_recording_is_not_paused(start: Callable[..., Device]) -> None:
    device = start(is_live=False)
    for name in ("pause", "resume"):
        assert device.problem(name) == "a recording is being played: only a camera can be paused"
    assert not was_paused(device.outbox)


def test_a_context_replaces_the_one_before_outlives_a_restart_and_fits_into_events(
    start: Callable[..., Device], make_event: MakeEvent
) -> None:
    device = start()
    assert device.context == {}
    assert device.result("context", **CONTEXT) == {"changed": True}
    assert device.result("context", **CONTEXT) == {"changed": False}
    assert keep_events(device.outbox, make_event, device.context, 1)[0]["context"] == CONTEXT
    device = start()
    assert device.context == CONTEXT
    before = device.context
    assert device.result("context", session=None, note="", tags=["left"]) == {"changed": True}
    assert device.context == {"tags": ["left"]}
    assert before == CONTEXT  # who holds it keeps what it was
    assert device.result("context") == {"changed": True}
    assert start().context == {}


@pytest.mark.parametrize(
    "kept", ["{", '{"note": 3}', '{"session": "' + "x" * 201 + '"}', "[]", '{"secret": "x"}']
)
def test_a_kept_context_that_is_damaged_is_none(start: Callable[..., Device], kept: str) -> None:
    device = start()
    device.outbox.remember("context", kept)
    assert start().context == {}


def test_a_wipe_removes_events_and_context_counts_them_and_leaves_no_text_of_theirs(
    start: Callable[..., Device], make_event: MakeEvent, tmp_path: Path
) -> None:
    device = start()
    device.result("context", session="geheime-sitzung")
    keep_events(device.outbox, make_event, device.context, 5)
    device.outbox.acknowledge(device.outbox.peek(0, 1)[0].position)
    device.outbox.flush()
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    assert any(b"geheime-sitzung" in path.read_bytes() for path in files)
    assert device.result("wipe", confirm="lab-03") == {"events": 5, "undelivered": 4}
    assert device.context == {}
    assert not any(b"geheime-sitzung" in path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert device.result("wipe", confirm="lab-03") == {"events": 0, "undelivered": 0}
    assert start().context == {}


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
    assert device.context == {"note": str(CAPACITY - 1)}
    flooded = Control(
        device.desk, device.reader, device.outbox,
        answer=lambda _: assert_taken(device.desk.take(Received("resume", b"", False))), tell=lambda _: None,
    )  # fmt: skip
    device.desk.take(Received("resume", b"", False))
    flooded.attend()  # each answer brings another command, and yet it returns


def assert_taken(refusal: Answer | None) -> None:
    assert refusal is None


class Caller:
    """Somebody at the broker who commands a device and waits for its answers."""

    def __init__(self, port: int, prefix: str, protocol: str) -> None:
        self._prefix = prefix
        self._arrived: queue.Queue[paho.MQTTMessage] = queue.Queue()
        five = protocol == "5"
        version = MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311
        subscribed = threading.Event()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=version)
        self.client.on_message = lambda client, userdata, message: self._arrived.put(message)
        topics = [(f"{prefix}/lab-03/response/+", 1), (f"answers/{prefix}", 1)]
        self.client.on_connect = lambda client, *_: client.subscribe(topics)
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert subscribed.wait(20), "the broker did not confirm the subscription"

    def send(
        self,
        name: str,
        payload: bytes = b"",
        *,
        retain: bool = False,
        response_topic: str = "",
        correlation: bytes = b"",
    ) -> None:
        properties = None
        if response_topic:
            properties = Properties(PacketTypes.PUBLISH)
            properties.ResponseTopic, properties.CorrelationData = response_topic, correlation
        topic = f"{self._prefix}/lab-03/command/{name}"
        self.client.publish(topic, payload, 1, retain, properties).wait_for_publish(20)

    def answer(self, device: Device) -> tuple[str, Payload, bytes]:
        """Have the device do what it is asked to until an answer comes; give its topic, payload and correlation."""
        deadline_s = time.monotonic() + 20.0
        while True:
            device.control.attend()
            try:
                message = self._arrived.get(timeout=0.02)
            except queue.Empty:
                assert time.monotonic() < deadline_s, "no answer"
                continue
            assert not message.retain
            payload = json.loads(message.payload)
            validate(payload)
            correlation = getattr(message.properties, "CorrelationData", b"")
            return message.topic.removeprefix(self._prefix), payload, correlation

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def call(topic_prefix: str) -> Iterator[Callable[..., Caller]]:
    callers: list[Caller] = []

    def call(port: int, protocol: str = "5") -> Caller:
        callers.append(caller := Caller(port, topic_prefix, protocol))
        return caller

    yield call
    for caller in callers:
        caller.close()


def over(broker: Any, prefix: str, protocol: str = "5") -> Mqtt:
    return Mqtt(host="127.0.0.1", port=broker.port, topic_prefix=prefix, protocol=protocol)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_commands_are_done_and_answered_over_a_broker(
    protocol: str,
    shared_broker: Any,
    topic_prefix: str,
    start: Callable[..., Device],
    call: Callable[..., Caller],
    until: Until,
) -> None:
    device, caller = (
        start(mqtt=over(shared_broker, topic_prefix, protocol)),
        call(shared_broker.port, protocol),
    )
    until(lambda: device.sink is not None and device.sink.connected, "a connection")
    caller.send("pause", b'{"id": "1"}')
    topic, answer, _ = caller.answer(device)
    assert (topic, answer["id"], answer["result"]) == ("/lab-03/response/pause", "1", {"changed": True})
    assert not device.looks
    caller.send("context", json.dumps(CONTEXT).encode())
    assert caller.answer(device)[1]["ok"]
    assert device.context == CONTEXT
    for name, payload, code in (
        ("pause", b'{"id": "1"}', "repeated"), ("resume", b"\xff", "not_utf8"), ("resume", b"[", "not_json"),
        ("identify", b'{"seconds": 0}', "invalid"), ("reboot", b"", "unknown"), ("wipe", b" " * 9000, "oversized"),
        ("wipe", b"{}", "invalid"), ("resume", b'{"expires": "2020-01-01T00:00:00.000Z"}', "expired"),
    ):  # fmt: skip
        caller.send(name, payload)
        topic, answer, _ = caller.answer(device)
        assert (topic, answer["error"]["code"]) == (f"/lab-03/response/{name}", code)
    caller.send("resume")
    assert caller.answer(device)[1]["result"] == {"changed": True}
    caller.send("wipe", b'{"confirm": "lab-03"}')
    assert caller.answer(device)[1]["result"] == {"events": 0, "undelivered": 0}


def test_an_answer_takes_the_way_that_mqtt_5_has_for_it_unless_it_is_one_to_forge_with(
    shared_broker: Any,
    topic_prefix: str,
    start: Callable[..., Device],
    call: Callable[..., Caller],
    until: Until,
) -> None:
    device, caller = start(mqtt=over(shared_broker, topic_prefix)), call(shared_broker.port)
    until(lambda: device.sink is not None and device.sink.connected, "a connection")
    caller.send("pause", response_topic=f"answers/{topic_prefix}", correlation=b"\0\xff7")
    topic, answer, correlation = caller.answer(device)
    assert (topic, answer["ok"], correlation) == (f"answers/{topic_prefix}", True, b"\0\xff7")
    caller.send("pause", b"[", response_topic=f"answers/{topic_prefix}", correlation=b"8")
    topic, answer, correlation = caller.answer(device)
    assert (topic, answer["error"]["code"], correlation) == (f"answers/{topic_prefix}", "not_json", b"8")
    caller.send("pause", response_topic=f"{topic_prefix}/lab-03/event", correlation=b"9")
    topic, answer, correlation = caller.answer(device)
    assert (topic, answer["error"]["code"], correlation) == ("/lab-03/response/pause", "response_topic", b"9")


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_retained_command_is_refused_each_time_that_the_broker_brings_it(
    protocol: str,
    shared_broker: Any,
    topic_prefix: str,
    start: Callable[..., Device],
    call: Callable[..., Caller],
) -> None:
    caller = call(shared_broker.port, protocol)
    caller.send("pause", retain=True, payload=b"{}")
    for _ in range(2):
        device = start(mqtt=over(shared_broker, topic_prefix, protocol))
        assert caller.answer(device)[1]["error"]["code"] == "retained"
        assert not device.reader.is_paused
    caller.send("pause", retain=True)  # which clears the topic, and is no command
    assert caller.answer(device)[1]["error"]["code"] == "retained"
    assert not device.reader.is_paused
