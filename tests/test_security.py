"""Who is not the right broker, or may not do a thing, gets nowhere; and nothing that is secret is ever shown."""

import logging
import os
import queue
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Protocol

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge.config import History, Mqtt, load
from edge.config import Outbox as OutboxConfig
from edge.out.mqtt import connection, echo
from edge.out.mqtt.commands import Command, CommandDesk
from edge.out.mqtt.credentials import tls_context
from edge.out.mqtt.sink import MqttSink
from edge.payload import PayloadWriter
from edge.records import Event
from edge.store.outbox import Counts, Outbox
from tools.delivery.relay import Relay

ROOT = Path(__file__).parents[1]
BACKOFF_S = (0.02, 0.1)
PATIENT_S = (3600.0, 3600.0)
"""A wait that outlives the test: a second attempt would be one too many."""
Until = Callable[..., None]


class Authority(Protocol):
    """What the fixtures give: see conftest."""

    file: Path

    def issue(
        self, name: str, purpose: str = ..., *, days: int = ..., names: str = ...
    ) -> tuple[Path, Path]: ...


class Broker(Protocol):
    """As above."""

    port: int
    websocket_port: int

    def start(self, access: str = ..., *, websockets: bool = ...) -> None: ...

    def stop(self) -> None: ...


class Fleet(Protocol):
    """As above."""

    PASSWORDS: ClassVar[dict[str, str]]
    port: int
    certificate_port: int
    websocket_port: int
    authority: Authority


class Client:
    """Somebody at the fleet's broker: a person, a service, or a device that does not behave."""

    def __init__(
        self, fleet: Fleet, user: str, *filters: str, over: str = "tls", client_id: str = ""
    ) -> None:
        """Connect and subscribe.

        Args:
            fleet: the broker.
            user: a name that has a password there, or for which a certificate is made.
            filters: what to subscribe to.
            over: "tls" or "websockets", with a password; or "certificate".
            client_id: one to pretend to; empty: one of its own.
        """
        self._arrived: queue.Queue[tuple[str, str]] = queue.Queue()
        self._seen: list[tuple[str, str]] = []
        self._answers: queue.Queue[tuple[int, Any]] = queue.Queue()
        subscribed = threading.Event()
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            transport="websockets" if over == "websockets" else "tcp",
        )
        context = ssl.create_default_context(cafile=str(fleet.authority.file))
        if over == "certificate":
            context.load_cert_chain(*fleet.authority.issue(user))
        else:
            self.client.username_pw_set(user, fleet.PASSWORDS[user])
        self.client.tls_set_context(context)
        self.client.on_message = lambda client, userdata, message: self._arrived.put(
            (message.topic, message.payload.decode())
        )
        self.client.on_publish = lambda client, userdata, mid, reason, properties: self._answers.put(
            (mid, reason)
        )
        self.client.on_connect = lambda client, *_: client.subscribe(
            [(each, 1) for each in (f"microedge/{user}/availability", *filters)]
        )
        self.client.on_subscribe = lambda *_: subscribed.set()
        ports = {"tls": fleet.port, "certificate": fleet.certificate_port, "websockets": fleet.websocket_port}
        self.client.connect("127.0.0.1", ports[over])
        self.client.loop_start()
        assert subscribed.wait(20), f"{user} could not connect"

    def publish(self, topic: str, payload: str, retain: bool = False) -> str:
        """Publish and give the broker's verdict: "Success", or why not."""
        sent = self.client.publish(topic, payload, qos=1, retain=retain)
        while True:
            mid, reason = self._answers.get(timeout=20)
            if mid == sent.mid:
                return str(reason)

    def arrived_until(self, payload: str) -> list[tuple[str, str]]:
        """Give what came, in order, up to and with the message that is `payload`."""
        seen = []
        while not seen or seen[-1][1] != payload:
            seen.append(self._arrived.get(timeout=20))
        return seen

    def so_far(self) -> list[tuple[str, str]]:
        """Give all that has come since it connected, without waiting."""
        while not self._arrived.empty():
            self._seen.append(self._arrived.get())
        return self._seen

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def join(fleet: Fleet) -> Iterator[Callable[..., Client]]:
    """Make somebody at the fleet's broker."""
    made: list[Client] = []

    def make(user: str, *filters: str, **how: str) -> Client:
        made.append(client := Client(fleet, user, *filters, **how))
        return client

    yield make
    for client in made:
        client.close()


OF_A_DEVICE = ("availability", "event", "health", "info", "response/pause")
FORBIDDEN_TO_DEVICES = (
    *(f"microedge/lab-04/{name}" for name in (*OF_A_DEVICE, "command/wipe", "other")),
    "microedge/lab-03/command/wipe",
    "microedge/lab-03/other",
    "microedge/lab-03",
    "microedge/lab-03/event/more",
    "homeassistant/device/lab-04/config",
    "homeassistant/sensor/lab-03/config",
    "homeassistant/status",
    "elsewhere",
)


@pytest.mark.parametrize("over", ["tls", "certificate"])
def test_a_device_writes_its_own_topics_and_no_others(over: str, join: Callable[..., Client]) -> None:
    dashboard, home = join("dashboard", "microedge/#"), join("homeassistant", "homeassistant/#")
    device = join("lab-03", over=over)
    for topic in FORBIDDEN_TO_DEVICES:
        assert device.publish(topic, "forged") == "Not authorized", topic
    for name in OF_A_DEVICE:
        assert device.publish(f"microedge/lab-03/{name}", name) == "Success"
    assert device.publish("homeassistant/device/lab-03/config", "last") == "Success"
    # Nothing of what was refused came before it.
    assert dashboard.arrived_until(OF_A_DEVICE[-1]) == [
        (f"microedge/lab-03/{name}", name) for name in OF_A_DEVICE
    ]
    assert home.arrived_until("last") == [("homeassistant/device/lab-03/config", "last")]


@pytest.mark.parametrize("over", ["tls", "certificate"])
def test_a_device_reads_its_own_commands_and_nothing_of_another(
    over: str, join: Callable[..., Client]
) -> None:
    other, operator, home = join("lab-04"), join("operator"), join("homeassistant")
    device = join("lab-03", "#", "microedge/#", "microedge/+/command/+", "homeassistant/#", over=over)
    for name in OF_A_DEVICE:
        assert other.publish(f"microedge/lab-04/{name}", "not for others") == "Success"
    assert operator.publish("microedge/lab-04/command/pause", "not for others") == "Success"
    assert home.publish("homeassistant/status", "not for others") == "Success"
    assert operator.publish("microedge/lab-03/command/pause", "for it") == "Success"
    assert set(device.arrived_until("for it")) == {("microedge/lab-03/command/pause", "for it")}


def test_a_device_reads_back_what_it_needs_to_know_that_messages_get_through(
    join: Callable[..., Client],
) -> None:
    device = join("lab-03", "microedge/lab-03/event")
    device.publish("microedge/lab-03/availability", "a")
    device.publish("microedge/lab-03/event", "e")
    assert device.arrived_until("e") == [
        ("microedge/lab-03/availability", "a"),
        ("microedge/lab-03/event", "e"),
    ]


@pytest.mark.parametrize("over", ["tls", "websockets"])
def test_a_dashboard_sees_everything_and_changes_nothing(over: str, join: Callable[..., Client]) -> None:
    dashboard, device, operator = join("dashboard", "#", over=over), join("lab-03"), join("operator")
    for topic in ("microedge/lab-03/command/wipe", "microedge/lab-03/event", "homeassistant/device/x/config"):
        assert dashboard.publish(topic, "forged") == "Not authorized"
    device.publish("microedge/lab-03/event", "e")
    operator.publish("microedge/lab-03/command/pause", "p")
    assert dashboard.arrived_until("p") == [
        ("microedge/lab-03/event", "e"), ("microedge/lab-03/command/pause", "p")
    ]  # fmt: skip


def test_an_operator_sends_every_command_and_speaks_for_no_device(join: Callable[..., Client]) -> None:
    operator, device = join("operator"), join("lab-03", "microedge/lab-03/command/+")
    for topic in (
        "microedge/lab-03/event",
        "microedge/lab-03/response/pause",
        "homeassistant/device/x/config",
    ):
        assert operator.publish(topic, "forged") == "Not authorized"
    for name in ("pause", "resume", "identify", "context", "wipe"):
        assert operator.publish(f"microedge/lab-03/command/{name}", name) == "Success"
    assert [payload for _, payload in device.arrived_until("wipe")] == [
        "pause", "resume", "identify", "context", "wipe"
    ]  # fmt: skip


def test_home_assistant_presses_the_buttons_it_is_offered_and_no_others(
    join: Callable[..., Client],
) -> None:
    home, device = join("homeassistant", "microedge/#"), join("lab-03", "microedge/lab-03/command/+")
    for name in ("wipe", "context"):
        assert home.publish(f"microedge/lab-03/command/{name}", "forged") == "Not authorized"
    assert home.publish("microedge/lab-03/event", "forged") == "Not authorized"
    for name in ("pause", "resume", "identify"):
        assert home.publish(f"microedge/lab-03/command/{name}", name) == "Success"
    assert len(device.arrived_until("identify")) == 3
    device.publish("microedge/lab-03/health", "h")
    assert ("microedge/lab-03/health", "h") in home.arrived_until("h")


class Bench:
    """Makes devices with events to deliver, and relays that count who comes."""

    def __init__(self, folder: Path, make_event: Callable[..., Event], until: Until) -> None:
        self.until = until
        self._folder, self.event = folder, make_event()
        self._writer = PayloadWriter("lab-03", "boot-1", 1_795_428_902_000_000_000, {"spotter": "0" * 64})
        self._closers: list[Callable[[], None]] = []

    def relay(self, port: int) -> Relay:
        relay = Relay(port)
        self._closers.append(relay.close)
        return relay

    def device(
        self,
        port: int,
        device_id: str = "lab-03",
        *,
        desk: CommandDesk | None = None,
        backoff_s: tuple[float, float] = BACKOFF_S,
        **settings: Any,
    ) -> tuple[MqttSink, Outbox]:
        """Give a device with 20 events that wait, and their outbox."""
        settings = {name: str(value) if name.endswith("_file") else value for name, value in settings.items()}
        outbox = Outbox(None, OutboxConfig(), History(days=0))
        outbox.append([self._writer.write(self.event, "0" * 32, 1) for _ in range(20)])
        config = Mqtt(**{"host": "127.0.0.1", "port": port, **settings})
        sink = MqttSink(config, device_id, outbox, desk=desk, backoff_s=backoff_s)
        self._closers += [outbox.close, sink.close]
        return sink, outbox

    def password_file(self, password: str) -> Path:
        path = self._folder / "password"
        path.touch(0o600)
        path.write_text(password)
        return path

    def delivers(self, port: int, device_id: str = "lab-03", **settings: Any) -> None:
        """Fail the test unless a device with these settings delivers all it has."""
        sink, outbox = self.device(port, device_id, **settings)
        everything = Counts(waiting=0, confirmed=20, lost=0)
        self.until(lambda: outbox.counts() == everything, f"every confirmation; {sink.problem}")
        assert sink.connected

    def close(self) -> None:
        for close in reversed(self._closers):
            close()


@pytest.fixture
def bench(
    tmp_path: Path, make_event: Callable[..., Event], until: Until, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    # Most of these devices never get rid of what they have.
    monkeypatch.setattr(connection, "CLOSE_TIMEOUT_S", 0.5)
    bench = Bench(tmp_path, make_event, until)
    yield bench
    bench.close()


Settings = dict[str, Any]
Failure = tuple[int, Settings, str]
"""The broker's port, what is set beside it, and what the device says."""


class Wrong:
    """Ways to have the wrong broker, the wrong proof of who one is, or the wrong permission."""

    def __init__(
        self,
        fleet: Fleet,
        own_broker: Broker,
        authority: Authority,
        foreign_authority: Authority,
        bench: Bench,
    ) -> None:
        self._fleet, self._own_broker, self._bench = fleet, own_broker, bench
        self._authority, self._foreign = authority, foreign_authority
        self._trusting: Settings = {"tls": True, "ca_file": authority.file}
        self._known = {
            **self._trusting, "username": "lab-03",
            "password_file": bench.password_file(fleet.PASSWORDS["lab-03"]),
        }  # fmt: skip

    def password(self) -> Failure:
        self._bench.password_file("wrong")
        return (
            self._fleet.port,
            self._known,
            "refused: Not authorized; are mqtt.username and mqtt.password_file",
        )

    def no_password(self) -> Failure:
        return self._fleet.port, self._trusting, "refused: Not authorized; are mqtt.username"

    def foreign_broker(self) -> Failure:
        port = self._secured(*self._foreign.issue("broker", "serverAuth"))
        return port, self._trusting, "certificate is not accepted: .*; mqtt.ca_file must hold the authority"

    def broker_not_of_the_system(self) -> Failure:
        return self._fleet.port, {"tls": True}, "not accepted: .*; mqtt.ca_file must hold the authority"

    def expired_broker(self) -> Failure:
        port = self._secured(*self._authority.issue("broker", "serverAuth", days=-1))
        return port, self._trusting, "not accepted: certificate has expired; is this device's clock right"

    def broker_of_another_name(self) -> Failure:
        port = self._secured(*self._authority.issue("broker", "serverAuth", names="DNS:elsewhere"))
        return port, self._trusting, "not accepted: .*mismatch.*mqtt.host and mqtt.alternates must be"

    def device_that_poses_as_the_broker(self) -> Failure:
        port = self._secured(*self._authority.issue("lab-04", "clientAuth"))
        return port, self._trusting, "not accepted: .*purpose"

    def no_certificate(self) -> Failure:
        return self._fleet.certificate_port, self._trusting, r"want a certificate .*\(mqtt.certificate_file\)"

    def foreign_certificate(self) -> Failure:
        return self._with_certificate(*self._foreign.issue("lab-03"))

    def expired_certificate(self) -> Failure:
        return self._with_certificate(*self._authority.issue("lab-03", days=-1))

    def broker_certificate_shown_by_a_device(self) -> Failure:
        return self._with_certificate(*self._authority.issue("broker", "serverAuth"))

    def encrypted_although_the_broker_is_not(self) -> Failure:
        self._own_broker.start()
        return self._own_broker.port, self._trusting, "does the broker speak TLS at this mqtt.port"

    def plain_although_the_broker_is_not(self) -> Failure:
        return self._fleet.port, {}, r"without an answer: does it want TLS \(mqtt.tls\)"

    def websocket_where_there_is_none(self) -> Failure:
        return self._fleet.port, {**self._known, "transport": "websockets"}, r'no WebSocket at .* = "/mqtt"'

    def no_websocket_where_there_is_one(self) -> Failure:
        return self._fleet.websocket_port, self._known, "without an answer: .*another mqtt.transport"

    def another_device(self) -> Failure:
        """A user whom the access list does not let publish, over MQTT 5: the broker says so."""
        settings = {**self._known, "device_id": "lab-04"}
        return self._fleet.port, settings, "microedge/lab-04/availability: refused: Not authorized"

    def another_device_unnoticed(self) -> Failure:
        """The same over MQTT 3.1.1, where mosquitto confirms what it throws away; only the echo tells."""
        port, settings, _ = self.another_device()
        return port, {**settings, "protocol": "3.1.1"}, "confirmed a message but did not pass it on"

    def _secured(self, certificate: Path, key: Path) -> int:
        self._own_broker.start(f"allow_anonymous true\ncertfile {certificate}\nkeyfile {key}")
        return self._own_broker.port

    def _with_certificate(self, certificate: Path, key: Path) -> Failure:
        settings = {**self._trusting, "certificate_file": certificate, "key_file": key}
        return self._fleet.certificate_port, settings, "does it know who issued mqtt.certificate_file"


WRONG = [name for name in vars(Wrong) if not name.startswith("_")]


@pytest.fixture
def wrong(
    fleet: Fleet, own_broker: Broker, authority: Authority, foreign_authority: Authority, bench: Bench
) -> Wrong:
    return Wrong(fleet, own_broker, authority, foreign_authority, bench)


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_and_not_tried_again_before_the_wait_is_over(
    what: str, wrong: Wrong, bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(echo, "TIMEOUT_S", 0.3)
    caplog.set_level(logging.INFO)
    port, settings, expected = getattr(wrong, what)()
    relay = bench.relay(port)
    sink, outbox = bench.device(relay.port, backoff_s=PATIENT_S, **settings)
    bench.until(lambda: sink.problem != "not connected yet", "a problem")
    assert re.search(expected, sink.problem)
    assert not sink.connected
    for number in range(100):
        sink.publish_health({"number": number})
        sink.publish(bench.event, {})
    bench.until(lambda: "trying again" in caplog.text, "the log")
    assert relay.accepted == 1
    assert outbox.counts() == Counts(waiting=20, confirmed=0, lost=0)
    assert f"{sink.problem}; trying again" in caplog.text
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("what", WRONG)
def test_what_stays_wrong_is_logged_once(
    what: str, wrong: Wrong, bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(echo, "TIMEOUT_S", 0.1)
    caplog.set_level(logging.INFO)
    port, settings, _ = getattr(wrong, what)()
    relay = bench.relay(port)
    _, outbox = bench.device(relay.port, **settings)
    bench.until(lambda: relay.accepted >= 3, "three attempts")
    told = [record.getMessage() for record in caplog.records if "trying again" in record.getMessage()]
    assert len(told) == 1, told
    assert outbox.counts() == Counts(waiting=20, confirmed=0, lost=0)


def test_nothing_of_a_device_that_takes_another_name_reaches_anybody(
    fleet: Fleet, wrong: Wrong, bench: Bench, join: Callable[..., Client]
) -> None:
    dashboard = join("dashboard", "#")
    for what in (wrong.another_device, wrong.another_device_unnoticed):
        port, settings, _ = what()
        relay = bench.relay(port)
        bench.device(relay.port, **settings)
        bench.until(lambda relay=relay: relay.accepted >= 2, "a second attempt")
    join("lab-03").publish("microedge/lab-03/response/pause", "marker")
    assert dashboard.arrived_until("marker") == [("microedge/lab-03/response/pause", "marker")]


def test_events_wait_until_the_broker_is_the_right_one_again(
    own_broker: Broker, authority: Authority, bench: Bench
) -> None:
    def secured(days: int) -> str:
        certificate, key = authority.issue("broker", "serverAuth", days=days)
        return f"allow_anonymous true\ncertfile {certificate}\nkeyfile {key}"

    own_broker.start(secured(-1))
    sink, outbox = bench.device(own_broker.port, tls=True, ca_file=authority.file)
    bench.until(lambda: "expired" in sink.problem, "the refusal of an expired certificate")
    own_broker.stop()
    own_broker.start(secured(2))
    bench.until(lambda: outbox.counts() == Counts(waiting=0, confirmed=20, lost=0), "every confirmation")


def test_a_broker_that_is_not_right_does_not_keep_the_device_from_the_next(
    fleet: Fleet, own_broker: Broker, foreign_authority: Authority, bench: Bench
) -> None:
    certificate, key = foreign_authority.issue("broker", "serverAuth")
    own_broker.start(f"allow_anonymous true\ncertfile {certificate}\nkeyfile {key}")
    bench.delivers(
        own_broker.port, alternates=(f"127.0.0.1:{fleet.port}",), tls=True, ca_file=fleet.authority.file,
        username="lab-03", password_file=bench.password_file(fleet.PASSWORDS["lab-03"]),
    )  # fmt: skip


@pytest.mark.parametrize("settings", [{"tls": True}, {"transport": "websockets"}], ids=["TLS", "WebSocket"])
def test_a_broker_that_never_greets_is_given_up(
    settings: Settings, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.out.mqtt.client.CONNECT_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sink, outbox = bench.device(silent.getsockname()[1], backoff_s=PATIENT_S, **settings)
        bench.until(lambda: sink.problem == "nothing answers there in time", "a problem")
    assert outbox.counts().waiting == 20


BOTH = pytest.mark.parametrize("protocol", ["5", "3.1.1"])


@BOTH
@pytest.mark.parametrize("transport", ["tcp", "websockets"])
def test_a_device_with_the_right_password_delivers(
    transport: str, protocol: str, fleet: Fleet, bench: Bench
) -> None:
    bench.delivers(
        fleet.websocket_port if transport == "websockets" else fleet.port, transport=transport,
        protocol=protocol, tls=True, ca_file=fleet.authority.file, username="lab-03",
        password_file=bench.password_file(f"{fleet.PASSWORDS['lab-03']}\n"),
    )  # fmt: skip


@BOTH
def test_a_device_with_the_right_certificate_needs_no_password(
    protocol: str, fleet: Fleet, bench: Bench
) -> None:
    certificate, key = fleet.authority.issue("lab-03")
    bench.delivers(
        fleet.certificate_port, protocol=protocol, tls=True, ca_file=fleet.authority.file,
        certificate_file=certificate, key_file=key,
    )  # fmt: skip


@BOTH
def test_a_plain_websocket_delivers_below_another_path_too(
    protocol: str, own_broker: Broker, bench: Bench
) -> None:
    own_broker.start(websockets=True)
    bench.delivers(
        own_broker.websocket_port, transport="websockets", websocket_path="/ours/mqtt", protocol=protocol,
    )  # fmt: skip


def test_without_the_host_check_the_name_may_differ_but_not_the_authority(
    own_broker: Broker, authority: Authority, foreign_authority: Authority, bench: Bench
) -> None:
    certificate, key = authority.issue("broker", "serverAuth", names="DNS:elsewhere")
    own_broker.start(f"allow_anonymous true\ncertfile {certificate}\nkeyfile {key}")
    loose = {"tls": True, "check_hostname": False}
    bench.delivers(own_broker.port, ca_file=authority.file, **loose)
    sink, outbox = bench.device(own_broker.port, ca_file=foreign_authority.file, **loose)
    bench.until(lambda: "certificate is not accepted" in sink.problem, "a refusal")
    assert outbox.counts().waiting == 20


def test_a_broker_is_known_by_its_name_as_well_as_by_its_address(
    own_broker: Broker, authority: Authority, bench: Bench
) -> None:
    certificate, key = authority.issue("broker", "serverAuth", names="DNS:localhost")
    own_broker.start(f"allow_anonymous true\ncertfile {certificate}\nkeyfile {key}")
    bench.delivers(own_broker.port, host="localhost", tls=True, ca_file=authority.file)


def test_one_device_cannot_end_the_connection_of_another_by_taking_its_client_id(
    fleet: Fleet, bench: Bench, join: Callable[..., Client]
) -> None:
    certificate, key = fleet.authority.issue("lab-03")
    access = {"tls": True, "ca_file": fleet.authority.file, "certificate_file": certificate, "key_file": key}
    sink, _ = bench.device(fleet.certificate_port, **access)
    bench.until(lambda: sink.connected, "a connection")
    dashboard = join("dashboard", "microedge/#")
    intruder = join("lab-04", client_id="microedge-lab-03")
    intruder.publish("microedge/lab-04/event", "marker")
    seen = dashboard.arrived_until("marker")
    # Had the connection been taken over, the broker would have published the last will before this.
    assert not [message for _, message in seen if "offline" in message]


@BOTH
def test_the_access_list_lets_a_device_do_all_that_it_does(
    protocol: str, fleet: Fleet, bench: Bench, join: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    dashboard, home = join("dashboard", "microedge/lab-03/#"), join("homeassistant", "homeassistant/#")
    operator = join("operator")
    certificate, key = fleet.authority.issue("lab-03")
    desk = CommandDesk("microedge/lab-03", "lab-03")
    sink, outbox = bench.device(
        fleet.certificate_port, protocol=protocol, desk=desk, tls=True, ca_file=fleet.authority.file,
        certificate_file=certificate, key_file=key,
    )  # fmt: skip
    sink.publish_info({"info": 1})
    sink.publish_health({"health": 1})
    sink.publish_discovery({"discovery": 1})
    bench.until(lambda: outbox.counts().confirmed == 20, "every confirmation")
    operator.publish("microedge/lab-03/command/identify", "{}")
    commands: list[Command] = []
    bench.until(lambda: commands or ((one := desk.next()) and commands.append(one)), "the command")
    sink.answer(desk.done(commands[0], {}))
    bench.until(lambda: any("/response/" in topic for topic, _ in dashboard.so_far()), "the answer")
    sink.close()
    bench.until(lambda: "offline" in dashboard.so_far()[-1][1], "the farewell")
    names = {topic.removeprefix("microedge/lab-03/") for topic, _ in dashboard.so_far()}
    assert names == {"availability", "event", "info", "health", "command/identify", "response/identify"}
    assert home.arrived_until('{"discovery":1}')[-1][0] == "homeassistant/device/lab-03/config"
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="the process list is read from /proc")
@pytest.mark.parametrize("proof", ["password", "wrong password", "certificate"])
def test_nothing_secret_shows_in_the_process_list_the_log_or_the_configuration(
    proof: str, fleet: Fleet, bench: Bench, tmp_path: Path, join: Callable[..., Client]
) -> None:
    """With everything that is logged at `debug`, once the device is let in or refused, and to its end."""
    certificate, key = fleet.authority.issue("lab-03")
    by_certificate = proof == "certificate"
    content = {
        "password": fleet.PASSWORDS["lab-03"], "wrong password": "wrong but secret", "certificate": key.read_text()
    }[proof]  # fmt: skip
    (tmp_path / "proof").write_text(content)
    (tmp_path / "proof").chmod(0o400)
    secrets = [line.encode() for line in content.splitlines() if not line.startswith("-----")]
    settings = {
        "device.id": "lab-03", "log.level": "debug", "leds.enabled": "false", "outbox.folder": str(tmp_path / "state"),
        "camera.source": "synthetic", "camera.width": "320", "camera.height": "240",
        "mqtt.host": "127.0.0.1", "mqtt.port": str(fleet.certificate_port if by_certificate else fleet.port),
        "mqtt.tls": "true", "mqtt.ca_file": str(fleet.authority.file),
    }  # fmt: skip
    if by_certificate:
        settings |= {"mqtt.certificate_file": str(certificate), "mqtt.key_file": "proof"}
    else:
        settings |= {"mqtt.username": "lab-03", "mqtt.password_file": "proof"}
    overrides = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CREDENTIALS_DIRECTORY": str(tmp_path)}
    shown: list[bytes] = []
    for action in ("show", "check"):
        command = [sys.executable, "-m", "edge", "config", action, *overrides]
        shown.append(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)
    dashboard = join("dashboard", "microedge/lab-03/availability")
    log_path = tmp_path / "log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "edge", "run", *overrides], env=environment, stdout=log, stderr=log
        )
    try:
        if proof == "wrong password":
            bench.until(lambda: b"refused: Not authorized" in log_path.read_bytes(), "the refusal")
        else:
            bench.until(lambda: any("online" in text for _, text in dashboard.so_far()), "the device")
        folder = Path("/proc") / str(process.pid)
        shown += [(folder / name).read_bytes() for name in ("cmdline", "environ", "comm")]
    finally:
        process.terminate()
        assert process.wait(20) == 0
    shown.append(log_path.read_bytes())
    shown += [path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert b"mqtt: " in log_path.read_bytes()
    assert b"lab-03" in b"".join(shown)
    assert not [secret for secret in secrets if secret in b"".join(shown)]


def test_the_commands_of_the_broker_guide_make_what_its_configuration_names(tmp_path: Path) -> None:
    guide = (ROOT / "systemd" / "broker" / "README.md").read_text()
    blocks = re.findall(r"```(\w+)\n(.*?)```", guide, re.DOTALL)
    make = next(text for kind, text in blocks if kind == "sh")
    subprocess.run(["sh", "-eu", "-c", make], cwd=tmp_path, check=True, capture_output=True)
    for name, purpose in (("broker", "sslserver"), ("lab-03", "sslclient")):
        for asked in ("sslserver", "sslclient"):
            done = subprocess.run(
                ["openssl", "verify", "-CAfile", "authority.pem", "-purpose", asked, f"{name}.pem"],
                cwd=tmp_path, check=False, capture_output=True,
            )  # fmt: skip
            assert (done.returncode == 0) == (asked == purpose), (name, asked)
    written = next(text for kind, text in blocks if kind == "toml").replace("/etc/microedge", str(tmp_path))
    (tmp_path / "config.toml").write_text(written)
    (tmp_path / "mqtt-key").write_bytes((tmp_path / "lab-03.key").read_bytes())
    (tmp_path / "mqtt-key").chmod(0o400)
    config = load(tmp_path / "config.toml")
    assert config.device.id == "lab-03"
    assert tls_context(config.mqtt, {"CREDENTIALS_DIRECTORY": str(tmp_path)}) is not None
