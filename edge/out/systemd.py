"""Tells the service manager how the service is doing, over the socket that it names in NOTIFY_SOCKET.

Without that variable every call does nothing, so the same program runs under systemd and in a terminal.

Source: sd_notify(3) for the messages, sd_watchdog_enabled(3) for WATCHDOG_USEC and WATCHDOG_PID.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping

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


class Watchdog:
    """Turns progress into heartbeats, at most one per third of the time that systemd allows.

    There is no timer: when frames stop, heartbeats stop, and systemd restarts the service.
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
        self._period_s = int(limit_us) / 3e6 if for_us and limit_us.isdecimal() else 0.0
        self._notifier, self._clock_s = notifier, clock_s
        self._last_s = float("-inf")

    def progress(self) -> None:
        """Report one full pass of the work: a frame handled, or a camera retry reported."""
        if self._period_s > 0 and (now_s := self._clock_s()) - self._last_s >= self._period_s:
            self._last_s = now_s
            self._notifier.heartbeat()
