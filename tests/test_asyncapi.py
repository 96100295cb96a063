"""The AsyncAPI document says what a device really publishes and takes: topics, QoS, retain, payloads."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import paho.mqtt.client as paho
import pytest
import yaml  # amqtt, which the test extra brings for the demo's broker, depends on it
from jsonschema import Draft202012Validator
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions
from referencing import Registry, Resource

from edge.config import Config, Device, History, Mqtt
from edge.config import Outbox as OutboxConfig
from edge.out import Payload
from edge.out.mqtt.client import INCOMING_LIMIT
from edge.out.mqtt.commands import CORRELATION_LIMIT, TOPIC_LIMIT, CommandDesk, command_topics
from edge.out.mqtt.discovery import discovery_payload
from edge.out.mqtt.sink import MqttSink, device_topic
from edge.payload import PayloadWriter, health_payload, info_payload
from edge.records import Event
from edge.store.outbox import Outbox

SCHEMAS = Path(__file__).parents[1] / "edge" / "schemas"
DOCUMENT: Payload = yaml.safe_load((SCHEMAS / "asyncapi.yaml").read_text(encoding="utf-8"))
FILES: dict[str, Payload] = {path.name: json.loads(path.read_text()) for path in SCHEMAS.glob("*.json")}
REGISTRY: Any = Registry().with_resources(
    (schema["$id"], Resource.from_contents(schema)) for schema in FILES.values()
)
DEVICE_ID = "lab-03"
Until = Callable[..., None]
NOW_NS = 1_795_428_902_000_000_000


class Broker(Protocol):
    port: int


def at(root: Any, pointer: str) -> Any:
    """What a JSON pointer points at. Source: RFC 6901."""
    for step in pointer.strip("/").split("/") if pointer else []:
        root = root[step.replace("~1", "/").replace("~0", "~")]
    return root


def resolved(node: Any) -> Any:
    """Follow a reference within the document; anything else stays as it is."""
    while isinstance(node, dict) and str(node.get("$ref", "")).startswith("#"):
        node = at(DOCUMENT, node["$ref"][1:])
    return node


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for inner in node.values():
            yield from references(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from references(inner)


def checker(message: Payload) -> Any:
    """A validator of what the document says is in a message."""
    payload = message["payload"]
    if "$ref" not in payload:
        return Draft202012Validator(payload)
    name, _, pointer = payload["$ref"].removeprefix("./").partition("#")
    target = {"$ref": FILES[name]["$id"] + (f"#{pointer}" if pointer else "")}
    return Draft202012Validator(target, registry=REGISTRY)


@cache
def addresses(prefix: str, discovery_prefix: str) -> dict[str, str]:
    """Every topic of the device, with the name of its channel."""
    filled = {"prefix": prefix, "deviceId": DEVICE_ID, "discoveryPrefix": discovery_prefix}
    topics: dict[str, str] = {}
    for name, channel in DOCUMENT["channels"].items():
        if channel["address"] is None:
            continue
        choices = channel["parameters"].get("command", {}).get("enum", [""])
        for command in choices:
            topics[channel["address"].format(**filled, command=command)] = name
    return topics


def operations(action: str) -> dict[str, Payload]:
    """The operations of a kind by the name of their channel."""
    return {
        operation["channel"]["$ref"].removeprefix("#/channels/"): operation
        for operation in DOCUMENT["operations"].values()
        if operation["action"] == action
    }


def message_of(channel: str) -> Payload:
    (message,) = DOCUMENT["channels"][channel]["messages"].values()
    return dict(resolved(message))


def test_every_reference_leads_somewhere() -> None:
    found = list(references(DOCUMENT))
    assert len(found) > 30
    for reference in found:
        name, _, pointer = reference.partition("#")
        assert at(FILES[name.removeprefix("./")] if name else DOCUMENT, pointer) is not None, reference


def test_the_topics_are_those_of_the_device() -> None:
    config = Mqtt(host="127.0.0.1", port=1, topic_prefix="site/edge", discovery_prefix="ha")
    outbox = Outbox(None, OutboxConfig(), History(days=0))
    sink = MqttSink(config, DEVICE_ID, outbox, backoff_s=(60.0, 60.0))
    published = sink.topics
    sink.close()
    commands = command_topics(device_topic(config, DEVICE_ID))
    assert set(addresses("site/edge", "ha")) == {*published, *commands}


def test_every_parameter_of_an_address_is_described_and_no_other() -> None:
    for name, channel in DOCUMENT["channels"].items():
        named = set(re.findall(r"\{(\w+)\}", channel["address"] or ""))
        assert named == set(channel.get("parameters", {})), name


def test_the_device_sends_what_is_no_command_and_receives_the_rest() -> None:
    topics = addresses("p", "ha")
    received = {name for topic, name in topics.items() if "/command/" in topic}
    assert set(operations("receive")) == received
    assert set(operations("send")) == set(topics.values()) - received
    for name, operation in operations("receive").items():
        assert operation["reply"]["address"]["location"] == "$message.header#/responseTopic", name


def test_every_schema_of_the_mqtt_contract_is_used() -> None:
    used = {
        reference.partition("#")[0].removeprefix("./")
        for reference in references(DOCUMENT)
        if reference[0] == "."
    }
    assert used == set(FILES) - {"doctor-1.json", "journal-1.json"}


def test_every_example_fits_its_schema() -> None:
    examples = [
        (name, example["payload"], message)
        for name, message in DOCUMENT["components"]["messages"].items()
        for example in message.get("examples", [])
    ]
    assert len(examples) > 10
    for name, payload, message in examples:
        assert not [error.message for error in checker(message).iter_errors(payload)], name


class Life:
    """Everything that a device says at a broker, from its first connection to its end."""

    def __init__(self, port: int, prefix: str, protocol: str, until: Until) -> None:
        self.heard: list[paho.MQTTMessage] = []
        self.chosen = f"{prefix}-desk"
        """Where an MQTT 5 command wants its answer."""
        self.mqtt = Mqtt(
            host="127.0.0.1",
            port=port,
            protocol=protocol,
            topic_prefix=prefix,
            discovery_prefix=f"{prefix}/ha",
        )
        self.base = device_topic(self.mqtt, DEVICE_ID)
        self._until = until
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        # Else a subscriber that is there already could not see what is retained.
        options = SubscribeOptions(qos=1, retainAsPublished=True)
        wanted = [(f"{prefix}/#", options), (self.chosen, options)]
        subscribed = threading.Event()
        self._client.on_connect = lambda client, *_: client.subscribe(wanted)
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.on_message = lambda client, userdata, message: self.heard.append(message)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert subscribed.wait(20), "the broker did not confirm the subscription"
        self._outbox = Outbox(None, OutboxConfig(), History(days=0))
        self._desk = CommandDesk(self.base, DEVICE_ID)
        self._sink = MqttSink(self.mqtt, DEVICE_ID, self._outbox, desk=self._desk, expire_h=2)

    def publish(self, event: Event) -> None:
        """Send what a device sends of its own accord."""
        sink = self._sink
        sink.publish_info(
            info_payload(
                DEVICE_ID, "boot-1", version="0.1.0", purpose="a test", report="emotion",
                model_hashes={"spotter": "0" * 64}, topics=[*sink.topics, *command_topics(self.base)],
                protocol=self.mqtt.protocol, engine="litert",
            )
        )  # fmt: skip
        sink.publish_health(health_payload(DEVICE_ID, "boot-1", NOW_NS, "running", face=True))
        sink.publish_discovery(
            discovery_payload(Config(device=Device(id=DEVICE_ID), mqtt=self.mqtt), version="0.1.0")
        )
        writer = PayloadWriter(DEVICE_ID, "boot-1", NOW_NS, {"spotter": "0" * 64}, context={"note": "a test"})
        for payload in self._outbox.append([writer.write(event, *self._outbox.number)]):
            sink.publish(event, payload)
        self._until(lambda: self._outbox.counts().confirmed == 1, "the event's confirmation")

    def command(self) -> None:
        """Send a command that is done, and one with a topic for its answer that is refused."""
        self._client.publish(f"{self.base}/command/identify", b'{"id": "a", "seconds": 2}', qos=1)
        asked = Properties(PacketTypes.PUBLISH)
        asked.ResponseTopic, asked.CorrelationData = self.chosen, b"\x00\xff"
        self._client.publish(f"{self.base}/command/wipe", b'{"confirm": "another"}', qos=1, properties=asked)
        self._until(lambda: self._desk.counts().accepted == 1, "the command")
        command = self._desk.next()
        assert command is not None
        self._sink.answer(self._desk.done(command, {"seconds": 2}))
        self._until(lambda: self._has(f"{self.base}/response/identify"), "the answer")
        # MQTT 3.1.1 does not pass on where the answer is wanted.
        refused_at = self.chosen if self.mqtt.protocol == "5" else f"{self.base}/response/wipe"
        self._until(lambda: self._has(refused_at), "the refusal")

    def end(self) -> None:
        self._sink.close()
        self._until(lambda: b"offline" in self.heard[-1].payload, "the farewell")

    def close(self) -> None:
        self._sink.close()
        self._client.disconnect()
        self._client.loop_stop()

    def _has(self, topic: str) -> bool:
        return any(message.topic == topic for message in self.heard)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_all_that_a_device_publishes_is_as_the_document_says(
    protocol: str, shared_broker: Broker, topic_prefix: str, make_event: Callable[..., Event], until: Until
) -> None:
    life = Life(shared_broker.port, topic_prefix, protocol, until)
    try:
        life.publish(make_event())
        life.command()
        life.end()
    finally:
        life.close()
    sends = operations("send")
    topics = {**addresses(topic_prefix, life.mqtt.discovery_prefix), life.chosen: "chosenResponse"}
    seen = set()
    for message in life.heard:
        if "/command/" in message.topic:
            continue
        channel = topics[message.topic]
        seen.add(channel)
        problems = list(checker(message_of(channel)).iter_errors(json.loads(message.payload)))
        assert not problems, f"{message.topic}: {problems[0].message}"
        promised = sends.get(channel, sends["response"])["bindings"]["mqtt"]
        assert (message.qos, message.retain) == (promised["qos"], promised["retain"]), message.topic
        expiry_s = getattr(message.properties, "MessageExpiryInterval", None)
        if protocol == "5" and "messageExpiryInterval" in promised:
            assert Draft202012Validator(promised["messageExpiryInterval"]).is_valid(expiry_s)
            assert expiry_s <= 2 * 3600
        else:
            assert expiry_s is None
        if channel == "chosenResponse":
            assert message.properties.CorrelationData == b"\x00\xff"
    assert seen == {*sends, *(["chosenResponse"] if protocol == "5" else [])}


def test_the_limits_of_the_document_are_those_of_the_device() -> None:
    for server in ("plain", "encrypted"):
        connection = DOCUMENT["servers"][server]["bindings"]["mqtt"]
        assert connection["maximumPacketSize"] == INCOMING_LIMIT
        assert connection["keepAlive"] == Mqtt().keep_alive_s
    asked = DOCUMENT["components"]["messageTraits"]["command"]["headers"]["properties"]
    assert asked["responseTopic"]["maxLength"] == TOPIC_LIMIT
    assert asked["correlationData"]["maxLength"] == CORRELATION_LIMIT


def test_the_last_will_is_the_one_of_the_document() -> None:
    for server in ("plain", "encrypted"):
        will = DOCUMENT["servers"][server]["bindings"]["mqtt"]["lastWill"]
        assert will["topic"] == DOCUMENT["channels"]["availability"]["address"]
        assert (will["qos"], will["retain"]) == (1, True)
        assert checker(message_of("availability")).is_valid(json.loads(will["message"]))
