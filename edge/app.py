"""Composition root: builds the parts from a Config, starts them, and stops them in reverse order.

`run`, `replay` and `demo` are this one composition with other sources and sinks. Three threads: the *reader*
(`edge.feed`) takes frames from the source into a bounded queue; the *worker* feeds them to the pipeline one by
one; the *dispatcher* (`edge.dispatch`) commits events and hands them to the sinks. The thread that made the `App`
calls `attend` a few times a second, which carries commands out and shows how the device is doing (LEDs, retained
health, service manager).
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import cv2

from edge import __version__, clock, start_failure
from edge.config import Config, History
from edge.config import Switches as SwitchesConfig
from edge.control import CLOSE_S, IDENTIFY_S, Control, was_paused
from edge.dispatch import Dispatcher
from edge.errors import EdgeError, SourceError
from edge.feed import PausedBy, Reader
from edge.frame_queue import FrameQueue
from edge.frames import FrameSource
from edge.health import Health, Report
from edge.inference.models import Models, load_models
from edge.out import EventSink
from edge.out.journal import Journal
from edge.out.leds import Leds
from edge.out.mqtt.commands import CommandDesk, command_topics
from edge.out.mqtt.discovery import discovery_payload
from edge.out.mqtt.sink import MqttSink, device_topic
from edge.out.systemd import Notifier, Part, Watchdog
from edge.payload import PayloadWriter, info_payload
from edge.pipeline import Pipeline, Statistics
from edge.records import Event
from edge.reload import Reload
from edge.stages import Spread, Stage
from edge.store.outbox import Outbox
from edge.switches import Switches

log = logging.getLogger(__name__)

T = TypeVar("T")

FILE_QUEUE_FRAMES = 4
"""A file waits for the worker, so a short queue does; 8K frames are 33 MB each."""
JOIN_S = 1.0
"""Time that a thread gets to finish what it is at when the device stops."""
SNAPSHOT_S = 0.1


class App:
    """The device at work, from construction to `close`.

    Raises:
        ConfigError, EdgeError: everything that keeps it from starting, one line each, in one report; its cause is a
            `StuckError` if the camera hangs.
    """

    def __init__(
        self,
        config: Config,
        open_source: Callable[[], FrameSource],
        *,
        is_live: bool,
        is_replay: bool = False,
        find_source: Callable[[], None] = lambda: None,
        folder: Path | None = None,
        sinks: Sequence[EventSink] = (),
        journal: Journal | None = None,
        pin_factory: Any = None,
    ) -> None:
        """Build every part and start.

        Args:
            config: the whole configuration; `mqtt.enabled` and `leds.enabled` decide on those parts.
            open_source: called now, and again each time a live source has broken.
            is_live: a camera, which does not wait: frames that find the queue full are dropped and counted,
                and a source that breaks is opened again. Otherwise no frame is dropped and a broken source
                ends the run.
            is_replay: events are marked as replayed, and one that cannot be written ends the run.
            find_source: raises `SourceError` if there is no such source; called, for the report, where the source must
                not be opened because its LED or switch is missing.
            folder: where events are kept until they have arrived, and as history; None: in memory.
            sinks: further sinks, which the caller closes after this.
            journal: takes events, refusals and time that cannot be assessed; the caller concludes it after this.
            pin_factory: gpiozero's way to the pins; None: what this machine has.
        """
        self.boot_id = uuid.uuid4().hex
        self.events = 0
        """Events handed to the sinks."""
        self.media_s = 0.0
        """Media time of the last frame that was handled, s."""
        self.sees_face = False
        self._config, self._is_live, self._is_replay = config, is_live, is_replay
        self._journal = journal
        self._failure = ""
        self._handled = 0
        self._snapshot_s = 0.0
        self._is_closed = self._is_announced = False
        self._reconfigured: Config | None = None
        """What the worker is to go on with."""
        self._configuration_problem = ""
        self._obeyed_s = time.monotonic()
        """When the camera was last not open against a pause."""
        self._done = threading.Event()
        self._worker = threading.Thread(target=self._work, name="worker", daemon=True)
        # Crops are too small to be shared out: on two cores the second thread burnt 0.5 ms a frame and saved nothing.
        cv2.setNumThreads(1)
        self._parts = ExitStack()
        try:
            self._build(open_source, find_source, folder, sinks, pin_factory)
        except BaseException:
            self._parts.close()
            raise
        self._worker.start()
        self._reader.start()

    def _build(
        self,
        open_source: Callable[[], FrameSource],
        find_source: Callable[[], None],
        folder: Path | None,
        sinks: Sequence[EventSink],
        pin_factory: Any,
    ) -> None:
        config = self._config
        problems: list[EdgeError] = []

        def attempt(make: Callable[[], T], close: Callable[[T], None]) -> T | None:
            """Make a part and see to its end; a problem is noted, so that all are reported at once."""
            try:
                part = make()
            except EdgeError as error:
                problems.append(error)
                return None
            self._parts.callback(close, part)
            return part

        capacity = config.camera.queue_frames if self._is_live else FILE_QUEUE_FRAMES
        self._queue = FrameQueue(capacity, drops_oldest=self._is_live)
        self._notifier = Notifier()
        self._parts.callback(self._notifier.close)
        self._watchdog = Watchdog(self._notifier)
        models = attempt(lambda: load_models(config), Models.close)
        leds = attempt(lambda: Leds(config.leds, pin_factory), Leds.close) if config.leds.enabled else None
        switches = attempt(lambda: self._open_switches(leds, pin_factory), Switches.close)
        # In memory nothing is looked up later.
        history = config.history if folder is not None else History(days=0)
        outbox = attempt(
            lambda: Outbox(folder, config.outbox, history, is_awaited=config.mqtt.enabled), Outbox.close
        )
        base = device_topic(config.mqtt, config.device.id)
        desk = CommandDesk(base, config.device.id, discovery_prefix=config.mqtt.discovery_prefix)
        mqtt = None
        if config.mqtt.enabled and outbox is not None:
            mqtt = attempt(
                lambda: MqttSink(
                    config.mqtt, config.device.id, outbox, desk=desk, expire_h=config.outbox.expire_h
                ),
                MqttSink.close,
            )
        # Without its LED and its switch a camera is not opened, not even to find out what else is wrong.
        has_pins = switches is not None and (leds is not None or not config.leds.enabled)
        reader = None
        if has_pins:
            reader = attempt(
                lambda: self._open_reader(open_source, outbox, leds, switches),
                lambda reader: reader.close(JOIN_S),
            )
        else:
            attempt(find_source, lambda _: None)
        if models is None or reader is None or outbox is None or switches is None or problems:
            if reader is not None and reader.problem:
                problems.append(SourceError(reader.problem))
            if leds is not None and self._notifier.is_supervised:
                if reader is not None:
                    reader.close(JOIN_S)
                start_failure.blink(leds, problems)
            # The device could live with these, but whoever mends the others wants to know.
            also = (clock.problem(), outbox.problem or outbox.warning if outbox is not None else "")
            raise start_failure.report(problems, also)
        if self._is_live:
            switches.watch(reader)
        self._reader, self._switches, self.leds, self.mqtt, self.outbox = reader, switches, leds, mqtt, outbox
        self._models = models
        self._join(desk, sinks)

    def _join(self, desk: CommandDesk, sinks: Sequence[EventSink]) -> None:
        """Put what stands between the parts between them."""
        config, models, outbox, mqtt, leds = self._config, self._models, self.outbox, self.mqtt, self.leds
        self._hashes = {
            "detector": models.detector.sha256,
            "landmark": models.landmark.sha256,
            "spotter": models.spotter.sha256,
        }
        self._pipeline = Pipeline(config, models, clock_ns=time.perf_counter_ns)
        self.statistics: Statistics = self._pipeline.statistics
        self._writer = writer = PayloadWriter(
            config.device.id, self.boot_id, 0, self._hashes,
            report=config.device.report, clock_synchronised=clock.is_synchronised,
        )  # fmt: skip
        self._control = Control(
            desk, self._reader, outbox, answer=mqtt.answer if mqtt is not None else lambda _: None,
            tell=lambda context: setattr(writer, "context", context), leds=leds,
        )  # fmt: skip
        later = [*sinks, *(sink for sink in (mqtt, self._journal) if sink is not None)]
        self._dispatcher = Dispatcher(
            writer, outbox, later, is_replay=self._is_replay,
            came_round=partial(self._watchdog.progress, Part.OUTBOX),
        )  # fmt: skip
        self._parts.callback(self._dispatcher.close, JOIN_S)
        self._health = Health(config, self.boot_id, mqtt, leds, self._notifier, outbox, desk)
        self._introduce()
        if mqtt is not None and not self._is_replay:
            # A recording is no device that could be paused or identified.
            mqtt.publish_discovery(discovery_payload(config, version=__version__))

    def _open_switches(self, leds: Leds | None, pin_factory: Any) -> Switches:
        """Take the switches; for a recording none, because there is nothing that they could close."""
        identify = partial(leds.identify, IDENTIFY_S) if leds is not None else lambda: False
        config = self._config.switches if self._is_live else SwitchesConfig()
        return Switches(config, identify=identify, pin_factory=pin_factory)

    def _open_reader(
        self,
        open_source: Callable[[], FrameSource],
        outbox: Outbox | None,
        leds: Leds | None,
        switches: Switches | None,
    ) -> Reader:
        paused = [PausedBy.COMMAND] if outbox is not None and was_paused(outbox) else []
        if switches is not None and switches.is_private:
            paused.append(PausedBy.SWITCH)
        return Reader(
            open_source, self._queue, is_live=self._is_live, retried=self._note_retry,
            took=partial(self._watchdog.progress, Part.CAMERA),
            light=leds.capture if leds is not None else lambda _: None,
            paused=paused,
            # No one at a screen reads an error; a device that stays shows it, and goes on once the camera is back.
            stays=self._notifier.is_supervised,
        )  # fmt: skip

    def _introduce(self) -> None:
        """Publish what this device is."""
        if self.mqtt is None:
            return
        config = self._config
        base = device_topic(config.mqtt, config.device.id)
        info = info_payload(
            config.device.id, self.boot_id, version=__version__, purpose=config.device.purpose,
            report=config.device.report, model_hashes=self._hashes,
            topics=[*self.mqtt.topics, *command_topics(base)], protocol=config.mqtt.protocol,
            engine=self._models.status.engine,
        )  # fmt: skip
        self.mqtt.publish_info(info)

    def __enter__(self) -> "App":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def config(self) -> Config:
        """The configuration in use."""
        return self._config

    @property
    def is_running(self) -> bool:
        """Whether frames are still to come; False after the end of the stream or a failure."""
        return not self._done.is_set()

    @property
    def failure(self) -> str:
        """Why the run ended before its time, in words; empty if it did not."""
        return self._failure or self._reader.failure

    @property
    def holds_camera(self) -> bool:
        """Whether the source may still be open; after `close` it is if its driver did not give it back in time."""
        return self._reader.holds_source

    @property
    def frames_dropped(self) -> int:
        """Frames that found the queue full; they are among `statistics.dropped`."""
        return self._queue.dropped

    @property
    def stages(self) -> Mapping[Stage, Spread]:
        """What the stages cost the last frames."""
        return self._pipeline.stopwatch.spreads()

    def attend(self) -> None:
        """Carry out commands and show how the device is doing. To be called a few times a second."""
        self._switches.attend()
        self._control.attend()
        if self._reader.is_paused:
            # No frame comes that could say so.
            self._announce()
        self._health.show(self._report())
        self._watchdog.progress(Part.CONTROL)

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Tell the service manager that the configuration is being read again, and when that is over."""
        if self._is_announced:
            self._notifier.reloading()
        yield
        if self._is_announced:
            self._notifier.ready()

    def reload(self, reload: Reload, open_source: Callable[[], FrameSource]) -> None:
        """Go on with other settings, from the thread that attends.

        Args:
            reload: what `edge.reload.compare` made of the configuration in use, `config`, and a new one.
            open_source: opens the source that the new one describes.
        """
        self._configuration_problem = ""
        self._config = reload.config
        self.outbox.reconfigure(reload.config.outbox, reload.config.history)
        self._health.reconfigure(reload.config)
        if reload.changes("device"):
            self._writer.report = reload.config.device.report
            self._introduce()
        if any(map(reload.changes, ("device", "face", "motion", "spot", "baseline", "event"))):
            self._reconfigured = reload.config
        if reload.changes("camera"):
            self._reader.replace(open_source)

    def refuse_reload(self, problem: str) -> None:
        """Show that the configuration was not taken, until one is."""
        self._configuration_problem = problem

    def close(self) -> None:
        """Stop reading, let the pipeline finish, and close every part in reverse order. May be called again."""
        if self._is_closed:
            return
        self._is_closed = True
        self._health.stopping(self._report())
        self._reader.close(JOIN_S)
        self._worker.join(JOIN_S)
        if self._worker.is_alive():
            log.warning("pipeline: did not finish within %g s and is left behind", JOIN_S)
            # What the worker still uses must not be closed under it; events that are known must not be lost.
            self._parts.pop_all()
            self._dispatcher.close(JOIN_S)
            if self.mqtt is not None:
                self.mqtt.close()
            self.outbox.close()
            return
        self._parts.close()

    def _work(self) -> None:
        try:
            while (frame := self._queue.get()) is not None:
                self._take_settings()
                self._publish(self._pipeline.feed(frame))
                self._note_in_journal()
                self._note_progress()
            self._publish(self._pipeline.finish())
            self._note_in_journal()
            self._dispatcher.close()
            self._failure = self._dispatcher.failure
        except EdgeError as error:
            self._failure = str(error)
        except Exception as error:
            log.exception("pipeline: failed")
            self._failure = f"pipeline: {type(error).__name__}: {error}"
        finally:
            self.statistics = self._pipeline.statistics
            self._queue.close()
            self._done.set()

    def _take_settings(self) -> None:
        """Go on with what a reload has left here."""
        if (config := self._reconfigured) is not None:
            self._reconfigured = None
            self._publish(self._pipeline.reconfigure(config))
            self._note_in_journal()

    def _note_in_journal(self) -> None:
        if self._journal is not None:
            self._journal.note(self._pipeline.refusals, self._pipeline.not_assessable)

    def _note_progress(self) -> None:
        self.media_s = self._pipeline.now_ns / 1e9
        self.sees_face = self._pipeline.face is not None
        self._handled += 1
        self._announce()
        self._watchdog.progress(Part.INFERENCE)
        # Taken in this thread, because the pipeline is not made for two.
        if (now_s := time.monotonic()) - self._snapshot_s >= SNAPSHOT_S:
            self._snapshot_s = now_s
            self.statistics = self._pipeline.statistics

    def _note_retry(self) -> None:
        """Report that the reader is well although no frame comes, and with it a worker that waits for one."""
        self._watchdog.progress(Part.CAMERA)
        if self._queue.is_idle:
            self._watchdog.progress(Part.INFERENCE)

    def _announce(self) -> None:
        """Say once that the device is at work: a first frame has gone through, or none is to come."""
        if not self._is_announced:
            self._is_announced = True
            self._notifier.ready()

    def _publish(self, events: Sequence[Event]) -> None:
        for event in events:
            self.events += 1
            if self.leds is not None:
                # At once: light waits for no disk.
                self.leds.show(event)
            self._dispatcher.hand(event, self._reader.start_time_ns)

    def _camera_problem(self) -> str:
        """Give why no frames come, or why the camera is open although it should not be; empty if neither is so."""
        now_s = time.monotonic()
        if not (self._reader.is_paused and self._reader.holds_source):
            self._obeyed_s = now_s
        elif now_s - self._obeyed_s > CLOSE_S:
            return "the camera is still open although it is paused: its driver does not give it back"
        return self._switches.problem or self._reader.problem

    def _report(self) -> Report:
        return Report(
            statistics=self.statistics,
            face=self.sees_face,
            has_frames=self._handled > 0,
            is_paused=self._reader.is_paused,
            accelerator=self._models.status,
            stages=self._pipeline.stopwatch.spreads,
            queue_dropped=self._queue.dropped,
            frames_skipped=self._reader.frames_skipped,
            is_private=self._switches.is_private,
            camera_problem=self._camera_problem(),
            sink_problem=self._dispatcher.problem,
            unwritten=self._dispatcher.unwritten,
            failure=self.failure,
            warnings=self._reader.warnings,
            configuration_problem=self._configuration_problem,
        )
