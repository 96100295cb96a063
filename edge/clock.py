"""What is known of this machine's clock: a Raspberry Pi without a battery wakes up in the past."""

import ctypes
import subprocess
import time
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

RELEASED = datetime(2026, 11, 1, tzinfo=UTC)
"""No clock that is right shows a time before this program was written."""


TIMESYNC_MARK = Path("/run/systemd/timesync/synchronized")
"""There once systemd-timesyncd has set the clock since the start of the machine."""
_ASKED_EVERY_S = 60.0


def is_synchronised(mark: Path = TIMESYNC_MARK) -> bool:
    """Tell whether something keeps this machine's clock right.

    The kernel knows, but microedge.service is refused the call that asks it, because the same call sets the clock
    (`ProtectClock=`). There systemd-timesyncd's mark says it, or else timedated, whoever keeps the clock.

    Source: adjtimex(2): it returns TIME_ERROR (5) while the clock is not synchronised. 208 bytes hold the
    structure on every Linux; all zero, it only asks. systemd-timesyncd.service(8), org.freedesktop.timedate1(5).
    """
    try:
        state = int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(208)))
    except (AttributeError, OSError):
        return False
    return state < 5 if state >= 0 else mark.exists() or _timedated_says(time.monotonic() // _ASKED_EVERY_S)


@lru_cache(maxsize=1)
def _timedated_says(period: float) -> bool:
    """Ask the service manager's own clock service, over the system's message bus; once in each period."""
    name = "org.freedesktop.timedate1"
    command = (
        "busctl",
        "--system",
        "get-property",
        name,
        "/org/freedesktop/timedate1",
        name,
        "NTPSynchronized",
    )
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5.0, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.stdout.strip() == "b true"


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
