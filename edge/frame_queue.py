"""Carries frames from the reader to the worker: in order, bounded, and honest about what was dropped."""

from queue import Empty, SimpleQueue

import numpy as np
from numpy.typing import NDArray

from edge.records import Frame


class FrameQueue:
    """A bounded queue between one thread that reads and one that works, with the buffers that its frames lie in.

    A frame is copied once, out of the source's buffer into one of `capacity` + 1 that are used over and over. Those
    that wait, and the one that the worker is at, stay as they are. When no other buffer is left, the oldest frame
    that waits is dropped and counted (a camera does not wait), or the reader waits (a file does). A dropped frame
    shows downstream as a jump of `Frame.sequence`. Nothing is copied while a lock is held.
    """

    def __init__(self, capacity: int, *, drops_oldest: bool) -> None:
        self._drops_oldest = drops_oldest
        self._waiting: SimpleQueue[Frame | None] = SimpleQueue()
        """None: nothing comes any more."""
        # Used last, taken first: it is the likeliest to be in a processor's cache. The first frame gives them their
        # size, all at once, and so does the first of another size.
        self._free = [np.empty((0, 0), np.uint8) for _ in range(capacity)]
        self._tokens: SimpleQueue[bool] = SimpleQueue()
        """One for each free buffer, for the reader to wait for; False: the queue is closed."""
        for _ in self._free:
            self._tokens.put(True)
        self._held = np.empty((0, 0), np.uint8)
        """What the worker is at."""
        self._is_wanted = False
        """Whether the worker waits for a frame."""
        self._ended = self._closed = False
        self._dropped = 0

    @property
    def dropped(self) -> int:
        return self._dropped

    @property
    def is_idle(self) -> bool:
        """Whether the worker waits for a frame and there is none."""
        return self._is_wanted and self._waiting.empty()

    def put(self, frame: Frame) -> bool:
        """Hand a copy of a frame over; False once the queue has been closed."""
        buffer = self._buffer()
        if buffer is None or self._ended:
            return False
        if buffer.shape != frame.luma.shape:
            buffer = np.empty(frame.luma.shape, np.uint8)
            self._resize_free(frame.luma.shape)
        np.copyto(buffer, frame.luma)
        self._waiting.put(Frame(buffer, frame.timestamp_ns, frame.sequence))
        return True

    def get(self) -> Frame | None:
        """Wait for the oldest frame; None once the stream has ended and all is handed out.

        Its buffer is used again after the next call.
        """
        self._is_wanted = True
        frame = self._waiting.get()
        self._is_wanted = False
        if frame is None or self._closed:
            self._waiting.put(None)
            return None
        self._free.append(self._held)
        self._held = frame.luma
        self._tokens.put(True)
        return frame

    def end(self) -> None:
        """Say that no more frames come; those that wait are still handed out."""
        self._ended = True
        self._waiting.put(None)

    def close(self) -> None:
        """End and forget the frames that wait."""
        self._ended = self._closed = True
        self._waiting.put(None)
        self._tokens.put(False)

    def _resize_free(self, shape: tuple[int, ...]) -> None:
        """Take the memory of all free buffers now, and not hours later when frames first have to wait."""
        # The worker only ever adds at the end, and so only buffers that are seen to below when they are next taken.
        for place in range(len(self._free)):
            if self._free[place].shape != shape:
                self._free[place] = np.full(shape, 0, np.uint8)  # written to: untouched pages take no memory

    def _buffer(self) -> NDArray[np.uint8] | None:
        """Give a buffer that nobody uses; None once the queue has been closed."""
        if self._drops_oldest and self._tokens.empty():
            try:
                oldest = self._waiting.get_nowait()
            except Empty:
                pass  # the worker has taken it this moment, and frees another one
            else:
                if oldest is None:
                    self._waiting.put(None)
                    return None
                self._dropped += 1
                return oldest.luma
        if not self._tokens.get():
            self._tokens.put(False)
            return None
        return self._free.pop()
