"""What `microedge` can do, one module per command, each with `main(arguments)` that gives the exit code."""

import argparse
import logging
import signal
import sys
from pathlib import Path
from types import FrameType

from edge.config import Config, load

DEVICE_CONFIG = Path("/etc/microedge/config.toml")
"""Read by commands that act for the device when no `--config` is given, where it exists."""

ATTEND_S = 0.1
"""How often a command's main thread looks at what its threads are doing, and at signals."""


def device_config(arguments: argparse.Namespace) -> Path | None:
    """Give the file that the command line names, else the device's own where it exists, else None."""
    named: Path | None = arguments.config
    return DEVICE_CONFIG if named is None and DEVICE_CONFIG.exists() else named


def configuration(
    arguments: argparse.Namespace, *, of_device: bool = True, opens_camera: bool = False
) -> Config:
    """Load the configuration that the command line asks for.

    Args:
        arguments: with `config` and `overrides`.
        of_device: whether the device's own is meant where none is named.
        opens_camera: whether a camera is to be opened, which needs its capture LED.

    Raises:
        ConfigError: every mistake in it, one per line.
    """
    path = device_config(arguments) if of_device else arguments.config
    return load(path, arguments.overrides, opens_camera=opens_camera)


def log_to_stderr(config: Config, *, least: int = logging.NOTSET) -> None:
    """Begin to log at `log.level`, or at `least` if that is higher; `debug` is always obeyed."""
    asked = logging.getLevelNamesMapping()[config.log.level.upper()]
    level = asked if asked == logging.DEBUG else max(asked, least)
    logging.basicConfig(
        level=level, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr, force=True
    )


class StopRequest:
    """Ctrl-C and SIGTERM as a flag, while it is entered; a second one has its usual effect.

    A plain flag, because a signal handler may interrupt the holder of any lock.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.is_made = False

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.is_made = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class ReloadRequest:
    """SIGHUP as a flag, while it is entered, for a process without a terminal.

    With one the signal keeps its usual effect: it says that the terminal has gone, and a camera must not go on behind
    the back of whoever closed the window.
    """

    def __init__(self) -> None:
        self._is_made = False
        self._has_terminal = any(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))

    def __enter__(self) -> "ReloadRequest":
        self._before = None if self._has_terminal else signal.signal(signal.SIGHUP, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._has_terminal:
            signal.signal(signal.SIGHUP, self._before)

    def take(self) -> bool:
        """Tell whether a reload was asked for since the last call."""
        is_made, self._is_made = self._is_made, False
        return is_made

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._is_made = True
