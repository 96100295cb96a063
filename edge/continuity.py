"""What the timestamps say: the real frame rate, lost frames, and gaps that no event may span."""

from collections import deque
from statistics import median

from edge.records import Frame

_PERIODS = 101
"""Frame periods over which the rate is taken as the median."""
_BRIDGED_PERIODS = 2.5
_BRIDGED_NS = 12_000_000
"""One lost frame is bridged by interpolation; a hole longer than both limits is a gap."""


class Continuity:
    """Follows the stream's timestamps and sequence numbers.

    Attributes:
        frames: frames taken.
        dropped: frames lost, from sequence numbers and from timestamps, whichever tells more.
        out_of_order: frames refused because their timestamp did not rise.
    """

    def __init__(self, nominal_rate_hz: float = 0.0) -> None:
        self.frames = self.dropped = self.out_of_order = 0
        self._periods: deque[int] = deque(maxlen=_PERIODS)
        self._period_ns = 1e9 / nominal_rate_hz if nominal_rate_hz > 0 else 0.0
        self._last: Frame | None = None
        self._since_median = 0

    @property
    def frame_rate_hz(self) -> float:
        """The measured rate; 0 before the second frame."""
        return 1e9 / self._period_ns if self._period_ns > 0 and self.frames > 1 else 0.0

    def take(self, frame: Frame) -> int | None:
        """Take a frame's stamp.

        Returns:
            ns since the frame before (0 for the first), or None for a frame whose timestamp does not rise.
        """
        if self._last is None:
            self._last = frame
            self.frames = 1
            return 0
        elapsed_ns = frame.timestamp_ns - self._last.timestamp_ns
        if elapsed_ns <= 0:
            self.out_of_order += 1
            return None
        before, self._last = self._last, frame
        self.frames += 1
        lost_by_number = max(0, frame.sequence - before.sequence - 1)
        self._periods.append(elapsed_ns // (lost_by_number + 1))
        self._since_median += 1
        if self._since_median >= 10 or len(self._periods) < 20:
            self._period_ns = float(median(self._periods))
            self._since_median = 0
        lost_by_time = round(elapsed_ns / self._period_ns) - 1 if len(self._periods) >= 20 else 0
        self.dropped += max(lost_by_number, lost_by_time)
        return elapsed_ns

    def is_gap(self, elapsed_ns: int) -> bool:
        """Tell whether so long a time between two frames is a hole in which something may have been missed."""
        return elapsed_ns > max(_BRIDGED_NS, _BRIDGED_PERIODS * self._period_ns) > 0
