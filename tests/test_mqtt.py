"""Events reach a real broker in order, once it is there, and the device's availability is always true."""

import json
import logging
import os
import queue
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge.commands.broker import LoopbackBroker
from edge.config import History, Mqtt
from edge.config import Outbox as OutboxConfig
from edge.out import Payload
from edge.out.mqtt.commands import CommandDesk
from edge.out.mqtt.connection import UNCONFIRMED_LIMIT
from edge.out.mqtt.sink import MqttSink
from edge.payload import PayloadWriter, validate
from edge.records import Event
from edge.store.outbox import Counts, Outbox
from tools.delivery.broker import free_port
from tools.delivery.relay import Relay

BACKOFF_S = (0.02, 0.1)
MakeEvent = Callable[..., Event]
Until = Callable[..., None]


class Broker(Protocol):
    """What the fixtures give: see conftest."""

    port: int

    def start(self, access: str = ...) -> None: ...

    def stop(self) -> None: ...


class Subscriber:
    """Everything that arrives below one topic, in order."""

    def __init__(self, port: int, prefix: str, protocol: str = "5") -> None:
        five = protocol == "5"
        version = MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311
        self.arrived: queue.Queue[paho.MQTTMessage] = queue.Queue()
        subscribed = threading.Event()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=version)
        self.client.on_message = lambda client, userdata, message: self.arrived.put(message)
        self.client.on_connect = lambda client, *_: client.subscribe(f"{prefix}/#", qos=1)
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert subscribed.wait(20), "the broker did not confirm the subscription"

    def next(self, name: str) -> tuple[Payload, paho.MQTTMessage]:
        """Wait for the next message whose topic ends with `name`, leaving out others."""
        while True:
            message = self.arrived.get(timeout=20)
            if message.topic.endswith(f"/{name}"):
                return json.loads(message.payload), message

    def events(self, number: int) -> list[Payload]:
        return [self.next("event")[0] for _ in range(number)]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Device:
    """A sink with the outbox that it empties and the desk that it brings commands to."""

    def __init__(self, sink: MqttSink, outbox: Outbox, desk: CommandDesk) -> None:
        self.sink, self.outbox, self.desk = sink, outbox, desk

    @property
    def connected(self) -> bool:
        return self.sink.connected

    @property
    def problem(self) -> str:
        return self.sink.problem

    def counts(self) -> Counts:
        return self.outbox.counts()

    def close(self) -> None:
        self.sink.close()
        self.outbox.close()


@pytest.fixture
def relay(own_broker: Broker) -> Iterator[Relay]:
    """A relay to a broker that the test starts."""
    relay = Relay(own_broker.port)
    yield relay
    relay.close()


class Bench:
    """Makes sinks, subscribers and payloads for one test, below a topic of its own."""

    def __init__(self, prefix: str, make_event: MakeEvent, until: Until) -> None:
        self.prefix, self.until = prefix, until
        self._make_event = make_event
        self._writer = PayloadWriter("lab-03", "boot-1", 1_795_428_902_000_000_000, {"spotter": "0" * 64})
        self._made: list[Device | Subscriber] = []

    def subscribe(self, port: int, protocol: str = "5") -> Subscriber:
        self._made.append(subscriber := Subscriber(port, self.prefix, protocol))
        return subscriber

    def device(self, port: int, max_events: int = 1000, expire_h: int = 0, **settings: Any) -> Device:
        config = Mqtt(host="127.0.0.1", port=port, topic_prefix=self.prefix, **settings)
        outbox = Outbox(None, OutboxConfig(max_events=max_events), History(days=0))
        desk = CommandDesk(f"{self.prefix}/lab-03", "lab-03")
        sink = MqttSink(config, "lab-03", outbox, desk=desk, expire_h=expire_h, backoff_s=BACKOFF_S)
        self._made.append(device := Device(sink, outbox, desk))
        return device

    def payloads(self, number: int) -> list[Payload]:
        return [
            self._writer.write(self._make_event(face_id=index + 1), "0" * 32, 1) for index in range(number)
        ]

    def publish(self, device: Device, payloads: list[Payload]) -> list[Payload]:
        """Publish one after the other, and give them as they are numbered."""
        sent = []
        for payload in payloads:
            sent += device.outbox.append([payload])
            device.sink.publish(self._make_event(), payload)
        return sent

    def close(self) -> None:
        for one in self._made:
            one.close()


@pytest.fixture
def bench(topic_prefix: str, make_event: MakeEvent, until: Until) -> Iterator[Bench]:
    bench = Bench(topic_prefix, make_event, until)
    yield bench
    bench.close()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_an_event_arrives_as_it_was_written(protocol: str, shared_broker: Broker, bench: Bench) -> None:
    subscriber = bench.subscribe(shared_broker.port, protocol)
    out = bench.device(shared_broker.port, protocol=protocol)
    bench.until(lambda: out.connected, "a connection")
    sent = bench.publish(out, bench.payloads(25))
    back = subscriber.events(25)
    assert back == sent
    for payload in back:
        validate(payload)
    bench.until(lambda: out.counts() == Counts(waiting=0, confirmed=25, lost=0), "25 confirmations")


def test_events_are_not_retained_and_status_is(shared_broker: Broker, bench: Bench) -> None:
    out = bench.device(shared_broker.port)
    out.sink.publish_info({"version": "0.1.0"})
    out.sink.publish_health({"state": "starting"})
    out.sink.publish_health({"state": "running"})
    bench.publish(out, bench.payloads(1))
    bench.until(lambda: out.counts().confirmed == 1, "the confirmation")
    late = bench.subscribe(shared_broker.port)
    retained = {}
    for _ in range(3):
        message = late.arrived.get(timeout=20)
        assert message.retain
        retained[message.topic.removeprefix(f"{bench.prefix}/lab-03/")] = json.loads(message.payload)
    assert retained["info"] == {"version": "0.1.0"}
    assert retained["health"] == {"state": "running"}
    assert retained["availability"]["state"] == "online"
    assert {f"{bench.prefix}/lab-03/{name}" for name in retained} <= set(out.sink.topics)


def test_a_clean_close_says_offline_itself_after_the_last_event(shared_broker: Broker, bench: Bench) -> None:
    subscriber = bench.subscribe(shared_broker.port)
    out = bench.device(shared_broker.port)
    online, _ = subscriber.next("availability")
    bench.publish(out, bench.payloads(3 * UNCONFIRMED_LIMIT))
    out.close()
    assert out.counts() == Counts(waiting=0, confirmed=3 * UNCONFIRMED_LIMIT, lost=0)
    assert len(subscriber.events(3 * UNCONFIRMED_LIMIT)) == 3 * UNCONFIRMED_LIMIT
    offline, _ = subscriber.next("availability")
    assert offline == {"state": "offline", "session": online["session"]}


def test_a_sink_that_is_closed_at_once_still_delivers(shared_broker: Broker, bench: Bench) -> None:
    subscriber = bench.subscribe(shared_broker.port)
    out = bench.device(shared_broker.port)
    bench.publish(out, bench.payloads(1))
    out.close()
    assert out.counts().confirmed == 1
    assert subscriber.events(1)[0]["seq"] == 1


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_killed_device_is_declared_offline_by_its_last_will(
    protocol: str, shared_broker: Broker, bench: Bench
) -> None:
    subscriber = bench.subscribe(shared_broker.port)
    program = (
        "import sys, threading; from edge.config import History, Mqtt, Outbox as Settings\n"
        "from edge.out.mqtt.sink import MqttSink; from edge.store.outbox import Outbox\n"
        "port, prefix, protocol = int(sys.argv[1]), sys.argv[2], sys.argv[3]\n"
        "config = Mqtt(host='127.0.0.1', port=port, topic_prefix=prefix, protocol=protocol)\n"
        "MqttSink(config, 'lab-03', Outbox(None, Settings(), History()))\n"
        "threading.Event().wait()\n"
    )
    device = subprocess.Popen(
        [sys.executable, "-c", program, str(shared_broker.port), bench.prefix, protocol],
        cwd=Path(__file__).parents[1], env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    online, _ = subscriber.next("availability")
    device.send_signal(signal.SIGKILL)
    device.wait()
    offline, _ = subscriber.next("availability")
    assert online == {"state": "online", "session": online["session"]}
    assert offline == {"state": "offline", "session": online["session"]}
    retained, message = bench.subscribe(shared_broker.port).next("availability")
    assert retained == offline
    assert message.retain


def test_a_late_will_of_an_earlier_session_does_not_leave_the_device_offline(
    shared_broker: Broker, bench: Bench
) -> None:
    subscriber = bench.subscribe(shared_broker.port)
    bench.device(shared_broker.port)
    online, _ = subscriber.next("availability")
    topic = f"{bench.prefix}/lab-03/availability"
    subscriber.client.publish(topic, '{"state":"offline","session":1}', qos=1, retain=True)
    assert subscriber.next("availability")[0]["state"] == "offline"
    assert subscriber.next("availability")[0] == online
    assert bench.subscribe(shared_broker.port).next("availability")[0] == online


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_after_a_broker_restart_everything_arrives_in_order_and_is_marked_replayed(
    protocol: str, own_broker: Broker, relay: Relay, bench: Bench
) -> None:
    own_broker.start()
    out = bench.device(relay.port, protocol=protocol)
    bench.until(lambda: out.connected, "a connection")
    out.sink.publish_info({"version": "0.1.0"})
    bench.publish(out, bench.payloads(10))
    bench.until(lambda: out.counts().confirmed == 10, "ten confirmations")
    relay.refuse()
    own_broker.stop()
    bench.until(lambda: not out.connected, "the loss to be noticed")
    sent = bench.publish(out, bench.payloads(50))
    assert out.counts() == Counts(waiting=50, confirmed=10, lost=0)
    own_broker.start()
    subscriber = bench.subscribe(own_broker.port, protocol)
    relay.heal()
    back = subscriber.events(50)
    assert back == [{**payload, "replayed": True} for payload in sent]
    for payload in back:
        validate(payload)
    bench.until(lambda: out.counts() == Counts(waiting=0, confirmed=60, lost=0), "every confirmation")
    assert bench.subscribe(own_broker.port).next("info")[0] == {"version": "0.1.0"}


def test_each_connection_has_a_session_of_its_own(own_broker: Broker, bench: Bench) -> None:
    own_broker.start()
    out = bench.device(own_broker.port)
    first = bench.subscribe(own_broker.port).next("availability")[0]
    own_broker.stop()
    bench.until(lambda: not out.connected, "the loss to be noticed")
    own_broker.start()
    second = bench.subscribe(own_broker.port).next("availability")[0]
    assert second["state"] == "online"
    assert second["session"] > first["session"]


def test_after_an_overflow_the_kept_ones_arrive_in_order(
    own_broker: Broker, relay: Relay, bench: Bench
) -> None:
    own_broker.start()
    relay.refuse()
    subscriber = bench.subscribe(own_broker.port)
    out = bench.device(relay.port, max_events=20)
    bench.publish(out, bench.payloads(50))
    relay.heal()
    assert [payload["seq"] for payload in subscriber.events(20)] == list(range(31, 51))
    bench.until(lambda: out.counts() == Counts(waiting=0, confirmed=20, lost=30), "every confirmation")


def test_unconfirmed_events_are_sent_again_with_the_same_id(
    own_broker: Broker, relay: Relay, bench: Bench
) -> None:
    own_broker.start()
    subscriber = bench.subscribe(own_broker.port)
    out = bench.device(relay.port)
    bench.until(lambda: out.connected, "a connection")
    # Once an event is confirmed, so is all that was sent before it.
    bench.publish(out, bench.payloads(1))
    bench.until(lambda: out.counts().confirmed == 1, "a confirmation")
    relay.swallow()
    bench.publish(out, bench.payloads(30))
    arrived = subscriber.events(1 + UNCONFIRMED_LIMIT)[1:]
    assert out.counts() == Counts(waiting=30, confirmed=1, lost=0)
    relay.heal()
    arrived += subscriber.events(30)
    bench.until(lambda: out.counts() == Counts(waiting=0, confirmed=31, lost=0), "every confirmation")
    live = [(seq, False) for seq in range(2, 2 + UNCONFIRMED_LIMIT)]
    again = [(seq, True) for seq in range(2, 32)]
    assert [(payload["seq"], payload["replayed"]) for payload in arrived] == live + again
    assert len({(payload["seq"], payload["id"]) for payload in arrived}) == 30


def test_publishing_and_closing_are_bounded_while_the_broker_accepts_and_says_nothing(
    bench: Bench,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        out = bench.device(silent.getsockname()[1], max_events=5)
        bench.publish(out, bench.payloads(50))
        out.close()
    assert out.counts() == Counts(waiting=5, confirmed=0, lost=45)
    assert not out.connected


def test_a_peer_that_talks_nonsense_does_not_end_the_attempts(own_broker: Broker, bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as web:
        out = bench.device(web.getsockname()[1])
        for _ in range(3):
            connection, _ = web.accept()
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()
        bench.until(lambda: out.problem not in {"", "not connected yet"}, "a problem in words")


ALLOW = "topic readwrite {0}/lab-03/#"
NO_EVENTS = ALLOW + "\ntopic deny {0}/lab-03/event"
READ_ONLY = "topic read {0}/lab-03/#"


def access(tmp_path: Path, rules: str, prefix: str) -> str:
    """Give the lines of a mosquitto.conf that hold everybody to `rules`."""
    (tmp_path / "acl").write_text(rules.format(prefix) + "\n")
    return f"allow_anonymous true\nacl_file {tmp_path / 'acl'}"


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@pytest.mark.parametrize(
    ("rules", "why"), [(NO_EVENTS, "event"), (READ_ONLY, "availability|did not pass it on")]
)
def test_an_event_that_the_broker_refuses_or_drops_in_silence_waits_until_it_is_allowed(
    protocol: str, rules: str, why: str, own_broker: Broker, tmp_path: Path, bench: Bench,
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("edge.out.mqtt.echo.TIMEOUT_S", 0.1)
    caplog.set_level(logging.WARNING)
    own_broker.start(access(tmp_path, rules, bench.prefix))
    out = bench.device(own_broker.port, protocol=protocol)
    sent = bench.publish(out, bench.payloads(3))
    bench.until(lambda: "refused" in out.problem or "did not pass it on" in out.problem, "a problem in words")
    assert re.search(why, out.problem)
    # The same again and again: shown, but logged once.
    for _ in range(2):
        session = out.sink._session
        bench.until(lambda seen=session: out.sink._session > seen, "another attempt")
    assert caplog.text.count(out.problem) == 1
    assert out.counts() == Counts(waiting=3, confirmed=0, lost=0)
    monkeypatch.undo()  # a busy machine may take longer
    own_broker.stop()
    own_broker.start(access(tmp_path, ALLOW, bench.prefix))
    subscriber = bench.subscribe(own_broker.port, protocol)
    assert [payload["id"] for payload in subscriber.events(3)] == [payload["id"] for payload in sent]
    bench.until(lambda: out.counts() == Counts(waiting=0, confirmed=3, lost=0), "every confirmation")


def test_without_the_echo_check_a_device_may_be_one_that_can_only_write(
    own_broker: Broker, tmp_path: Path, bench: Bench
) -> None:
    own_broker.start(access(tmp_path, "topic write {0}/lab-03/#", bench.prefix))
    out = bench.device(own_broker.port, check_echo=False)
    bench.publish(out, bench.payloads(3))
    bench.until(lambda: out.counts().confirmed == 3, "every confirmation")


def command(
    subscriber: Subscriber, bench: Bench, name: str, payload: bytes, retain: bool = False, **asked: Any
) -> None:
    properties = None
    if asked:
        properties = Properties(PacketTypes.PUBLISH)
        for key, value in asked.items():
            setattr(properties, key, value)
    subscriber.client.publish(f"{bench.prefix}/lab-03/command/{name}", payload, 1, retain, properties)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_command_reaches_the_desk_and_its_answer_the_sender(
    protocol: str, shared_broker: Broker, bench: Bench
) -> None:
    subscriber = bench.subscribe(shared_broker.port, protocol)
    out = bench.device(shared_broker.port, protocol=protocol)
    bench.until(lambda: out.connected, "a connection")
    command(subscriber, bench, "pause", b'{"id": "one"}')
    bench.until(lambda: out.desk.counts().accepted == 1, "the command")
    accepted = out.desk.next()
    assert accepted is not None
    out.sink.answer(out.desk.done(accepted, {"changed": True}))
    answer, _ = subscriber.next("response/pause")
    validate(answer)
    assert (answer["id"], answer["ok"], answer["result"]) == ("one", True, {"changed": True})


def test_an_answer_goes_where_mqtt_5_asks_for_it_with_the_data_that_tells_it_apart(
    shared_broker: Broker, bench: Bench
) -> None:
    subscriber = bench.subscribe(shared_broker.port)
    subscriber.client.subscribe(f"{bench.prefix}-desk/#", qos=1)
    out = bench.device(shared_broker.port)
    bench.until(lambda: out.connected, "a connection")
    asked = {"ResponseTopic": f"{bench.prefix}-desk/answers", "CorrelationData": b"\x00\xff 7"}
    command(subscriber, bench, "fly", b"{}", **asked)
    answer, message = subscriber.next("answers")
    assert answer["error"]["code"] == "unknown"
    assert message.properties.CorrelationData == b"\x00\xff 7"  # type: ignore[union-attr]
    # Nobody can have the device speak in its own name by asking for the answer there.
    command(subscriber, bench, "fly", b"{}", ResponseTopic=f"{bench.prefix}/lab-03/event")
    assert subscriber.next("response/fly")[0]["error"]["code"] in {"unknown", "response_topic"}


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_retained_command_is_refused_and_not_done_at_every_connection(
    protocol: str, shared_broker: Broker, bench: Bench
) -> None:
    subscriber = bench.subscribe(shared_broker.port, protocol)
    command(subscriber, bench, "wipe", b'{"confirm": "lab-03"}', retain=True)
    subscriber.next("command/wipe")
    out = bench.device(shared_broker.port, protocol=protocol)
    assert subscriber.next("response/wipe")[0]["error"]["code"] == "retained"
    assert out.desk.counts().accepted == 0
    if protocol == "5":
        # Also one that comes while the device is connected, which MQTT 3.1.1 does not mark.
        command(subscriber, bench, "pause", b"{}", retain=True)
        assert subscriber.next("response/pause")[0]["error"]["code"] == "retained"


def test_a_subscriber_of_mqtt_5_learns_how_long_an_event_is_worth_keeping(
    shared_broker: Broker, bench: Bench
) -> None:
    subscriber = bench.subscribe(shared_broker.port)
    bench.publish(bench.device(shared_broker.port, expire_h=2), bench.payloads(1))
    _, message = subscriber.next("event")
    assert 7100 < message.properties.MessageExpiryInterval <= 7200  # type: ignore[union-attr]


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_message_of_256_mb_neither_fills_the_memory_nor_stops_events(
    protocol: str, own_broker: Broker, bench: Bench
) -> None:
    own_broker.start()
    out = bench.device(own_broker.port, protocol=protocol)
    bench.until(lambda: out.connected, "a connection")
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # From a process of its own, whose memory does not count.
    huge = "import sys; sys.stdout.buffer.write(b'x' * 268_435_000)"
    topic = f"{bench.prefix}/lab-03/command/pause"
    publisher = shutil.which("mosquitto_pub")
    if publisher is None:
        pytest.skip("mosquitto-clients is not installed")
    whole = subprocess.Popen([sys.executable, "-c", huge], stdout=subprocess.PIPE)
    subprocess.run(
        [publisher, "-p", str(own_broker.port), "-t", topic, "-s", "-q", "1"], stdin=whole.stdout, check=True
    )
    whole.wait()
    if protocol == "3.1.1":
        bench.until(lambda: out.sink.commands_problem, "the flood to be noticed")
    subscriber = bench.subscribe(own_broker.port, protocol)
    bench.publish(out, bench.payloads(3))
    assert len(subscriber.events(3)) == 3
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb) / 1024
    assert grown_mb < 64


def test_a_broker_that_speaks_3_1_1_only_is_told_by_what_must_be_set(bench: Bench) -> None:
    broker = LoopbackBroker()
    try:
        out = bench.device(broker.port)
        bench.publish(out, bench.payloads(1))
        bench.until(lambda: "mqtt.protocol" in out.problem, "a problem in words")
        assert out.counts().waiting == 1
        older = bench.device(broker.port, protocol="3.1.1")
        bench.publish(older, bench.payloads(3))
        bench.until(lambda: older.counts() == Counts(waiting=0, confirmed=3, lost=0), "every confirmation")
    finally:
        broker.close()


def test_a_broker_that_hangs_up_again_and_again_gets_every_event_and_one_line_in_the_log(
    own_broker: Broker, relay: Relay, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    own_broker.start()
    caplog.set_level(logging.INFO)
    subscriber = bench.subscribe(own_broker.port)
    out = bench.device(relay.port)
    seen: set[str] = set()
    events = bench.payloads(16)
    for start in range(0, 16, 2):
        sent = bench.publish(out, events[start : start + 2])
        while not {payload["id"] for payload in sent} <= seen:
            seen.add(subscriber.next("event")[0]["id"])
        relay.cut()
    bench.until(lambda: out.counts().waiting == 0, "every confirmation")
    assert len(seen) == 16
    assert sum("trying again" in line for line in caplog.text.splitlines()) <= 2
    assert sum("connected to" in line for line in caplog.text.splitlines()) <= 2


def test_when_a_broker_is_gone_the_next_one_gets_the_events(
    own_broker: Broker, shared_broker: Broker, bench: Bench
) -> None:
    own_broker.start()
    out = bench.device(
        own_broker.port, alternates=(f"127.0.0.1:{free_port()}", f"127.0.0.1:{shared_broker.port}")
    )
    first = bench.subscribe(own_broker.port)
    bench.publish(out, bench.payloads(2))
    assert [payload["seq"] for payload in first.events(2)] == [1, 2]
    bench.until(lambda: out.counts().confirmed == 2, "both confirmations")
    second = bench.subscribe(shared_broker.port)
    own_broker.stop()
    bench.publish(out, bench.payloads(2))
    assert [payload["seq"] for payload in second.events(2)] == [3, 4]


def test_nothing_is_asked_of_the_disk_that_a_closed_outbox_lets_go(
    shared_broker: Broker, bench: Bench
) -> None:
    out = bench.device(shared_broker.port)
    bench.until(lambda: out.connected, "a connection")
    out.close()
    out.close()
    assert out.outbox.peek(-1, 10) == []
