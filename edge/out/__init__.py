"""What leaves the device: MQTT, LEDs, JSON lines, service notifications."""

from typing import Any, Protocol

from edge.records import Event

Payload = dict[str, Any]
"""An event as its schema describes it (`edge.payload`); already validated."""


class EventSink(Protocol):
    """Something that takes events away.

    `publish` returns at once: a slow or absent receiver is the sink's own affair (queue, thread, count of
    what was lost) and never holds up a frame. `close` hands over what is left within a few seconds and
    then gives up, saying what was lost. Who constructs it closes it.
    """

    def publish(self, event: Event, payload: Payload) -> None: ...

    def close(self) -> None: ...
