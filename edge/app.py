"""Composition root: builds the parts from a Config, starts them, and stops them in reverse order.

`run`, `replay` and `demo` are this one composition with other sources and sinks. Two threads: the *reader*
takes frames from the source into a bounded queue; the *worker* feeds them to the pipeline one by one and
hands events to the sinks. The thread that made the `App` calls `attend` a few times a second, which shows how
the device is doing (LEDs, retained health, service manager).
"""

import ctypes
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TypeVar

import numpy as np

from edge import __version__
from edge.config import Config
from edge.errors import ConfigError, EdgeError, PublishError, SourceError
from edge.feed import FrameQueue, PacedSource
from edge.frames import FrameSource
from edge.frames.camera import CameraSource
from edge.frames.webcam import WebcamSource
from edge.health import Health, Report
from edge.out import EventSink
from edge.out.leds import Fault, Leds
from edge.out.mqtt import MqttSink
from edge.out.systemd import Notifier, Watchdog
from edge.payload import PayloadWriter, info_payload
from edge.pipeline import Models, Pipeline, Statistics, load_models
from edge.records import Event, Frame

log = logging.getLogger(__name__)

T = TypeVar("T")

FILE_QUEUE_FRAMES = 4
"""A file waits for the worker, so a short queue does; 8K frames are 33 MB each."""
RETRY_S = (0.5, 8.0)
"""Shortest and longest wait before a broken camera is opened again; it doubles. Well within WatchdogSec."""
JOIN_S = 1.0
"""Time that a thread gets to finish what it is at when the device stops."""
SNAPSHOT_S = 0.1


def open_camera(config: Config) -> FrameSource:
    """Open the source that `camera.source` names.

    Raises:
        SourceError: if it is not there or refuses the settings.
    """
    camera = config.camera
    size = (camera.width, camera.height)
    if camera.source == "picamera2":
        return CameraSource(rate_hz=camera.rate_hz, size=size)
    if camera.source == "webcam":
        return WebcamSource(camera.device, rate_hz=camera.rate_hz, size=size)
    return PacedSource(_synthetic(camera.rate_hz, size))


def _synthetic(rate_hz: float, size: tuple[int, int]) -> FrameSource:
    from edge.frames.portrait import load_portrait, portrait_landmarks  # noqa: PLC0415 (for the bench only)
    from edge.frames.synthetic import SyntheticSource  # noqa: PLC0415

    return SyntheticSource(
        load_portrait(), portrait_landmarks(), rate_hz=rate_hz, size=size, seconds=3600.0,
        start_time_ns=time.time_ns(),
    )  # fmt: skip


class App:
    """The device at work, from construction to `close`.

    Raises:
        ConfigError, EdgeError: everything that keeps it from starting, one line each, in one report.
    """

    def __init__(
        self,
        config: Config,
        open_source: Callable[[], FrameSource],
        *,
        is_live: bool,
        sinks: Sequence[EventSink] = (),
        pin_factory: object = None,
    ) -> None:
        """Build every part and start.

        Args:
            config: the whole configuration; `mqtt.enabled` and `leds.enabled` decide on those parts.
            open_source: called now, and again each time a live source has broken.
            is_live: a camera, which does not wait: frames that find the queue full are dropped and counted,
                and a source that breaks is opened again. Otherwise no frame is dropped, a broken source ends
                the run, and events are marked as replayed.
            sinks: further sinks, which the caller closes after this.
            pin_factory: gpiozero's way to the pins; None: what this machine has.
        """
        self.boot_id = uuid.uuid4().hex
        self.failure = ""
        """Why the run ended before its time, in words; empty if it did not."""
        self.events = 0
        self._config, self._open_source, self._is_live = config, open_source, is_live
        self._stopping = threading.Event()
        self._done = threading.Event()
        self._camera_problem = self._sink_problem = ""
        self._writer: PayloadWriter | None = None
        self._last_read = (0, 0, 0)
        """Media time (ns), sequence and monotonic time (ns) of the last frame read."""
        self._media_ns = 0
        self._face = False
        self._handled = 0
        self._snapshot_s = 0.0
        self._timings_ms: deque[float] = deque(maxlen=2000)
        self._source: FrameSource | None = None
        self._parts = ExitStack()
        try:
            self._build(sinks, pin_factory)
        except BaseException:
            self._close_source()
            self._parts.close()
            raise
        self._reader = threading.Thread(target=self._read, name="reader", daemon=True)
        self._worker = threading.Thread(target=self._work, name="worker", daemon=True)
        self._worker.start()
        self._reader.start()

    def _build(self, sinks: Sequence[EventSink], pin_factory: object) -> None:
        config = self._config
        problems: list[EdgeError] = []

        def attempt(make: Callable[[], T]) -> T | None:
            try:
                return make()
            except EdgeError as error:
                problems.append(error)
                return None

        self._notifier = Notifier()
        self._parts.callback(self._notifier.close)
        self._watchdog = Watchdog(self._notifier)
        models = attempt(lambda: load_models(config))
        self.leds = attempt(lambda: Leds(config.leds, pin_factory)) if config.leds.enabled else None
        if self.leds is not None:
            self._parts.callback(self.leds.close)
        self.mqtt = attempt(lambda: MqttSink(config.mqtt, config.device.id)) if config.mqtt.enabled else None
        if self.mqtt is not None:
            self._parts.callback(self.mqtt.close)
        self._source = attempt(self._opened)
        if problems or models is None:
            kind = ConfigError if any(isinstance(each, ConfigError) for each in problems) else EdgeError
            raise kind("\n".join(str(problem) for problem in problems)) from problems[0]
        self._models: Models = models
        self._pipeline = Pipeline(config, models)
        self._parts.callback(self._pipeline.close)
        self.statistics: Statistics = self._pipeline.statistics
        self._sinks = [*sinks, *(sink for sink in (self.leds, self.mqtt) if sink is not None)]
        capacity = config.camera.queue_frames if self._is_live else FILE_QUEUE_FRAMES
        self._queue = FrameQueue(capacity, drops_oldest=self._is_live)
        self._health = Health(config, self.boot_id, self.mqtt, self.leds, self._notifier)
        if self.mqtt is not None:
            self.mqtt.publish_info(
                info_payload(
                    config.device.id, self.boot_id, version=__version__, purpose=config.device.purpose,
                    report=config.device.report, model_hashes=self._hashes(models), topics=self.mqtt.topics,
                )
            )  # fmt: skip

    def __enter__(self) -> "App":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def is_running(self) -> bool:
        """Whether frames are still to come; False after the end of the stream or a failure."""
        return not self._done.is_set()

    @property
    def media_s(self) -> float:
        """Media time of the last frame that was handled, s."""
        return self._media_ns / 1e9

    @property
    def sees_face(self) -> bool:
        return self._face

    @property
    def frames_dropped(self) -> int:
        """Frames that found the queue full; they are among `statistics.dropped`."""
        return self._queue.dropped

    def attend(self) -> None:
        """Show how the device is doing. To be called a few times a second."""
        self._health.show(self._report())

    def close(self) -> None:
        """Stop reading, let the pipeline finish, and close every part in reverse order. May be called again."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._health.stopping(self._report())
            self._queue.close()
            for thread in (self._reader, self._worker):
                thread.join(JOIN_S)
                if thread.is_alive():
                    log.warning("%s: did not finish within %g s and is left behind", thread.name, JOIN_S)
        self._parts.close()

    # -- reader --------------------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            while self._source is not None:
                problem = self._pump(self._source)
                self._close_source()
                if not problem:
                    return
                self._source = self._reopened(problem)
        except Exception as error:
            # A camera library may raise anything; ending with a reason beats a device that hangs.
            self._fail("frames", error)
        finally:
            self._close_source()
            self._queue.end()

    def _pump(self, source: FrameSource) -> str:
        """Put the source's frames into the queue until it ends; give what broke it, empty if nothing did."""
        shift_ns = shift_sequence = 0
        is_first = True
        try:
            for frame in source.frames():
                if is_first:
                    is_first = False
                    shift_ns, shift_sequence = self._joined(source, frame)
                    self._camera_problem = ""
                moved = Frame(
                    # The source may reuse its buffer while this frame still waits.
                    np.array(frame.luma), frame.timestamp_ns + shift_ns, frame.sequence + shift_sequence
                )  # fmt: skip
                if self._stopping.is_set() or not self._queue.put(moved):
                    return ""
                self._last_read = (moved.timestamp_ns, moved.sequence, time.monotonic_ns())
        except SourceError as error:
            if not self._is_live:
                self.failure = str(error)
                return ""
            return str(error)
        return ""

    def _joined(self, source: FrameSource, first: Frame) -> tuple[int, int]:
        """Give what to add to time and sequence so that a camera that came back goes on in one media time."""
        if self._writer is None:
            self._writer = PayloadWriter(
                self._config.device.id, self.boot_id, source.start_time_ns, self._hashes(self._models),
                report=self._config.device.report, clock_synchronised=clock_is_synchronised,
            )  # fmt: skip
            return 0, 0
        last_ns, last_sequence, read_ns = self._last_read
        away_ns = max(time.monotonic_ns() - read_ns, 1)
        return last_ns + away_ns - first.timestamp_ns, last_sequence + 1 - first.sequence

    def _reopened(self, problem: str) -> FrameSource | None:
        """Try to open the source until it works or the device stops."""
        wait_s, attempts = RETRY_S[0], 0
        while True:
            if problem != self._camera_problem:
                log.warning("camera: %s; trying again", problem)
            self._camera_problem = problem
            if self._stopping.wait(wait_s):
                return None
            wait_s = min(2 * wait_s, RETRY_S[1])
            attempts += 1
            self._watchdog.progress()
            try:
                source = self._opened()
            except SourceError as error:
                problem = str(error)
            else:
                log.info("camera: %s is back after %d attempts", source.name, attempts)
                return source

    def _opened(self) -> FrameSource:
        """Open the source; the capture LED is lit before it and put out if there is none."""
        if self.leds is not None:
            self.leds.capture(True)
        try:
            return self._open_source()
        except BaseException:
            if self.leds is not None:
                self.leds.capture(False)
            raise

    def _close_source(self) -> None:
        source, self._source = self._source, None
        if source is None:
            return
        source.close()
        if self.leds is not None:
            self.leds.capture(False)

    # -- worker --------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while (frame := self._queue.get()) is not None:
                began_s = time.perf_counter()
                events = self._pipeline.feed(frame)
                self._timings_ms.append(1000 * (time.perf_counter() - began_s))
                self._publish(events)
                self._progress(frame)
            self._publish(self._pipeline.finish())
        except Exception as error:
            self._fail("pipeline", error)
        finally:
            self.statistics = self._pipeline.statistics
            self._queue.close()
            self._done.set()

    def _progress(self, frame: Frame) -> None:
        self._media_ns = frame.timestamp_ns
        self._face = self._pipeline.face is not None
        self._handled += 1
        if self._handled == 1:
            self._notifier.ready()
        self._watchdog.progress()
        # Taken in this thread, because the pipeline is not made for two.
        if (now_s := time.monotonic()) - self._snapshot_s >= SNAPSHOT_S:
            self._snapshot_s = now_s
            self.statistics = self._pipeline.statistics

    def _publish(self, events: Sequence[Event]) -> None:
        for event in events:
            assert self._writer is not None
            self.events += 1
            try:
                payload = self._writer.write(event, replayed=not self._is_live)
            except PublishError as error:
                self._lost(error)
                continue
            for sink in self._sinks:
                try:
                    sink.publish(event, payload)
                except PublishError as error:
                    self._lost(error)

    def _lost(self, error: PublishError) -> None:
        """An event did not get out: a device goes on and says so, a replay ends."""
        if str(error) != self._sink_problem:
            log.warning("%s", error)
        self._sink_problem = str(error)
        if not self._is_live:
            raise error

    def _fail(self, part: str, error: Exception) -> None:
        if isinstance(error, EdgeError):
            self.failure = self.failure or str(error)
        else:
            log.exception("%s: failed", part)
            self.failure = self.failure or f"{part}: failed: {type(error).__name__}: {error}"

    def _report(self) -> Report:
        return Report(
            statistics=self.statistics,
            face=self._face,
            has_frames=self._handled > 0,
            engine=self._models.detector.engine,
            timings_ms=tuple(self._timings_ms),
            queue_dropped=self._queue.dropped,
            camera_problem=self._camera_problem,
            sink_problem=self._sink_problem,
            failure=self.failure,
            warnings=tuple(source.warnings) if (source := self._source) is not None else (),
        )

    @staticmethod
    def _hashes(models: Models) -> dict[str, str]:
        return {
            "detector": models.detector.sha256,
            "landmark": models.landmark.sha256,
            "spotter": models.spotter.sha256,
        }


def clock_is_synchronised() -> bool:
    """Ask the kernel whether something keeps its clock right.

    Source: adjtimex(2): it returns TIME_ERROR (5) while the clock is not synchronised. 208 bytes hold the
    structure on every Linux; all zero, it only asks.
    """
    try:
        return 0 <= int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(208))) < 5
    except (AttributeError, OSError):
        return False
