"""Tells Home Assistant what this device offers, in the one message of its *device discovery*.

Home Assistant (2024.12 or newer) reads it at `<mqtt.discovery_prefix>/device/<device.id>/config`, retained, and makes
an event entity for micro-expressions, sensors from the health message, and buttons that send commands. It adds
nothing to the contract: every entity reads a topic, and a field, that `edge/schemas` describes.

Decisions
- An event that was kept back appears too, when it arrives, with `replayed` and its true `time` as attributes.
- What a health message leaves out is *unknown*, not the last known value.
- A figure that describes this moment expires after six missed health messages: the network thread may live on while
  the rest of the program does not. Counts stay, because an expired count would break its statistics.
- The `Connection` sensor has no availability of its own, so that it says `off` where the others are unavailable.

Source: home-assistant.io/integrations/mqtt, sections "Discovery payload" and "Device discovery payload", and the
pages of the platforms event, sensor, binary_sensor and button; developers.home-assistant.io/docs/core/entity.
"""

from collections.abc import Mapping
from typing import Any

from edge.config import Config
from edge.out import Payload
from edge.out.mqtt.sink import device_topic
from edge.records import EMOTIONS

EXPIRE_S = 60
"""Age at which a figure of this moment is no longer true: six periods of the health message."""

STATES = ("starting", "running", "degraded", "paused", "fault", "stopping")
ACCELERATOR_STATES = ("off", "absent", "starting", "in use", "lost")
"""As health-1.json names them."""

MOVEMENT = "movement"
"""The one type of event while `device.report` is movement: then no emotion word may appear anywhere."""

_ATTRIBUTES = {
    "id": "value_json.id",
    "series": "value_json.series",
    "seq": "value_json.seq",
    "time": "value_json.time",
    "replayed": "value_json.replayed",
    "duration_ms": "value_json.duration_ms",
    "action_units": "value_json.action_units | map(attribute='au') | list",
    "intensity_iod": "value_json.intensity_iod",
    "spot_score": "value_json.spot_score",
    "session": "value_json.context.session | default('')",
    "note": "value_json.context.note | default('')",
    "tags": "value_json.context.tags | default([])",
}
"""What of an event becomes an attribute, as Jinja expressions."""

_NOW: dict[str, Any] = {"expire_after": EXPIRE_S}
_DIAGNOSTIC: dict[str, Any] = {"entity_category": "diagnostic"}
_FIGURE: dict[str, Any] = {"state_class": "measurement", **_DIAGNOSTIC}
_COUNT: dict[str, Any] = {"state_class": "total_increasing"}


def discovery_payload(config: Config, *, version: str) -> Payload:
    """Describe the device to Home Assistant.

    Args:
        config: the whole configuration.
        version: of this program.
    """
    name = config.device.id
    base = device_topic(config.mqtt, name)
    components = {
        "micro_expression": _event_entity(base, config.device.report),
        **_sensors(base),
        **_binary_sensors(base),
        **_buttons(base),
    }
    return {
        "device": {
            "identifiers": [f"microedge_{name}"],
            "name": name,
            "manufacturer": "microedge",
            "model": "Micro-expression camera",
            "sw_version": version,
        },
        "origin": {"name": "microedge", "sw_version": version},
        "availability": [{"topic": f"{base}/availability", "value_template": "{{ value_json.state }}"}],
        "components": {
            key: {**component, "unique_id": f"microedge_{name}_{key}", "qos": 1}
            for key, component in components.items()
        },
    }


def _event_entity(base: str, report: str) -> Payload:
    attributes = dict(_ATTRIBUTES)
    if report == MOVEMENT:
        types, event_type = [MOVEMENT], f"'{MOVEMENT}'"
    else:
        types, event_type = [*EMOTIONS, "other", "uncertain"], "value_json.emotion"
        attributes["confidence"] = "value_json.confidence"
    return {
        "platform": "event",
        "name": "Micro-expression",
        "icon": "mdi:face-recognition",
        "state_topic": f"{base}/event",
        "event_types": types,
        "value_template": _object({"event_type": event_type, **attributes}),
    }


def _sensors(base: str) -> dict[str, Payload]:
    share = "value_json.assessable_share"
    sensors: dict[str, Payload] = {
        "state": {"name": "State", **_enum(STATES), "value_template": _value("state"), **_NOW},
        "frame_rate": {
            "name": "Frame rate", "device_class": "frequency", "unit_of_measurement": "Hz",
            "suggested_display_precision": 1, "value_template": _value("frame_rate_hz"), **_FIGURE, **_NOW,
        },
        "assessable": {
            "name": "Assessable time", "unit_of_measurement": "%", "suggested_display_precision": 1,
            "value_template": f"{{{{ ({share} * 100) | round(1) if {share} is defined else none }}}}",
            **_FIGURE, **_NOW,
        },
        "temperature": {
            "name": "Temperature", "device_class": "temperature", "unit_of_measurement": "°C",
            "suggested_display_precision": 1, "value_template": _value("temperature_c"), **_FIGURE, **_NOW,
        },
        "frames_dropped": {
            "name": "Frames dropped", "unit_of_measurement": "frames",
            "value_template": _value("frames_dropped"), **_COUNT, **_DIAGNOSTIC,
        },
        "events": {
            "name": "Events", "unit_of_measurement": "events", "value_template": _value("events"), **_COUNT,
        },
        "outbox_waiting": {
            "name": "Events waiting", "unit_of_measurement": "events",
            "value_template": _value("outbox.waiting"), **_FIGURE,
        },
        "outbox_lost": {
            "name": "Events lost", "unit_of_measurement": "events",
            "value_template": _value("outbox.lost"), **_COUNT, **_DIAGNOSTIC,
        },
        "accelerator": {
            "name": "Accelerator", **_enum(ACCELERATOR_STATES), "value_template": _value("accelerator.state"),
            **_DIAGNOSTIC, **_NOW,
        },
    }  # fmt: skip
    return {
        key: {"platform": "sensor", "state_topic": f"{base}/health", **sensor}
        for key, sensor in sensors.items()
    }


def _binary_sensors(base: str) -> dict[str, Payload]:
    sensors: dict[str, Payload] = {
        "problem": {
            "name": "Problem", "device_class": "problem", **_DIAGNOSTIC, **_NOW,
            "value_template": "{{ 'ON' if value_json.state in ['degraded', 'fault'] else 'OFF' }}",
            "json_attributes_topic": f"{base}/health",
            "json_attributes_template": _object({"reasons": "value_json.reasons | default([])"}),
        },
        "face": {
            "name": "Face", "device_class": "occupancy", **_NOW,
            "value_template": "{{ 'ON' if value_json.face | default(false) else 'OFF' }}",
        },
        "connection": {
            "name": "Connection", "device_class": "connectivity", **_DIAGNOSTIC,
            "state_topic": f"{base}/availability", "value_template": "{{ value_json.state }}",
            "payload_on": "online", "payload_off": "offline", "availability": [],
        },
    }  # fmt: skip
    return {
        key: {"platform": "binary_sensor", "state_topic": f"{base}/health", **sensor}
        for key, sensor in sensors.items()
    }


def _buttons(base: str) -> dict[str, Payload]:
    looks: dict[str, Payload] = {
        "pause": {"icon": "mdi:pause"},
        "resume": {"icon": "mdi:play"},
        "identify": {"device_class": "identify", **_DIAGNOSTIC},
    }
    return {
        key: {
            "platform": "button",
            "name": key.capitalize(),
            "command_topic": f"{base}/command/{key}",
            "payload_press": "{}",
            **look,
        }
        for key, look in looks.items()
    }


def _enum(options: tuple[str, ...]) -> Payload:
    return {"device_class": "enum", "options": list(options)}


def _value(path: str) -> str:
    """Give the template of a field of the health message, `name` or `name.name`; None is shown as unknown."""
    outer, _, inner = path.partition(".")
    field = f"(value_json.{outer} | default({{}})).{inner}" if inner else f"value_json.{outer}"
    return f"{{{{ {field} | default(none) }}}}"


def _object(expressions: Mapping[str, str]) -> str:
    """Give the template of a JSON object with a Jinja expression for each field."""
    fields = ", ".join(f"'{name}': {expression}" for name, expression in expressions.items())
    return f"{{{{ {{{fields}}} | tojson }}}}"
