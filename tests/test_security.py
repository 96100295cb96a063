"""Who is not the right broker, or may not do a thing, gets nowhere; and nothing that is secret is ever shown."""

import queue
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Protocol

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

Until = Callable[..., None]


class Authority(Protocol):
    """What the fixtures give: see conftest."""

    file: Path

    def issue(
        self, name: str, purpose: str = ..., *, days: int = ..., names: str = ...
    ) -> tuple[Path, Path]: ...


class Fleet(Protocol):
    """As above."""

    PASSWORDS: ClassVar[dict[str, str]]
    port: int
    certificate_port: int
    websocket_port: int
    authority: Authority


class Client:
    """Somebody at the fleet's broker: a person, a service, or a device that does not behave."""

    def __init__(self, fleet: Fleet, user: str, *filters: str, over: str = "tls") -> None:
        """Connect and subscribe.

        Args:
            fleet: the broker.
            user: a name that has a password there, or for which a certificate is made.
            filters: what to subscribe to.
            over: "tls" or "websockets", with a password; or "certificate".
        """
        self.refusals: queue.Queue[str] = queue.Queue()
        self._arrived: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._answers: queue.Queue[tuple[int, Any]] = queue.Queue()
        subscribed = threading.Event()
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2,
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
            (message.topic, bytes(message.payload))
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
            topic, message = self._arrived.get(timeout=20)
            seen.append((topic, message.decode()))
        return seen

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def join(fleet: Fleet) -> Iterator[Callable[..., Client]]:
    """Make somebody at the fleet's broker."""
    made: list[Client] = []

    def make(user: str, *filters: str, over: str = "tls") -> Client:
        made.append(client := Client(fleet, user, *filters, over=over))
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
