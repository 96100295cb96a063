"""What the scorer works on: recordings with their truth, and what the device said of them.

A run is saved as JSON lines, a header and one recording a line, so that an interrupted run can go on and a
finished one can be scored again without running anything.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from edge.config import Config
from edge.inference.models import load_models
from edge.pipeline import Pipeline
from edge.records import EMOTIONS, ActionUnit, Event, Frame, NotAssessable, Refusal, Spot

SCHEMA = "microedge.recordings/1"

NAMES = (*EMOTIONS, "other")
"""What `Answer.probabilities` stand for, in order."""


@dataclass(frozen=True, slots=True)
class Truth:
    """Something that happened, as it was planted or annotated. Times are media time, s."""

    kind: str
    """`micro`, `macro`, or the name of what confuses a spotter (`blink`, `speech`, `head`...)."""
    onset_s: float
    apex_s: float | None
    """None where the annotators gave none."""
    offset_s: float
    emotion: str = ""
    """One of EMOTIONS, `other`, or empty where none is known."""
    action_units: tuple[tuple[str, str], ...] = ()
    """(AU, side): `AU12` and `right`, `left` (the subject's) or `both`."""
    peak_iod: float | None = None
    """Greatest displacement, IOD; None where it was not measured."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One interval that a spotter gave, as an event or as a candidate that it turned down."""

    onset_s: float
    apex_s: float
    offset_s: float
    score: float
    """Evidence that it is a micro-expression, 0..1."""
    emotion: str | None
    """One of EMOTIONS, `other`, `uncertain`; None where none is named."""
    confidence: float
    """Probability of the top emotion, 0..1."""
    probabilities: tuple[float, ...] = ()
    """In the order of NAMES; empty from a spotter that knows no emotions."""
    action_units: tuple[ActionUnit, ...] = ()
    regions: tuple[float, ...] = ()
    """Evidence in eyes, brows, nose and mouth, 0..1."""
    intensity_iod: float = 0.0
    told_s: float | None = None
    """Media time of the frame that brought it; None where it was not noted."""

    @classmethod
    def of(cls, event: Event, told_s: float | None = None) -> "Answer":
        """Make it from an event of the device."""
        return replace(cls._from(event.spot, event.emotion, event.confidence), told_s=told_s)

    @classmethod
    def of_refusal(cls, refusal: Refusal) -> "Answer":
        """Make it from a candidate that the device turned down: its top emotion, however weak."""
        shares = refusal.spot.probabilities
        top = max(range(len(shares)), key=shares.__getitem__)
        return cls._from(refusal.spot, NAMES[top], shares[top])

    @classmethod
    def _from(cls, spot: Spot, emotion: str | None, confidence: float) -> "Answer":
        return cls(
            spot.onset_ns * 1e-9,
            spot.apex_ns * 1e-9,
            spot.offset_ns * 1e-9,
            spot.score,
            emotion,
            confidence,
            spot.probabilities,
            spot.action_units,
            spot.regions,
            spot.intensity_iod,
        )


@dataclass(frozen=True, slots=True)
class Refused:
    """A candidate that the device turned down."""

    answer: Answer
    reason: str
    """One of `edge.records.Reason`."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of media time that the device declared not assessable."""

    start_s: float
    end_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording, its truth, and all that a spotter said of it."""

    name: str
    subject: str
    rate_hz: float
    duration_s: float
    assessable_s: float
    truth: tuple[Truth, ...]
    answers: tuple[Answer, ...]
    refused: tuple[Refused, ...] = ()
    not_assessable: tuple[Stretch, ...] = ()
    spotter: str = "device"
    """Whose answers these are."""


def watch(
    frames: Iterable[Frame],
    config: Config,
    truth: Iterable[Truth],
    name: str,
    subject: str,
    *,
    observe: Callable[[Pipeline], None] | None = None,
) -> Recording:
    """Run the device's pipeline over a recording.

    Args:
        frames: the whole recording, in order.
        config: as on the device.
        truth: what is known to happen in it; may be filled while the frames are drawn.
        name: how reports name the recording.
        subject: who is seen; bootstrap and leave-one-subject-out go by it.
        observe: called after each frame and at the end, for signals that a plot needs.

    Raises:
        ModelError: a model is absent or damaged.
    """
    pipeline = Pipeline(config, load_models(config))
    answers: list[Answer] = []
    refusals: list[Refusal] = []
    stretches: list[NotAssessable] = []

    def note() -> None:
        refusals.extend(pipeline.refusals)
        stretches.extend(pipeline.not_assessable)
        if observe is not None:
            observe(pipeline)

    try:
        for frame in frames:
            answers += [Answer.of(event, frame.timestamp_ns * 1e-9) for event in pipeline.feed(frame)]
            note()
        # What is told only because the recording ends says nothing about the delay.
        answers += [Answer.of(event) for event in pipeline.finish()]
        note()
        statistics = pipeline.statistics
    finally:
        pipeline.close()
    return Recording(
        name,
        subject,
        round(statistics.frame_rate_hz, 2),
        statistics.duration_s,
        statistics.assessable_s,
        tuple(truth),
        tuple(answers),
        tuple(Refused(Answer.of_refusal(refusal), str(refusal.reason)) for refusal in refusals),
        merged(stretches),
    )


def merged(stretches: Iterable[NotAssessable]) -> tuple[Stretch, ...]:
    """Join stretches that follow on each other for the same reason: the device gives one per frame."""
    joined: list[Stretch] = []
    for stretch in stretches:
        start_s, end_s, reason = stretch.start_ns * 1e-9, stretch.end_ns * 1e-9, str(stretch.reason)
        if joined and joined[-1].reason == reason and start_s - joined[-1].end_s < 1e-6:
            joined[-1] = Stretch(joined[-1].start_s, end_s, reason)
        else:
            joined.append(Stretch(start_s, end_s, reason))
    return tuple(joined)


class Source(Protocol):
    """A recording that can be run."""

    @property
    def name(self) -> str: ...

    @property
    def subject(self) -> str: ...

    @property
    def rate_hz(self) -> float: ...

    @property
    def truth(self) -> tuple[Truth, ...]: ...

    def frames(self) -> Iterator[Frame]: ...


class Run:
    """A saved run that grows while recordings are made.

    Args:
        path: the file; None keeps nothing on disk.
        header: how the run was made. A file made otherwise is not continued.

    Raises:
        ValueError: the file holds another run; the message names what differs.
    """

    def __init__(self, path: Path | None, header: dict[str, Any]) -> None:
        self._path = path
        self.recordings: list[Recording] = []
        if path is None:
            return
        if path.exists() and path.stat().st_size:
            found, self.recordings = load(path)
            keys = sorted(found.keys() | header.keys())
            differing = [
                f"{key}: {found.get(key)!r} there, {header.get(key)!r} here"
                for key in keys
                if found.get(key) != header.get(key)
            ]
            if differing:
                raise ValueError(
                    f"{path} holds a run made otherwise ({'; '.join(differing)}); choose another file"
                )
        # Written anew, so that a line cut short by an interruption is gone.
        save(path, header, self.recordings)

    def add(self, recording: Recording) -> None:
        """Keep a recording, on disk at once."""
        self.recordings.append(recording)
        if self._path is not None:
            with self._path.open("a") as lines:
                lines.write(json.dumps(asdict(recording)) + "\n")


def save(path: Path, header: dict[str, Any], recordings: Iterable[Recording]) -> None:
    """Write a run as JSON lines: the header, then one recording a line; the file is whole or as it was."""
    part = path.with_name(path.name + ".part")
    with part.open("w") as lines:
        lines.write(json.dumps({"schema": SCHEMA, **header}) + "\n")
        for recording in recordings:
            lines.write(json.dumps(asdict(recording)) + "\n")
    part.replace(path)


def load(path: Path) -> tuple[dict[str, Any], list[Recording]]:
    """Read a run.

    Returns:
        The header without its schema, and the recordings; a last line that was cut short is left out.

    Raises:
        ValueError: not a saved run, or a damaged one; the message names file and line.
    """
    lines = path.read_text().split("\n")
    try:
        header = json.loads(lines[0])
        if header.pop("schema") != SCHEMA:
            raise KeyError("schema")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}, line 1: is not the head of a saved run ({SCHEMA})") from error
    recordings = []
    for number, line in enumerate(lines[1:], 2):
        if not line:
            continue
        try:
            recordings.append(_recording(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):  # no line end: the run was interrupted while it was written
                break
            raise ValueError(f"{path}, line {number}: is not a recording ({error})") from error
    return header, recordings


def _recording(record: dict[str, Any]) -> Recording:
    return Recording(
        **record
        | {
            "truth": tuple(
                Truth(**item | {"action_units": tuple((au, side) for au, side in item["action_units"])})
                for item in record["truth"]
            ),
            "answers": tuple(_answer(item) for item in record["answers"]),
            "refused": tuple(Refused(_answer(item["answer"]), item["reason"]) for item in record["refused"]),
            "not_assessable": tuple(Stretch(**item) for item in record["not_assessable"]),
        }
    )


def _answer(item: dict[str, Any]) -> Answer:
    return Answer(
        **item
        | {
            "probabilities": tuple(item["probabilities"]),
            "action_units": tuple(ActionUnit(**unit) for unit in item["action_units"]),
            "regions": tuple(item["regions"]),
        }
    )
