"""Publishes events over MQTT 5 or 3.1.1 from a thread of its own, and keeps them while the broker is away.

Decisions
- Every connection is a new client with a clean session. The outbox, not the client, remembers what is
  unconfirmed, and each connection needs a last will of its own.
- Availability is JSON, `{"state": "online", "session": 1795428902416}`: MQTT 3.1.1 has no user properties.
  `session` differs per connection: an `offline` counts only if its session is that of the last `online`.
  Should a late will overwrite the retained `online`, the device sees it and puts its own back.
- Events leave in order with a few on their way at once. After a broken connection they are sent again from
  the oldest unconfirmed one, marked `replayed`; a subscriber recognises a duplicate by its `id`.
"""

import logging
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

from edge.config import Mqtt
from edge.errors import ConfigError
from edge.out import Payload
from edge.out.mqtt_connection import CLOSE_TIMEOUT_S, Address, Connection, StatusBoard, encode
from edge.out.outbox import Counts, Outbox
from edge.records import Event

log = logging.getLogger(__name__)

STABLE_AFTER_S = 5.0
"""A connection that lasted this long was no failure; a shorter one lengthens the next wait."""


class MqttSink:
    """An `EventSink` that delivers each event at least once, as long as the outbox has room.

    Once constructed it does not raise: an absent broker is a state, to be read from `problem` and `counts`.
    """

    def __init__(
        self,
        config: Mqtt,
        device_id: str,
        *,
        backoff_s: tuple[float, float] = (0.5, 60.0),
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Start the network thread; returns before there is a connection.

        Args:
            config: the section `mqtt`.
            device_id: as in `device.id`.
            backoff_s: shortest and longest wait before a new attempt; it doubles from one to the other.
            clock_ns: UTC, ns since 1970; session numbers are made from it.

        Raises:
            ConfigError: if `mqtt.password_file` or `mqtt.ca_file` cannot be used.
        """
        self._address = Address(
            host=config.host,
            port=config.port,
            protocol=config.protocol,
            client_id=f"{config.topic_prefix}-{device_id}",
            base=f"{config.topic_prefix}/{device_id}",
            keep_alive_s=config.keep_alive_s,
            username=config.username,
            password=_read_password(config),
            tls=_tls_context(config),
        )
        self._capacity = config.queue_events
        self._backoff_s, self._clock_ns = backoff_s, clock_ns
        self._outbox = Outbox(config.queue_events)
        self._board = StatusBoard()
        self._session = 0
        self._problem = "not connected yet"
        self._lost_seen = 0
        self._losing = False
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
        """Why there is no connection, in words; empty while there is one."""
        return self._problem

    @property
    def topics(self) -> list[str]:
        """The topics that this sink publishes to."""
        return [f"{self._address.base}/{name}" for name in ("availability", "event", "health", "info")]

    def counts(self) -> Counts:
        """What became of the events so far."""
        return self._outbox.counts()

    def publish(self, event: Event, payload: Payload) -> None:
        """Keep the payload for delivery and return at once; the oldest is lost if there is no room."""
        self._outbox.append(payload)
        lost = self._outbox.counts().lost
        losing = lost > self._lost_seen
        if losing and not self._losing:
            log.warning(
                "mqtt.queue_events = %d events are waiting: the oldest are being lost", self._capacity
            )
        self._lost_seen, self._losing = lost, losing
        self._wake()

    def publish_health(self, payload: Payload) -> None:
        """Make the payload the retained health message; only the newest is sent."""
        self._board.put("health", encode(payload))
        self._wake()

    def publish_info(self, payload: Payload) -> None:
        """Make the payload the retained info message; it is sent again on every connection."""
        self._board.put("info", encode(payload))
        self._wake()

    def close(self) -> None:
        """Deliver what is left, say `offline` and disconnect within a few seconds; log what was lost."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._wake()
        self._thread.join(CLOSE_TIMEOUT_S + 1.0)
        if waiting := self._outbox.counts().waiting:
            log.warning("mqtt: %d events were not delivered and are lost", waiting)
        if not self._thread.is_alive():
            self._wake_reader.close()
            self._wake_writer.close()

    def _wake(self) -> None:
        try:
            self._wake_writer.send(b"\0")
        except OSError:
            # The pair is full, so the thread has been told already; or it is closed and nobody waits.
            return

    def _run(self) -> None:
        delay_s = self._backoff_s[0]
        while True:
            began_s = time.monotonic()
            self._session = max(self._session + 1, self._clock_ns() // 1_000_000)
            connection = Connection(
                self._address, self._session, self._outbox, self._board,
                wake=self._wake_reader, closing=self._closing, accepted=self._accepted,
            )  # fmt: skip
            self._note(connection.serve() or "closed")
            if self._closing.is_set():
                return
            if time.monotonic() - began_s >= STABLE_AFTER_S:
                delay_s = self._backoff_s[0]
            # Half of the wait is chance, so that devices do not all return at once after a power cut.
            self._closing.wait(delay_s * random.uniform(0.5, 1.0))
            delay_s = min(2 * delay_s, self._backoff_s[1])
            if self._closing.is_set() and not self._outbox.counts().waiting:
                return

    def _accepted(self) -> None:
        counts = self._outbox.counts()
        where = f"{self._address.host}:{self._address.port}"
        log.info(
            "mqtt: connected to %s; %d events waiting, %d lost so far", where, counts.waiting, counts.lost
        )
        self._problem = ""

    def _note(self, problem: str) -> None:
        if problem != self._problem and not self._closing.is_set():
            log.warning("mqtt: %s:%d: %s; trying again", self._address.host, self._address.port, problem)
        self._problem = problem


def _read_password(config: Mqtt) -> str:
    if not config.password_file:
        return ""
    try:
        password = Path(config.password_file).read_text(encoding="utf-8").partition("\n")[0].strip("\r")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise ConfigError(
            f'mqtt.password_file = "{config.password_file}": cannot be read: {reason}'
        ) from error
    if not password:
        raise ConfigError(f'mqtt.password_file = "{config.password_file}": its first line is empty')
    return password


def _tls_context(config: Mqtt) -> ssl.SSLContext | None:
    if not config.tls:
        return None
    try:
        return ssl.create_default_context(cafile=config.ca_file or None)
    except OSError as error:
        reason = error.strerror or "holds no certificate"
        raise ConfigError(f'mqtt.ca_file = "{config.ca_file}": cannot be used: {reason}') from error
