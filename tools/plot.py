"""Draw one recording: motion signals, the spotter's evidence, events and refusals, and the truth if it is known.

python -m tools.plot VIDEO OUT.png [--truth VIDEO.json] [--seconds 10]
"""

import argparse
import json
from pathlib import Path

import numpy as np
from matplotlib import pyplot

from edge.config import load
from edge.evidence import CONFUSERS, PHASES, STEP_NS, Evidence
from edge.frames.replay import ReplaySource
from edge.pipeline import Pipeline, load_models
from edge.records import Event, NotAssessable, Refusal
from edge.regions import CHANNELS, REGIONS

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
    "gaze": "tab:cyan",
    "head": "tab:gray",
    "light": "gold",
}


def main() -> None:
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
    options = parser.parse_args()
    config = load(None, options.set)
    pipeline = Pipeline(config, load_models(config))
    source = ReplaySource(options.video, start_s=options.start, seconds=options.seconds)
    evidence: list[Evidence] = []
    events: list[Event] = []
    refusals: list[Refusal] = []
    stretches: list[NotAssessable] = []
    try:
        for frame in source.frames():
            events += pipeline.feed(frame)
            evidence += pipeline.spotter.evidence
            refusals += pipeline.refusals
            stretches += pipeline.not_assessable
        events += pipeline.finish()
        evidence += pipeline.spotter.evidence
        refusals += pipeline.refusals
    finally:
        source.close()
        pipeline.close()
    truth = json.loads(options.truth.read_text()) if options.truth else []
    _draw(evidence, events, refusals, stretches, truth, options.picture)


def _draw(
    evidence: list[Evidence],
    events: list[Event],
    refusals: list[Refusal],
    stretches: list[NotAssessable],
    truth: list[dict[str, object]],
    path: Path,
) -> None:
    parts = [(part.start_ns + STEP_NS * np.arange(len(part))) * 1e-9 for part in evidence]
    times = np.concatenate(parts) if parts else np.zeros(0)
    figure, axes = pyplot.subplots(4, 1, figsize=(18, 12), sharex=True, height_ratios=(4, 2, 2, 1.2))
    motion = np.concatenate([part.motion for part in evidence]) if evidence else np.zeros((0, len(CHANNELS)))
    for number, name in enumerate(_SHOWN):
        values = 100 * motion[:, CHANNELS.index(name)]
        axes[0].plot(times, np.clip(values - np.median(values), -4, 4) + 3 * number, linewidth=0.7)
    axes[0].set_yticks(3 * np.arange(len(_SHOWN)), _SHOWN)
    axes[0].set_title(f"skin motion, % IOD, 3 apart ({len(REGIONS)} regions are measured)")
    for axis, name, labels in ((axes[1], "phase", PHASES), (axes[2], "confusers", CONFUSERS)):
        values = (
            np.concatenate([getattr(part, name) for part in evidence])
            if evidence
            else np.zeros((0, len(labels)))
        )
        for column, label in enumerate(labels):
            axis.plot(times, values[:, column], linewidth=0.9, label=label)
        axis.set_ylim(0, 1.05)
        axis.set_title(name)
        axis.legend(loc="upper right", ncols=5, fontsize=8)
    axis = axes[3]
    axis.set_yticks([0, 1, 2, 3], ["not assessable", "refused", "events", "truth"])
    axis.set_ylim(-0.6, 3.6)
    for item in truth:
        onset, offset, kind = float(str(item["onset_s"])), float(str(item["offset_s"])), str(item["kind"])
        axis.barh(3, offset - onset, left=onset, height=0.7, color=_COLOURS[kind], alpha=0.6)
        axis.text(onset, 3.4, f"{kind} {str(item['emotion'])[:4]}", fontsize=6, rotation=25)
    for event in events:
        spot = event.spot
        axis.barh(
            2,
            (spot.offset_ns - spot.onset_ns) * 1e-9,
            left=spot.onset_ns * 1e-9,
            height=0.7,
            color="tab:green",
        )
        axis.text(spot.onset_ns * 1e-9, 2.2, str(event.emotion), fontsize=7)
        axes[0].axvspan(spot.onset_ns * 1e-9, spot.offset_ns * 1e-9, color="tab:green", alpha=0.2)
    for refusal in refusals:
        spot = refusal.spot
        axis.barh(
            1,
            (spot.offset_ns - spot.onset_ns) * 1e-9,
            left=spot.onset_ns * 1e-9,
            height=0.7,
            color="tab:brown",
        )
        axis.text(spot.onset_ns * 1e-9, 1.2, str(refusal.reason), fontsize=6)
    for stretch in stretches:
        axis.barh(
            0,
            (stretch.end_ns - stretch.start_ns) * 1e-9,
            left=stretch.start_ns * 1e-9,
            height=0.7,
            color="black",
        )
    axis.set_xlabel("media time, s")
    figure.tight_layout()
    figure.savefig(path, dpi=70)


if __name__ == "__main__":
    main()
