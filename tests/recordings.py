"""Recordings that tests write themselves: every kind of file that `replay` reads, with pictures that are known."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np


def picture(index: int, width: int, height: int) -> np.ndarray:
    """A grey ramp with a bright bar that moves; 16..235, so that limited-range codecs keep it."""
    ramp = (
        np.linspace(40, 160, width, dtype=np.float32) + np.linspace(0, 40, height, dtype=np.float32)[:, None]
    )
    image = ramp.astype(np.uint8)
    image[height // 3 : height // 2 + 1, : 1 + (index * 3) % width] = 220
    return image


def grey_frame(image: np.ndarray, pixel_format: str) -> av.VideoFrame:
    """A frame in `pixel_format` whose luma is exactly `image` (YUV formats) or whose grey is (RGB)."""
    if pixel_format in ("yuv420p", "yuv420p10le"):
        frame = av.VideoFrame(image.shape[1], image.shape[0], pixel_format)
        for index, plane in enumerate(frame.planes):
            deep = pixel_format.endswith("10le")
            rows = np.zeros((plane.height, plane.line_size), np.uint8)
            values = image if index == 0 else np.full((plane.height, plane.width), 128, np.uint8)
            stored = (values.astype("<u2") << 2).view(np.uint8) if deep else values
            rows[:, : stored.shape[1]] = stored
            plane.update(rows.tobytes())
        return frame
    if pixel_format in ("nv12", "yuyv422"):
        return grey_frame(image, "yuv420p").reformat(format=pixel_format)
    return av.VideoFrame.from_ndarray(image, format="gray").reformat(format=pixel_format)


def write_video(
    path: Path,
    *,
    codec: str = "ffv1",
    pixel_format: str = "yuv420p",
    size: tuple[int, int] = (64, 48),
    stamps: list[int] | None = None,
    count: int = 12,
    rate: int = 25,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
    container_format: str | None = None,
) -> Path:
    """Write `count` frames; `stamps` are presentation times in milliseconds, else the rate is constant."""
    with av.open(str(path), "w", format=container_format, options=muxer or {}) as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format
        if stamps is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index in range(count if stamps is None else len(stamps)):
            frame = grey_frame(picture(index, *size), pixel_format)
            frame.pts = index if stamps is None else stamps[index]
            frame.time_base = Fraction(1, rate) if stamps is None else Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


RECORDINGS: dict[str, dict[str, Any]] = {
    "h264.mp4": {"codec": "libx264"},
    "mpeg1.mpg": {"codec": "mpeg1video"},
    "grey.mkv": {"codec": "ffv1", "pixel_format": "gray"},
    "yuv.mkv": {"codec": "ffv1"},
    "rgb-png.mov": {"codec": "png", "pixel_format": "rgb24"},
    "mjpeg.avi": {"codec": "mjpeg", "pixel_format": "yuvj420p", "options": {"q:v": "2"}},
    "ten-bit.mkv": {"codec": "ffv1", "pixel_format": "yuv420p10le"},
    "nv12.nut": {"codec": "rawvideo", "pixel_format": "nv12"},
    "packed.nut": {"codec": "rawvideo", "pixel_format": "yuyv422"},
    "bottom-up.avi": {"codec": "rawvideo", "pixel_format": "bgr24"},
    "odd.mkv": {"codec": "ffv1", "size": (61, 47)},
    "tiny.mkv": {"codec": "ffv1", "size": (10, 10)},
    "8k.mkv": {"codec": "mpeg4", "size": (7680, 4320), "count": 2},
}
