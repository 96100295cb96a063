"""More frames from a Global Shutter camera (IMX296) by reading fewer of its lines.

This sensor has one mode, 60 frames/s of 1456x1088. It reads a line in 1100 / 74.25 MHz and needs 30 lines between
two frames, so that a part of h lines gives 67,500 / (h + 30) frames/s: 200 for 304 lines, 120 for 532. libcamera
cannot ask for such a part, but leaves the one alone that it finds, and then lists the mode with its crop and rate
(`1456x1088 [406.67 fps - (376, 476)/688x136 crop]`, signag/raspi-cam-srv issue 14). People set it with `media-ctl`;
this module asks the kernel in the same way without that program, before the camera is configured. It stays until
it is set again or the sensor's driver is loaded anew, so it is set back for lower rates too.

The full width is kept: leaving columns out gains nothing. Not tried on a real sensor yet.

Source: drivers/media/i2c/imx296.c of Raspberry Pi's kernel (imx296_setup, imx296_set_selection; read at 03e1cd6),
linux/v4l2-subdev.h for the call, and how libcamera makes a camera's id from the device tree (`sysfs.cpp`).
"""

import fcntl
import math
import os
import struct
from collections.abc import Callable
from pathlib import Path

from edge.errors import SourceError

MODEL = "imx296"
SIZE = (1456, 1088)
"""(width, height) px of the whole sensor."""
_LINES_HZ = 74_250_000 / 1100
_BLANK_LINES = 30
_STEP = 4
"""The driver rounds what it is given to such multiples; so the colours of the pixels keep their order."""
_LEAST_LINES = 96
"""The smallest that has been reported to run, at 536 frames/s."""

SUBDEVICES = Path("/sys/class/video4linux")
_DEVICE_TREE = "/sys/firmware/devicetree"
_SET_SELECTION = 0xC040563E
"""VIDIOC_SUBDEV_S_SELECTION."""
_SELECTION = struct.Struct("=IIIIiiII8I")
"""struct v4l2_subdev_selection: which, pad, target, flags, left, top, width, height, stream and 7 reserved."""
_ACTIVE, _PAD, _CROP = 1, 0, 0


def lines_for(rate_hz: float) -> int:
    """Give the most lines that the sensor can read at a rate."""
    lines = math.floor(_LINES_HZ / rate_hz - _BLANK_LINES) // _STEP * _STEP
    return min(max(lines, _LEAST_LINES), SIZE[1])


def crop(
    camera_id: str,
    rate_hz: float,
    *,
    subdevices: Path = SUBDEVICES,
    ioctl: Callable[[int, int, bytearray], object] = fcntl.ioctl,
) -> int:
    """Have the sensor read as many of its lines, around the middle, as a rate leaves time for.

    Args:
        camera_id: as libcamera names the camera.
        rate_hz: frames per second that are wanted.
        subdevices: where the kernel lists them.
        ioctl: how to call the kernel.

    Returns:
        The height of the part that is read now, lines.

    Raises:
        SourceError: the sensor's device is not found or cannot be set.
    """
    lines = lines_for(rate_hz)
    node = _node_of(camera_id, subdevices)
    top = (SIZE[1] - lines) // 2 // _STEP * _STEP
    selection = bytearray(_SELECTION.pack(_ACTIVE, _PAD, _CROP, 0, 0, top, SIZE[0], lines, *[0] * 8))
    try:
        descriptor = os.open(node, os.O_RDWR | os.O_CLOEXEC)
        try:
            ioctl(descriptor, _SET_SELECTION, selection)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise SourceError(f"{node}: its crop cannot be set to {lines} lines ({error.strerror})") from error
    return int(_SELECTION.unpack(selection)[7])


def _node_of(camera_id: str, subdevices: Path) -> Path:
    """Give the device node of the sensor that libcamera calls `camera_id`, which is its place in the device tree."""
    for entry in sorted(subdevices.glob("v4l-subdev*")):
        tree = os.path.realpath(entry / "device" / "of_node")
        if tree.endswith(camera_id) and tree.removesuffix(camera_id).endswith(_DEVICE_TREE):
            return Path("/dev") / entry.name
    raise SourceError(f"{camera_id}: no device under {subdevices} belongs to this sensor")
