"""Turn simulated clips into windows with labels."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.event import shortest_event_ms
from edge.evidence import CONFUSERS, KINDS, STEP_NS, UNITS, WINDOW, Departure
from edge.regions import CHANNELS

Floats = NDArray[np.float32]

_STEP_S = STEP_NS * 1e-9
_SPREAD_S = 0.009
"""Width of the bumps that stand for onset, apex and offset."""
_CONFUSER = {"blink": 0, "speech": 1, "head": 2, "macro": 3, "light": 4}


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip on the net's grid. T steps of 5 ms."""

    subject: str
    motion: Floats
    """(T, channels of edge.evidence.INPUTS)"""
    phase: Floats
    """(T, 4) in the order of edge.evidence.PHASES."""
    emotion: NDArray[np.int8]
    """(T,) number in KINDS, -1 where none applies."""
    units: Floats
    """(T, 31)"""
    confusers: Floats
    """(T, 5)"""
    peak: Floats
    """(T,) peak_iod of the micro-expression there, 0 elsewhere."""


def read(path: Path) -> Clip:
    """Read a clip that tools.simulate.signals wrote."""
    with np.load(path) as stored:
        times, values = stored["times_s"], stored["values"].astype(np.float32)
        planted, subject = json.loads(str(stored["truth"])), str(stored["subject"])
        rate_hz = float(stored["rate_hz"])
    grid = np.arange(times[0], times[-1], _STEP_S)
    right = np.clip(np.searchsorted(times, grid), 1, len(times) - 1)
    share = ((grid - times[right - 1]) / (times[right] - times[right - 1])).astype(np.float32)[:, None]
    motion = values[right - 1] + share * (values[right] - values[right - 1])
    departure = Departure()
    motion = np.concatenate([motion, [departure.add(step) for step in motion]], axis=1).astype(np.float32)
    clip = Clip(
        subject,
        motion,
        np.zeros((len(grid), 4), np.float32),
        np.full(len(grid), -1, np.int8),
        np.zeros((len(grid), len(UNITS)), np.float32),
        np.zeros((len(grid), len(CONFUSERS)), np.float32),
        np.zeros(len(grid), np.float32),
    )
    for event in planted:
        inside = (grid >= event["onset_s"]) & (grid <= event["offset_s"])
        if event["kind"] in _CONFUSER:
            clip.confusers[inside, _CONFUSER[event["kind"]]] = 1
        if event["kind"] in ("micro", "macro"):
            for au, side in event["action_units"]:
                for number, unit in enumerate(UNITS):
                    if unit[0] == au and (side == "both" or unit[1] in (side, "both")):
                        clip.units[inside, number] = 1
        length_ms = 1000 * (event["offset_s"] - event["onset_s"])
        if event["kind"] == "micro" and length_ms >= shortest_event_ms(rate_hz):
            for column, name in enumerate(("onset_s", "apex_s", "offset_s")):
                bump = np.exp(-0.5 * ((grid - event[name]) / _SPREAD_S) ** 2)
                clip.phase[:, column] = np.maximum(clip.phase[:, column], bump)
            clip.phase[inside, 3] = 1
            clip.emotion[inside] = KINDS.index(event["emotion"])
            clip.peak[inside] = event["peak_iod"]
        elif event["kind"] in ("blink", "speech", "gaze", "head", "light"):
            clip.emotion[inside & (clip.emotion < 0)] = KINDS.index("other")
    return clip


def _mirrored(names: list[str]) -> list[int]:
    swap = {name: name.replace("right", "#").replace("left", "right").replace("#", "left") for name in names}
    return [names.index(swap[name]) for name in names]


MIRROR = _mirrored(list(CHANNELS))
SIGN = np.array(
    [-1.0 if name.endswith((".x", "head.shift_x", "head.roll", "head.yaw")) else 1.0 for name in CHANNELS],
    np.float32,
)
MIRROR_UNITS = [UNITS.index((au, {"right": "left", "left": "right"}.get(side, side))) for au, side in UNITS]


class Windows:
    """Draws training windows from clips.

    Args:
        seed: the only source of chance; window `n` of epoch `e` is always the same.
    """

    def __init__(self, clips: list[Clip], *, seed: int) -> None:
        self._clips = [clip for clip in clips if len(clip.motion) > WINDOW]
        self._seed = seed

    def draw(self, count: int, epoch: int, *, augment: bool = True) -> dict[str, NDArray[np.float32]]:
        """Give `count` windows: motion (count, WINDOW, C) and the labels of Clip, stacked."""
        rng = np.random.default_rng([self._seed, epoch])
        picked: dict[str, list[NDArray[np.float32]]] = {
            name: [] for name in ("motion", "phase", "emotion", "units", "confusers", "peak")
        }
        lengths = np.array([len(clip.motion) for clip in self._clips], np.float64)
        for number in rng.choice(len(self._clips), count, p=lengths / lengths.sum()):
            clip = self._clips[number]
            start = int(rng.integers(0, len(clip.motion) - WINDOW))
            cut = slice(start, start + WINDOW)
            window = {name: np.asarray(getattr(clip, name)[cut], np.float32) for name in picked}
            if augment:
                window = _augment(window, rng)
            for name, values in window.items():
                picked[name].append(values)
        return {name: np.stack(values) for name, values in picked.items()}


def _augment(window: dict[str, Floats], rng: np.random.Generator) -> dict[str, Floats]:
    """Mirror, add noise, weaken or strengthen the whole motion a little, start the face's history in the window."""
    window = dict(window)
    motion = window["motion"].copy()
    if rng.random() < 0.5:
        motion[:, : len(CHANNELS)] = motion[:, MIRROR] * SIGN
        window["units"] = window["units"][:, MIRROR_UNITS]
    regions = sum(name.endswith((".x", ".y")) for name in CHANNELS)
    # Faces do not move alike, nor do simulators: each region's share of a movement varies.
    gains = np.repeat(np.exp(rng.normal(rng.normal(0, 0.12), 0.2, regions // 2)), 2)
    motion[:, :regions] *= gains.astype(np.float32)
    motion[:, len(CHANNELS) :] *= np.float32(gains.mean())
    sigma = rng.choice([0.0, 0.0002, 0.0005]) * np.exp(rng.normal(0, 0.5, regions))
    motion[:, :regions] += (rng.standard_normal((len(motion), regions)) * sigma).astype(np.float32)
    if rng.random() < 0.08:  # the device fills the past of a new face with its first frame
        first = int(rng.integers(1, WINDOW // 2))
        motion[:first] = motion[first]
        for name in ("phase", "units", "confusers", "peak"):
            window[name] = window[name].copy()
            window[name][:first] = 0
        window["emotion"] = np.where(np.arange(WINDOW) < first, -1, window["emotion"]).astype(np.float32)
    window["motion"] = motion
    return window
