"""Accepts, in a twentieth of the time, what a JSON Schema validator would find valid; about all else it has no say.

The validator takes half a millisecond for one event on a desktop and several on a Raspberry Pi, while frames wait for
the interpreter. So a schema becomes plain functions once, and the validator is asked only for what they do not accept:
it alone says what is wrong. The functions may turn down what is valid, never the other way round.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Check = Callable[[Any], bool]
"""True only if the value is valid."""

_SILENT = {"$schema", "$id", "$defs", "title", "description", "default"}
"""Keywords that check nothing."""


class UnsupportedError(Exception):
    """The schema uses a keyword that is not known here."""


def acceptor(schema: Mapping[str, Any]) -> Check:
    """Compile a schema; one with a keyword that is not known here gives a check that accepts nothing.

    Args:
        schema: JSON Schema 2020-12; references lead to its own `$defs`, none of which refers to itself.
    """
    try:
        return _compiled(schema, schema.get("$defs", {}))
    except UnsupportedError:
        return lambda value: False


def _compiled(schema: Any, named: Mapping[str, Any]) -> Check:
    if isinstance(schema, bool):
        return lambda value: schema
    checks: list[Check] = []
    for word, argument in schema.items():
        if word in _SILENT or word in ("properties", "additionalProperties"):
            continue
        if word == "$ref":
            if not argument.startswith("#/$defs/"):
                raise UnsupportedError(argument)
            checks.append(_compiled(named[argument.removeprefix("#/$defs/")], named))
        elif word == "anyOf":
            checks.append(_any([_compiled(each, named) for each in argument]))
        elif word == "items":
            checks.append(_items(_compiled(argument, named)))
        elif word == "propertyNames":
            checks.append(_names(_compiled(argument, named)))
        elif word in _WORDS:
            checks.append(_WORDS[word](argument))
        else:
            raise UnsupportedError(word)
    if "properties" in schema or "additionalProperties" in schema:
        known = {name: _compiled(each, named) for name, each in schema.get("properties", {}).items()}
        checks.append(_members(known, _compiled(schema.get("additionalProperties", True), named)))
    return checks[0] if len(checks) == 1 else _all(checks)


def _all(checks: list[Check]) -> Check:
    def check(value: Any) -> bool:
        for each in checks:  # noqa: SIM110 - all() with a generator takes twice the time
            if not each(value):
                return False
        return True

    return check


def _any(checks: list[Check]) -> Check:
    return lambda value: any(check(value) for check in checks)


def _members(known: Mapping[str, Check], further: Check) -> Check:
    def check(value: Any) -> bool:
        if isinstance(value, dict):
            for name, member in value.items():
                if not known.get(name, further)(member):
                    return False
        return True

    return check


def _names(name_check: Check) -> Check:
    return lambda value: not isinstance(value, dict) or all(map(name_check, value))


def _items(item_check: Check) -> Check:
    return lambda value: not isinstance(value, list) or all(map(item_check, value))


def _type(word: Any) -> Check:
    # Exact types: a bool is an int to Python, and other number types are left to the validator.
    kinds: dict[str, tuple[type, ...]] = {
        "string": (str,), "object": (dict,), "array": (list,), "boolean": (bool,), "null": (type(None),),
        "integer": (int,), "number": (int, float),
    }  # fmt: skip
    if not isinstance(word, str) or word not in kinds:
        raise UnsupportedError(f"type: {word}")
    allowed = kinds[word]
    return lambda value: type(value) in allowed


def _one_of(values: Iterable[Any]) -> Check:
    allowed = frozenset(values)
    if not all(isinstance(value, str) for value in allowed):
        # 1 and true are equal to Python, and not to JSON.
        raise UnsupportedError("enum or const that is no text")
    return lambda value: isinstance(value, str) and value in allowed


def _required(names: Iterable[str]) -> Check:
    needed = frozenset(names)
    return lambda value: not isinstance(value, dict) or needed <= value.keys()


def _dependent(needs: Mapping[str, Iterable[str]]) -> Check:
    pairs = [(name, frozenset(others)) for name, others in needs.items()]
    return lambda value: (
        not isinstance(value, dict)
        or all(name not in value or others <= value.keys() for name, others in pairs)
    )


def _pattern(pattern: str) -> Check:
    search = re.compile(pattern).search
    return lambda value: not isinstance(value, str) or search(value) is not None


def _unique(is_asked: bool) -> Check:
    def check(value: Any) -> bool:
        if not is_asked or not isinstance(value, list):
            return True
        return all(isinstance(item, str) for item in value) and len(set(value)) == len(value)

    return check


def _bound(kinds: tuple[type, ...], is_within: Callable[[Any, Any], bool]) -> Callable[[Any], Check]:
    def make(limit: Any) -> Check:
        return lambda value: not isinstance(value, kinds) or is_within(value, limit)

    return make


_WORDS: dict[str, Callable[[Any], Check]] = {
    "type": _type,
    "const": lambda value: _one_of((value,)),
    "enum": _one_of,
    "required": _required,
    "dependentRequired": _dependent,
    "pattern": _pattern,
    "uniqueItems": _unique,
    "minimum": _bound((int, float), lambda value, limit: value >= limit),
    "maximum": _bound((int, float), lambda value, limit: value <= limit),
    "minLength": _bound((str,), lambda value, limit: len(value) >= limit),
    "maxLength": _bound((str,), lambda value, limit: len(value) <= limit),
    "minItems": _bound((list,), lambda value, limit: len(value) >= limit),
    "maxItems": _bound((list,), lambda value, limit: len(value) <= limit),
    "minProperties": _bound((dict,), lambda value, limit: len(value) >= limit),
}
