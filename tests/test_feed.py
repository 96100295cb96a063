"""Between source and worker: one copy of each frame, none overwritten too early, and a camera that may come and go."""

import itertools
import random
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from edge.continuity import Continuity
from edge.errors import SourceError
from edge.feed import PausedBy, Reader
from edge.frame_queue import FrameQueue
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


class _Bench:
    """A camera's whole surroundings: its LED, how often it was opened, and whether it may be."""

    def __init__(self) -> None:
        self.is_lit = self.is_open = False
        self.opened = self.retries = 0
        self.wrong: list[str] = []
        """What must never be."""
        self.refuses: Callable[[], bool] = lambda: False
        self.breaks: Callable[[], bool] = lambda: False

    def light(self, on: bool) -> None:
        if self.is_open or on == self.is_lit:
            self.wrong.append(f"the LED went {on} while open = {self.is_open}, lit = {self.is_lit}")
        self.is_lit = on

    def retried(self) -> None:
        self.retries += 1

    def open(self) -> "_Camera":
        if not self.is_lit or self.is_open:
            self.wrong.append(f"opened while lit = {self.is_lit}, open = {self.is_open}")
        if self.refuses():
            raise SourceError("no camera")
        self.opened += 1
        self.is_open = True
        return _Camera(self)

    def reader(self, queue: FrameQueue, paused: bool = False, stays: bool = False) -> Reader:
        return Reader(
            self.open, queue, is_live=True, light=self.light, retried=self.retried, stays=stays,
            paused=[PausedBy.COMMAND] if paused else [],
        )  # fmt: skip


class _Camera(_Resized):
    """Gives frames dated by the real clock, about two thousand a second, until it is closed."""

    nominal_rate_hz = 2000.0

    def __init__(self, bench: _Bench) -> None:
        super().__init__((8, 6), 0)
        self._bench = bench

    def frames(self) -> Iterator[Frame]:
        began_ns = time.monotonic_ns()
        last = -1
        while not self._bench.breaks():
            time.sleep(0.0003)  # a camera's pace
            since_ns = time.monotonic_ns() - began_ns
            last = max(round(since_ns * 2e-6), last + 1)
            yield Frame(np.full((6, 8), last % 251, np.uint8), since_ns, last)
        raise SourceError("cable pulled")

    def close(self) -> None:
        self._bench.is_open = False


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> _Bench:
    monkeypatch.setattr("edge.feed.RETRY_S", (0.001, 0.004))
    return _Bench()


def test_a_pause_closes_the_camera_before_the_led_goes_dark_and_a_resume_is_a_gap_in_time(
    bench: _Bench, until: Callable[..., None]
) -> None:
    frames, continuity = FrameQueue(4, drops_oldest=True), Continuity()
    reader = bench.reader(frames)
    reader.start()
    assert continuity.take(wait_for_frame(frames))
    before = wait_for_frame(frames)
    assert reader.pause(20.0)
    assert (bench.is_open, bench.is_lit, reader.is_paused, reader.problem) == (False, False, True, "")
    until(lambda: bench.retries >= 2, "signs of life during the pause")
    assert reader.pause(20.0)  # again: nothing happens
    reader.resume()
    until(lambda: bench.is_open, "the camera")
    late = [wait_for_frame(frames) for _ in range(6)][-1]  # up to four are from before the pause
    assert late.timestamp_ns - before.timestamp_ns > 0
    assert late.sequence - before.sequence > 5  # frames were lost, and that shows
    reader.close(20.0)
    assert (bench.is_open, bench.is_lit, bench.opened, bench.wrong) == (False, False, 2, [])


def wait_for_frame(frames: FrameQueue) -> Frame:
    got = frames.get()
    assert got is not None
    return got


def test_a_reader_that_begins_with_a_pause_leaves_the_camera_alone_until_it_may_read(
    bench: _Bench, until: Callable[..., None]
) -> None:
    frames = FrameQueue(4, drops_oldest=True)
    bench.refuses = lambda: True
    reader = bench.reader(frames, paused=True)  # a camera that is absent does not matter yet
    reader.start()
    until(lambda: bench.retries >= 2, "signs of life")
    assert (bench.opened, bench.is_lit, reader.is_paused, reader.problem) == (0, False, True, "")
    reader.resume()
    until(lambda: reader.problem == "no camera", "a camera that does not open is told")
    bench.refuses = lambda: False
    first = wait_for_frame(frames)
    assert first.sequence <= 10
    assert reader.problem == ""
    reader.close(20.0)
    assert (bench.opened, bench.is_lit, bench.wrong) == (1, False, [])


def test_a_camera_that_is_absent_at_the_start_is_an_error_unless_the_reader_is_to_stay(
    bench: _Bench, until: Callable[..., None]
) -> None:
    bench.refuses = lambda: True
    with pytest.raises(SourceError, match="no camera"):
        bench.reader(FrameQueue(4, drops_oldest=True))
    frames = FrameQueue(4, drops_oldest=True)
    reader = bench.reader(frames, stays=True)
    assert reader.problem == "no camera"  # told at once
    reader.start()
    until(lambda: bench.retries >= 2, "attempts")
    assert reader.problem == "no camera"
    bench.refuses = lambda: False
    assert wait_for_frame(frames).sequence <= 10
    assert reader.problem == ""
    reader.close(20.0)
    assert (bench.opened, bench.is_lit, bench.wrong, reader.failure) == (1, False, [], "")


@pytest.mark.parametrize("waits", [False, True])
def test_another_source_takes_the_place_of_one_that_reads_or_is_waited_for(
    bench: _Bench, until: Callable[..., None], monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    frames = FrameQueue(4, drops_oldest=True)
    reader = bench.reader(frames)
    reader.start()
    before = wait_for_frame(frames)
    if waits:
        monkeypatch.setattr("edge.feed.RETRY_S", (600.0, 600.0))
        bench.refuses = bench.breaks = lambda: True
        until(lambda: reader.problem == "cable pulled", "the broken camera")
    others: list[None] = []

    def open_other() -> _Camera:
        others.append(None)
        bench.breaks = lambda: False
        return bench_open()

    bench.refuses, bench_open = lambda: False, bench.open
    reader.replace(open_other)
    until(lambda: others and bench.is_open, "the other source")
    late = [wait_for_frame(frames) for _ in range(6)][-1]
    assert late.timestamp_ns > before.timestamp_ns
    reader.close(20.0)
    assert (len(others), bench.opened, bench.is_lit, bench.wrong) == (1, 2, False, [])


def test_a_pause_ends_the_attempts_to_open_a_broken_camera_at_once(
    bench: _Bench, until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = FrameQueue(4, drops_oldest=True)
    reader = bench.reader(frames)
    reader.start()
    wait_for_frame(frames)
    monkeypatch.setattr("edge.feed.RETRY_S", (600.0, 600.0))  # neither pause nor resume waits for that
    bench.refuses = bench.breaks = lambda: True
    until(lambda: reader.problem == "cable pulled", "the broken camera")
    assert reader.pause(20.0)
    until(lambda: reader.problem == "", "nothing to complain of")
    bench.refuses = bench.breaks = lambda: False
    reader.resume()
    until(lambda: bench.is_open, "the camera")
    reader.close(20.0)
    assert (bench.opened, bench.is_lit, bench.wrong, reader.failure) == (2, False, [], "")


@pytest.mark.parametrize("paused_first", [True, False])
def test_a_reader_can_be_closed_while_it_is_paused(bench: _Bench, paused_first: bool) -> None:
    frames = FrameQueue(4, drops_oldest=True)
    reader = bench.reader(frames, paused=paused_first)
    reader.start()
    assert reader.pause(20.0)
    reader.close(20.0)
    assert frames.get() is None
    assert (bench.is_open, bench.is_lit, bench.wrong) == (False, False, [])


def test_a_reader_that_never_started_closes_its_camera(bench: _Bench) -> None:
    reader = bench.reader(FrameQueue(4, drops_oldest=True))
    assert bench.is_open
    reader.close(20.0)
    assert (bench.is_open, bench.is_lit, bench.wrong) == (False, False, [])


def test_a_camera_that_gives_no_frame_is_not_said_to_be_closed(
    bench: _Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = threading.Event()

    def hung(camera: _Camera) -> Iterator[Frame]:
        hangs.wait(20.0)
        yield frame(0)

    monkeypatch.setattr(_Camera, "frames", hung)
    frames = FrameQueue(4, drops_oldest=True)
    reader = bench.reader(frames)
    reader.start()
    assert not reader.pause(0.0)
    assert bench.is_lit
    hangs.set()
    assert reader.pause(20.0)
    assert not bench.is_lit
    reader.close(20.0)
    assert frames.get() is None  # nothing of what came after the pause got through


def test_a_recording_is_not_paused() -> None:
    frames = FrameQueue(4, drops_oldest=False)
    reader = Reader(
        lambda: _Resized((8, 6), 3),
        frames,
        is_live=False,
        light=lambda _: None,
        retried=lambda: None,
        paused=[PausedBy.COMMAND],
    )
    assert not reader.is_paused
    with pytest.raises(ValueError, match="only a live source"):
        reader.pause()
    reader.close(1.0)


@pytest.mark.parametrize("seed", [1, 2])
def test_any_order_of_pauses_resumes_and_faults_leaves_led_camera_and_time_in_order(
    bench: _Bench, seed: int, until: Callable[..., None]
) -> None:
    chance = random.Random(seed)
    bench.refuses = lambda: chance.random() < 0.3
    bench.breaks = lambda: chance.random() < 0.02
    frames, continuity = FrameQueue(4, drops_oldest=True), Continuity()
    got: list[Frame] = []

    def work() -> None:
        while (one := frames.get()) is not None:
            continuity.take(one)
            got.append(one)

    reader = bench.reader(frames, paused=True)
    worker = threading.Thread(target=work)
    worker.start()
    reader.start()
    for step in range(400):
        if chance.random() < 0.5:
            closed = reader.pause(chance.choice((0.0, 20.0)))
            assert not closed or not (bench.is_lit or bench.is_open)
        else:
            reader.resume()
        if step % 20 == 0:
            reader.resume()
            number = len(got)
            until(lambda number=number: len(got) > number, "frames again")  # type: ignore[misc]
    reader.close(20.0)
    worker.join()
    assert (bench.is_open, bench.is_lit, bench.wrong, reader.failure) == (False, False, [], "")
    assert (continuity.clock_steps, continuity.out_of_order) == (0, 0)
    assert all(one.timestamp_ns < two.timestamp_ns for one, two in itertools.pairwise(got))
    assert all(one.sequence < two.sequence for one, two in itertools.pairwise(got))
