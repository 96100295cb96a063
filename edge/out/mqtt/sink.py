"""Publishes events over MQTT 5 or 3.1.1 from a thread of its own, for as long as it takes to get them through.

Decisions
- Every connection is a new client with a clean session. The outbox, not the client, remembers what is
  unconfirmed, and each connection needs a last will of its own.
- Availability is JSON, `{"state": "online", "session": 1795428902416}`: MQTT 3.1.1 has no user properties.
  `session` differs per connection: an `offline` counts only if its session is that of the last `online`.
  Should a late will overwrite the retained `online`, the device sees it and puts its own back.
- Events leave in order with a few on their way at once. After a broken connection they are sent again from
  the oldest unconfirmed one, marked `replayed`; a subscriber recognises a duplicate by its `id`.
- Brokers of a cluster are tried in turn. Only after a whole round does the device wait, longer each time.
"""

import logging
import random
import socket
import threading
import time
from collections.abc import Callable
from itertools import cycle

from edge.config import Mqtt
from edge.out import Payload
from edge.out.mqtt.board import Board
from edge.out.mqtt.client import INCOMING_LIMIT, Access
from edge.out.mqtt.commands import Answer, CommandDesk
from edge.out.mqtt.connection import CLOSE_TIMEOUT_S, Connection
from edge.out.mqtt.credentials import BrokerAddress, secrets, where
from edge.payload import encode
from edge.records import Event
from edge.store.outbox import Outbox

log = logging.getLogger(__name__)

STABLE_AFTER_S = 5.0
"""A connection that lasted this long was no failure; a shorter one lengthens the next wait."""
FLOODED_S = 600.0
"""Time for which no commands are taken after one that was too large to be let in; it may be a retained one."""


def device_topic(config: Mqtt, device_id: str) -> str:
    """Give the start of all topics of a device, without a slash at its end."""
    return f"{config.topic_prefix}/{device_id}"


def access(config: Mqtt, device_id: str, *, expire_h: int = 0) -> Access:
    """Give as whom the device connects, with its secrets and certificates read.

    Raises:
        ConfigError: for each file with a password, certificate or key that cannot be used, a line.
    """
    password, tls = secrets(config)
    return Access(
        protocol=config.protocol,
        client_id=f"{config.topic_prefix}-{device_id}",
        base=device_topic(config, device_id),
        keep_alive_s=config.keep_alive_s,
        username=config.username,
        password=password,
        tls=tls,
        has_certificate=bool(config.certificate_file),
        websocket_path=config.websocket_path if config.transport == "websockets" else "",
        check_echo=config.check_echo,
        expire_s=expire_h * 3600,
    )


class MqttSink:
    """An `EventSink` that delivers each event of the outbox at least once.

    Once constructed it does not raise: an absent broker is a state, to be read from `problem`.
    """

    def __init__(
        self,
        config: Mqtt,
        device_id: str,
        outbox: Outbox,
        *,
        desk: CommandDesk | None = None,
        expire_h: int = 0,
        backoff_s: tuple[float, float] = (0.5, 60.0),
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Start the network thread; returns before there is a connection.

        Args:
            config: the section `mqtt`.
            device_id: as in `device.id`.
            outbox: events are in there when `publish` is called; to be closed after this sink.
            desk: where commands go; None: the device takes none.
            expire_h: as `outbox.expire_h`.
            backoff_s: shortest and longest wait before a new round of attempts; it doubles from one to the other.
            clock_ns: UTC, ns since 1970; session numbers are made from it.

        Raises:
            ConfigError: for each file with a password, certificate or key that cannot be used, a line.
        """
        self._access = access(config, device_id, expire_h=expire_h)
        self._brokers = where(config)
        self._discovery = (
            f"{config.discovery_prefix}/device/{device_id}/config" if config.discovery_prefix else ""
        )
        self._outbox, self._desk = outbox, desk
        self._backoff_s, self._clock_ns = backoff_s, clock_ns
        self._board = Board()
        self._session = 0
        self._problem = "not connected yet"
        self._told: dict[BrokerAddress, str] = {}
        """What was last logged of each broker."""
        self._notes: set[str] = set()
        self._is_flapping = False
        self._flooded_s = float("-inf")
        # A byte in this pair ends the wait for the network, so that publish need not wait for anything.
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self._thread.start()

    @property
    def connected(self) -> bool:
        return not self._problem

    @property
    def problem(self) -> str:
        """Why nothing gets through, in words; empty while it does."""
        return self._problem

    @property
    def commands_problem(self) -> str:
        """Why no commands are taken now; empty while they are, or if the device takes none."""
        if self._desk is None or time.monotonic() - self._flooded_s >= FLOODED_S:
            return ""
        return f"commands are not taken for {FLOODED_S / 60:g} minutes: one was over {INCOMING_LIMIT} bytes"

    @property
    def topics(self) -> list[str]:
        """The topics that this sink publishes to of its own accord."""
        names = ["availability", "event", "health", "info"]
        return [f"{self._access.base}/{name}" for name in names] + (
            [self._discovery] if self._discovery else []
        )

    def publish(self, event: Event, payload: Payload) -> None:
        """Say that the outbox holds a new event; returns at once."""
        self._wake()

    def publish_health(self, payload: Payload) -> None:
        """Make the payload the retained health message; only the newest is sent."""
        self._put(f"{self._access.base}/health", payload)

    def publish_info(self, payload: Payload) -> None:
        """Make the payload the retained info message; it is sent again on every connection."""
        self._put(f"{self._access.base}/info", payload)

    def publish_discovery(self, payload: Payload) -> None:
        """Tell Home Assistant of the device, unless `mqtt.discovery_prefix` is empty; likewise."""
        if self._discovery:
            self._put(self._discovery, payload)

    def answer(self, answer: Answer) -> None:
        """Answer a command."""
        self._board.answer(answer, encode(answer.payload).encode())
        self._wake()

    def close(self) -> None:
        """Deliver what is left, say `offline` and disconnect within a few seconds. May be called again."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._wake()
        self._thread.join(CLOSE_TIMEOUT_S + 1.0)
        if waiting := self._outbox.counts().waiting:
            log.warning("mqtt: %d events are not delivered yet", waiting)
        if not self._thread.is_alive():
            self._wake_reader.close()
            self._wake_writer.close()

    def _put(self, topic: str, payload: Payload) -> None:
        self._board.put(topic, encode(payload).encode())
        self._wake()

    def _wake(self) -> None:
        try:
            self._wake_writer.send(b"\0")
        except OSError:
            # The pair is full, so the thread has been told already; or it is closed and nobody waits.
            return

    def _run(self) -> None:
        delay_s = self._backoff_s[0]
        for place, broker in cycle(list(enumerate(self._brokers, start=1))):
            lasted_s = self._serve(broker)
            if self._closing.is_set():
                return
            if lasted_s >= STABLE_AFTER_S:
                delay_s = self._backoff_s[0]
            is_round_over = place == len(self._brokers)
            # Half of the wait is chance, so that devices do not all return at once after a power cut.
            self._closing.wait((delay_s if is_round_over else self._backoff_s[0]) * random.uniform(0.5, 1.0))
            if is_round_over:
                delay_s = min(2 * delay_s, self._backoff_s[1])
            if self._closing.is_set() and not self._outbox.counts().waiting:
                return

    def _serve(self, broker: BrokerAddress) -> float:
        """Hold one connection until it ends; give how long it was of use, s."""
        self._session = max(self._session + 1, self._clock_ns() // 1_000_000)
        accepted_s: list[float] = []

        def accepted() -> None:
            accepted_s.append(time.monotonic())
            # While connections break soon after they were made, the last problem stands until one holds.
            if not self._is_flapping:
                self._clear(broker)

        def attend() -> None:
            if self._problem and accepted_s and time.monotonic() - accepted_s[0] >= STABLE_AFTER_S:
                self._clear(broker)

        connection = Connection(
            self._access, broker, self._session, self._outbox, self._board,
            None if self.commands_problem else self._desk,
            wake=self._wake_reader, closing=self._closing, accepted=accepted, noted=self._note_once, attend=attend,
        )  # fmt: skip
        problem = connection.serve() or "closed"
        if connection.is_flooded:
            self._flooded_s = time.monotonic()
        lasted_s = time.monotonic() - accepted_s[0] if accepted_s else 0.0
        self._is_flapping = bool(accepted_s) and lasted_s < STABLE_AFTER_S
        self._note(broker, problem)
        return lasted_s

    def _clear(self, broker: BrokerAddress) -> None:
        counts = self._outbox.counts()
        log.info(
            "mqtt: connected to %s; %d events waiting, %d lost so far", broker, counts.waiting, counts.lost
        )
        self._problem = ""
        self._told.clear()

    def _note(self, broker: BrokerAddress, problem: str) -> None:
        if problem != self._told.get(broker) and not self._closing.is_set():
            log.warning("mqtt: %s: %s; trying again", broker, problem)
        self._told[broker] = self._problem = problem

    def _note_once(self, problem: str) -> None:
        """Log what is wrong without keeping events from getting through."""
        if problem not in self._notes:
            self._notes.add(problem)
            log.warning("mqtt: %s", problem)
