"""What happens in a simulated clip: planted events with their truth, and the curves that carry them out."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tools.simulate.rig import Pose, Rig

Floats = NDArray[np.float32]

AU_SHAPES: dict[str, tuple[str, ...]] = {
    "AU1": ("browInnerUp",),
    "AU2": ("browOuterUp",),
    "AU4": ("browDown",),
    "AU5": ("eyeWide",),
    "AU6": ("cheekSquint", "cheekRaiser"),
    "AU7": ("eyeSquint",),
    "AU9": ("noseSneer",),
    "AU10": ("mouthUpperUp",),
    "AU12": ("mouthSmile",),
    "AU14": ("mouthDimple",),
    "AU15": ("mouthFrown",),
    "AU16": ("mouthLowerDown",),
    "AU17": ("mouthShrugLower",),
    "AU20": ("mouthStretch",),
    "AU23": ("mouthRollLower", "mouthRollUpper"),
    "AU24": ("mouthPress",),
    "AU26": ("jawOpen",),
}
"""Shapes of the ICT model for each action unit (the model's own table; without _L/_R both sides are meant)."""

EMOTION_AUS: dict[str, tuple[tuple[str, ...], ...]] = {
    "happiness": (("AU12",), ("AU6", "AU12"), ("AU6", "AU12"), ("AU12", "AU26"), ("AU6", "AU7", "AU12")),
    "sadness": (
        ("AU1",),
        ("AU1", "AU4"),
        ("AU1", "AU15"),
        ("AU1", "AU4", "AU15"),
        ("AU15", "AU17"),
        ("AU15",),
    ),
    "anger": (
        ("AU4",),
        ("AU4", "AU7"),
        ("AU4", "AU5"),
        ("AU4", "AU5", "AU7"),
        ("AU4", "AU7", "AU23"),
        ("AU4", "AU24"),
        ("AU23",),
    ),
    "fear": (
        ("AU1", "AU2", "AU4"),
        ("AU1", "AU2", "AU4", "AU5"),
        ("AU20",),
        ("AU5", "AU20"),
        ("AU1", "AU4", "AU5", "AU20"),
        ("AU1", "AU2", "AU4", "AU20", "AU26"),
    ),
    "disgust": (
        ("AU9",),
        ("AU10",),
        ("AU9", "AU10"),
        ("AU9", "AU17"),
        ("AU10", "AU17"),
        ("AU4", "AU9"),
        ("AU9", "AU15", "AU16"),
    ),
    "surprise": (
        ("AU1", "AU2"),
        ("AU1", "AU2", "AU5"),
        ("AU1", "AU2", "AU26"),
        ("AU1", "AU2", "AU5", "AU26"),
        ("AU2", "AU5"),
    ),
    "contempt": (("AU14",), ("AU12", "AU14"), ("AU14",), ("AU12",)),
}
"""Sets of action units that stand for each emotion: EMFACS prototypes (Ekman and Friesen 1983; Friesen and
Ekman 1984) and the parts of them in which micro-expressions are usually seen. Contempt is one-sided."""

_OTHER_SHARE = 0.08
"""Share of micro-expressions whose action units are drawn at random and stand for no emotion."""
_CENTRAL = {"AU17", "AU26", "AU23"}


@dataclass(frozen=True, slots=True)
class Planted:
    """One thing that happens, with its truth."""

    kind: str
    """micro, macro, blink, speech (swallowing too), gaze, head or light."""
    onset_s: float
    apex_s: float
    offset_s: float
    emotion: str = ""
    action_units: tuple[tuple[str, str], ...] = ()
    """(AU, right | left | both)."""
    peak_iod: float = 0.0


@dataclass(slots=True)
class Script:
    """The curves of one clip, at the frames' times."""

    times_s: Floats
    weights: Floats
    """(frames, 55)"""
    poses: list[Pose]
    gaze_iod: Floats
    """(frames, 2)"""
    light: Floats
    """(frames,) factor on the luma."""
    planted: list[Planted] = field(default_factory=list)


def profile(times_s: Floats, onset_s: float, apex_s: float, offset_s: float, hold: float = 0.0) -> Floats:
    """Give 0..1: a raised cosine up to the apex and one down to the offset.

    Args:
        hold: share of the time that is spent at the apex, taken half from each flank.
    """
    rise_end = apex_s - hold * (apex_s - onset_s)
    fall_start = apex_s + hold * (offset_s - apex_s)
    up = np.clip((times_s - onset_s) / max(rise_end - onset_s, 1e-3), 0, 1)
    down = np.clip((offset_s - times_s) / max(offset_s - fall_start, 1e-3), 0, 1)
    return np.asarray((0.5 - 0.5 * np.cos(np.pi * up)) * (0.5 - 0.5 * np.cos(np.pi * down)), np.float32)


def drift(rng: np.random.Generator, times_s: Floats, period_s: float) -> Floats:
    """Give a smooth random curve of unit size that turns about once per `period_s`."""
    knots = int(times_s[-1] / period_s) + 4
    heights = rng.standard_normal(knots)
    position = times_s / period_s + rng.random()
    whole = position.astype(int)
    part = position - whole
    smooth = part * part * (3 - 2 * part)
    return np.asarray(
        heights[whole] * (1 - smooth) + heights[np.minimum(whole + 1, knots - 1)] * smooth, np.float32
    )


@dataclass(frozen=True, slots=True)
class Mix:
    """How often things happen, and how strongly."""

    micro: float = 0.45
    """Share of micro-expressions among what is planted."""
    confusers: tuple[tuple[str, float], ...] = (
        ("blink", 0.26),
        ("macro", 0.26),
        ("speech", 0.16),
        ("swallow", 0.06),
        ("gaze", 0.09),
        ("head", 0.11),
        ("light", 0.06),
    )
    peak_iod: tuple[float, float] = (0.004, 0.028)
    long_share: float = 0.2
    """Share of micro-expressions of 200-500 ms."""
    gap_s: tuple[float, float] = (0.15, 1.6)
    head: float = 1.0
    """Scale of the ever-present head motion."""


class Writer:
    """Writes scripts for one rig.

    Args:
        rng: the only source of chance.
    """

    def __init__(self, rig: Rig, rng: np.random.Generator, mix: Mix) -> None:
        self._rig, self._rng, self._mix = rig, rng, mix
        self._index = {name: index for index, name in enumerate(rig.shapes)}

    def write(self, duration_s: float, rate_hz: float) -> Script:
        """Plan one clip: what happens when, and the curves at `rate_hz`."""
        rng, mix = self._rng, self._mix
        times = np.arange(int(duration_s * rate_hz), dtype=np.float32) / np.float32(rate_hz)
        script = Script(
            times,
            np.zeros((len(times), len(self._rig.shapes)), np.float32),
            [],
            np.zeros((len(times), 2), np.float32),
            np.ones(len(times), np.float32),
        )
        pose = self._posture(times)
        at = rng.uniform(0.35, 0.8)
        names, shares = zip(*mix.confusers, strict=True)
        while at < duration_s - 0.5:
            kind = (
                "micro"
                if rng.random() < mix.micro
                else str(rng.choice(names, p=np.array(shares) / sum(shares)))
            )
            end = getattr(self, f"_{kind}")(script, pose, at, duration_s)
            at = end + rng.uniform(*mix.gap_s) if rng.random() > 0.08 else end - rng.uniform(0, 0.1)
        if rng.random() < 0.5:  # a blink may fall on anything
            self._blink(script, pose, rng.uniform(0.3, duration_s - 0.5), duration_s)
        np.clip(script.weights, 0, 1.3, out=script.weights)
        script.poses = [
            Pose(*row[:3], (float(row[3]), float(row[4])), float(np.exp(row[5]))) for row in pose.T.tolist()
        ]
        script.planted.sort(key=lambda planted: planted.onset_s)
        return script

    def _posture(self, times: Floats) -> NDArray[np.float64]:
        """(6, frames): yaw, pitch, roll (rad), shift x, y (IOD), log scale, never quite still."""
        rng = self._rng
        size = self._mix.head * rng.choice([0.1, 0.5, 1.0, 2.0], p=[0.25, 0.3, 0.3, 0.15])
        pose = np.zeros((6, len(times)))
        for row, amount in enumerate((0.035, 0.03, 0.02, 0.04, 0.03, 0.012)):
            slow = drift(rng, times, rng.uniform(0.8, 3.0)) + 0.35 * drift(rng, times, rng.uniform(0.25, 0.8))
            tremor = (
                0.012 * np.sin(2 * np.pi * rng.uniform(5, 12) * times + rng.uniform(0, 6.28)) * rng.random()
            )
            pose[row] = size * amount * (slow - slow[0] + tremor)
        start = np.array([rng.normal(0, 0.09), rng.normal(0, 0.06), rng.normal(0, 0.04)])
        pose[:3] += start[:, None]
        return pose

    def _shape(self, weights: Floats, name: str, side: str, amount: float) -> None:
        sides = {"right": ("_R",), "left": ("_L",), "both": ("_R", "_L")}[side]
        for full in [name] if name in self._index else [name + mark for mark in sides]:
            weights[self._index[full]] += amount

    def _expression(self, emotion: str) -> tuple[Floats, tuple[tuple[str, str], ...]]:
        """Give shape weights of about unit size and their action units."""
        rng = self._rng
        if emotion == "other":
            chosen = tuple(str(au) for au in rng.choice(list(AU_SHAPES), rng.integers(1, 4), replace=False))
        else:
            chosen = EMOTION_AUS[emotion][rng.integers(len(EMOTION_AUS[emotion]))]
        one_sided = emotion == "contempt" or rng.random() < 0.12
        strong = str(rng.choice(["right", "left"]))
        weak = 0.0 if emotion == "contempt" or rng.random() < 0.5 else rng.uniform(0.2, 0.5)
        weights, units = np.zeros(len(self._rig.shapes), np.float32), []
        for au in chosen:
            amount = rng.uniform(0.5, 1.0) * (0.35 if au == "AU26" else 1.0)
            central = au in _CENTRAL
            uneven = rng.uniform(0.75, 1.0)
            for shape in AU_SHAPES[au]:
                share = amount * (rng.uniform(0.4, 1.0) if len(AU_SHAPES[au]) > 1 else 1.0)
                other = "left" if strong == "right" else "right"
                if central:
                    self._shape(weights, shape, "both", share)
                else:
                    self._shape(weights, shape, strong, share)
                    self._shape(weights, shape, other, share * (weak if one_sided else uneven))
            units.append((au, "both" if central or not one_sided else strong))
        return weights, tuple(units)

    def _scaled(self, weights: Floats, peak_iod: float) -> Floats:
        return np.asarray(weights * (peak_iod / max(self._rig.size_of(weights), 1e-6)), np.float32)

    def _micro(self, script: Script, pose: NDArray[np.float64], at: float, end: float) -> float:
        rng, mix = self._rng, self._mix
        emotion = "other" if rng.random() < _OTHER_SHARE else str(rng.choice(list(EMOTION_AUS)))
        duration = rng.uniform(0.2, 0.5) if rng.random() < mix.long_share else rng.uniform(0.04, 0.2)
        apex = at + duration * rng.uniform(0.3, 0.6)
        peak = float(np.exp(rng.uniform(np.log(mix.peak_iod[0]), np.log(mix.peak_iod[1]))))
        weights, units = self._expression(emotion)
        curve = profile(script.times_s, at, apex, at + duration, rng.choice([0.0, 0.2, 0.4]))
        script.weights += curve[:, None] * self._scaled(weights, peak)
        script.planted.append(Planted("micro", at, apex, at + duration, emotion, units, peak))
        return at + duration

    def _macro(self, script: Script, pose: NDArray[np.float64], at: float, end: float) -> float:
        """An ordinary expression: longer than half a second, or large; onset may be as fast as a micro one's."""
        rng = self._rng
        emotion = str(rng.choice(list(EMOTION_AUS)))
        duration = rng.uniform(0.65, 2.5) if rng.random() < 0.8 else rng.uniform(0.25, 0.65)
        peak = rng.uniform(0.015, 0.10) if duration > 0.65 else rng.uniform(0.05, 0.10)
        rise = min(rng.uniform(0.08, 0.6), 0.5 * duration)
        fall = min(rng.uniform(0.15, 0.8), 0.5 * duration)
        weights, units = self._expression(emotion)
        up = profile(script.times_s, at, at + rise, at + 2 * rise)
        down = profile(script.times_s, at + duration - 2 * fall, at + duration - fall, at + duration)
        held = (script.times_s > at + rise) & (script.times_s < at + duration - fall)
        curve = np.where(script.times_s <= at + rise, up, np.where(held, 1.0, down)).astype(np.float32)
        curve *= 1 + 0.05 * drift(rng, script.times_s, 0.5)
        script.weights += curve[:, None] * self._scaled(weights, peak)
        script.planted.append(Planted("macro", at, at + rise, at + duration, emotion, units, peak))
        return at + duration

    def _blink(self, script: Script, pose: NDArray[np.float64], at: float, end: float) -> float:
        rng = self._rng
        duration = rng.uniform(0.12, 0.4)
        full = min(1.25, 1.1 * self._rig.eye_open_iod / 0.1)
        depth = full * (1.0 if rng.random() < 0.7 else rng.uniform(0.15, 0.7))
        apex = at + duration * rng.uniform(0.3, 0.45)
        curve = profile(script.times_s, at, apex, at + duration, rng.uniform(0, 0.3)) * depth
        eyes = ("both",) if rng.random() < 0.93 else (str(rng.choice(["right", "left"])),)
        weights = np.zeros(len(self._rig.shapes), np.float32)
        for side in eyes:
            self._shape(weights, "eyeBlink", side, 1.0)
            self._shape(weights, "browDown", side, rng.uniform(0, 0.06))
            self._shape(weights, "cheekSquint", side, rng.uniform(0, 0.12))
        script.weights += curve[:, None] * weights
        script.planted.append(Planted("blink", at, apex, at + duration))
        if rng.random() < 0.1 and at + 2 * duration < end:
            return self._blink(script, pose, at + duration + 0.05, end)
        return at + duration

    def _speech(self, script: Script, pose: NDArray[np.float64], at: float, end: float) -> float:
        rng = self._rng
        duration = min(rng.uniform(0.4, 2.2), max(end - at, 0.3))
        moment, size = at, rng.uniform(0.25, 1.2)
        visemes = (
            "jawOpen",
            "mouthFunnel",
            "mouthPucker",
            "mouthStretch",
            "mouthSmile",
            "mouthLowerDown",
            "mouthUpperUp",
            "mouthPress",
            "mouthRollLower",
            "mouthShrugUpper",
            "mouthClose",
        )
        while moment < at + duration:
            length = rng.uniform(0.08, 0.32)
            weights = np.zeros(len(self._rig.shapes), np.float32)
            self._shape(weights, "jawOpen", "both", rng.uniform(0.0, 0.22))
            for name in rng.choice(visemes, rng.integers(1, 4), replace=False):
                limit = {"jawOpen": 0.2, "mouthClose": 0.05}.get(str(name), 0.4)
                self._shape(weights, str(name), "both", rng.uniform(0.05, limit))
            curve = profile(script.times_s, moment, moment + length * rng.uniform(0.4, 0.6), moment + length)
            script.weights += curve[:, None] * weights * size
            moment += length * rng.uniform(0.55, 0.95)
        window = profile(script.times_s, at, at + duration / 2, at + duration, 0.8)
        pose[1] += 0.02 * size * drift(rng, script.times_s, 0.25) * window
        script.planted.append(Planted("speech", at, at + duration / 2, moment + 0.05))
        return moment + 0.05

    def _swallow(self, script: Script, pose: NDArray[np.float64], at: float, end: float) -> float:
        rng = self._rng
        duration = rng.uniform(0.5, 1.0)
        curve = profile(script.times_s, at, at + 0.45 * duration, at + duration, 0.3)
        weights = np.zeros(len(self._rig.shapes), np.float32)
        for name, most in (
            ("mouthPress", 0.4),
            ("mouthShrugLower", 0.25),
            ("mouthRollLower", 0.2),
            ("mouthDimple", 0.2),
        ):
            self._shape(weights, name, "both", rng.uniform(0, most))
        script.weights += curve[:, None] * weights
        pose[1] += rng.uniform(-0.03, 0.03) * curve
        script.planted.append(Planted("speech", at, at + 0.45 * duration, at + duration))
        return at + duration

    def _gaze(self, script: Script, pose: NDArray[np.float64], at: float, end: float) -> float:
        rng = self._rng
        move, stay = rng.uniform(0.03, 0.09), rng.uniform(0.1, 1.2)
        curve = np.clip((script.times_s - at) / move, 0, 1) - np.clip(
            (script.times_s - at - move - stay) / move, 0, 1
        )
        horizontal, vertical = rng.uniform(-0.05, 0.05), rng.uniform(-0.03, 0.04)
        script.gaze_iod += curve[:, None] * np.array([horizontal, vertical], np.float32)
        weights = np.zeros(len(self._rig.shapes), np.float32)
        self._shape(
            weights,
            "eyeLookDown" if vertical > 0 else "eyeLookUp",
            "both",
            abs(vertical) / 0.04 * rng.uniform(0.2, 0.6),
        )
        for side, name in (
            ("right", "Out" if horizontal < 0 else "In"),
            ("left", "In" if horizontal < 0 else "Out"),
        ):
            self._shape(weights, f"eyeLook{name}", side, abs(horizontal) / 0.05 * 0.6)
        script.weights += curve[:, None] * weights
        script.planted.append(Planted("gaze", at, at + move, at + 2 * move + stay))
        return at + 2 * move + stay

    def _head_move(self, times: Floats, at: float, duration: float) -> Floats:
        ease = np.clip((times - at) / duration, 0, 1)
        return np.asarray(ease * ease * (3 - 2 * ease), np.float32)

    def _head_event(self, script: Script, at: float) -> tuple[float, Floats]:
        rng = self._rng
        if rng.random() < 0.5:  # a turn, and later back
            move, stay = rng.uniform(0.12, 0.7), rng.uniform(0.0, 0.6)
            there = self._head_move(script.times_s, at, move)
            back = self._head_move(script.times_s, at + move + stay, move * rng.uniform(0.8, 1.5))
            return 2.2 * move + stay, there - back
        cycles, cycle = rng.integers(1, 4), rng.uniform(0.15, 0.6)  # nods, shakes, a chair that rocks
        phase = np.clip((script.times_s - at) / cycle, 0, cycles)
        return float(cycles * cycle), np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * phase), np.float32)

    def _light(self, script: Script, pose: NDArray[np.float64], at: float, end: float) -> float:
        rng = self._rng
        if rng.random() < 0.5:
            step = rng.uniform(0.02, 0.15)
            script.light *= 1 + rng.uniform(-0.35, 0.35) * self._head_move(script.times_s, at, step)
        else:
            step = rng.uniform(0.1, 0.4)
            script.light *= 1 + rng.uniform(-0.3, 0.3) * profile(script.times_s, at, at + step / 2, at + step)
        script.planted.append(Planted("light", at, at + step / 2, at + step))
        return at + step

    def _head(self, script: Script, pose: NDArray[np.float64], at: float, end: float) -> float:
        """A turn, a nod, a shake or a shift of the head."""
        rng = self._rng
        duration, curve = self._head_event(script, at)
        row = int(rng.integers(6))
        amount = (0.25, 0.16, 0.14, 0.25, 0.2, 0.08)[row] * rng.uniform(0.15, 1.0) * rng.choice([-1, 1])
        pose[row] += amount * curve
        pose[int(rng.integers(6))] += 0.25 * amount * curve
        script.planted.append(Planted("head", at, at + duration / 2, at + duration))
        return at + duration
