"""Real parts that several tests share."""

import getpass
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import pytest
from gpiozero.pins.mock import MockFactory

from edge.frames.portrait import load_portrait, portrait_landmarks
from edge.frames.script import Script
from edge.frames.synthetic import SyntheticSource
from edge.records import ActionUnit, Event, Quality, Spot
from tools.container import ContainerError, boot, layer, missing, rootfs
from tools.container.root import WITH_PYTHON
from tools.delivery.broker import free_port

SYSTEM_PATH = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/sbin:/opt/homebrew/bin"
MOSQUITTO = shutil.which("mosquitto", path=SYSTEM_PATH)
MOSQUITTO_PASSWD = shutil.which("mosquitto_passwd", path=SYSTEM_PATH)
OPENSSL = shutil.which("openssl", path=SYSTEM_PATH)
BROKER_FILES = Path(__file__).parents[1] / "systemd" / "broker"


def wait_until(condition: Callable[[], Any], what: str, limit_s: float = 20.0) -> None:
    """Look again until `condition` holds; fail the test, naming `what`, when it does not come true."""
    deadline_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline_s:
            pytest.fail(f"waited {limit_s:g} s in vain for: {what}")
        time.sleep(0.005)


@pytest.fixture(scope="session")
def debian() -> tuple[str, Path]:
    """The Debian release with this Python, and a root folder of it that can be booted; never to be written to."""
    if lacks := missing():
        pytest.skip(f"no container: {'; '.join(lacks)}")
    if (release := WITH_PYTHON.get(sys.version_info[:2])) is None:
        pytest.skip(f"no container: no Debian has Python {sys.version_info.major}.{sys.version_info.minor}")
    try:
        root = rootfs(release)
        with layer(root) as over:
            # Inside of most containers no other can be booted.
            boot(over.root, script="true", timeout_s=60)
    except ContainerError as error:
        pytest.skip(f"no container: {error}")
    return release, root


@pytest.fixture
def pins() -> Iterator[MockFactory]:
    """Simulated pins of a Raspberry Pi."""
    factory = MockFactory()
    yield factory
    factory.reset()


@pytest.fixture
def until() -> Callable[..., None]:
    return wait_until


class Broker:
    """A mosquitto of its own on a free loopback port, which tests may stop and start again."""

    def __init__(self, folder: Path) -> None:
        self.port, self.websocket_port = free_port(), free_port()
        self.ports = [self.port]
        """Those that answer once it has started."""
        self._config = folder / "mosquitto.conf"
        self._log = folder / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, access: str = "allow_anonymous true", *, websockets: bool = False) -> None:
        """Start; `access` are the lines of the configuration that follow its listener.

        With `websockets` there is another listener on `websocket_port`; mosquitto 2.0.11 does not start with one of
        that kind alone.
        """
        if websockets:
            access = f"{access}\nlistener {self.websocket_port} 127.0.0.1\nprotocol websockets"
            self.ports = [self.port, self.websocket_port]
        self.run(f"listener {self.port} 127.0.0.1\n{access}\n")

    def run(self, configuration: str) -> None:
        """Start with this whole configuration, which has a listener on each of `ports`."""
        assert MOSQUITTO is not None
        # When root starts it, mosquitto changes to a user who could not read the test's files.
        self._config.write_text(f"{configuration}\nuser {getpass.getuser()}\n")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([MOSQUITTO, "-c", self._config], stdout=log, stderr=log)
        wait_until(self._answers, f"mosquitto on port {self.port}: {self._log.read_text()}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def _answers(self) -> bool:
        for port in self.ports:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) != 0:
                    return False
        return True


class Authority:
    """A certificate authority that exists for the tests alone."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "authority.pem"
        self._key = folder / "authority.key"
        folder.mkdir(exist_ok=True)
        self._openssl(
            "req", "-x509", *NEW_KEY, "-keyout", self._key, "-days", "2", "-subj", "/CN=tests", "-out", self.file
        )  # fmt: skip

    def issue(
        self, name: str, purpose: str = "clientAuth", *, days: int = 2, names: str = "IP:127.0.0.1"
    ) -> tuple[Path, Path]:
        """Give a new certificate and its key; with negative `days` it has expired."""
        stem = f"{name}-{purpose}-{days}-{re.sub('[^0-9A-Za-z]', '', names)}"
        certificate, key = self.folder / f"{stem}.pem", self.folder / f"{stem}.key"
        if not certificate.exists():
            request = self.folder / f"{stem}.csr"
            extensions = ("-addext", f"extendedKeyUsage={purpose}", "-addext", f"subjectAltName={names}")
            self._openssl(
                "req", *NEW_KEY, "-keyout", key, "-subj", f"/CN={name}", *extensions, "-out", request
            )
            signer = ("-CA", self.file, "-CAkey", self._key, "-copy_extensions", "copy")
            self._openssl("x509", "-req", "-in", request, *signer, "-days", str(days), "-out", certificate)
        return certificate, key

    def _openssl(self, *arguments: str | Path) -> None:
        assert OPENSSL is not None
        subprocess.run([OPENSSL, *arguments], check=True, capture_output=True)


NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Fleet(Broker):
    """A mosquitto with the configuration and the access list that are shipped, on free ports.

    It has three listeners: `port` takes passwords, `certificate_port` client certificates, and
    `websocket_port` passwords over WebSockets.
    """

    PASSWORDS: ClassVar[dict[str, str]] = {
        name: f"password of {name}" for name in ("lab-03", "lab-04", "dashboard", "operator", "homeassistant")
    }

    def __init__(self, folder: Path, authority: Authority) -> None:
        super().__init__(folder)
        self.authority = authority
        self.certificate_port = free_port()
        self.ports += [self.certificate_port, self.websocket_port]
        self._folder = folder

    def start(self, access: str = "", *, websockets: bool = True) -> None:
        """Start; `access` are further lines, which belong to the WebSocket listener, which there always is."""
        assert MOSQUITTO_PASSWD is not None
        passwords = self._folder / "passwords"
        passwords.write_text("".join(f"{name}:{text}\n" for name, text in self.PASSWORDS.items()))
        passwords.chmod(0o600)
        subprocess.run([MOSQUITTO_PASSWD, "-U", passwords], check=True)
        # Newer versions do not read one that everybody can read, as a checkout's files are.
        access_list = self._folder / "microedge.acl"
        access_list.write_text((BROKER_FILES / access_list.name).read_text())
        access_list.chmod(0o600)
        certificate, key = self.authority.issue("broker", "serverAuth")
        text = (BROKER_FILES / "mosquitto.conf").read_text()
        for shipped, here in (
            ("/etc/mosquitto/passwords", str(passwords)),
            ("/etc/mosquitto/microedge.acl", str(access_list)),
            ("/etc/mosquitto/certs/authority.pem", str(self.authority.file)),
            ("/etc/mosquitto/certs/broker.pem", str(certificate)),
            ("/etc/mosquitto/certs/broker.key", str(key)),
            ("/var/lib/mosquitto/", f"{self._folder}/"),
            ("listener 8883", f"listener {self.port} 127.0.0.1"),
            ("listener 8884", f"listener {self.certificate_port} 127.0.0.1"),
            ("listener 9001", f"listener {self.websocket_port} 127.0.0.1"),
        ):
            assert shipped in text, f"the shipped mosquitto.conf no longer has {shipped}"
            text = text.replace(shipped, here)
        self.run(f"{text}\n{access}")


@pytest.fixture(scope="session")
def shared_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One running mosquitto for all tests that leave it alone; use a topic of your own."""
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    broker = Broker(tmp_path_factory.mktemp("mosquitto"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Broker]:
    """A mosquitto that the test starts and stops itself; not running at first."""
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    broker = Broker(tmp_path)
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority that the tests' devices trust."""
    if OPENSSL is None:
        pytest.skip("openssl is not installed")
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def foreign_authority(authority: Authority) -> Authority:
    """One that nobody trusts, although it has the same name."""
    return Authority(authority.folder / "foreign")


@pytest.fixture
def fleet(tmp_path: Path, authority: Authority) -> Iterator[Fleet]:
    """A running broker as a fleet has it."""
    if MOSQUITTO is None or MOSQUITTO_PASSWD is None:
        pytest.skip("mosquitto is not installed")
    (folder := tmp_path / "fleet").mkdir()
    fleet = Fleet(folder, authority)
    fleet.start()
    yield fleet
    fleet.stop()


_prefixes = count()


@pytest.fixture
def topic_prefix() -> str:
    """A topic that no other test uses."""
    return f"test/{next(_prefixes)}"


@pytest.fixture
def make_event() -> Callable[..., Event]:
    """Give the event of the design document, with fields of the event or its spot replaced by name."""

    def make(**changes: Any) -> Event:
        spot = Spot(
            face_id=1, onset_ns=12_415_000_000, apex_ns=12_460_000_000, offset_ns=12_530_000_000, score=0.94,
            probabilities=(0.02, 0.05, 0.11, 0.03, 0.71, 0.02, 0.03, 0.03),
            action_units=(ActionUnit("AU9", "both", 0.83),), regions=(0.1, 0.2, 0.9, 0.4),
            intensity_iod=0.011, confusers=(0.0,) * 5,
        )  # fmt: skip
        of_spot = {field.name for field in fields(Spot)} & changes.keys()
        spot = replace(spot, **{name: changes[name] for name in of_spot})
        event = Event(spot, "disgust", 0.71, Quality(199.8, 0, 2.1, 212.0, True, 0.000412))
        return replace(event, **{name: value for name, value in changes.items() if name not in of_spot})

    return make


@pytest.fixture(scope="session")
def clear_portrait() -> SyntheticSource:
    """Two and a half seconds of the portrait at 200 frames/s with clear micro-expressions."""
    script = Script(
        micro_per_min=60.0, micro_duration_ms=(100.0, 180.0), micro_peak_iod=(0.024, 0.025), blink_per_min=0.0,
        emotions=("surprise", "happiness"), quiet_start_s=0.8,
    )  # fmt: skip
    return SyntheticSource(
        load_portrait(),
        portrait_landmarks(),
        seconds=2.6,
        size=(320, 240),
        seed=5,
        script=script,
        face_px=120.0,
    )
