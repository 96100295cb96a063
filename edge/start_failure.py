"""What keeps a device from starting: all of it in one report, and on the fault LED."""

import time
from collections.abc import Iterable, Sequence

from edge.errors import ConfigError, EdgeError, ModelError, PinError, PublishError, SourceError, StuckError
from edge.out.leds import Fault, Leds

BLINK_S = 6.0
"""How long the fault LED says why a service does not start, before it ends; long enough for two rounds of any code."""
_FAULTS = {
    ConfigError: Fault.CONFIGURATION, SourceError: Fault.CAMERA, PinError: Fault.CAMERA, ModelError: Fault.MODELS,
    StuckError: Fault.CAMERA, PublishError: Fault.DISK,
}  # fmt: skip


def report(problems: Sequence[EdgeError], also: Iterable[str] = ()) -> EdgeError:
    """Make one error of all, a line each, to be raised.

    Args:
        problems: at least one; one of the configuration makes it a `ConfigError`. A `StuckError` is its cause.
        also: what the device could live with, but whoever mends the others wants to know; empty texts are left out.
    """
    kind = ConfigError if any(isinstance(each, ConfigError) for each in problems) else EdgeError
    error = kind("\n".join([*map(str, problems), *filter(None, also)]))
    error.__cause__ = next((each for each in problems if isinstance(each, StuckError)), problems[0])
    return error


def blink(leds: Leds, problems: Iterable[EdgeError]) -> None:
    """Show what is wrong to a person who stands before the device and has no other way to learn it."""
    for problem in problems:
        leds.fault(_FAULTS.get(type(problem), Fault.OTHER), True)
    time.sleep(BLINK_S)
