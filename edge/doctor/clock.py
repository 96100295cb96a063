"""Area *clock*: whether it can be right, who keeps it right, and whether it survives a power cut."""

from collections.abc import Iterator
from datetime import timedelta

from edge.clock import RELEASED, problem
from edge.doctor.case import Case
from edge.doctor.finding import Finding, failed, passed, skipped, warned

YEARS_AHEAD = 20
"""Nobody runs this program so long after it was made; a clock that says so has been set wrongly."""


def date(case: Case) -> Iterator[Finding]:
    """Look for a clock that is years off."""
    now = case.system.now()
    shown = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    latest = RELEASED + timedelta(days=365.25 * YEARS_AHEAD)
    if wrong := problem(int(now.timestamp()) * 1_000_000_000):
        yield failed("date", wrong.removeprefix("clock: "), "sudo timedatectl set-ntp true")
    elif now > latest:
        yield failed(
            "date", f"{shown}: more than {YEARS_AHEAD} years after this program was made ({RELEASED:%B %Y})",
            "sudo timedatectl set-ntp true",
        )  # fmt: skip
    else:
        yield passed("date", shown)


def synchronised(case: Case) -> Iterator[Finding]:
    """Ask the kernel whether something keeps the clock right."""
    if case.system.synchronised():
        yield passed("synchronised", "the kernel says that its clock is kept right")
        return
    yield warned(
        "synchronised", "nothing keeps the clock right: events are marked clock_synchronised = false",
        "timedatectl timesync-status; sudo timedatectl set-ntp true (needs UDP port 123 to the outside)",
    )  # fmt: skip


def battery(case: Case) -> Iterator[Finding]:
    """Look for a clock that runs while the power is off."""
    for folder in case.system.glob("/sys/class/rtc/rtc*"):
        name = case.system.read(case.system.shown(folder / "name")) or folder.name
        yield passed("battery", f"real-time clock {name}; whether its battery is in cannot be seen from here")
        return
    yield skipped(
        "battery", "no real-time clock: after a power cut the time is wrong until the network gives it"
    )


CHECKS = (date, synchronised, battery)
