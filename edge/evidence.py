"""Run the int8 temporal net over the motion signal and give its evidence, step by step.

Motion is brought to a fixed grid of 5 ms, whatever the camera's rate, and the net sees 128 steps (0.64 s) of
it at a time. For each step it gives evidence for onset, apex, offset and for lying inside a
micro-expression, for the emotion, for action units with their side, and for what only looks like one: the
confusers. Beside the motion it sees how far each part of the face has departed from its usual place: half a
second of a held smile looks like a neutral face.

A step is judged by several overlapping windows; their mean is final once the step is old enough for the net
to have seen what followed (`_SEEN`). That wait is most of the device's delay.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.errors import ModelError
from edge.inference import Model
from edge.records import EMOTIONS, Motion
from edge.regions import CHANNELS, REGIONS

Floats = NDArray[np.float32]

STEP_NS = 5_000_000
"""Grid of the temporal net, ns."""
WINDOW = 128
"""Steps that the net sees at once."""

GROUPS = ("eyes", "brows", "nose", "mouth")
INPUTS: tuple[str, ...] = (*CHANNELS, *(f"{group}.departure" for group in GROUPS))
"""Channels of the net's input: the motion, and the greatest departure (IOD) within each group of regions."""
_USUAL_S = 4.0
"""Time constant of what counts as a region's usual place; an expression held much longer becomes usual."""
_FOLLOW = np.float32(STEP_NS * 1e-9 / _USUAL_S)
_BY_GROUP = [number for group in GROUPS for number, region in enumerate(REGIONS) if region.group == group]
_GROUP_STARTS = np.cumsum([0] + [sum(region.group == group for region in REGIONS) for group in GROUPS[:-1]])
"""The regions in the order of GROUPS, and where each group begins."""

PHASES = ("onset", "apex", "offset", "inside")
KINDS = (*EMOTIONS, "other")
CONFUSERS = ("blink", "speech", "head turn", "macro-expression", "light change")
_SIDED = (
    "AU1",
    "AU2",
    "AU4",
    "AU5",
    "AU6",
    "AU7",
    "AU9",
    "AU10",
    "AU12",
    "AU14",
    "AU15",
    "AU16",
    "AU20",
    "AU24",
)
_CENTRAL = ("AU17", "AU23", "AU26")
UNITS: tuple[tuple[str, str], ...] = (
    *((au, side) for au in _SIDED for side in ("right", "left")),
    *((au, "both") for au in _CENTRAL),
)
"""(action unit, side) in the order of the net's output."""

OUTPUTS = {"confusers": len(CONFUSERS), "emotion": len(KINDS), "phase": len(PHASES), "units": len(UNITS)}
"""Channels of each output, told apart by their number; `phase` has WINDOW steps, the others half as many."""

_SEEN = slice(108, 120)
"""Window positions at which a step is judged: 40 to 100 ms after it happened, by as many windows as hops fit in. On
170 simulated clips of validation people (405 micro-expressions, 23 min) an event came 120 ms after its offset with an
F1 of 0.69 and 5 false alarms (threshold 0.8). Judged at 96..116 by the net before, trained for that: 190 ms, 0.69 and
4; at 112..124: 100 ms, 0.66 and 5."""


def _encoding_unit(channel: str) -> float:
    if channel.startswith("head."):
        return 0.01  # IOD or rad
    if channel.endswith(".texture"):
        return 0.1
    return 0.02 if channel == "light" else 0.003  # IOD


_ENCODING_UNITS = np.array([_encoding_unit(channel) for channel in INPUTS], np.float32)


def encode(window: Floats) -> Floats:
    """Turn a window (..., WINDOW, channels of INPUTS) into what the net is fed, about -2..2.

    The median of each motion channel is taken for the neutral face. The inverse hyperbolic sine holds a hundredth
    of a pixel and a wide-open mouth in the same 256 levels: linear up to each channel's unit, logarithmic
    beyond.
    """
    half = window.shape[-2] // 2
    # Sorting takes half the time of np.median, which partitions.
    ordered = np.sort(window, axis=-2)
    neutral = (ordered[..., half - 1 : half, :] + ordered[..., half : half + 1, :]) / 2
    neutral[..., len(CHANNELS) :] = 0
    encoded = window - neutral
    encoded /= _ENCODING_UNITS
    np.arcsinh(encoded, out=encoded)
    encoded /= 3
    return np.asarray(encoded, np.float32)


class Departure:
    """Follows each region's usual place and tells how far each part of the face is from it."""

    def __init__(self) -> None:
        self._usual: Floats | None = None

    def add(self, steps: Floats) -> Floats:
        """Take the next steps of motion (n, C); give the departure of each of GROUPS (n, 4) IOD."""
        skin = steps[:, : 2 * len(REGIONS)]
        if self._usual is None:
            self._usual = skin[0].copy()
        away = np.empty_like(skin)
        for step, place in enumerate(skin):
            self._usual += _FOLLOW * (place - self._usual)
            np.subtract(place, self._usual, out=away[step])
        distance = np.hypot(away[:, 0::2], away[:, 1::2])
        return np.maximum.reduceat(distance[:, _BY_GROUP], _GROUP_STARTS, axis=1)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the net says of a run of steps; all but `motion` in 0..1."""

    start_ns: int
    """Media time of the first step; the others follow every STEP_NS."""
    confusers: Floats
    """(n, 5), in the order of CONFUSERS."""
    emotion: Floats
    """(n, 8), in the order of KINDS; each row sums to 1."""
    phase: Floats
    """(n, 4), in the order of PHASES."""
    units: Floats
    """(n, 31), in the order of UNITS."""
    motion: Floats
    """(n, C), the motion on the same steps, channels of edge.regions."""

    def __len__(self) -> int:
        return len(self.phase)


class TemporalNet:
    """Turns motion into evidence.

    Args:
        model: input (1, 1, 128, channels of INPUTS); outputs with the channel counts of OUTPUTS.
        hop_ms: time between two runs of the net.

    Raises:
        ModelError: the model's tensors are not those.
    """

    def __init__(self, model: Model, *, hop_ms: int = 20) -> None:
        expected = (1, 1, WINDOW, len(INPUTS))
        if model.input.shape != expected:
            raise ModelError(f"{model.name}: its input is {model.input.shape}, expected {expected}")
        channels = [output.shape[-1] for output in model.outputs]
        if sorted(channels) != sorted(OUTPUTS.values()):
            raise ModelError(
                f"{model.name}: its outputs have {channels} channels, expected {[*OUTPUTS.values()]}"
            )
        self._which = {name: channels.index(width) for name, width in OUTPUTS.items()}
        self._model = model
        self._hop = max(1, round(hop_ms * 1_000_000 / STEP_NS))
        self.reset()

    def reset(self) -> None:
        """Forget all motion: what comes next belongs to another stretch of time."""
        self._last: Motion | None = None
        self._origin_ns = self._next_ns = 0
        self._window = np.zeros((WINDOW, len(INPUTS)), np.float32)
        self._departure = Departure()
        seen = _SEEN.stop - _SEEN.start
        self._sums = {name: np.zeros((seen, width), np.float32) for name, width in OUTPUTS.items()}
        """What the windows so far said of the steps at `_SEEN`, added up."""
        self._counts = np.zeros((seen, 1), np.float32)
        self._fresh: list[Floats] = []
        self._steps = 0

    def feed(self, motion: Motion) -> list[Evidence]:
        """Take one frame's motion; give the evidence that has become final, oldest first."""
        if self._last is None:
            # The past of a new face is taken to have been still.
            self._window[:, : len(CHANNELS)] = motion.values
            self._origin_ns = self._next_ns = motion.timestamp_ns
            self._last = motion
            return []
        steps = self._resample(self._last, motion)
        self._last = motion
        return [evidence for step in steps for evidence in self._advance(step)]

    def finish(self) -> list[Evidence]:
        """Give the evidence of the last steps, taking the face to stay as it is. `reset` must follow."""
        if self._last is None:
            return []
        final = []
        for _ in range(WINDOW - _SEEN.start + self._hop):
            final += self._advance(self._last.values)
        return final

    def _resample(self, before: Motion, after: Motion) -> list[Floats]:
        """Interpolate the grid's steps that lie after `before` and not after `after`."""
        steps = []
        span = after.timestamp_ns - before.timestamp_ns
        while self._next_ns <= after.timestamp_ns:
            share = np.float32((self._next_ns - before.timestamp_ns) / span)
            steps.append(before.values + share * (after.values - before.values))
            self._next_ns += STEP_NS
        return steps

    def _advance(self, step: Floats) -> list[Evidence]:
        """Add one step; every hop, run the net and give the steps that no later window will judge."""
        self._fresh.append(step)
        count = len(self._fresh)
        if count < self._hop:
            return []
        fresh, self._fresh = np.array(self._fresh), []
        _push(self._window, np.concatenate([fresh, self._departure.add(fresh)], axis=1))
        for sums in (self._counts, *self._sums.values()):
            _push(sums, np.zeros((count, sums.shape[1]), np.float32))
        self._steps += count
        self._judge()
        first = self._steps - WINDOW + _SEEN.start
        if first < 0:
            return []  # before the face's first frame
        judged = self._counts[:count]
        mean = {name: sums[:count] / judged for name, sums in self._sums.items()}
        final = slice(_SEEN.start, _SEEN.start + count)
        start_ns = self._origin_ns + first * STEP_NS
        return [Evidence(start_ns, motion=self._window[final, : len(CHANNELS)].copy(), **mean)]

    def _judge(self) -> None:
        """Run the net on the window, and add what it says of the steps at `_SEEN`."""
        results = self._model.run(self._model.input.quantize(encode(self._window)[None, None]))
        for name, number in self._which.items():
            output, result = self._model.outputs[number], results[number][0, 0]
            steps_per_value = WINDOW // len(result)
            seen = result[_SEEN.start // steps_per_value : _SEEN.stop // steps_per_value]
            logits = output.dequantize(seen)
            if name == "emotion":
                odds = np.exp(logits - logits.max(axis=1, keepdims=True))
                probabilities = odds / odds.sum(axis=1, keepdims=True)
            else:
                probabilities = 1 / (1 + np.exp(-logits))
            self._sums[name] += np.repeat(probabilities, steps_per_value, axis=0)
        self._counts += 1


def _push(array: Floats, new: Floats) -> None:
    """Move the rows of `array` forward and put `new` at the end."""
    count = len(new)
    array[:-count] = array[count:]
    array[-count:] = new
