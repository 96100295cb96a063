"""Reads the configuration from one TOML file, reports every mistake at once, and writes it out again.

What can be set is declared in `edge.settings`, whose sections are imported from here.
"""

import difflib
import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edge.errors import ConfigError
from edge.settings import (
    KEYS,
    SECTIONS,
    Baseline,
    Camera,
    Config,
    Device,
    Event,
    Face,
    History,
    Inference,
    Key,
    Leds,
    Log,
    Motion,
    Mqtt,
    Outbox,
    Spot,
    Switches,
    is_taken_at_reload,
)

__all__ = [
    "KEYS",
    "Baseline",
    "Camera",
    "Config",
    "Device",
    "Event",
    "Face",
    "History",
    "Inference",
    "Leds",
    "Log",
    "Motion",
    "Mqtt",
    "Outbox",
    "Spot",
    "Switches",
    "example",
    "load",
    "read",
    "reference",
    "to_toml",
]

WORDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "a list of texts",
}


def load(path: Path | None, overrides: Sequence[str] = (), *, opens_camera: bool = False) -> Config:
    """Read the configuration from `path` (None: the defaults) and lay `section.key=value` overrides over it.

    Args:
        path: TOML.
        overrides: as `--set` takes them.
        opens_camera: whether it is for a device that opens `camera.source`, and so must have its capture LED.

    Raises:
        ConfigError: with one line for every mistake, each naming the file (or `--set`), key, value and limit.
    """
    config, mistakes = read(path, overrides, opens_camera=opens_camera)
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return config


def read(
    path: Path | None, overrides: Sequence[str] = (), *, opens_camera: bool = False
) -> tuple[Config, list[str]]:
    """Do as `load`, but leave every key that is wrong at its default and give the mistakes, in words, beside."""
    mistakes: list[str] = []
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, name, value in (*_file_entries(path, mistakes), *_override_entries(overrides, mistakes)):
        if mistake := _mistake(KEYS[name], value):
            mistakes.append(f"{origin}: {name} = {_shown(KEYS[name], value)}: {_without_login(mistake)}")
        else:
            values[name], origins[name] = KEYS[name].kind(value), origin
    given: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    for name, value in values.items():
        section, _, key = name.partition(".")
        given[section][key] = value
    config = Config(**{name: section(**given[name]) for name, section in SECTIONS.items()})
    for names, mistake in (*_conflicts(config), *(_camera_conflicts(config) if opens_camera else ())):
        origin = next((origins[name] for name in reversed(names) if name in origins), "defaults")
        mistakes.append(f"{origin}: {mistake}")
    return config, mistakes


def _file_entries(path: Path | None, mistakes: list[str]) -> Iterator[tuple[str, str, Any]]:
    """Give (file, full key name, value) for each known key of the file; note what is wrong with the rest."""
    if path is None:
        return
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        mistakes.append(f"{path}: no such file")
        return
    except OSError as error:
        mistakes.append(f"{path}: cannot be read: {error.strerror}")
        return
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        mistakes.append(f"{path}: is not valid TOML: {error}")
        return
    for section, table in document.items():
        if section not in SECTIONS:
            mistakes.append(f"{path}: {section}: unknown section or key{_nearest(section)}")
        elif not isinstance(table, dict):
            mistakes.append(f"{path}: {section}: must be a section: write [{section}] on a line of its own")
        else:
            for key, value in table.items():
                if (name := f"{section}.{key}") in KEYS:
                    yield str(path), name, value
                else:
                    mistakes.append(f"{path}: {name}: unknown key{_nearest(name)}")


def _override_entries(overrides: Sequence[str], mistakes: list[str]) -> Iterator[tuple[str, str, Any]]:
    """Give ("--set", full key name, value) for each override of a known key."""
    for override in overrides:
        name, equals, text = (part.strip() for part in override.partition("="))
        if name not in KEYS:
            mistakes.append(f"--set: {name}: unknown key{_nearest(name)}")
        elif not equals:
            mistakes.append(f"--set: {name}: has no value: write {name}=VALUE")
        else:
            yield "--set", name, _override_value(KEYS[name].kind, text)


def _override_value(kind: type, text: str) -> Any:
    """Read `text` as TOML; plain words need no quotes where text is expected, and a list of them no brackets."""
    quoted = text[:1] in {'"', "'"}
    if kind is str and not quoted:
        return text
    try:
        if kind is not tuple or text.startswith("["):
            return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        if kind is not tuple:
            return text
    # An IPv6 address begins as a TOML list does.
    return [part.strip().strip("\"'") for part in text.split(",")] if text else []


def _shown(about: Key, value: Any) -> str:
    if about.secret:
        return "(not shown)"
    return _without_login(json.dumps(value, ensure_ascii=False, default=str))


def _without_login(text: str) -> str:
    """Give `text` without the `user:password@` that some people write before a host name."""
    return re.sub(r'[^\s/"]+@', "(not shown)@", text)


def _mistake(about: Key, value: Any) -> str:
    """Say what is wrong with `value`; empty if nothing is."""
    limit = f", {about.limit}" if about.limit else ""
    if about.kind is tuple:
        return _mistake_in_list(about, value) if isinstance(value, list) else f"must be {WORDS[tuple]}{limit}"
    # bool is an int to Python, and an integer serves as a float.
    right_type = type(value) is about.kind or (about.kind is float and type(value) is int)
    if not right_type:
        return f"must be {WORDS[about.kind]}{limit}"
    wrong = (
        (isinstance(value, str) and not _fits(about, value))
        or (about.choices and value not in about.choices)
        or (about.low is not None and about.high is not None and not about.low <= value <= about.high)
    )
    return f"must be {about.limit or 'printable text'}" if wrong else ""


def _mistake_in_list(about: Key, values: list[Any]) -> str:
    for value in values:
        if not isinstance(value, str) or not _fits(about, value):
            return f"{json.dumps(value, ensure_ascii=False, default=str)} must be {about.rule}"
        if values.count(value) > 1:
            return f"{_toml(value)} is there twice"
    return f"holds {len(values)}: must be {about.limit}" if len(values) > about.most else ""


def _fits(about: Key, text: str) -> bool:
    return text.isprintable() and (not about.pattern or re.fullmatch(about.pattern, text) is not None)


def _conflicts(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    """Give the keys and the mistake for each pair of settings that do not go together."""
    if config.event.min_duration_ms >= config.event.max_duration_ms:
        least, most = config.event.min_duration_ms, config.event.max_duration_ms
        mistake = f"event.min_duration_ms = {least}: must be below event.max_duration_ms = {most}"
        yield ("event.max_duration_ms", "event.min_duration_ms"), mistake
    yield from _mqtt_conflicts(config.mqtt)
    taken: dict[int, str] = {}
    for name in (name for name in KEYS if name.endswith("_pin")):
        section, _, key = name.partition(".")
        pin = getattr(getattr(config, section), key)
        if pin < 0:
            continue
        if pin in taken:
            yield (taken[pin], name), f"{name} = {pin}: is used twice: {taken[pin]} has this pin too"
        taken.setdefault(pin, name)


def _camera_conflicts(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    """Give what is wrong where a camera is opened: nobody may be watched without the light that says so."""
    source = config.camera.source
    if source != "synthetic" and not config.leds.enabled:
        mistake = (
            f'leds.enabled = false: must be true while camera.source = "{source}", because the capture LED shows that '
            "people are watched; a machine without GPIO tries a camera with GPIOZERO_PIN_FACTORY=mock"
        )
        yield ("camera.source", "leds.enabled"), mistake


def _mqtt_conflicts(mqtt: Mqtt) -> Iterator[tuple[tuple[str, ...], str]]:
    for name in ("ca_file", "certificate_file", "key_file"):
        if getattr(mqtt, name) and not mqtt.tls:
            mistake = f"mqtt.{name} is set but mqtt.tls = false: must be true to use it"
            yield ("mqtt.tls", f"mqtt.{name}"), mistake
    if not mqtt.check_hostname and not mqtt.tls:
        mistake = "mqtt.check_hostname = false but mqtt.tls = false: there is no certificate to check"
        yield ("mqtt.tls", "mqtt.check_hostname"), mistake
    for one, other in (("certificate_file", "key_file"), ("key_file", "certificate_file")):
        if getattr(mqtt, one) and not getattr(mqtt, other):
            mistake = f"mqtt.{one} is set but mqtt.{other} is empty: a certificate and its key go together"
            yield (f"mqtt.{other}", f"mqtt.{one}"), mistake
    if mqtt.password_file and not mqtt.username:
        yield ("mqtt.username", "mqtt.password_file"), "mqtt.password_file is set but mqtt.username is empty"


def _nearest(name: str) -> str:
    """Give "; did you mean ...?" for the known key or section most like `name`, or what else may help."""
    if "password" in name and name != "mqtt.password_file":
        return "; a password is never in the configuration: write it to a file and set mqtt.password_file"
    section, _, key = name.rpartition(".")
    elsewhere = [known for known in KEYS if known.endswith(f".{key or name}")]
    near = elsewhere[:1] or difflib.get_close_matches(name, [*KEYS, *SECTIONS], n=1, cutoff=0.6)
    if not near and section in SECTIONS:
        return f"; {section} has " + ", ".join(dict(_by_section())[section])
    return f"; did you mean {near[0]}?" if near else "; the sections are " + ", ".join(SECTIONS)


def _toml(value: Any) -> str:
    # JSON's text, number and truth literals are also TOML's, once control characters are kept out.
    return json.dumps(value, ensure_ascii=False)


def _by_section() -> Iterator[tuple[str, dict[str, Key]]]:
    for name in SECTIONS:
        yield (
            name,
            {full.partition(".")[2]: about for full, about in KEYS.items() if full.startswith(f"{name}.")},
        )


def to_toml(config: Config, redact: bool = True) -> str:
    """Give the effective configuration as TOML; a secret reads "(not shown)" unless `redact` is off."""
    lines: list[str] = []
    for section, keys in _by_section():
        lines.append(f"[{section}]")
        for key, about in keys.items():
            value = getattr(getattr(config, section), key)
            hidden = redact and about.secret and value != ""
            lines.append(f"{key} = {_toml('(not shown)' if hidden else value)}")
        lines.append("")
    return "\n".join(lines)


def reference() -> str:
    """Give a Markdown page about every key."""
    lines = [
        "# Configuration",
        "",
        "Made by `microedge config reference`. The device reads `/etc/microedge/config.toml`; every key may be left",
        "out. `microedge config check` names every mistake at once. `systemctl reload microedge` has a running device",
        "take what it can take at reload; a file with a mistake changes nothing, and the device says so.",
        "`--set section.key=value` overrides a key for one call of any command.",
    ]
    for section, keys in _by_section():
        lines += [
            "", f"## [{section}]", "", str(SECTIONS[section].__doc__), "",
            "| key | default | allowed | new value taken | meaning |", "|---|---|---|---|---|",
        ]  # fmt: skip
        for key, about in keys.items():
            name = f"{section}.{key}"
            # The host's own name must not get into a document.
            default = "from the host name" if name == "device.id" else f"`{_toml(_default(name))}`"
            allowed = about.limit or WORDS[about.kind]
            taken = "at reload" if is_taken_at_reload(name) else "at restart"
            lines.append(f"| `{name}` | {default} | {allowed} | {taken} | {about.doc} |")
    return "\n".join(lines) + "\n"


def example() -> str:
    """Give a configuration file with every key at its default, commented; it loads as it stands."""
    lines = ["# microedge configuration. Every key may be left out; the values below are the defaults.", ""]
    for section, keys in _by_section():
        lines += [f"# {SECTIONS[section].__doc__}", f"[{section}]"]
        for key, about in keys.items():
            name = f"{section}.{key}"
            lines.append(f"# {about.doc}" + (f" ({about.limit})" if about.limit else ""))
            lines.append('# id = "lab-03"' if name == "device.id" else f"{key} = {_toml(_default(name))}")
        lines.append("")
    return "\n".join(lines)


def _default(name: str) -> Any:
    section, _, key = name.partition(".")
    return getattr(SECTIONS[section](), key)
