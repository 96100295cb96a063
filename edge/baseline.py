"""Learn the followed person's own rest: the noise of the skin, the face's asymmetry, the rate of blinks.

The same movement stands out on one face and drowns on another: pores, beards, light and compression set how
still a resting region looks. So each region's *noise floor* is measured on the person: the standard deviation of
the skin's displacement over 50 ms, taken robustly (1.4826 times the median absolute deviation of the differences,
over the square root of two because a difference carries the noise of two moments). Only such time counts as can
be assessed and in which the spotter sees neither a confuser nor a micro-expression. The first seconds of it make
the baseline; from then on it follows slowly. Another face starts afresh.

Source: median absolute deviation as an estimate of a standard deviation, Rousseeuw and Croux, JASA 88, 1993;
asymmetry by superposing a shape and its mirror image, Mardia, Bookstein and Moreton, Biometrika 87, 2000.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.evidence import CONFUSERS, STEP_NS, Evidence
from edge.records import CROP_IOD_PX, LANDMARKS, Spot, TrackedFace
from edge.regions import REGIONS
from edge.settings import Baseline as BaselineConfig

Floats = NDArray[np.float32]

DEFAULT_FLOOR_IOD = 0.0004
"""Noise floor that is taken for every region until the person's own is known: the median over all regions in 20
rendered clips of unseen people; one region in ten lies outside 0.00016..0.0013."""
_LEAST_FLOOR_IOD = 1e-5
"""A picture that does not change at all has no noise; nothing may be divided by that."""

_LAG = 10
"""Steps between the two moments of a difference: 50 ms, the time scale of an event's flanks."""
_SAMPLED = 4
"""A difference is kept every so many steps: neighbours 20 ms apart share little noise at 200 frames/s."""
_CONFUSED, _INSIDE = 0.5, 0.25
"""Evidence from which on a step is a confuser's, or belongs to a candidate."""
_FOLLOW = 0.1
"""Share of each further batch in the floor: with 5-s batches the floor follows within about 50 s of calm time."""
_KEPT = 300
"""Steps of motion that are kept for judging candidates: 1.5 s, the longest of them and the wait for what follows."""
_LANDMARKS_NS = 50_000_000
"""Time between two looks at the landmarks."""
_BLINK = CONFUSERS.index("blink")
_OPEN_AGAIN = 0.3
"""A blink is over when its evidence falls below this; it began at `_CONFUSED`."""
_BLINK_MEMORY_S = 120.0
"""Blinks and the time in which they were counted are halved beyond this, so that the rate follows."""

_SIDES = np.array(
    [
        [[region.name for region in REGIONS].index(f"{side}_{name}") for side in ("right", "left")]
        for name in ("lip_corner", "nasolabial", "below_corner", "upper_lip", "cheek")
    ]
)
"""(5, 2) regions that a one-sided lip corner moves, (right, left)."""
_MIRROR = np.array([-1, 1], np.float32)


@dataclass(frozen=True, slots=True)
class Rest:
    """What is known of the followed person at rest."""

    ready: bool = False
    """Whether thresholds follow the person's own floor rather than the usual one."""
    progress: float = 0.0
    """Share of the time that the first baseline needs, 0..1."""
    noise_floor_iod: float | None = None
    """Noise floor, the median over the regions, IOD; None before it is ready."""
    asymmetry_iod: float | None = None
    """Mean distance of a landmark from its mirror partner at rest, IOD; None before it is ready."""
    blinks_per_min: float | None = None
    """None before it is ready."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a candidate stands out of the person's own rest."""

    prominence: float
    """Greatest displacement of a region at the apex, in multiples of that region's noise floor."""
    noise_floor_iod: float
    """That region's floor."""
    one_sided: float
    """Greatest difference between right and left about the mouth at the apex, in multiples of its floor."""
    imbalance: float
    """How much more one half of the mouth moved than the other: the difference of the squared displacements over
    their sum, 0 (alike) to 1 (one side alone)."""


class Baseline:
    """Learns one person's rest from the spotter's evidence and judges candidates by it.

    Args:
        config: how much calm time the first baseline takes.
    """

    def __init__(self, config: BaselineConfig) -> None:
        self.reconfigure(config)
        self.reset()

    def reconfigure(self, config: BaselineConfig) -> None:
        """Take another length of calm time; what is already learnt stays."""
        self._needed = max(1, round(config.seconds * 1e9 / (STEP_NS * _SAMPLED)))

    def reset(self) -> None:
        """Forget the person."""
        self._is_ready = False
        self._floor = np.full(len(REGIONS), DEFAULT_FLOOR_IOD)
        # A difference of two sides carries the noise of both.
        self._side_floor = np.full(len(_SIDES), DEFAULT_FLOOR_IOD * np.sqrt(2))
        self._asymmetry: float | None = None
        self._samples: list[Floats] = []
        self._shapes: list[Floats] = []
        self._seen: deque[tuple[int, Floats]] = deque()
        self._start_ns = 0
        self._history = np.zeros((0, 2 * len(REGIONS)), np.float32)
        self._calm = 0
        self._eyes_closed = False
        self._blinks = self._watched_s = 0.0

    def see(self, face: TrackedFace, timestamp_ns: int) -> None:
        """Take a look at the landmarks; what of it was at rest is known once the evidence of that time comes."""
        if not self._seen or timestamp_ns - self._seen[-1][0] >= _LANDMARKS_NS:
            self._seen.append((timestamp_ns, face.landmarks / np.float32(CROP_IOD_PX)))

    def feed(self, evidence: Evidence, assessable: NDArray[np.bool_]) -> None:
        """Take the next steps.

        Args:
            evidence: of the face followed.
            assessable: (n,) whether each step's time could be assessed.
        """
        self._remember(evidence)
        calm = assessable & (evidence.confusers.max(axis=1) < _CONFUSED) & (evidence.phase[:, 3] < _INSIDE)
        first = len(self._history) - len(evidence)
        for step, is_calm in enumerate(calm.tolist()):
            self._calm = self._calm + 1 if is_calm else 0
            if self._calm > _LAG and (self._calm - _LAG) % _SAMPLED == 0:
                self._samples.append(self._history[first + step] - self._history[first + step - _LAG])
        self._count_blinks(evidence.confusers[assessable, _BLINK])
        self._take_shapes(evidence, calm)
        if len(self._samples) >= self._needed:
            self._learn()

    @property
    def rest(self) -> Rest:
        """What is known by now."""
        if not self._is_ready:
            return Rest(progress=min(len(self._samples) / self._needed, 1.0))
        return Rest(
            ready=True,
            progress=1.0,
            noise_floor_iod=float(np.median(self._floor)),
            asymmetry_iod=self._asymmetry,
            blinks_per_min=60 * self._blinks / self._watched_s,
        )

    def judge(self, spot: Spot) -> Standing:
        """Hold a candidate of the last seconds against the person's rest.

        Displacement is taken at the apex, against the straight line between onset and offset, each the mean of
        three steps: what drifts is no movement, and a single step's noise is none either.
        """
        onset, apex, offset = (
            self._mean_at(time_ns) for time_ns in (spot.onset_ns, spot.apex_ns, spot.offset_ns)
        )
        share = (spot.apex_ns - spot.onset_ns) / max(spot.offset_ns - spot.onset_ns, 1)
        moved = (apex - (onset + share * (offset - onset))).reshape(-1, 2)
        multiples = np.hypot(*moved.T) / self._floor
        top = int(np.argmax(multiples))
        uneven = moved[_SIDES[:, 0]] - moved[_SIDES[:, 1]] * _MIRROR
        strength = np.square(moved[_SIDES]).sum(axis=(0, 2))  # right, left
        return Standing(
            prominence=float(multiples[top]),
            noise_floor_iod=float(self._floor[top]),
            one_sided=float((np.hypot(*uneven.T) / self._side_floor).max()),
            imbalance=float(abs(strength[0] - strength[1]) / max(strength.sum(), 1e-12)),
        )

    def _remember(self, evidence: Evidence) -> None:
        skin = evidence.motion[:, : 2 * len(REGIONS)]
        if evidence.start_ns != self._start_ns + len(self._history) * STEP_NS:
            # Displacement starts again from zero after an interruption.
            self._history, self._start_ns, self._calm = self._history[:0], evidence.start_ns, 0
        joined = np.concatenate([self._history, skin])
        forgotten = max(0, len(joined) - _KEPT - len(evidence))
        self._history, self._start_ns = joined[forgotten:], self._start_ns + forgotten * STEP_NS

    def _mean_at(self, time_ns: int) -> Floats:
        """Give the skin's place (2 R,) about a moment; the nearest known if it lies outside what is kept."""
        if not len(self._history):
            return np.zeros(2 * len(REGIONS), np.float32)
        step = min(max((time_ns - self._start_ns) // STEP_NS, 0), len(self._history) - 1)
        return np.asarray(self._history[max(0, step - 1) : step + 2].mean(axis=0))

    def _count_blinks(self, evidence: Floats) -> None:
        self._watched_s += len(evidence) * STEP_NS * 1e-9
        for blink in evidence.tolist():
            if not self._eyes_closed and blink >= _CONFUSED:
                self._blinks += 1
            if blink >= _CONFUSED or blink < _OPEN_AGAIN:
                self._eyes_closed = blink >= _CONFUSED
        if self._watched_s > _BLINK_MEMORY_S:
            self._blinks, self._watched_s = self._blinks / 2, self._watched_s / 2

    def _take_shapes(self, evidence: Evidence, calm: NDArray[np.bool_]) -> None:
        end_ns = evidence.start_ns + len(evidence) * STEP_NS
        while self._seen and self._seen[0][0] < end_ns:
            time_ns, shape = self._seen.popleft()
            step = (time_ns - evidence.start_ns) // STEP_NS
            if step >= 0 and calm[step]:
                self._shapes.append(shape)

    def _learn(self) -> None:
        """Turn the batch into floors: the first one is the baseline, later ones shift it."""
        differences = np.array(self._samples).reshape(len(self._samples), -1, 2)
        uneven = differences[:, _SIDES[:, 0]] - differences[:, _SIDES[:, 1]] * _MIRROR
        share = _FOLLOW if self._is_ready else 1.0
        self._floor += share * (_spread(differences) - self._floor)
        self._side_floor += share * (_spread(uneven) - self._side_floor)
        if self._shapes:
            asymmetry = asymmetry_iod(np.mean(self._shapes, axis=0))
            before = asymmetry if self._asymmetry is None else self._asymmetry
            self._asymmetry = before + share * (asymmetry - before)
        self._samples, self._shapes, self._is_ready = [], [], True


def _spread(differences: NDArray[np.float64] | Floats) -> NDArray[np.float64]:
    """Give the standard deviation (R,) of one moment's noise from differences (n, R, 2), x and y alike."""
    about_drift = differences - np.median(differences, axis=0)
    deviation = 1.4826 * np.median(np.abs(about_drift), axis=0) / np.sqrt(2)
    both = np.sqrt(np.mean(deviation.astype(np.float64) ** 2, axis=1))
    return np.asarray(np.maximum(both, _LEAST_FLOOR_IOD))


def _partner(name: str) -> str:
    swapped = {"right": "left", "left": "right"}
    return "_".join(swapped.get(part, part) for part in name.split("_"))


_PARTNERS = np.array([LANDMARKS.index(_partner(name)) for name in LANDMARKS])


def asymmetry_iod(landmarks: Floats) -> float:
    """Give the mean distance between a landmark and its mirror partner, IOD.

    The mirrored face is first laid over the face by the best similarity, so a tilted head is not uneven. A head
    that is turned aside is: its far half looks narrower.

    Args:
        landmarks: (56, 2), IOD, any frame of reference.
    """
    face = landmarks[:, 0] + 1j * landmarks[:, 1]
    mirrored = -landmarks[_PARTNERS, 0] + 1j * landmarks[_PARTNERS, 1]
    face, mirrored = face - face.mean(), mirrored - mirrored.mean()
    turn = np.vdot(mirrored, face) / max(np.vdot(mirrored, mirrored).real, 1e-12)
    return float(np.abs(face - turn * mirrored).mean())
