"""Follow edge.motion's arithmetic on displacements instead of pixels: anchors, head-motion fit, carried errors.

What a frame's registration would find is given; what the device makes of it is computed here for whole
stretches of frames at once. `RegionalMotion` is the original; tests hold this to it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge import motion
from edge.records import CROP_IOD_PX, CROP_SIZE
from edge.regions import CHANNELS, REGIONS, TEXTURE_REGIONS

Doubles = NDArray[np.float64]

_TEXTURE = [[region.name for region in REGIONS].index(name) for name in TEXTURE_REGIONS]
_STRETCH_S = 0.1
"""Frames are worked on in stretches of this length; how long an anchor serves shows only on the way."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """What a noisy anchor of this face does to a displacement. R regions."""

    rows: Doubles
    """(2 R, 6) displacement of each region in px for each unit of head motion."""
    information: Doubles
    """(R,) px^-2"""
    gain: Doubles
    """(R, 2, 2) share of a displacement that one step of the registration finds."""
    slope: Doubles
    """(R, 2, 2) px^-2: squared residual, in units of the contrast, for a displacement that is left."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is to see in each of T frames, against the neutral face."""

    times_s: Doubles
    crop_from_image: Doubles
    """(T, 2, 3)"""
    shift_px: Doubles
    """(T, R, 2) displacement in the crop on which the registration would settle without noise."""
    noise_px: Doubles
    """(T, R, 2) error that a frame's own noise makes in one step."""
    turned: Doubles
    """(T, 2) yaw and pitch, rad."""
    turn_residual: Doubles
    """(R,) residual for each radian turned."""
    look: Doubles
    """(T, R) residual against the neutral face by what expression and gaze change in appearance."""
    grain: Doubles
    """(T, R) squared residual by a frame's own noise."""
    grain_cross: Doubles
    """(R,) what two frames' noises have in common by chance, relative standard deviation."""
    coded_grain: Doubles
    """(R,) squared residual by what compression leaves; it stays for a while."""
    coded_s: float
    light: Doubles
    """(T, R) factor on contrast."""
    luma: Doubles
    """(T,) mean grey level of the crop."""


def measure(seen: Seen, anchors: list[Anchor], rng: np.random.Generator, *, period_s: float = 0.5) -> Doubles:
    """Give the motion channels (T - 1, C) that edge.motion would: all frames but the first.

    Args:
        anchors: each new anchor behaves like one of these, at random.
    """
    return _Follower(seen, anchors, rng, period_s).run()


@dataclass(slots=True)
class _Stretch:
    """A run of frames measured against one anchor."""

    shift: Doubles
    skin: Doubles
    rigid: Doubles
    residual: Doubles

    def join(self, other: "_Stretch") -> "_Stretch":
        return _Stretch(
            *(np.concatenate([getattr(self, name), getattr(other, name)]) for name in _Stretch.__slots__)
        )


class _Follower:
    def __init__(self, seen: Seen, anchors: list[Anchor], rng: np.random.Generator, period_s: float) -> None:
        self._seen, self._anchors, self._rng, self._period_s = seen, anchors, rng, period_s

    def run(self) -> Doubles:
        seen = self._seen
        count, regions = len(seen.times_s), len(REGIONS)
        values = np.zeros((count, len(CHANNELS)))
        values[:, -1] = np.log((seen.luma + 1) / (seen.luma[0] + 1))
        carry_skin, carry_rigid = np.zeros((regions, 2)), np.zeros(6)
        anchor, origin, first = self._draw(), 0, 1  # anchor, its frame, the first frame measured against it
        since_s = seen.times_s[0]
        guess = np.zeros((regions, 2))
        while first < count:
            run, renewed = self._until_renewal(anchor, origin, first, since_s, guess)
            later = None
            if renewed is not None:
                last = min(renewed + motion._OVERLAP_FRAMES, count - 1)
                fresh = self._draw()
                if last > renewed:
                    later = self._follow(fresh, renewed, renewed + 1, last + 1, np.zeros((regions, 2)))
                    have = first + len(run.shift)
                    if have <= last:
                        run = run.join(self._follow(anchor, origin, have, last + 1, run.shift[-1]))
                run = _Stretch(*(getattr(run, name)[: last + 1 - first] for name in _Stretch.__slots__))
            here = slice(first, first + len(run.skin))
            skin, rigid = carry_skin + run.skin, carry_rigid + run.rigid
            values[here, : 2 * regions] = skin.reshape(len(skin), -1) / CROP_IOD_PX
            values[here, 2 * regions : 2 * regions + 6] = rigid
            values[here, 2 * regions + 6 : -1] = run.residual[:, _TEXTURE]
            if renewed is None or later is None:
                break
            overlap = slice(renewed - first, None)
            after_skin = np.concatenate([np.zeros((1, regions, 2)), later.skin])
            after_rigid = np.concatenate([np.zeros((1, 6)), later.rigid])
            carry_skin = (skin[overlap] - after_skin).mean(axis=0)
            carry_rigid = (rigid[overlap] - after_rigid).mean(axis=0)
            anchor, origin, guess = fresh, renewed, later.shift[-1]
            first = here.stop
            since_s = seen.times_s[first - 1]
        return values[1:]

    def _draw(self) -> Anchor:
        return self._anchors[self._rng.integers(len(self._anchors))]

    def _until_renewal(
        self, anchor: Anchor, origin: int, first: int, since_s: float, guess: Doubles
    ) -> tuple[_Stretch, int | None]:
        """Measure from `first` on, up to a frame at which the anchor is renewed or the end.

        Returns:
            The frames measured, perhaps a few more than needed, and the frame that makes the next anchor.
        """
        times = self._seen.times_s
        run: _Stretch | None = None
        while first < len(times):
            stop = max(int(np.searchsorted(times, times[first] + _STRETCH_S)), first + 1)
            part = self._follow(anchor, origin, first, stop, guess)
            run = part if run is None else run.join(part)
            far = np.abs(part.rigid[:, 4:]).max(axis=1) > motion._FAR_RAD
            far |= np.abs(part.shift).mean(axis=(1, 2)) > motion._FAR_PX
            moving = np.abs(part.skin).max(axis=(1, 2)) > motion._MOVING_PX
            age = times[first:stop] - since_s + 1e-6
            due = far | (age >= self._period_s * np.where(moving, motion._PATIENCE, 1))
            if due.any():
                return run, first + int(np.argmax(due))
            guess, first = part.shift[-1], stop
        assert run is not None
        return run, None

    def _follow(self, anchor: Anchor, origin: int, first: int, stop: int, guess: Doubles) -> _Stretch:
        """Measure frames `first` to `stop` against the anchor made of frame `origin`."""
        seen, here = self._seen, slice(first, stop)
        goal = seen.shift_px[here] - seen.shift_px[origin]
        # The anchor's own noise does not pair with the gradients that it makes itself: what is left of its error
        # is the share that the clean face's gradients have, which is the gain.
        share = np.sqrt(np.clip(np.einsum("rii->r", anchor.gain) / 2, 0, 1))[:, None]
        kick = seen.noise_px[here] - share * seen.noise_px[origin]
        shift, left = np.empty_like(goal), np.empty_like(goal)
        gain = anchor.gain
        for number, (aim, error) in enumerate(zip(goal, kick, strict=True)):
            away = aim - guess
            change = _times(gain, away) + error
            largest = np.abs(change).max()
            if largest > motion._JUMP_PX:
                distant = np.abs(aim - guess).max(axis=1, keepdims=True) > motion._JUMP_PX
                guess = np.where(distant, aim, guess)
                change = np.clip(_times(gain, aim - guess) + error, -3.0, 3.0)
            guess = guess + change
            if largest > motion._SETTLED_PX:
                away = aim - guess
                guess = guess + _times(gain, away) + error
            shift[number], left[number] = guess, away
        turned = np.linalg.norm(seen.turned[here] - seen.turned[origin], axis=1)
        square = (seen.look[here] - seen.look[origin]) ** 2 + seen.grain[here] + seen.grain[origin]
        chance = self._rng.standard_normal(seen.grain[here].shape) * seen.grain_cross
        square += 2 * np.clip(chance, -0.7, 0.7) * np.sqrt(seen.grain[here] * seen.grain[origin])
        since_s = seen.times_s[here] - seen.times_s[origin]
        square += 2 * (1 - np.exp(-since_s / seen.coded_s))[:, None] * seen.coded_grain
        square += (turned[:, None] * seen.turn_residual) ** 2
        square += (seen.light[here] / seen.light[origin] - 1) ** 2
        square += np.einsum("tri,rij,trj->tr", left, anchor.slope, left)
        residual = np.sqrt(square)
        inside = head_motion(anchor.rows, anchor.information, shift, residual)
        skin = shift - (inside @ anchor.rows.T).reshape(shift.shape)
        return _Stretch(
            shift,
            skin,
            _against_image(inside, seen.crop_from_image[origin], seen.crop_from_image[here]),
            residual,
        )


def _times(matrices: Doubles, vectors: Doubles) -> Doubles:
    return np.matmul(matrices, vectors[:, :, None])[:, :, 0]


def head_motion(rows: Doubles, information: Doubles, shift: Doubles, residual: Doubles) -> Doubles:
    """Fit the six parameters of RIGID to displacements (T, R, 2) px, as edge.motion does, all frames at once."""
    target = shift.reshape(len(shift), -1)
    base = np.repeat(
        motion._RIGIDITY * np.minimum(information, motion._ENOUGH_TEXTURE) / (1 + 4 * residual**2), 2, axis=1
    )
    pairs = (rows[:, :, None] * rows[:, None, :]).reshape(len(rows), 36)
    prior = motion._HEAD_PRIOR * base.sum(axis=1)[:, None, None]
    weight = base
    for _ in range(motion._HUBER_ROUNDS):
        normal = (weight @ pairs).reshape(-1, 6, 6) + prior
        rigid = np.linalg.solve(normal, ((weight * target) @ rows)[:, :, None])[:, :, 0]
        left = np.abs(target - rigid @ rows.T).reshape(*shift.shape).max(axis=2)
        weight = base * np.repeat(np.minimum(1.0, motion._HUBER_PX / np.maximum(left, 1e-9)), 2, axis=1)
    return np.asarray(rigid)


def _against_image(rigid: Doubles, before: Doubles, now: Doubles) -> Doubles:
    """Add the crop's own motion between the anchor's crop (2, 3) and those of T frames (T, 2, 3)."""
    centre = np.array([CROP_SIZE / 2, CROP_SIZE / 2])
    point = np.linalg.solve(now[:, :, :2], (centre - now[:, :, 2])[:, :, None])[:, :, 0]
    result = rigid.copy()
    result[:, :2] += (point @ before[:, :2].T + before[:, 2] - centre) / CROP_IOD_PX
    result[:, 2] += 0.5 * np.log(np.linalg.det(before[:, :2]) / np.linalg.det(now[:, :, :2]))
    roll = np.arctan2(before[1, 0], before[0, 0]) - np.arctan2(now[:, 1, 0], now[:, 0, 0])
    result[:, 3] += (roll + np.pi) % (2 * np.pi) - np.pi
    return result
