"""Commands from the network: what may be done is kept, what may not is refused with its reason, nothing does harm."""

import json
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from edge.errors import PublishError
from edge.out.mqtt.command_fields import ARGUMENTS, Code, RefusedError, check, parse
from edge.out.mqtt.commands import (
    CAPACITY,
    COMMANDS,
    CORRELATION_LIMIT,
    MESSAGE_LIMIT,
    PAYLOAD_LIMIT,
    REMEMBERED_IDS,
    TOPIC_LIMIT,
    Answer,
    Command,
    CommandDesk,
    Received,
)
from edge.payload import encode, utc, validate
from tools.fuzz_commands import Fuzzer, Mutator, validator_of

NOW_NS = 1_795_428_902_415_000_000
BASE = "fleet/microedge/lab-03"
SCHEMA = {name: validator_of(name) for name in COMMANDS}


def a_desk(capacity: int = CAPACITY) -> CommandDesk:
    return CommandDesk(
        BASE, "lab-03", discovery_prefix="homeassistant", clock_ns=lambda: NOW_NS, capacity=capacity
    )


@pytest.fixture
def desk() -> CommandDesk:
    return a_desk()


def as_bytes(fields: Any) -> bytes:
    return fields if isinstance(fields, bytes) else json.dumps(fields).encode()


def accepted(desk: CommandDesk, name: str, fields: Any = b"") -> Command:
    """Hand a command in, which must be accepted, and take it out again."""
    refusal = desk.take(Received(name, as_bytes(fields), False))
    assert refusal is None, refusal
    command = desk.next()
    assert command is not None
    assert command.name == name
    return command


def refused(desk: CommandDesk, name: str, fields: Any = b"", **about: Any) -> tuple[str, str]:
    """Hand a command in, which must be refused in form; give the code and the message."""
    answer = desk.take(Received(name, as_bytes(fields), about.pop("is_retained", False), **about))
    assert answer is not None, "accepted"
    validate(answer.payload)
    assert desk.next() is None
    error = answer.payload["error"]
    return error["code"], error["message"]


@pytest.mark.parametrize(
    ("name", "fields", "arguments"),
    [
        ("pause", b"", {}),
        ("resume", b"{}", {}),
        ("pause", {"schema": "microedge.command/1", "expires": "2026-11-23T10:15:02.416Z"}, {}),
        ("identify", {"seconds": 1}, {"seconds": 1}),
        ("identify", {"seconds": 59.5}, {"seconds": 59.5}),
        ("context", {}, {}),
        ("context", {"session": "s" * 200, "note": None, "tags": []}, {"session": "s" * 200}),
        (
            "context",
            {"note": "Müde? 🎥", "tags": ["t" * 50] * 10},
            {"note": "Müde? 🎥", "tags": ["t" * 50] * 10},
        ),
        ("wipe", {"confirm": "lab-03"}, {"confirm": "lab-03"}),
    ],
)
def test_a_command_is_kept_with_its_arguments(
    desk: CommandDesk, name: str, fields: Any, arguments: dict[str, Any]
) -> None:
    command = accepted(desk, name, fields)
    assert (command.arguments, command.id) == (arguments, "")
    assert desk.counts().accepted == 1
    assert desk.next() is None


@pytest.mark.parametrize(
    ("name", "fields", "says"),
    [
        ("identify", {"seconds": 0}, "seconds = 0: must be a number from 1 to 60"),
        ("identify", {"seconds": 60.001}, "seconds = 60.001: must be"),
        ("identify", {"seconds": True}, "seconds = true: must be"),
        ("identify", {"seconds": "5"}, "seconds = (1 characters): must be"),
        ("identify", b'{"seconds": 1e999}', "seconds = inf: must be"),
        ("identify", b'{"seconds": ' + b"9" * 4300 + b"}", "seconds = 999999999999999999999999...: must be"),
        ("identify", {"volume": 11}, '"volume": unknown key, must be one of schema, id, expires, seconds'),
        ("pause", {"seconds": 5}, '"seconds": unknown key'),
        ("pause", {"id": ""}, "id = (0 characters): must be 1..64 printable characters"),
        ("pause", {"id": "x" * 65}, "id = (65 characters): must be"),
        ("pause", {"id": "a\nb"}, "id = (3 characters, unprintable ones among them): must be"),
        ("pause", {"id": None}, "id = null: must be"),
        ("pause", {"expires": "2026-11-23"}, "must be UTC like 2026-11-23T10:15:02.415Z"),
        ("pause", {"expires": "2026-11-23T10:15:02.415Z\n"}, "must be UTC like"),
        ("pause", {"expires": "2026-11-23T10:15:02.415+00:00"}, "must be UTC like"),
        ("pause", {"expires": "٢٠٢٦-11-23T10:15:02.415Z"}, "must be UTC like"),
        ("pause", {"expires": "2026-02-30T10:15:02.415Z"}, "must be a time that exists"),
        ("pause", {"expires": 1795428902}, "expires = 1795428902: must be UTC like"),
        ("pause", {"schema": "microedge.command/2"}, 'must be "microedge.command/1"'),
        (
            "context",
            {"session": "s" * 201},
            "session = (201 characters): must be up to 200 printable characters",
        ),
        ("context", b'{"note": "\\ud800"}', "note = (1 characters, unprintable ones among them)"),
        ("context", {"note": "\x1b[31m"}, "unprintable"),
        ("context", {"note": 7}, "note = 7: must be"),
        ("context", {"tags": ["t"] * 11}, "tags = (a list of 11): must be a list of up to 10 texts of 1..50"),
        ("context", {"tags": [""]}, "tags = (a list of 1): must be"),
        ("context", {"tags": ["t" * 51]}, "must be a list of up to 10"),
        ("context", {"tags": {}}, "tags = (an object): must be"),
        ("wipe", b"", 'confirm: must be this device\'s id, "lab-03"'),
        ("wipe", {"confirm": "lab-04"}, 'confirm: must be this device\'s id, "lab-03"'),
        ("wipe", {"confirm": None}, "confirm = null: must be text"),
        ("pause", [], "payload = (a list of 0): must be a JSON object"),
        ("pause", b"null", "payload = null: must be"),
    ],
)
def test_what_is_not_as_the_schema_says_is_invalid_and_value_and_limit_are_named(
    desk: CommandDesk, name: str, fields: Any, says: str
) -> None:
    code, message = refused(desk, name, fields)
    assert code == "invalid"
    assert says in message


def test_several_mistakes_are_told_together_but_not_a_thousand(desk: CommandDesk) -> None:
    _, message = refused(desk, "identify", {"seconds": 61, "id": 3})
    assert message == (
        "identify: seconds = 61: must be a number from 1 to 60; id = 3: must be 1..64 printable characters"
    )
    _, message = refused(desk, "pause", {str(number): 0 for number in range(700)})
    assert message.count("unknown key") == 3


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"\xff", Code.NOT_UTF8),
        (b'{"note": "\xed\xa0\x80"}', Code.NOT_UTF8),
        ('{"note": "x"}'.encode("utf-16"), Code.NOT_UTF8),
        (b"\xef\xbb\xbf{}", Code.NOT_JSON),
        (b" ", Code.NOT_JSON),
        (b"{", Code.NOT_JSON),
        (b"{}{}", Code.NOT_JSON),
        (b"{'note': 1}", Code.NOT_JSON),
        (b'{"note": "a\nb"}', Code.NOT_JSON),
        (b'{"note": "a", "note": "b"}', Code.NOT_JSON),
        (b'{"note": {"a": 1, "\\u0061": 2}}', Code.NOT_JSON),
        (b'{"seconds": NaN}', Code.NOT_JSON),
        (b'{"seconds": -Infinity}', Code.NOT_JSON),
        (b'{"seconds": ' + b"9" * 4301 + b"}", Code.NOT_JSON),
        (b"[" * PAYLOAD_LIMIT, Code.NOT_JSON),
        (b'{"a":' * (PAYLOAD_LIMIT // 5), Code.NOT_JSON),
        (b'{"note":"' + b"x" * (PAYLOAD_LIMIT - 10) + b'"}', Code.OVERSIZED),
        (b"\0" * 5_000_000, Code.OVERSIZED),
    ],
)
def test_what_is_no_message_of_ours_is_refused_by_what_it_is(
    desk: CommandDesk, payload: bytes, code: str
) -> None:
    assert refused(desk, "context", payload)[0] == code
    assert desk.counts().refused == {code: 1}


def test_brackets_that_open_and_close_a_thousand_times_do_no_harm(desk: CommandDesk) -> None:
    deep = b"[" * 4000 + b"]" * 4000
    assert refused(desk, "context", b'{"tags":' + deep + b"}")[0] in {"not_json", "invalid"}


def test_an_unknown_command_is_told_which_there_are(desk: CommandDesk) -> None:
    code, message = refused(desk, "reboot")
    assert code == "unknown"
    assert message == ('command "reboot": is unknown, must be one of pause, resume, identify, context, wipe')


@pytest.mark.parametrize(
    "name", ["", "pause/now", "../event", "a" * 33, "a" * 65_000, "päuse", "\0", "\ud800", "event\n"]
)
def test_a_name_that_is_no_word_is_answered_below_unknown(desk: CommandDesk, name: str) -> None:
    answer = desk.take(Received(name, b"", False))
    assert answer is not None
    validate(answer.payload)
    assert answer.topic == f"{BASE}/response/unknown"
    assert answer.payload["command"] == "unknown"
    assert answer.payload["error"]["code"] == "unknown"


def test_a_retained_command_is_not_done_however_sound_it_is(desk: CommandDesk) -> None:
    code, message = refused(desk, "pause", is_retained=True)
    assert code == "retained"
    assert "send it without retain, and clear its topic" in message


def test_the_end_of_a_retained_command_is_not_taken_for_the_command(desk: CommandDesk) -> None:
    assert refused(desk, "resume", b"{}", is_retained=True)[0] == "retained"
    accepted(desk, "pause", b"")  # another command's topic
    accepted(desk, "resume", b"{}")
    code, message = refused(desk, "resume", b"")
    assert code == "retained"
    assert message.startswith("empty: taken for the end of the retained command")
    accepted(desk, "resume", b"")
    # As MQTT 5 can pass it on: with its flag.
    refused(desk, "resume", b"{}", is_retained=True)
    assert refused(desk, "resume", b"", is_retained=True)[0] == "retained"
    accepted(desk, "resume", b"")


def test_an_id_comes_back_and_is_good_for_one_command_among_the_last_256(desk: CommandDesk) -> None:
    command = accepted(desk, "pause", {"id": "a"})
    answer = desk.done(command, {"changed": True})
    validate(answer.payload)
    assert answer.payload == {
        "schema": "microedge.response/1", "device_id": "lab-03", "time": utc(NOW_NS), "command": "pause", "id": "a",
        "ok": True, "result": {"changed": True},
    }  # fmt: skip
    # Another command with the same id is a repetition as well: an id tells one request from all others.
    again = desk.take(Received("resume", b'{"id": "a"}', False))
    assert again is not None
    assert (again.payload["id"], again.payload["error"]["code"]) == ("a", "repeated")
    for number in range(REMEMBERED_IDS - 1):
        accepted(desk, "resume", {"id": str(number)})
    assert refused(desk, "pause", {"id": "a"})[0] == "repeated"
    accepted(desk, "resume", {"id": "one more"})
    accepted(desk, "pause", {"id": "a"})


def test_commands_without_an_id_may_come_again(desk: CommandDesk) -> None:
    for _ in range(3):
        accepted(desk, "pause", {})


@pytest.mark.parametrize(
    "expires", ["2026-11-23T10:15:02.415Z", "2026-11-23T10:15:02.414Z", "0001-01-01T00:00:00.000Z"]
)
def test_a_command_whose_time_is_over_is_not_done_and_the_devices_time_is_told(
    desk: CommandDesk, expires: str
) -> None:
    assert utc(NOW_NS) == "2026-11-23T10:15:02.415Z"
    code, message = refused(desk, "wipe", {"confirm": "lab-03", "expires": expires})
    assert code == "expired"
    assert message == f"expires = {expires}: is not after this device's time, 2026-11-23T10:15:02.415Z"


def test_a_full_desk_refuses_and_the_id_may_be_used_again(desk: CommandDesk) -> None:
    for number in range(CAPACITY):
        assert desk.take(Received("context", b'{"note": "%d"}' % number, False)) is None
    answer = desk.take(Received("pause", b'{"id": "late"}', False))
    assert answer is not None
    assert answer.payload["error"] == {"code": "busy", "message": "16 commands are waiting: limit is 16"}
    notes = [command.arguments["note"] for command in iter(desk.next, None)]
    assert notes == [str(number) for number in range(CAPACITY)]
    assert accepted(desk, "pause", {"id": "late"}).id == "late"


@pytest.mark.parametrize(
    "topic",
    [
        "dashboard/7",
        f"{BASE}/response/pause",
        f"{BASE}/response/a.b",
        "/",
        "x" * TOPIC_LIMIT,
        "fleet/microedgy/x",
        "a b",
    ],
)
def test_an_answer_goes_where_it_was_asked_for_with_its_correlation_data(
    desk: CommandDesk, topic: str
) -> None:
    data = bytes(range(256)) * 4
    refusal = desk.take(Received("pause", b"[]", False, topic, data))
    assert refusal is not None
    assert (refusal.topic, refusal.correlation) == (topic, data)
    assert desk.take(Received("pause", b"", False, topic, data)) is None
    command = desk.next()
    assert command is not None
    for answer in (desk.done(command, {}), desk.failed(command, "x")):
        assert (answer.topic, answer.correlation) == (topic, data)


@pytest.mark.parametrize(
    "topic",
    [
        f"{BASE}/event", f"{BASE}/availability", f"{BASE}/command/wipe", f"{BASE}/response", BASE, "fleet/microedge",
        "fleet/microedge/lab-04/event", "fleet/microedge/lab-04/response/pause", "fleet/microedge/",
        # RabbitMQ keeps topics as AMQP routing keys, in which levels are parted by dots.
        "fleet.microedge.lab-03.event", "fleet/microedge.lab-04/event", "fleet.microedge",
        "homeassistant/device/lab-04/config", "homeassistant.device.lab-03.config",
        "a/+", "#", "a/#/b", "$SYS/broker", "$share/x/y", "x" * (TOPIC_LIMIT + 1), "é" * 129, "a\0b", "a\nb", "\ud800",
    ],
)  # fmt: skip
def test_nobody_makes_the_device_speak_on_a_topic_where_it_would_be_believed(
    desk: CommandDesk, topic: str
) -> None:
    answer = desk.take(Received("pause", b"", False, topic, b"7"))
    assert answer is not None
    validate(answer.payload)
    assert answer.payload["error"]["code"] == "response_topic"
    assert (answer.topic, answer.correlation) == (f"{BASE}/response/pause", b"7")
    unknown = desk.take(Received("reboot", b"", False, topic))
    assert unknown is not None
    assert unknown.topic == f"{BASE}/response/reboot"
    assert desk.next() is None


def test_correlation_data_that_is_too_long_is_refused_and_not_sent_back(desk: CommandDesk) -> None:
    answer = desk.take(Received("pause", b"", False, "dashboard/7", b"x" * (CORRELATION_LIMIT + 1)))
    assert answer is not None
    assert answer.payload["error"]["message"] == "correlation data = 1025 bytes: limit is 1024 bytes"
    assert (answer.topic, answer.correlation) == ("dashboard/7", b"")


def test_a_secret_sent_to_the_wrong_place_is_not_repeated(desk: CommandDesk) -> None:
    for name, fields in (
        ("identify", {"seconds": "hunter2"}), ("context", {"note": ["hunter2"]}), ("wipe", {"confirm": "hunter2"}),
        ("pause", {"expires": "hunter2"}), ("pause", b"hunter2"), ("pause", b'{"id": "hunter2'),
        ("pause", b"hunter2\xff"), ("pause", b'"hunter2"'), ("pause", {"schema": "hunter2"}),
    ):  # fmt: skip
        assert "hunter2" not in refused(desk, name, fields)[1]


def test_a_failure_is_told_in_plain_text_of_bounded_length(desk: CommandDesk) -> None:
    for problem in ("", "\x1b[31mé\n" * 500, "\ud800", "x" * 10_000):
        answer = desk.failed(accepted(desk, "pause", b""), problem)
        validate(answer.payload)
        assert answer.payload["error"]["code"] == "failed"
        assert len(answer.payload["error"]["message"]) <= MESSAGE_LIMIT


def test_a_result_that_breaks_the_contract_does_not_get_out(desk: CommandDesk) -> None:
    with pytest.raises(PublishError, match=r"microedge\.response/1"):
        desk.done(accepted(desk, "pause"), {"secret": 1})


def test_threads_that_hand_in_at_once_lose_nothing(desk: CommandDesk) -> None:
    refusals: list[Answer | None] = []
    taken: list[Command] = []
    over = threading.Event()

    def send(sender: int) -> None:
        refusals.extend(
            desk.take(Received("pause", b'{"id": "%d-%d"}' % (sender, n), False)) for n in range(200)
        )

    def work() -> None:
        while not over.is_set() or desk.counts().accepted > len(taken):
            if (command := desk.next()) is not None:
                taken.append(command)

    worker = threading.Thread(target=work)
    senders = [threading.Thread(target=send, args=(sender,)) for sender in range(4)]
    for thread in (worker, *senders):
        thread.start()
    for thread in senders:
        thread.join()
    over.set()
    worker.join()
    counts = desk.counts()
    assert counts.accepted == refusals.count(None) == len(taken)
    assert counts.accepted + counts.refused.get("busy", 0) == 800


def test_every_code_is_explained_in_the_schema_of_answers_and_every_command_has_one() -> None:
    for code in Code:
        validate(
            {
                "schema": "microedge.response/1", "device_id": "a", "time": utc(NOW_NS), "command": "pause",
                "ok": False, "error": {"code": str(code), "message": "x"},
            }
        )  # fmt: skip
    for name, checks in ARGUMENTS.items():
        schema = SCHEMA[name].schema["$defs"][name]
        assert list(checks) == list(schema["properties"])
        Draft202012Validator.check_schema(SCHEMA[name].schema)


# Near misses on purpose: the borders of every limit, and kinds that are easily mixed up.
_texts = st.one_of(
    st.text(max_size=70), st.text(st.characters(categories=["Cs", "Cc", "Zl", "Zp", "Lu"]), max_size=3),
    st.sampled_from([50, 51, 64, 65, 200, 201]).map("x".__mul__),
    st.sampled_from(["", "lab-03", "microedge.command/1"]),
)  # fmt: skip
_times = st.datetimes().map(lambda moment: moment.isoformat(timespec="milliseconds") + "Z") | st.from_regex(
    r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\n?\Z"
)
_values = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 61), st.floats(allow_nan=False), _texts, _times,
    st.lists(_texts, max_size=11), st.lists(st.integers(), max_size=2), st.dictionaries(_texts, st.none(), max_size=1),
)  # fmt: skip
_keys = st.sampled_from(["schema", "id", "expires", "seconds", "session", "note", "tags", "confirm", "x"])
_fields = st.dictionaries(_keys, _values, max_size=4)


def refusal_of(read: Callable[[], object]) -> RefusedError | None:
    try:
        read()
    except RefusedError as refusal:
        return refusal
    return None


def _exists(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


@settings(max_examples=500)
@given(st.sampled_from(COMMANDS), _fields)
def test_the_checks_by_hand_agree_with_the_schema(name: str, fields: dict[str, Any]) -> None:
    problem = refusal_of(lambda: check(name, fields, "lab-03"))
    assert problem is None or problem.code == Code.INVALID
    # What a schema cannot say: which device this is, and which days there are.
    mine = name != "wipe" or fields.get("confirm") == "lab-03"
    exists = "expires" not in fields or (isinstance(fields["expires"], str) and _exists(fields["expires"]))
    assert (problem is None) == (SCHEMA[name].is_valid(fields) and mine and exists)


@given(st.sampled_from(COMMANDS), _fields)
def test_what_is_accepted_survives_the_way_through_json(name: str, fields: dict[str, Any]) -> None:
    desk = a_desk()
    refusal = desk.take(Received(name, json.dumps(fields, allow_nan=False).encode(), False))
    command = desk.next()
    if refusal is not None:
        validate(refusal.payload)
        assert command is None
        return
    assert command is not None
    said = {key: value for key, value in fields.items() if value not in (None, "", [])}
    for common in ("schema", "id", "expires"):
        said.pop(common, None)
    assert command.arguments == said
    assert command.id == fields.get("id", "")


@given(st.text() | st.sampled_from(COMMANDS), st.binary(), st.booleans(), st.text(), st.binary())
def test_whatever_arrives_is_kept_or_answered(
    name: str, payload: bytes, is_retained: bool, topic: str, correlation: bytes
) -> None:
    desk = a_desk()
    answer = desk.take(Received(name, payload, is_retained, topic, correlation))
    counts = desk.counts()
    assert counts.accepted + sum(counts.refused.values()) == 1
    assert (answer is None) == (desk.next() is not None) == (counts.accepted == 1)
    if answer is not None:
        validate(answer.payload)
        assert len(encode(answer.payload).encode()) < 1000


_json = st.recursive(
    st.none() | st.floats(allow_nan=False, allow_infinity=False) | _texts,
    lambda inner: st.lists(inner) | st.dictionaries(_texts, inner),
)


@given(_json, st.booleans())
def test_any_json_object_is_read_and_nothing_else_is(value: Any, is_escaped: bool) -> None:
    data = json.dumps(value, ensure_ascii=is_escaped).encode(errors="surrogatepass")
    problem = refusal_of(lambda: parse(data))
    if problem is None:
        # Not `value` itself: two halves of a pair that are escaped one after the other are a character.
        assert parse(data) == json.loads(data)
    else:
        # Half of a surrogate pair can be escaped, but there is no UTF-8 for it.
        assert problem.code in ({Code.INVALID} if is_escaped else {Code.INVALID, Code.NOT_UTF8})
    assert problem is not None or isinstance(value, dict)
    assert problem is None or not (isinstance(value, dict) and is_escaped)


@pytest.fixture(scope="module")
def fuzzed() -> Fuzzer:
    fuzzer = Fuzzer(seed=7)
    fuzzer.run(10_000)
    return fuzzer


def test_damaged_commands_do_no_harm_and_the_fuzzer_meets_every_refusal(fuzzed: Fuzzer) -> None:
    assert fuzzed.crashes == []
    assert fuzzed.accepted > 500
    assert set(fuzzed.refused) == set(Code) - {Code.FAILED}  # of which only carried out commands speak


def test_the_fuzzer_makes_the_same_of_the_same_seed_and_notices_a_crash(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, two = Mutator(3), Mutator(3)
    assert [one.received() for _ in range(500)] == [two.received() for _ in range(500)]
    monkeypatch.setattr("edge.out.mqtt.commands.parse", lambda payload: 1 // (len(payload) % 9))
    fuzzer = Fuzzer(seed=7)
    fuzzer.run(200)
    assert any("ZeroDivisionError" in crash for crash in fuzzer.crashes)


@pytest.mark.parametrize(
    "answer",
    [
        {"topic": f"{BASE}/event"}, {"topic": "fleet.microedge.lab-03.event"}, {"topic": "a/#"},
        {"correlation": b"x" * 1025}, {"message": "x" * 301},
        {"message": ""}, {"message": "é"}, {"command": "../event"}, {"device_id": "a/b"},
    ],
)  # fmt: skip
def test_the_fuzzer_notices_a_bad_answer(desk: CommandDesk, answer: dict[str, Any]) -> None:
    received = Received("pause", b"[]", False, "", answer.get("correlation", b""))
    sound = desk.take(Received("pause", b"[]", False))
    assert sound is not None
    Fuzzer(1).look_at(sound, received, is_sample=True)
    error = {"code": "invalid", "message": answer.pop("message", "x")}
    topic, correlation = answer.pop("topic", sound.topic), answer.pop("correlation", b"")
    bad = Answer(topic, {**sound.payload, **answer, "error": error}, correlation)
    with pytest.raises((AssertionError, PublishError)):
        Fuzzer(1).look_at(bad, received, is_sample=True)
