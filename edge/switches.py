"""What a person operates at the device itself: the privacy switch and the identify button.

The privacy switch closes the camera, not only the publisher. It is looked at before the camera is first opened, so it
outlives a restart; an edge closes the camera at once, from the thread that the pins are watched in; and only a switch
that has been off without a bounce for a while, seen from the main thread, opens it again. A switch that cannot be read
counts as on. It adds to a pause by command: the camera is open while there is neither.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Any

from edge.config import Switches as SwitchesConfig
from edge.errors import PinError
from edge.feed import PausedBy, Reader
from edge.gpio import Contact, Pins

log = logging.getLogger(__name__)

STEADY_S = 0.1
"""How long the privacy switch must have been off; contacts bounce for some milliseconds, a loose one for longer."""
PRESS_S = 0.5
"""Presses of the button closer than this are one."""


class Switches:
    """Reads the switches that the configuration names. Whoever constructs it closes it."""

    def __init__(
        self,
        config: SwitchesConfig,
        *,
        identify: Callable[[], object] = lambda: None,
        pin_factory: Any = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the pins and read the privacy switch.

        Args:
            config: the section `switches`.
            identify: called when the button is pressed, in the thread that the pins are watched in.
            pin_factory: gpiozero's way to the pins; None: what this machine has.
            clock_s: monotonic seconds.

        Raises:
            ConfigError: if there is no GPIO here, or pins cannot be had, with a line for each.
        """
        self._identify, self._clock_s = identify, clock_s
        self._private_when = config.privacy_contact == "normally_open"
        """What the contact is while the switch is on: closed, or open."""
        self._lock = threading.Lock()
        """Edges come in a thread of their own."""
        self._reader: Reader | None = None
        self._is_private = False
        self._asked_s = self._pressed_s = -math.inf
        """When the switch was last seen on, and the button last pressed."""
        self._problem = ""
        self._privacy: Contact | None = None
        self._pins = pins = Pins(pin_factory)
        self._privacy = pins.contact(config.privacy_pin, "switches.privacy_pin", self._privacy_changed)
        pins.contact(config.identify_pin, "switches.identify_pin", self._identify_changed)
        pins.check("switches.privacy_pin = -1 and switches.identify_pin = -1 do without them")
        self.attend()

    @property
    def is_private(self) -> bool:
        """Whether the privacy switch keeps the camera closed."""
        return self._is_private

    @property
    def problem(self) -> str:
        """Why the privacy switch cannot be read, and so keeps the camera closed; empty if it can."""
        return self._problem

    def watch(self, reader: Reader) -> None:
        """Close and open the source of `reader` from now on; it was made with a pause by switch if `is_private`."""
        with self._lock:
            self._reader = reader
            if self._is_private:
                reader.pause(by=PausedBy.SWITCH)
        self.attend()

    def attend(self) -> None:
        """Look at the privacy switch. To be called a few times a second."""
        if self._privacy is None:
            return
        with self._lock:
            # Read under the lock: an edge that comes now waits, and has the last word.
            if self._is_asked(self._privacy):
                self._close_camera()
            elif self._is_private and self._clock_s() - self._asked_s >= STEADY_S:
                self._is_private = False
                log.info("privacy switch: off")
                if self._reader is not None:
                    self._reader.resume(by=PausedBy.SWITCH)

    def close(self) -> None:
        """Let the pins go; a camera that is closed stays so. May be called again."""
        self._pins.close()
        self._privacy = None

    def _is_asked(self, privacy: Contact) -> bool:
        try:
            is_asked = privacy.is_closed == self._private_when
        except PinError as error:
            problem = f"{error}; the camera stays closed, as if the switch were on"
            if problem != self._problem:
                log.error("%s", problem)
            self._problem = problem
            return True
        self._problem = ""
        return is_asked

    def _close_camera(self) -> None:
        self._asked_s = self._clock_s()
        if self._is_private:
            return
        self._is_private = True
        if self._reader is not None:
            # Without waiting: the reader's own thread closes it after the frame that it is at.
            self._reader.pause(by=PausedBy.SWITCH)
        if not self._problem:
            log.info("privacy switch: on, the camera closes")

    def _privacy_changed(self, is_closed: bool) -> None:
        with self._lock:
            if is_closed == self._private_when:
                self._close_camera()

    def _identify_changed(self, is_closed: bool) -> None:
        now_s = self._clock_s()
        if not is_closed or now_s - self._pressed_s < PRESS_S:
            return
        self._pressed_s = now_s
        log.info("identify button: pressed")
        self._identify()
