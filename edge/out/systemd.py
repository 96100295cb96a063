"""Tells the service manager how the service is doing, over the socket that it names in NOTIFY_SOCKET.

Without that variable every call does nothing, so the same program runs under systemd and in a terminal.

Source: sd_notify(3) for the messages, sd_watchdog_enabled(3) for WATCHDOG_USEC and WATCHDOG_PID.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from enum import StrEnum

log = logging.getLogger(__name__)


class Notifier:
    """Sends state changes to systemd. Whoever constructs it closes it."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        name = environment.get("NOTIFY_SOCKET", "")
        # "@" marks the abstract namespace, which the kernel addresses by a leading zero byte.
        self._address = "\0" + name[1:] if name.startswith("@") else name
        self._socket: socket.socket | None = None
        if name.startswith(("/", "@")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            # A manager that does not read must not stop a frame; a lost heartbeat is followed by another.
            self._socket.setblocking(False)
        self._failing = False

    @property
    def is_supervised(self) -> bool:
        """Whether a service manager listens."""
        return self._socket is not None

    def ready(self) -> None:
        """Say that start-up is complete."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """Show one line of free text in `systemctl status`."""
        self._send("STATUS=" + " ".join(text.split()))

    def reloading(self) -> None:
        """Say that the configuration is being read again; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Say that the service is shutting down."""
        self._send("STOPPING=1")

    def heartbeat(self) -> None:
        """Restart the watchdog's countdown; `Watchdog` decides when."""
        self._send("WATCHDOG=1")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto(message.encode(), self._address)
            self._failing = False
        except OSError as error:
            if not self._failing:
                log.warning("systemd: NOTIFY_SOCKET cannot be written: %s", error.strerror or error)
            self._failing = True


class Part(StrEnum):
    """What has to make progress for the device to be well."""

    CAMERA = "camera"
    """The reader took a frame, tried to open the camera again, or rests because it was told to."""
    INFERENCE = "inference"
    """The worker took a frame through the models, or waits for one that a camera does not give."""
    OUTBOX = "outbox"
    """The dispatcher came round, and the store answered: on disk or, while the disk does not take it, in memory."""
    CONTROL = "control"
    """The main thread looked at commands, switches and signals: one who cannot pause the device must not be watched."""


class Watchdog:
    """Turns progress into heartbeats: one when every part has made some since the last, at most three in the limit.

    There is no timer: a heartbeat is sent by a thread that has just done its work. When any part hangs, heartbeats
    stop, the log names it, and systemd restarts the service. What waits for a network is no part: a broker that is
    away for a week is no reason to restart.
    """

    def __init__(
        self,
        notifier: Notifier,
        environment: Mapping[str, str] = os.environ,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the limit from the environment; stay silent without one, or if it is for another process."""
        limit_us = environment.get("WATCHDOG_USEC", "")
        for_us = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._limit_s = int(limit_us) / 1e6 if for_us and limit_us.isdecimal() else 0.0
        self._notifier, self._clock_s = notifier, clock_s
        self._lock = threading.Lock()
        """Parts report from threads of their own."""
        self._hung = set(Part)
        """Those without progress since the last heartbeat."""
        self._due_s = float("-inf")
        """Before this no heartbeat is needed."""
        self._since_s: float | None = None
        """Time of the last heartbeat, or of the first progress."""
        self._is_told = False
        """Whether the log knows who holds the heartbeat up."""

    def progress(self, part: Part) -> None:
        """Report one full pass of a part's work."""
        if self._limit_s <= 0:
            return
        late: list[Part] = []
        with self._lock:
            now_s = self._clock_s()
            if self._since_s is None:
                self._since_s = now_s
            silent_s = now_s - self._since_s
            self._hung.discard(part)
            if not self._hung and now_s >= self._due_s:
                self._since_s, self._due_s = now_s, now_s + self._limit_s / 3
                self._hung.update(Part)
                self._is_told = False
                self._notifier.heartbeat()
            elif silent_s >= self._limit_s / 2 and not self._is_told:
                self._is_told = True
                late = sorted(self._hung)
        if late:
            log.error(
                "watchdog: no progress of %s for %.0f s; after %g s the service is killed and started again",
                " and ".join(late), silent_s, self._limit_s,
            )  # fmt: skip
