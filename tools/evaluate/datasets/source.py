"""One recording of a data set: where its frames lie, how they are numbered, and what is annotated in it."""

import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from edge.errors import SourceError
from edge.frames.luma import resized
from edge.frames.replay import ReplaySource
from edge.records import Frame
from tools.evaluate.records import Truth

logger = logging.getLogger(__name__)

_IMAGE = re.compile(r"(\d+)\.(?:jpe?g|png|bmp|tiff?)", re.IGNORECASE)
"""The last number in an image's name counts the frames: `img001.jpg`, `006_1_0001.jpg`, `355.jpg`."""
VIDEO_SUFFIXES = frozenset({".avi", ".mp4", ".mkv", ".mov", ".mpg", ".wmv"})


@dataclass(frozen=True)
class Recorded:
    """A video file or a folder of numbered images, as it lies on the disk."""

    name: str
    """The set's own name of the video, as submissions and reports give it."""
    subject: str
    """Who is seen: leave-one-subject-out goes by it."""
    rate_hz: float
    """Frames per second as the set states it: its annotations are frame numbers at this rate."""
    path: Path

    def images(self) -> dict[int, Path]:
        """List the numbered images, rising; nothing for a video file.

        Not kept: the largest set has four million of them.
        """
        if not self.path.is_dir():
            return {}
        names = ((match, name) for name in os.listdir(self.path) if (match := _IMAGE.search(name)))
        return dict(sorted((int(match[1]), self.path / name) for match, name in names))

    @cached_property
    def extent(self) -> tuple[int, int | None]:
        """Numbers of the first and the last frame, as annotations count; in a video file they begin at 1.

        The last is None where a video file does not state its length.

        Raises:
            SourceError: the file is not a video, or the folder holds no numbered image.
        """
        if self.path.is_dir():
            numbers = list(self.images())
            if not numbers:
                raise SourceError(f"{self.path}: holds no numbered images, such as img001.jpg or 355.jpg")
            return numbers[0], numbers[-1]
        source = ReplaySource(self.path)
        source.close()
        if not source.duration_s or not source.nominal_rate_hz:
            return 1, None
        return 1, max(round(source.duration_s * source.nominal_rate_hz), 1)

    def frames(self) -> Iterator[Frame]:
        """Yield the frames in order, one by one as they are asked for.

        Time comes from the frame's number and the set's rate, because the annotations do too. A number that is
        missing, or an image that cannot be read, is a frame lost: `sequence` jumps over it.

        Raises:
            SourceError: nothing in it can be read.
        """
        return self._of_images() if self.path.is_dir() else self._of_video()

    def _of_video(self) -> Iterator[Frame]:
        source = ReplaySource(self.path)
        try:
            stated = source.nominal_rate_hz
            if stated and abs(stated / self.rate_hz - 1) > 0.01:
                logger.warning(
                    "%s: the file states %.5g frames/s, the set %g; the set's rate is taken",
                    self.path, stated, self.rate_hz,
                )  # fmt: skip
            for frame in source.frames():
                yield Frame(frame.luma, self._time_ns(frame.sequence), frame.sequence)
        finally:
            source.close()

    def _of_images(self) -> Iterator[Frame]:
        first, _ = self.extent
        size: tuple[int, int] | None = None
        unreadable = 0
        for number, path in self.images().items():
            luma = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            if luma is None:
                unreadable += 1
                continue
            size = size or (luma.shape[1], luma.shape[0])
            sequence = number - first
            yield Frame(resized(np.asarray(luma, np.uint8), size), self._time_ns(sequence), sequence)
        if size is None:
            raise SourceError(f"{self.path}: none of its {unreadable} images can be read")
        if unreadable:
            logger.warning("%s: %d images cannot be read; they count as frames lost", self.path, unreadable)

    def _time_ns(self, sequence: int) -> int:
        return round(sequence * 1_000_000_000 / self.rate_hz)


@dataclass(frozen=True)
class Source(Recorded):
    """A recording with its annotations."""

    truth: tuple[Truth, ...] = ()
    """In order of onset; media time is that of `frames`."""
    is_labelled: bool = field(default=True, kw_only=True)
    """Whether the set gives annotations: without any, an empty `truth` says nothing."""

    def frame_number(self, time_s: float) -> int:
        """Give the number, as the set counts, of the frame that shows this media time."""
        return self.extent[0] + round(time_s * self.rate_hz)
