"""Every configuration key, declared once: its default, unit, limits and one sentence about it.

Checking, `config show`, the reference table and the commented example all derive from these declarations
(`edge.config`). No secret is ever a key: the MQTT password and the private key lie in files that
`mqtt.password_file` and `mqtt.key_file` name, so that a configuration can be shown, backed up and put under
version control.
"""

import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TypeVar, cast

T = TypeVar("T")
N = TypeVar("N", int, float)


@dataclass(frozen=True, slots=True)
class Key:
    """What is known about one configuration key."""

    doc: str
    kind: type
    """bool, int, float, str, or tuple for a list of texts."""
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] | tuple[int, ...] = ()
    most: int = 0
    """Of a list: how many texts it may hold."""
    pattern: str = ""
    """Regular expression that the whole text, or each text of a list, must match; empty: any printable text."""
    rule: str = ""
    """The pattern in words."""
    secret: bool = False
    """Not shown by `config show` nor in an error."""

    @property
    def limit(self) -> str:
        """The allowed values in words; empty where the type alone decides."""
        if self.choices:
            return "one of " + ", ".join(map(str, self.choices)) + (f" {self.unit}" if self.unit else "")
        if self.low is not None:
            return f"{self.low:.9g}..{self.high:.9g}" + (f" {self.unit}" if self.unit else "")
        if self.most:
            return f"up to {self.most}, each {self.rule}"
        return self.rule


def _key(default: T, about: Key, make: Callable[[], T] | None = None) -> T:
    """Declare a field; typed as its value, as `dataclasses.field` is, so that sections read naturally."""
    if make is not None:
        return field(default_factory=make, metadata={"key": about})
    return field(default=default, metadata={"key": about})


def _number(default: N, low: float, high: float, unit: str, doc: str) -> N:
    return _key(default, Key(doc, type(default), unit=unit, low=low, high=high))


def _switch(default: bool, doc: str) -> bool:
    return _key(default, Key(doc, bool))


def _choice(choices: tuple[str, ...], doc: str) -> str:
    """Declare a key with the first of `choices` as its default."""
    return _key(choices[0], Key(doc, str, choices=choices))


def _one_of(choices: tuple[int, ...], unit: str, doc: str) -> int:
    """Declare a number that is one of a few, the first of them by default."""
    return _key(choices[0], Key(doc, int, unit=unit, choices=choices))


def _text(default: str, doc: str, pattern: str = "", rule: str = "", secret: bool = False) -> str:
    return _key(default, Key(doc, str, pattern=pattern, rule=rule, secret=secret))


def _texts(most: int, doc: str, pattern: str, rule: str) -> tuple[str, ...]:
    """Declare a list of texts that is empty by default."""
    return _key((), Key(doc, tuple, most=most, pattern=pattern, rule=rule))


def _host_id() -> str:
    """Derive a device id from the host name: its first label, with other characters turned into dashes."""
    label = socket.gethostname().split(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", label).strip("-")[:64] or "microedge"


# Home Assistant's discovery allows these characters in an id, which is narrower than an MQTT topic level.
_ID = Key(
    "Name of this device in topics and events; by default made from the host name.",
    str,
    pattern=r"[A-Za-z0-9_-]{1,64}",
    rule="1..64 letters, digits, _ or -",
)
_TOPIC = (r"(?!\$)[^+#/\s]+(/[^+#/\s]+)*", "topic levels joined by /, without +, #, spaces or a leading $")
_NAME = r"\w[\w.-]{0,252}"
_IPV6 = r"[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(%[\w.-]+)?"
_PORT = r"([1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d{2}|655[0-2]\d|6553[0-5])"
_HOST = (rf"{_NAME}|{_IPV6}|\[{_IPV6}\]", "a host name or address, without mqtt:// and without a port")
_HOST_AND_PORT = (rf"({_NAME}|\[{_IPV6}\])(:{_PORT})?", "NAME or NAME:PORT, an IPv6 address in brackets")


@dataclass(frozen=True, slots=True)
class Device:
    """Who this device is, what it is for, and how much it says."""

    id: str = _key("", _ID, make=_host_id)
    purpose: str = _text(
        "unspecified", "What it is used for; published in `info`.", ".{1,200}", "1..200 characters"
    )
    report: str = _choice(("emotion", "movement"), "`movement` leaves emotion words out.")


@dataclass(frozen=True, slots=True)
class Camera:
    """Where frames come from and how many of them."""

    source: str = _choice(("picamera2", "webcam", "synthetic"), "Which camera `run` opens.")
    device: str = _text("/dev/video0", "Device node of the webcam.", ".+", "a device node")
    width: int = _number(640, 64, 8192, "px", "Frame width.")
    height: int = _number(480, 64, 8192, "px", "Frame height.")
    rate_hz: float = _number(200.0, 10, 400, "Hz", "Frame rate to ask for; the real one is measured.")
    number: int = _number(0, 0, 9, "", "Which camera of picamera2, as `rpicam-hello --list-cameras` counts.")
    field_of_view: str = _choice(
        ("wide", "narrow"),
        "Of the sensor modes that are fast enough the one that sees most, or that shows a far face largest.",
    )
    mains_hz: int = _one_of(
        (50, 60, 0), "Hz", "Mains that the lamps run on; 0: daylight, or lamps without flicker."
    )
    exposure_us: int = _number(
        0,
        0,
        100_000,
        "us",
        "Exposure time; 0: found at the start, then locked, and anew if the light has changed.",
    )
    gain: float = _number(
        0.0, 0, 64, "", "Analogue gain of the sensor; 0: found and locked as the exposure is."
    )
    queue_frames: int = _number(32, 2, 1000, "frames", "Frames that may wait; then the oldest is dropped.")


@dataclass(frozen=True, slots=True)
class Face:
    """Finding and following the face."""

    detect_period_s: float = _number(0.5, 0.05, 60, "s", "Time between detections while no face is tracked.")
    landmark_period_ms: int = _number(30, 5, 500, "ms", "Time between landmark passes on a tracked face.")
    min_face_px: int = _number(40, 16, 2000, "px", "Smallest face that is followed.")
    lost_after: int = _number(2, 1, 100, "passes", "Landmark passes in a row without a face that lose it.")
    presence_min: float = _number(0.5, 0, 1, "", "Confidence below which a landmark pass has seen no face.")


@dataclass(frozen=True, slots=True)
class Motion:
    """Measuring facial motion."""

    anchor_period_ms: int = _number(
        500, 100, 5000, "ms", "Time between frames that motion is measured against."
    )
    dark_luma: float = _number(
        12.0, 0, 255, "", "Mean luma of the face below which it is too dark to assess."
    )
    turn_limit_deg_s: float = _number(
        60.0, 1, 1000, "deg/s", "Head rotation above which time is not assessable."
    )


@dataclass(frozen=True, slots=True)
class Spot:
    """Spotting intervals."""

    # 23 simulated minutes of validation people: F1 0.73 and 9 false alarms at 0.5, 0.69, 5 at 0.8, 0.66, 4 at 0.9.
    threshold: float = _number(0.8, 0, 1, "", "Evidence that a spot needs; a higher one gives fewer events.")
    hop_ms: int = _number(20, 5, 60, "ms", "Time between two runs of the spotter.")


@dataclass(frozen=True, slots=True)
class Baseline:
    """What is learnt of a person at rest, and how far an event must stand out of it."""

    seconds: float = _number(5.0, 1, 60, "s", "Calm time from which the first baseline is taken.")
    # Over 14 rendered clips and 11 real ones half of random resting intervals stayed below 2.5, every true event
    # above 5.6 (3.0 on a face with ten times the usual noise).
    noise_factor: float = _number(
        2.5, 0, 20, "", "Displacement that an event needs, in multiples of the region's noise; 0: any."
    )


@dataclass(frozen=True, slots=True)
class Event:
    """Which spots become events."""

    min_duration_ms: int = _number(40, 20, 500, "ms", "Shortest event.")
    max_duration_ms: int = _number(200, 40, 500, "ms", "Longest event.")
    # Of 203 true events of 0.4-2.5 % IOD the largest measured 3.2 %; half-closed single eyes measured 5 % and more.
    max_intensity_iod: float = _number(0.04, 0.005, 1, "IOD", "Largest movement of an event.")
    merge_gap_ms: int = _number(30, 0, 500, "ms", "Spots closer than this become one.")
    uncertain_below: float = _number(0.4, 0, 1, "", "Confidence below which the emotion is `uncertain`.")


@dataclass(frozen=True, slots=True)
class Inference:
    """What runs the models."""

    accelerator: str = _choice(
        ("auto", "edgetpu", "cpu"), "`auto`: a Coral if there is one; `edgetpu` insists."
    )
    device: str = _text(
        "", "Which Coral; empty: the first, `usb`, `pci`, `:1` the second, `usb:0`.",
        r"(usb|pci)?(:\d{1,2})?", "usb, pci, :N, usb:N or pci:N",
    )  # fmt: skip
    # So that a call that meets a fault, deadline and CPU together, fits one frame period of 200 Hz.
    deadline_ms: float = _number(
        3.0, 0.5, 1000, "ms", "Time in which the accelerator must answer; then the CPU does."
    )
    threads: int = _number(1, 1, 4, "threads", "CPU threads per model.")
    models: str = _text("", "Folder of models and manifest; empty: those that came with the program.")


@dataclass(frozen=True, slots=True)
class Outbox:
    """Events on their way: each is on the disk before it is published, and waits there for an absent broker."""

    folder: str = _text(
        "", "Where events.db lies; empty: the service's state folder, or the user's own outside of a service."
    )
    max_events: int = _number(
        100_000, 1, 10_000_000, "events", "Most that may wait; then the oldest is lost, and counted."
    )
    max_mb: int = _number(64, 1, 100_000, "MB", "Most that waiting events may take; then as above.")
    expire_h: int = _number(
        0, 0, 87_600, "h", "Age at which a waiting event is given up, and counted as lost; 0: never."
    )


@dataclass(frozen=True, slots=True)
class History:
    """Events that were delivered and stay on this device, for `microedge events`."""

    days: int = _number(
        7, 0, 3650, "days", "How long they stay; 0: each is deleted once the broker confirms it."
    )
    max_mb: int = _number(64, 1, 100_000, "MB", "Most that they may take; then the oldest is deleted.")


@dataclass(frozen=True, slots=True)
class Mqtt:
    """The broker, and how to get in."""

    enabled: bool = _switch(True, "Publish events over MQTT.")
    host: str = _text("localhost", "Broker's name or address.", *_HOST)
    port: int = _number(1883, 1, 65535, "", "Broker's port; with TLS it is mostly 8883.")
    alternates: tuple[str, ...] = _texts(
        8,
        "Further brokers of the same cluster, tried in turn; without a port that of `mqtt.port`.",
        *_HOST_AND_PORT,
    )
    protocol: str = _choice(("5", "3.1.1"), "MQTT version.")
    transport: str = _choice(("tcp", "websockets"), "What MQTT is carried by.")
    websocket_path: str = _text(
        "/mqtt", "Path that the broker serves WebSockets at.", r"/[^\s?#]{0,199}",
        "a path that starts with /, without spaces, ? or #",
    )  # fmt: skip
    username: str = _text("", "User name at the broker; empty: none.", secret=True)
    password_file: str = _text(
        "", "File whose first line is the password, or the name of a systemd credential; empty: none."
    )
    topic_prefix: str = _text("microedge", "First level or levels of every topic.", *_TOPIC)
    discovery_prefix: str = _text(
        "homeassistant", "Where Home Assistant looks for new devices; empty: it is told nothing.",
        f"({_TOPIC[0]})?", _TOPIC[1],
    )  # fmt: skip
    keep_alive_s: int = _number(
        30, 5, 3600, "s", "Longest silence; after 1.5 times it the broker sends the will."
    )
    check_echo: bool = _switch(
        True, "Take a message for delivered only once the broker has shown that it passes messages on."
    )
    tls: bool = _switch(False, "Encrypt the connection and check the broker's certificate.")
    ca_file: str = _text("", "Certificate authority of the broker, PEM; empty: those of the system.")
    check_hostname: bool = _switch(
        True,
        "Whether the broker's certificate must be made out to `mqtt.host`; it is checked otherwise either way.",
    )
    certificate_file: str = _text("", "Certificate that this device shows to the broker, PEM; empty: none.")
    key_file: str = _text(
        "", "Private key of that certificate, PEM without a pass phrase, or the name of a systemd credential."
    )


@dataclass(frozen=True, slots=True)
class Leds:
    """The three LEDs, by BCM pin number."""

    enabled: bool = _switch(True, "Drive the LEDs.")
    # The capture LED tells people that frames are read, so it alone cannot be declared absent.
    capture_pin: int = _number(17, 0, 27, "BCM pin", "LED that is lit exactly while frames are read.")
    red_pin: int = _number(22, -1, 27, "BCM pin", "Red of the event LED; -1: absent.")
    green_pin: int = _number(27, -1, 27, "BCM pin", "Green of the event LED; -1: absent.")
    blue_pin: int = _number(23, -1, 27, "BCM pin", "Blue of the event LED; -1: absent.")
    fault_pin: int = _number(24, -1, 27, "BCM pin", "Fault LED; -1: absent.")
    active_high: bool = _switch(
        True, "Capture and fault LED are lit while their pins are high; false: wired to 3.3 V, lit while low."
    )
    common_anode: bool = _switch(
        False, "The event LED's colours share the 3.3 V side, so that a colour is lit while its pin is low."
    )
    # A dot is a ninth of it: people count flashes up to about five a second, and 600 ms would be seven and a half.
    pulse_ms: int = _number(1000, 100, 5000, "ms", "How long the event LED shows one event.")


@dataclass(frozen=True, slots=True)
class Switches:
    """What people operate, by BCM pin number; each lies between its pin and ground."""

    privacy_pin: int = _number(-1, -1, 27, "BCM pin", "Latching switch that closes the camera; -1: absent.")
    privacy_contact: str = _choice(
        ("normally_open", "normally_closed"),
        "Whether a closed contact asks for privacy, or an open one, so that a broken wire does too.",
    )
    identify_pin: int = _number(
        -1, -1, 27, "BCM pin", "Push button that makes the device blink and log, to be found; -1: absent."
    )


@dataclass(frozen=True, slots=True)
class Log:
    """What is logged."""

    level: str = _choice(("info", "debug", "warning", "error"), "Least severe message that is logged.")


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration; `Config()` is sound without a file."""

    device: Device = field(default_factory=Device)
    camera: Camera = field(default_factory=Camera)
    face: Face = field(default_factory=Face)
    motion: Motion = field(default_factory=Motion)
    spot: Spot = field(default_factory=Spot)
    baseline: Baseline = field(default_factory=Baseline)
    event: Event = field(default_factory=Event)
    inference: Inference = field(default_factory=Inference)
    outbox: Outbox = field(default_factory=Outbox)
    history: History = field(default_factory=History)
    mqtt: Mqtt = field(default_factory=Mqtt)
    leds: Leds = field(default_factory=Leds)
    switches: Switches = field(default_factory=Switches)
    log: Log = field(default_factory=Log)


SECTIONS: dict[str, type] = {section.name: cast(type, section.type) for section in fields(Config)}
"""The sections by name, in the order of the file."""

KEYS: dict[str, Key] = {
    f"{name}.{item.name}": item.metadata["key"]
    for name, section in SECTIONS.items()
    for item in fields(section)
}
"""Every key by its full name, in the order of the file."""

_TAKEN_AT_RELOAD = {
    "device.purpose", "device.report", "outbox.max_events", "outbox.max_mb",
    *(name for name in KEYS if name.startswith(("camera.", "face.", "motion.", "spot.", "baseline.", "event."))),
    *(name for name in KEYS if name.startswith(("history.", "log."))),
} - {"camera.queue_frames", "camera.source"}  # fmt: skip


def is_taken_at_reload(name: str) -> bool:
    """Tell whether a running device takes a new value of the key `name` (`edge.reload`), or only a new start does."""
    return name in _TAKEN_AT_RELOAD
