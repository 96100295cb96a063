"""A private mosquitto that keeps its sessions and messages over a restart, so that what is missing is not its doing."""

import contextlib
import getpass
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

MOSQUITTO = shutil.which(
    "mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/sbin"
)
"""None: not installed."""

START_S = 10.0
"""Time that it gets to answer, and to end when asked to."""
_CONNECT = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05probe"
"""A CONNECT of MQTT 3.1.1. Source: its section 3.1."""
_PORTS = (15_000, 32_000)
"""Below the ports that outgoing connections get: while the broker is down, a client that is refused again and again
would else be given its port as a source, and be connected to itself."""


class Broker:
    """A mosquitto on a loopback port of its own. Whoever starts it stops it.

    Source: mosquitto.conf(5). What it holds is written when it ends on SIGTERM, and every second besides; nothing
    is dropped however long a session's queue is.
    """

    def __init__(self, folder: Path, *, port: int = 0, settings: str = "") -> None:
        """Prepare a broker that lives in `folder`; `settings` are further lines of its configuration.

        Raises:
            FileNotFoundError: mosquitto is not installed.
        """
        if MOSQUITTO is None:
            raise FileNotFoundError("mosquitto: is not installed (Debian: apt install mosquitto)")
        folder.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self.restarts = 0
        self._file, self._log = folder / "mosquitto.conf", folder / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None
        lines = (
            f"listener {self.port} 127.0.0.1",
            "allow_anonymous true",
            # Started by root it would change to a user who cannot read the folder.
            f"user {getpass.getuser()}",
            "persistence true",
            f"persistence_location {folder}/",
            "autosave_interval 1",
            "max_queued_messages 0",
            "set_tcp_nodelay true",
            "log_type all",
            "log_timestamp_format %H:%M:%S",
            settings,
        )
        self._file.write_text("\n".join(lines) + "\n")

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            RuntimeError: with the end of its log, if it does not.
        """
        assert MOSQUITTO is not None
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([MOSQUITTO, "-c", self._file], stdout=log, stderr=log)
        deadline_s = time.monotonic() + START_S
        while not self._answers():
            if not self.is_running or time.monotonic() > deadline_s:
                raise RuntimeError(
                    f"mosquitto on port {self.port} does not answer: {self._log.read_text()[-500:]}"
                )
            time.sleep(0.01)

    def stop(self) -> None:
        """End it with SIGTERM, so that it saves what it holds. May be called again."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(START_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise RuntimeError(f"mosquitto on port {self.port} did not end within {START_S:g} s") from None
        finally:
            self._process = None

    def restart(self, down_s: float) -> None:
        """Stop, stay away for `down_s`, and come back on the same port."""
        self.stop()
        time.sleep(down_s)
        self.start()
        self.restarts += 1

    def freeze(self, is_frozen: bool) -> None:
        """Stop it from doing anything while its connections stay, or let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if is_frozen else signal.SIGCONT)

    def __enter__(self) -> "Broker":
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _answers(self) -> bool:
        """Whether it talks MQTT: while it only listens already, it would not hear a SIGTERM."""
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), START_S) as probe,
        ):
            probe.sendall(_CONNECT)
            return len(probe.recv(4)) == 4
        return False


def free_port() -> int:
    """Give a loopback port that nobody listens on and no outgoing connection is given by chance."""
    chance = random.SystemRandom()
    while True:
        port = chance.randrange(*_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
