"""A short stream played forward and backward for as long as one likes: frames that cost nothing to make."""

import mmap
import tempfile
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edge.errors import SourceError
from edge.frames import FrameSource
from edge.records import Frame


class LoopedSource:
    """A `FrameSource` that draws all frames of another one beforehand and then plays them to and fro.

    Nothing jumps where it turns, so a face stays followed for hours. Time and sequence go on rising at the
    source's nominal rate. The frames lie in a temporary file that is mapped into memory: whoever measures what a
    pipeline keeps (`RssAnon` of proc(5)) does not count them.

    Args:
        source: a stream short enough to be kept, of known rate; it is read to its end now and closed.
        seconds: length of the stream given; None: without end.

    Raises:
        SourceError: the source gives no frame, states no rate, or cannot be read.
    """

    def __init__(self, source: FrameSource, *, seconds: float | None = None) -> None:
        try:
            self._kept = _stored(source)
        finally:
            source.close()
        if source.nominal_rate_hz <= 0:
            raise SourceError(f"{source.name}: states no frame rate, so it cannot be looped")
        self.name = f"{source.name}, looped"
        self.size = source.size
        self.nominal_rate_hz = source.nominal_rate_hz
        self.duration_s = seconds
        self.start_time_ns = source.start_time_ns
        self.frames_out_of_order = 0
        self.warnings: list[str] = []
        self._closed = False

    def frames(self) -> Iterator[Frame]:
        """Yield the frames; each is a read-only view that stays valid for as long as it is kept."""
        sequence = 0
        while not self._closed:
            timestamp_ns = round(sequence * 1_000_000_000 / self.nominal_rate_hz)
            if self.duration_s is not None and timestamp_ns >= self.duration_s * 1_000_000_000:
                return
            yield Frame(self._kept[to_and_fro(sequence, len(self._kept))], timestamp_ns, sequence)
            sequence += 1

    def close(self) -> None:
        self._closed = True


def to_and_fro(step: int, count: int) -> int:
    """Give the place after so many steps over 0..count-1 and back, either end visited once a turn."""
    if count == 1:
        return 0
    place = step % (2 * count - 2)
    return place if place < count else 2 * count - 2 - place


def _stored(source: FrameSource) -> NDArray[np.uint8]:
    """Give the source's frames as (frames, rows, columns) uint8, read-only, backed by a file without a name."""
    width, height = source.size
    count = 0
    with tempfile.TemporaryFile() as file:
        for frame in source.frames():
            file.write(np.ascontiguousarray(frame.luma).data)
            count += 1
        if count == 0:
            raise SourceError(f"{source.name}: gives no frame")
        file.flush()
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(mapped, np.uint8).reshape(count, height, width)
