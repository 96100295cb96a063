"""The brightness plane of a decoded video frame, without colour conversion wherever the format allows."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_PACKED_LUMA_BYTE = {"yuyv422": 0, "yvyu422": 0, "uyvy422": 1}
"""Where the luma byte stands in the two bytes of a pixel (FFmpeg libavutil/pixfmt.h)."""


def luma_of(frame: Any) -> NDArray[np.uint8]:
    """Give the luma of a decoded frame as (rows, columns) uint8, upright.

    Planar, semi-planar and grey 8-bit formats give a read-only view of the decoder's own plane: no copy.
    Packed YUV (webcams) and deeper planar formats cost one copy; deeper samples lose their low bits. RGB,
    palette and all other formats are converted to grey by FFmpeg (BT.601 weights). The code range is left
    as it is: limited-range video stays 16..235. A quarter turn asked for by the container is carried out
    (one more copy); other angles are left. Interlaced fields are not separated.

    Args:
        frame: an `av.VideoFrame`. The view keeps it alive.

    Raises:
        ValueError: FFmpeg cannot turn this pixel format into grey.
    """
    layout = frame.format
    first = layout.components[0]
    if layout.name in _PACKED_LUMA_BYTE:
        luma = np.ascontiguousarray(_plane(frame, 2 * frame.width)[:, _PACKED_LUMA_BYTE[layout.name] :: 2])
    elif not _has_luma_plane(layout):
        luma = _plane(frame.reformat(format="gray"), frame.width)
    elif first.bits == 8:
        luma = _plane(frame, frame.width)
    else:
        deep = _plane(frame, 2 * frame.width).view("<u2")
        luma = (deep >> (first.bits - 8)).astype(np.uint8)
    quarter_turns, rest = divmod(frame.rotation, 90)
    if rest == 0 and quarter_turns % 4:
        luma = np.ascontiguousarray(np.rot90(luma, quarter_turns))
    return luma


def resized(luma: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Give `luma` itself if it has this (width, height), else a scaled copy."""
    if luma.shape == (size[1], size[0]):
        return luma
    return np.asarray(cv2.resize(luma, size, interpolation=cv2.INTER_AREA), np.uint8)


def _has_luma_plane(layout: Any) -> bool:
    """Whether plane 0 is luma alone, of 8 bits or of 9 to 16 bits in the low end of little-endian words."""
    if layout.is_rgb or layout.has_palette or layout.is_bit_stream:
        return False
    first = layout.components[0]
    alone = all(part.plane != 0 for part in layout.components[1:])
    # The p0xx and p2xx formats keep their samples in the high bits; FFmpeg converts those.
    low_bits = not layout.is_big_endian and not layout.name.startswith(("p0", "p2", "p4", "bayer", "xyz"))
    return bool(first.is_luma and alone and (first.bits == 8 or (8 < first.bits <= 16 and low_bits)))


def _plane(frame: Any, row_bytes: int) -> NDArray[np.uint8]:
    """View plane 0 as (rows, row_bytes) uint8, without padding. Negative line sizes mean bottom row first."""
    plane = frame.planes[0]
    lines = np.frombuffer(plane, np.uint8).reshape(-1, abs(plane.line_size))[: frame.height, :row_bytes]
    if plane.line_size < 0:
        lines = np.ascontiguousarray(lines[::-1])
    # The decoder may still predict later frames from this plane.
    lines.flags.writeable = False
    return lines
