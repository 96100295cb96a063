"""Reads frames from a source into the queue of the worker, and opens again a camera that broke or was paused.

Beside `app` and `out` the only module that knows of threads; it is the reading half of `app`.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection
from enum import StrEnum

from edge.errors import PinError, SourceError, StuckError
from edge.frame_queue import FrameQueue
from edge.frames import FrameSource
from edge.records import Frame

log = logging.getLogger(__name__)

RETRY_S = (0.5, 8.0)
"""Shortest and longest wait before a broken camera is opened again; it doubles. Well within WatchdogSec."""


class PausedBy(StrEnum):
    """Who keeps the source closed; reading goes on when nobody does."""

    COMMAND = "command"
    SWITCH = "privacy switch"


class Reader:
    """Takes frames from a source in a thread of its own; a live source that breaks is opened again.

    A live source may be paused: it is closed, and opened again when reading is to go on. All frames share one media
    time: a camera that comes back goes on where time is by then, and the pipeline sees a gap. Whatever way the
    thread ends, the source is closed and the queue ended.
    """

    def __init__(
        self,
        open_source: Callable[[], FrameSource],
        queue: FrameQueue,
        *,
        is_live: bool,
        light: Callable[[bool], None],
        retried: Callable[[], None],
        took: Callable[[], None] = lambda: None,
        paused: Collection[PausedBy] = (),
        stays: bool = False,
    ) -> None:
        """Open the source, unless it is paused; `start` begins to read.

        Args:
            open_source: called now, and again each time a live source has broken or was paused.
            queue: where frames go.
            is_live: whether to open a broken source again rather than end; only such a source can be paused.
            light: told True before the source is opened, which stays closed if that raises `PinError`, and False after
                it is closed.
            retried: told before each new attempt to open, and every few seconds of a pause.
            took: told of each frame that it has put into the queue.
            paused: who pauses a live source from the beginning.
            stays: whether a live source that cannot be opened now is `problem`, and tried again, as one that broke.

        Raises:
            SourceError: the source cannot be opened.
            StuckError: it hangs, and may be on.
            PinError: its LED cannot be lit.
        """
        self._open, self._queue, self.is_live = open_source, queue, is_live
        self._light, self._retried, self._took = light, retried, took
        self._changed = threading.Condition()
        """Guards the three that follow, which any thread may look at."""
        self._is_stopping = False
        self._paused_by = frozenset(paused if is_live else ())
        self._holds_source = False
        """True from before the source is opened until after it is closed, as the capture LED shows it."""
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)
        self._last = (-1, -1, 0)
        """Media time (ns), sequence and monotonic time (ns) of the last frame."""
        self._start_time_ns = self._clock_ahead_ns = 0
        self._rested = False
        """Whether there was a pause since the last frame."""
        self.frames_skipped = 0
        """Frames that pauses have cost; they are among those that the sequence numbers show as lost."""
        self.problem = ""
        """Why a live source gives no frames now; empty while it does, and while it is paused."""
        self.failure = ""
        """Why reading ended before its time; empty if it did not."""
        self._is_replaced = False
        """Whether `open_source` has been replaced since the source was opened."""
        self._source: FrameSource | None = None
        if not self._paused_by:
            try:
                self._source = self._opened()
            except (SourceError, PinError) as error:
                if not (stays and is_live):
                    raise
                self.problem = str(error)
                log.warning("camera: %s; trying again", error)

    @property
    def start_time_ns(self) -> int:
        """UTC of media time 0, ns since 1970; known once the first frame is in the queue.

        Of a camera it is what the wall clock says now: a computer without a battery learns the time from the network
        when frames have long been coming, and what it took for the time before is then put right.
        """
        corrected_ns = _clock_ahead_ns() - self._clock_ahead_ns if self.is_live and self._start_time_ns else 0
        return self._start_time_ns + corrected_ns

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the open source has to say about itself."""
        source = self._source
        return () if source is None else tuple(source.warnings)

    @property
    def paused_by(self) -> frozenset[PausedBy]:
        """Who asked for a pause and has not ended it."""
        return self._paused_by

    @property
    def is_paused(self) -> bool:
        """Whether anybody asked for a pause and has not ended it."""
        return bool(self._paused_by)

    @property
    def holds_source(self) -> bool:
        """Whether the source may be open: from before it is opened until after it is closed, as the LED shows it."""
        return self._holds_source

    def start(self) -> None:
        self._thread.start()

    def pause(self, timeout_s: float = 0.0, by: PausedBy = PausedBy.COMMAND) -> bool:
        """Close a live source until `resume`; frames that wait in the queue are still handed out.

        Args:
            timeout_s: time to wait for the source to close.
            by: who asks for it.

        Returns:
            Whether the source was closed within `timeout_s`; if not, it will be once it has given its next frame.
        """
        if not self.is_live:
            raise ValueError("only a live source can be paused: a recording would lose frames")
        with self._changed:
            self._paused_by |= {by}
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._holds_source, timeout_s)

    def resume(self, by: PausedBy = PausedBy.COMMAND) -> None:
        """Open the source again and read on, unless another pauses it too.

        One that cannot be opened is tried again, as one that broke.
        """
        with self._changed:
            self._paused_by -= {by}
            self._changed.notify_all()

    def replace(self, open_source: Callable[[], FrameSource]) -> None:
        """Read on from what `open_source` gives; the source that is open is closed first."""
        with self._changed:
            self._open, self._is_replaced = open_source, True
            self._changed.notify_all()

    def close(self, timeout_s: float) -> None:
        """Stop reading and close the source; a source that does not return in time is left to the process's end."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        self._queue.close()
        if self._thread.ident is None:
            self._close_source()
            return
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            # Closing it under the feet of the thread that is in it would crash some drivers.
            log.warning("camera: gave no frame and did not stop within %g s; left open", timeout_s)

    def _run(self) -> None:
        try:
            try:
                self._read()
            finally:
                # If this fails the driver may have kept the camera, and then its LED stays lit.
                self._close_source()
        except StuckError as error:
            # Only another process can open it again; this one ends, and the LED stays lit until then.
            log.error("camera: %s", error)
            self.failure = str(error)
        except Exception as error:
            # A camera library may raise anything; ending with a reason beats a device that hangs.
            log.exception("camera: failed")
            self.failure = f"frames: {type(error).__name__}: {error}"
        finally:
            self._queue.end()

    def _read(self) -> None:
        """Read, with pauses and new attempts, until reading is to stop or cannot go on."""
        problem = self.problem
        while self._is_to_read():
            if self._source is None:
                self._source = self._reopened(problem)
                problem = ""
                # Opening takes a second or two; a pause may have been asked for meanwhile.
                continue
            outcome = self._pump(self._source)
            self._close_source()
            if outcome is None:
                continue
            if not outcome:
                return
            if not self.is_live:
                self.failure = outcome
                return
            problem = outcome if not self._paused_by else ""

    def _is_to_read(self) -> bool:
        """Wait, with the source closed, while there is a pause; False once reading is to stop."""
        while not self._is_stopping:
            if not self._paused_by:
                return True
            self._close_source()
            self.problem = ""
            self._rested = True
            with self._changed:
                self._changed.wait_for(lambda: self._is_stopping or not self._paused_by, RETRY_S[1])
            # A device that rests because it was told to is well.
            self._retried()
        return False

    def _is_interrupted(self, wait_s: float = 0.0) -> bool:
        """Give whether the source is to be left, waiting for that up to `wait_s`; a resume ends the wait too."""
        with self._changed:
            if wait_s and not (self._is_stopping or self._paused_by or self._is_replaced):
                self._changed.wait(wait_s)
            return self._is_stopping or bool(self._paused_by) or self._is_replaced

    def _pump(self, source: FrameSource) -> str | None:
        """Move the source's frames into the queue.

        Returns:
            What broke the source, empty if it ended, None if it is to be left: to stop, to pause, for another one.
        """
        shift_ns = shift_sequence = 0
        is_first = True
        try:
            for frame in source.frames():
                if self._is_interrupted():
                    return None
                if is_first:
                    is_first = False
                    shift_ns, shift_sequence = self._joined(source, frame)
                    self.problem = ""
                timestamp_ns, sequence = frame.timestamp_ns + shift_ns, frame.sequence + shift_sequence
                self._last = (timestamp_ns, sequence, time.monotonic_ns())
                if not self._queue.put(Frame(frame.luma, timestamp_ns, sequence)):
                    return ""
                self._took()
        except SourceError as error:
            return str(error)
        return ""

    def _joined(self, source: FrameSource, first: Frame) -> tuple[int, int]:
        """Give what to add to time and sequence so that all frames share one media time."""
        last_ns, last_sequence, read_ns = self._last
        if last_sequence < 0:
            self._rested = False
            self._clock_ahead_ns, self._start_time_ns = _clock_ahead_ns(), source.start_time_ns
            return 0, 0
        away_ns = max(time.monotonic_ns() - read_ns, 1)
        # What it would have given meanwhile is lost. Without these numbers a long outage would pass for a clock's jump.
        away = max(round(away_ns * source.nominal_rate_hz / 1e9), 1)
        if self._rested:
            self.frames_skipped += away - 1
        self._rested = False
        return last_ns + away_ns - first.timestamp_ns, last_sequence + away - first.sequence

    def _reopened(self, problem: str) -> FrameSource | None:
        """Try to open the source until it works, at once if nothing is wrong; None if it is to be left before."""
        wait_s, attempts = RETRY_S[0], 0
        while True:
            if problem:
                if problem != self.problem:
                    log.warning("camera: %s; trying again", problem)
                self.problem = problem
                if self._is_interrupted(wait_s):
                    return None
                wait_s = min(2 * wait_s, RETRY_S[1])
            attempts += 1
            self._retried()
            try:
                source = self._opened()
            except (SourceError, PinError) as error:
                problem = str(error)
                continue
            if source is not None:
                log.info("camera: %s is open again after %d attempts", source.name, attempts)
            return source

    def _opened(self) -> FrameSource | None:
        """Light the LED and then open the source; None if by then there is a pause, or reading is to stop."""
        self._holds_source = True
        try:
            self._light(True)
            with self._changed:
                self._is_replaced, open_source = False, self._open
                is_wanted = not (self._is_stopping or self._paused_by)
            if is_wanted:
                return open_source()
        except StuckError:
            # It may still be on.
            raise
        except BaseException:
            self._released()
            raise
        self._released()
        return None

    def _close_source(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            source.close()
            self._released()

    def _released(self) -> None:
        self._light(False)
        with self._changed:
            self._holds_source = False
            self._changed.notify_all()


def _clock_ahead_ns() -> int:
    """Give by how much the wall clock is ahead of the steady one, which nobody sets."""
    return time.time_ns() - time.monotonic_ns()
