"""Takes commands from the network: refuses what may not be done, keeps the rest for the main thread, writes answers.

A command is a message below `<base>/command/`; `edge/schemas/command-1.json` says what may be in it and
`response-1.json` what is answered. Whoever may publish there may be hostile or broken, so

- no message makes this raise, wait or grow: size, depth, number of waiting commands and length of every answer are
  bounded (`edge.out.mqtt.command_fields` reads the message);
- an answer goes only where it cannot be taken for something else that a device says (`_topic_problem`).
"""

import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edge.out import Payload
from edge.out.mqtt.command_fields import ARGUMENTS, Code, RefusedError, check, parse, quoted, time_ns
from edge.payload import utc, validate

COMMANDS = tuple(ARGUMENTS)
"""The names of the commands."""
PAYLOAD_LIMIT = 8192
"""Longest message, bytes; the longest sensible context takes 3.7 KB."""
CORRELATION_LIMIT = 1024
"""Longest correlation data, bytes; it comes back in the answer."""
TOPIC_LIMIT = 256
"""Longest response topic, bytes of UTF-8."""
REMEMBERED_IDS = 256
CAPACITY = 16
"""Commands that wait; the main thread takes them several times a second."""
MESSAGE_LIMIT = 300
"""Longest error message in an answer, characters."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")


@dataclass(frozen=True, slots=True)
class Received:
    """A message as the connection hands it over."""

    name: str
    """What follows `<base>/command/` in its topic."""
    payload: bytes
    is_retained: bool
    response_topic: str = ""
    """MQTT 5; empty: none."""
    correlation: bytes = b""
    """MQTT 5; empty: none."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is to be published about a command."""

    topic: str
    payload: Payload
    """A checked `microedge.response/1`."""
    correlation: bytes = b""


@dataclass(frozen=True, slots=True)
class Command:
    """A command that was accepted."""

    name: str
    arguments: Mapping[str, Any]
    """Those of the schema without schema, id and expires; only what was given and is neither null nor empty."""
    id: str
    """The sender's; empty: none."""
    received: Received


@dataclass(frozen=True, slots=True)
class CommandCounts:
    """What became of the commands so far."""

    accepted: int
    refused: Mapping[str, int]
    """By code; only codes that occurred."""


def command_topics(base: str) -> list[str]:
    """Give the topics of the commands and of their answers below `base`, as `info` lists them."""
    return [f"{base}/{kind}/{name}" for kind in ("command", "response") for name in ARGUMENTS]


class CommandDesk:
    """Stands between the network thread (`take`) and the main thread (`next`, `done`, `failed`)."""

    def __init__(
        self,
        base: str,
        device_id: str,
        *,
        discovery_prefix: str = "",
        clock_ns: Callable[[], int] = time.time_ns,
        capacity: int = CAPACITY,
    ) -> None:
        """Open the desk.

        Args:
            base: start of the device's topics, `<mqtt.topic_prefix>/<device.id>`.
            device_id: as in `device.id`.
            discovery_prefix: as `mqtt.discovery_prefix`; no answer goes below it.
            clock_ns: UTC, ns since 1970; decides on `expires` and dates the answers.
            capacity: commands that may wait.
        """
        self._base, self._device_id, self._clock_ns, self._capacity = base, device_id, clock_ns, capacity
        self._prefix = base.removesuffix(f"/{device_id}")
        self._discovery_prefix = discovery_prefix
        self._lock = threading.Lock()
        self._waiting: deque[Command] = deque()
        self._ids: deque[str] = deque(maxlen=REMEMBERED_IDS)
        self._retained: set[str] = set()
        """Commands of which the broker holds a retained one; the network thread's own."""
        self._accepted = 0
        self._refused: Counter[str] = Counter()

    def take(self, received: Received) -> Answer | None:
        """Accept a command, or give the refusal to send. Never raises, whatever has arrived."""
        try:
            self._keep(self._read(received))
        except RefusedError as refusal:
            with self._lock:
                self._refused[refusal.code] += 1
            return self._failure(received, refusal.command_id, refusal.code, str(refusal))
        return None

    def next(self) -> Command | None:
        """Give the oldest command that waits; None if there is none."""
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def done(self, command: Command, result: Mapping[str, Any]) -> Answer:
        """Give the answer to a command that was carried out.

        Raises:
            PublishError: if `result` is not as response-1.json describes it.
        """
        return self._answer(command.received, command.id, {"ok": True, "result": dict(result)})

    def failed(self, command: Command, problem: str) -> Answer:
        """Give the answer to a command that could not be carried out, and why."""
        return self._failure(command.received, command.id, Code.FAILED, problem or "no reason is known")

    def counts(self) -> CommandCounts:
        with self._lock:
            return CommandCounts(self._accepted, dict(self._refused))

    def _read(self, received: Received) -> Command:
        name = received.name
        if name not in ARGUMENTS:
            known = ", ".join(ARGUMENTS)
            raise RefusedError(Code.UNKNOWN, f"command {quoted(name)}: is unknown, must be one of {known}")
        if problem := self._topic_problem(received.response_topic):
            shown = quoted(received.response_topic)
            raise RefusedError(Code.RESPONSE_TOPIC, f"response topic {shown}: {problem}")
        self._refuse_retained(received)
        for what, data, limit in (
            ("payload", received.payload, PAYLOAD_LIMIT),
            ("correlation data", received.correlation, CORRELATION_LIMIT),
        ):
            if len(data) > limit:
                raise RefusedError(Code.OVERSIZED, f"{what} = {len(data)} bytes: limit is {limit} bytes")
        fields = parse(received.payload)
        check(name, fields, self._device_id)
        fields.pop("schema", None)
        command_id, expires = fields.pop("id", ""), fields.pop("expires", None)
        now_ns = self._clock_ns()
        if expires is not None and time_ns(expires) <= now_ns:
            late = f"expires = {expires}: is not after this device's time, {utc(now_ns)}"
            raise RefusedError(Code.EXPIRED, late, command_id)
        arguments = {key: value for key, value in fields.items() if value not in (None, "", [])}
        return Command(name, arguments, command_id, received)

    def _refuse_retained(self, received: Received) -> None:
        """Refuse a retained command, and then the empty message that clears its topic.

        A broker may pass that message on like any other, and by itself it would be the command once more.
        """
        if received.is_retained:
            (self._retained.add if received.payload else self._retained.discard)(received.name)
            again = "retained: such a command would be done again at each connection"
            raise RefusedError(Code.RETAINED, f"{again}; send it without retain, and clear its topic")
        if not received.payload and received.name in self._retained:
            self._retained.discard(received.name)
            raise RefusedError(
                Code.RETAINED,
                "empty: taken for the end of the retained command, and not done; send {} for it to be done",
            )

    def _keep(self, command: Command) -> None:
        with self._lock:
            if command.id and command.id in self._ids:
                raise RefusedError(
                    Code.REPEATED,
                    f"id = {quoted(command.id)}: was accepted before; the last {REMEMBERED_IDS} are remembered",
                    command.id,
                )
            if len(self._waiting) >= self._capacity:
                full = f"{len(self._waiting)} commands are waiting: limit is {self._capacity}"
                raise RefusedError(Code.BUSY, full, command.id)
            self._waiting.append(command)
            self._accepted += 1
            if command.id:
                self._ids.append(command.id)

    def _topic_problem(self, topic: str) -> str:
        """Say why answers must not go to `topic`; empty if they may, or if it is empty.

        Who may only send commands would otherwise have the device publish among its own topics, or among those of
        another device, where an answer passes for an event, a state or a command. Dots count as slashes, because
        brokers that keep topics as AMQP routing keys take them for the same.
        """
        if not topic:
            return ""
        # A surrogate that stands alone is no UTF-8; it is found to be unprintable below.
        if (length := len(topic.encode("utf-8", "surrogatepass"))) > TOPIC_LIMIT:
            return f"has {length} bytes, limit is {TOPIC_LIMIT}"
        if not topic.isprintable() or "+" in topic or "#" in topic or topic.startswith("$"):
            return "must be printable text without + and #, and not begin with $"
        answers = f"{self._base}/response/"
        if _is_below(topic, self._prefix) and not topic.startswith(answers):
            return (
                f"is among the devices' own topics, of which only those below {quoted(answers)} may be used"
            )
        if self._discovery_prefix and _is_below(topic, self._discovery_prefix):
            return "is where devices are discovered, and an answer is no device"
        return ""

    def _failure(self, received: Received, command_id: str, code: Code, message: str) -> Answer:
        message = message.encode("ascii", "backslashreplace").decode()
        message = "".join(character if character.isprintable() else " " for character in message)
        if len(message) > MESSAGE_LIMIT:
            message = f"{message[: MESSAGE_LIMIT - 3]}..."
        error = {"code": str(code), "message": message}
        return self._answer(received, command_id, {"ok": False, "error": error})

    def _answer(self, received: Received, command_id: str, outcome: Payload) -> Answer:
        name = received.name if _NAME.fullmatch(received.name) else "unknown"
        topic = received.response_topic
        if not topic or self._topic_problem(topic):
            topic = f"{self._base}/response/{name}"
        payload = {
            "schema": "microedge.response/1",
            "device_id": self._device_id,
            "time": utc(self._clock_ns()),
            "command": name,
            **({"id": command_id} if command_id else {}),
            **outcome,
        }
        if outcome["ok"]:
            # A refusal is right by construction, which tests prove: thousands a second must not cost a check each.
            validate(payload)
        # Part of it would be no use: it tells the sender's requests apart.
        correlation = received.correlation if len(received.correlation) <= CORRELATION_LIMIT else b""
        return Answer(topic, payload, correlation)


def _is_below(topic: str, prefix: str) -> bool:
    """Tell whether a topic is `prefix` or lies below it, dots taken for slashes."""
    levels, start = topic.replace(".", "/"), prefix.replace(".", "/")
    return levels == start or levels.startswith(f"{start}/")
