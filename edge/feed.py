"""Carries frames from a source's thread to the worker: in order, bounded, and honest about what it dropped."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from edge.frames import FrameSource
from edge.records import Frame

BEHIND_S = 0.5
"""A `PacedSource` that is later than this starts its timetable anew instead of racing to catch up."""


class FrameQueue:
    """A bounded queue between one thread that reads and one that works.

    When full, it drops the oldest frame and counts it (a camera does not wait), or makes the reader wait (a
    file does). A dropped frame shows downstream as a jump of `Frame.sequence`.
    """

    def __init__(self, capacity: int, *, drops_oldest: bool) -> None:
        self._capacity, self._drops_oldest = capacity, drops_oldest
        self._frames: deque[Frame] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._dropped = 0

    @property
    def dropped(self) -> int:
        return self._dropped

    def put(self, frame: Frame) -> bool:
        """Hand a frame over, whose buffer must stay as it is; False once the queue has been closed."""
        with self._changed:
            if not self._drops_oldest:
                self._changed.wait_for(lambda: self._ended or len(self._frames) < self._capacity)
            if self._ended:
                return False
            if len(self._frames) >= self._capacity:
                self._frames.popleft()
                self._dropped += 1
            self._frames.append(frame)
            self._changed.notify_all()
            return True

    def get(self) -> Frame | None:
        """Wait for the oldest frame; None once the stream has ended and all is handed out."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or bool(self._frames))
            frame = self._frames.popleft() if self._frames else None
            self._changed.notify_all()
            return frame

    def end(self) -> None:
        """Say that no more frames come; those that wait are still handed out."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def close(self) -> None:
        """End and forget the frames that wait."""
        with self._changed:
            self._frames.clear()
            self._ended = True
            self._changed.notify_all()


class PacedSource:
    """A `FrameSource` that gives another one's frames no faster than real time, as a camera would.

    When frames take longer to make than they last, it falls behind; media time is the frames' own throughout.
    """

    def __init__(
        self,
        source: FrameSource,
        clock_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._source, self._clock_s, self._sleep = source, clock_s, sleep
        self.name, self.size, self.duration_s = source.name, source.size, source.duration_s
        self.nominal_rate_hz, self.start_time_ns = source.nominal_rate_hz, source.start_time_ns
        self.warnings = source.warnings

    @property
    def frames_out_of_order(self) -> int:
        return self._source.frames_out_of_order

    def frames(self) -> Iterator[Frame]:
        start_s = self._clock_s()
        for frame in self._source.frames():
            ahead_s = start_s + frame.timestamp_ns / 1e9 - self._clock_s()
            if ahead_s > 0:
                self._sleep(ahead_s)
            elif ahead_s < -BEHIND_S:
                start_s -= ahead_s
            yield frame

    def close(self) -> None:
        self._source.close()
