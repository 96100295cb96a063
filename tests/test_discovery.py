"""What Home Assistant is told fits what it documents, and what the device really publishes."""

import json
import re
from dataclasses import replace
from importlib import resources
from typing import Any

import pytest

from edge import health
from edge.config import Config, Device, Mqtt
from edge.out import Payload
from edge.out.mqtt.commands import CommandDesk, Received
from edge.out.mqtt.discovery import EXPIRE_S, discovery_payload
from edge.records import EMOTIONS

SHARED = {
    "platform": str, "name": str, "icon": str, "unique_id": str, "qos": int, "entity_category": str,
    "device_class": str, "availability": list,
}  # fmt: skip
READING = {
    **SHARED, "state_topic": str, "value_template": str, "json_attributes_topic": str,
    "json_attributes_template": str,
}  # fmt: skip
DOCUMENTED: dict[str, dict[str, type]] = {
    "event": {**READING, "event_types": list},
    "sensor": {
        **READING, "expire_after": int, "options": list, "state_class": str, "suggested_display_precision": int,
        "unit_of_measurement": str,
    },
    "binary_sensor": {**READING, "expire_after": int, "payload_on": str, "payload_off": str},
    "button": {**SHARED, "command_topic": str, "payload_press": str},
}  # fmt: skip
"""The fields of Home Assistant's platforms that we use, with their types; its documentation names more."""
REQUIRED = {
    "event": {"state_topic", "event_types"},
    "sensor": {"state_topic"},
    "binary_sensor": {"state_topic"},
    "button": {"command_topic"},
}
DEVICE_CLASSES = {
    "event": {"button", "doorbell", "motion"},
    "sensor": {"enum", "frequency", "temperature"},
    "binary_sensor": {"connectivity", "occupancy", "problem"},
    "button": {"identify", "restart", "update"},
}
UNITS = {"frequency": {"Hz", "kHz", "MHz", "GHz"}, "temperature": {"°C", "°F", "K"}}

CONFIG = Config(device=Device(id="lab-03"), mqtt=Mqtt(topic_prefix="site/edge"))
MOVEMENT = replace(CONFIG, device=Device(id="lab-03", report="movement"))
Components = dict[str, Payload]


def schema_of(name: str) -> Payload:
    text = (resources.files("edge") / "schemas" / f"{name}-1.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def components_of(config: Config) -> Components:
    return dict(discovery_payload(config, version="1.2.3")["components"])


def templates_of(component: Payload) -> list[tuple[str, str]]:
    """Each template of a component with the topic that it reads."""
    pairs = (("value_template", "state_topic"), ("json_attributes_template", "json_attributes_topic"))
    return [(component[template], component[topic]) for template, topic in pairs if template in component]


def fields_in(template: str) -> set[tuple[str, ...]]:
    """The paths below `value_json` that a template reads."""
    unwrapped = re.sub(r"\((value_json\.\w+) \| default\(\{\}\)\)", r"\1", template)
    return {tuple(path.split(".")) for path in re.findall(r"value_json\.(\w+(?:\.\w+)*)", unwrapped)}


def describes(schema: Payload, path: tuple[str, ...]) -> Any:
    """The part of a schema that describes a field; None if there is no such field."""
    for name in path:
        schema = schema.get("properties", {}).get(name)
        if schema is None:
            return None
    return schema


@pytest.mark.parametrize("config", [CONFIG, MOVEMENT], ids=["emotion", "movement"])
def test_every_component_has_only_documented_fields_of_the_documented_type(config: Config) -> None:
    for key, component in components_of(config).items():
        known = DOCUMENTED[component["platform"]]
        for name, value in component.items():
            assert type(value) is known.get(name), f"{key}.{name}"
        assert REQUIRED[component["platform"]] | {"platform", "name", "unique_id"} <= component.keys()
        assert component["qos"] == 1
        assert component.get("entity_category", "config") in {"config", "diagnostic"}
        assert component.get("icon", "mdi:play").startswith("mdi:")
        if device_class := component.get("device_class"):
            assert device_class in DEVICE_CLASSES[component["platform"]]
            assert component.get("unit_of_measurement") in UNITS.get(device_class, {None})


def test_the_frame_of_the_message_has_what_device_discovery_requires() -> None:
    payload = discovery_payload(CONFIG, version="1.2.3")
    assert set(payload) == {"device", "origin", "availability", "components"}
    assert payload["origin"] == {"name": "microedge", "sw_version": "1.2.3"}
    assert payload["device"]["identifiers"] == ["microedge_lab-03"]
    documented = {"identifiers", "name", "manufacturer", "model", "sw_version"}
    assert set(payload["device"]) <= documented
    assert payload["availability"] == [
        {"topic": "site/edge/lab-03/availability", "value_template": "{{ value_json.state }}"}
    ]


def test_devices_and_entities_are_never_taken_for_one_another() -> None:
    ids = [
        component["unique_id"]
        for name in ("a", "b")
        for component in components_of(replace(CONFIG, device=Device(id=name))).values()
    ]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("config", [CONFIG, MOVEMENT], ids=["emotion", "movement"])
def test_every_template_reads_fields_that_the_schema_of_its_topic_has(config: Config) -> None:
    base = "site/edge/lab-03"
    read = set()
    for key, component in components_of(config).items():
        for template, topic in templates_of(component):
            assert topic.startswith(f"{base}/")
            kind = topic.removeprefix(f"{base}/")
            assert fields_in(template), f"{key}: {template}"
            for path in fields_in(template):
                assert describes(schema_of(kind), path) is not None, f"{key}: {kind} has no {path}"
                read.add((kind, path))
    assert ("health", ("outbox", "waiting")) in read
    assert ("event", ("context", "session")) in read
    assert ("availability", ("state",)) in read


def test_what_a_message_may_leave_out_is_unknown_rather_than_an_error() -> None:
    for key, component in components_of(CONFIG).items():
        for template, topic in templates_of(component):
            schema = schema_of(topic.rpartition("/")[2])
            for path in fields_in(template):
                outer = describes(schema, path[:1])
                optional = path[0] not in schema["required"]
                inner_optional = path[1:] and path[1] not in outer.get("required", ())
                named = "value_json." + ".".join(path)
                if optional and topic.endswith("/health"):
                    outer_name = f"value_json.{path[0]}"
                    assert re.search(rf"{outer_name} (\| default|is defined)", template), f"{key}: {template}"
                elif inner_optional:
                    assert f"{named} | default" in template, f"{key}: {template}"


def test_an_enumeration_has_the_values_that_the_schema_has() -> None:
    components, described = components_of(CONFIG), schema_of("health")["properties"]
    assert components["state"]["options"] == described["state"]["enum"]
    assert components["accelerator"]["options"] == described["accelerator"]["properties"]["state"]["enum"]
    emotions = schema_of("event")["properties"]["emotion"]["enum"]
    assert components["micro_expression"]["event_types"] == emotions
    connection, states = components["connection"], schema_of("availability")["properties"]["state"]["enum"]
    assert [connection["payload_on"], connection["payload_off"]] == states


def test_a_device_that_reports_movement_alone_names_no_emotion_to_home_assistant() -> None:
    event = components_of(MOVEMENT)["micro_expression"]
    assert event["event_types"] == ["movement"]
    told = json.dumps(discovery_payload(MOVEMENT, version="1.2.3"))
    assert not [word for word in (*EMOTIONS, "emotion", "confidence") if word in told]


def test_a_replayed_event_says_so() -> None:
    template = components_of(CONFIG)["micro_expression"]["value_template"]
    assert "'replayed': value_json.replayed" in template
    assert "'time': value_json.time" in template


@pytest.mark.parametrize("key", ["pause", "resume", "identify"])
def test_a_pressed_button_is_a_command_that_the_device_takes(key: str) -> None:
    button = components_of(CONFIG)[key]
    base = "site/edge/lab-03"
    desk = CommandDesk(base, "lab-03")
    name = button["command_topic"].removeprefix(f"{base}/command/")
    assert desk.take(Received(name, button["payload_press"].encode(), is_retained=False)) is None
    command = desk.next()
    assert command is not None
    assert (command.name, command.arguments) == (key, {})


def test_a_figure_expires_after_six_missed_health_messages_and_a_count_never() -> None:
    assert EXPIRE_S == 6 * health.PERIOD_S
    for key, component in components_of(CONFIG).items():
        if component.get("state_class") == "total_increasing" or component["platform"] in {"event", "button"}:
            assert "expire_after" not in component, key


def test_the_message_fits_a_small_packet() -> None:
    # Brokers and clients are often limited to some tens of KB; the longest id and prefix still stay below.
    long = Config(device=Device(id="d" * 64), mqtt=Mqtt(topic_prefix="p" * 100))
    assert len(json.dumps(discovery_payload(long, version="1.2.3"))) < 16_384
