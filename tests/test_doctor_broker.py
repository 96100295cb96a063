"""The doctor asks a real broker as the device would, and nobody else notices."""

import json
import os
import queue
import socket
import sysconfig
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Protocol

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge.config import Config, Device, History, Mqtt
from edge.config import Outbox as OutboxConfig
from edge.doctor import broker as area
from edge.doctor.case import Case
from edge.doctor.examine import Report, examine
from edge.doctor.finding import Finding, Verdict
from edge.doctor.system import System
from edge.out.mqtt.sink import MqttSink
from edge.store.outbox import Outbox
from tools.delivery.broker import free_port


class Authority(Protocol):
    file: Path

    def issue(
        self, name: str, purpose: str = ..., *, days: int = ..., names: str = ...
    ) -> tuple[Path, Path]: ...


class Fleet(Protocol):
    PASSWORDS: ClassVar[dict[str, str]]
    port: int
    websocket_port: int
    certificate_port: int
    authority: Authority

    def start(self, access: str = ...) -> None: ...

    def stop(self) -> None: ...


class Broker(Protocol):
    port: int

    def start(self, access: str = ...) -> None: ...


def look(device_id: str = "lab-03", system: System | None = None, **settings: Any) -> Report:
    config = Config(device=Device(id=device_id), mqtt=Mqtt(**{"host": "127.0.0.1", **settings}))
    return examine(Case(config, system=system or System()), ["broker"])


def found(report: Report, name: str) -> Finding:
    matching = [line.finding for line in report.lines if line.finding.name == name]
    assert matching, f"no {name} among {report.lines}"
    return matching[0]


@pytest.fixture
def password(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text("password of lab-03\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def login(fleet: Fleet, password: Path) -> dict[str, Any]:
    """The settings with which lab-03 gets into the fleet's broker."""
    return {
        "port": fleet.port, "username": "lab-03", "password_file": str(password), "tls": True,
        "ca_file": str(fleet.authority.file),
    }  # fmt: skip


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_the_fleets_broker_with_tls_passes_from_credentials_to_round_trip(
    login: dict[str, Any], protocol: str
) -> None:
    report = look(protocol=protocol, **login)
    assert [line.finding.verdict for line in report.lines if line.finding.name != "certificate"] == [
        "pass"
    ] * 3
    assert (
        found(report, "credentials").words
        == "mqtt.password_file, mqtt.ca_file: readable for those alone who should"
    )
    assert "let in as lab-03 in " in found(report, "login").words
    assert f"(MQTT {protocol})" in found(report, "login").words
    assert found(report, "round trip").words.startswith("microedge/lab-03/availability: came back in ")
    # The tests' certificates are valid for two days.
    assert found(report, "certificate").verdict is Verdict.WARN
    assert "less than 30" in found(report, "certificate").words


def test_a_client_certificate_opens_the_door_and_its_end_is_told(fleet: Fleet) -> None:
    certificate, key = fleet.authority.issue("lab-03")
    key.chmod(0o600)
    settings: dict[str, Any] = {
        "port": fleet.certificate_port, "tls": True, "ca_file": str(fleet.authority.file),
        "certificate_file": str(certificate), "key_file": str(key),
    }  # fmt: skip
    report = look(**settings)
    assert found(report, "round trip").verdict is Verdict.PASS
    assert "valid for 2 days" in found(report, "own certificate").words
    later = System(now=lambda: datetime.now(UTC) + timedelta(days=5))
    assert "has expired" in found(look(system=later, **settings), "own certificate").words


def test_a_certificate_that_has_expired_is_named(
    fleet: Fleet, own_broker: Any, login: dict[str, Any]
) -> None:
    certificate, key = fleet.authority.issue("broker", "serverAuth", days=-1)
    own_broker.run(
        f"listener {own_broker.port} 127.0.0.1\nallow_anonymous true\ncertfile {certificate}\nkeyfile {key}\n"
    )
    report = look(**{**login, "port": own_broker.port})
    assert found(report, "login").verdict is Verdict.FAIL
    assert "certificate has expired; is this device's clock right?" in found(report, "login").words


def test_a_wrong_password_is_named_with_the_settings_and_the_command(
    login: dict[str, Any], password: Path
) -> None:
    password.write_text("something else\n")
    report = look(**login)
    finding = found(report, "login")
    assert finding.verdict is Verdict.FAIL
    assert "are mqtt.username and mqtt.password_file right?" in finding.words
    assert "mosquitto_passwd /etc/mosquitto/passwords lab-03" in finding.advice
    assert report.exit_code == 1


def test_a_device_that_may_not_use_its_topics_is_told_so(login: dict[str, Any]) -> None:
    report = look("lab-99", **login)
    finding = found(report, "round trip")
    assert finding.verdict is Verdict.FAIL
    assert "microedge/lab-99/availability: publishing is refused: Not authorized" in finding.words
    assert "microedge.acl" in finding.advice
    with_proof_waived = look("lab-99", **login, check_echo=False)
    assert found(with_proof_waived, "round trip").verdict is Verdict.WARN


def test_a_password_that_everybody_may_read_is_named_and_no_login_is_tried(
    login: dict[str, Any], password: Path
) -> None:
    password.chmod(0o644)
    report = look(**login)
    finding = found(report, "credentials")
    assert finding.verdict is Verdict.FAIL
    assert "others may read it (mode 0644)" in finding.words
    assert finding.advice == f"sudo chmod 0640 {password}"
    assert found(report, "reachable").verdict is Verdict.PASS
    assert "login" not in {line.finding.name for line in report.lines}


def test_without_credentials_it_is_still_told_that_nothing_listens(password: Path) -> None:
    password.chmod(0o644)
    nobody = free_port()
    finding = found(look(port=nobody, password_file=str(password), username="lab-03"), "reachable")
    assert (finding.verdict, finding.words) == (Verdict.FAIL, f"127.0.0.1:{nobody}: nothing listens there")


def test_a_broker_that_is_not_there_is_a_failure_and_a_spare_one_a_warning(own_broker: Broker) -> None:
    nobody = free_port()
    report = look(port=nobody)
    assert found(report, "login").verdict is Verdict.FAIL
    assert found(report, "login").words == f"127.0.0.1:{nobody}: nothing listens there"
    own_broker.start()
    report = look(port=own_broker.port, alternates=(f"127.0.0.1:{nobody}",))
    assert [line.finding.verdict for line in report.lines if line.finding.name == "login"] == ["pass", "warn"]
    assert report.exit_code == 0


def test_something_else_that_listens_and_says_nothing_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.doctor.roundtrip.ANSWER_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        report = look(port=silent.getsockname()[1])
    assert "no answer within 0.2 s; is mqtt.protocol right?" in found(report, "login").words


def test_an_unencrypted_connection_to_another_machine_is_a_warning() -> None:
    assert not area._is_here("broker.example")
    assert area._is_here("127.0.0.1")
    assert area._is_here("localhost")


@pytest.fixture
def witness() -> Iterator[Callable[[int], "queue.Queue[paho.MQTTMessage]"]]:
    """Subscribe to everything on a broker, and give what arrives."""
    clients = []

    def watch(port: int) -> "queue.Queue[paho.MQTTMessage]":
        arrived: queue.Queue[paho.MQTTMessage] = queue.Queue()
        subscribed = threading.Event()
        client = paho.Client(CallbackAPIVersion.VERSION2)
        client.on_message = lambda client, userdata, message: arrived.put(message)
        client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        client.on_subscribe = lambda *_: subscribed.set()
        client.connect("127.0.0.1", port)
        client.loop_start()
        clients.append(client)
        assert subscribed.wait(20)
        return arrived

    yield watch
    for client in clients:
        client.disconnect()
        client.loop_stop()


def test_a_running_service_keeps_its_session_and_subscribers_hear_only_what_they_know(
    own_broker: Broker,
    witness: Callable[[int], "queue.Queue[paho.MQTTMessage]"],
    until: Callable[..., None],
    tmp_path: Path,
) -> None:
    own_broker.start()
    outbox = Outbox(tmp_path, OutboxConfig(), History())
    service = MqttSink(Mqtt(host="127.0.0.1", port=own_broker.port), "lab-03", outbox)
    try:
        until(lambda: service.connected, "the service is connected")
        arrived = witness(own_broker.port)
        known = arrived.get(timeout=20)
        assert known.retain
        assert json.loads(known.payload)["state"] == "online"
        assert found(look(port=own_broker.port), "round trip").verdict is Verdict.PASS
        again = arrived.get(timeout=20)
        assert (again.topic, again.payload, again.retain) == (known.topic, known.payload, False)
        assert service.connected
    finally:
        service.close()
        outbox.close()
    # The next is the service's own farewell: neither did it have to say anything, nor did the doctor leave a will.
    last = arrived.get(timeout=20)
    assert json.loads(last.payload) == {**json.loads(known.payload), "state": "offline"}


def test_on_a_broker_that_has_never_seen_the_device_nothing_stays(
    own_broker: Broker, witness: Callable[[int], "queue.Queue[paho.MQTTMessage]"]
) -> None:
    own_broker.start()
    arrived = witness(own_broker.port)
    assert found(look(port=own_broker.port), "round trip").verdict is Verdict.PASS
    message = arrived.get(timeout=20)
    assert json.loads(message.payload)["state"] == "offline"
    later = witness(own_broker.port)
    look(port=own_broker.port)
    assert not later.get(timeout=20).retain, "a retained message was left behind"


def test_a_credential_of_systemd_is_taken_from_where_the_unit_takes_it(
    fleet: Fleet, login: dict[str, Any], tmp_path: Path
) -> None:
    root = tmp_path / "root"
    folder = root / "etc/microedge/credentials"
    folder.mkdir(parents=True)
    (folder / "mqtt-password").write_text(fleet.PASSWORDS["lab-03"])
    (folder / "mqtt-password").chmod(0o600)
    system = System(root=root, environment={})
    report = look(system=system, **{**login, "password_file": "microedge_mqtt-password"})
    assert found(report, "round trip").verdict is Verdict.PASS
    (folder / "mqtt-password").chmod(0o644)
    assert (
        found(
            look(system=system, **{**login, "password_file": "microedge_mqtt-password"}), "credentials"
        ).verdict
        is Verdict.FAIL
    )
    folder.chmod(0o700)
    finding = found(
        look(system=system, **{**login, "password_file": "microedge_mqtt-password"}), "credentials"
    )
    assert (finding.verdict, finding.words[-36:]) == (Verdict.WARN, ", were its folder not closed to them")
    report = look(system=system, **{**login, "password_file": "mqtt-password"})
    assert found(report, "credentials").verdict is Verdict.FAIL
    assert (
        '"mqtt-password" names a systemd credential that the unit does not load'
        in found(report, "credentials").words
    )


def test_credentials_of_the_services_user_are_judged_as_that_user(
    fleet: Fleet, login: dict[str, Any]
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    for folder in Path(sysconfig.get_path("stdlib")).resolve().parents:
        if not folder.stat().st_mode & 0o001:
            pytest.skip(f"no other user can run this interpreter: {folder} is closed")
    # Those of pytest are closed to other users.
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        password, authority = root / "password", root / "authority.pem"
        password.write_text(fleet.PASSWORDS["lab-03"])
        password.chmod(0o600)
        os.chown(password, 12_345, 12_345)
        authority.write_bytes(fleet.authority.file.read_bytes())
        for path, text in {
            "etc/passwd": "microedge:x:12345:12345::/:/bin/false\n", "etc/group": "",
            "usr/bin/systemctl": "#!/bin/sh\necho LoadState=loaded\necho User=microedge\n",
        }.items():  # fmt: skip
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        (root / "usr/bin/systemctl").chmod(0o755)
        settings = {**login, "password_file": str(password), "ca_file": str(authority)}
        report = look(system=System(root=root), **settings)
        assert found(report, "round trip").verdict is Verdict.PASS
        os.chown(password, 12_346, 12_346)
        assert "Permission denied" in found(look(system=System(root=root), **settings), "credentials").words
