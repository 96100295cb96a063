"""The judge finds what it should, and network, broker and disk fail as told: else no trial means anything."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from hypothesis import given
from hypothesis import strategies as some
from paho.mqtt.enums import CallbackAPIVersion

from edge.config import History
from edge.config import Outbox as OutboxConfig
from edge.store.file import LOG_BYTES
from edge.store.outbox import Outbox
from tools.delivery.broker import MOSQUITTO, Broker
from tools.delivery.disk import Disk, PlainDisk, make_disk
from tools.delivery.judge import Arrival, Promise, judge, percentile
from tools.delivery.relay import Relay
from tools.delivery.subscriber import Subscriber, read

needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
SERIES = "a" * 32


def promises(number: int, *, series: str = SERIES, durable: bool = True) -> list[Promise]:
    return [
        Promise("lab-03", series, seq, f"{series[0]}-{seq}", durable, "life 1", seq * 1_000_000)
        for seq in range(1, number + 1)
    ]


def arrival(promise: Promise) -> Arrival:
    return Arrival(
        promise.device_id, promise.series, promise.seq, promise.id, b"digest", promise.kept_ns + 5_000_000
    )


def arrivals(promised: list[Promise]) -> list[Arrival]:
    return [arrival(promise) for promise in promised]


def test_a_run_in_which_everything_arrives_once_and_in_order_is_clean() -> None:
    promised = promises(10)
    verdict = judge(promised, arrivals(promised))
    assert verdict.is_clean
    assert (verdict.promised, verdict.arrived, verdict.findings) == (10, 10, ())
    assert verdict.delays_ms == (5.0,) * 10


def test_a_message_that_never_came_is_lost_and_leaves_a_hole() -> None:
    promised = promises(10)
    messages = arrivals(promised)
    del messages[3]
    verdict = judge(promised, messages)
    assert (verdict.lost, verdict.holes, verdict.is_clean) == (1, 1, False)
    assert any("seq 4 never arrived" in finding for finding in verdict.findings)


def test_the_last_message_leaves_no_hole_and_is_lost_all_the_same() -> None:
    promised = promises(10)
    verdict = judge(promised, arrivals(promised)[:-1])
    assert (verdict.lost, verdict.holes, verdict.is_clean) == (1, 0, False)


def test_a_number_that_was_never_promised_and_never_came_is_a_hole() -> None:
    promised = [promise for promise in promises(10) if promise.seq != 4]
    verdict = judge(promised, arrivals(promised))
    assert (verdict.lost, verdict.holes, verdict.is_clean) == (0, 1, False)


def test_two_messages_that_changed_places_are_out_of_order() -> None:
    promised = promises(10)
    messages = arrivals(promised)
    messages[4], messages[5] = messages[5], messages[4]
    verdict = judge(promised, messages)
    assert (verdict.out_of_order, verdict.lost, verdict.holes, verdict.is_clean) == (1, 0, 0, False)


def test_messages_sent_again_are_duplicates_and_no_violation() -> None:
    promised = promises(10)
    messages = arrivals(promised)
    verdict = judge(promised, [*messages[:6], *messages[3:]])
    assert (verdict.duplicates_seen, verdict.duplicates_after_dedup, verdict.is_clean) == (3, 0, True)


def test_an_event_doubled_under_another_id_is_a_duplicate_that_no_subscriber_can_tell() -> None:
    promised = promises(10)
    messages = arrivals(promised)
    verdict = judge(promised, [*messages, replace(messages[3], id="another")])
    assert (verdict.duplicates_after_dedup, verdict.is_clean) == (1, False)


def test_an_event_that_took_the_number_of_a_promised_one_is_found_even_if_that_one_was_excused() -> None:
    promised = promises(3, durable=False)
    messages = [*arrivals(promised[:2]), replace(arrival(promised[2]), id="another")]
    verdict = judge(promised, messages, killed={"life 1"})
    assert (verdict.not_durable_lost, verdict.duplicates_after_dedup, verdict.is_clean) == (1, 1, False)


def test_an_event_that_comes_again_with_another_number_is_found() -> None:
    promised = promises(10)
    messages = arrivals(promised)
    verdict = judge(promised, [*messages, replace(messages[3], seq=11)])
    assert (verdict.renumbered, verdict.is_clean) == (1, False)
    other = judge(promised, [replace(messages[0], series="b" * 32), *messages[1:]])
    assert (other.renumbered, other.is_clean) == (1, False)


def test_an_event_that_comes_again_with_another_content_is_found() -> None:
    promised = promises(2)
    messages = arrivals(promised)
    verdict = judge(promised, [*messages, replace(messages[1], digest=b"other")])
    assert (verdict.altered, verdict.is_clean) == (1, False)


def test_only_what_was_in_memory_of_a_killed_process_is_excused() -> None:
    kept, stray = promises(3), promises(3, series="b" * 32, durable=False)
    came = arrivals([*kept, *stray[:2]])
    assert judge([*kept, *stray], came).lost == 1
    verdict = judge([*kept, *stray], came, killed={"life 1"})
    assert (verdict.lost, verdict.not_durable_lost, verdict.is_clean) == (0, 1, True)
    assert judge([*kept, *stray], came[1:], killed={"life 1"}).lost == 1


def test_devices_and_series_are_judged_apart() -> None:
    one, two = promises(5), promises(5, series="b" * 32)
    mixed = [message for pair in zip(arrivals(two), arrivals(one), strict=True) for message in pair]
    assert judge([*one, *two], mixed).is_clean


def test_an_event_that_the_device_had_no_time_to_promise_is_counted_and_no_violation() -> None:
    promised = promises(4)
    verdict = judge(promised[:3], arrivals(promised))
    assert (verdict.unpromised, verdict.is_clean) == (1, True)


@given(some.data())
def test_any_dropped_swapped_doubled_or_renumbered_message_is_noticed(data: some.DataObject) -> None:
    promised = promises(data.draw(some.integers(2, 30)))
    messages = arrivals(promised)
    index = data.draw(some.integers(0, len(messages) - 2))
    damage = data.draw(some.sampled_from(["drop", "swap", "double", "renumber"]))
    if damage == "drop":
        del messages[index]
    elif damage == "swap":
        messages[index], messages[index + 1] = messages[index + 1], messages[index]
    elif damage == "double":
        messages.insert(index, replace(messages[index], id="another"))
    else:
        messages[index] = replace(messages[index], seq=messages[index].seq + 1)
    assert judge(promised, arrivals(promised)).is_clean
    assert not judge(promised, messages).is_clean


def test_a_percentile_is_one_of_the_values() -> None:
    assert [percentile(range(1, 101), percent) for percent in (0, 50, 99, 100)] == [1, 50, 99, 100]


def test_the_mark_that_an_event_is_sent_again_does_not_count_as_another_content() -> None:
    event = b'{"device_id":"lab-03","series":"a","seq":7,"id":"x","replayed":%s,"more":%d}'
    live, again, other = (read(event % values, 0) for values in ((b"false", 1), (b"true", 1), (b"true", 2)))
    assert live == again
    assert live.digest != other.digest


class Echo:
    """A server that answers every byte with itself."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.received = bytearray()
        self.ended = 0
        """Connections that are over."""
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    self.received += data
                    connection.sendall(data)
            except OSError:
                pass
        self.ended += 1


@pytest.fixture
def echo() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    echo.close()


@pytest.fixture
def relay(echo: Echo) -> Iterator[Relay]:
    with Relay(echo.port) as relay:
        yield relay


def connected(relay: Relay) -> socket.socket:
    return socket.create_connection(("127.0.0.1", relay.port), timeout=10)


def exchange(connection: socket.socket, data: bytes) -> bytes:
    """Send, and receive as many bytes."""
    sender = threading.Thread(target=connection.sendall, args=(data,))
    sender.start()
    received = bytearray()
    while len(received) < len(data) and (more := connection.recv(65536)):
        received += more
    sender.join()
    return bytes(received)


def is_reset_at_once(relay: Relay) -> None:
    """The reset may come before `connect` has returned."""
    with pytest.raises(ConnectionResetError), connected(relay) as connection:
        connection.recv(1)


def is_silent(connection: socket.socket) -> bool:
    connection.settimeout(0.1)
    try:
        return connection.recv(1) is None
    except TimeoutError:
        return True
    finally:
        connection.settimeout(10)


def test_a_healthy_relay_passes_everything_both_ways(relay: Relay) -> None:
    data = bytes(range(256)) * 8192
    with connected(relay) as one, connected(relay) as two:
        assert exchange(one, b"hello") == b"hello"
        assert exchange(two, data) == data


def test_a_cut_resets_both_sides_and_the_next_connection_works(relay: Relay) -> None:
    with connected(relay) as connection:
        exchange(connection, b"hello")
        relay.cut()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with connected(relay) as connection:
        assert exchange(connection, b"again") == b"again"
    assert (relay.accepted, relay.cuts) == (2, 1)


def test_an_abandoned_connection_is_gone_for_the_device_and_there_for_the_broker(
    relay: Relay, echo: Echo
) -> None:
    with connected(relay) as connection:
        exchange(connection, b"hello")
        relay.abandon()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with connected(relay) as connection:
        assert exchange(connection, b"again") == b"again"
    assert echo.ended == 0
    relay.cut()


def test_a_refusing_relay_resets_new_connections_only_until_it_heals(relay: Relay) -> None:
    with connected(relay) as old:
        exchange(old, b"hello")
        relay.refuse()
        is_reset_at_once(relay)
        assert exchange(old, b"still") == b"still"
        relay.heal()
        with connected(relay) as new:
            assert exchange(new, b"healed") == b"healed"


def test_a_stalled_relay_holds_everything_back_and_delivers_it_once_healed(relay: Relay) -> None:
    with connected(relay) as old:
        exchange(old, b"hello")
        relay.stall()
        with connected(relay) as new:
            old.sendall(b"old")
            new.sendall(b"new")
            assert is_silent(old)
            assert is_silent(new)
            relay.heal()
            assert old.recv(3, socket.MSG_WAITALL) == b"old"
            assert new.recv(3, socket.MSG_WAITALL) == b"new"


def test_swallowed_answers_never_come_and_healing_ends_that_connection(
    relay: Relay, echo: Echo, until: object
) -> None:
    with connected(relay) as connection:
        exchange(connection, b"hello")
        relay.swallow()
        connection.sendall(b"lost")
        assert callable(until)
        until(lambda: echo.received == b"hellolost", "the bytes at the server")
        assert is_silent(connection)
        relay.heal()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_a_cut_within_a_message_passes_its_first_bytes_and_then_refuses(relay: Relay, echo: Echo) -> None:
    with connected(relay) as connection:
        exchange(connection, b"hello")
        relay.cut_after(3)
        connection.sendall(b"message")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
        is_reset_at_once(relay)
    assert bytes(echo.received) in (b"hello", b"hellomes")


def test_without_a_broker_a_connection_is_reset(echo: Echo) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with Relay(port) as relay:
        is_reset_at_once(relay)


def test_an_outbox_that_has_delivered_what_it_held_notices_that_the_disk_is_well_again(disk: Disk) -> None:
    if isinstance(disk, PlainDisk):
        pytest.skip("fills the disk of this very process, which needs one of its own: root")
    outbox = Outbox(disk.folder, OutboxConfig(), History())
    disk.fill(0)
    outbox.append([{"id": "x", "text": "y" * LOG_BYTES}])
    assert "full" in outbox.problem
    (held,) = outbox.peek(-1, 10)
    outbox.acknowledge(held.position)
    disk.free()
    outbox.flush()
    assert not outbox.problem
    outbox.close()


EVENT = '{"device_id":"lab-03","series":"a","seq":%d,"id":"%d","replayed":false}'


@needs_mosquitto
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_subscriber_gets_what_was_published_around_a_restart_of_the_broker(
    protocol: str, tmp_path: Path
) -> None:
    with Broker(tmp_path) as broker, Subscriber(broker.port, protocol=protocol) as subscriber:
        for first in (1, 101, 201):
            publish(broker.port, range(first, first + 100))
            if first < 201:
                broker.restart(down_s=0.0)
        assert subscriber.collect()
        assert [message.seq for message in {one.id: one for one in subscriber.arrived}.values()] == list(
            range(1, 301)
        )
        assert (subscriber.sessions_lost, subscriber.unreadable, broker.restarts) == (0, [], 2)


def publish(port: int, numbers: range) -> None:
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", port)
    client.loop_start()
    sent = [client.publish("microedge/lab-03/event", EVENT % (number, number), qos=1) for number in numbers]
    for message in sent:
        message.wait_for_publish(20)
    client.disconnect()
    client.loop_stop()


@pytest.fixture(params=["a file system of its own", "a limit of the process"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    disk = make_disk(tmp_path / "state", small=request.param == "a file system of its own")
    yield disk
    disk.remove()


WRITER = """
import sys
for line in sys.stdin:
    try:
        with open(sys.argv[1], "ab") as file:
            file.write(bytes(100_000))
        print("written", flush=True)
    except OSError:
        print("full", flush=True)
"""


def test_a_full_disk_takes_nothing_until_it_is_freed(disk: Disk) -> None:
    words = [sys.executable, "-c", WRITER, str(disk.folder / "file")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        disk.began(writer.pid)
        for change, expected in (
            (disk.free, "written"),
            (partial(disk.fill, 0), "full"),
            (disk.free, "written"),
        ):
            change()
            writer.stdin.write("\n")
            writer.stdin.flush()
            assert writer.stdout.readline().strip() == expected
        writer.stdin.close()
