"""Turns an event into the JSON object that leaves the device, and checks every object against its schema.

The schemas under `edge/schemas/` are the contract with subscribers. They are strict, so a field that is added
in code but not in the schema fails here, on the device, and not in somebody's dashboard.
"""

import hashlib
import json
import math
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from typing import Any

from jsonschema_rs import Draft202012Validator

from edge.emotions import table
from edge.errors import PublishError
from edge.out import Payload
from edge.records import EMOTIONS, Event

LIMITS = (
    "Micro-expressions are not a reliable guide to feelings: culture, individual differences and deliberate "
    "concealment change them, and context matters. An event says that a face moved briefly and what that "
    "movement resembles. It says nothing about deception or intent. In the EU, inferring emotions at work or "
    "in education is prohibited."
)
"""The statement of limits that the device publishes about itself."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class PayloadWriter:
    """Writes events as `microedge.event/1`. Used from one thread; `context` may be replaced from any."""

    def __init__(
        self,
        device_id: str,
        boot_id: str,
        start_time_ns: int,
        model_hashes: Mapping[str, str],
        *,
        report: str = "emotion",
        context: Mapping[str, Any] | None = None,
        clock_synchronised: Callable[[], bool] = lambda: False,
    ) -> None:
        """Fix what is the same for all events of a stream.

        Args:
            device_id: as in `device.id`.
            boot_id: differs from start to start of the same device.
            start_time_ns: UTC of media time 0, ns since 1970 (`FrameSource.start_time_ns`).
            model_hashes: SHA-256 in hexadecimal by the model's part ("landmark", "spotter").
            report: "movement" leaves emotion, confidence and probabilities out.
            context: "session", "note" and "tags", if the device was told.
            clock_synchronised: asked for each event.
        """
        self.context: Mapping[str, Any] = dict(context or {})
        """May be replaced between events."""
        self.start_time_ns = start_time_ns
        """Likewise, when the wall clock has been set."""
        self.report = report
        """Likewise."""
        self._device_id, self._boot_id = device_id, boot_id
        self._clock_synchronised = clock_synchronised
        self._model = {part: _tagged(digest) for part, digest in model_hashes.items()}
        # Compiled now, so that the first event does not hold up a frame.
        _validator("microedge.event/1")

    def write(self, event: Event, series: str, seq: int, replayed: bool = False) -> Payload:
        """Give the event as its schema describes it, numbered `seq` of `series` (`edge.store.outbox`).

        Raises:
            PublishError: naming the field, if the event breaks the contract.
        """
        spot, quality = event.spot, event.quality
        if not spot.onset_ns <= spot.apex_ns <= spot.offset_ns:
            order_ns = f"{spot.onset_ns}, {spot.apex_ns}, {spot.offset_ns}"
            raise PublishError(f"microedge.event/1: onset_s, apex_s, offset_s = {order_ns} ns: must not fall")
        onset_ns = self.start_time_ns + spot.onset_ns
        payload: Payload = {
            "schema": "microedge.event/1",
            "id": self._id(event, onset_ns),
            "device_id": self._device_id,
            "boot_id": self._boot_id,
            "series": series,
            "seq": seq,
            "time": utc(onset_ns),
            "clock_synchronised": self._clock_synchronised(),
            "replayed": replayed,
            "face_id": spot.face_id,
            "onset_s": round(spot.onset_ns / 1e9, 4),
            "apex_s": round(spot.apex_ns / 1e9, 4),
            "offset_s": round(spot.offset_ns / 1e9, 4),
            "duration_ms": round((spot.offset_ns - spot.onset_ns) / 1e6),
        }
        if self.report == "emotion" and event.emotion is not None:
            payload |= {
                "emotion": event.emotion,
                "confidence": _rounded(event.confidence, 3),
                "probabilities": _shares("probabilities", (*EMOTIONS, "other"), spot.probabilities),
            }
        payload |= {
            "action_units": [
                {"au": unit.au, "side": unit.side, "score": _rounded(unit.score, 3)}
                for unit in spot.action_units
            ],
            "regions": _shares("regions", ("eyes", "brows", "nose", "mouth"), spot.regions),
            "intensity_iod": _rounded(spot.intensity_iod, 4),
            "spot_score": _rounded(spot.score, 3),
            "quality": {
                "frame_rate_hz": _rounded(quality.frame_rate_hz, 1),
                "frames_dropped": int(quality.frames_dropped),
                "head_turn_deg_s": _rounded(quality.head_turn_deg_s, 1),
                "face_px": _rounded(quality.face_px, 0),
                "baseline_ready": bool(quality.baseline_ready),
                "noise_floor_iod": _rounded(quality.noise_floor_iod, 6),
            },
            "context": dict(self.context),
            "model": dict(self._model),
        }
        validate(payload)
        return payload

    def _id(self, event: Event, onset_ns: int) -> str:
        """Derive a UUID version 7 from what makes the event this one.

        Source: RFC 9562 section 5.7 (layout); the random bits are a digest here, so that writing the same
        event again gives the same id.
        """
        spot = event.spot
        named = (self._device_id, self._boot_id, spot.face_id, onset_ns, spot.onset_ns, spot.offset_ns)
        digest = hashlib.sha256(json.dumps(named).encode()).digest()
        milliseconds = (onset_ns // 1_000_000) & (2**48 - 1)
        bits = (milliseconds << 80) | int.from_bytes(digest[:10], "big")
        bits = bits & ~(0xF << 76) | (7 << 76)
        bits = bits & ~(0b11 << 62) | (0b10 << 62)
        return str(uuid.UUID(int=bits))


def health_payload(device_id: str, boot_id: str, time_ns: int, state: str, **figures: Any) -> Payload:
    """Give a checked `microedge.health/1`; `figures` are its other fields, those that are None are left out.

    Raises:
        PublishError: naming the field that is wrong.
    """
    head = {"schema": "microedge.health/1", "device_id": device_id, "boot_id": boot_id}
    known = {name: value for name, value in figures.items() if value is not None}
    return _checked({**head, "time": utc(time_ns), "state": state, **known})


def info_payload(
    device_id: str, boot_id: str, *, version: str, purpose: str, report: str, model_hashes: Mapping[str, str],
    topics: list[str], protocol: str = "", engine: str = "",
) -> Payload:  # fmt: skip
    """Give a checked `microedge.info/1` with the statement of limits; what is empty is left out.

    Raises:
        PublishError: naming the field that is wrong.
    """
    models = {part: _tagged(digest) for part, digest in model_hashes.items()}
    head = {"schema": "microedge.info/1", "device_id": device_id, "boot_id": boot_id, "version": version}
    return _checked(
        {
            **head,
            "purpose": purpose,
            "report": report,
            "emotion_table": table().version,
            "limits": LIMITS,
            "models": models,
            "topics": topics,
            **({"protocol": protocol} if protocol else {}),
            **({"engine": engine} if engine else {}),
        }
    )


def encode(payload: Payload) -> str:
    """Give a payload as it leaves the device and as it is kept: compact JSON.

    Raises:
        ValueError: a number is not finite.
    """
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def decode(text: str) -> Payload:
    """Give the payload that was encoded as `text`.

    Raises:
        ValueError: it is not a JSON object.
    """
    payload = json.loads(text)
    if not isinstance(payload, dict):
        raise ValueError(f"must be a JSON object, is {type(payload).__name__}")
    return payload


def validate(payload: Payload) -> None:
    """Check a payload against the schema that it names in its field `schema`.

    Raises:
        PublishError: naming the first field that is wrong, and why.
    """
    kind = str(payload.get("schema"))
    for path, number in _numbers(payload, ""):
        # NaN passes every comparison that a schema makes.
        if not math.isfinite(number):
            raise PublishError(f"{kind}: {path} = {number}: must be a finite number")
    try:
        errors = sorted(
            (_path(error.instance_path), error.message) for error in _validator(kind).iter_errors(payload)
        )
    except ValueError as error:
        raise PublishError(f"{kind}: holds what JSON cannot: {error}") from error
    for path, message in errors[:1]:
        raise PublishError(f"{kind}: {path}: {message}" if path else f"{kind}: {message}")


def utc(time_ns: int) -> str:
    """Give ns since 1970 as ISO 8601 in UTC, whole milliseconds, rounded down.

    Raises:
        PublishError: if it lies outside the years 1 to 9999.
    """
    try:
        moment = _EPOCH + timedelta(milliseconds=time_ns // 1_000_000)
    except OverflowError as error:
        raise PublishError(f"time = {time_ns} ns since 1970: is outside the years 1 to 9999") from error
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _checked(payload: Payload) -> Payload:
    validate(payload)
    return payload


def _rounded(value: float, digits: int) -> float:
    # float(): numpy scalars are not JSON.
    return round(float(value), digits)


def _shares(field: str, names: tuple[str, ...], shares: tuple[float, ...]) -> dict[str, float]:
    if len(shares) != len(names):
        raise PublishError(f"microedge.event/1: {field}: has {len(shares)} values, must be {len(names)}")
    return {name: _rounded(share, 3) for name, share in zip(names, shares, strict=True)}


def _tagged(digest: str) -> str:
    return digest if digest.startswith("sha256:") else f"sha256:{digest}"


def _numbers(value: Any, path: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, float):
        yield path, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _numbers(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _numbers(inner, f"{path}[{index}]")


@cache
def _validator(kind: str) -> Draft202012Validator:
    """Compile the schema `microedge.<name>/<version>` once."""
    name = kind.removeprefix("microedge.").replace("/", "-")
    known = resources.files("edge") / "schemas"
    if f"{name}.json" not in {file.name for file in known.iterdir()}:
        raise PublishError(f"schema = {kind}: is not one of those in edge/schemas")
    return Draft202012Validator(json.loads((known / f"{name}.json").read_text(encoding="utf-8")))


def _path(steps: Sequence[str | int]) -> str:
    """Give the way to a value: `quality.face_px`, `action_units[0].side`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")
