"""Turn simulated clips into windows with labels."""

import json
from collections.abc import Sequence
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
_CONFUSER = {
    "blink": "blink",
    "speech": "speech",
    "swallow": "speech",
    "chewing": "speech",
    "fidget": "speech",
    "head": "head turn",
    "vibration": "head turn",
    "macro": "macro-expression",
    "brow flash": "macro-expression",
    "light": "light change",
}
"""Output of the net that each planted kind teaches."""
_EXPRESSIONS = ("micro", "macro", "brow flash")
"""Kinds whose action units are labelled; what else moves the face teaches the emotion head `other`."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip as it was measured. N frames."""

    subject: str
    rate_hz: float
    times_s: NDArray[np.float64]
    """(N,)"""
    motion: NDArray[np.float16]
    """(N, channels of edge.evidence.INPUTS)"""
    planted: tuple[dict[str, object], ...]


def read(path: Path) -> Clip:
    """Read a clip that tools.simulate.signals or tools.simulate.tabulated wrote."""
    with np.load(path) as stored:
        times, values = stored["times_s"].astype(np.float64), stored["values"].astype(np.float32)
        planted, subject = json.loads(str(stored["truth"])), str(stored["subject"])
        rate_hz = float(stored["rate_hz"])
    grid = np.arange(times[0], times[-1], _STEP_S)
    departure = Departure().add(_at(times, values, grid))
    motion = np.concatenate([values, _at(grid, departure, times)], axis=1).astype(np.float16)
    return Clip(subject, rate_hz, times, motion, tuple(planted))


def read_all(folders: Sequence[Path]) -> list[Clip]:
    """Read every clip of some folders, in the order of their names.

    Raises:
        FileNotFoundError: a folder holds none.
    """
    clips = []
    for folder in folders:
        paths = sorted(folder.glob("clip_?????.npz"))
        if not paths:
            raise FileNotFoundError(f"{folder}: holds no clip_*.npz of tools.simulate")
        clips += [read(path) for path in paths]
    return clips


def _at(times: NDArray[np.float64], values: NDArray[np.floating], wanted: NDArray[np.float64]) -> Floats:
    """Interpolate (N, C) at other times; before the first and after the last frame they stay as they are."""
    right = np.clip(np.searchsorted(times, wanted), 1, len(times) - 1)
    share = (wanted - times[right - 1]) / (times[right] - times[right - 1])
    share = np.clip(share, 0, 1).astype(np.float32)[:, None]
    before = values[right - 1].astype(np.float32)
    return np.asarray(before + share * (values[right].astype(np.float32) - before), np.float32)


def _labels(
    planted: Sequence[dict[str, object]], grid: NDArray[np.float64], shortest_s: float
) -> dict[str, Floats]:
    """Give what the net should say at each step of `grid` (s): the heads of edge.evidence, and the peak there."""
    labels = {
        "phase": np.zeros((len(grid), 4), np.float32),
        "emotion": np.full(len(grid), -1, np.float32),
        "units": np.zeros((len(grid), len(UNITS)), np.float32),
        "confusers": np.zeros((len(grid), len(CONFUSERS)), np.float32),
        "peak": np.zeros(len(grid), np.float32),
    }
    for event in planted:
        onset, apex, offset = (float(str(event[name])) for name in ("onset_s", "apex_s", "offset_s"))
        if offset < grid[0] - 0.05 or onset > grid[-1] + 0.05:
            continue
        kind = str(event["kind"])
        inside = (grid >= onset) & (grid <= offset)
        if kind in _CONFUSER:
            labels["confusers"][inside, CONFUSERS.index(_CONFUSER[kind])] = 1
        if kind in _EXPRESSIONS:
            for au, side in event["action_units"]:  # type: ignore[attr-defined]
                for number, unit in enumerate(UNITS):
                    if unit[0] == au and (side == "both" or unit[1] in (side, "both")):
                        labels["units"][inside, number] = 1
        if kind == "micro" and offset - onset >= shortest_s:
            for column, moment in enumerate((onset, apex, offset)):
                bump = np.exp(-0.5 * ((grid - moment) / _SPREAD_S) ** 2)
                labels["phase"][:, column] = np.maximum(labels["phase"][:, column], bump)
            labels["phase"][inside, 3] = 1
            labels["emotion"][inside] = KINDS.index(str(event["emotion"]))
            labels["peak"][inside] = float(str(event["peak_iod"]))
        elif kind not in _EXPRESSIONS:
            labels["emotion"][inside & (labels["emotion"] < 0)] = KINDS.index("other")
    return labels


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
        length_s = WINDOW * _STEP_S
        self._clips = [clip for clip in clips if clip.times_s[-1] - clip.times_s[0] > 1.3 * length_s]
        self._seed = seed

    def draw(self, count: int, epoch: int, *, augment: bool = True) -> dict[str, Floats]:
        """Give `count` windows: motion (count, WINDOW, C) and the labels, stacked."""
        rng = np.random.default_rng([self._seed, epoch])
        lengths = np.array([clip.times_s[-1] - clip.times_s[0] for clip in self._clips])
        windows = [
            _window(self._clips[number], rng, augment)
            for number in rng.choice(len(self._clips), count, p=lengths / lengths.sum())
        ]
        return {name: np.stack([window[name] for window in windows]) for name in windows[0]}


def _window(clip: Clip, rng: np.random.Generator, augment: bool) -> dict[str, Floats]:
    """Cut one window, as another camera might have seen it: slower, with frames missing, time stretched."""
    stretch = float(np.exp(rng.uniform(-0.18, 0.18))) if augment and rng.random() < 0.4 else 1.0
    span_s = WINDOW * _STEP_S * stretch
    start_s = rng.uniform(clip.times_s[0], clip.times_s[-1] - span_s)
    first, last = np.searchsorted(clip.times_s, (start_s - 0.05, start_s + span_s + 0.05))
    frames, rate_hz = np.arange(max(first, 0), last), clip.rate_hz
    if augment and rate_hz >= 100 and rng.random() < 0.3:
        slower_hz = rng.uniform(60, rate_hz)
        ticks = np.floor((clip.times_s[frames] + rng.uniform(0, 0.1)) * slower_hz)
        frames, rate_hz = frames[np.flatnonzero(np.diff(ticks, prepend=-1.0))], slower_hz
    if augment and rng.random() < 0.15:
        kept = rng.random(len(frames)) > 0.03
        kept[[0, -1]] = True
        frames = frames[kept]
    grid = start_s + stretch * _STEP_S * np.arange(WINDOW)
    window = _labels(clip.planted, grid, stretch * shortest_event_ms(rate_hz) / 1000)
    window["motion"] = _at(clip.times_s[frames], clip.motion[frames], grid)
    return _altered(window, rng) if augment else window


def _altered(window: dict[str, Floats], rng: np.random.Generator) -> dict[str, Floats]:
    """Mirror, add noise, weaken or strengthen the motion by region, start the face's history in the window."""
    motion = window["motion"]
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
            window[name][:first] = 0
        window["emotion"][:first] = -1
    return window
