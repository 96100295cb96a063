"""Reads the message of a command: bytes in, checked fields out, or a refusal that says what is wrong.

`edge/schemas/command-1.json` is the contract. The checks are written by hand, because a validator of JSON Schema
takes some hundred times as long and anybody may send; a test holds them against the schema.

Text that a sender wrote is not repeated in a refusal beyond the name of a key: it may be a secret that was sent to
the wrong place. What is repeated is cut and printable ASCII.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
_UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MISTAKES = 3
"""So many are named; a message of 8 KiB can hold a thousand."""


class Code(StrEnum):
    """Why a command was not done; response-1.json explains each."""

    UNKNOWN = "unknown"
    RESPONSE_TOPIC = "response_topic"
    RETAINED = "retained"
    OVERSIZED = "oversized"
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    INVALID = "invalid"
    EXPIRED = "expired"
    REPEATED = "repeated"
    BUSY = "busy"
    FAILED = "failed"


class RefusedError(Exception):
    """A command may not be done; its text is for the sender."""

    def __init__(self, code: Code, message: str, command_id: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.command_id = command_id
        """The sender's; empty if there was none or none that could be read."""


def parse(payload: bytes) -> dict[str, Any]:
    """Read a JSON object; an empty payload is an empty one.

    Raises:
        RefusedError: if it is none.
    """
    if not payload:
        return {}
    try:
        value = _DECODER.decode(payload.decode())
    except UnicodeDecodeError as error:
        raise RefusedError(Code.NOT_UTF8, f"not UTF-8: byte {error.start} cannot stand there") from error
    except json.JSONDecodeError as error:
        # What the library's own message quotes differs from one Python to the next.
        raise RefusedError(Code.NOT_JSON, f"not JSON: character {error.pos} cannot stand there") from error
    except RecursionError as error:
        raise RefusedError(Code.NOT_JSON, "not JSON: nested too deep") from error
    except ValueError as error:
        raise RefusedError(Code.NOT_JSON, "not JSON: a number has too many digits") from error
    if not isinstance(value, dict):
        raise RefusedError(Code.INVALID, f"payload = {_shown(value)}: must be a JSON object")
    return value


def check(name: str, fields: Mapping[str, Any], device_id: str) -> None:
    """Check the fields of the command `name`, which is one of `ARGUMENTS`.

    Raises:
        RefusedError: naming the first few things that are wrong, each with its limit.
    """
    checks = ARGUMENTS[name]
    mistakes = []
    for key, value in fields.items():
        if key not in checks:
            mistakes.append(f"{quoted(key)}: unknown key, must be one of {', '.join(checks)}")
        elif limit := checks[key](value):
            mistakes.append(f"{key} = {_shown(value)}: must be {limit}")
        if len(mistakes) == _MISTAKES:
            break
    # The id is no secret: every topic of the device has it.
    if name == "wipe" and not mistakes and fields.get("confirm") != device_id:
        mistakes.append(f"confirm: must be this device's id, {quoted(device_id)}, for all to be removed")
    if mistakes:
        command_id = fields.get("id")
        known_id = "" if command_id is None or _id_problem(command_id) else command_id
        raise RefusedError(Code.INVALID, f"{name}: {'; '.join(mistakes)}", known_id)


def time_ns(text: str) -> int:
    """Give the value of a checked `expires` as ns since 1970.

    Raises:
        ValueError: if there is no such day or hour.
    """
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(milliseconds=1) * 1_000_000


def quoted(text: str) -> str:
    """Give foreign text in quotes as printable ASCII, cut."""
    escaped = json.dumps(text[:48])[1:-1]
    return f'"{escaped}"' if len(text) <= 48 and len(escaped) <= 72 else f'"{escaped[:72]}..."'


def _shown(value: Any) -> str:
    """Describe a value without repeating text that it holds."""
    match value:
        case None | bool():
            return json.dumps(value)
        case int() | float():
            shown = repr(value)
            return shown if len(shown) <= 24 else f"{shown[:24]}..."
        case str():
            odd = ", unprintable ones among them" if _UNPRINTABLE.search(value) else ""
            return f"({len(value)} characters{odd})"
        case list():
            return f"(a list of {len(value)})"
    return "(an object)"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise RefusedError(Code.NOT_JSON, f"not JSON: the key {quoted(key)} comes twice")
    return found


def _constant(name: str) -> None:
    raise RefusedError(Code.NOT_JSON, f"not JSON: there is no {name}")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)


def _is_text(value: Any, shortest: int, longest: int) -> bool:
    return type(value) is str and shortest <= len(value) <= longest and not _UNPRINTABLE.search(value)


def _schema_problem(value: Any) -> str:
    return "" if value == "microedge.command/1" else '"microedge.command/1"'


def _id_problem(value: Any) -> str:
    return "" if _is_text(value, 1, 64) else "1..64 printable characters"


def _expires_problem(value: Any) -> str:
    if type(value) is not str or not _TIME.fullmatch(value):
        return "UTC like 2026-11-23T10:15:02.415Z"
    try:
        time_ns(value)
    except ValueError:
        return "a time that exists"
    return ""


def _seconds_problem(value: Any) -> str:
    return "" if type(value) in (int, float) and 1 <= value <= 60 else "a number from 1 to 60"


def _text_problem(value: Any) -> str:
    return "" if value is None or _is_text(value, 0, 200) else "up to 200 printable characters, or null"


def _tags_problem(value: Any) -> str:
    if value is None:
        return ""
    if type(value) is list and len(value) <= 10 and all(_is_text(tag, 1, 50) for tag in value):
        return ""
    return "a list of up to 10 texts of 1..50 printable characters, or null"


def _confirm_problem(value: Any) -> str:
    # Which device it names is looked at last, once nothing else is wrong.
    return "" if type(value) is str else "text"


Check = Callable[[Any], str]
"""Gives what a value must be, in words; empty if it is."""
_COMMON: dict[str, Check] = {"schema": _schema_problem, "id": _id_problem, "expires": _expires_problem}
ARGUMENTS: dict[str, dict[str, Check]] = {
    "pause": _COMMON,
    "resume": _COMMON,
    "identify": {**_COMMON, "seconds": _seconds_problem},
    "context": {**_COMMON, "session": _text_problem, "note": _text_problem, "tags": _tags_problem},
    "wipe": {**_COMMON, "confirm": _confirm_problem},
}
"""The commands, and the keys that each may have."""
