"""Figures as pictures: reliability, recall by duration and intensity, confusion of emotions, thresholds."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from tools.evaluate.figures import Estimate, Figures
from tools.evaluate.records import NAMES
from tools.evaluate.table import DURATIONS_MS, INTENSITIES

matplotlib.use("agg")
from matplotlib import pyplot  # the backend is chosen before pyplot, which would look for a screen


def write(of: Mapping[str, Figures], folder: Path) -> list[Path]:
    """Write all pictures into `folder`; give their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png" for name in ("reliability", "recall", "confusion", "thresholds")]
    _reliability(of, paths[0])
    _recall(of, paths[1])
    _confusion(of, paths[2])
    _thresholds(of, paths[3])
    return paths


def _reliability(of: Mapping[str, Figures], path: Path) -> None:
    kinds = list(next(iter(of.values())).reliability)
    figure, axes = pyplot.subplots(
        2, len(kinds), figsize=(4.2 * len(kinds), 5.6), height_ratios=(3, 1), sharex=True, squeeze=False
    )
    for column, kind in enumerate(kinds):
        upper, lower = axes[0, column], axes[1, column]
        upper.plot((0, 1), (0, 1), color="black", linewidth=0.6)
        for number, (name, figures) in enumerate(of.items()):
            bins = figures.reliability[kind]
            stated = [part.stated for part in bins]
            upper.plot(stated, [part.right for part in bins], marker="o", label=name)
            lower.bar(
                [place + 0.02 * number for place in stated],
                [part.count for part in bins],
                width=0.02,
                alpha=0.7,
            )
        upper.set(title=kind, xlim=(0, 1.02), ylim=(0, 1.02))
        lower.set(xlabel="stated", ylabel="answers")
    axes[0, 0].set_ylabel("right")
    axes[0, 0].legend(fontsize=8)
    _save(figure, path)


def _recall(of: Mapping[str, Figures], path: Path) -> None:
    durations = [(f"{low}-{high}", f"recall_{low}_to_{high}_ms") for low, high in DURATIONS_MS]
    classes = (
        ("duration, ms", durations),
        (
            "duration, ms, peaks from 1 % IOD",
            [(short, f"{name}_from_1_percent") for short, name in durations],
        ),
        ("peak, % IOD", [(f"{a:g}-{b:g}", f"recall_{a:g}_to_{b:g}_percent") for a, b in INTENSITIES]),
    )
    figure, axes = pyplot.subplots(1, len(classes), figsize=(5 * len(classes), 4.2), sharey=True)
    for axis, (title, names) in zip(axes, classes, strict=True):
        for number, (label, figures) in enumerate(of.items()):
            estimates = [figures.estimates[name] for _, name in names]
            axis.errorbar(
                np.arange(len(names)) + 0.08 * number,
                [estimate.value for estimate in estimates],
                yerr=np.array([_whiskers(estimate) for estimate in estimates]).T,
                marker="o",
                capsize=3,
                label=label,
            )
        axis.set_xticks(range(len(names)), [short for short, _ in names])
        axis.set(xlabel=title, ylim=(0, 1.02))
    axes[0].set_ylabel("recall")
    axes[0].legend(fontsize=8)
    _save(figure, path)


def _whiskers(estimate: Estimate) -> tuple[float, float]:
    down, up = estimate.value - estimate.low, estimate.high - estimate.value
    return (0.0, 0.0) if np.isnan(down) else (max(down, 0.0), max(up, 0.0))


def _confusion(of: Mapping[str, Figures], path: Path) -> None:
    figure, axes = pyplot.subplots(1, len(of), figsize=(6 * len(of), 5.4), squeeze=False)
    for axis, (name, figures) in zip(axes[0], of.items(), strict=True):
        counts = figures.confusion
        axis.imshow(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), vmin=0, vmax=1, cmap="Blues")
        for (row, column), number in np.ndenumerate(counts):
            if number:
                axis.text(column, row, f"{number:.0f}", ha="center", va="center", fontsize=8)
        axis.set_xticks(range(len(NAMES)), NAMES, rotation=45, ha="right")
        axis.set_yticks(range(len(NAMES)), NAMES)
        axis.set(title=name, xlabel="answer", ylabel="truth")
    _save(figure, path)


def _thresholds(of: Mapping[str, Figures], path: Path) -> None:
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.4))
    for name, figures in of.items():
        points = figures.curve
        left.plot([p.threshold for p in points], [p.counts.f1 for p in points], marker=".", label=name)
        right.plot(
            [p.false_per_hour for p in points], [p.counts.recall for p in points], marker=".", label=name
        )
    left.set(xlabel="spot.threshold", ylabel="F1", ylim=(0, 1.02))
    right.set(xlabel="false alarms an hour", ylabel="recall", ylim=(0, 1.02))
    right.set_xscale("symlog", linthresh=1.0)
    left.legend(fontsize=8)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)
