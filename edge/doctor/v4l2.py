"""Asks a webcam's driver at which rates it can give frames of a size. Only asks: a camera in use may be asked too.

Source: the kernel's include/uapi/linux/videodev2.h (VIDIOC_ENUM_FMT, VIDIOC_ENUM_FRAMEINTERVALS).
"""

import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

ENUM_FORMATS, ENUM_INTERVALS = 0xC0405602, 0xC034564B
_FORMAT = struct.Struct("=III32sI16x")
"""struct v4l2_fmtdesc: index, type, flags, description, pixel format."""
_INTERVAL = struct.Struct("=IIIIIII24x")
"""struct v4l2_frmivalenum: index, pixel format, width, height, type, shortest interval as a fraction of seconds."""
_CAPTURE, _DISCRETE = 1, 1
"""V4L2_BUF_TYPE_VIDEO_CAPTURE and V4L2_FRMIVAL_TYPE_DISCRETE."""

Ioctl = Callable[[int, int, bytearray], object]


def rates_hz(node: Path, size: tuple[int, int], ioctl: Ioctl = fcntl.ioctl) -> dict[str, float]:
    """Give the highest rate for each pixel format that the camera has in this size, such as {"MJPG": 120.0}.

    Raises:
        OSError: the device cannot be opened.
    """
    descriptor = os.open(node, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = {}
        for pixel_format in _formats(descriptor, ioctl):
            if rates := list(_rates(descriptor, pixel_format, size, ioctl)):
                name = pixel_format.to_bytes(4, "little").decode("ascii", errors="replace").strip()
                found[name] = max(rates)
        return found
    finally:
        os.close(descriptor)


def _formats(descriptor: int, ioctl: Ioctl) -> Iterator[int]:
    for index in count():
        answer = bytearray(_FORMAT.pack(index, _CAPTURE, 0, b"", 0))
        try:
            ioctl(descriptor, ENUM_FORMATS, answer)
        except OSError:  # EINVAL: that was the last; ENOTTY: not a camera
            return
        yield _FORMAT.unpack(answer)[4]


def _rates(descriptor: int, pixel_format: int, size: tuple[int, int], ioctl: Ioctl) -> Iterator[float]:
    for index in count():
        answer = bytearray(_INTERVAL.pack(index, pixel_format, *size, 0, 0, 0))
        try:
            ioctl(descriptor, ENUM_INTERVALS, answer)
        except OSError:  # EINVAL: that was the last, or there is no such size
            return
        *_, kind, numerator, denominator = _INTERVAL.unpack(answer)
        if numerator:
            yield denominator / numerator
        if kind != _DISCRETE:
            return  # one answer for a whole range
