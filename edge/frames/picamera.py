"""picamera2, opened with errors that say what to do, and closed in bounded time. The only module that imports it.

Facts of picamera2 (source read at 3e6dff0) and of libcamera's Python binding (26bfadc6) that this lives with:

- `Picamera2.stop` hands the stopping to the thread that takes requests and waits for it without a limit: if that
  thread has died or hangs, for ever (picamera2 issues 962, 1048). `Picamera2.close` ends that thread first and then
  stops by itself, so it alone is called.
- The camera belongs to this process, and may be on, until `close` has come to its end, whatever becomes of the
  object. So a close that is left behind is a `StuckError`, and so is opening the camera after it: the capture LED
  stays lit, the process ends, and systemd starts another one.
- libcamera's own `Camera::stop` runs with the interpreter's lock held. Should it never return, no Python thread runs
  any more, and with them stops the heartbeat: then systemd's watchdog starts the service again (`WatchdogSec=`).
"""

import importlib
import logging
import os
import threading
from collections.abc import Mapping
from typing import Any

from edge.errors import SourceError, StuckError

log = logging.getLogger(__name__)

INSTALL = "sudo apt install python3-picamera2 (and a virtual environment with --system-site-packages)"
FAILURES = (RuntimeError, ValueError, KeyError, IndexError, AttributeError, OSError)
"""What picamera2 raises for whatever is wrong; libcamera's errors arrive as RuntimeError."""


def library() -> Any:
    """Import picamera2, and keep it and libcamera from logging all that they do each time a camera is opened.

    Raises:
        SourceError: it is not installed, or libcamera is not.
    """
    if not log.isEnabledFor(logging.DEBUG):
        os.environ.setdefault("LIBCAMERA_LOG_LEVELS", "*:WARN")
        logging.getLogger("picamera2").setLevel(logging.WARNING)
        # What it calls an error here comes as an exception too, again with each attempt while a camera is away.
        logging.getLogger("picamera2.picamera2").setLevel(logging.CRITICAL)
    try:
        return importlib.import_module("picamera2")
    except ImportError as error:
        raise SourceError(
            f"the camera needs picamera2 and libcamera ({error}); install: {INSTALL}"
        ) from error


def found(picamera2: Any, number: int) -> Mapping[str, Any]:
    """Give what libcamera says of a camera before it is opened: Model, Id, Num.

    Raises:
        SourceError: there is no camera of this number.
    """
    try:
        cameras = picamera2.Picamera2.global_camera_info()
    except FAILURES as error:
        raise SourceError(f"camera {number}: libcamera cannot look for cameras ({cause(error)})") from error
    if 0 <= number < len(cameras):
        about: Mapping[str, Any] = cameras[number]
        return about
    there = ", ".join(f"{index} ({camera.get('Model', '?')})" for index, camera in enumerate(cameras))
    hint = (
        f"there is {there}; set camera.number"
        if cameras
        else "libcamera finds none; check the ribbon cable and `rpicam-hello --list-cameras`"
    )
    raise SourceError(f"camera.number = {number}: not there; {hint}")


def opened(picamera2: Any, number: int, name: str) -> Any:
    """Open a camera.

    Raises:
        SourceError: it is in use by another program, or fails otherwise.
        StuckError: this process has not been able to close it.
    """
    if any(thread.name == _closing(number) for thread in threading.enumerate()):
        raise StuckError(f"{name}: hangs since it was to be closed; only a new start of the service helps")
    try:
        return picamera2.Picamera2(number)
    except FAILURES as error:
        why = cause(error)
        if "busy" in why.lower():
            raise SourceError(
                f"{name}: in use by another program; `sudo fuser -v /dev/media*` shows which ({why})"
            ) from error
        if "permission" in why.lower():
            raise SourceError(f"{name}: permission denied; add the user to group video ({why})") from error
        raise SourceError(f"{name}: cannot be opened ({why})") from error


def close(device: Any, number: int, name: str, timeout_s: float) -> None:
    """Close a camera, whatever state it is in, waiting no longer than `timeout_s`.

    Raises:
        StuckError: it is not closed by then; a thread that is left behind is still at it.
    """

    def work() -> None:
        try:
            device.close()
        except Exception as error:
            # A camera that was unplugged or hangs; there is no more that we could do for it.
            log.warning("%s: closed with an error (%s)", name, cause(error))

    thread = threading.Thread(target=work, name=_closing(number), daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise StuckError(f"{name}: hangs, and could not be closed within {timeout_s:g} s; it may still be on")


def cause(error: BaseException) -> str:
    """Give the text of the error that began it: picamera2 wraps libcamera's reason in its own words."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__


def _closing(number: int) -> str:
    return f"closing camera {number}"
