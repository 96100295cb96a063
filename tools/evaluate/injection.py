"""Lose, repeat and misdate frames on purpose and see what the device makes of it.

    python -m tools.evaluate.injection DATA [--clips 6] [--seconds 10] [--negatives] [--json FILE]

Each clip is rendered once (arguments as for `tools.evaluate rendered`); the same frames then go through the device once
for every fault. Recall may fall; false alarms must not rise; every lost frame must be accounted for.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from edge.config import Config, load
from edge.pipeline import Pipeline
from edge.records import Frame
from tools.evaluate import rendered
from tools.evaluate.matching import Rules, count, match
from tools.evaluate.records import Answer, Recording, Refused, Source, watch

_SECOND_NS = 1_000_000_000
_AHEAD_NS = 3600 * _SECOND_NS
_BACK_NS = 2 * _SECOND_NS

Stamps = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One frame as it reaches the device."""

    index: int
    """Which of the rendered frames it is."""
    timestamp_ns: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Stream:
    """What reaches the device of a clip, in order."""

    deliveries: tuple[Delivery, ...]
    step_ns: int = 0
    """By how much media time is ahead of the clip's..."""
    stepped_after_ns: int = 0
    """...after this time of the clip."""

    def lost(self, frames: int) -> int:
        """Tell how many of the clip's frames never come, or come after a later one."""
        return frames - len({delivery.index for delivery in self.deliveries}) + self._late()

    def refused(self) -> int:
        """Tell how many frames come that should be refused: those that come twice, or after a later one."""
        return len(self.deliveries) - len({delivery.index for delivery in self.deliveries}) + self._late()

    def _late(self) -> int:
        latest, late = -1, 0
        for delivery in self.deliveries:
            late += delivery.index < latest
            latest = max(latest, delivery.index)
        return late


Fault = Callable[[Stamps, np.random.Generator], Stream]
"""Makes a stream of the stamps (n,) of a clip. Its first and last frame always come: of what is lost before the one
or after the other a device cannot know."""


def nothing(stamps: Stamps, _: np.random.Generator) -> Stream:
    """Deliver all frames as they are."""
    return _without(stamps, np.zeros(len(stamps), np.bool_))


def dropped(share: float, *, is_numbered: bool = True) -> Fault:
    """Lose a share of the frames, each by itself; unless `is_numbered`, only the timestamps tell."""

    def fault(stamps: Stamps, rng: np.random.Generator) -> Stream:
        return _without(stamps, rng.random(len(stamps)) < share, is_numbered=is_numbered)

    return fault


def bursts(length: int, every_s: float) -> Fault:
    """Lose so many frames in a row, once in every so many seconds."""

    def fault(stamps: Stamps, rng: np.random.Generator) -> Stream:
        lost = np.zeros(len(stamps), np.bool_)
        each = round(every_s * _rate_hz(stamps))
        for start in range(0, len(stamps) - each + 1, each):
            first = start + int(rng.integers(each - length))
            lost[first : first + length] = True
        return _without(stamps, lost)

    return fault


def stall(seconds: float) -> Fault:
    """Lose all frames of so many seconds, somewhere in the middle half."""

    def fault(stamps: Stamps, rng: np.random.Generator) -> Stream:
        first = _somewhere(stamps, rng)
        lost = np.zeros(len(stamps), np.bool_)
        lost[first : first + round(seconds * _rate_hz(stamps))] = True
        return _without(stamps, lost)

    return fault


def clock_step(step_ns: int) -> Fault:
    """Let the sensor's clock jump, somewhere in the middle half; no frame is lost."""

    def fault(stamps: Stamps, rng: np.random.Generator) -> Stream:
        at = _somewhere(stamps, rng)
        stepped = np.where(np.arange(len(stamps)) >= at, stamps + step_ns, stamps)
        deliveries = tuple(Delivery(i, int(stamp), i) for i, stamp in enumerate(stepped))
        # A clock that goes back does not take media time with it.
        return Stream(deliveries, max(step_ns, 0), int(stamps[at - 1]))

    return fault


def repeated(share: float) -> Fault:
    """Deliver a share of the frames twice."""

    def fault(stamps: Stamps, rng: np.random.Generator) -> Stream:
        times = 1 + (rng.random(len(stamps)) < share)
        return Stream(
            tuple(Delivery(i, int(stamps[i]), i) for i, n in enumerate(times) for _ in range(int(n)))
        )

    return fault


def reordered(share: float) -> Fault:
    """Deliver a share of the frames after the one that follows."""

    def fault(stamps: Stamps, rng: np.random.Generator) -> Stream:
        order = list(range(len(stamps)))
        i = 1
        while i < len(order) - 2:
            if rng.random() < share:
                order[i], order[i + 1] = order[i + 1], order[i]
                i += 1
            i += 1
        return Stream(tuple(Delivery(i, int(stamps[i]), i) for i in order))

    return fault


FAULTS: dict[str, Fault] = {
    "none": nothing,
    "0.1 % lost": dropped(0.001),
    "1 % lost": dropped(0.01),
    "5 % lost": dropped(0.05),
    "5 % lost, not numbered": dropped(0.05, is_numbered=False),
    "bursts of 10, every 2 s": bursts(10, 2.0),
    "2-s stall": stall(2.0),
    "clock 1 h ahead": clock_step(_AHEAD_NS),
    "clock 2 s back": clock_step(-_BACK_NS),
    "1 % twice": repeated(0.01),
    "1 % out of order": reordered(0.01),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the device made of one clip under one fault."""

    fault: str
    clip: str
    lost: int
    """Frames that never came, or too late..."""
    lost_counted: int
    """...and how many the device says were lost."""
    refused: int
    refused_counted: int
    clock_steps: int
    assessable_share: float
    """Of the clip's own length."""
    found: int
    excused: int
    """Micro-expressions not found in time that the device had declared not assessable."""
    missed: int
    false: int


def inject(source: Source, config: Config, faults: dict[str, Fault], seed: int) -> Iterator[Outcome]:
    """Render a clip once and run it under each fault."""
    frames = [replace(frame, luma=np.array(frame.luma)) for frame in source.frames()]
    stamps = np.array([frame.timestamp_ns for frame in frames], np.int64)
    rules = Rules((config.event.min_duration_ms / 1000, config.event.max_duration_ms / 1000))
    for number, (name, fault) in enumerate(faults.items()):
        stream = fault(stamps, np.random.default_rng([seed, number]))
        pipelines: list[Pipeline] = []
        recording = watch(
            (Frame(frames[d.index].luma, d.timestamp_ns, d.sequence) for d in stream.deliveries),
            config, source.truth, source.name, source.subject, observe=pipelines.append,
        )  # fmt: skip
        statistics = pipelines[-1].statistics
        outcome = match(_in_clip_time(recording, stream))
        counts = count([outcome], rules)
        excused = sum(rules.counts(miss.truth) and miss.is_excused for miss in outcome.missed)
        yield Outcome(
            name, source.name,
            stream.lost(len(frames)), statistics.dropped,
            stream.refused(), statistics.out_of_order, statistics.clock_steps,
            round(statistics.assessable_s / (int(stamps[-1] - stamps[0]) / _SECOND_NS), 4),
            counts.true, excused, counts.missed, counts.false,
        )  # fmt: skip


def table(outcomes: Sequence[Outcome]) -> Table:
    """Sum the clips up, a line for each fault."""
    shown = Table(title=f"{len({outcome.clip for outcome in outcomes})} clips")
    for heading in (
        "fault", "lost", "counted", "refused", "steps", "assessable", "found", "excused", "missed",
        "recall", "F1", "false", "false alarms of each clip",
    ):  # fmt: skip
        shown.add_column(heading, justify="left" if heading == "fault" else "right", no_wrap=True)
    for name in dict.fromkeys(outcome.fault for outcome in outcomes):
        part = [outcome for outcome in outcomes if outcome.fault == name]
        found, missed, false = (sum(getattr(o, key) for o in part) for key in ("found", "missed", "false"))
        shown.add_row(
            name,
            str(sum(o.lost for o in part)),
            str(sum(o.lost_counted for o in part)),
            f"{sum(o.refused_counted for o in part)} of {sum(o.refused for o in part)}",
            str(sum(o.clock_steps for o in part)),
            f"{np.mean([o.assessable_share for o in part]):.1%}",
            str(found), str(sum(o.excused for o in part)), str(missed),
            f"{found / (found + missed):.2f}" if found + missed else "-",
            f"{2 * found / (2 * found + false + missed):.2f}" if found + missed else "-",
            str(false), " ".join(str(o.false) for o in part),
        )  # fmt: skip
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Render, inject and show; give the exit code, 1 if a lost frame is not accounted for."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.evaluate.injection",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    rendered.add_arguments(parser)
    parser.set_defaults(clips=6, seconds=10.0)
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the outcome of each clip")
    options = parser.parse_args(arguments)
    config = load(None, options.set)
    clips = rendered.RenderedSet(rendered.plan_of(options))
    outcomes: list[Outcome] = []
    for number, name in enumerate(clips.names(options.clips, options.rate)):
        outcomes += inject(clips.source(name), config, FAULTS, seed=1000 * options.seed + number)
        print(f"{name} done", file=sys.stderr, flush=True)
    # Into a file nothing is wrapped.
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(table(outcomes))
    if options.json:
        options.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n")
    wrong = [outcome for outcome in outcomes if outcome.lost != outcome.lost_counted]
    for outcome in wrong:
        print(f"{outcome.clip}, {outcome.fault}: {outcome.lost} lost, {outcome.lost_counted} counted")
    return 1 if wrong else 0


def _without(stamps: Stamps, lost: NDArray[np.bool_], *, is_numbered: bool = True) -> Stream:
    lost[[0, -1]] = False
    left = np.flatnonzero(~lost)
    return Stream(
        tuple(Delivery(int(i), int(stamps[i]), int(i) if is_numbered else n) for n, i in enumerate(left))
    )


def _rate_hz(stamps: Stamps) -> float:
    return float((len(stamps) - 1) * _SECOND_NS / (stamps[-1] - stamps[0]))


def _somewhere(stamps: Stamps, rng: np.random.Generator) -> int:
    return int(rng.integers(len(stamps) // 4, 3 * len(stamps) // 4))


def _in_clip_time(recording: Recording, stream: Stream) -> Recording:
    """Take back the step of the clock, so that answers can be held against the truth."""
    if stream.step_ns == 0:
        return recording
    after_s, step_s = stream.stepped_after_ns / _SECOND_NS, stream.step_ns / _SECOND_NS

    def back(time_s: float) -> float:
        return time_s if time_s <= after_s else max(after_s, time_s - step_s)

    def answer(given: Answer) -> Answer:
        return replace(
            given, onset_s=back(given.onset_s), apex_s=back(given.apex_s), offset_s=back(given.offset_s)
        )

    return replace(
        recording,
        answers=tuple(answer(each) for each in recording.answers),
        refused=tuple(Refused(answer(each.answer), each.reason) for each in recording.refused),
        not_assessable=tuple(
            replace(each, start_s=back(each.start_s), end_s=back(each.end_s))
            for each in recording.not_assessable
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
