"""Where frames come from: a camera, a webcam, a recording or a synthetic face, behind one protocol."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from edge.records import Frame


@runtime_checkable
class FrameSource(Protocol):
    """What every source gives; this docstring is the porting guide.

    A source is opened by its constructor (which raises `SourceError` with one clear sentence when it
    cannot be) and closed by `close`, which whoever made it calls once and which may be called again, also while
    another thread is in `frames()`. It comes back in a few seconds whatever happens; a device that hangs is a
    `StuckError`: it may still be on then, and this process cannot open it any more.

    `frames()` yields every frame of the stream once, in order. Timestamps are media time from 0. In a file
    they rise; a frame whose stamp is not later than the one before is left out and counted in
    `frames_out_of_order`. A camera hands on what its sensor's clock says, which may jump: the pipeline
    sees to that (`edge.continuity`). `sequence` rises by one per frame that the sensor produced, so a lost
    frame shows as a jump; a source that cannot know (a file) counts what it delivers. The luma buffer may be
    overwritten once the next frame is asked for: who keeps it, copies it. When the stream ends the
    iterator ends; when it breaks for good it raises `SourceError`.
    """

    name: str
    """What to call it in a message: a file name, a device node, a camera model."""
    size: tuple[int, int]
    """(width, height) px of the frames."""
    nominal_rate_hz: float
    """The rate that was asked for or that the container states; 0.0 if unknown. Never used as the truth."""
    duration_s: float | None
    """Length of the stream where it is known, else None."""
    start_time_ns: int
    """UTC of media time 0, ns since 1970. For a file: its creation time as written in it, else its mtime."""
    frames_out_of_order: int
    """Frames left out because their timestamp did not rise."""
    warnings: list[str]
    """What was wrong with the stream but did not end it (truncated file, jumped timestamps)."""

    def frames(self) -> Iterator[Frame]: ...

    def close(self) -> None: ...
