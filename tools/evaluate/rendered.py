"""Score the device's own pipeline on rendered clips of people that training never saw.

    python -m tools.evaluate --photos DIR --labels NPZ --model NPZ [--clips 24] [--seconds 20] [--json FILE]

Spotting follows the rules of the micro-expression grand challenges (MEGC): an event is true if its interval
overlaps a planted one with IoU >= 0.5, one to one, and counts are pooled over all clips before F1. The truth
are the planted micro-expressions of 40-200 ms; a reported event that matches a longer one (up to 500 ms), or a
stretch that the device declared not assessable, counts neither way.
"""

import argparse
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from multiprocessing import Pool
from pathlib import Path

import cv2
import numpy as np

from edge.config import load
from edge.frames.script import HARD
from edge.frames.synthetic import SyntheticSource
from edge.pipeline import Pipeline, load_models
from edge.records import EMOTIONS, Event, NotAssessable, Refusal
from tools.faces.photos import MESH_INDEX
from tools.simulate.clips import RenderedClip
from tools.simulate.people import People
from tools.simulate.script import Mix, Planted
from tools.simulate.sensor import Conditions


@dataclass(slots=True)
class Outcome:
    """What came of one clip."""

    subject: str
    truth: list[Planted]
    events: list[Event]
    refusals: list[Refusal]
    not_assessable: list[NotAssessable]
    duration_s: float
    assessable_s: float


@dataclass(slots=True)
class Score:
    """Pooled counts."""

    hits: list[tuple[Planted, Event]] = field(default_factory=list)
    missed: list[tuple[int, Planted]] = field(default_factory=list)
    false: list[tuple[int, Event]] = field(default_factory=list)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN)."""
        found = 2 * len(self.hits)
        return found / max(found + len(self.missed) + len(self.false), 1)


def overlap_ratio(planted: Planted, event: Event) -> float:
    """Give the intersection over the union of the two intervals."""
    onset, offset = event.spot.onset_ns * 1e-9, event.spot.offset_ns * 1e-9
    common = min(planted.offset_s, offset) - max(planted.onset_s, onset)
    return max(0.0, common) / (max(planted.offset_s, offset) - min(planted.onset_s, onset))


def score(
    outcomes: list[Outcome], *, peak_iod: tuple[float, float], duration_s: tuple[float, float]
) -> Score:
    """Match events to planted micro-expressions, best overlap first, one to one."""
    result = Score()
    for number, outcome in enumerate(outcomes):
        micro = [planted for planted in outcome.truth if planted.kind == "micro"]
        pairs = sorted(
            (
                (overlap_ratio(planted, event), p, e)
                for p, planted in enumerate(micro)
                for e, event in enumerate(outcome.events)
            ),
            reverse=True,
        )
        taken_p: dict[int, int] = {}
        taken_e: set[int] = set()
        for ratio, p, e in pairs:
            if ratio >= 0.5 and p not in taken_p and e not in taken_e:
                taken_p[p] = e
                taken_e.add(e)
        for p, planted in enumerate(micro):
            length = planted.offset_s - planted.onset_s
            counts = (
                peak_iod[0] <= planted.peak_iod <= peak_iod[1] and duration_s[0] <= length <= duration_s[1]
            )
            if counts and p in taken_p:
                result.hits.append((planted, outcome.events[taken_p[p]]))
            elif counts and not _unassessed(planted, outcome.not_assessable):
                result.missed.append((number, planted))
        result.false += [(number, event) for e, event in enumerate(outcome.events) if e not in taken_e]
    return result


def _unassessed(planted: Planted, stretches: list[NotAssessable]) -> bool:
    return any(s.start_ns * 1e-9 < planted.offset_s and planted.onset_s < s.end_ns * 1e-9 for s in stretches)


def run_clip(job: tuple[argparse.Namespace, int]) -> Outcome:
    """Render clip `number` and run the pipeline over it."""
    options, number = job
    people = People.read(options.photos, options.labels, options.model, options.split)
    rng = np.random.default_rng([number, options.seed])
    photo = int(rng.integers(len(people.photos)))
    clip = (
        _facs_clip(people, photo, options, number)
        if options.renderer == "facs"
        else _ict_clip(people, photo, options, number, rng)
    )
    config = load(None, options.set)
    pipeline = Pipeline(config, load_models(config))
    events: list[Event] = []
    refusals: list[Refusal] = []
    stretches: list[NotAssessable] = []
    for frame in clip.frames():
        events += pipeline.feed(frame)
        refusals += pipeline.refusals
        stretches += pipeline.not_assessable
    events += pipeline.finish()
    refusals += pipeline.refusals
    statistics = pipeline.statistics
    pipeline.close()
    return Outcome(
        people.photos[photo].subject,
        clip.truth,
        events,
        refusals,
        stretches,
        statistics.duration_s,
        statistics.assessable_s,
    )


def _ict_clip(
    people: People, photo: int, options: argparse.Namespace, number: int, rng: np.random.Generator
) -> RenderedClip:
    mix = Mix(
        peak_iod=(options.peak_min / 100, 0.025), micro=0.0 if options.negatives else 0.4, gap_s=(0.4, 1.8)
    )
    return RenderedClip(
        people.rig(photo),
        seconds=options.seconds,
        rate_hz=options.rate,
        mix=mix,
        conditions=Conditions.draw(rng),
        seed=number * 1000 + options.seed,
    )


class _FacsClip:
    """The device's own synthetic source in the shape of a RenderedClip."""

    def __init__(self, source: SyntheticSource) -> None:
        kinds = {"head turn": "head"}
        self.frames = source.frames
        self.truth = [
            Planted(
                kinds.get(event.kind, event.kind),
                event.onset_s,
                event.apex_s,
                event.offset_s,
                event.emotion or "",
                tuple((unit.au, unit.side) for unit in event.action_units),
                event.peak_iod,
            )
            for event in source.truth
        ]


def _facs_clip(people: People, photo: int, options: argparse.Namespace, number: int) -> _FacsClip:
    script = replace(HARD, micro_peak_iod=(options.peak_min / 100, 0.025))
    if options.negatives:
        script = replace(script, micro_per_min=0.0)
    luma = cv2.imread(str(people.photos[photo].path), cv2.IMREAD_GRAYSCALE)
    points = people.meshes[photo][list(MESH_INDEX)][:, :2].copy()
    seed = number * 1000 + options.seed
    return _FacsClip(
        SyntheticSource(luma, points, rate_hz=options.rate, seconds=options.seconds, seed=seed, script=script)
    )


def summary(outcomes: list[Outcome]) -> dict[str, object]:
    """Give the figures as they are printed."""
    whole, common = (0.0, 1.0), (0.04, 0.2)
    strong = score(outcomes, peak_iod=(0.01, 1.0), duration_s=common)
    every = score(outcomes, peak_iod=(0.0, 1.0), duration_s=common)
    hours = sum(outcome.assessable_s for outcome in outcomes) / 3600
    brief = score(outcomes, peak_iod=(0.01, 1.0), duration_s=(0.04, 0.08))
    apex = [abs(p.apex_s - e.spot.apex_ns * 1e-9) * 1e3 for p, e in every.hits]
    onset = [abs(p.onset_s - e.spot.onset_ns * 1e-9) * 1e3 for p, e in every.hits]
    offset = [abs(p.offset_s - e.spot.offset_ns * 1e-9) * 1e3 for p, e in every.hits]
    named = [(p.emotion, EMOTIONS[int(np.argmax(e.spot.probabilities[:7]))]) for p, e in every.hits]
    overlapping = Counter(
        next(
            (
                p.kind
                for p in outcomes[n].truth
                if p.onset_s < e.spot.offset_ns * 1e-9 and e.spot.onset_ns * 1e-9 < p.offset_s
            ),
            "nothing",
        )
        for n, e in every.false
    )
    low, high = _interval(outcomes, whole, common)
    return {
        "clips": len(outcomes),
        "people": len({outcome.subject for outcome in outcomes}),
        "hours": round(sum(outcome.duration_s for outcome in outcomes) / 3600, 4),
        "assessable_share": round(hours * 3600 / max(sum(o.duration_s for o in outcomes), 1e-9), 3),
        "f1_peaks_from_1_percent": round(strong.f1, 3),
        "f1_all_peaks": round(every.f1, 3),
        "f1_all_peaks_95_percent": [round(low, 3), round(high, 3)],
        "true": len(every.hits),
        "missed": len(every.missed),
        "false": len(every.false),
        "recall_from_1_percent": round(len(strong.hits) / max(len(strong.hits) + len(strong.missed), 1), 3),
        "recall_40_80_ms_from_1_percent": round(
            len(brief.hits) / max(len(brief.hits) + len(brief.missed), 1), 3
        ),
        "false_per_hour": round(len(every.false) / max(hours, 1e-9), 1),
        "false_during": dict(overlapping),
        "median_error_ms": {
            name: round(float(np.median(v)), 1) if v else None
            for name, v in (("onset", onset), ("apex", apex), ("offset", offset))
        },
        "emotion_uf1": round(unweighted_f1(named), 3),
        "refusals": dict(Counter(str(r.reason) for o in outcomes for r in o.refusals)),
    }


def listing(outcomes: list[Outcome]) -> list[str]:
    """Name each missed planted event, with what was said of it, and each false alarm."""
    result = score(outcomes, peak_iod=(0.0, 1.0), duration_s=(0.04, 0.2))
    lines = []
    for number, p in result.missed:
        said = [
            f"{refusal.reason} ({refusal.spot.score:.2f})"
            for refusal in outcomes[number].refusals
            if refusal.spot.onset_ns * 1e-9 < p.offset_s and p.onset_s < refusal.spot.offset_ns * 1e-9
        ]
        length_ms = 1000 * (p.offset_s - p.onset_s)
        units = " ".join(au for au, _ in p.action_units)
        lines.append(
            f"missed  clip {number} at {p.onset_s:.2f} s, {length_ms:.0f} ms, {100 * p.peak_iod:.1f} % IOD, "
            f"{p.emotion} {units}: {', '.join(said) or 'not seen'}"
        )
    for number, event in result.false:
        spot = event.spot
        length_ms = (spot.offset_ns - spot.onset_ns) * 1e-6
        lines.append(
            f"false   clip {number} at {spot.onset_ns * 1e-9:.2f} s, {length_ms:.0f} ms, "
            f"{100 * spot.intensity_iod:.1f} % IOD, {event.emotion}, evidence {spot.score:.2f}"
        )
    return lines


def unweighted_f1(named: list[tuple[str, str]]) -> float:
    """Give the mean over the emotions of each one's F1; pairs are (truth, answer)."""
    values = []
    for emotion in EMOTIONS:
        hits = sum(truth == answer == emotion for truth, answer in named)
        wrong = sum((truth == emotion) != (answer == emotion) for truth, answer in named)
        if hits + wrong:
            values.append(2 * hits / (2 * hits + wrong))
    return float(np.mean(values)) if values else 0.0


def _interval(
    outcomes: list[Outcome], peak_iod: tuple[float, float], duration_s: tuple[float, float]
) -> tuple[float, float]:
    """Give the 95 % interval of F1 by drawing people again, 400 times."""
    rng = np.random.default_rng(0)
    people = sorted({outcome.subject for outcome in outcomes})
    of = {subject: [o for o in outcomes if o.subject == subject] for subject in people}
    values = [
        score(
            [o for s in rng.choice(people, len(people)) for o in of[s]],
            peak_iod=peak_iod,
            duration_s=duration_s,
        ).f1
        for _ in range(400)
    ]
    return float(np.percentile(values, 2.5)), float(np.percentile(values, 97.5))


def main() -> None:
    """Print the figures, and write them where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("photos", "labels", "model"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--peak-min", type=float, default=0.4, help="smallest planted peak, %% IOD")
    parser.add_argument(
        "--renderer", choices=("ict", "facs"), default="ict", help="facs: the device's own animator"
    )
    parser.add_argument("--negatives", action="store_true", help="plant confusers only")
    parser.add_argument("--seed", type=int, default=9)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value")
    parser.add_argument("--list", action="store_true", help="name every miss and every false alarm")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    jobs = [(options, number) for number in range(options.clips)]
    if options.jobs > 1:
        with Pool(options.jobs) as pool:
            outcomes = pool.map(run_clip, jobs, chunksize=1)
    else:
        outcomes = [run_clip(job) for job in jobs]
    if options.list:
        for line in listing(outcomes):
            print(line)
    figures = summary(outcomes)
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
