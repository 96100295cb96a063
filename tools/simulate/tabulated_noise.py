"""Measure what a camera's noise and sampling do to the registration of one face, and make more of the same."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge import motion
from edge.records import CROP_SIZE
from edge.regions import REGIONS
from edge.registration import Windows, patches
from tools.simulate.codec import H264
from tools.simulate.rig import Pose, Rig
from tools.simulate.sensor import Conditions, Sensor
from tools.simulate.tabulated_bench import Bench, picture_of, register
from tools.simulate.tabulated_motion import Anchor

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_PLACES = 10
"""Places on the sensor where the face is rendered."""
_EXPOSURES = 5
"""Noisy frames at each place."""
_ANCHORS = 3
_WARM_UP = 10
"""Frames of an H.264 stream at a new place before it has settled."""
CODED_S = 0.15
"""Time in which what H.264 makes of a face changes to something else."""
_CODED_ANEW = 0.12
"""Share of its variance that changes from frame to frame; both were read off rendered clips."""
_SKIPPED_PX = 0.1
"""An encoder skips a region at most until it has moved this far beyond its coding error."""
_SAME_LUMA = 0.5
"""Mean square difference, grey levels squared, below which a decoded region is the last frame's."""
_WAVES = np.array([[1, 0], [0, 1], [0.5, 0.5], [0.5, -0.5], [0.37, 0.21], [-0.23, 0.41]])
"""Periods of the error that depends on where the face lies on the sensor's pixels, cycles for each pixel."""


@dataclass(frozen=True, slots=True)
class Noise:
    """Errors of the registration for one face, one camera, one light. R regions."""

    anchors: list[Anchor]
    root: Doubles
    """(2 R + 1, 2 R + 1) Cholesky root of the covariance of a frame's error in one step, px, and of its luma."""
    sampling_px: Doubles
    """(R, 2) standard deviation of the error that changes as the face moves over the pixels."""
    grain: Doubles
    """(R,) squared residual by the noise of a frame."""
    grain_spread: Doubles
    """(R,) its relative standard deviation from frame to frame."""
    grain_cross: Doubles
    """(R,) standard deviation of what it has in common with another frame's by chance, relative."""
    coded_px: Doubles
    """(R, 2) standard deviation of the error that compression leaves and that stays for a while."""
    coded_grain: Doubles
    """(R,) squared residual by it."""
    held: Doubles
    """(R,) share of frames in which the encoder skips a still region: it shows what it showed before."""
    slant_px: Doubles
    """(R, 2) error in one step for light that grows by its whole within one row of the sensor."""

    def frames(self, count: int, rng: np.random.Generator) -> tuple[Doubles, Doubles, Doubles]:
        """Draw errors (T, R, 2) px, squared residuals (T, R) and luma (T,) for `count` frames."""
        drawn = rng.standard_normal((count, len(self.root))) @ self.root.T
        spread = 1 + self.grain_spread * rng.standard_normal((count, len(REGIONS)))
        return (
            drawn[:, :-1].reshape(count, len(REGIONS), 2),
            self.grain * np.maximum(spread, 0.1),
            drawn[:, -1],
        )

    def coded(self, times_s: Doubles, rng: np.random.Generator) -> Doubles:
        """Draw the errors (T, R, 2) px that compression leaves in frames at these times."""
        drawn, fresh = rng.standard_normal((2, len(times_s), len(REGIONS), 2)) * self.coded_px
        keep = np.exp(-np.diff(times_s) / CODED_S)
        for number, share in enumerate(keep, start=1):
            drawn[number] = share * drawn[number - 1] + np.sqrt(1 - share**2) * drawn[number]
        return np.asarray(np.sqrt(1 - _CODED_ANEW) * drawn + np.sqrt(_CODED_ANEW) * fresh)

    def hold(self, shift_px: Doubles, rng: np.random.Generator) -> Doubles:
        """Give displacements (T, R, 2) px as an encoder shows them that skips what has hardly changed."""
        if not self.held.any():
            return shift_px
        reach = _SKIPPED_PX + 1.5 * np.linalg.norm(self.coded_px, axis=1)
        anew = rng.random(shift_px.shape[:2]) >= self.held
        shown = shift_px.copy()
        for number in range(1, len(shown)):
            change = shift_px[number] - shown[number - 1]
            keep = ~anew[number] & (np.hypot(change[:, 0], change[:, 1]) < reach)
            shown[number, keep] = shown[number - 1, keep]
        return shown

    def sampling(self, where_px: Doubles, rng: np.random.Generator) -> Doubles:
        """Draw the error (T, R, 2) px for the regions' places on the sensor (T, R, 2)."""
        result = np.zeros_like(where_px)
        for wave in _WAVES:
            phase = 2 * np.pi * (where_px @ wave)
            for part in (np.cos(phase), np.sin(phase)):
                result += part[:, :, None] * rng.standard_normal((len(REGIONS), 2))
        return np.asarray(result * self.sampling_px / np.sqrt(len(_WAVES)))


def study(
    bench: Bench,
    rig: Rig,
    conditions: Conditions,
    rate_hz: float,
    attitude: tuple[float, float],
    rng: np.random.Generator,
) -> Noise:
    """Render the still face at several places, expose it several times, and see what the registration does."""
    # Lamps are no noise: tabulated._lamps has them.
    sensor, quiet = Sensor(replace(conditions, mains_depth=0.0), rng), bench.sensor
    width, height = bench.size
    codec = (
        H264((width, height), rate_hz=rate_hz, crf=conditions.crf, preset=conditions.preset)
        if conditions.crf
        else None
    )
    warm_up = _WARM_UP if codec else 0
    neutral = np.zeros(len(rig.shapes), np.float32)
    sampling: list[Doubles] = []
    anchors: list[motion._Anchor] = []
    slopes: list[Anchor] = []
    exposed = np.empty((_PLACES, _EXPOSURES), object)
    lumas = np.empty((_PLACES, _EXPOSURES))
    for place in range(_PLACES):
        shift_iod = rng.uniform(-1, 1, 2) / rig.iod_px
        pose = Pose(*attitude, float(rng.normal(0, 0.01)), (float(shift_iod[0]), float(shift_iod[1])))
        crop_from_sensor = _jittered(bench.upright(pose).astype(float), rng)
        raw = bench.raw(neutral, (0.0, 0.0), pose)
        face = bench.track(quiet.expose(raw, 1.0, 0.0), crop_from_sensor, pose)
        answer, _ = register(bench.anchor, face, np.zeros((len(REGIONS), 2), np.float32))
        sampling.append(answer.shift_px.ravel() - bench.anchor.rows[:, :4] @ _fit(bench, answer.shift_px))
        smooth = picture_of(face)
        for exposure in range(-warm_up, _EXPOSURES):
            frame = sensor.expose(raw, 1.0, 0.0)
            if codec:
                frame = codec.pass_through(frame)
            if exposure < 0:
                continue
            noisy = bench.track(frame, crop_from_sensor, pose)
            grainy = picture_of(noisy)
            if place < _ANCHORS and exposure == 0:
                anchors.append(motion._Anchor(grainy, noisy))
                slopes.append(_anchor(anchors[-1], smooth.fine))
            exposed[place, exposure] = _windowed(
                grainy.fine - smooth.fine, anchors[place % len(anchors)].windows
            )
            lumas[place, exposure] = grainy.luma - smooth.luma
    return _pool(bench, anchors, slopes, exposed, np.array(sampling), lumas)


def _pool(
    bench: Bench,
    anchors: list[motion._Anchor],
    slopes: list[Anchor],
    exposed: NDArray[np.object_],
    sampling: Doubles,
    lumas: Doubles,
) -> Noise:
    """Turn the samples of `study` into statistics.

    Args:
        exposed: (places, exposures) of (R, P): what noise and compression add to each window.
    """
    weight = anchors[0].windows.weight.ravel()
    contrast = np.mean([anchor.windows.contrast for anchor in anchors], axis=0).astype(float)
    steps, scatter, constant, cross, same = [], [], [], [], []
    coded = bench.compressed
    for place, windows in enumerate(exposed):
        anchor = anchors[place % len(anchors)].windows
        added = np.array(list(windows))
        added = added - (added @ weight)[:, :, None]
        mean = added.mean(axis=0)
        fresh = added - mean if coded else added
        # Frames with an anchor's own noise are left out: there, gradients and noise go together.
        own = slice(1 if place < len(anchors) else 0, None)
        steps.append(-np.einsum("erp,rip->eri", added[own], anchor.solve).reshape(-1, 2 * len(REGIONS)))
        scatter.append((fresh**2) @ weight)
        constant.append((mean**2) @ weight)
        same.append((np.diff(added, axis=0) ** 2) @ weight < _SAME_LUMA)
        cross.append((fresh[1:] * fresh[:-1]) @ weight)
    within = np.concatenate([step - step.mean(axis=0) for step in steps])
    freedom = len(within) - len(steps)
    covariance = np.zeros((2 * len(REGIONS) + 1, 2 * len(REGIONS) + 1))
    centres = np.repeat(_centres(bench), 2, axis=0)
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=2)
    # With this few samples what far regions seem to have in common is chance.
    covariance[:-1, :-1] = within.T @ within / freedom * np.exp(-0.5 * (apart / 14.0) ** 2)
    covariance[-1, -1] = np.mean(np.var(lumas, axis=1, ddof=1))
    covariance += np.diag(1e-12 + 1e-3 * np.diag(covariance))
    steady = np.var([step.mean(axis=0) for step in steps], axis=0) - np.diag(covariance)[:-1] / _EXPOSURES
    noise = np.concatenate(scatter).mean(axis=0) * (_EXPOSURES / (_EXPOSURES - 1) if coded else 1.0)
    return Noise(
        anchors=slopes,
        root=np.linalg.cholesky(covariance),
        sampling_px=np.sqrt(np.mean(np.square(sampling), axis=0)).reshape(-1, 2),
        grain=noise / contrast**2,
        grain_spread=np.concatenate(scatter).std(axis=0) / np.maximum(noise, 1e-9),
        grain_cross=np.concatenate(cross).std(axis=0) / np.maximum(noise, 1e-9),
        coded_px=np.sqrt(np.maximum(steady, 0)).reshape(-1, 2) * coded,
        coded_grain=np.mean(constant, axis=0) / contrast**2 * coded,
        held=np.concatenate(same).mean(axis=0) * coded,
        slant_px=np.mean([_slant(anchor.windows) for anchor in anchors], axis=0) / _scale(bench),
    )


def _anchor(anchor: motion._Anchor, clean: Floats) -> Anchor:
    """Say what steps from a noisy anchor find of a displacement of the clean face."""
    windows = anchor.windows
    down, right = np.gradient(clean)
    slopes = np.stack([_windowed(right, windows), _windowed(down, windows)], axis=2).astype(float)
    gain = np.einsum("rip,rpj->rij", windows.solve, slopes)
    slope = np.einsum("rpi,p,rpj->rij", slopes, windows.weight.ravel(), slopes)
    slope /= windows.contrast.astype(float)[:, None, None] ** 2
    return Anchor(anchor.rows, windows.information.astype(float), gain, slope)


def _windowed(image: Floats, windows: Windows) -> Floats:
    """Give the pixels (R, S * S) of an image in the windows' own places."""
    side = windows.template.shape[1]
    squares = patches(image, side)[windows.corners[:, 1], windows.corners[:, 0]]
    return np.asarray(squares.reshape(len(squares), -1))


def _slant(windows: Windows) -> Doubles:
    """Give the step (R, 2) px that light growing by its whole from one row of the crop to the next makes."""
    side = windows.template.shape[1]
    down = np.repeat(np.arange(side) - side // 2, side)
    template = windows.template.reshape(len(windows.template), -1)
    return -np.einsum("rp,rip->ri", template * down, windows.solve).astype(float)


def _scale(bench: Bench) -> float:
    """Give the crop's pixels for each pixel of the sensor."""
    return float(np.hypot(*bench.crop_from_sensor[:, 0]))


def _centres(bench: Bench) -> Doubles:
    return bench.anchor.rows.reshape(len(REGIONS), 2, 6)[:, 0, 2:4] * np.array([1.0, -1.0])


def _fit(bench: Bench, shift_px: Doubles) -> Doubles:
    rows = bench.anchor.rows[:, :4]
    return np.asarray(np.linalg.lstsq(rows, shift_px.ravel(), rcond=None)[0])


def _jittered(matrix: Doubles, rng: np.random.Generator) -> Floats:
    """Put a crop (2, 3) half a pixel and a few thousandths off, as the tracker does."""
    angle, size = rng.normal(0, 0.004), np.exp(rng.normal(0, 0.004))
    turn = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.array([CROP_SIZE / 2, CROP_SIZE / 2])
    result = turn @ matrix
    result[:, 2] += centre - turn @ centre + rng.normal(0, 0.5, 2)
    return result.astype(np.float32)
