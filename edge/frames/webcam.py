"""Frames of a V4L2 webcam, through PyAV's v4l2 input: kernel timestamps, luma without colour conversion."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av

from edge.errors import SourceError
from edge.frames.luma import luma_of, resized
from edge.frames.timing import FrameCounter, utc_of
from edge.records import Frame


class WebcamSource:
    """A `FrameSource` over `/dev/videoN`.

    Timestamps are the driver's, taken when the frame's first byte came over the bus (UVC); the kernel's frame
    counter is not visible through FFmpeg: lost frames are told from the timestamps (`timing.FrameCounter`).
    The kernel buffers frames while the consumer is busy. Webcams that lower their rate in dim light look for
    some frames as if they lost every other one, until the new rate has settled.

    Args:
        device: the device node.
        rate_hz: frames per second to ask for; the driver may give less, which is added to `warnings`.
        size: (width, height) px to ask for.
        pixel_format: FFmpeg name, for example "yuyv422" or "mjpeg" (many webcams reach high rates only so);
            None leaves the choice to the driver.

    Raises:
        SourceError: no such device, no permission, in use, not a camera, size refused, no frames.
    """

    def __init__(
        self,
        device: Path | str = "/dev/video0",
        *,
        rate_hz: float = 30.0,
        size: tuple[int, int] = (640, 480),
        pixel_format: str | None = None,
    ):
        self.name = str(device)
        self.nominal_rate_hz = rate_hz
        self.duration_s: float | None = None
        self.frames_out_of_order = 0
        self.warnings: list[str] = []
        # Reading from a container that was closed meanwhile would crash the process.
        self._decoding = threading.Lock()
        self._closed = False
        self._container = _opened(self.name, rate_hz, size, pixel_format)
        try:
            stream = self._container.streams.video[0]
            stream.codec_context.thread_count = 1
            self._decoded = self._container.decode(stream)
            self._pending: Any = next(self._decoded)
            self.size = (int(self._pending.width), int(self._pending.height))
            given_hz = float(stream.average_rate or 0)
        except (av.FFmpegError, StopIteration, IndexError) as error:
            self._container.close()
            raise SourceError(f"{self.name}: opened, but it gives no frames ({error})") from error
        self._first_ns = self._stamp_ns(self._pending)
        self.start_time_ns = utc_of(self._first_ns)
        if self.size != tuple(size):
            self.warnings.append(
                f"frames are {self.size[0]}x{self.size[1]} px, not {size[0]}x{size[1]} as asked"
            )
        if given_hz and abs(given_hz - rate_hz) > 0.02 * rate_hz:
            self.warnings.append(f"the driver gives {given_hz:g} frames/s, not {rate_hz:g} as asked")

    def frames(self) -> Iterator[Frame]:
        """Yield frames until `close`; the luma is read-only and stays valid for as long as it is kept."""
        counter = FrameCounter(self.nominal_rate_hz)
        while self._pending is not None:
            timestamp_ns = self._stamp_ns(self._pending) - self._first_ns
            luma = resized(luma_of(self._pending), self.size)
            yield Frame(luma, timestamp_ns, counter.sequence(timestamp_ns))
            with self._decoding:
                if self._closed:
                    return
                try:
                    self._pending = next(self._decoded)
                except (av.FFmpegError, StopIteration) as error:
                    raise SourceError(f"{self.name}: the webcam stopped giving frames ({error})") from error

    def close(self) -> None:
        """Close the device, at the latest after the frame that is being waited for."""
        with self._decoding:
            self._closed = True
            self._pending = None
            self._container.close()

    def _stamp_ns(self, picture: Any) -> int:
        if picture.pts is None or picture.time_base is None:
            raise SourceError(f"{self.name}: the driver gives frames without timestamps")
        return int(picture.pts * picture.time_base * 1_000_000_000)


def _opened(device: str, rate_hz: float, size: tuple[int, int], pixel_format: str | None) -> Any:
    options = {"framerate": f"{rate_hz:g}", "video_size": f"{size[0]}x{size[1]}"}
    if pixel_format is not None:
        options["input_format"] = pixel_format
    try:
        if not Path(device).is_char_device():
            raise SourceError(f"{device}: no such webcam; `ls /dev/video*` shows what there is")
        return av.open(device, format="v4l2", container_options=options)
    except av.FileNotFoundError as error:
        raise SourceError(f"{device}: the webcam was unplugged") from error
    except av.PermissionError as error:
        raise SourceError(f"{device}: permission denied; add the user to group video") from error
    except av.FFmpegError as error:
        if error.errno == 16:  # EBUSY
            raise SourceError(f"{device}: another program is using this webcam") from error
        asked = f"{size[0]}x{size[1]} at {rate_hz:g}/s" + (f", {pixel_format}" if pixel_format else "")
        raise SourceError(
            f"{device}: cannot be opened as a webcam with {asked} ({error.strerror})"
        ) from error
