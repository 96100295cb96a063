"""One connection to an MQTT broker, from CONNECT to its end. The only module that knows the client library.

Everything happens in the thread that calls `serve`, so the client needs no locks; other threads add to the
outbox or the status board and send one byte to `wake`.
"""

import contextlib
import json
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge.out import Payload
from edge.out.outbox import Outbox

UNCONFIRMED_LIMIT = 10
"""Messages on their way at once; mosquitto accepts 20 by default (`max_inflight_messages`)."""

CONNECT_TIMEOUT_S = 5.0
"""Time for the network connection, and again for the broker's answer."""

CLOSE_TIMEOUT_S = 2.0
"""Time to deliver what is left once the sink is being closed."""


def encode(payload: Payload) -> bytes:
    """Give the bytes of a message: compact JSON in UTF-8."""
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


class StatusBoard:
    """The newest retained messages by name, and which of them have not been sent. Any thread."""

    def __init__(self) -> None:
        self._newest: dict[str, bytes] = {}
        self._unsent: set[str] = set()
        self._lock = threading.Lock()

    def put(self, name: str, message: bytes) -> None:
        with self._lock:
            self._newest[name] = message
            self._unsent.add(name)

    def send_all_again(self) -> None:
        """Mark every message unsent, as a new connection needs it."""
        with self._lock:
            self._unsent.update(self._newest)

    def take(self) -> tuple[str, bytes] | None:
        """Give one message that was not sent and mark it sent; None if there is none."""
        with self._lock:
            if not self._unsent:
                return None
            name = min(self._unsent)
            self._unsent.remove(name)
            return name, self._newest[name]


@dataclass(frozen=True, slots=True)
class Address:
    """Where and as whom to connect."""

    host: str
    port: int
    protocol: str
    """"5" or "3.1.1"."""
    client_id: str
    base: str
    """Start of every topic, without a slash at its end."""
    keep_alive_s: int
    username: str
    password: str
    tls: ssl.SSLContext | None


class Connection:
    """Sends the retained status and the outbox's events over one connection until it breaks or is closed."""

    def __init__(
        self,
        address: Address,
        session: int,
        outbox: Outbox,
        board: StatusBoard,
        *,
        wake: socket.socket,
        closing: threading.Event,
        accepted: Callable[[], None],
    ) -> None:
        """Prepare, without any network traffic yet.

        Args:
            address: the broker.
            session: number that tells this connection's availability from that of every other one.
            outbox: where events wait; they are forgotten on confirmation.
            board: retained messages.
            wake: a non-blocking socket on which a byte arrives when there is something new.
            closing: set when the connection should deliver what is left and end.
            accepted: called once the broker has accepted the connection.
        """
        self._address, self._session, self._outbox, self._board = address, session, outbox, board
        self._wake, self._closing, self._on_accepted = wake, closing, accepted
        self._accepted = False
        self._problem = ""
        self._limit = UNCONFIRMED_LIMIT
        self._unconfirmed: dict[int, int | None] = {}
        """Index in the outbox by message id; None for a status message."""
        self._sent_to = -1
        self._live_from = 0
        self._offline_sent = False
        self._client = self._make_client()

    def serve(self) -> str:
        """Connect and work until the connection ends; give the reason, empty after a close in good order."""
        try:
            self._client.connect(self._address.host, self._address.port, self._address.keep_alive_s)
            return self._work()
        except Exception as error:
            # Beside OSError, the client raises whatever its parser trips over. Whatever a peer sends, the
            # thread that calls this has to live on and try again.
            return str(error) or type(error).__name__
        finally:
            self._drop()

    def _make_client(self) -> paho.Client:
        address = self._address
        five = address.protocol == "5"
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=address.client_id,
            clean_session=None if five else True,
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        if address.username:
            client.username_pw_set(address.username, address.password or None)
        if address.tls is not None:
            client.tls_set_context(address.tls)
        client.will_set(self._topic("availability"), self._availability("offline"), qos=1, retain=True)
        client.on_connect = self._handle_connect
        client.on_disconnect = self._handle_disconnect
        client.on_publish = self._handle_confirmation
        client.on_message = self._handle_message
        return client

    def _work(self) -> str:
        deadline = float("inf")
        answer_due = time.monotonic() + CONNECT_TIMEOUT_S
        while self._client.socket() is not None:
            if not self._accepted and time.monotonic() >= answer_due:
                # Some brokers meet a version that they do not know with silence.
                advice = f"is mqtt.protocol = {self._address.protocol} right?"
                return f"no answer within {CONNECT_TIMEOUT_S:g} s; {advice}"
            if self._closing.is_set():
                deadline = min(deadline, time.monotonic() + CLOSE_TIMEOUT_S)
                if time.monotonic() >= deadline:
                    # Leaving without DISCONNECT makes the broker publish the last will.
                    return f"not everything was confirmed within {CLOSE_TIMEOUT_S:g} s of closing"
            self._exchange(min(1.0, max(0.0, deadline - time.monotonic())))
            self._client.loop_misc()
            if self._accepted:
                self._send_status()
                self._send_events()
                if self._closing.is_set() and self._has_left():
                    return ""
        return self._problem or "connection lost"

    def _exchange(self, timeout_s: float) -> None:
        """Wait for the network or for `wake`, then read and write what is ready."""
        connection = self._client.socket()
        if connection is None:
            return
        # Bytes that TLS has already decrypted do not show in select.
        buffered = isinstance(connection, ssl.SSLSocket) and connection.pending() > 0
        writers = [connection] if self._client.want_write() else []
        readable, writable, _ = select.select(
            [connection, self._wake], writers, [], 0.0 if buffered else timeout_s
        )
        if self._wake in readable:
            with contextlib.suppress(BlockingIOError):
                self._wake.recv(4096)
        if writable:
            self._client.loop_write()
        if buffered or connection in readable:
            self._client.loop_read()

    def _has_left(self) -> bool:
        """Say `offline` once all is confirmed, and give whether that is confirmed too."""
        if self._unconfirmed or self._outbox.counts().waiting:
            return False
        if not self._offline_sent:
            self._offline_sent = True
            self._send("availability", self._availability("offline"), retain=True)
            return False
        self._client.disconnect()
        return True

    def _send(self, name: str, message: bytes, retain: bool = False, index: int | None = None) -> None:
        sent = self._client.publish(self._topic(name), message, qos=1, retain=retain)
        self._unconfirmed[sent.mid] = index

    def _send_status(self) -> None:
        while len(self._unconfirmed) < self._limit and (status := self._board.take()) is not None:
            self._send(*status, retain=True)

    def _send_events(self) -> None:
        for entry in self._outbox.peek(self._sent_to, self._limit - len(self._unconfirmed)):
            late = entry.index < self._live_from
            payload = {**entry.payload, "replayed": True} if late else entry.payload
            self._send("event", encode(payload), index=entry.index)
            self._sent_to = entry.index

    def _handle_connect(
        self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        if reason.is_failure:
            self._problem = f"refused: {reason}"
            return
        self._limit = min(self._limit, getattr(properties, "ReceiveMaximum", self._limit))
        self._live_from = self._outbox.next_index
        self._board.send_all_again()
        # In this order the subscription brings back the own `online`, not what was retained before.
        self._send("availability", self._availability("online"), retain=True)
        client.subscribe(self._topic("availability"), qos=1)
        self._accepted = True
        self._on_accepted()

    def _handle_disconnect(
        self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        if not self._problem and flags.is_disconnect_packet_from_server:
            self._problem = f"the broker closed the connection: {reason}"

    def _handle_confirmation(
        self, client: paho.Client, userdata: Any, mid: int, reason: Any, properties: Any
    ) -> None:
        index = self._unconfirmed.pop(mid, None)
        if index is not None:
            # An event that the broker refuses (no permission, over quota) would be refused for ever.
            (self._outbox.refuse if reason.is_failure else self._outbox.acknowledge)(index)

    def _handle_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        """Put the own availability back when the late will of an earlier connection has overwritten it."""
        try:
            seen = json.loads(message.payload)
            stale = seen["state"] == "offline" and seen["session"] != self._session
        except (ValueError, KeyError, TypeError):
            stale = True
        if stale and not self._offline_sent:
            self._send("availability", self._availability("online"), retain=True)

    def _availability(self, state: str) -> bytes:
        return encode({"state": state, "session": self._session})

    def _topic(self, name: str) -> str:
        return f"{self._address.base}/{name}"

    def _drop(self) -> None:
        connection = self._client.socket()
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()
