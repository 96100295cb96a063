"""The buffers between reader and worker: one copy, none overwritten too early, none more than at the start."""

import threading
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from edge.continuity import Continuity
from edge.errors import SourceError
from edge.feed import FrameQueue, Reader
from edge.records import Frame


def frame(sequence: int, size: tuple[int, int] = (6, 8)) -> Frame:
    return Frame(np.full(size, sequence % 251, np.uint8), sequence * 5_000_000, sequence)


def address(got: Frame) -> int:
    return int(got.luma.ctypes.data)


def is_whole(got: Frame) -> bool:
    return bool((got.luma == got.sequence % 251).all())


@pytest.mark.parametrize("drops_oldest", [True, False])
def test_a_frame_stays_as_it_is_while_it_waits_and_while_the_worker_is_at_it(drops_oldest: bool) -> None:
    frames = FrameQueue(4, drops_oldest=drops_oldest)
    source = np.zeros((120, 160), np.uint8)

    def read() -> None:
        for sequence in range(3000):
            source[:] = sequence % 251  # one buffer, as a camera may have
            assert frames.put(Frame(source, sequence * 5_000_000, sequence))
        frames.end()

    reader = threading.Thread(target=read)
    reader.start()
    taken, last, held = 0, -1, set()
    while (got := frames.get()) is not None:
        assert got.sequence > last
        last, taken = got.sequence, taken + 1
        before = is_whole(got)
        if taken % 50 == 0:
            # Slow now and then, so that the queue fills up.
            np.linalg.svd(np.random.default_rng(taken).normal(size=(120, 120)))
        assert before
        assert is_whole(got)
        held.add(address(got))
    reader.join()
    assert last == 2999
    assert taken + frames.dropped == 3000
    assert frames.dropped == 0 or drops_oldest
    assert len(held) <= 5


def test_as_many_frames_wait_as_there_is_room_for_beside_the_one_in_hand() -> None:
    frames = FrameQueue(3, drops_oldest=True)
    frames.put(frame(0))
    first = frames.get()
    assert first is not None
    for sequence in range(1, 6):
        frames.put(frame(sequence))
    assert is_whole(first)
    frames.end()
    assert [got.sequence for got in iter(frames.get, None)] == [3, 4, 5]
    assert frames.dropped == 2


def test_buffers_are_used_again_and_there_are_never_more() -> None:
    frames = FrameQueue(3, drops_oldest=True)
    seen = set()
    for sequence in range(100):
        for extra in range(sequence % 6):
            frames.put(frame(10 * sequence + extra))
        if sequence % 6:
            got = frames.get()
            assert got is not None
            seen.add(address(got))
    assert len(seen) <= 4


def test_a_worker_that_keeps_up_gets_the_same_two_buffers_all_the_time() -> None:
    frames = FrameQueue(32, drops_oldest=True)
    seen = set()
    for sequence in range(50):
        frames.put(frame(sequence))
        got = frames.get()
        assert got is not None
        seen.add(address(got))
    assert len(seen) == 2


def test_frames_of_another_size_take_the_place_of_the_old_buffers() -> None:
    frames = FrameQueue(2, drops_oldest=False)
    kept = []
    for sequence in range(40):
        assert frames.put(frame(sequence, (6, 8) if sequence < 20 else (9, 5)))
        got = frames.get()
        assert got is not None
        assert got.luma.shape == ((6, 8) if sequence < 20 else (9, 5))
        assert is_whole(got)
        kept.append(address(got))
    assert len(set(kept[25:])) <= 3


def test_frames_with_gaps_between_their_rows_arrive_whole() -> None:
    frames = FrameQueue(2, drops_oldest=False)
    wide = np.arange(200, dtype=np.uint8).reshape(10, 20)
    frames.put(Frame(wide[:, :13], 0, 0))
    got = frames.get()
    assert got is not None
    assert got.luma.flags.c_contiguous
    assert np.array_equal(got.luma, wide[:, :13])


def test_nothing_comes_out_of_a_queue_that_was_closed_or_goes_into_it() -> None:
    frames = FrameQueue(3, drops_oldest=True)
    frames.put(frame(0))
    frames.close()
    assert frames.get() is None
    assert not frames.put(frame(1))
    assert frames.get() is None


def test_a_closed_queue_frees_a_reader_that_waits_for_a_buffer() -> None:
    frames = FrameQueue(1, drops_oldest=False)
    frames.put(frame(0))
    accepted: list[bool] = []
    reader = threading.Thread(target=lambda: accepted.append(frames.put(frame(1))))
    reader.start()
    frames.close()
    reader.join()
    assert accepted == [False]


class _Resized:
    """A camera that comes back with another size."""

    name = "test camera"
    nominal_rate_hz = 200.0
    duration_s: float | None = None
    start_time_ns = 0
    frames_out_of_order = 0

    def __init__(self, size: tuple[int, int], count: int) -> None:
        self.size, self.warnings, self._count = size, list[str](), count

    def frames(self) -> Iterator[Frame]:
        buffer = np.zeros(self.size[::-1], np.uint8)
        for sequence in range(self._count):
            buffer[:] = sequence
            yield Frame(buffer, sequence * 5_000_000, sequence)

    def close(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize("size", [(8, 6), (31, 17)])
def test_a_reader_hands_over_what_the_source_gave_whatever_its_size(size: tuple[int, int]) -> None:
    frames = FrameQueue(3, drops_oldest=False)
    reader = Reader(
        lambda: _Resized(size, 50), frames, is_live=False, light=lambda _: None, retried=lambda: None
    )
    reader.start()
    count = 0
    while (got := frames.get()) is not None:
        assert got.luma.shape == size[::-1]
        assert is_whole(got)
        count += 1
    reader.close(5.0)
    assert count == 50


def test_a_camera_that_was_away_for_long_has_lost_frames_and_its_clock_has_not_jumped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_ns = [0]
    monkeypatch.setattr("edge.feed.time.monotonic_ns", lambda: now_ns[0])
    monkeypatch.setattr("edge.feed.RETRY_S", (0.001, 0.001))

    class Breaking(_Resized):
        def frames(self) -> Iterator[Frame]:
            yield from super().frames()
            if now_ns[0] == 0:
                now_ns[0] = 60_000_000_000
                raise SourceError("cable pulled")

    frames = FrameQueue(200, drops_oldest=True)
    reader = Reader(
        lambda: Breaking((8, 6), 60), frames, is_live=True, light=lambda _: None, retried=lambda: None
    )
    continuity = Continuity()
    reader.start()
    while (got := frames.get()) is not None:
        continuity.take(got)
    reader.close(5.0)
    assert (continuity.frames, continuity.clock_steps, continuity.out_of_order) == (120, 0, 0)
    assert continuity.dropped == 60 * 200 - 1


def test_memory_for_all_that_may_wait_is_taken_with_the_first_frame() -> None:
    frames = FrameQueue(24, drops_oldest=True)
    size = (600, 800)
    frames.put(frame(0, size))
    assert frames.get() is not None
    frames.put(frame(1, size))  # the buffer that the worker holds at the start, which is empty, is used now
    assert frames.get() is not None
    frames.put(frame(2, size))
    tracemalloc.start()
    try:
        for sequence in range(3, 60):
            frames.put(frame(sequence, size))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert frames.dropped > 30
    assert most < 2.5 * size[0] * size[1]  # the frames that this test makes, one at a time


@pytest.mark.parametrize("is_live", [True, False])
def test_a_wall_clock_that_is_set_while_a_camera_runs_corrects_what_its_media_time_stands_for(
    monkeypatch: pytest.MonkeyPatch, is_live: bool
) -> None:
    wall_ns, steady_ns = [1_000_000_000_000], [5_000_000_000]
    monkeypatch.setattr("edge.feed.time.time_ns", lambda: wall_ns[0])
    monkeypatch.setattr("edge.feed.time.monotonic_ns", lambda: steady_ns[0])

    class Dated(_Resized):
        start_time_ns = 999_000_000_000

    frames = FrameQueue(9, drops_oldest=False)
    reader = Reader(
        lambda: Dated((8, 6), 3), frames, is_live=is_live, light=lambda _: None, retried=lambda: None
    )
    reader.start()
    while frames.get() is not None:
        pass
    before_ns = reader.start_time_ns
    wall_ns[0] += 60_000_000_000
    steady_ns[0] += 60_000_000_000
    assert reader.start_time_ns == before_ns == 999_000_000_000  # time that has passed changes nothing
    wall_ns[0] += 3 * 86_400_000_000_000
    corrected_ns = reader.start_time_ns - before_ns
    reader.close(5.0)
    assert corrected_ns == (3 * 86_400_000_000_000 if is_live else 0)
