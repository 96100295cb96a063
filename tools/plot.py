"""Draw one recording: motion signals, the spotter's evidence, events and refusals, and the truth if it is known.

python -m tools.plot VIDEO OUT.png [--truth VIDEO.json] [--start 0] [--seconds 10]
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from edge.config import load
from edge.evidence import CONFUSERS, PHASES, STEP_NS, Evidence
from edge.frames.replay import ReplaySource
from edge.pipeline import Pipeline
from edge.regions import CHANNELS, REGIONS
from tools.evaluate.records import Recording, Truth, watch

matplotlib.use("agg")
from matplotlib import pyplot  # the backend is chosen before pyplot, which would look for a screen

_SHOWN = (
    "right_brow_inner.y",
    "left_brow_inner.y",
    "right_upper_lid.y",
    "left_upper_lid.y",
    "right_nose_wing.y",
    "right_cheek.y",
    "right_lip_corner.y",
    "left_lip_corner.y",
    "chin.y",
)
_COLOURS = {
    "micro": "tab:green",
    "macro": "tab:red",
    "blink": "tab:blue",
    "speech": "tab:orange",
    "head": "tab:gray",
}
_OTHER_COLOUR = "tab:cyan"


class Signals:
    """Collects what the spotter saw; its `note` is the observer that `tools.evaluate.records.watch` asks for."""

    def __init__(self) -> None:
        self.evidence: list[Evidence] = []

    def note(self, pipeline: Pipeline) -> None:
        """Take what the last frame made final."""
        self.evidence += pipeline.spotter.evidence


def draw(
    signals: Signals,
    recording: Recording,
    path: Path,
    *,
    title: str = "",
    span_s: tuple[float, float] | None = None,
    mark_s: tuple[float, float] | None = None,
) -> None:
    """Write a picture of a recording.

    Args:
        signals: noted while the recording was made.
        recording: its truth, answers, refusals and stretches are drawn below the signals.
        path: PNG.
        title: above everything.
        span_s: only this part.
        mark_s: shaded through all rows.
    """
    figure, axes = pyplot.subplots(4, 1, figsize=(18, 12), sharex=True, height_ratios=(4, 2, 2, 1.8))
    try:
        low_s, high_s = span_s or (0.0, max(recording.duration_s, 1e-3))
        times = _joined(
            [(part.start_ns + STEP_NS * np.arange(len(part))) * 1e-9 for part in signals.evidence], ()
        )
        seen = (times >= low_s) & (times <= high_s)
        motion = _joined([part.motion for part in signals.evidence], (len(CHANNELS),))[seen]
        for number, name in enumerate(_SHOWN):
            values = 100 * motion[:, CHANNELS.index(name)]
            middle = np.median(values) if len(values) else 0.0
            axes[0].plot(times[seen], np.clip(values - middle, -3, 3) + 2 * number, linewidth=0.8)
        axes[0].set_yticks(2 * np.arange(len(_SHOWN)), _SHOWN)
        axes[0].set_title(f"skin motion, % IOD, 2 apart ({len(REGIONS)} regions are measured)")
        for axis, name, labels in ((axes[1], "phase", PHASES), (axes[2], "confusers", CONFUSERS)):
            values = _joined([getattr(part, name) for part in signals.evidence], (len(labels),))[seen]
            for column, label in enumerate(labels):
                axis.plot(times[seen], values[:, column], linewidth=0.9, label=label)
            axis.set_ylim(0, 1.05)
            axis.set_title(name)
            axis.legend(loc="upper right", ncols=5, fontsize=8)
        _draw_intervals(axes[3], recording, (low_s, high_s))
        for axis in axes:
            if mark_s is not None:
                axis.axvspan(*mark_s, color="tab:purple", alpha=0.12)
            for answer in recording.answers:
                axis.axvspan(answer.onset_s, answer.offset_s, color="tab:green", alpha=0.12)
        axes[3].set_xlim(low_s, high_s)
        axes[3].set_xlabel("media time, s")
        if title:
            figure.suptitle(title)
        figure.tight_layout()
        figure.savefig(path, dpi=70)
    finally:
        pyplot.close(figure)


def _draw_intervals(axis: Axes, recording: Recording, span_s: tuple[float, float]) -> None:
    """Draw what happened and what was said of it, a row each."""
    axis.set_yticks([0, 1, 2, 3], ["not assessable", "refused", "events", "truth"])
    axis.set_ylim(-0.6, 4.9)

    def bar(row: float, onset_s: float, offset_s: float, colour: str, text: str = "") -> None:
        if offset_s < span_s[0] or onset_s > span_s[1]:
            return
        axis.barh(row, offset_s - onset_s, left=onset_s, height=0.7, color=colour, alpha=0.6)
        axis.text(max(onset_s, span_s[0]), row + 0.3, text, fontsize=7, rotation=10, clip_on=True)

    for truth in recording.truth:
        size = f" {100 * truth.peak_iod:.1f} %" if truth.peak_iod else ""
        units = " ".join(f"{au}{'' if side == 'both' else side[:1]}" for au, side in truth.action_units)
        bar(
            3,
            truth.onset_s,
            truth.offset_s,
            _COLOURS.get(truth.kind, _OTHER_COLOUR),
            f"{truth.kind} {truth.emotion[:8]} {units}{size}",
        )
    for answer in recording.answers:
        bar(2, answer.onset_s, answer.offset_s, "tab:green", f"{answer.emotion} {answer.score:.2f}")
    for refused in recording.refused:
        bar(
            1,
            refused.answer.onset_s,
            refused.answer.offset_s,
            "tab:brown",
            f"{refused.reason} {refused.answer.score:.2f}",
        )
    for stretch in recording.not_assessable:
        bar(0, stretch.start_s, stretch.end_s, "black", stretch.reason)


def _joined(parts: list[NDArray[np.float32]], shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.concatenate(parts) if parts else np.zeros((0, *shape), np.float32)


def read_truth(path: Path) -> tuple[Truth, ...]:
    """Read the truth that tools.simulate.clips writes beside a video.

    Raises:
        ValueError: not such a file.
    """

    def item(record: dict[str, object]) -> Truth:
        known = {name: record[name] for name in Truth.__slots__ if name in record}
        return Truth(**known)  # type: ignore[arg-type]

    try:
        return tuple(item(record) for record in json.loads(path.read_text()))
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: is not the truth of a rendered clip ({error})") from error


def main(arguments: Iterable[str] | None = None) -> None:
    """Run the pipeline over the recording and draw what it saw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--truth", type=Path)
    parser.add_argument("--start", type=float, default=0.0)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value")
    options = parser.parse_args(None if arguments is None else list(arguments))
    config = load(None, options.set)
    truth = read_truth(options.truth) if options.truth else ()
    signals = Signals()
    source = ReplaySource(options.video, start_s=options.start, seconds=options.seconds)
    try:
        recording = watch(source.frames(), config, truth, options.video.name, "", observe=signals.note)
    finally:
        source.close()
    draw(signals, recording, options.picture, title=options.video.name)


if __name__ == "__main__":
    main()
