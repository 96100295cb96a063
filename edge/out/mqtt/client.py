"""Speaks MQTT 5 or 3.1.1 over one network connection. The only module that knows the client library.

Nothing here runs in a thread of its own: `exchange` waits, reads and writes, and what comes is handed to a `Listener`
in the thread that called it.
"""

import contextlib
import select
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge.errors import PublishError
from edge.out.mqtt.credentials import BrokerAddress
from edge.out.mqtt.diagnosis import why_no_answer, why_no_connection, why_refused

CONNECT_TIMEOUT_S = 5.0
"""Time for the network connection."""

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
    websocket_path: str
    """Where the broker has its WebSockets; empty: they are not used."""
    check_echo: bool
    expire_s: int
    """Age at which a broker that speaks MQTT 5 may throw an event away that nobody has fetched; 0: never."""


@dataclass(frozen=True, slots=True)
class Message:
    """What has arrived."""

    topic: str
    payload: bytes
    is_retained: bool
    response_topic: str
    """MQTT 5; empty: none."""
    correlation: bytes
    """MQTT 5; empty: none."""


class Listener(Protocol):
    """Takes what comes from the broker. A `refusal` is why, in words, or empty."""

    def greeted(self, refusal: str, receive_maximum: int | None) -> None:
        """The broker has answered; MQTT 5 may say how many messages it takes at once."""

    def subscribed(self, refusal: str) -> None: ...

    def confirmed(self, message_id: int, refusal: str) -> None: ...

    def arrived(self, message: Message) -> None: ...


class FloodError(PublishError):
    """A message comes that is too large to be let in."""


class _Client(paho.Client):
    """The library's client, which would take a message of 256 MB, and tell of it once it is whole.

    MQTT 5 can ask for smaller ones, MQTT 3.1.1 cannot. This is where the library reads what is left of a message; it
    has no public place for a limit.
    """

    flood_bytes = 0
    """What was about to come when it was more than INCOMING_LIMIT."""

    def _sock_recv(self, bufsize: int) -> bytes:
        if bufsize > INCOMING_LIMIT:
            self.flood_bytes = bufsize
            raise ConnectionAbortedError(f"a message of {bufsize} bytes")
        return super()._sock_recv(bufsize)


class MqttClient:
    """One client for one connection with a clean session. Whoever connects it drops it."""

    def __init__(self, access: Access, will_topic: str, will: bytes | None, listener: Listener) -> None:
        """Prepare, without any network traffic yet.

        Args:
            access: as whom.
            will_topic: where the broker publishes the last will, retained.
            will: the last will; None: the broker is to say nothing of this client's end.
            listener: told of what comes, within `exchange`.
        """
        self._access, self._listener = access, listener
        self._is_five = access.protocol == "5"
        self._was_greeted = False
        self._farewell = ""
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=access.client_id,
            clean_session=None if self._is_five else True,
            protocol=MQTTProtocolVersion.MQTTv5 if self._is_five else MQTTProtocolVersion.MQTTv311,
            transport="websockets" if access.websocket_path else "tcp",
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        if access.websocket_path:
            client.ws_set_options(path=access.websocket_path)
        if access.username:
            client.username_pw_set(access.username, access.password or None)
        if access.tls is not None:
            client.tls_set_context(access.tls)
        if will is not None:
            client.will_set(will_topic, will, qos=1, retain=True)
        client.on_connect = self._handle_connect
        client.on_subscribe = self._handle_subscribed
        client.on_disconnect = self._handle_disconnect
        client.on_publish = self._handle_confirmation
        client.on_message = self._handle_message
        self._client = client

    @property
    def is_open(self) -> bool:
        return self._client.socket() is not None

    def connect(self, broker: BrokerAddress) -> str:
        """Make the connection and ask to be let in; give why there is none, empty if there is one."""
        properties = self._properties(PacketTypes.CONNECT)
        if properties is not None:
            properties.MaximumPacketSize = INCOMING_LIMIT
        try:
            self._client.connect(broker.host, broker.port, self._access.keep_alive_s, properties=properties)
        except Exception as error:
            # Beside OSError, the client raises whatever its parser trips over.
            tls = self._access.tls is not None
            return why_no_connection(error, tls=tls, websocket_path=self._access.websocket_path)
        return ""

    def exchange(self, wake: socket.socket, timeout_s: float) -> None:
        """Wait for the network or for a byte from `wake`, then read and write what is ready.

        Raises:
            FloodError: a message of more than INCOMING_LIMIT bytes has begun to come.
            Exception: whatever the client library makes of what a peer sends.
        """
        connection = self._client.socket()
        if connection is None:
            return
        # Bytes that TLS has already decrypted do not show there.
        pending = getattr(connection, "pending", None)
        buffered = pending is not None and pending() > 0
        # Unlike select(), this takes descriptors above 1023, which a process with many connections has.
        poll = select.poll()
        poll.register(connection, select.POLLIN | (select.POLLOUT if self._client.want_write() else 0))
        poll.register(wake, select.POLLIN)
        ready = dict(poll.poll(0 if buffered else timeout_s * 1e3))
        if wake.fileno() in ready:
            with contextlib.suppress(BlockingIOError):
                wake.recv(4096)
        what = ready.get(connection.fileno(), 0)
        if what & select.POLLOUT:
            self._client.loop_write()
        # An error or the other side's end shows when reading.
        if buffered or what & ~select.POLLOUT:
            self._client.loop_read()
            if coming := self._client.flood_bytes:
                raise FloodError(f"a message of {coming} bytes came: the limit is {INCOMING_LIMIT}")
        self._client.loop_misc()

    def why_closed(self) -> str:
        """Say in words why the connection is no longer open."""
        if self._farewell:
            return f"the broker closed the connection: {self._farewell}"
        if self._was_greeted:
            return "connection lost"
        access = self._access
        return why_no_answer(
            tls=access.tls is not None,
            has_certificate=access.has_certificate,
            websocket_path=access.websocket_path,
        )

    def publish(
        self, topic: str, message: bytes, *, retain: bool = False, expiry_s: int = 0, correlation: bytes = b""
    ) -> int:
        """Send a message with QoS 1 and give its id; what only MQTT 5 knows is left out of MQTT 3.1.1."""
        properties = self._properties(PacketTypes.PUBLISH) if expiry_s or correlation else None
        if properties is not None and expiry_s:
            properties.MessageExpiryInterval = expiry_s
        if properties is not None and correlation:
            properties.CorrelationData = correlation
        return self._client.publish(topic, message, qos=1, retain=retain, properties=properties).mid

    def subscribe(self, topics: Sequence[str], commands: Sequence[str] = ()) -> None:
        """Ask for topics with QoS 1, all at once.

        MQTT 5 can keep the mark of a command that is retained while this connection stands: it is refused then, and
        not only when the next connection finds it.
        """
        if self._is_five:
            asked = [(topic, SubscribeOptions(qos=1)) for topic in topics]
            asked += [(topic, SubscribeOptions(qos=1, retainAsPublished=True)) for topic in commands]
            self._client.subscribe(asked)
        else:
            self._client.subscribe([(topic, 1) for topic in (*topics, *commands)])

    def unsubscribe(self, topic: str) -> None:
        self._client.unsubscribe(topic)

    def disconnect(self) -> None:
        """Leave in good order: the broker forgets the last will."""
        self._client.disconnect()

    def drop(self) -> None:
        """Leave at once: the broker publishes the last will. May be called at any time."""
        connection = self._client.socket()
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()

    def _properties(self, packet: int) -> Any:
        """Give properties for a packet, to be set; None where MQTT 3.1.1 has none."""
        return Properties(packet) if self._is_five else None  # type: ignore[no-untyped-call]

    def _handle_connect(
        self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        self._was_greeted = True
        refusal = why_refused(str(reason), self._access.protocol) if reason.is_failure else ""
        self._listener.greeted(refusal, getattr(properties, "ReceiveMaximum", None))

    def _handle_subscribed(
        self, client: paho.Client, userdata: Any, mid: int, reasons: Any, properties: Any
    ) -> None:
        self._listener.subscribed(next((str(reason) for reason in reasons if reason.is_failure), ""))

    def _handle_disconnect(
        self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self._farewell = str(reason)

    def _handle_confirmation(
        self, client: paho.Client, userdata: Any, mid: int, reason: Any, properties: Any
    ) -> None:
        self._listener.confirmed(mid, str(reason) if reason.is_failure else "")

    def _handle_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        self._listener.arrived(
            Message(
                message.topic, bytes(message.payload), message.retain,
                getattr(message.properties, "ResponseTopic", ""),
                getattr(message.properties, "CorrelationData", b""),
            )
        )  # fmt: skip
