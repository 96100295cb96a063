"""A subscriber that misses nothing: a session that outlives its connections, QoS 1, and a direct way to the broker."""

import hashlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from tools.delivery.judge import Arrival

KEEP_S = 3600
"""How long the broker keeps the session of a subscriber that is away."""
RETRY_S = (0.05, 0.2)


class Subscriber:
    """Collects the events of all devices below a topic. Whoever constructs it closes it.

    It must be there before the first event is published: only then does its session hold every one of them.
    """

    def __init__(
        self, port: int, *, host: str = "127.0.0.1", topic_prefix: str = "microedge", protocol: str = "5",
        alternates: Sequence[int] = (), heard: Callable[[Arrival], None] | None = None,
    ) -> None:  # fmt: skip
        """Connect and subscribe; returns once the broker has confirmed it.

        Args:
            port: of the broker itself, not of a relay: nothing may be lost on this way.
            host: likewise.
            topic_prefix: as in `mqtt.topic_prefix`.
            protocol: as in `mqtt.protocol`.
            alternates: ports of further brokers of the same cluster, tried in turn.
            heard: told of each arrival, in the network thread.

        Raises:
            TimeoutError: the broker does not answer.
            OSError: there is none.
        """
        self.arrived: list[Arrival] = []
        """In the order of arrival; only ever added to."""
        self.unreadable: list[bytes] = []
        """Messages that are no event."""
        self.sessions_lost = 0
        """Times that the broker had forgotten the session: what was sent meanwhile is lost by the broker."""
        self.connections = 0
        self.availability: dict[str, str] = {}
        """What each device's `availability` said last."""
        self._heard = heard
        self._five = protocol == "5"
        name = uuid.uuid4().hex
        self._mark = f"{topic_prefix}/subscriber-{name}/mark"
        self._filters = [f"{topic_prefix}/+/event", f"{topic_prefix}/+/availability", self._mark]
        self._marks: dict[bytes, threading.Event] = {}
        self._subscribed = threading.Event()
        self._closing = False
        self.client_id = f"subscriber-{name}"
        self._client = self._make_client(self.client_id)
        self._reach: dict[str, Any] = {"host": host, "keepalive": 20}
        if self._five:
            lasting = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            lasting.SessionExpiryInterval = KEEP_S
            self._reach |= {"clean_start": False, "properties": lasting}
        self._ports = cycle((port, *alternates))
        self._client.connect(port=next(self._ports), **self._reach)
        if alternates:
            self._client.on_disconnect = self._client.on_connect_fail = self._turn_to_next
        self._client.loop_start()
        if not self._subscribed.wait(20):
            self.close()
            raise TimeoutError(f"{host}:{port}: the broker did not confirm a subscription within 20 s")

    def collect(self, timeout_s: float = 30.0) -> bool:
        """Wait until everything that the broker held for this subscriber when called has arrived.

        A message of its own passes through the same queue behind all others.
        """
        mark, seen = uuid.uuid4().hex.encode(), threading.Event()
        self._marks[mark] = seen
        self._client.publish(self._mark, mark, qos=1)
        return seen.wait(timeout_s)

    def close(self) -> None:
        """Disconnect. May be called again."""
        self._closing = True
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> "Subscriber":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _make_client(self, client_id: str) -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if self._five else False,
            protocol=MQTTProtocolVersion.MQTTv5 if self._five else MQTTProtocolVersion.MQTTv311,
        )
        client.reconnect_delay_set(*RETRY_S)  # type: ignore[arg-type]  # fractions of a second work as well
        client.on_connect = self._handle_connect
        client.on_subscribe = self._handle_subscribed
        client.on_message = self._handle_message
        return client

    def _turn_to_next(self, client: paho.Client, *_: object) -> None:
        # Only notes where the client is to connect next, which it does by itself.
        if not self._closing:
            client.connect_async(port=next(self._ports), **self._reach)

    def _handle_connect(
        self, client: paho.Client, userdata: object, flags: paho.ConnectFlags, reason: ReasonCode,
        properties: Properties | None,
    ) -> None:  # fmt: skip
        if reason.is_failure:
            return
        self.connections += 1
        if flags.session_present:
            return
        self.sessions_lost += self._subscribed.is_set()
        client.subscribe([(topic, 1) for topic in self._filters])

    def _handle_subscribed(
        self, client: paho.Client, userdata: object, mid: int, reasons: Sequence[ReasonCode],
        properties: Properties | None,
    ) -> None:  # fmt: skip
        if any(reason.is_failure for reason in reasons):
            # A cluster under load says so for a while.
            client.subscribe([(topic, 1) for topic in self._filters])
        else:
            self._subscribed.set()

    def _handle_message(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        at_ns, payload = time.time_ns(), bytes(message.payload)
        if message.topic == self._mark:
            if (mark := self._marks.get(payload)) is not None:
                mark.set()
            return
        *_, device_id, name = message.topic.split("/")
        try:
            if name == "availability":
                self.availability[device_id] = str(json.loads(payload)["state"])
                return
            arrival = read(payload, at_ns)
        except (ValueError, KeyError, TypeError):
            self.unreadable.append(payload)
            return
        self.arrived.append(arrival)
        if self._heard is not None:
            self._heard(arrival)


def read(payload: bytes, at_ns: int) -> Arrival:
    """Give the event that a message holds.

    Raises:
        ValueError, KeyError, TypeError: it holds none.
    """
    fields = json.loads(payload)
    lasting = {name: value for name, value in fields.items() if name != "replayed"}
    digest = hashlib.blake2b(json.dumps(lasting, sort_keys=True).encode(), digest_size=16).digest()
    return Arrival(
        str(fields["device_id"]), str(fields["series"]), int(fields["seq"]), str(fields["id"]), digest, at_ns
    )
