"""A stand-in for a V4L2 webcam, at the place where `edge.frames.webcam` opens it with PyAV.

It behaves as FFmpeg's v4l2 input does when it is read without blocking: mostly there is no frame yet, which ends
PyAV's generator. Reading after closing, which crashes the real one, is noted in `misuse`.
"""

import errno
import time
from collections.abc import Iterator
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import av
from recordings import grey_frame, picture

US = Fraction(1, 1_000_000)


class Webcam:
    """A webcam at /dev/null, which at least is a device.

    Args:
        rate_hz: frames per second that it gives, whatever is asked for.
        lost: frames, by number, that it makes and nobody gets.
        silent_from: from this frame on nothing comes any more.
        unplugged_at: this frame and all after it are an error.
    """

    NODE = "/dev/null"

    def __init__(
        self,
        rate_hz: int = 30,
        *,
        size: tuple[int, int] = (64, 48),
        lost: frozenset[int] = frozenset(),
        silent_from: int | None = None,
        unplugged_at: int | None = None,
    ) -> None:
        self.rate_hz, self.size, self.lost = rate_hz, size, lost
        self.silent_from, self.unplugged_at = silent_from, unplugged_at
        self.opened: list[dict[str, str]] = []
        self.misuse: list[str] = []

    def open(self, device: str, *, format: str, container_options: dict[str, str]) -> "_Container":
        assert (device, format) == (self.NODE, "v4l2")
        assert container_options["fflags"] == "+4"
        self.opened.append(container_options)
        return _Container(self)


class _Container:
    def __init__(self, webcam: Webcam) -> None:
        self._webcam = webcam
        self._is_closed = False
        self._index, self._calls = 0, 0
        self._start_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        codec = SimpleNamespace(thread_count=0)
        self.streams = SimpleNamespace(
            video=[SimpleNamespace(codec_context=codec, average_rate=Fraction(webcam.rate_hz))]
        )

    def decode(self, _stream: Any) -> Iterator[av.VideoFrame]:
        webcam = self._webcam
        while True:
            if self._is_closed:
                webcam.misuse.append("read after it was closed")
                raise AssertionError(webcam.misuse[-1])
            self._calls += 1
            if self._calls % 3 or (webcam.silent_from is not None and self._index >= webcam.silent_from):
                raise av.BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
            if webcam.unplugged_at is not None and self._index >= webcam.unplugged_at:
                raise av.OSError(errno.ENODEV, "No such device")
            while self._index in webcam.lost:
                self._index += 1
            frame = grey_frame(picture(self._index, *webcam.size), "yuyv422")
            frame.pts = self._start_us + self._index * 1_000_000 // webcam.rate_hz
            frame.time_base = US
            self._index += 1
            yield frame

    def close(self) -> None:
        self._is_closed = True
