"""What a face, a room and a camera do that is no micro-expression. Each writer plants one event of its own kind."""

from collections.abc import Callable

import numpy as np

from tools.simulate.expressions import brow_flash, macro
from tools.simulate.timeline import Scene, ease

_VISEMES = (
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


def blink(scene: Scene, at_s: float) -> float:
    """Close the lids, wholly or in a third of the cases partly; one eye alone in 15 %; sometimes twice."""
    rng = scene.rng
    sides = "both" if rng.random() < 0.85 else str(rng.choice(["right", "left"]))
    for _ in range(2 if rng.random() < 0.1 else 1):
        duration = rng.uniform(0.12, 0.4)
        depth = scene.rig.eye_shut * (1.05 if rng.random() < 0.65 else rng.uniform(0.15, 0.7))
        apex = at_s + duration * rng.uniform(0.3, 0.45)
        weights = scene.shapes(
            {"eyeBlink": 1.0, "browDown": rng.uniform(0, 0.06), "cheekSquint": rng.uniform(0, 0.12)}, sides
        )
        scene.play(depth * scene.pulse(at_s, apex, at_s + duration, rng.uniform(0, 0.3)), weights)
        scene.plant("blink", at_s, apex, at_s + duration)
        at_s += duration + 0.05
    return at_s - 0.05


def speech(scene: Scene, at_s: float) -> float:
    """Say something: visemes of 80-320 ms that run into one another, the head nodding along a little."""
    rng = scene.rng
    until = at_s + min(rng.uniform(0.4, 2.2), max(scene.script.duration_s - at_s, 0.3))
    moment, size = at_s, rng.uniform(0.25, 1.2)
    while moment < until:
        length = rng.uniform(0.08, 0.32)
        amounts = {"jawOpen": rng.uniform(0.0, 0.22)}
        for name in rng.choice(_VISEMES, rng.integers(1, 4), replace=False):
            limit = {"jawOpen": 0.2, "mouthClose": 0.05}.get(str(name), 0.4)
            amounts[str(name)] = amounts.get(str(name), 0.0) + rng.uniform(0.05, limit)
        curve = scene.pulse(moment, moment + length * rng.uniform(0.4, 0.6), moment + length)
        scene.play(size * curve, scene.shapes(amounts))
        end = moment + length
        moment += length * rng.uniform(0.55, 0.95)
    window = scene.pulse(at_s, (at_s + end) / 2, end, 0.8)
    scene.script.poses[:, 1] += 0.02 * size * scene.drift(0.25) * window
    return scene.plant("speech", at_s, (at_s + end) / 2, end)


def chewing(scene: Scene, at_s: float) -> float:
    """Chew two to five times: the jaw opens and grinds sideways, lips pressed."""
    rng = scene.rng
    cycles, cycle = int(rng.integers(2, 6)), rng.uniform(0.45, 0.9)
    end = at_s + cycles * cycle
    phase = np.clip((scene.script.times_s - at_s) / cycle, 0, cycles)
    window = scene.pulse(at_s, (at_s + end) / 2, end, 0.9)
    opened = (0.5 - 0.5 * np.cos(2 * np.pi * phase)).astype(np.float32) * window
    scene.play(
        opened, scene.shapes({"jawOpen": rng.uniform(0.08, 0.25), "mouthClose": rng.uniform(0.02, 0.1)})
    )
    grind = (np.sin(2 * np.pi * phase).astype(np.float32) * rng.uniform(0.1, 0.5)) * window
    first = str(rng.choice(["jawLeft", "jawRight"]))
    second = "jawRight" if first == "jawLeft" else "jawLeft"
    scene.play(np.maximum(grind, 0), scene.shapes({first: 1.0}))
    scene.play(np.maximum(-grind, 0), scene.shapes({second: 0.7}))
    scene.play(window, scene.shapes({"mouthPress": rng.uniform(0.05, 0.3)}))
    return scene.plant("chewing", at_s, (at_s + end) / 2, end)


def swallow(scene: Scene, at_s: float) -> float:
    """Swallow: lips press, the lower lip and chin rise, the head dips a little, for half a second to one."""
    rng = scene.rng
    duration = rng.uniform(0.5, 1.0)
    apex, end = at_s + 0.45 * duration, at_s + duration
    curve = scene.pulse(at_s, apex, end, 0.3)
    limits = {"mouthPress": 0.4, "mouthShrugLower": 0.25, "mouthRollLower": 0.2, "mouthDimple": 0.2}
    amounts = {name: rng.uniform(0.15, 1.0) * most for name, most in limits.items()}
    amounts["jawForward"] = rng.uniform(0.0, 0.15)
    scene.play(curve, scene.shapes(amounts))
    scene.script.poses[:, 1] += rng.uniform(-0.03, 0.03) * curve
    return scene.plant("swallow", at_s, apex, end)


def fidget(scene: Scene, at_s: float) -> float:
    """Press or draw in the lips, push the tongue into a cheek, or pull the mouth aside, for 0.4 to 1.8 s."""
    rng = scene.rng
    duration = rng.uniform(0.4, 1.8)
    side = str(rng.choice(["right", "left"]))
    amounts, sides = (
        ({"mouthRollLower": rng.uniform(0.3, 0.9), "mouthRollUpper": rng.uniform(0.0, 0.9)}, "both"),
        ({"mouthPress": rng.uniform(0.4, 1.0), "mouthShrugLower": rng.uniform(0, 0.3)}, "both"),
        ({"cheekPuff": rng.uniform(0.3, 0.9), "mouthPress": rng.uniform(0.0, 0.3)}, side),
        ({f"mouth{side.capitalize()}": rng.uniform(0.2, 0.8), "mouthPucker": rng.uniform(0, 0.3)}, "both"),
    )[rng.integers(4)]
    apex, end = at_s + duration * rng.uniform(0.25, 0.6), at_s + duration
    curve = scene.pulse(at_s, apex, end, rng.uniform(0.2, 0.8)) * (1 + 0.15 * scene.drift(0.25))
    scene.play(curve.astype(np.float32), scene.shapes(amounts, sides))
    return scene.plant("fidget", at_s, apex, end)


def gaze(scene: Scene, at_s: float) -> float:
    """Look elsewhere and back, within 30-90 ms each way; the lids go along."""
    rng = scene.rng
    move, stay = rng.uniform(0.03, 0.09), rng.uniform(0.1, 1.2)
    times = scene.script.times_s
    there = np.clip((times - at_s) / move, 0, 1) - np.clip((times - at_s - move - stay) / move, 0, 1)
    curve = there.astype(np.float32)
    horizontal, vertical = rng.uniform(-0.05, 0.05), rng.uniform(-0.03, 0.04)
    scene.script.gaze_iod += curve[:, None] * np.array([horizontal, vertical], np.float32)
    lids = "eyeLookDown" if vertical > 0 else "eyeLookUp"
    scene.play(curve, scene.shapes({lids: abs(vertical) / 0.04 * rng.uniform(0.2, 0.6)}))
    for side, name in (
        ("right", "Out" if horizontal < 0 else "In"),
        ("left", "In" if horizontal < 0 else "Out"),
    ):
        scene.play(curve, scene.shapes({f"eyeLook{name}": abs(horizontal) / 0.05 * 0.6}, side))
    return scene.plant("gaze", at_s, at_s + move, at_s + 2 * move + stay)


def head(scene: Scene, at_s: float) -> float:
    """Turn, nod, shake, tilt or shift the head: there and back, or one to three times to and fro."""
    rng, times = scene.rng, scene.script.times_s
    if rng.random() < 0.5:
        move, stay = rng.uniform(0.12, 0.7), rng.uniform(0.0, 0.6)
        back = move * rng.uniform(0.8, 1.5)
        duration = move + stay + back
        curve = ease(times, at_s, move) - ease(times, at_s + move + stay, back)
    else:
        cycles, cycle = rng.integers(1, 4), rng.uniform(0.15, 0.6)
        duration = float(cycles * cycle)
        phase = np.clip((times - at_s) / cycle, 0, cycles)
        curve = (0.5 - 0.5 * np.cos(2 * np.pi * phase)).astype(np.float32)
    row = int(rng.integers(6))
    amount = (0.25, 0.16, 0.14, 0.25, 0.2, 0.08)[row] * rng.uniform(0.15, 1.0) * rng.choice([-1, 1])
    scene.script.poses[:, row] += amount * curve
    scene.script.poses[:, int(rng.integers(6))] += 0.25 * amount * curve
    return scene.plant("head", at_s, at_s + duration / 2, at_s + duration)


def vibration(scene: Scene, at_s: float) -> float:
    """Shake the camera at 3-40 Hz by 0.1-2 % IOD, or rock the person's chair at 0.5-3 Hz."""
    rng, times = scene.rng, scene.script.times_s
    if rng.random() < 0.6:
        duration, hertz = rng.uniform(0.25, 2.0), np.exp(rng.uniform(np.log(3), np.log(40)))
        size_iod = np.exp(rng.uniform(np.log(0.001), np.log(0.02)))
        angle = rng.uniform(0, 2 * np.pi)
        window = scene.pulse(at_s, at_s + duration * rng.uniform(0.1, 0.5), at_s + duration, 0.3)
        for column, share in enumerate((np.cos(angle), np.sin(angle), rng.uniform(0, 0.3))):
            own = hertz * rng.uniform(0.9, 1.1)
            wave = np.sin(2 * np.pi * own * (times - at_s) + rng.uniform(0, 6.28)).astype(np.float32)
            scene.script.camera[:, column] += np.float32(size_iod * share) * wave * window
    else:
        cycles, cycle = int(rng.integers(1, 5)), 1 / np.exp(rng.uniform(np.log(0.5), np.log(3.0)))
        duration = cycles * cycle
        phase = np.clip((times - at_s) / cycle, 0, cycles)
        wave = (np.sin(2 * np.pi * phase) * (0.5 - 0.5 * np.cos(2 * np.pi * phase / cycles))).astype(
            np.float32
        )
        for column, most in ((1, 0.03), (3, 0.04), (4, 0.06), (5, 0.025)):
            scene.script.poses[:, column] += np.float32(rng.uniform(-most, most)) * wave
    return scene.plant("vibration", at_s, at_s + duration / 2, at_s + duration)


def light(scene: Scene, at_s: float) -> float:
    """Change the light: a step, a passing shadow, or steps of the camera's own exposure control and gain."""
    rng, script = scene.rng, scene.script
    kind = rng.random()
    if kind < 0.3:
        duration = rng.uniform(0.02, 0.15)
        script.light *= 1 + rng.uniform(-0.35, 0.35) * ease(script.times_s, at_s, duration)
    elif kind < 0.6:
        duration = rng.uniform(0.1, 0.4)
        passing = scene.pulse(at_s, at_s + duration / 2, at_s + duration)
        script.light *= 1 + rng.uniform(-0.3, 0.3) * passing
    else:
        duration = _exposure_control(scene, at_s)
    return scene.plant("light", at_s, at_s + duration / 2, at_s + duration)


def _exposure_control(scene: Scene, at_s: float) -> float:
    """Change the gain in two to five steps, hunting about the goal or answering a change of the room's light."""
    rng, script = scene.rng, scene.script
    steps, every = int(rng.integers(2, 6)), rng.uniform(0.02, 0.13)
    change = rng.uniform(0.04, 0.3) * rng.choice([-1, 1])
    gain = np.zeros(len(script.times_s), np.float32)
    if rng.random() < 0.5:  # the room changes, and the gain makes up for it
        script.light *= np.exp(-change * ease(script.times_s, at_s, 0.03))
        marks = np.full(steps, change / steps)
    else:  # it overshoots, and swings into place
        marks = change * (-0.6) ** np.arange(steps)
    for number, mark in enumerate(marks):
        gain += np.float32(mark) * (script.times_s >= at_s + (number + 1) * every)
    script.light *= np.exp(gain)
    script.gain *= np.exp(gain)
    return float((steps + 1) * every)


CONFUSERS: dict[str, Callable[[Scene, float], float]] = {
    "macro": macro,
    "brow flash": brow_flash,
    "blink": blink,
    "speech": speech,
    "chewing": chewing,
    "swallow": swallow,
    "fidget": fidget,
    "gaze": gaze,
    "head": head,
    "vibration": vibration,
    "light": light,
}
"""The writer of each kind: it takes the scene and the onset, s, and gives the end, s."""
