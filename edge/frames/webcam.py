"""Frames of a V4L2 webcam, through PyAV's v4l2 input: kernel timestamps, luma without colour conversion."""

import errno
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av

from edge.errors import SourceError
from edge.frames.luma import luma_of, resized
from edge.frames.timing import FrameCounter, utc_of
from edge.records import Frame

_LOOK_S = 0.002
"""How often it is looked whether a frame has come. Its time is the driver's, so nothing is lost by being late."""

_NOT_BLOCKING = "+4"
"""AVFMT_FLAG_NONBLOCK among the format flags; this one has no name there (FFmpeg libavformat/options_table.h)."""


class WebcamSource:
    """A `FrameSource` over `/dev/videoN`.

    Timestamps are the driver's, taken when the frame's first byte came over the bus (UVC); the kernel's frame
    counter is not visible through FFmpeg: lost frames are told from the timestamps (`timing.FrameCounter`).
    The kernel buffers frames while the consumer is busy. Webcams that lower their rate in dim light look for
    some frames as if they lost every other one, until the new rate has settled.

    The device is read without blocking, as the `ffmpeg` program does: a webcam that hangs could not be closed
    otherwise, for the call that waits for its next frame has no limit.

    Args:
        device: the device node.
        rate_hz: frames per second to ask for; the driver may give less, which is added to `warnings`.
        size: (width, height) px to ask for.
        pixel_format: FFmpeg name, for example "yuyv422" or "mjpeg" (many webcams reach high rates only so);
            None leaves the choice to the driver.
        stall_s: without a frame for this long the webcam counts as broken.

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
        stall_s: float = 5.0,
    ):
        self.name = str(device)
        self.nominal_rate_hz = rate_hz
        self.duration_s: float | None = None
        self.frames_out_of_order = 0
        self.warnings: list[str] = []
        self._stall_s = stall_s
        # Reading from a container that was closed meanwhile would crash the process.
        self._decoding = threading.Lock()
        self._closed = False
        self._container = _opened(self.name, rate_hz, size, pixel_format)
        try:
            self._stream = self._container.streams.video[0]
            self._stream.codec_context.thread_count = 1
            self._decoded = self._container.decode(self._stream)
            self._pending: Any = self._waited_for()
            self.size = (int(self._pending.width), int(self._pending.height))
            given_hz = float(self._stream.average_rate or 0)
            self._first_ns = self._stamp_ns(self._pending)
        except SourceError:
            self.close()
            raise
        except (av.FFmpegError, StopIteration, IndexError) as error:
            self.close()
            raise SourceError(f"{self.name}: opened, but it gives no frames ({error})") from error
        self.start_time_ns = utc_of(self._first_ns)
        if self.size != tuple(size):
            self.warnings.append(
                f"frames are {self.size[0]}x{self.size[1]} px, not {size[0]}x{size[1]} as asked"
            )
        if given_hz and abs(given_hz - rate_hz) > 0.02 * rate_hz:
            self.warnings.append(
                f"camera.rate_hz = {rate_hz:g}: the webcam's driver gives {given_hz:g} frames/s"
            )

    def frames(self) -> Iterator[Frame]:
        """Yield frames until `close`; the luma is read-only and stays valid for as long as it is kept."""
        counter = FrameCounter(self.nominal_rate_hz)
        while (picture := self._pending) is not None:
            timestamp_ns = self._stamp_ns(picture) - self._first_ns
            luma = resized(luma_of(picture), self.size)
            yield Frame(luma, timestamp_ns, counter.sequence(timestamp_ns))
            try:
                self._pending = self._waited_for()
            except (av.FFmpegError, StopIteration) as error:
                is_gone = getattr(error, "errno", 0) == errno.ENODEV
                why = "was unplugged" if is_gone else f"stopped giving frames ({error})"
                raise SourceError(f"{self.name}: the webcam {why}") from error

    def close(self) -> None:
        """Close the device. May come from another thread and be called again."""
        with self._decoding:
            self._closed = True
            self._pending = None
            self._container.close()

    def _waited_for(self) -> Any:
        """Wait for the next picture; None once the webcam is closed.

        Raises:
            SourceError: none has come for `stall_s`.
        """
        deadline_s = time.monotonic() + self._stall_s
        while True:
            with self._decoding:
                if self._closed:
                    return None
                try:
                    return next(self._decoded)
                except av.BlockingIOError:
                    # There is none yet, which ends PyAV's generator.
                    self._decoded = self._container.decode(self._stream)
            if time.monotonic() > deadline_s:
                raise SourceError(
                    f"{self.name}: no frame for {self._stall_s:g} s; unplug it and plug it in again"
                )
            time.sleep(_LOOK_S)

    def _stamp_ns(self, picture: Any) -> int:
        if picture.pts is None or picture.time_base is None:
            raise SourceError(f"{self.name}: the driver gives frames without timestamps")
        return int(picture.pts * picture.time_base * 1_000_000_000)


def find(device: str) -> None:
    """Look for a webcam.

    Raises:
        SourceError: it is not there.
    """
    if not Path(device).is_char_device():
        raise SourceError(f"{device}: no such webcam; `ls /dev/video*` shows what there is")


def _opened(device: str, rate_hz: float, size: tuple[int, int], pixel_format: str | None) -> Any:
    options = {"framerate": f"{rate_hz:g}", "video_size": f"{size[0]}x{size[1]}", "fflags": _NOT_BLOCKING}
    if pixel_format is not None:
        options["input_format"] = pixel_format
    find(device)
    try:
        return av.open(device, format="v4l2", container_options=options)
    except av.FileNotFoundError as error:
        raise SourceError(f"{device}: the webcam was unplugged") from error
    except av.PermissionError as error:
        raise SourceError(f"{device}: permission denied; add the user to group video") from error
    except av.FFmpegError as error:
        if error.errno == errno.EBUSY:
            raise SourceError(f"{device}: another program is using this webcam") from error
        asked = f"{size[0]}x{size[1]} at {rate_hz:g}/s" + (f", {pixel_format}" if pixel_format else "")
        raise SourceError(
            f"{device}: cannot be opened as a webcam with {asked} ({error.strerror})"
        ) from error
