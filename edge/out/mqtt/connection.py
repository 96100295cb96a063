"""One connection to an MQTT broker, from CONNECT to its end: what is said over it, in which order, and what comes back.

Everything happens in the thread that calls `serve`; other threads add to the outbox or the board and send one byte to
`wake`.
"""

import socket
import threading
import time
from collections.abc import Callable

from edge.out import Payload
from edge.out.mqtt.board import Board
from edge.out.mqtt.client import Access, FloodError, Message, MqttClient
from edge.out.mqtt.commands import CommandDesk, Received
from edge.out.mqtt.credentials import BrokerAddress
from edge.out.mqtt.echo import Echo
from edge.payload import decode, encode
from edge.store.ledger import Entry
from edge.store.outbox import Outbox

UNCONFIRMED_LIMIT = 10
"""Messages on their way at once; mosquitto accepts 20 by default (`max_inflight_messages`)."""

ANSWER_TIMEOUT_S = 5.0
"""Time for the broker to answer a new connection."""

CONFIRM_TIMEOUT_S = 20.0
"""Time for a confirmation; a cluster that loses a node takes up to 10 s to confirm again."""

CLOSE_TIMEOUT_S = 2.0
"""Time to deliver what is left once the sink is being closed."""


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
        self._problem = ""
        self._limit = UNCONFIRMED_LIMIT
        self._unconfirmed: dict[int, tuple[float, str, int | None]] = {}
        """By message id: when it was sent, its topic, and its position in the outbox; None: no event."""
        self._is_greeted = self._is_let_in = self._is_proven = self._offline_sent = False
        self._echo = Echo(is_asked=access.check_echo)
        self._sent_to = -1
        self._live_above = 0
        self._generation = outbox.generation
        self._client = MqttClient(access, self._topic("availability"), self._availability("offline"), self)

    def serve(self) -> str:
        """Connect and work until the connection ends; give the reason, empty after a close in good order."""
        try:
            return self._client.connect(self._broker) or self._work()
        except FloodError as error:
            self.is_flooded = True
            return str(error)
        except Exception as error:
            # Whatever a peer sends, the thread that calls this has to live on and try again.
            return str(error) or type(error).__name__
        finally:
            self._client.drop()

    def _work(self) -> str:
        deadline_s = float("inf")
        answer_due_s = time.monotonic() + ANSWER_TIMEOUT_S
        while self._client.is_open:
            if not self._is_greeted and time.monotonic() >= answer_due_s:
                # Some brokers meet a version that they do not know with silence.
                advice = f"is mqtt.protocol = {self._access.protocol} right?"
                return f"no answer within {ANSWER_TIMEOUT_S:g} s; {advice}"
            if self._closing.is_set():
                deadline_s = min(deadline_s, time.monotonic() + CLOSE_TIMEOUT_S)
                if time.monotonic() >= deadline_s:
                    # Leaving without DISCONNECT makes the broker publish the last will.
                    return f"not everything was confirmed within {CLOSE_TIMEOUT_S:g} s of closing"
            self._client.exchange(self._wake, min(1.0, max(0.0, deadline_s - time.monotonic())))
            self._attend()
            if self._problem or (overdue := self._overdue()):
                return self._problem or overdue
            if self._is_let_in:
                self._send_notices()
                self._send_events()
                if self._closing.is_set() and self._has_left():
                    return ""
        return self._problem or self._client.why_closed()

    def _overdue(self) -> str:
        """Say what has been waited for in vain; empty if nothing has."""
        if self._echo.is_overdue:
            what = "an event" if self._is_let_in else "a message"
            return (
                f"the broker confirmed {what} but did not pass it on: may this user publish and subscribe below "
                f"{self._access.base}/ there? (mqtt.check_echo = false does without this proof)"
            )
        now_s = time.monotonic()
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
        sent = self._client.publish(topic, message, retain=retain, expiry_s=expiry_s, correlation=correlation)
        self._unconfirmed[sent] = (time.monotonic(), topic, position)

    def _send_notices(self) -> None:
        while len(self._unconfirmed) < self._limit and (notice := self._board.take()) is not None:
            self._send(
                notice.topic, notice.message, retain=notice.is_retained, correlation=notice.correlation
            )

    def _send_events(self) -> None:
        if self._outbox.generation != self._generation:
            # Older events have come to light.
            self._generation, self._sent_to = self._outbox.generation, -1
        if self._outbox.last_position <= self._sent_to:
            return
        echo = self._echo
        free = self._limit - len(self._unconfirmed) if echo.is_proven else int(echo.is_trial_free)
        on_their_way = {position for _, _, position in self._unconfirmed.values()}
        for entry in self._outbox.peek(self._sent_to, free):
            if entry.position not in on_their_way:
                self._send_event(entry)
            self._sent_to = entry.position

    def _send_event(self, entry: Entry) -> None:
        is_late = entry.position <= self._live_above
        text = encode({**entry.payload, "replayed": True}) if is_late else entry.text
        age_s = max(0, time.time_ns() // 1_000_000 - entry.kept_ms) // 1000
        expiry_s = max(1, self._access.expire_s - age_s) if self._access.expire_s else 0
        self._echo.event_sent(entry)
        self._send(self._topic("event"), text.encode(), position=entry.position, expiry_s=expiry_s)

    def greeted(self, refusal: str, receive_maximum: int | None) -> None:
        """Subscribe to what is to come back and to commands, once the broker lets the device in."""
        self._is_greeted = True
        if refusal:
            self._problem = refusal
            return
        self._limit = min(self._limit, receive_maximum or self._limit)
        self._live_above = self._outbox.last_position
        self._client.subscribe(
            [self._topic("availability")] + ([self._topic("event")] if self._access.check_echo else []),
            [] if self._desk is None else [self._topic("command/+")],
        )

    def subscribed(self, refusal: str) -> None:
        """Say `online`; only now, so that it comes back by the subscription."""
        if refusal:
            self._noted(f"may not subscribe to {self._topic('#')}: {refusal}")
        self._send(self._topic("availability"), self._availability("online"), retain=True)
        if self._echo.is_heard:
            self._let_in()

    def _let_in(self) -> None:
        self._is_let_in = True
        self._board.send_all_again()
        self._on_accepted()

    def confirmed(self, message_id: int, refusal: str) -> None:
        """Take what the broker says of a message."""
        _, topic, position = self._unconfirmed.pop(message_id, (0.0, "", None))
        if refusal:
            problem = f"{topic}: refused: {refusal}"
            if position is not None or topic == self._topic("availability"):
                # The event stays in the outbox: whoever refuses it today may take it tomorrow.
                self._problem = problem
            else:
                self._noted(problem)
        elif position is not None:
            self._deliver(self._echo.event_confirmed(position))
        elif topic == self._topic("availability"):
            self._echo.greeting_confirmed()

    def arrived(self, message: Message) -> None:
        """Take an echo, or a command."""
        name = message.topic.removeprefix(self._access.base + "/")
        if name == "availability":
            self._see_availability(message)
        elif name == "event":
            self._deliver(self._echo.event_back(_parsed(message).get("id")))
        elif self._desk is not None and name.startswith("command/"):
            answer = self._desk.take(
                Received(
                    name.removeprefix("command/"), message.payload, message.is_retained, message.response_topic,
                    message.correlation,
                )
            )  # fmt: skip
            if answer is not None:
                self._board.answer(answer, encode(answer.payload).encode())

    def _see_availability(self, message: Message) -> None:
        """Take the own `online` as the echo; put it back when a late will of an earlier connection overwrote it."""
        if _parsed(message).get("session") == self._session:
            if not self._is_let_in:
                self._echo.greeting_back()
                self._let_in()
        elif not message.is_retained and not self._offline_sent:
            # One that was retained lay there before the own `online`, which overwrites it.
            self._send(self._topic("availability"), self._availability("online"), retain=True)

    def _deliver(self, position: int | None) -> None:
        """Take an event out of the outbox; after the first of a connection none need come back."""
        if position is None:
            return
        self._outbox.acknowledge(position)
        if self._access.check_echo and not self._is_proven:
            self._is_proven = True
            self._client.unsubscribe(self._topic("event"))

    def _availability(self, state: str) -> bytes:
        return encode({"state": state, "session": self._session}).encode()

    def _topic(self, name: str) -> str:
        return f"{self._access.base}/{name}"


def _parsed(message: Message) -> Payload:
    try:
        return decode(message.payload.decode())
    except (ValueError, RecursionError):
        return {}
