"""Decide which spots become events, and why the others do not.

A spot becomes an event when nothing makes its time unassessable, its evidence reaches the threshold, its duration
passes the gate and its movement stands out of the person's own rest. What is turned down carries the first of these
that failed; evidence below the threshold is put down to a confuser where one is seen.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edge.baseline import Baseline, Standing
from edge.coverage import Coverage
from edge.errors import ConfigError
from edge.evidence import CONFUSERS
from edge.records import EMOTIONS, Event, Quality, Reason, Refusal, Spot
from edge.settings import Event as EventConfig

_NS_PER_MS = 1_000_000

FRAMES_PER_EVENT = 4
"""Onset and offset are each known to one frame period p. In the worst case both err inwards and the overlap with
the truth is (L - 2 p) / L, which is half or more (the field's measure of a found event) for L >= 4 p. One error
alone, L >= 3 p, was tried: at 25 frames/s talking faces then gave four events in 108 s where none is known."""

_AFTERWARDS_MS = 40
"""What follows an event must be assessable for so long as well: the first 40 ms of a smile, cut off by lost frames,
look like a whole micro-expression, because then the face is taken to have stayed as it was."""

SHORTER_MS, LONGER_MS = 12, 20
"""Durations are measured to about this; one that far beyond a limit counts as on the limit. Weak movements and
compressed video smear an interval outwards, seldom inwards."""

_BALANCE, _BALANCE_WIDTH = 0.55, 0.1
"""Imbalance of the mouth at which contempt and happiness are as likely, and the change that multiplies their odds by
e. On validation people of two animators happiness stayed below 0.44 in 19 of 20 events, contempt above 0.71 with the
one and above 0.43 with the other; the net alone called 3 of 14 of the one's contempt happiness."""

_CONFUSED = 0.5
"""Evidence for a confuser above which it is the reason for turning down what stays below the threshold."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """How one frame was seen."""

    timestamp_ns: int
    frame_rate_hz: float
    dropped: int
    """Frames lost since the start of the stream."""
    head_turn_deg_s: float
    face_px: float


class Gate:
    """Turns spots into events.

    Args:
        config: durations, merging, `uncertain_below`.
        threshold: evidence that an event needs, 0..1.
        noise_factor: displacement that an event needs, in multiples of the person's own noise; 0: any.
        report: "emotion", or "movement" to leave the emotion out.
        coverage: which time can be assessed; kept up to date by whoever feeds the gate.
        baseline: the person's rest; likewise.
    """

    _KEPT = 1000
    """Conditions of this many frames are kept: more than the longest event and the spotter's delay."""

    def __init__(
        self,
        config: EventConfig,
        *,
        threshold: float,
        noise_factor: float,
        report: str,
        coverage: Coverage,
        baseline: Baseline,
    ) -> None:
        if config.min_duration_ms >= config.max_duration_ms:
            raise ConfigError(
                f"event.min_duration_ms = {config.min_duration_ms}: must be below "
                f"event.max_duration_ms = {config.max_duration_ms}"
            )
        self._config, self._threshold, self._report = config, threshold, report
        self._noise_factor, self._coverage, self._baseline = noise_factor, coverage, baseline
        self._conditions: deque[Conditions] = deque(maxlen=self._KEPT)
        self._pending: Spot | None = None

    def note(self, conditions: Conditions) -> None:
        """Remember how a frame was seen."""
        self._conditions.append(conditions)

    def consider(self, spots: Sequence[Spot], seen_until_ns: int | None) -> tuple[list[Event], list[Refusal]]:
        """Take new spots and give what is decided.

        Args:
            spots: in order of their offset.
            seen_until_ns: media time up to which spots are complete; None: no more will come.
        """
        events: list[Event] = []
        refusals: list[Refusal] = []
        for spot in spots:
            if self._pending is not None and self._belong_together(self._pending, spot):
                self._pending = _merged(self._pending, spot)
                continue
            self._decide(events, refusals)
            self._pending = spot
        if self._pending is not None:
            wait_ns = self._config.merge_gap_ms * _NS_PER_MS
            if seen_until_ns is None or seen_until_ns > self._pending.offset_ns + wait_ns:
                self._decide(events, refusals)
        return events, refusals

    def _belong_together(self, first: Spot, second: Spot) -> bool:
        gap_ms = (second.onset_ns - first.offset_ns) / _NS_PER_MS
        whole_ms = (second.offset_ns - first.onset_ns) / _NS_PER_MS
        return (
            first.face_id == second.face_id
            and gap_ms <= self._config.merge_gap_ms
            and whole_ms <= self._config.max_duration_ms
        )

    def _decide(self, events: list[Event], refusals: list[Refusal]) -> None:
        spot, self._pending = self._pending, None
        if spot is None or not self._conditions:
            return
        seen = self._as_far_as_seen(spot)
        during = [c for c in self._conditions if seen.onset_ns <= c.timestamp_ns <= seen.offset_ns]
        during = during or [self._conditions[-1]]
        standing = self._baseline.judge(seen)
        limited = self._within_limits(seen)
        reason = self._reason_against(spot, seen, limited, standing, during[-1].frame_rate_hz)
        if reason is not None:
            refusals.append(Refusal(spot, reason))
            return
        quality = Quality(
            frame_rate_hz=during[-1].frame_rate_hz,
            frames_dropped=during[-1].dropped - during[0].dropped,
            head_turn_deg_s=max(c.head_turn_deg_s for c in during),
            face_px=during[-1].face_px,
            baseline_ready=self._baseline.rest.ready,
            noise_floor_iod=standing.noise_floor_iod,
        )
        events.append(self._event(limited, quality, standing))

    def _reason_against(
        self, spot: Spot, seen: Spot, limited: Spot, standing: Standing, frame_rate_hz: float
    ) -> Reason | None:
        """Give what decides against a spot; None if nothing does.

        Args:
            spot: as the spotter gave it: what reaches into time that cannot be assessed was not seen whole.
            seen: without what would lie after the last frame.
            limited: as it would be published.
            standing: how far it stands out.
            frame_rate_hz: at its end.
        """
        for onset_ns, offset_ns in (
            (spot.onset_ns, spot.offset_ns + _AFTERWARDS_MS * _NS_PER_MS),
            (limited.onset_ns, limited.offset_ns),
        ):
            if (reason := self._coverage.reason_against(onset_ns, offset_ns)) is not None:
                return reason
        if spot.score < self._threshold:
            strongest = max(range(len(CONFUSERS)), key=spot.confusers.__getitem__)
            return Reason(CONFUSERS[strongest]) if spot.confusers[strongest] >= _CONFUSED else Reason.WEAK
        duration_ms = (seen.offset_ns - seen.onset_ns) / _NS_PER_MS
        failed = (
            (duration_ms < self._config.min_duration_ms - SHORTER_MS, Reason.TOO_SHORT),
            (duration_ms < shortest_event_ms(frame_rate_hz) - SHORTER_MS, Reason.TOO_SHORT_FOR_RATE),
            (duration_ms > self._config.max_duration_ms + LONGER_MS, Reason.TOO_LONG),
            (spot.intensity_iod > self._config.max_intensity_iod, Reason.TOO_LARGE),
            (standing.prominence < self._noise_factor, Reason.NOISE),
        )
        return next((reason for has_failed, reason in failed if has_failed), None)

    def _as_far_as_seen(self, spot: Spot) -> Spot:
        """Cut off what lies after the last frame: at the end of a stream the spotter takes the face to stay."""
        end = max(self._conditions[-1].timestamp_ns, spot.onset_ns + 1)
        if spot.offset_ns <= end:
            return spot
        return replace(spot, apex_ns=min(spot.apex_ns, end), offset_ns=end)

    def _within_limits(self, spot: Spot) -> Spot:
        """Bring a duration that lies within the tolerance of a limit onto the limit, about the interval's middle."""
        duration = spot.offset_ns - spot.onset_ns
        limited = min(
            max(duration, self._config.min_duration_ms * _NS_PER_MS),
            self._config.max_duration_ms * _NS_PER_MS,
        )
        if limited == duration:
            return spot
        latest = self._conditions[-1].timestamp_ns - limited
        onset = max(0, min(spot.onset_ns - (limited - duration) // 2, latest))
        offset = onset + limited
        return replace(spot, onset_ns=onset, offset_ns=offset, apex_ns=min(max(spot.apex_ns, onset), offset))

    def _event(self, spot: Spot, quality: Quality, standing: Standing) -> Event:
        names = (*EMOTIONS, "other")
        spot = replace(spot, probabilities=_by_balance(spot.probabilities, standing.imbalance))
        top = max(range(len(names)), key=spot.probabilities.__getitem__)
        confidence = spot.probabilities[top]
        emotion: str | None = names[top] if confidence >= self._config.uncertain_below else "uncertain"
        if emotion == "contempt" and standing.one_sided < self._noise_factor:
            emotion = "uncertain"  # it is one-sided by definition, and this person's rest is no less so
        return Event(spot, emotion if self._report == "emotion" else None, confidence, quality)


def shortest_event_ms(frame_rate_hz: float) -> float:
    """Give the shortest event that can be placed at this frame rate, ms."""
    return FRAMES_PER_EVENT * 1000 / frame_rate_hz if frame_rate_hz > 0 else float("inf")


def _by_balance(probabilities: tuple[float, ...], imbalance: float) -> tuple[float, ...]:
    """Divide what is said for happiness and contempt together by how one-sided the mouth was.

    A lip corner raised on both sides is happiness, on one side contempt (edge/emotions.toml); the net, which sees
    40 regions at once, mixes them up where faces move otherwise than those that it learnt from.
    """
    values = list(probabilities)
    happiness, contempt = EMOTIONS.index("happiness"), EMOTIONS.index("contempt")
    both = values[happiness] + values[contempt]
    favour = math.exp((imbalance - _BALANCE) / _BALANCE_WIDTH)
    weighed = values[contempt] * favour
    share = weighed / max(values[happiness] + weighed, 1e-12)
    values[happiness], values[contempt] = both * (1 - share), both * share
    return tuple(values)


def _merged(first: Spot, second: Spot) -> Spot:
    """Join two spots; the stronger one tells what they are."""
    stronger = first if first.score >= second.score else second
    return replace(
        stronger,
        onset_ns=min(first.onset_ns, second.onset_ns),
        offset_ns=max(first.offset_ns, second.offset_ns),
        intensity_iod=max(first.intensity_iod, second.intensity_iod),
        confusers=tuple(map(max, first.confusers, second.confusers)),
    )
