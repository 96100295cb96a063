"""The whole path of a frame in order, without any I/O of its own: feed frames, get events.

The device, `replay`, `demo` and every tool that measures accuracy run this same object.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import cv2
import numpy as np

from edge.baseline import Baseline, Rest
from edge.config import Config
from edge.continuity import Continuity
from edge.coverage import Coverage
from edge.event import Conditions, Gate, shortest_event_ms
from edge.evidence import STEP_NS
from edge.face.detect import CONFIRMED_SCORE, Detector
from edge.face.landmarks import LandmarkNet
from edge.face.track import Tracker
from edge.inference.models import Models
from edge.motion import RegionalMotion
from edge.records import Event, Frame, Motion, NotAssessable, Reason, Refusal, TrackedFace
from edge.spot import Spotter
from edge.stages import Stage, Stopwatch

_SHORT_GAP_NS = 100_000_000
"""Over a gap up to this the face is where it was: motion is measured on and the spotter keeps what it saw, for without
it the end of a word or of a smile looks like a micro-expression. Nothing that reaches into the gap is told."""
_WARM_UP_NS = 250_000_000
"""After the face is found or a gap ends: the pose settles, and what moves in this time may have begun unseen."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What happened since the first frame."""

    frames: int
    dropped: int
    out_of_order: int
    """Frames that came and were refused, because their timestamp did not rise or was far off."""
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
    rest: Rest = field(default_factory=Rest)
    """What is known of the face followed now."""
    clock_steps: int = 0
    """How often the sensor's clock jumped; each is a gap."""


@dataclass(slots=True)
class _Tally:
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
        not_assessable: stretches that cannot be assessed and that the last `feed` or `finish` saw end, each whole.
        baseline: what is learnt of the followed person at rest.
        stopwatch: what the stages cost.
    """

    def __init__(self, config: Config, models: Models, *, clock_ns: Callable[[], int] | None = None) -> None:
        """Build the path.

        Args:
            config: the whole configuration.
            models: closed by `close`.
            clock_ns: a steady clock for timing the stages; None: they are not timed.
        """
        self._config = config
        self._models = models
        self.stopwatch = Stopwatch(clock_ns)
        self._continuity = Continuity()
        detector = Detector(models.detector, score_min=CONFIRMED_SCORE)
        self._tracker = Tracker(detector, LandmarkNet(models.landmark), config.face, self.stopwatch)
        self._coverage = Coverage()
        self.baseline = Baseline(config.baseline)
        self._tune()
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

        A frame whose timestamp does not rise, or is far off, is counted and otherwise ignored. Where the sensor's
        clock steps back, media time goes on without it: see `edge.continuity`.
        """
        self.stopwatch.begin()
        events = self._feed(frame)
        self.stopwatch.lap(Stage.EVENT)
        self.stopwatch.end()
        return events

    def _feed(self, frame: Frame) -> list[Event]:
        self.refusals, self.not_assessable = [], []
        if (taken := self._continuity.take(frame)) is None:
            return []
        frame = taken
        if self._continuity.frames == 1:
            self._first_ns = self._now_ns = frame.timestamp_ns
        before_ns, self._now_ns = self._now_ns, frame.timestamp_ns
        self.motion = None
        self.face = face = self._tracker.track(frame)
        self.stopwatch.lap(Stage.TRACK)
        obstacle = self._obstacle(face)
        events: list[Event] = []
        is_gap = self._continuity.is_gap
        is_new = face is not None and face.face_id != self._face_id
        is_cut = is_new or obstacle is not None or (is_gap and not self._is_short(before_ns))
        if is_gap and not is_cut:
            self._book(before_ns, Reason.GAP)
        elif is_cut:
            # Booked first, so that nothing is reported that reaches into this time.
            self._book(before_ns, Reason.GAP if is_gap else obstacle or Reason.WARMING_UP)
            events += self._interrupt()
        if face is None:
            return events
        self._tally.others = max(self._tally.others, face.others)
        if is_new:
            self._face_id = face.face_id
            self._tally.faces += 1
            self.baseline.reset()
        if obstacle is not None:
            return events
        doubt = self._measure(face, frame.timestamp_ns)
        if not is_cut and not is_gap:
            self._book(before_ns, doubt)
        return events + self._spot(face)

    def _is_short(self, before_ns: int) -> bool:
        """Tell whether a gap leaves what was measured before it of use."""
        return self._since_ns is not None and self._now_ns - before_ns <= _SHORT_GAP_NS

    def finish(self) -> list[Event]:
        """Give the events that are still open at the end of the stream."""
        self.refusals, self.not_assessable = [], []
        events = self._interrupt()
        if (ended := self._coverage.finish()) is not None:
            self.not_assessable.append(ended)
        return events

    def reconfigure(self, config: Config) -> list[Event]:
        """Go on with other settings; give the events that were still open.

        The face is followed on and the counts go on. What was measured of the moment is dropped, so that the next
        quarter of a second cannot be assessed.
        """
        self.refusals, self.not_assessable = [], []
        events = self._interrupt()
        self._config = config
        self._tracker.reconfigure(config.face)
        self.baseline.reconfigure(config.baseline)
        self._tune()
        return events

    def close(self) -> None:
        """Close the models."""
        self._models.close()

    @property
    def now_ns(self) -> int:
        """Media time of the last frame."""
        return self._now_ns

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
            assessable_s=self._coverage.assessable_ns * 1e-9,
            not_assessable_s={reason: ns * 1e-9 for reason, ns in self._coverage.lost_ns.items()},
            refusals=dict(tally.refusals),
            events=tally.events,
            faces=tally.faces,
            others=tally.others,
            rest=self.baseline.rest,
            clock_steps=self._continuity.clock_steps,
        )

    def _tune(self) -> None:
        """Make the parts that hold settings and nothing that is worth keeping."""
        config = self._config
        self._motion = RegionalMotion(anchor_period_ms=config.motion.anchor_period_ms)
        self.spotter = Spotter(
            self._models.spotter, threshold=config.spot.threshold, hop_ms=config.spot.hop_ms
        )
        self._gate = Gate(
            config.event,
            threshold=config.spot.threshold,
            noise_factor=config.baseline.noise_factor,
            report=config.device.report,
            coverage=self._coverage,
            baseline=self.baseline,
        )

    def _obstacle(self, face: TrackedFace | None) -> Reason | None:
        """Tell what keeps the face from being measured at all."""
        if face is None:
            return self._tracker.why_not
        return Reason.TOO_DARK if cv2.mean(face.crop)[0] < self._config.motion.dark_luma else None

    def _measure(self, face: TrackedFace, timestamp_ns: int) -> Reason | None:
        """Measure the face's motion; tell why the time up to this frame cannot be assessed, if so."""
        self.motion = motion = self._motion.measure(face, timestamp_ns)
        self.stopwatch.lap(Stage.MOTION)
        if self._since_ns is None:
            self._since_ns = timestamp_ns
        if motion is None:
            return Reason.WARMING_UP
        if shortest_event_ms(self._continuity.frame_rate_hz) > self._config.event.max_duration_ms:
            return Reason.FRAME_RATE
        if motion.head_turn_deg_s > self._config.motion.turn_limit_deg_s:
            return Reason.TURNING
        return Reason.WARMING_UP if timestamp_ns - self._since_ns < _WARM_UP_NS else None

    def _spot(self, face: TrackedFace) -> list[Event]:
        """Take the motion on to the spotter, the baseline and the gate."""
        motion = self.motion
        if motion is None:
            return []
        continuity = self._continuity
        self._gate.note(
            Conditions(
                motion.timestamp_ns,
                continuity.frame_rate_hz,
                continuity.dropped,
                motion.head_turn_deg_s,
                face.face_px,
            )
        )
        self.baseline.see(face, motion.timestamp_ns)
        self.stopwatch.lap(Stage.EVENT)
        spots = self.spotter.feed(face.face_id, motion)
        self.stopwatch.lap(Stage.SPOT)
        self._learn()
        return self._decide(self._gate.consider(spots, self.spotter.seen_until_ns))

    def _learn(self) -> None:
        """Show the baseline the evidence that has become final, and which of its time could be assessed."""
        for evidence in self.spotter.evidence:
            times_ns = evidence.start_ns + STEP_NS * np.arange(len(evidence), dtype=np.int64)
            self.baseline.feed(evidence, self._coverage.assessable(times_ns))

    def _interrupt(self) -> list[Event]:
        """End the running stretch of time: decide what is complete and start afresh with the next frame."""
        if self._since_ns is None:
            return []
        self._since_ns = None
        spots = self.spotter.finish(self._face_id)
        self._learn()
        events = self._decide(self._gate.consider(spots, None))
        self._motion.reset()
        return events

    def _decide(self, decided: tuple[list[Event], list[Refusal]]) -> list[Event]:
        events, refusals = decided
        self.refusals += refusals
        self._tally.refusals.update(refusal.reason for refusal in refusals)
        self._tally.events += len(events)
        return events

    def _book(self, before_ns: int, reason: Reason | None) -> None:
        """Book the time since the frame before."""
        if (ended := self._coverage.book(before_ns, self._now_ns, reason)) is not None:
            self.not_assessable.append(ended)


def run(pipeline: Pipeline, frames: Iterable[Frame]) -> list[Event]:
    """Feed a whole stream and give all its events."""
    events = [event for frame in frames for event in pipeline.feed(frame)]
    return events + pipeline.finish()
