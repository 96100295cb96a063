"""Expressions that a face may show: action units of the emotion table on the model's shapes."""

from collections.abc import Sequence

import numpy as np

from edge.emotions import table
from edge.records import EMOTIONS
from tools.simulate.timeline import Floats, Planted, Scene, add_shape

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

_CENTRAL = {"AU17", "AU26", "AU23"}
_CONTEMPT = {"AU12", "AU14"}
"""On one side of the face alone these are contempt by definition (EMFACS), whatever else is drawn."""
_OTHER_SHARE = 0.08
"""Share of micro-expressions whose action units are drawn at random and stand for no emotion."""


def micro(scene: Scene, at_s: float, *, long_share: float, peaks_iod: tuple[float, float]) -> float:
    """Plant a micro-expression of 40-200 ms, or of 200-500 ms in `long_share` of the cases; give its end."""
    rng = scene.rng
    emotion = "other" if rng.random() < _OTHER_SHARE else str(rng.choice(EMOTIONS))
    duration = rng.uniform(0.2, 0.5) if rng.random() < long_share else rng.uniform(0.04, 0.2)
    apex = at_s + duration * rng.uniform(0.3, 0.6)
    peak = float(np.exp(rng.uniform(*np.log(peaks_iod))))
    weights, units = expression(scene, emotion)
    curve = scene.pulse(at_s, apex, at_s + duration, rng.choice([0.0, 0.2, 0.4]))
    scene.play(curve, scaled(scene, weights, peak))
    scene.script.planted.append(Planted("micro", at_s, apex, at_s + duration, emotion, units, peak))
    return at_s + duration


def macro(scene: Scene, at_s: float) -> float:
    """Plant an ordinary expression: longer than half a second, or large; some rise as fast as a micro one, and stay."""
    rng = scene.rng
    emotion = str(rng.choice(EMOTIONS))
    if rng.random() < 0.8:
        duration, peak = rng.uniform(0.65, 2.5), rng.uniform(0.015, 0.10)
    else:
        duration, peak = rng.uniform(0.25, 0.65), rng.uniform(0.05, 0.10)
    rise = rng.uniform(0.04, 0.12) if rng.random() < 0.35 else rng.uniform(0.08, 0.6)
    fall = rng.uniform(0.06, 0.15) if rng.random() < 0.15 else rng.uniform(0.15, 0.8)
    rise, fall = min(rise, 0.5 * duration), min(fall, 0.5 * duration)
    weights, units = expression(scene, emotion)
    _held(scene, at_s, rise, duration, fall, scaled(scene, weights, peak))
    scene.script.planted.append(Planted("macro", at_s, at_s + rise, at_s + duration, emotion, units, peak))
    return at_s + duration


def brow_flash(scene: Scene, at_s: float) -> float:
    """Plant a greeting of the brows: both up, 3-10 % IOD, for 250-700 ms."""
    rng = scene.rng
    duration, peak = rng.uniform(0.25, 0.7), rng.uniform(0.03, 0.10)
    names = ("AU1", "AU2", "AU5") if rng.random() < 0.35 else ("AU1", "AU2")
    weights, units = _drawn(scene, names, "right", rng.uniform(0.8, 1.0))
    rise = duration * rng.uniform(0.2, 0.4)
    _held(scene, at_s, rise, duration, duration * rng.uniform(0.3, 0.5), scaled(scene, weights, peak))
    scene.script.planted.append(Planted("brow flash", at_s, at_s + rise, at_s + duration, "", units, peak))
    return at_s + duration


def _held(scene: Scene, at_s: float, rise: float, duration: float, fall: float, weights: Floats) -> None:
    """Rise, stay, a little unsteadily, and fall."""
    times = scene.script.times_s
    up = scene.pulse(at_s, at_s + rise, at_s + 2 * rise)
    end = at_s + duration
    down = scene.pulse(end - 2 * fall, end - fall, end)
    curve = np.where(times <= at_s + rise, up, np.where(times < end - fall, 1.0, down)).astype(np.float32)
    scene.play(curve * (1 + 0.05 * scene.drift(0.5)), weights)


def expression(scene: Scene, emotion: str) -> tuple[Floats, tuple[tuple[str, str], ...]]:
    """Draw one of the ways in which an emotion shows.

    Contempt stays on one side (at most 15 % on the other). Anything else may be uneven; a smile or a dimple
    that is not contempt keeps at least 45 % on its weak side.

    Returns:
        Shape weights (55,) of about unit size, and their action units with sides.
    """
    rng = scene.rng
    emotions = table()
    chosen: Sequence[str]
    if emotion == "other":
        known = {frozenset(units) for sets in emotions.prototypes.values() for units in sets}
        chosen = _unknown(rng, known)
    else:
        sets = emotions.prototypes[emotion]
        chosen = sets[rng.integers(len(sets))]
    strong = str(rng.choice(["right", "left"]))
    if emotion in emotions.one_sided:
        weak = rng.uniform(0.0, 0.15)
    elif rng.random() < 0.15:
        weak = rng.uniform(0.45 if _CONTEMPT & set(chosen) else 0.0, 0.75)
    else:
        weak = rng.uniform(0.75, 1.0)
    return _drawn(scene, chosen, strong, weak)


def _unknown(rng: np.random.Generator, known: set[frozenset[str]]) -> tuple[str, ...]:
    """Draw action units that are no emotion's."""
    while True:
        chosen = tuple(str(au) for au in rng.choice(list(AU_SHAPES), rng.integers(1, 4), replace=False))
        if frozenset(chosen) not in known:
            return chosen


def _drawn(
    scene: Scene, chosen: Sequence[str], strong: str, weak: float
) -> tuple[Floats, tuple[tuple[str, str], ...]]:
    """Give weights and sides of action units that are `weak` times as large on the side that is not `strong`."""
    rng = scene.rng
    other = "left" if strong == "right" else "right"
    weights, units = np.zeros(len(scene.index), np.float32), []
    for au in chosen:
        amount = rng.uniform(0.5, 1.0) * (0.35 if au == "AU26" else 1.0)
        central = au in _CENTRAL
        uneven = min(1.0, weak * rng.uniform(0.9, 1.1)) if weak > 0.5 else weak
        for shape in AU_SHAPES[au]:
            share = amount * (rng.uniform(0.4, 1.0) if len(AU_SHAPES[au]) > 1 else 1.0)
            if central:
                add_shape(weights, scene.index, shape, "both", share)
            else:
                add_shape(weights, scene.index, shape, strong, share)
                add_shape(weights, scene.index, shape, other, share * uneven)
        units.append((au, "both" if central or weak >= 0.4 else strong))
    return weights, tuple(units)


def scaled(scene: Scene, weights: Floats, peak_iod: float) -> Floats:
    """Scale weights so that the greatest displacement of visible skin is `peak_iod`."""
    return np.asarray(weights * (peak_iod / max(scene.rig.size_of(weights), 1e-6)), np.float32)
