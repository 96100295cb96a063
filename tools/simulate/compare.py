"""Set the fast simulator beside the rendered one: the same scripts and cameras through both, their signals compared.

    python -m tools.simulate.compare --photos DIR --labels NPZ --model NPZ --clips 24 --out match.png

Prints, for each measured thing, the median of fast over rendered, the Kolmogorov-Smirnov distance of the two
distributions (0 the same, 1 apart) and their rank correlation, and draws the distributions. Chance (noise, the
tracker's errors) is drawn anew on either side, so noise itself is compared by its size only.
"""

import argparse
import json
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
from matplotlib import pyplot
from numpy.typing import NDArray
from scipy.signal import welch
from scipy.stats import ks_2samp, spearmanr

from edge.records import CROP_IOD_PX
from edge.regions import CHANNELS, REGIONS
from tools.simulate import signals, tabulated
from tools.simulate.people import People, add_arguments
from tools.simulate.script import Mix, Planted, Writer
from tools.simulate.sensor import Conditions

Doubles = NDArray[np.float64]
Pairs = dict[str, list[tuple[float, float]]]

_SPECTRA = (
    "right_brow_inner.y",
    "left_cheek.y",
    "right_lip_corner.y",
    "left_upper_lid.y",
    "nose_tip.x",
    "head.yaw",
)
_BANDS_HZ = ((1, 3), (3, 10), (10, 30), (30, 90))
_OVERLAID = (
    *_SPECTRA[:4],
    "chin.y",
    "head.pitch",
    "right_upper_lid.texture",
    "left_lip_corner.texture",
    "light",
)
_GRID_HZ = 200.0


@dataclass(frozen=True, slots=True)
class Couple:
    """One script measured both ways, on a common grid of 5 ms."""

    times_s: Doubles
    fast: Doubles
    """(T, C) channels of edge.regions."""
    rendered: Doubles
    planted: list[Planted]
    conditions: Conditions
    rate_hz: float
    cost_s: tuple[float, float]
    """Processor time of the fast and of the rendered way."""


def main() -> None:
    """Measure both ways, print the table, draw the figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--split", choices=("train", "validation", "test"), default="validation")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rate", type=float, default=200.0, help="frames a second; 0 draws it")
    parser.add_argument("--compression", choices=("as drawn", "never", "always"), default="as drawn")
    parser.add_argument(
        "--rendered", type=Path, help="folder that tools.simulate.signals wrote of this split"
    )
    parser.add_argument("--overlays", type=int, default=6, help="clips to draw one by one")
    parser.add_argument("--out", type=Path, required=True, help="PNG; single clips go beside it")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    people = People.read(options.photos, options.labels, options.model, options.split)
    couples = []
    for number in range(options.first, options.first + options.clips):
        if options.rendered:
            stored = options.rendered / f"clip_{number:05d}.npz"
            found = stored.exists() and _stored_couple(people, stored, options.seconds, options.split)
        else:
            found = _couple(people, number, options.seconds, options.rate, options.compression)
        if not found:
            print(f"clip {number}: not rendered, or from another script")
            continue
        couples.append(found)
        if len(couples) <= options.overlays:
            _overlay(found, options.out.with_name(f"{options.out.stem}_{number:03d}.png"))
    pairs = collect(couples)
    fast_s, rendered_s = np.sum([couple.cost_s for couple in couples], axis=0) / len(couples)
    print(f"{len(couples)} clips; processor time per clip {fast_s:.2f} s fast, {rendered_s:.2f} s rendered")
    print(f"{'':44}{'number':>7}{'fast':>10}{'rendered':>10}{'ratio':>7}{'KS':>6}{'rank':>6}")
    for name, values in pairs.items():
        print(_row(name, np.array(values)))
    _draw(pairs, couples, options.out)


def _couple(people: People, number: int, seconds: float, rate_hz: float, compression: str) -> Couple:
    """Measure one new script both ways."""
    rng = np.random.default_rng([number, 77])
    face = tabulated.Face(people.rig(int(rng.integers(len(people.photos)))))
    rate_hz = rate_hz or float(rng.choice(signals.RATES_HZ, p=signals.RATE_SHARES))
    script = Writer(face.rig, np.random.default_rng([number, 78]), Mix()).write(seconds)
    conditions = Conditions.draw(rng)
    if compression == "never":
        conditions = replace(conditions, crf=0)
    elif compression == "always":
        conditions = replace(conditions, crf=conditions.crf or int(rng.integers(18, 31)))
    lost = signals.draw_losses(rng, int(seconds * rate_hz))
    grid = np.arange(0.05, seconds - 0.05, 1 / _GRID_HZ)
    found, costs = [], []
    for way, what in ((tabulated.measure, face), (signals.measure, face.rig)):
        start = time.process_time()
        times, values = way(what, script, conditions, rate_hz, lost, np.random.default_rng([number, 79]))
        costs.append(time.process_time() - start)
        found.append(_on_grid(grid, times, values))
    return Couple(grid, *found, script.planted, conditions, rate_hz, (costs[0], costs[1]))


def _stored_couple(people: People, path: Path, seconds: float, split: str) -> Couple | None:
    """Measure the fast way what tools.simulate.signals has rendered; None where that was another script."""
    number = int(path.stem.removeprefix("clip_"))
    rng = np.random.default_rng([number, len(split)])
    face = tabulated.Face(people.rig(int(rng.integers(len(people.photos)))))
    rate_hz = float(rng.choice(signals.RATES_HZ, p=signals.RATE_SHARES))
    script = Writer(face.rig, np.random.default_rng([number, 1]), Mix()).write(seconds)
    conditions = Conditions.draw(rng)
    lost = signals.draw_losses(rng, int(seconds * rate_hz))
    grid = np.arange(0.05, seconds - 0.05, 1 / _GRID_HZ)
    with np.load(path) as stored:
        if json.loads(str(stored["truth"])) != json.loads(
            json.dumps([asdict(event) for event in script.planted])
        ):
            return None
        rendered = _on_grid(grid, stored["times_s"], stored["values"].astype(float))
    start = time.process_time()
    times, values = tabulated.measure(face, script, conditions, rate_hz, lost, rng)
    cost_s = time.process_time() - start
    fast = _on_grid(grid, times, values)
    return Couple(grid, fast, rendered, script.planted, conditions, rate_hz, (cost_s, np.nan))


def _on_grid(grid: Doubles, times: Doubles, values: NDArray[np.floating]) -> Doubles:
    return np.stack([np.interp(grid, times, column) for column in values.T], axis=1)


def collect(couples: list[Couple]) -> Pairs:
    """Give pairs (fast, rendered) of everything that is compared, by name."""
    pairs: Pairs = defaultdict(list)
    for couple in couples:
        coded = ", H.264" if couple.conditions.crf else ""
        for kind in ("noise", "carried"):
            _still(couple, pairs, kind, coded)
        for event in couple.planted:
            _event(couple, event, pairs, coded)
        _textures(couple, pairs)
    _spectra(couples, pairs)
    return dict(sorted(pairs.items()))


def _skin(values: Doubles) -> Doubles:
    return values[:, : 2 * len(REGIONS)].reshape(len(values), -1, 2) * CROP_IOD_PX


def _quiet(couple: Couple) -> NDArray[np.bool_]:
    quiet = np.ones(len(couple.times_s), bool)
    for event in couple.planted:
        quiet &= (couple.times_s < event.onset_s - 0.05) | (couple.times_s > event.offset_s + 0.1)
    return quiet


def _still(couple: Couple, pairs: Pairs, kind: str, coded: str) -> None:
    """Compare differences where nothing is planted: over 50 ms noise, over 1 s errors that anchors carry on too."""
    lag = int((0.05 if kind == "noise" else 1.0) * _GRID_HZ)
    quiet = _quiet(couple)
    both = quiet[lag:] & quiet[:-lag]
    if both.sum() < 60:
        return
    sizes = []
    for values in (couple.fast, couple.rendered):
        change = (_skin(values)[lag:] - _skin(values)[:-lag])[both]
        sizes.append(np.sqrt(np.mean(np.square(change), axis=(0, 2))))
    for number, region in enumerate(REGIONS):
        name = "noise, 50-ms differences, px" if kind == "noise" else "drift, 1-s differences, px"
        pairs[f"{name}{coded}: {region.group}"].append((float(sizes[0][number]), float(sizes[1][number])))


def _event(couple: Couple, event: Planted, pairs: Pairs, coded: str) -> None:
    times = couple.times_s
    if event.onset_s < times[0] + 0.05 or event.offset_s > times[-1]:
        return
    others = [
        e
        for e in couple.planted
        if e is not event and e.onset_s < event.offset_s and e.offset_s > event.onset_s - 0.05
    ]
    if others:
        return
    before = (times > event.onset_s - 0.04) & (times <= event.onset_s)
    inside = (times >= event.onset_s) & (times <= event.offset_s + 0.02)
    apex = np.abs(times - event.apex_s) <= 0.008
    skins = [_skin(values) for values in (couple.fast, couple.rendered)]
    if event.kind == "micro":
        changes = [skin[apex].mean(axis=0) - skin[before].mean(axis=0) for skin in skins]
        strongest = int(np.argmax(np.linalg.norm(changes[0] + changes[1], axis=1)))
        along = changes[0][strongest] + changes[1][strongest]
        along /= max(float(np.linalg.norm(along)), 1e-9)
        pair = tuple(float(change[strongest] @ along) for change in changes)
        for au, _ in event.action_units:
            pairs[f"micro, strongest region, px: {au}"].append(pair)
        pairs[f"micro, strongest region, px: all{coded}"].append(pair)
        return
    excursions = [
        float(np.linalg.norm(skin[inside] - skin[before].mean(axis=0), axis=2).max()) for skin in skins
    ]
    pairs[f"excursion, px: {event.kind}"].append((excursions[0], excursions[1]))


def _textures(couple: Couple, pairs: Pairs) -> None:
    quiet = _quiet(couple)
    for name in ("right_upper_lid.texture", "left_lip_corner.texture", "chin.texture"):
        column = CHANNELS.index(name)
        for what, chosen in (("still", quiet), ("events", ~quiet)):
            if chosen.sum() > 60:
                share = 50 if what == "still" else 95
                pair = tuple(
                    float(np.percentile(v[chosen, column], share)) for v in (couple.fast, couple.rendered)
                )
                pairs[f"texture: {name.split('.')[0]}, {what}"].append(pair)
    light = CHANNELS.index("light")
    pairs["light, 50-ms differences"].append(
        tuple(float(np.std(v[10:, light] - v[:-10, light])) for v in (couple.fast, couple.rendered))
    )


def _spectra(couples: list[Couple], pairs: Pairs) -> None:
    for couple in couples:
        for channel in _SPECTRA:
            column = CHANNELS.index(channel)
            powers = []
            for values in (couple.fast, couple.rendered):
                frequency, power = welch(values[:, column], _GRID_HZ, nperseg=256)
                powers.append(
                    [power[(frequency >= low) & (frequency < high)].mean() for low, high in _BANDS_HZ]
                )
            for (low, high), fast, rendered in zip(_BANDS_HZ, *powers, strict=True):
                if high <= couple.rate_hz / 2:
                    pairs[f"amplitude {low}-{high} Hz: {channel}"].append(
                        (float(fast**0.5), float(rendered**0.5))
                    )


def _row(name: str, values: Doubles) -> str:
    fast, rendered = values.T
    ratio = np.median(fast / np.maximum(rendered, 1e-12))
    distance = ks_2samp(fast, rendered).statistic if len(fast) > 3 else np.nan
    together = spearmanr(fast, rendered).statistic if len(fast) > 3 else np.nan
    return (
        f"{name:44}{len(fast):7}{np.median(fast):10.4f}{np.median(rendered):10.4f}"
        f"{ratio:7.2f}{distance:6.2f}{together:6.2f}"
    )


def _draw(pairs: Pairs, couples: list[Couple], path: Path) -> None:
    mpl.use("Agg")
    names = [name for name, values in pairs.items() if len(values) >= 5]
    columns = 6
    figure, axes = pyplot.subplots(
        -(-len(names) // columns), columns, figsize=(20, 2.7 * -(-len(names) // columns))
    )
    for axis, name in zip(axes.ravel(), names, strict=False):
        values = np.array(pairs[name])
        values = np.maximum(values, 0.01 * values.max())
        axis.loglog(values[:, 1], values[:, 0], ".", markersize=4)
        ends = [values.min() * 0.8, values.max() * 1.25]
        axis.plot(ends, ends, linewidth=0.7, color="black")
        axis.set_title(name, fontsize=7)
        axis.tick_params(labelsize=6)
    for axis in axes.ravel()[len(names) :]:
        axis.remove()
    figure.suptitle(f"fast (up) against rendered (right), {len(couples)} clips", fontsize=10)
    figure.tight_layout(rect=(0, 0, 1, 0.985))
    figure.savefig(path, dpi=70)
    pyplot.close(figure)


def _overlay(couple: Couple, path: Path) -> None:
    """Draw a clip's fast signals over its rendered ones."""
    mpl.use("Agg")
    figure, axes = pyplot.subplots(len(_OVERLAID), 1, figsize=(16, 1.5 * len(_OVERLAID)), sharex=True)
    colours = {"micro": "green", "blink": "blue", "macro": "red", "speech": "magenta"}
    for axis, name in zip(axes, _OVERLAID, strict=True):
        column = CHANNELS.index(name)
        axis.plot(couple.times_s, couple.rendered[:, column], linewidth=0.7, label="rendered")
        axis.plot(couple.times_s, couple.fast[:, column], linewidth=0.7, label="fast")
        axis.set_ylabel(name, fontsize=7)
        for event in couple.planted:
            axis.axvspan(event.onset_s, event.offset_s, color=colours.get(event.kind, "gold"), alpha=0.13)
        axis.margins(x=0)
        axis.tick_params(labelsize=6)
    axes[0].set_title(" ".join(event.kind for event in couple.planted), fontsize=7)
    axes[0].legend(fontsize=6)
    figure.suptitle(f"{couple.rate_hz:g} Hz, {couple.conditions}", fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=55)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
