"""Writes what became of a recording: events, refusals and time that could not be assessed, in order of time."""

from collections.abc import Sequence
from pathlib import Path

from edge.errors import PublishError
from edge.evidence import CONFUSERS
from edge.out import Payload
from edge.payload import encode, validate
from edge.pipeline import Statistics
from edge.records import Event, NotAssessable, Refusal

_SCHEMA = "microedge.journal/1"


class Journal:
    """An `EventSink` that also takes what did not become an event, and writes all of it at the end.

    An event is known a fifth of a second after it ended and a stretch without a face when the face is back, so the
    order of time is known only once the stream has ended.
    """

    def __init__(self, path: Path) -> None:
        """Open `path`, emptied.

        Raises:
            PublishError: naming the file, if it cannot be opened for writing.
        """
        self._name = str(path)
        self._lines: list[Payload] = []
        try:
            self._stream = path.open("w", encoding="utf-8", newline="\n")
        except OSError as error:
            raise PublishError(f"{self._name}: cannot be written: {error.strerror}") from error

    def publish(self, event: Event, payload: Payload) -> None:
        """Take an event."""
        self._add("event", event.spot.onset_ns, event.spot.offset_ns, event=payload)

    def note(self, refusals: Sequence[Refusal], not_assessable: Sequence[NotAssessable]) -> None:
        """Take what was turned down and stretches that have ended."""
        for refusal in refusals:
            spot = refusal.spot
            self._add(
                "refusal",
                spot.onset_ns,
                spot.offset_ns,
                reason=str(refusal.reason),
                apex_s=_seconds(spot.apex_ns),
                face_id=spot.face_id,
                spot_score=round(float(spot.score), 3),
                intensity_iod=round(float(spot.intensity_iod), 4),
                confusers={
                    name: round(float(evidence), 3)
                    for name, evidence in zip(CONFUSERS, spot.confusers, strict=True)
                },
            )
        for stretch in not_assessable:
            self._add("not_assessable", stretch.start_ns, stretch.end_ns, reason=str(stretch.reason))

    def conclude(self, statistics: Statistics) -> None:
        """Write everything, and the sum of it as the last line.

        Raises:
            PublishError: naming the file, if the disk is full; or the field that breaks the schema.
        """
        # At the same moment, what makes time unassessable comes before what was turned down for it.
        kinds = ("not_assessable", "refusal", "event")
        self._lines.sort(key=lambda line: (line["start_s"], kinds.index(line["kind"])))
        self._add(
            "summary",
            0,
            round(statistics.duration_s * 1e9),
            frames=statistics.frames,
            frames_dropped=statistics.dropped,
            frame_rate_hz=round(float(statistics.frame_rate_hz), 3),
            assessable_s=round(statistics.assessable_s, 6),
            not_assessable_s={
                str(reason): round(seconds, 6) for reason, seconds in statistics.not_assessable_s.items()
            },
            events=statistics.events,
            refusals={str(reason): count for reason, count in statistics.refusals.items()},
        )
        for line in self._lines:
            validate(line)
        try:
            for line in self._lines:
                self._stream.write(encode(line) + "\n")
            self._stream.flush()
        except OSError as error:
            raise PublishError(f"{self._name}: could not be completed: {error.strerror}") from error

    def close(self) -> None:
        """Close the file. May be called again."""
        try:
            self._stream.close()
        except OSError as error:
            raise PublishError(f"{self._name}: could not be completed: {error.strerror}") from error

    def _add(self, kind: str, start_ns: int, end_ns: int, **more: object) -> None:
        head = {"schema": _SCHEMA, "kind": kind, "start_s": _seconds(start_ns), "end_s": _seconds(end_ns)}
        self._lines.append({**head, **more})


def _seconds(time_ns: int) -> float:
    return round(time_ns / 1e9, 6)
