"""A short stream played to and fro for ever."""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest

from edge.errors import SourceError
from edge.frames import FrameSource
from edge.frames.looped import LoopedSource
from edge.records import Frame


class Numbered:
    """Small frames whose pixels say which one it is; the buffer is used again, as a camera does."""

    def __init__(self, count: int, rate_hz: float = 200.0) -> None:
        self.name, self.size, self.nominal_rate_hz = "numbered", (6, 4), rate_hz
        self.duration_s: float | None = None
        self.start_time_ns = 7
        self.frames_out_of_order = 0
        self.warnings: list[str] = []
        self.is_closed = False
        self._count = count

    def frames(self) -> Iterator[Frame]:
        buffer = np.zeros((4, 6), np.uint8)
        for index in range(self._count):
            buffer[:] = index
            yield Frame(buffer, index * 5_000_000, index)

    def close(self) -> None:
        self.is_closed = True


def test_frames_are_played_to_and_fro_while_time_and_sequence_go_on_rising() -> None:
    inner = Numbered(4)
    looped = LoopedSource(inner)
    assert inner.is_closed
    assert isinstance(looped, FrameSource)
    taken = list(islice(looped.frames(), 14))
    assert [int(frame.luma[0, 0]) for frame in taken] == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]
    assert [frame.sequence for frame in taken] == list(range(14))
    assert [frame.timestamp_ns for frame in taken] == [index * 5_000_000 for index in range(14)]
    assert all((frame.luma == frame.luma[0, 0]).all() and not frame.luma.flags.writeable for frame in taken)


def test_a_loop_ends_after_its_length_or_when_it_is_closed() -> None:
    assert len(list(LoopedSource(Numbered(3), seconds=0.1).frames())) == 20
    looped = LoopedSource(Numbered(1))
    count = 0
    for frame in looped.frames():
        assert frame.sequence == count
        count += 1
        if count == 5:
            looped.close()
    assert count == 5


@pytest.mark.parametrize(
    ("source", "message"),
    [(Numbered(0), "numbered: gives no frame"), (Numbered(3, rate_hz=0.0), "numbered: states no frame rate")],
)
def test_what_cannot_be_looped_is_refused_and_closed(source: Numbered, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        LoopedSource(source)
    assert source.is_closed
