"""Area *pins*: whether the header's GPIO can be used, and whether each configured pin is free or held by whom.

Nothing is requested from the kernel that could change a pin: who has a line is asked for with two calls that only
read (GPIO_GET_CHIPINFO_IOCTL and GPIO_V2_GET_LINEINFO_IOCTL), or read from debugfs.

Source: the kernel's include/uapi/linux/gpio.h; raspberrypi/linux, the labels of its pin controllers.
"""

import contextlib
import fcntl
import importlib.util
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge.doctor.case import Case
from edge.doctor.finding import Finding, failed, passed, skipped, warned
from edge.settings import KEYS
from edge.store.folder import may

LABELS = ("pinctrl-rp1", "pinctrl-bcm2711", "pinctrl-bcm2835")
"""Chips that the 40 pins of a Raspberry Pi come from: 5, 4, and those before."""
CHIP_INFO, LINE_INFO = 0x8044B401, 0xC100B405
_LINE = struct.Struct("=32s32sIIQ160s16s")
"""struct gpio_v2_line_info: name, consumer, offset, number of attributes, flags, attributes, padding."""
_USED = 1
"""GPIO_V2_LINE_FLAG_USED."""
_DEBUG = "/sys/kernel/debug/gpio"
_GROUP = "sudo usermod -aG gpio {user}, and log in again"


@dataclass(frozen=True, slots=True)
class PinLine:
    """What the kernel tells of one line."""

    is_used: bool
    consumer: str
    """Who has it, as that calls itself; lgpio calls itself `lg`."""
    is_low: bool | None = None
    """Where it is at; None: not told."""


def chip(case: Case) -> Iterator[Finding]:
    """Look for the header's GPIO and for the library that drives it."""
    wanted = _wanted(case)
    if not wanted:
        yield _nothing_to_do(case)
        return
    factory = _factory(case)
    if factory == "mock":
        yield warned("gpio", "GPIOZERO_PIN_FACTORY=mock: LEDs and switches are only pretended",
                     "remove it from the service's environment: sudo systemctl edit microedge")  # fmt: skip
        return
    node = _chip(case)
    if node is None:
        yield _no_chip(case)
        return
    status = node.stat()
    name = case.system.shown(node)
    if not may(status, case.user.uid, case.user.groups, 6):
        yield failed("gpio", f"{name}: {case.who()} may not use it (mode {status.st_mode & 0o777:04o})",
                     _GROUP.format(user=case.user.name or "$USER"))  # fmt: skip
    elif importlib.util.find_spec("lgpio") is None and not case.system.version("lgpio"):
        yield failed("gpio", f"{name}: lgpio, which alone drives the pins of every Raspberry Pi, is not installed",
                     "/opt/microedge/bin/pip install lgpio==0.2.2.0")  # fmt: skip
    else:
        yield passed("gpio", f"{name}, through lgpio; {case.who()} may use it")


def lines(case: Case) -> Iterator[Finding]:
    """Say of each configured pin whether it is free, and else who has it."""
    wanted = _wanted(case)
    node = _chip(case)
    if not wanted or node is None or _factory(case) == "mock":
        return
    held, free = [], []
    holders = case.system.holders(node)
    for setting, pin in wanted.items():
        line = _line(case, node, pin)
        if line is None:
            case.unseen["who holds the pins"] = None
            yield skipped("pins", f"who has GPIO {pin} cannot be seen by this user", "sudo microedge doctor")
            return
        if not line.is_used:
            free.append(f"{setting} = {pin}")
        elif case.service.is_running and line.consumer in ("lg", "microedge"):
            held.append(f"{setting} = {pin}")
        else:
            who = f"{line.consumer or 'a driver of the kernel'}" + "".join(f", {each}" for each in holders)
            yield failed(
                "pin", f"{setting} = {pin}: in use by {who}",
                f"end that program, remove its dtoverlay from /boot/firmware/config.txt, or set another {setting}",
            )  # fmt: skip
    if held:
        yield passed("pins", f"held by the running service: {', '.join(held)}")
    if free and case.service.is_running:
        yield warned("pins", f"the service runs and has not taken {', '.join(free)}",
                     "was the configuration changed? sudo systemctl restart microedge")  # fmt: skip
    elif free:
        yield passed("pins", f"free: {', '.join(free)}")


def privacy(case: Case) -> Iterator[Finding]:
    """Say where the privacy switch is at, which only the kernel's table for root tells without taking its pin."""
    switches = case.config.switches
    node = _chip(case)
    if switches.privacy_pin < 0 or node is None or not case.is_config_known:
        return
    line = _line_of_debugfs(case.system.read(_DEBUG), node.name, switches.privacy_pin)
    setting = f"switches.privacy_pin = {switches.privacy_pin}"
    if line is None or line.is_low is None:
        yield skipped("privacy switch", f"{setting}: where it is at shows while the service runs, to root")
        return
    # A closed contact pulls the pin to ground.
    is_on = line.is_low == (switches.privacy_contact == "normally_open")
    yield passed("privacy switch", f"{setting}: {'on, the camera stays closed' if is_on else 'off'}")


CHECKS = (chip, lines, privacy)


def _no_chip(case: Case) -> Finding:
    """Say why there is no header: there is none, or this user may not ask."""
    nodes = case.system.glob("/dev/gpiochip*")
    names = ", ".join(map(case.system.shown, nodes))
    settings = "leds.enabled = true" if case.config.leds.enabled else "section switches"
    if not nodes or any(os.access(node, os.R_OK | os.W_OK) for node in nodes):
        return failed(
            "gpio", f"{settings}, but this machine has no GPIO header ({names or 'no /dev/gpiochip*'})",
            'for a machine without pins: leds.enabled = false, with camera.source = "synthetic"',
        )  # fmt: skip
    if case.user.name:
        case.unseen["who holds the pins"] = None
        return skipped("gpio", f"this user may not ask {names}", "sudo microedge doctor")
    return failed("gpio", f"{settings}, but this user may not use {names}", _GROUP.format(user="$USER"))


def _wanted(case: Case) -> dict[str, int]:
    """Give the pins that the configuration asks for, by setting."""
    found = {}
    for name in (name for name in KEYS if name.endswith("_pin")):
        section, _, key = name.partition(".")
        pin = getattr(getattr(case.config, section), key)
        if pin >= 0 and (section != "leds" or case.config.leds.enabled):
            found[name] = pin
    return found if case.is_config_known else {}


def _nothing_to_do(case: Case) -> Finding:
    if not case.is_config_known:
        return skipped("gpio", "the configuration may not be read")
    return skipped("gpio", "leds.enabled = false and no switches: no pin is asked for")


def _factory(case: Case) -> str:
    """Give the way to the pins that gpiozero is told to take; empty if it may choose."""
    of_service = re.search(r"\bGPIOZERO_PIN_FACTORY=(\w+)", case.service.value("Environment"))
    if of_service:
        return of_service[1].lower()
    return (
        "" if case.service.is_installed else case.system.environment.get("GPIOZERO_PIN_FACTORY", "").lower()
    )


def _chip(case: Case) -> Path | None:
    """Give the device file of the header's chip; its number differs from board to board and kernel to kernel."""
    for node in case.system.glob("/dev/gpiochip*"):
        if _label(case, node) in LABELS:
            return node
    return None


def _label(case: Case, node: Path) -> str:
    try:
        answer = bytearray(68)
        with _opened(node) as descriptor:
            fcntl.ioctl(descriptor, CHIP_INFO, answer)
        return _text(answer[32:64])
    except OSError:
        # Closed to this user, or no chip. sysfs tells the label too, by the driver's name.
        link = case.system.path(f"/sys/bus/gpio/devices/{node.name}/of_node/compatible")
        try:
            compatible = link.read_text(errors="replace")
        except OSError:
            return ""
        return next((label for label in LABELS if label.removeprefix("pinctrl-") in compatible), "")


def _line(case: Case, node: Path, pin: int) -> PinLine | None:
    """Ask who has a line; None if this user cannot be told."""
    try:
        answer = bytearray(_LINE.pack(b"", b"", pin, 0, 0, b"", b""))
        with _opened(node) as descriptor:
            fcntl.ioctl(descriptor, LINE_INFO, answer)
        _, consumer, _, _, flags, _, _ = _LINE.unpack(answer)
        return PinLine(bool(flags & _USED), _text(consumer))
    except OSError:
        return _line_of_debugfs(case.system.read(_DEBUG), node.name, pin)


def _line_of_debugfs(text: str, chip: str, pin: int) -> PinLine | None:
    """Find a line in the kernel's table for people: ` gpio-529 (GPIO17              |lg                  ) out lo`.

    Lines that nobody has and nobody named are left out of it.
    """
    base = None
    for row in text.splitlines():
        if head := re.match(r"(\w+): (?:GPIOs (\d+)-|\d+ GPIOs)", row):
            # Newer kernels count from 0 within each chip.
            base = int(head[2] or 0) if head[1] == chip else None
        elif base is not None:
            found = re.match(r"\s*gpio-(\d+)\s*\((.{0,20}?)\s*(?:\|(.*?))?\s*\)", row)
            if found is not None and int(found[1]) - base == pin:
                consumer, level = (found[3] or "").strip(), re.search(r"\b(lo|hi)\b", row[found.end() :])
                return PinLine(bool(consumer), consumer, level and level[1] == "lo")
    return PinLine(False, "") if f"{chip}:" in text else None


@contextlib.contextmanager
def _opened(node: Path) -> Iterator[int]:
    """Open a device file, for questions alone."""
    descriptor = os.open(node, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _text(raw: bytes | bytearray) -> str:
    return bytes(raw).split(b"\0")[0].decode(errors="replace")
