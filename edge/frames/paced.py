"""Another source's frames in real time."""

import time
from collections.abc import Callable, Iterator

from edge.frames import FrameSource
from edge.records import Frame

BEHIND_S = 0.5
"""Who is later than this starts the timetable anew instead of racing to catch up."""


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
        self.warnings, self.frames_out_of_order = source.warnings, 0

    def frames(self) -> Iterator[Frame]:
        start_s = self._clock_s()
        for frame in self._source.frames():
            ahead_s = start_s + frame.timestamp_ns / 1e9 - self._clock_s()
            if ahead_s > 0:
                self._sleep(ahead_s)
            elif ahead_s < -BEHIND_S:
                start_s -= ahead_s
            self.frames_out_of_order = self._source.frames_out_of_order
            yield frame

    def close(self) -> None:
        self._source.close()
