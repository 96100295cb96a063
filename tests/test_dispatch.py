"""Events leave the worker in an instant, and reach the sinks in order, numbered, only once they are kept."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.config import History
from edge.config import Outbox as Settings
from edge.dispatch import Dispatcher
from edge.errors import PublishError
from edge.out import EventSink, Payload
from edge.payload import PayloadWriter, validate
from edge.records import Event
from edge.store.outbox import Outbox

MakeEvent = Callable[..., Event]
Until = Callable[..., None]
START_NS = 1_795_428_902_000_000_000


class Sink:
    """Keeps what it is given, with what the outbox held at that moment; fails as it is told."""

    def __init__(self, outbox: Outbox) -> None:
        self.payloads: list[Payload] = []
        self.kept: list[int] = []
        self.problem = ""
        self.gate = threading.Event()
        self.gate.set()
        self._outbox = outbox

    def publish(self, event: Event, payload: Payload) -> None:
        self.gate.wait(20)
        if self.problem:
            raise PublishError(self.problem)
        self.payloads.append(payload)
        self.kept.append(self._outbox.counts().waiting)

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    outbox = Outbox(tmp_path, Settings(), History())
    yield outbox
    outbox.close()


def a_dispatcher(outbox: Outbox, *sinks: EventSink, **options: Any) -> Dispatcher:
    writer = PayloadWriter("lab-03", "boot-1", 0, {"spotter": "0" * 64})
    return Dispatcher(writer, outbox, sinks, **options)


def test_events_are_numbered_and_kept_before_a_sink_hears_of_them(
    outbox: Outbox, make_event: MakeEvent
) -> None:
    sink = Sink(outbox)
    dispatcher = a_dispatcher(outbox, sink)
    for face in range(1, 31):
        dispatcher.hand(make_event(face_id=face), START_NS)
    dispatcher.close()
    assert [payload["face_id"] for payload in sink.payloads] == list(range(1, 31))
    assert [payload["seq"] for payload in sink.payloads] == list(range(1, 31))
    assert all(kept >= payload["seq"] for kept, payload in zip(sink.kept, sink.payloads, strict=True))
    assert [entry.payload for entry in outbox.peek(-1, 100)] == sink.payloads
    for payload in sink.payloads:
        validate(payload)


def test_an_event_is_dated_by_what_was_known_when_it_was_handed_over(
    outbox: Outbox, make_event: MakeEvent
) -> None:
    sink = Sink(outbox)
    dispatcher = a_dispatcher(outbox, sink)
    dispatcher.hand(make_event(), START_NS)
    dispatcher.hand(make_event(), START_NS + 3_600_000_000_000)
    dispatcher.close()
    assert [payload["time"][:19] for payload in sink.payloads] == [
        "2026-11-23T10:15:14",
        "2026-11-23T11:15:14",
    ]


def test_handing_over_does_not_wait_for_a_sink_and_a_flood_is_counted(
    outbox: Outbox, make_event: MakeEvent, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.dispatch.CAPACITY", 100)
    sink = Sink(outbox)
    sink.gate.clear()
    dispatcher = a_dispatcher(outbox, sink)
    event = make_event()
    dispatcher.hand(event, START_NS)
    until(lambda: outbox.counts().waiting == 1, "the first event to be kept")
    for _ in range(105):
        dispatcher.hand(event, START_NS)
    assert dispatcher.unwritten == 5
    assert "over 100 events" in dispatcher.problem
    sink.gate.set()
    dispatcher.close()
    assert [payload["seq"] for payload in sink.payloads] == list(range(1, 102)), "no number was used up"


def test_an_event_that_breaks_the_contract_uses_no_number(outbox: Outbox, make_event: MakeEvent) -> None:
    sink = Sink(outbox)
    dispatcher = a_dispatcher(outbox, sink)
    for emotion in ("disgust", "joy", "anger"):
        dispatcher.hand(make_event(emotion=emotion), START_NS)
    dispatcher.close()
    assert [(payload["seq"], payload["emotion"]) for payload in sink.payloads] == [
        (1, "disgust"),
        (2, "anger"),
    ]
    assert dispatcher.unwritten == 1


def test_a_sink_that_fails_keeps_neither_the_next_sink_nor_the_next_event_from_it(
    outbox: Outbox, make_event: MakeEvent, until: Until
) -> None:
    broken, sound = Sink(outbox), Sink(outbox)
    broken.problem = "standard output: no reader"
    dispatcher = a_dispatcher(outbox, broken, sound)
    dispatcher.hand(make_event(), START_NS)
    until(lambda: dispatcher.problem == broken.problem, "the problem to be told")
    broken.problem = ""
    dispatcher.hand(make_event(), START_NS)
    until(lambda: not dispatcher.problem, "the problem to be over")
    dispatcher.close()
    assert [payload["seq"] for payload in sound.payloads] == [1, 2]


def test_a_sink_with_a_mistake_in_it_does_not_end_the_thread(
    outbox: Outbox, make_event: MakeEvent, until: Until
) -> None:
    class Mistaken(Sink):
        def publish(self, event: Event, payload: Payload) -> None:
            super().publish(event, payload)
            raise ZeroDivisionError("by mistake")

    sink = Mistaken(outbox)
    dispatcher = a_dispatcher(outbox, sink)
    dispatcher.hand(make_event(), START_NS)
    until(lambda: "by mistake" in dispatcher.problem, "the mistake to be told")
    dispatcher.hand(make_event(), START_NS)
    dispatcher.close()
    assert len(sink.payloads) == 2


def test_a_replay_ends_with_the_first_event_that_could_not_be_written(
    outbox: Outbox, make_event: MakeEvent, until: Until
) -> None:
    sink = Sink(outbox)
    sink.problem = "out.jsonl: disk is full"
    dispatcher = a_dispatcher(outbox, sink, is_replay=True)
    dispatcher.hand(make_event(), START_NS)
    until(lambda: dispatcher.failure, "the failure")
    with pytest.raises(PublishError, match="disk is full"):
        dispatcher.hand(make_event(), START_NS)
    dispatcher.close()
    assert [entry.payload["replayed"] for entry in outbox.peek(-1, 10)] == [True]


def test_context_goes_with_the_events_that_follow_it(
    outbox: Outbox, make_event: MakeEvent, until: Until
) -> None:
    sink = Sink(outbox)
    writer = PayloadWriter("lab-03", "boot-1", 0, {"spotter": "0" * 64})
    dispatcher = Dispatcher(writer, outbox, [sink])
    dispatcher.hand(make_event(), START_NS)
    until(lambda: sink.payloads, "the first event")
    writer.context = {"session": "interview-7", "tags": ["pilot"]}
    dispatcher.hand(make_event(), START_NS)
    dispatcher.close()
    assert [payload["context"] for payload in sink.payloads] == [
        {},
        {"session": "interview-7", "tags": ["pilot"]},
    ]
