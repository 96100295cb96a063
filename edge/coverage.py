"""Book media time as assessable or not, so that silence never passes for quiet.

Every nanosecond between the first and the last frame is booked once, either as assessable or under the reason
why it is not. Neighbouring time of the same reason is one stretch.
"""

from collections import Counter, deque

import numpy as np
from numpy.typing import NDArray

from edge.records import NotAssessable, Reason

_KEPT_NS = 3_000_000_000
"""Stretches that ended longer ago are forgotten: the longest event, the longest merge gap and the spotter's delay
together stay below 1.5 s."""


class Coverage:
    """What time could be assessed.

    Attributes:
        assessable_ns: time booked as assessable.
        lost_ns: time booked as not assessable, by reason.
    """

    def __init__(self) -> None:
        self.assessable_ns = 0
        self.lost_ns: Counter[Reason] = Counter()
        self._booked_until_ns: int | None = None
        self._open: NotAssessable | None = None
        self._recent: deque[NotAssessable] = deque()

    def book(self, start_ns: int, end_ns: int, reason: Reason | None) -> NotAssessable | None:
        """Book the time after `start_ns` up to and with `end_ns`, which follows what was booked last.

        Args:
            start_ns: timestamp of the frame before.
            end_ns: timestamp of this frame, not before `start_ns`.
            reason: why this time cannot be assessed; None if it can.

        Returns:
            The stretch that has ended with this, whole; None if none has.
        """
        if end_ns <= start_ns:
            return None
        self._booked_until_ns = end_ns
        ended = self._open
        if ended is not None and ended.reason == reason and ended.end_ns == start_ns:
            self._open = NotAssessable(ended.start_ns, end_ns, ended.reason)
            self.lost_ns[ended.reason] += end_ns - start_ns
            return None
        if reason is None:
            self._open = None
            self.assessable_ns += end_ns - start_ns
        else:
            self._open = NotAssessable(start_ns, end_ns, reason)
            self.lost_ns[reason] += end_ns - start_ns
        if ended is not None:
            self._recent.append(ended)
        while self._recent and self._recent[0].end_ns < end_ns - _KEPT_NS:
            self._recent.popleft()
        return ended

    def finish(self) -> NotAssessable | None:
        """Give the stretch that is still open at the end of the stream."""
        ended, self._open = self._open, None
        if ended is not None:
            self._recent.append(ended)
        return ended

    def reason_against(self, start_ns: int, end_ns: int) -> Reason | None:
        """Give why the interval cannot be assessed as a whole: the first stretch that it overlaps; None if it can."""
        for stretch in self._stretches():
            if stretch.start_ns < end_ns and start_ns < stretch.end_ns:
                return stretch.reason
        return None

    def assessable(self, times_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell for each of the last seconds' times (n,) whether it was booked as assessable."""
        if self._booked_until_ns is None:
            return np.zeros(len(times_ns), np.bool_)
        free: NDArray[np.bool_] = times_ns <= self._booked_until_ns
        for stretch in self._stretches():
            free &= (times_ns <= stretch.start_ns) | (times_ns > stretch.end_ns)
        return free

    def _stretches(self) -> list[NotAssessable]:
        return [*self._recent, *([self._open] if self._open is not None else [])]
