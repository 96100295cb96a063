"""The whole path of a frame in order, without any I/O of its own: feed frames, get events.

The device, `replay`, `demo` and every tool that measures accuracy run this same object.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from edge.config import Config
from edge.continuity import Continuity
from edge.errors import ConfigError, ModelError
from edge.event import Conditions, Gate, shortest_event_ms
from edge.face.detect import CONFIRMED_SCORE, Detector
from edge.face.landmarks import LandmarkNet
from edge.face.track import Tracker
from edge.inference import Model
from edge.inference.manifest import load_model
from edge.motion import RegionalMotion
from edge.records import Event, Frame, Motion, NotAssessable, Reason, Refusal, TrackedFace
from edge.spot import Spotter

_WARM_UP_NS = 250_000_000
"""After the face is found or a gap ends: the pose settles, and what moves in this time may have begun unseen."""


@dataclass(frozen=True, slots=True)
class Models:
    """The three models of the path."""

    detector: Model
    landmark: Model
    spotter: Model

    def close(self) -> None:
        """Close all three."""
        for model in (self.spotter, self.landmark, self.detector):
            model.close()


def load_models(config: Config) -> Models:
    """Load and check the three models that the configuration names.

    Raises:
        ModelError: naming each model that is absent, damaged or not what its passport says.
        ConfigError: an accelerator is demanded that this version does not drive.
    """
    if config.inference.accelerator == "edgetpu":
        raise ConfigError(
            "inference.accelerator = edgetpu: this version runs models on the CPU; set auto or cpu"
        )
    folder = Path(config.inference.models) if config.inference.models else None
    loaded: list[Model] = []
    problems: list[str] = []
    for name in ("detector", "landmark", "spotter"):
        try:
            loaded.append(load_model(name, folder=folder, threads=config.inference.threads))
        except ModelError as error:
            problems.append(str(error))
    if problems:
        for model in loaded:
            model.close()
        raise ModelError("\n".join(dict.fromkeys(problems)))
    return Models(*loaded)


@dataclass(frozen=True, slots=True)
class Statistics:
    """What happened since the first frame."""

    frames: int
    dropped: int
    out_of_order: int
    frame_rate_hz: float
    """Measured: the median over the last frames."""
    shortest_event_ms: float
    """The shortest event that can be placed at this rate."""
    duration_s: float
    """Media time from the first to the last frame."""
    assessable_s: float
    not_assessable_s: dict[Reason, float]
    refusals: dict[Reason, int]
    events: int
    faces: int
    """How often a face was found."""
    others: int
    """Most further faces seen at once."""


@dataclass(slots=True)
class _Tally:
    assessable_ns: int = 0
    lost_ns: Counter[Reason] = field(default_factory=Counter)
    refusals: Counter[Reason] = field(default_factory=Counter)
    events: int = 0
    faces: int = 0
    others: int = 0


class Pipeline:
    """Frames in, events out.

    Attributes:
        face: the followed face in the last frame, None if there is none.
        motion: its motion, None if it could not be measured.
        refusals: what the last `feed` or `finish` turned down, with reasons.
        not_assessable: what the last `feed` or `finish` found unassessable.
    """

    def __init__(self, config: Config, models: Models) -> None:
        self._config = config
        self._models = models
        self._continuity = Continuity()
        detector = Detector(models.detector, score_min=CONFIRMED_SCORE)
        self._tracker = Tracker(detector, LandmarkNet(models.landmark), config.face)
        self._motion = RegionalMotion(anchor_period_ms=config.motion.anchor_period_ms)
        self.spotter = Spotter(models.spotter, threshold=config.spot.threshold, hop_ms=config.spot.hop_ms)
        self._gate = Gate(config.event, threshold=config.spot.threshold, report=config.device.report)
        self._tally = _Tally()
        self._face_id = 0
        self._since_ns: int | None = None
        self._now_ns = self._first_ns = 0
        self.face: TrackedFace | None = None
        self.motion: Motion | None = None
        self.refusals: list[Refusal] = []
        self.not_assessable: list[NotAssessable] = []

    def feed(self, frame: Frame) -> list[Event]:
        """Take the next frame; give the events that are decided by now, in order of their offset.

        A frame whose timestamp does not rise is counted and otherwise ignored.
        """
        self.refusals, self.not_assessable = [], []
        elapsed_ns = self._continuity.take(frame)
        if elapsed_ns is None:
            return []
        if self._continuity.frames == 1:
            self._first_ns = frame.timestamp_ns
        before_ns, self._now_ns = self._now_ns, frame.timestamp_ns
        events: list[Event] = []
        is_gap = self._continuity.is_gap(elapsed_ns)
        if is_gap:
            events += self._interrupt()
        reason = self._look(frame, events)
        if elapsed_ns:
            self._account(before_ns, elapsed_ns, Reason.GAP if is_gap else reason)
        return events

    def finish(self) -> list[Event]:
        """Give the events that are still open at the end of the stream."""
        self.refusals, self.not_assessable = [], []
        return self._interrupt()

    def close(self) -> None:
        """Close the models."""
        self._models.close()

    @property
    def statistics(self) -> Statistics:
        """Counts and times so far."""
        tally, rate = self._tally, self._continuity.frame_rate_hz
        return Statistics(
            frames=self._continuity.frames,
            dropped=self._continuity.dropped,
            out_of_order=self._continuity.out_of_order,
            frame_rate_hz=rate,
            shortest_event_ms=shortest_event_ms(rate),
            duration_s=(self._now_ns - self._first_ns) * 1e-9,
            assessable_s=tally.assessable_ns * 1e-9,
            not_assessable_s={reason: time_ns * 1e-9 for reason, time_ns in tally.lost_ns.items()},
            refusals=dict(tally.refusals),
            events=tally.events,
            faces=tally.faces,
            others=tally.others,
        )

    def _look(self, frame: Frame, events: list[Event]) -> Reason | None:
        """Take the frame through face, motion and spotter; tell why its time cannot be assessed, if so."""
        self.motion = None
        self.face = face = self._tracker.track(frame)
        if face is None:
            events += self._interrupt()
            return self._tracker.why_not
        self._tally.others = max(self._tally.others, face.others)
        if face.face_id != self._face_id:
            events += self._interrupt()
            self._face_id = face.face_id
            self._tally.faces += 1
        if face.crop.mean() < self._config.motion.dark_luma:
            events += self._interrupt()
            return Reason.TOO_DARK
        self.motion = motion = self._motion.measure(face, frame.timestamp_ns)
        if self._since_ns is None:
            self._since_ns = frame.timestamp_ns
        if motion is None:
            return Reason.WARMING_UP
        rate = self._continuity.frame_rate_hz
        self._gate.note(
            Conditions(
                motion.timestamp_ns, rate, self._continuity.dropped, motion.head_turn_deg_s, face.face_px
            )
        )
        spots = self.spotter.feed(face.face_id, motion)
        events += self._decide(self._gate.consider(spots, self.spotter.seen_until_ns))
        if shortest_event_ms(rate) > self._config.event.max_duration_ms:
            return Reason.FRAME_RATE
        if motion.head_turn_deg_s > self._config.motion.turn_limit_deg_s:
            return Reason.TURNING
        return Reason.WARMING_UP if frame.timestamp_ns - self._since_ns < _WARM_UP_NS else None

    def _interrupt(self) -> list[Event]:
        """End the running stretch of time: decide what is complete and start afresh with the next frame."""
        if self._since_ns is None:
            return []
        self._since_ns = None
        events = self._decide(self._gate.consider(self.spotter.finish(self._face_id), None))
        self._motion.reset()
        return events

    def _decide(self, decided: tuple[list[Event], list[Refusal]]) -> list[Event]:
        events, refusals = decided
        self.refusals += refusals
        self._tally.refusals.update(refusal.reason for refusal in refusals)
        self._tally.events += len(events)
        return events

    def _account(self, before_ns: int, elapsed_ns: int, reason: Reason | None) -> None:
        """Book the time since the frame before."""
        if reason is None:
            self._tally.assessable_ns += elapsed_ns
            return
        self._tally.lost_ns[reason] += elapsed_ns
        stretch = NotAssessable(before_ns, before_ns + elapsed_ns, reason)
        self.not_assessable.append(stretch)
        self._gate.exclude(stretch)


def run(pipeline: Pipeline, frames: Iterable[Frame]) -> list[Event]:
    """Feed a whole stream and give all its events."""
    events = [event for frame in frames for event in pipeline.feed(frame)]
    return events + pipeline.finish()
