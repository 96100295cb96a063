"""Every event that leaves the device is what the schema promises."""

import json
from collections.abc import Callable
from datetime import datetime
from importlib import resources
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.commands.summary import MEANING
from edge.errors import PublishError
from edge.payload import PayloadWriter, health_payload, info_payload, validate
from edge.records import EMOTIONS, ActionUnit, Event, Quality, Reason, Spot

START_NS = 1_795_428_902_415_999_999
HASHES = {"landmark": "0" * 64, "spotter": "f" * 64}

MakeEvent = Callable[..., Event]

share = st.floats(0, 1)
amount = st.floats(0, 1e4)
text = st.text(max_size=200)


@st.composite
def events(draw: st.DrawFn) -> Event:
    onset_ns = draw(st.integers(0, 10**16))
    duration_ns = draw(st.integers(20_000_000, 500_000_000))
    spot = Spot(
        face_id=draw(st.integers(1, 10**6)),
        onset_ns=onset_ns,
        apex_ns=onset_ns + draw(st.integers(0, duration_ns)),
        offset_ns=onset_ns + duration_ns,
        score=draw(share),
        probabilities=tuple(draw(st.lists(share, min_size=8, max_size=8))),
        action_units=tuple(
            ActionUnit(
                f"AU{draw(st.integers(1, 64))}", draw(st.sampled_from(["right", "left", "both"])), draw(share)
            )
            for _ in range(draw(st.integers(0, 5)))
        ),
        regions=(draw(share), draw(share), draw(share), draw(share)),
        intensity_iod=draw(share),
        confusers=(0.0,) * 5,
    )
    quality = Quality(
        draw(amount),
        draw(st.integers(0, 10**6)),
        draw(amount),
        draw(amount),
        draw(st.booleans()),
        draw(share),
    )
    emotion = draw(st.sampled_from([*EMOTIONS, "other", "uncertain", None]))
    return Event(spot, emotion, draw(share), quality)


SERIES = "0123456789abcdef" * 2


def a_writer(**changes: object) -> PayloadWriter:
    return PayloadWriter("lab-03", "boot-1", START_NS, HASHES, **changes)


@given(event=events(), context=st.fixed_dictionaries({}, optional={"session": text, "note": text}))
def test_any_event_survives_the_round_trip_through_json_and_is_valid(
    event: Event, context: dict[str, str]
) -> None:
    payload = a_writer(context=context).write(event, SERIES, 1)
    back = json.loads(json.dumps(payload, allow_nan=False))
    assert back == payload
    validate(back)
    assert back["onset_s"] <= back["apex_s"] <= back["offset_s"]
    assert abs(back["onset_s"] * 1e9 - event.spot.onset_ns) <= 50_001 + event.spot.onset_ns * 1e-15


def test_an_event_reads_as_the_design_shows_it(make_event: MakeEvent) -> None:
    payload = a_writer(context={"session": "interview-7"}, clock_synchronised=lambda: True).write(
        make_event(), SERIES, 1
    )
    assert payload["time"] == "2026-11-23T10:15:14.830Z"
    assert (payload["onset_s"], payload["apex_s"], payload["offset_s"]) == (12.415, 12.46, 12.53)
    assert (payload["duration_ms"], payload["seq"], payload["emotion"]) == (115, 1, "disgust")
    assert payload["clock_synchronised"] is True
    assert payload["probabilities"]["disgust"] == payload["confidence"] == 0.71
    assert payload["regions"] == {"eyes": 0.1, "brows": 0.2, "nose": 0.9, "mouth": 0.4}
    assert payload["quality"] == {
        "frame_rate_hz": 199.8, "frames_dropped": 0, "head_turn_deg_s": 2.1, "face_px": 212.0, "baseline_ready": True,
        "noise_floor_iod": 0.000412,
    }  # fmt: skip
    assert payload["model"] == {"landmark": "sha256:" + "0" * 64, "spotter": "sha256:" + "f" * 64}


def test_movement_reports_hold_no_emotion_word_anywhere(make_event: MakeEvent) -> None:
    for payload in (
        a_writer(report="movement").write(make_event(), SERIES, 1),
        a_writer().write(make_event(emotion=None), SERIES, 1),
    ):
        assert not {"emotion", "confidence", "probabilities"} & payload.keys()
        assert not [emotion for emotion in EMOTIONS if emotion in json.dumps(payload)]


def test_an_event_bears_the_number_that_it_is_given(make_event: MakeEvent) -> None:
    payload = a_writer().write(make_event(), SERIES, 17)
    assert (payload["series"], payload["seq"]) == (SERIES, 17)
    with pytest.raises(PublishError, match="seq"):
        a_writer().write(make_event(), SERIES, 0)


def test_the_same_event_of_the_same_boot_gets_the_same_id_and_others_do_not(make_event: MakeEvent) -> None:
    def event_id(boot: str = "boot-1", **changes: object) -> str:
        return str(
            PayloadWriter("lab-03", boot, START_NS, HASHES).write(make_event(**changes), SERIES, 1)["id"]
        )

    assert event_id() == event_id()
    others = {event_id(), event_id(boot="boot-2"), event_id(face_id=2), event_id(offset_ns=12_531_000_000)}
    assert len(others) == 4


def test_ids_sort_by_the_time_of_the_onset(make_event: MakeEvent) -> None:
    writer = a_writer()
    ids = [
        writer.write(make_event(onset_ns=t, apex_ns=t, offset_ns=t + 10**8), SERIES, 1)["id"]
        for t in range(0, 10**10, 10**9 + 7)
    ]
    assert ids == sorted(ids)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"emotion": "joy"}, "emotion"),
        ({"score": 1.2}, "spot_score"),
        ({"intensity_iod": float("nan")}, "intensity_iod"),
        ({"quality": Quality(float("inf"), 0, 0.0, 0.0)}, "quality.frame_rate_hz"),
        ({"quality": Quality(200.0, -1, 0.0, 0.0)}, "quality.frames_dropped"),
        ({"quality": Quality(200.0, 0, 0.0, 0.0, True, 2.0)}, "quality.noise_floor_iod"),
        ({"action_units": (ActionUnit("AU9", "middle", 0.5),)}, "action_units[0].side"),
        ({"face_id": 0}, "face_id"),
        ({"offset_ns": 20_000_000_000}, "duration_ms"),
        ({"apex_ns": 0}, "apex_s"),
        ({"probabilities": (0.5, 0.5)}, "probabilities"),
    ],
)
def test_an_event_that_breaks_the_contract_is_refused_by_field(
    changes: dict[str, object], named: str, make_event: MakeEvent
) -> None:
    with pytest.raises(PublishError) as caught:
        a_writer().write(make_event(**changes), SERIES, 1)
    assert named in str(caught.value)


def test_an_unknown_field_is_refused(make_event: MakeEvent) -> None:
    payload = a_writer().write(make_event(), SERIES, 1)
    with pytest.raises(PublishError, match="landmarks"):
        validate({**payload, "landmarks": [1, 2]})


def test_an_unknown_schema_is_refused() -> None:
    with pytest.raises(PublishError, match=r"microedge\.event/9"):
        validate({"schema": "microedge.event/9"})


def test_a_start_time_beyond_the_calendar_is_refused_by_name(make_event: MakeEvent) -> None:
    with pytest.raises(PublishError, match="time"):
        PayloadWriter("lab-03", "boot-1", 10**22, HASHES).write(make_event(), SERIES, 1)


def test_health_leaves_out_what_is_not_known_and_checks_the_rest() -> None:
    health = health_payload("lab-03", "boot-1", START_NS, "running", frame_rate_hz=199.7, temperature_c=None)
    assert "temperature_c" not in health
    assert datetime.fromisoformat(health["time"]).year == 2026
    with pytest.raises(PublishError, match="state"):
        health_payload("lab-03", "boot-1", START_NS, "splendid")
    with pytest.raises(PublishError, match="colour"):
        health_payload("lab-03", "boot-1", START_NS, "running", colour="red")


def every_reason(schema: dict[str, Any], name: str) -> list[str]:
    """Give the reasons that journal-1.json explains under `name`, in its order."""
    found: list[str] = []
    for part in schema["$defs"][name]["anyOf"]:
        if "$ref" in part:
            found += every_reason(schema, part["$ref"].rpartition("/")[2])
        else:
            assert part["description"]
            found.append(part["const"])
    return found


def test_the_schemas_explain_every_reason_that_the_device_knows() -> None:
    folder = resources.files("edge") / "schemas"
    journal, health = (
        json.loads((folder / f"{name}-1.json").read_text(encoding="utf-8")) for name in ("journal", "health")
    )
    reasons = every_reason(journal, "reason")
    assert sorted(reasons) == sorted(map(str, Reason))
    of_health = health["properties"]["refusals"]["properties"]["by_reason"]["propertyNames"]["enum"]
    assert of_health == reasons
    lost = every_reason(journal, "not_assessable")
    assert health["properties"]["not_assessable_s"]["propertyNames"]["enum"] == lost
    assert lost == [str(reason) for reason in MEANING]


def test_health_counts_refusals_and_lost_time_by_reason_and_knows_no_others() -> None:
    refusals = {"total": 3, "by_reason": {"blink": 2, "too short for this rate": 1}}
    baseline = {"ready": True, "progress": 1.0, "noise_floor_iod": 0.0004, "blinks_per_min": 14.2}
    lost = {"no face": 3.2, "gap": 0.1}
    health_payload(
        "lab-03", "boot-1", START_NS, "running", refusals=refusals, baseline=baseline, not_assessable_s=lost
    )
    for wrong in (
        {"refusals": {"total": 1, "by_reason": {"bad mood": 1}}},
        {"not_assessable_s": {"blink": 1.0}},
        {"baseline": {"ready": True}},
    ):
        with pytest.raises(PublishError, match=next(iter(wrong))):
            health_payload("lab-03", "boot-1", START_NS, "running", **wrong)


def test_info_states_purpose_and_limits() -> None:
    info = info_payload(
        "lab-03", "boot-1", version="0.1.0", purpose="stress study", report="movement", model_hashes=HASHES,
        topics=["microedge/lab-03/event"],
    )  # fmt: skip
    assert info["purpose"] == "stress study"
    assert "deception" in info["limits"]
