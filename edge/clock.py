"""What is known of this machine's clock: a Raspberry Pi without a battery wakes up in the past."""

import ctypes
import time
from datetime import UTC, datetime

RELEASED = datetime(2026, 11, 1, tzinfo=UTC)
"""No clock that is right shows a time before this program was written."""


def is_synchronised() -> bool:
    """Ask the kernel whether something keeps its clock right.

    Source: adjtimex(2): it returns TIME_ERROR (5) while the clock is not synchronised. 208 bytes hold the
    structure on every Linux; all zero, it only asks.
    """
    try:
        return 0 <= int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(208))) < 5
    except (AttributeError, OSError):
        return False


def problem(now_ns: int | None = None) -> str:
    """Say what is wrong with a clock that is years off; empty if nothing is to be seen.

    Args:
        now_ns: UTC, ns since 1970; None: what the clock says.
    """
    now = datetime.fromtimestamp((time.time_ns() if now_ns is None else now_ns) // 1_000_000_000, UTC)
    if now >= RELEASED:
        return ""
    return (
        f"clock: says {now:%Y-%m-%d %H:%M} UTC, but this program was made in {RELEASED:%B %Y}: events are dated "
        "wrongly and no certificate can be checked until it is set (`timedatectl`)"
    )
