"""Find intervals in the temporal net's evidence: onset, apex, offset, and what they resemble.

Where the evidence for lying inside a micro-expression rises above a quarter an interval opens; where it falls
below for good the interval is complete. Its onset and offset are then sought where the net's evidence
for those moments is strongest, and its apex where the skin is farthest from where it was at the onset.
"""

import numpy as np
from numpy.typing import NDArray

from edge.evidence import GROUPS, STEP_NS, UNITS, Evidence, TemporalNet
from edge.inference import Model
from edge.records import ActionUnit, Motion, Spot
from edge.regions import REGIONS

Floats = NDArray[np.float32]

_OPEN = 0.25
"""Evidence above which an interval is open, however much an event needs: where it begins and ends, and what is told
of those that are turned down, must not change with the threshold."""
_CLOSED_STEPS = 3
"""Steps in a row below it that close the interval."""
_BEFORE, _AFTER = 6, 4
"""Steps beyond the open interval in which onset and offset are looked for; what comes after is waited for."""
_HISTORY = 200
"""Steps that are kept: 1 s, twice the longest event that can be asked for."""
_CLEAR_MOMENT = 0.3
"""Evidence for an onset or an offset from which on it counts as seen."""
_UNIT_SCORE = 0.4
"""Action units below this score are not named."""
_VISIBLE_IOD = 0.006
"""Displacement that gives a region an evidence of 0.63; three times the floor of a calm head."""

_MEMBERS = [np.array([region.group == group for region in REGIONS]) for group in GROUPS]
_SMOOTH = np.array([1, 2, 3, 2, 1], np.float32) / 9


class Spotter:
    """Turns motion into candidates, in order of their offset.

    A candidate is any such interval; the event stage takes those above the threshold and says of the others why
    they were turned down.

    Args:
        model: as edge.evidence.TemporalNet needs it.
        threshold: 0..1.
        hop_ms: time between two runs of the net.
    """

    def __init__(self, model: Model, *, threshold: float = 0.8, hop_ms: int = 20) -> None:
        self._net = TemporalNet(model, hop_ms=hop_ms)
        self._temperature = model.calibration.get("emotion_temperature", 1.0)
        self._level = min(threshold, _OPEN)
        self.reset()

    def reset(self) -> None:
        """Forget everything: what comes next belongs to another stretch of time."""
        self._net.reset()
        self._history: Evidence | None = None
        self._open_ns: int | None = None
        self._checked_ns = 0
        self.seen_until_ns = 0
        """Media time before which every candidate that opens there has been given."""
        self.evidence: list[Evidence] = []
        """What the last `feed` or `finish` made final, for plots."""

    def feed(self, face_id: int, motion: Motion) -> list[Spot]:
        """Take one frame's motion; give the candidates that are now complete."""
        return self._take(face_id, self._net.feed(motion))

    def finish(self, face_id: int) -> list[Spot]:
        """Give what is still open, as far as it was seen, and forget everything."""
        spots = self._take(face_id, self._net.finish(), last=True)
        final = self.evidence
        self.reset()
        self.evidence = final
        return spots

    def _take(self, face_id: int, final: list[Evidence], last: bool = False) -> list[Spot]:
        self.evidence = final
        if not final:
            return []
        self._history = _joined(([self._history] if self._history else []) + final)
        history = self._history
        inside = history.phase[:, 3] >= self._level
        spots = []
        position = max(0, (self._checked_ns - history.start_ns) // STEP_NS)
        end = len(history) - (0 if last else max(_CLOSED_STEPS, _AFTER))
        while position < end:
            if self._open_ns is None:
                if inside[position]:
                    self._open_ns = history.start_ns + position * STEP_NS
            elif not inside[position : position + _CLOSED_STEPS].any():
                first = max(0, (self._open_ns - history.start_ns) // STEP_NS)
                spots.append(_spot(face_id, history, first, position, self._temperature))
                self._open_ns = None
            position += 1
        if last and self._open_ns is not None:
            first = max(0, (self._open_ns - history.start_ns) // STEP_NS)
            spots.append(_spot(face_id, history, first, len(history), self._temperature))
        self._checked_ns = history.start_ns + position * STEP_NS
        if self._open_ns is not None:
            self.seen_until_ns = self._open_ns
        else:
            quiet = int(np.argmax(np.append(inside[position:], True)))
            self.seen_until_ns = self._checked_ns + quiet * STEP_NS
        return spots


def _joined(parts: list[Evidence]) -> Evidence:
    """Join consecutive evidence and keep the newest _HISTORY steps."""
    total = sum(map(len, parts))
    keep = slice(max(0, total - _HISTORY), None)
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts])[keep]
        for name in ("confusers", "emotion", "phase", "units", "motion")
    }
    return Evidence(parts[0].start_ns + (keep.start or 0) * STEP_NS, **joined)


def _spot(face_id: int, evidence: Evidence, first: int, stop: int, temperature: float) -> Spot:
    """Describe the interval of steps [first, stop).

    Args:
        temperature: divides the logarithm of the emotions' odds, so that what is called 0.7 is right in 7 of 10
            cases (Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2).
    """
    low, high = max(0, first - _BEFORE), min(len(evidence), stop + _AFTER)
    centre = first + int(np.argmax(evidence.phase[first:stop, 1]))
    leaving, returning = evidence.phase[low : centre + 1, 0], evidence.phase[centre:high, 2]
    onset = _moment(leaving, low, float(first))
    offset = _moment(returning, centre, float(stop - 1))
    # At the end of a stream the offset may lie at the last step there is.
    start = min(round(onset), len(evidence) - 2)
    end = min(max(round(offset), start + 1), len(evidence) - 1)
    before = min(2, start)
    displacement = _displacement(evidence.motion[start - before : end + 3])[before : before + end - start + 1]
    size = displacement.max(axis=1)
    apex = start + int(np.argmax(evidence.phase[start : end + 1, 1] * (0.2 + size / max(size.max(), 1e-6))))
    peak = displacement.max(axis=0)
    weight = evidence.phase[start : end + 1, 3:] + 1e-3
    weight /= weight.sum()
    emotion = (evidence.emotion[start : end + 1] * weight).sum(axis=0) ** (1 / temperature)
    units = (evidence.units[start : end + 1] * weight).sum(axis=0)
    confusers = evidence.confusers[start : end + 1].max(axis=0)
    regions = tuple(float(1 - np.exp(-peak[members].max() / _VISIBLE_IOD)) for members in _MEMBERS)

    def time_ns(step: float) -> int:
        return evidence.start_ns + int(step * STEP_NS)

    onset_ns, offset_ns = time_ns(onset), time_ns(max(offset, onset + 1))
    return Spot(
        face_id=face_id,
        onset_ns=onset_ns,
        apex_ns=min(max(time_ns(apex), onset_ns), offset_ns),
        offset_ns=offset_ns,
        score=_score(
            float(evidence.phase[first:stop, 3].max()), float(leaving.max()), float(returning.max())
        ),
        probabilities=tuple(float(share) for share in emotion / emotion.sum()),
        action_units=_named_units(units),
        regions=regions,  # type: ignore[arg-type]  # as many as GROUPS
        intensity_iod=float(peak.max()),
        confusers=tuple(float(evidence) for evidence in confusers),
    )


def _score(inside: float, onset: float, offset: float) -> float:
    """Give the evidence for a micro-expression: it lies inside one, and both its ends were seen.

    Of 28 candidates above 0.5 on unseen people the 23 true ones had evidence of 0.29 or more for their onset
    and offset, the 5 false ones (drifting heads, held expressions) 0.02 or less for one of them.
    """
    return float(np.sqrt(inside * min(1.0, min(onset, offset) / _CLEAR_MOMENT)))


def _moment(evidence: Floats, start: int, otherwise: float) -> float:
    """Give the step, with its fraction, where the evidence for a moment is strongest; `otherwise` if it is weak."""
    top = int(np.argmax(evidence))
    if evidence[top] < 0.1:
        return otherwise
    near = evidence[max(0, top - 2) : top + 3]
    return start + max(0, top - 2) + float((near * np.arange(len(near))).sum() / near.sum())


def _displacement(motion: Floats) -> Floats:
    """Give each region's distance (n, R) IOD from the straight line between the first and the last step.

    The line takes out what drifts; three steps' smoothing takes out single frames' noise.
    """
    skin = motion[:, : 2 * len(REGIONS)]
    if len(skin) >= len(_SMOOTH):
        padded = np.pad(skin, ((2, 2), (0, 0)), mode="edge")
        skin = sum(share * padded[shift : shift + len(skin)] for shift, share in enumerate(_SMOOTH))
    line = np.linspace(0, 1, len(skin), dtype=np.float32)[:, None]
    moved = skin - (skin[0] + line * (skin[-1] - skin[0]))
    return np.asarray(np.hypot(moved[:, 0::2], moved[:, 1::2]))


def _named_units(scores: Floats) -> tuple[ActionUnit, ...]:
    """Name the action units that are seen, a two-sided one once, the strongest first."""
    sides: dict[str, dict[str, float]] = {}
    for (au, side), score in zip(UNITS, scores.tolist(), strict=True):
        if score >= _UNIT_SCORE:
            sides.setdefault(au, {})[side] = score
    units = [
        ActionUnit(au, "both" if len(found) > 1 else next(iter(found)), max(found.values()))
        for au, found in sides.items()
    ]
    return tuple(sorted(units, key=lambda unit: -unit.score))
