"""What stamps and numbers say: the real frame rate, lost frames, gaps that no event may span, clocks that jump."""

from collections import deque
from dataclasses import dataclass, replace
from statistics import median

from edge.records import Frame

_PERIODS = 101
"""Frame periods over which the rate is taken as the median."""
_SETTLED = 20
"""Periods from which the median is believed; what was lost before is counted then."""
_BRIDGED_PERIODS = 2.5
_BRIDGED_NS = 12_000_000
"""One lost frame is bridged by interpolation; a hole longer than both limits is a gap."""
_LONGEST_NS = 10_000_000_000
"""A pause longer than this, which no sequence number bears out, is taken for a jump of the clock. A camera that is
silent for half as long counts as broken."""
_CONVINCING = 5
"""So many frames in a row whose stamps rise from a new time on make it the time: one stray stamp must not."""


@dataclass(slots=True)
class _Doubted:
    """Frames in a row that were turned away, all of which agree on another time."""

    first_ns: int
    last_ns: int
    count: int = 1


class Continuity:
    """Follows the stream's timestamps and sequence numbers, and gives frames one media time that always rises.

    A clock that steps back goes on one period after the last frame that was taken, and keeps that distance. One
    that steps forward is followed: by stamps alone, its jump is no different from a pause. Either takes a few frames
    to be believed, is a gap, and loses no frame but those that the sequence numbers miss.

    Attributes:
        frames: frames taken.
        dropped: frames that the sensor made and that never came in time, from sequence numbers and from timestamps,
            whichever tells more. One that comes late, or with a stray timestamp, leaves its place empty and counts
            too. Over a step of the clock, and until twenty frames have shown their period, numbers alone tell.
        out_of_order: frames that came and were refused, because their timestamp did not rise or was far off.
        clock_steps: times that another time was taken for the true one.
        elapsed_ns: media time between the last two frames that were taken.
        is_gap: whether the time between these is a hole in which something may have been missed.
    """

    def __init__(self) -> None:
        self.frames = self.dropped = self.out_of_order = self.clock_steps = self.elapsed_ns = 0
        self.is_gap = False
        self._periods: deque[int] = deque(maxlen=_PERIODS)
        self._period_ns = 0.0
        self._unsettled: list[tuple[int, int]] = []
        """(elapsed ns, lost by number) of the first intervals, while their period is not known."""
        self._last_ns = self._sequence = self._shift_ns = 0
        self._refused_since = 0
        """Frames refused since the last one that was taken: their numbers are missing, but they are not lost."""
        self._doubted: _Doubted | None = None
        self._since_median = 0

    @property
    def frame_rate_hz(self) -> float:
        """The measured rate; 0 before the second frame."""
        return 1e9 / self._period_ns if self._period_ns > 0 else 0.0

    def take(self, frame: Frame) -> Frame | None:
        """Take the next frame.

        Returns:
            The frame with its media time, which is later than that of every frame before, or None if it is refused.
        """
        timestamp_ns = frame.timestamp_ns + self._shift_ns
        lost = 0
        if self.frames > 0:
            elapsed_ns = timestamp_ns - self._last_ns
            lost = max(0, frame.sequence - self._sequence - 1 - self._refused_since)
            if elapsed_ns <= 0 or self._is_unlikely(elapsed_ns, lost):
                if not self._is_convincing(timestamp_ns):
                    self.out_of_order += 1
                    self._refused_since += frame.sequence > self._sequence
                    return None
                timestamp_ns = self._stepped(timestamp_ns)
                self.elapsed_ns, self.is_gap = timestamp_ns - self._last_ns, True
            else:
                self.elapsed_ns = elapsed_ns
                lost = self._counted(elapsed_ns, lost)
                self.is_gap = elapsed_ns > max(_BRIDGED_NS, _BRIDGED_PERIODS * self._period_ns)
        self.frames += 1
        self.dropped += lost
        self._last_ns, self._sequence = timestamp_ns, frame.sequence
        self._refused_since, self._doubted = 0, None
        return frame if self._shift_ns == 0 else replace(frame, timestamp_ns=timestamp_ns)

    def _is_unlikely(self, elapsed_ns: int, lost: int) -> bool:
        """Tell whether so long a pause is more than the frames that are missing from it account for."""
        return elapsed_ns > max(_LONGEST_NS, 2 * (lost + 1) * self._period_ns)

    def _is_convincing(self, timestamp_ns: int) -> bool:
        """Note a frame of another time; tell whether enough of them agree."""
        doubted = self._doubted
        if doubted is None or not 0 <= timestamp_ns - doubted.last_ns <= _LONGEST_NS:
            self._doubted = _Doubted(timestamp_ns, timestamp_ns)
            return False
        doubted.count += timestamp_ns > doubted.last_ns
        doubted.last_ns = timestamp_ns
        return doubted.count >= _CONVINCING

    def _stepped(self, timestamp_ns: int) -> int:
        """Take the new time for the true one; give the frame's media time."""
        doubted = self._doubted
        assert doubted is not None
        self.clock_steps += 1
        if timestamp_ns > self._last_ns:
            return timestamp_ns
        period_ns = round(self._period_ns) or (timestamp_ns - doubted.first_ns) // (_CONVINCING - 1)
        shift_ns = self._last_ns + period_ns - doubted.first_ns
        self._shift_ns += shift_ns
        return timestamp_ns + shift_ns

    def _counted(self, elapsed_ns: int, lost_by_number: int) -> int:
        """Follow the frame period; give how many frames are known by now to be lost and were not counted yet."""
        self._periods.append(elapsed_ns // (lost_by_number + 1))
        self._since_median += 1
        if self._since_median >= 10 or len(self._periods) <= _SETTLED:
            self._period_ns = float(median(self._periods))
            self._since_median = 0
        if len(self._periods) < _SETTLED:
            self._unsettled.append((elapsed_ns, lost_by_number))
            return lost_by_number
        belated = sum(max(0, self._by_time(ns) - number) for ns, number in self._unsettled)
        self._unsettled.clear()
        return belated + max(lost_by_number, self._by_time(elapsed_ns))

    def _by_time(self, elapsed_ns: int) -> int:
        return round(elapsed_ns / max(self._period_ns, 1.0)) - 1
