"""One connection to an MQTT broker, from CONNECT to its end. The only module that knows the client library.

Everything happens in the thread that calls `serve`, so the client needs no locks; other threads add to the
outbox or the board and send one byte to `wake`.

A broker may confirm what it then throws away: mosquitto and NATS do so, over MQTT 3.1.1, with a message that the
user has no permission for. So the device looks for an echo (`mqtt.check_echo`): its own `online` must come back
before any event leaves, and the first event of a connection counts as delivered only once it has come back too.
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
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge.out import Payload
from edge.out.board import Board
from edge.out.commands import CommandDesk, Received
from edge.out.credentials import BrokerAddress
from edge.out.diagnosis import why_no_answer, why_no_connection, why_refused
from edge.out.ledger import Entry
from edge.out.outbox import Outbox
from edge.payload import encode

UNCONFIRMED_LIMIT = 10
"""Messages on their way at once; mosquitto accepts 20 by default (`max_inflight_messages`)."""

CONNECT_TIMEOUT_S = 5.0
"""Time for the network connection, and again for the broker's answer."""

CONFIRM_TIMEOUT_S = 20.0
"""Time for a confirmation; a cluster that loses a node takes up to 10 s to confirm again."""

ECHO_TIMEOUT_S = 5.0
"""Time for a message that the broker has confirmed to come back."""

CLOSE_TIMEOUT_S = 2.0
"""Time to deliver what is left once the sink is being closed."""

INCOMING_LIMIT = 65_536
"""Largest message that is let in, bytes: many times a command or an own event."""


@dataclass(frozen=True, slots=True)
class Access:
    """As whom to connect, and how; the same for every broker of a cluster."""

    protocol: str
    """"5" or "3.1.1"."""
    client_id: str
    base: str
    """Start of the device's topics, without a slash at its end."""
    keep_alive_s: int
    username: str
    password: str
    tls: ssl.SSLContext | None
    has_certificate: bool
    """Whether the device shows one of its own."""
    transport: str
    """"tcp" or "websockets"."""
    websocket_path: str
    check_echo: bool
    expire_s: int
    """Age at which a broker that speaks MQTT 5 may throw an event away that nobody has fetched; 0: never."""


class Connection:
    """Sends what is on the board and the outbox's events, and hands commands over, until it breaks or is closed."""

    def __init__(
        self,
        access: Access,
        broker: BrokerAddress,
        session: int,
        outbox: Outbox,
        board: Board,
        desk: CommandDesk | None,
        *,
        wake: socket.socket,
        closing: threading.Event,
        accepted: Callable[[], None],
        noted: Callable[[str], None],
        attend: Callable[[], None],
    ) -> None:
        """Prepare, without any network traffic yet.

        Args:
            access: as whom.
            broker: where.
            session: number that tells this connection's availability from that of every other one.
            outbox: where events wait; they are forgotten on confirmation.
            board: retained messages and answers.
            desk: takes commands; None: this connection takes none.
            wake: a non-blocking socket on which a byte arrives when there is something new.
            closing: set when the connection should deliver what is left and end.
            accepted: called once the broker has let the device in, and shown that it passes its messages on.
            noted: told of what is wrong without ending the connection.
            attend: called every second or more often.
        """
        self._access, self._broker, self._session = access, broker, session
        self._outbox, self._board, self._desk = outbox, board, desk
        self._wake, self._closing = wake, closing
        self._on_accepted, self._noted, self._attend = accepted, noted, attend
        self.is_flooded = False
        """Whether it ended because a message was too large to be let in."""
        self._is_five = access.protocol == "5"
        self._problem = ""
        self._limit = UNCONFIRMED_LIMIT
        self._unconfirmed: dict[int, tuple[float, str, int | None]] = {}
        """By message id: when it was sent, its topic, and its position in the outbox; None: no event."""
        self._greeted = self._is_let_in = self._offline_sent = False
        self._echo_due_s = float("inf")
        self._is_proven = not access.check_echo
        """Whether events need not come back."""
        self._trial: Entry | None = None
        """The event that must come back."""
        self._is_confirmed = self._is_echoed = False
        """What is known of it."""
        self._sent_to = -1
        self._live_above = 0
        self._generation = outbox.generation
        self._client = self._make_client()

    def serve(self) -> str:
        """Connect and work until the connection ends; give the reason, empty after a close in good order."""
        try:
            properties = self._properties(PacketTypes.CONNECT)
            if properties is not None:
                properties.MaximumPacketSize = INCOMING_LIMIT
            try:
                self._client.connect(
                    self._broker.host, self._broker.port, self._access.keep_alive_s, properties=properties
                )
            except Exception as error:
                return why_no_connection(
                    error, tls=self._access.tls is not None, websocket_path=self._websocket_path
                )
            return self._work()
        except Exception as error:
            # Beside OSError, the client raises whatever its parser trips over. Whatever a peer sends, the
            # thread that calls this has to live on and try again.
            return str(error) or type(error).__name__
        finally:
            self._drop()

    def _make_client(self) -> paho.Client:
        access = self._access
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=access.client_id,
            clean_session=None if self._is_five else True,
            protocol=MQTTProtocolVersion.MQTTv5 if self._is_five else MQTTProtocolVersion.MQTTv311,
            transport="websockets" if access.transport == "websockets" else "tcp",
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        if access.transport == "websockets":
            client.ws_set_options(path=access.websocket_path)
        if access.username:
            client.username_pw_set(access.username, access.password or None)
        if access.tls is not None:
            client.tls_set_context(access.tls)
        client.will_set(self._topic("availability"), self._availability("offline"), qos=1, retain=True)
        client.on_connect = self._handle_connect
        client.on_subscribe = self._handle_subscribed
        client.on_disconnect = self._handle_disconnect
        client.on_publish = self._handle_confirmation
        client.on_message = self._handle_message
        return client

    def _work(self) -> str:
        deadline_s = float("inf")
        answer_due_s = time.monotonic() + CONNECT_TIMEOUT_S
        while self._client.socket() is not None:
            if not self._greeted and time.monotonic() >= answer_due_s:
                # Some brokers meet a version that they do not know with silence.
                advice = f"is mqtt.protocol = {self._access.protocol} right?"
                return f"no answer within {CONNECT_TIMEOUT_S:g} s; {advice}"
            if self._closing.is_set():
                deadline_s = min(deadline_s, time.monotonic() + CLOSE_TIMEOUT_S)
                if time.monotonic() >= deadline_s:
                    # Leaving without DISCONNECT makes the broker publish the last will.
                    return f"not everything was confirmed within {CLOSE_TIMEOUT_S:g} s of closing"
            self._exchange(min(1.0, max(0.0, deadline_s - time.monotonic())))
            self._client.loop_misc()
            self._attend()
            if self._problem or (overdue := self._overdue()):
                return self._problem or overdue
            if self._is_let_in:
                self._send_notices()
                self._send_events()
                if self._closing.is_set() and self._has_left():
                    return ""
        return self._problem or ("connection lost" if self._greeted else self._no_answer())

    def _no_answer(self) -> str:
        access = self._access
        return why_no_answer(
            tls=access.tls is not None,
            has_certificate=access.has_certificate,
            websocket_path=self._websocket_path,
        )

    @property
    def _websocket_path(self) -> str:
        """Where the broker has its WebSockets; empty if they are not used."""
        return self._access.websocket_path if self._access.transport == "websockets" else ""

    def _exchange(self, timeout_s: float) -> None:
        """Wait for the network or for `wake`, then read and write what is ready."""
        connection = self._client.socket()
        if connection is None:
            return
        # Bytes that TLS has already decrypted do not show there.
        pending = getattr(connection, "pending", None)
        buffered = pending is not None and pending() > 0
        # Unlike select(), this takes descriptors above 1023, which a process with many connections has.
        poll = select.poll()
        poll.register(connection, select.POLLIN | (select.POLLOUT if self._client.want_write() else 0))
        poll.register(self._wake, select.POLLIN)
        ready = dict(poll.poll(0 if buffered else timeout_s * 1e3))
        if self._wake.fileno() in ready:
            with contextlib.suppress(BlockingIOError):
                self._wake.recv(4096)
        what = ready.get(connection.fileno(), 0)
        if what & select.POLLOUT:
            self._client.loop_write()
        # An error or the other side's end shows when reading.
        if buffered or what & ~select.POLLOUT:
            self._client.loop_read()
            # MQTT 3.1.1 cannot ask for small messages, and the client takes any. Its public interface tells of a
            # message only once it is whole, which may be 256 MB.
            coming = self._client._in_packet["remaining_length"]
            if coming > INCOMING_LIMIT:
                self.is_flooded = True
                self._problem = f"a message of {coming} bytes came: the limit is {INCOMING_LIMIT}"

    def _overdue(self) -> str:
        """Say what has been waited for in vain; empty if nothing has."""
        now_s = time.monotonic()
        if now_s >= self._echo_due_s:
            what = "an event" if self._is_let_in else "a message"
            return (
                f"the broker confirmed {what} but did not pass it on: may this user publish and subscribe below "
                f"{self._access.base}/ there? (mqtt.check_echo = false does without this proof)"
            )
        oldest_s = next(iter(self._unconfirmed.values()), (now_s,))[0]
        return (
            "" if now_s - oldest_s < CONFIRM_TIMEOUT_S else f"no confirmation within {CONFIRM_TIMEOUT_S:g} s"
        )

    def _has_left(self) -> bool:
        """Say `offline` once all is confirmed, and give whether that is confirmed too."""
        if self._unconfirmed or self._outbox.counts().waiting:
            return False
        if not self._offline_sent:
            self._offline_sent = True
            self._send(self._topic("availability"), self._availability("offline"), retain=True)
            return False
        self._client.disconnect()
        return True

    def _send(
        self,
        topic: str,
        message: bytes,
        *,
        retain: bool = False,
        position: int | None = None,
        expiry_s: int = 0,
        correlation: bytes = b"",
    ) -> None:
        properties = self._properties(PacketTypes.PUBLISH)
        if properties is not None and expiry_s:
            properties.MessageExpiryInterval = expiry_s
        if properties is not None and correlation:
            properties.CorrelationData = correlation
        sent = self._client.publish(topic, message, qos=1, retain=retain, properties=properties)
        self._unconfirmed[sent.mid] = (time.monotonic(), topic, position)

    def _send_notices(self) -> None:
        while len(self._unconfirmed) < self._limit and (notice := self._board.take()) is not None:
            self._send(
                notice.topic, notice.message, retain=notice.is_retained, correlation=notice.correlation
            )

    def _send_events(self) -> None:
        if self._outbox.generation != self._generation:
            # Older events have come to light.
            self._generation, self._sent_to = self._outbox.generation, -1
        # One event makes the trial, and the others wait for its return.
        free = self._limit - len(self._unconfirmed) if self._is_proven else int(self._trial is None)
        on_their_way = {position for _, _, position in self._unconfirmed.values()}
        for entry in self._outbox.peek(self._sent_to, free):
            if entry.position not in on_their_way:
                self._send_event(entry)
            self._sent_to = entry.position

    def _send_event(self, entry: Entry) -> None:
        is_late = entry.position <= self._live_above
        payload = {**entry.payload, "replayed": True} if is_late else entry.payload
        age_s = max(0, time.time_ns() // 1_000_000 - entry.kept_ms) // 1000
        expiry_s = max(1, self._access.expire_s - age_s) if self._access.expire_s else 0
        if not self._is_proven:
            self._trial = entry
        self._send(self._topic("event"), encode(payload).encode(), position=entry.position, expiry_s=expiry_s)

    def _handle_connect(
        self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        if reason.is_failure:
            self._problem = why_refused(str(reason), self._access.protocol)
            return
        self._greeted = True
        self._limit = min(self._limit, getattr(properties, "ReceiveMaximum", self._limit))
        self._live_above = self._outbox.last_position
        names = ["availability"]
        names += ["command/+"] if self._desk is not None else []
        names += ["event"] if self._access.check_echo else []
        if not self._is_five:
            client.subscribe([(self._topic(name), 1) for name in names])
            return
        # MQTT 5 can keep the mark of a command that is retained while this connection stands: it is refused now, and
        # not only when the next connection finds it.
        client.subscribe(
            [
                (self._topic(name), SubscribeOptions(qos=1, retainAsPublished=name.startswith("command")))
                for name in names
            ]
        )

    def _handle_subscribed(
        self, client: paho.Client, userdata: Any, mid: int, reasons: Any, properties: Any
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            self._noted(f"may not subscribe to {self._topic('#')}: {reasons[0]}")
        # Only now, so that it comes back by the subscription.
        self._send(self._topic("availability"), self._availability("online"), retain=True)
        if not self._access.check_echo:
            self._let_in()

    def _let_in(self) -> None:
        self._is_let_in = True
        self._echo_due_s = float("inf")
        self._board.send_all_again()
        self._on_accepted()

    def _handle_disconnect(
        self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        if not self._problem and flags.is_disconnect_packet_from_server:
            self._problem = f"the broker closed the connection: {reason}"

    def _handle_confirmation(
        self, client: paho.Client, userdata: Any, mid: int, reason: Any, properties: Any
    ) -> None:
        _, topic, position = self._unconfirmed.pop(mid, (0.0, "", None))
        if reason.is_failure:
            refusal = f"{topic}: refused: {reason}"
            if position is not None or topic == self._topic("availability"):
                # The event stays in the outbox: whoever refuses it today may take it tomorrow.
                self._problem = refusal
            else:
                self._noted(refusal)
        elif position is None:
            if not self._is_let_in:
                self._echo_due_s = time.monotonic() + ECHO_TIMEOUT_S
        elif self._is_proven:
            self._outbox.acknowledge(position)
        else:
            self._is_confirmed = True
            self._echo_due_s = time.monotonic() + ECHO_TIMEOUT_S
            self._judge_trial()

    def _handle_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        name = message.topic.removeprefix(self._access.base + "/")
        if name == "availability":
            self._see_availability(message)
        elif name == "event":
            self._see_event(message)
        elif self._desk is not None and name.startswith("command/"):
            properties = message.properties
            answer = self._desk.take(
                Received(
                    name.removeprefix("command/"), bytes(message.payload), message.retain,
                    getattr(properties, "ResponseTopic", ""), getattr(properties, "CorrelationData", b""),
                )
            )  # fmt: skip
            if answer is not None:
                self._board.answer(answer, encode(answer.payload).encode())

    def _see_availability(self, message: paho.MQTTMessage) -> None:
        """Take the own `online` as the echo; put it back when a late will of an earlier connection overwrote it."""
        seen = _parsed(message)
        if seen.get("session") == self._session:
            if not self._is_let_in:
                self._let_in()
        elif not message.retain and not self._offline_sent:
            # One that was retained lay there before the own `online`, which overwrites it.
            self._send(self._topic("availability"), self._availability("online"), retain=True)

    def _see_event(self, message: paho.MQTTMessage) -> None:
        if self._trial is not None and _parsed(message).get("id") == self._trial.payload["id"]:
            self._is_echoed = True
            self._judge_trial()

    def _judge_trial(self) -> None:
        """Once the trial event is both confirmed and seen, confirmations alone will do."""
        if self._trial is None or self._is_proven or not (self._is_confirmed and self._is_echoed):
            return
        self._echo_due_s = float("inf")
        self._outbox.acknowledge(self._trial.position)
        self._is_proven = True
        self._client.unsubscribe(self._topic("event"))

    def _availability(self, state: str) -> bytes:
        return encode({"state": state, "session": self._session}).encode()

    def _properties(self, packet: int) -> Any:
        """Give properties for a packet, to be set; None where MQTT 3.1.1 has none."""
        return Properties(packet) if self._is_five else None  # type: ignore[no-untyped-call]

    def _topic(self, name: str) -> str:
        return f"{self._access.base}/{name}"

    def _drop(self) -> None:
        connection = self._client.socket()
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()


def _parsed(message: paho.MQTTMessage) -> Payload:
    try:
        seen = json.loads(message.payload)
    except (ValueError, RecursionError):
        return {}
    return seen if isinstance(seen, dict) else {}
