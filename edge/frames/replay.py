"""Frames of a recording: any container, codec, size and pixel format that FFmpeg reads (through PyAV)."""

import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av

from edge.errors import SourceError
from edge.frames.luma import luma_of, resized
from edge.records import Frame

logger = logging.getLogger(__name__)

_SECOND_NS = 1_000_000_000
_ASSUMED_RATE = Fraction(25)
"""Taken when neither timestamps nor a rate are in the file; a warning says so."""
_EARLY_END_S = 0.5
"""A stream that ends this much before the length its container states is called truncated."""


class ReplaySource:
    """A `FrameSource` over a video file.

    Timestamps are the presentation times written in the file, so a variable frame rate is honoured. Media
    time 0 is the first frame delivered: with `start_s`, the first one at or after that time. Where frames
    carry no time at all (raw elementary streams) it is derived from the stated rate, with a warning. What
    cannot be decoded is skipped and named in `warnings`; see `edge.frames.luma` for pixel formats, colour
    range and rotation. A frame whose size differs from the first one's is scaled to it, with a warning.

    Args:
        path: the file.
        start_s: skip to this time, seconds from the first frame of the file.
        seconds: stop after this much media time; None plays to the end.
        threads: decoding threads. 1 keeps the other cores for those who measure; 2-4 help with 4K and more.

    Raises:
        SourceError: no such file, not a video, no frame that can be decoded, nothing left after `start_s`.
    """

    def __init__(
        self, path: Path | str, *, start_s: float = 0.0, seconds: float | None = None, threads: int = 1
    ):
        self._path = Path(path)
        self.name = self._path.name
        self.frames_out_of_order = 0
        self.warnings: list[str] = []
        self._seconds = seconds
        self._warned: set[str] = set()
        self._undecodable = 0
        self._first_fault = ""
        self._ended_early = False
        # Decoding from a container that was closed meanwhile would crash the process.
        self._decoding = threading.Lock()
        self._closed = False
        if start_s < 0 or (seconds is not None and seconds <= 0):
            raise SourceError(f"{self.name}: start ({start_s:g} s) must be 0 or more, seconds above 0")
        self._container = _open(self._path)
        try:
            self._stream = _video_stream(self._container, self.name)
            self._stream.codec_context.thread_count = threads
            self._stream.thread_type = "AUTO" if threads > 1 else "SLICE"
            self._rate = self._stream.average_rate or self._stream.guessed_rate or Fraction(0)
            self.nominal_rate_hz = float(self._rate)
            self._decoded = self._from(start_s)
            self._pending = next(self._decoded, None)
            if self._pending is None:
                raise SourceError(self._why_empty(start_s))
            # Pictures before `start_s` may be damaged because decoding began between key frames.
            self._undecodable, self._first_fault = 0, ""
            first_s, first = self._pending
            self.size = _upright_size(first)
            file_s = self._stated_length_s()
            self.duration_s = None if file_s is None else max(file_s - first_s, 0.0)
            if self.duration_s is not None and seconds is not None:
                self.duration_s = min(self.duration_s, seconds)
            self._end_s = file_s
            self.start_time_ns = _creation_ns(self._container, self._path) + round(first_s * _SECOND_NS)
        except BaseException:
            self._container.close()
            raise

    def frames(self) -> Iterator[Frame]:
        """Yield the frames; the luma is read-only and stays valid for as long as it is kept."""
        if self._pending is None:
            return
        first_s, _ = self._pending
        last_ns, sequence = -1, 0
        while self._pending is not None:
            time_s, picture = self._pending
            timestamp_ns = round((time_s - first_s) * _SECOND_NS)
            if self._seconds is not None and timestamp_ns >= self._seconds * _SECOND_NS:
                self._pending = None
                self._conclude(None)
                return
            if timestamp_ns <= last_ns:
                self._count_out_of_order(timestamp_ns, last_ns)
            else:
                luma = luma_of(picture)
                if luma.shape != (self.size[1], self.size[0]):
                    self._warn_once(
                        "size",
                        f"the picture size changes to {luma.shape[1]}x{luma.shape[0]} at "
                        f"{timestamp_ns / _SECOND_NS:.3f} s; such frames are scaled to the first size",
                    )
                    luma = resized(luma, self.size)
                yield Frame(luma, timestamp_ns, sequence)
                last_ns, sequence = timestamp_ns, sequence + 1
            with self._decoding:
                if self._closed:
                    return
                self._pending = next(self._decoded, None)
        self._conclude(float(first_s) + last_ns / _SECOND_NS)

    def close(self) -> None:
        """Close the file; frames handed out stay valid."""
        with self._decoding:
            self._closed = True
            self._pending = None
            self._container.close()

    def _from(self, start_s: float) -> Iterator[tuple[Fraction, Any]]:
        """Decode from the first frame at or after `start_s`: (seconds from the file's start, frame)."""
        if start_s == 0:
            yield from self._decode()
            return
        # One microsecond of grace: containers round, and so does the one who typed the number.
        start = Fraction(round(start_s * 1_000_000) - 1, 1_000_000)
        if self._stream.time_base is not None and self._stream.start_time is not None:
            target = self._stream.start_time + int(start / self._stream.time_base)
            decoded = self._decode()
            try:
                self._container.seek(target, stream=self._stream, backward=True)
                head = next(decoded, None)
            except av.FFmpegError:
                head = None
            if head is not None and head[0] <= start and head[1].pts is not None:
                yield from (item for item in chain((head,), decoded) if item[0] >= start)
                return
            # The index is missing or led past the target: decode from the top instead.
            self._container.close()
            self._container = _open(self._path)
            self._stream = _video_stream(self._container, self.name)
        yield from (item for item in self._decode() if item[0] >= start)

    def _decode(self) -> Iterator[tuple[Fraction, Any]]:
        """Decode all that can be decoded, each frame with its presentation time from the file's start."""
        step = 1 / (self._rate or _ASSUMED_RATE)
        origin: Fraction | None = None
        if self._stream.start_time is not None and self._stream.time_base is not None:
            origin = self._stream.start_time * self._stream.time_base
        last: Fraction | None = None
        for picture in self._pictures():
            if picture.pts is not None and picture.time_base is not None:
                absolute = picture.pts * picture.time_base
                origin = absolute if origin is None else origin
                time_s = absolute - origin
            else:
                self._warn_missing_time()
                time_s = Fraction(0) if last is None else last + step
                origin = Fraction(0) if origin is None else origin
            last = time_s
            yield time_s, picture

    def _pictures(self) -> Iterator[Any]:
        """Yield decoded pictures; damage is noted and passed over."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.FFmpegError as error:
                self._note_fault(error.strerror or str(error))
                self._ended_early = True
                return
            try:
                pictures = packet.decode()
            except av.EOFError:
                return
            except av.FFmpegError as error:
                self._undecodable += 1
                self._note_fault(error.strerror or str(error))
                continue
            for picture in pictures:
                if picture.is_corrupt:
                    self._undecodable += 1
                    self._note_fault("damaged picture")
                    continue
                yield picture

    def _conclude(self, last_s: float | None) -> None:
        """Say what broke, once the stream has ended. `last_s` is None if we stopped it ourselves."""
        early = last_s is not None and self._end_s is not None and last_s < self._end_s - _EARLY_END_S
        if early or self._ended_early:
            stated = "" if self._end_s is None else f" of {self._end_s:.2f} s"
            at = "" if last_s is None else f" at {last_s:.2f} s"
            self._warn_once("end", f"the file is truncated or damaged: frames end{at}{stated}")
        if self._undecodable:
            self._warn_once(
                "damage", f"{self._undecodable} packets could not be decoded ({self._first_fault})"
            )
        if self.frames_out_of_order:
            logger.warning("%s: %d frames left out: time did not rise", self.name, self.frames_out_of_order)

    def _stated_length_s(self) -> float | None:
        """The length that the container states, seconds, or None. Of the video track where it has its own."""
        stream = self._stream
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        tagged = _clock_s(stream.metadata.get("DURATION", ""))
        if tagged is not None:
            return tagged
        return self._container.duration / av.time_base if self._container.duration else None

    def _why_empty(self, start_s: float) -> str:
        length = self._stated_length_s()
        if start_s > 0 and not self._undecodable:
            long = "" if length is None else f" of {length:.2f} s"
            return f"{self.name}: no frame at or after start {start_s:g} s in this video{long}"
        why = f" ({self._first_fault})" if self._first_fault else ""
        return f"{self.name}: holds a video stream, but not one frame of it can be decoded{why}"

    def _count_out_of_order(self, timestamp_ns: int, last_ns: int) -> None:
        self.frames_out_of_order += 1
        if self.frames_out_of_order == 1:
            self._warn_once(
                "order",
                f"timestamps jump back from {last_ns / _SECOND_NS:.3f} to {timestamp_ns / _SECOND_NS:.3f} s; "
                "frames are left out until time rises again",
            )

    def _warn_missing_time(self) -> None:
        if self._rate:
            self._warn_once(
                "time", f"frames carry no timestamps; derived from the stated {float(self._rate):g} frames/s"
            )
        else:
            self._warn_once(
                "time", f"neither timestamps nor a rate in the file; {_ASSUMED_RATE} frames/s assumed"
            )

    def _note_fault(self, fault: str) -> None:
        self._first_fault = self._first_fault or fault

    def _warn_once(self, kind: str, text: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            self.warnings.append(text)
            logger.warning("%s: %s", self.name, text)


def _open(path: Path) -> Any:
    """Open the container, or say in one sentence why not."""
    if path.is_dir():
        raise SourceError(f"{path}: is a directory, not a video file")
    try:
        with path.open("rb") as stream:
            is_empty = not stream.read(1)
    except FileNotFoundError as error:
        raise SourceError(f"{path}: no such file") from error
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from error
    if is_empty:
        raise SourceError(f"{path}: is an empty file (0 bytes)")
    name = path.name
    try:
        # `file:` keeps a colon in a name from being read as a protocol; the whitelist keeps a playlist
        # from reaching into the network. Not `options`: PyAV hands those to each stream as well, and
        # PyAV 14 and 16 crash when a stream turns up later (MPEG program streams).
        local_only = {"protocol_whitelist": "file,crypto,data"}
        container = av.open(f"file:{path}", metadata_errors="ignore", container_options=local_only)
    except av.FFmpegError as error:
        raise SourceError(f"{name}: not a video file that can be read ({error.strerror})") from error
    if container.format.name == "tty":
        # FFmpeg would render any text file as pictures of a terminal.
        container.close()
        raise SourceError(f"{name}: is a text file, not a video")
    return container


def _video_stream(container: Any, name: str) -> Any:
    """Give the first video stream that is not a cover picture of an audio file."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    kinds = sorted({stream.type for stream in container.streams})
    raise SourceError(f"{name}: no video in it, only {' and '.join(kinds) or 'nothing'}")


def _upright_size(picture: Any) -> tuple[int, int]:
    """Give (width, height) px as `luma_of` hands the picture out."""
    turned = picture.rotation % 180 == 90
    return (picture.height, picture.width) if turned else (picture.width, picture.height)


def _creation_ns(container: Any, path: Path) -> int:
    """UTC of the file's first frame, ns since 1970: its creation_time tag, else the file's mtime."""
    stated = container.metadata.get("creation_time", "")
    try:
        moment = datetime.fromisoformat(stated)
    except ValueError:
        return path.stat().st_mtime_ns
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - datetime.fromtimestamp(0, UTC)
    microseconds = since // timedelta(microseconds=1)
    # Muxers without a clock write 1904 or 1970.
    return microseconds * 1000 if moment.year > 1970 else path.stat().st_mtime_ns


def _clock_s(text: str) -> float | None:
    """Read a Matroska DURATION tag, "01:02:03.500000000", as seconds."""
    parts = text.split(":")
    try:
        hours, minutes, seconds = (float(part) for part in parts)
    except ValueError:
        return None
    return hours * 3600 + minutes * 60 + seconds
