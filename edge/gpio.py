"""GPIO pins through gpiozero, which the device imports here alone: taken together, with one report of all problems.

gpiozero drives the pins through lgpio where that is installed, which leaves two traps:

- When it is imported, lgpio changes the process's directory to what LG_WD names, makes a named pipe `.lgd-nfy0` there,
  and fails where it cannot write, as a hardened service cannot (`lguGetWorkDir` in lgUtil.c, lgNotify.c, and
  `_callback_thread` in lgpio.py of lgpio 0.2.2.0); gpiozero then goes on to libraries that know no Raspberry Pi 5. So
  it is imported here, in a folder made for it, which is gone again as soon as both ends of the pipe are open.
- An exception in a callback ends the thread that all callbacks come from. None gets that far.

What the LEDs show after a crash: the kernel closes camera and pins together, and nobody reads a frame any more.
Raspberry Pi's kernels leave a pin that is let go as it was driven, so a lit capture LED stays lit until the next start
takes it; with `dtparam=strict_gpiod` in config.txt, or another kernel, it becomes an input and the LED goes dark
(raspberrypi/linux pull request 6117). Either is on the safe side: lit without a camera, or dark without a process.
"""

import importlib
import importlib.util
import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import gpiozero

from edge.errors import ConfigError, PinError

log = logging.getLogger(__name__)

T = TypeVar("T", bound="Output | Contact")


class Output:
    """A pin that is driven. Every error names its setting."""

    def __init__(self, device: Any, setting: str) -> None:
        self._device, self.setting = device, setting
        """The setting as in the configuration, with its value: `leds.capture_pin = 17`."""

    def set(self, on: bool) -> None:
        """Switch it; does nothing once it is closed.

        Raises:
            PinError: the pin cannot be driven.
        """
        try:
            if not self._device.closed:
                self._device.value = int(on)
        except Exception as error:
            # gpiozero passes the errors of whichever pin library it uses through: any class is possible.
            raise PinError(f"{self.setting}: cannot be switched: {_words(error)}") from error

    @property
    def is_on(self) -> bool:
        """What the pin is at, read back from it; False once it is closed.

        Raises:
            PinError: it cannot be read.
        """
        try:
            return not self._device.closed and bool(self._device.value)
        except Exception as error:
            raise PinError(f"{self.setting}: cannot be read: {_words(error)}") from error

    def close(self) -> None:
        """Switch it off and let the pin go, which becomes an input. May be called again."""
        with suppress(PinError):
            self.set(False)
        self._device.close()


class Contact:
    """A switch or button between a pin and ground, under the pin's own pull-up resistor."""

    def __init__(self, device: Any, setting: str) -> None:
        self._device, self.setting = device, setting

    @property
    def is_closed(self) -> bool:
        """Whether the contact is closed now.

        Raises:
            PinError: the pin cannot be read.
        """
        try:
            return bool(self._device.value)
        except Exception as error:
            raise PinError(f"{self.setting}: cannot be read: {_words(error)}") from error

    def close(self) -> None:
        """Let the pin go; nothing is called back any more. May be called again."""
        self._device.close()


class Pins:
    """Takes pins, and notes those that cannot be had, so that `check` names them all."""

    def __init__(self, factory: Any = None) -> None:
        """Take none yet.

        Args:
            factory: gpiozero's way to the pins; None: what this machine has.
        """
        self._taken: list[Output | Contact] = []
        self._problems: list[str] = []
        self._untried: list[str] = []
        """Settings for which there is no GPIO at all."""
        self._absence = ""
        """Why there is none."""
        self._factory = factory

    def output(self, pin: int, name: str, *, active_high: bool = True) -> Output | None:
        """Take a pin to drive, and switch it off; None if it is absent (-1) or cannot be had.

        Args:
            pin: BCM number.
            name: of the setting.
            active_high: whether it is on while the pin is high.
        """
        device = self._take(pin, name, partial(gpiozero.LED, pin, active_high=active_high))
        return self._kept(Output(device, f"{name} = {pin}")) if device is not None else None

    def contact(self, pin: int, name: str, changed: Callable[[bool], None]) -> Contact | None:
        """Take a pin to read; None if it is absent (-1) or cannot be had.

        Args:
            pin: BCM number.
            name: of the setting.
            changed: told at each edge, bounces among them, whether the contact has closed; in a thread of its own.
        """
        device = self._take(pin, name, partial(gpiozero.DigitalInputDevice, pin, pull_up=True))
        if device is None:
            return None

        def tell(is_closed: bool) -> None:
            try:
                changed(is_closed)
            except Exception:
                log.exception("%s = %d: what it asks for failed", name, pin)

        device.when_activated = lambda: tell(True)
        device.when_deactivated = lambda: tell(False)
        return self._kept(Contact(device, f"{name} = {pin}"))

    def check(self, without: str) -> None:
        """Give everything back and raise if a pin could not be had.

        Args:
            without: what to set in order to do without these pins, for the message.

        Raises:
            ConfigError: with a line for each such pin, or one for all if this machine has no GPIO.
        """
        problems = list(self._problems)
        if self._untried:
            problems.append(f"{', '.join(self._untried)}: {self._absence}; {without}")
        if problems:
            self.close()
            raise ConfigError("\n".join(problems))

    def close(self) -> None:
        """Let all pins go. May be called again."""
        while self._taken:
            self._taken.pop().close()

    def _take(self, pin: int, name: str, take: Callable[..., Any]) -> Any:
        if pin < 0:
            return None
        if self._factory is None and not self._absence:
            self._factory, self._absence = _machine_factory()
        if self._factory is None:
            self._untried.append(f"{name} = {pin}")
            return None
        try:
            return take(pin_factory=self._factory)
        except Exception as error:
            self._problems.append(f"{name} = {pin}: cannot be used: {_refusal(error, pin)}")
            return None

    def _kept(self, taken: T) -> T:
        self._taken.append(taken)
        return taken


def _machine_factory() -> tuple[Any, str]:
    """Give gpiozero's way to this machine's pins, or None and why there is none."""
    if problem := _import_lgpio():
        return None, _absence(problem)
    with warnings.catch_warnings(record=True) as fallbacks:
        warnings.simplefilter("always", gpiozero.PinFactoryFallback)
        try:
            gpiozero.Device.ensure_pin_factory()
            otherwise = ""
        except Exception as error:
            otherwise = _words(error)
    factory, reasons = gpiozero.Device.pin_factory, [str(fallback.message) for fallback in fallbacks]
    if factory is not None and not _is_last_resort(factory):
        log.debug("gpio: through %s", type(factory).__name__)
        return factory, ""
    if factory is not None:
        gpiozero.Device.pin_factory = None
        factory.close()
    about_lgpio = next((text for text in reasons if "lgpio" in text), "" if reasons else otherwise)
    return None, _absence(about_lgpio.removeprefix("Falling back from "))


def _is_last_resort(factory: Any) -> bool:
    """Give whether gpiozero fell back on the library of its own, which nobody asked for.

    On any Raspberry Pi that one is made without an error and then fails pin by pin, in words that help nobody:
    without it the user learns what kept lgpio from the pins.
    """
    return type(factory).__name__ == "NativeFactory" and "GPIOZERO_PIN_FACTORY" not in os.environ


def _import_lgpio() -> str:
    """Import lgpio where it can make its pipe, if gpiozero is going to and it is installed.

    Returns:
        What is in its way; empty if nothing is, or if it is not wanted.
    """
    wanted = os.environ.get("GPIOZERO_PIN_FACTORY", "lgpio").lower() == "lgpio"
    if not wanted or "lgpio" in sys.modules or importlib.util.find_spec("lgpio") is None:
        return ""
    if "LG_WD" in os.environ:
        # Somebody has decided; only the change of directory is undone.
        return _imported_in(os.environ["LG_WD"])
    tried: list[str] = []
    for parent in (os.environ.get("RUNTIME_DIRECTORY", ""), os.environ.get("STATE_DIRECTORY", ""), None):
        if parent == "":
            continue
        try:
            # systemd separates several directories by colons.
            folder = tempfile.mkdtemp(prefix="lgpio-", dir=parent and parent.split(":")[0])
        except OSError as error:
            tried.append(str(error))
            continue
        try:
            return _imported_in(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return f"lgpio needs a folder that it can write to: {'; '.join(tried)}; set LG_WD to one"


def _imported_in(folder: str) -> str:
    """Import lgpio with `folder` as its working directory, and come back to the present one."""
    here = os.open(".", os.O_PATH)
    before = os.environ.get("LG_WD")
    os.environ["LG_WD"] = folder
    try:
        # gpiozero then finds it among the modules that are loaded.
        importlib.import_module("lgpio")
    except Exception as error:
        return f"lgpio cannot be loaded: {_words(error)}"
    finally:
        if before is None:
            del os.environ["LG_WD"]
        os.fchdir(here)
        os.close(here)
    return ""


def _absence(reason: str) -> str:
    chips = sorted(Path("/dev").glob("gpiochip*"))
    if chips and not any(os.access(chip, os.R_OK | os.W_OK) for chip in chips):
        return f"this user may not open {chips[0]}; add it to the group gpio"
    return f"this machine has no GPIO that can be used ({reason})" if reason else "this machine has no GPIO"


def _refusal(error: Exception, pin: int) -> str:
    """Say why a pin could not be had, and what to do."""
    if isinstance(error, gpiozero.GPIOPinInUse):
        return f"GPIO {pin} is already used by this program"
    if "GPIO busy" in str(error):
        return (
            f"GPIO {pin} is in use by another program or a driver, and `gpioinfo` says by which one; "
            "end it, or use another pin"
        )
    return _words(error)


def _words(error: Exception) -> str:
    return str(error).strip("'\"") or type(error).__name__
