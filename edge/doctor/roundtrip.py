"""Sends one message to a broker and back, on a topic of the device, so that nobody notices.

What may a device both publish and read? By the access list that is shipped: its `availability` and its `event`. So the
retained `availability` that lies there is published once more, as it is and not retained: every subscriber knows it
already. Where none lies there, `offline` goes out under a session number that was never `online`, which says nothing
new either. The client has an id of its own and no last will, so that a running service keeps its session.
"""

import socket
import time
from dataclasses import replace

from edge.out.mqtt.client import Access, Message, MqttClient
from edge.out.mqtt.connection import ANSWER_TIMEOUT_S
from edge.out.mqtt.credentials import BrokerAddress
from edge.out.mqtt.echo import TIMEOUT_S
from edge.payload import encode

RETAINED_S = 0.5
"""Time for the retained message; it follows the answer to the subscription at once, if there is one."""


class RoundTrip:
    """One connection, from CONNECT to the message's return; a `Listener` of its own client."""

    def __init__(self, access: Access, broker: BrokerAddress) -> None:
        """Connect, send the message there and back, and leave. Takes some seconds at most, and does not raise."""
        self.problem = ""
        """Why the device is not let in; empty if it is."""
        self.echo_problem = ""
        """Why the message did not come back; empty if it did."""
        self.connect_ms = self.echo_ms = 0.0
        self._topic = f"{access.base}/availability"
        self._subscribed_s = self._sent_s = self._back_s = 0.0
        self._message = encode({"state": "offline", "session": time.time_ns() // 1_000_000}).encode()
        access = replace(access, client_id=f"{access.client_id}-doctor")
        self._client = MqttClient(access, "", None, self)
        wake, other = socket.socketpair()
        try:
            with wake, other:
                self._go(broker, wake)
        except Exception as error:
            # Whatever the client library makes of what a peer sends.
            self.problem = self.problem or str(error) or type(error).__name__
        finally:
            self._client.drop()

    @property
    def topic(self) -> str:
        return self._topic

    def _go(self, broker: BrokerAddress, wake: socket.socket) -> None:
        began_s = time.monotonic()
        self.problem = self._client.connect(broker)
        if self.problem:
            return
        due_s = time.monotonic() + ANSWER_TIMEOUT_S
        while (
            self._client.is_open and not self.problem and not self._subscribed_s and time.monotonic() < due_s
        ):
            self._client.exchange(wake, 0.1)
        self.connect_ms = 1000 * (time.monotonic() - began_s)
        if not self._subscribed_s:
            silent = f"no answer within {ANSWER_TIMEOUT_S:g} s; is mqtt.protocol right?"
            self.problem = self.problem or (silent if self._client.is_open else self._client.why_closed())
            return
        while self._client.is_open and not self._sent_s:
            self._client.exchange(wake, 0.05)
            if time.monotonic() - self._subscribed_s >= RETAINED_S:
                self._send()
        due_s = time.monotonic() + TIMEOUT_S
        while (
            self._client.is_open and not self._back_s and not self.echo_problem and time.monotonic() < due_s
        ):
            self._client.exchange(wake, 0.1)
        if self._back_s:
            self.echo_ms = 1000 * (self._back_s - self._sent_s)
        elif not self.echo_problem:
            self.echo_problem = f"it did not come back within {TIMEOUT_S:g} s"
        self._client.disconnect()

    def _send(self) -> None:
        self._sent_s = time.monotonic()
        self._client.publish(self._topic, self._message)

    def greeted(self, refusal: str, receive_maximum: int | None) -> None:
        self.problem = refusal
        if not refusal:
            self._client.subscribe([self._topic])

    def subscribed(self, refusal: str) -> None:
        if refusal:
            self.echo_problem = f"the subscription is refused: {refusal}"
        self._subscribed_s = time.monotonic()

    def confirmed(self, message_id: int, refusal: str) -> None:
        if refusal:
            self.echo_problem = f"publishing is refused: {refusal}"

    def arrived(self, message: Message) -> None:
        if message.is_retained and not self._sent_s:
            self._message = message.payload
            self._send()
        elif self._sent_s and message.payload == self._message:
            self._back_s = time.monotonic()
