"""The quick check accepts nothing that the validator would not, and every payload that the device really makes."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from edge.acceptor import acceptor
from edge.payload import PayloadWriter, health_payload
from edge.records import Event

SCHEMAS = {path.stem: json.loads(path.read_text()) for path in Path("edge/schemas").glob("*.json")}
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.floats(-1, 2)
    | st.sampled_from(["", "both", "AU9", "a" * 300]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["au", "eyes", "x"]), inner, max_size=3)
    ),
    max_leaves=4,
)


def event() -> dict[str, Any]:
    units = [{"au": "AU9", "side": "both", "score": 0.83}, {"au": "AU12", "side": "left", "score": 1}]
    shares = dict.fromkeys(
        ("happiness", "sadness", "anger", "fear", "disgust", "surprise", "contempt", "other"), 0.125
    )
    return {
        "schema": "microedge.event/1", "id": "01a20870-cf63-7470-b6f1-86708c10353d", "device_id": "lab-03",
        "boot_id": "b", "series": "0" * 32, "seq": 1, "time": "2026-11-23T10:15:02.415Z",
        "clock_synchronised": True, "replayed": False, "face_id": 1, "onset_s": 0.0, "apex_s": 0.1, "offset_s": 0.2,
        "duration_ms": 200, "emotion": "disgust", "confidence": 0.71, "probabilities": shares,
        "action_units": units, "regions": {"eyes": 0.1, "brows": 0.2, "nose": 1, "mouth": 0},
        "intensity_iod": 0.01, "spot_score": 0.9,
        "quality": {
            "frame_rate_hz": 199.8, "frames_dropped": 0, "head_turn_deg_s": 2.1, "face_px": 212.0,
            "baseline_ready": True, "noise_floor_iod": 0.0004,
        },
        "context": {"session": "s", "note": "n", "tags": ["a", "b"]}, "model": {"landmark": "sha256:" + "0" * 64},
    }  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Give the way to every member of a JSON value."""
    members = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    return [way for key, inner in members for way in [(*path, key), *places(inner, (*path, key))]]


@st.composite
def mutants(draw: st.DrawFn) -> Any:
    """Give an event with up to three members replaced, removed or added."""
    payload = event()
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from(places(payload)))
        parent = payload
        for key in path:
            parent = parent[key]
        action = draw(st.sampled_from(["replace", "remove", "add"]))
        if action == "replace":
            parent[last] = draw(VALUES)
        elif action == "remove":
            del parent[last]
        elif isinstance(parent, dict):
            parent[draw(st.sampled_from(["x", "tags", "note", "detector"]))] = draw(VALUES)
        else:
            parent.append(draw(VALUES | st.sampled_from(copy.deepcopy(parent) or [1])))
        if not places(payload):
            break
    return payload


@settings(max_examples=600, deadline=None)
@given(mutants())
def test_what_it_accepts_the_validator_finds_valid(payload: Any) -> None:
    valid = Draft202012Validator(SCHEMAS["event-1"]).is_valid(payload)
    accepted = acceptor(SCHEMAS["event-1"])(payload)
    assert valid or not accepted


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_no_value_at_all_is_accepted_that_is_not_valid(value: Any) -> None:
    for schema in SCHEMAS.values():
        assert not acceptor(schema)(value) or Draft202012Validator(schema).is_valid(value)


def test_it_accepts_what_the_device_makes(make_event: Callable[..., Event]) -> None:
    accepts = acceptor(SCHEMAS["event-1"])
    writer = PayloadWriter("lab-03", "b", 0, {"spotter": "0" * 64}, context={"session": "s", "tags": ["a"]})
    assert accepts(writer.write(make_event(), "0" * 32, 1))
    assert accepts(writer.write(make_event(emotion=None), "0" * 32, 2))
    assert accepts(event())
    assert acceptor(SCHEMAS["health-1"])(health_payload("lab-03", "b", 0, "running", events=3))


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        ({"type": "integer"}, [1, 0], [True, "1", None, 1.5]),
        ({"type": "number", "minimum": 0, "maximum": 1}, [0, 1, 0.5], [-1, 2, True, float("nan")]),
        ({"const": "a"}, ["a"], ["b", 1, ["a"]]),
        ({"pattern": "^a$"}, ["a", 7], ["b"]),
        ({"properties": {"a": {"const": "b"}}, "additionalProperties": False}, [{"a": "b"}, {}], [{"b": 1}, {"a": 1}]),
        ({"additionalProperties": {"type": "string"}, "minProperties": 1}, [{"a": "b"}], [{}, {"a": 1}]),
        ({"propertyNames": {"maxLength": 1}}, [{"a": 1}], [{"ab": 1}]),
        ({"dependentRequired": {"a": ["b"]}}, [{}, {"b": 1}, {"a": 1, "b": 1}], [{"a": 1}]),
        ({"items": {"type": "string"}, "maxItems": 2}, [[], ["a", "b"]], [["a", "b", "c"], [1]]),
        ({"uniqueItems": True, "minItems": 1}, [["a"], ["a", "b"]], [["a", "a"], []]),
        ({"anyOf": [{"type": "null"}, {"$ref": "#/$defs/t"}], "$defs": {"t": {"minLength": 2}}}, [None, "ab"], ["a"]),
    ],
)  # fmt: skip
def test_every_known_keyword_means_what_the_standard_says(
    schema: Any, valid: list[Any], invalid: list[Any]
) -> None:
    accepts, validator = acceptor(schema), Draft202012Validator(schema)
    assert [accepts(value) for value in (*valid, *invalid)] == [True] * len(valid) + [False] * len(invalid)
    assert all(validator.is_valid(value) for value in valid)


@pytest.mark.parametrize(
    "schema",
    [{"oneOf": [{"type": "null"}]}, {"enum": [1]}, {"type": ["null"]}, {"$ref": "other"}, {"future": 1}],
)
def test_a_schema_with_an_unknown_keyword_is_left_to_the_validator(schema: Any) -> None:
    assert not acceptor(schema)(None)
