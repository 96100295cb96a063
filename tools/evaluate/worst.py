"""The worst misses and the worst false alarms of a run, looked at again: signals, evidence and truth around them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from edge.records import Frame
from tools.evaluate.figures import why_missed
from tools.evaluate.matching import Interval, Outcome, Rules, match
from tools.evaluate.records import Recording, watch
from tools.evaluate.running import Work, open_set
from tools.plot import Signals, draw

_BEFORE_S, _AFTER_S = 1.5, 1.5
_UNTIL_S = 3.0
"""The pipeline is run from the start, since it learns the face, to this long after the last case of a recording."""


@dataclass(frozen=True, slots=True)
class Case:
    """One miss or false alarm."""

    file: str
    recording: str
    onset_s: float
    offset_s: float
    title: str


def choose(recordings: Iterable[Recording], rules: Rules, most: int) -> list[Case]:
    """Choose the device's worst: misses by planted peak, then length, and false alarms by evidence."""
    outcomes = [match(recording, rules) for recording in recordings if recording.spotter == "device"]
    missed = [
        (outcome, miss.truth)
        for outcome in outcomes
        for miss in outcome.missed
        if rules.counts(miss.truth) and (rules.is_strict or not miss.is_excused)
    ]
    missed.sort(key=lambda pair: (-(pair[1].peak_iod or 0.0), pair[1].onset_s - pair[1].offset_s))
    false = [(outcome, answer) for outcome in outcomes for answer in outcome.false]
    false.sort(key=lambda pair: -pair[1].score)
    cases = []
    for number, (outcome, truth) in enumerate(missed[:most], 1):
        size = f"{100 * truth.peak_iod:.1f} % IOD" if truth.peak_iod else "size unknown"
        what = f"missed {truth.emotion}, {size}, {why_missed(truth, outcome)}"
        cases.append(_case(f"missed-{number}", outcome, truth, what))
    for number, (outcome, answer) in enumerate(false[:most], 1):
        what = f"false alarm {answer.emotion}, evidence {answer.score:.2f}"
        cases.append(_case(f"false-{number}", outcome, answer, what))
    return cases


def plot(work: Work, cases: Sequence[Case], folder: Path) -> list[Path]:
    """Run the recordings of these cases again and draw each; give the paths.

    Raises:
        ValueError, OSError: what the run was made of is no longer there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    by_recording: defaultdict[str, list[Case]] = defaultdict(list)
    for case in cases:
        by_recording[case.recording].append(case)
    recordings = open_set(work) if cases else None
    paths = []
    for name, of in by_recording.items():
        assert recordings is not None
        source = recordings.source(name)
        end_s = max(case.offset_s for case in of) + _UNTIL_S
        signals = Signals()
        frames: Iterable[Frame] = takewhile(lambda f: f.timestamp_ns < end_s * 1e9, source.frames())  # noqa: B023
        seen = watch(frames, work.config, source.truth, name, source.subject, observe=signals.note)
        for case in of:
            path = folder / f"{case.file}.png"
            draw(
                signals,
                seen,
                path,
                title=f"{name}: {case.title}",
                span_s=(max(0.0, case.onset_s - _BEFORE_S), case.offset_s + _AFTER_S),
                mark_s=(case.onset_s, case.offset_s),
            )
            paths.append(path)
    return sorted(paths)


def _case(file: str, outcome: Outcome, of: Interval, what: str) -> Case:
    length_ms = 1000 * (of.offset_s - of.onset_s)
    title = f"{what}, {length_ms:.0f} ms at {of.onset_s:.2f} s"
    return Case(file, outcome.recording.name, of.onset_s, of.offset_s, title)
