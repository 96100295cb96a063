"""What live sources share: lost frames from timestamps, and the wall-clock time of a sensor timestamp."""

import time
from collections import deque
from statistics import median

_RECENT = 31
"""Intervals over which an unknown frame period is estimated; the median survives lost frames among them."""
_SETTLED = 5
_LONGEST_NS = 10_000_000_000
"""A longer interval is a jump of the clock: a camera that is silent for half as long counts as broken."""


class FrameCounter:
    """Counts the frames that a sensor produced from the timestamps of those that arrived.

    Drivers do not tell of frames that they lost (raspberrypi/picamera2 issue 1201), but the sensor's clock
    does: an interval of three periods means two lost frames.

    Args:
        nominal_hz: the rate that was asked for; used until the stream shows its own.
    """

    def __init__(self, nominal_hz: float):
        self._nominal_ns = 1_000_000_000 / nominal_hz if nominal_hz > 0 else None
        self._recent: deque[int] = deque(maxlen=_RECENT)
        self._last_ns: int | None = None
        self._sequence = 0

    def sequence(self, timestamp_ns: int, period_ns: int | None = None) -> int:
        """Give the sensor's number of the frame, from 0.

        Args:
            timestamp_ns: one that is not later than in the call before, or far later, says nothing of lost frames.
            period_ns: the frame period if the driver states it, else the median of recent intervals is taken.
        """
        if self._last_ns is not None:
            interval_ns = timestamp_ns - self._last_ns
            if 0 < interval_ns <= _LONGEST_NS:
                self._recent.append(interval_ns)
                self._sequence += max(1, round(interval_ns / (period_ns or self._period_ns())))
            else:
                self._sequence += 1
        self._last_ns = timestamp_ns
        return self._sequence

    def _period_ns(self) -> float:
        if len(self._recent) < _SETTLED and self._nominal_ns is not None:
            return self._nominal_ns
        return median(self._recent)


def utc_of(timestamp_ns: int) -> int:
    """Give the UTC, ns since 1970, of a sensor timestamp taken a moment ago.

    libcamera stamps with CLOCK_BOOTTIME, V4L2 drivers with CLOCK_MONOTONIC or the wall clock; the right one
    is the one whose present reading is closest to the stamp.
    """
    clocks = (time.CLOCK_BOOTTIME, time.CLOCK_MONOTONIC, time.CLOCK_REALTIME)
    age_ns = min((time.clock_gettime_ns(clock) - timestamp_ns for clock in clocks), key=abs)
    return time.time_ns() - age_ns
