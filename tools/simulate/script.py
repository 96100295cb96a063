"""What happens in a simulated clip, and when."""

from dataclasses import dataclass

import numpy as np

from tools.simulate.confusers import CONFUSERS, blink
from tools.simulate.expressions import micro
from tools.simulate.rig import Rig
from tools.simulate.timeline import Planted, Scene, Script, profile

__all__ = ["Mix", "Planted", "Script", "Writer", "profile"]

_END_S = 0.5
"""Nothing starts later than this before the end of a clip."""


@dataclass(frozen=True, slots=True)
class Mix:
    """How often things happen, and how strongly."""

    micro: float = 0.42
    """Share of micro-expressions among what is planted."""
    confusers: tuple[tuple[str, float], ...] = (
        ("blink", 0.21),
        ("macro", 0.20),
        ("brow flash", 0.05),
        ("speech", 0.13),
        ("chewing", 0.03),
        ("swallow", 0.06),
        ("fidget", 0.05),
        ("gaze", 0.08),
        ("head", 0.09),
        ("vibration", 0.05),
        ("light", 0.05),
    )
    """Kinds of tools.simulate.confusers and their shares of the rest."""
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

    def write(self, duration_s: float) -> Script:
        """Plan one clip: what happens when, and the curves. No frame rate enters."""
        rng, mix = self._rng, self._mix
        scene = Scene.of(self._rig, rng, duration_s)
        script = scene.script
        self._posture(scene)
        at = rng.uniform(0.35, 0.8)
        names, shares = zip(*mix.confusers, strict=True)
        share = np.array(shares) / sum(shares)
        while at < duration_s - _END_S:
            if rng.random() < mix.micro:
                end = micro(scene, at, long_share=mix.long_share, peaks_iod=mix.peak_iod)
            else:
                end = CONFUSERS[str(rng.choice(names, p=share))](scene, at)
            at = end + rng.uniform(*mix.gap_s) if rng.random() > 0.08 else end - rng.uniform(0, 0.1)
        if rng.random() < 0.5:  # a blink may fall on anything
            blink(scene, rng.uniform(0.0, max(duration_s - _END_S, 0.0)))
        np.clip(script.weights, 0, 1.3, out=script.weights)
        script.planted.sort(key=lambda planted: planted.onset_s)
        return script

    def _posture(self, scene: Scene) -> None:
        """Hold the head as people do, never quite still."""
        rng, times = self._rng, scene.script.times_s
        size = self._mix.head * rng.choice([0.1, 0.5, 1.0, 2.0], p=[0.25, 0.3, 0.3, 0.15])
        for row, amount in enumerate((0.035, 0.03, 0.02, 0.04, 0.03, 0.012)):
            slow = scene.drift(rng.uniform(0.8, 3.0)) + 0.35 * scene.drift(rng.uniform(0.25, 0.8))
            tremor = (
                0.012 * rng.random() * np.sin(2 * np.pi * rng.uniform(5, 12) * times + rng.uniform(0, 6.28))
            )
            scene.script.poses[:, row] = size * amount * (slow - slow[0] + tremor)
        scene.script.poses[:, :3] += np.array([rng.normal(0, 0.09), rng.normal(0, 0.06), rng.normal(0, 0.04)])
