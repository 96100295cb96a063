"""From a row of a sheet to a truth: frame numbers checked among themselves and against the recording."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tools.evaluate.datasets.mistakes import Mistakes
from tools.evaluate.datasets.source import Recorded
from tools.evaluate.datasets.tables import Row
from tools.evaluate.datasets.words import (
    EMOTION_WORDS,
    KIND_WORDS,
    MICRO_AT_MOST_S,
    action_units_of,
    emotion_of,
    kind_of,
)
from tools.evaluate.records import Truth

Frames = tuple[int, int, int]
"""Onset, apex and offset as a sheet gives them; 0 or less where it does not know."""
Errata = Mapping[tuple[str, Frames], Frames]
"""Rows that are known to be wrong in a published sheet, by video and frames, and how they are read."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """One row, with frame numbers as its set counts."""

    row: Row
    video: str
    """Name of the recording."""
    kind: str
    """`micro` or `macro`; empty where the sheet does not say."""
    onset: int | None
    """None: before the recording begins."""
    apex: int | None
    """None: not known."""
    offset: int
    emotion: str
    action_units: tuple[tuple[str, str], ...]


def annotation(
    row: Row,
    video: str,
    mistakes: Mistakes,
    *,
    kind: str = "",
    errata: Errata | None = None,
    emotion: Callable[[Row, Mistakes], str] | None = None,
) -> Annotation | None:
    """Read the row's `onset`, `apex`, `offset`, `kind`, `emotion` and `units`; None where it has mistakes.

    In the published sheets 0 and -1 stand for what the coders could not see. Where that is the onset, the
    movement began before the recording; where it is the offset, the challenges take the apex instead.

    Args:
        row: columns `apex`, `kind`, `emotion` and `units` may be absent.
        video: name of the recording.
        mistakes: takes what is wrong.
        kind: what the row is if the sheet has no such column; empty leaves it to the duration.
        errata: of the set.
        emotion: reads the emotion where it takes more than one cell.
    """
    before = mistakes.in_rows
    frames = [
        row.frame(key, mistakes) if key in row.cells else 0 for key in ("onset", "apex", "offset")
    ]  # a column that is absent says nothing, as 0 does
    if "kind" in row.cells:
        kind = kind_of(row.text("kind")) or ""
        if not kind:
            mistakes.row(row.place("kind"), f"is {row.text('kind')!r}, expected one of {KIND_WORDS}")
    named = (emotion or emotion_in)(row, mistakes)
    onset, apex, offset = (0 if frame is None else frame for frame in frames)
    if mistakes.in_rows == before:
        onset, apex, offset = (errata or {}).get((video, (onset, apex, offset)), (onset, apex, offset))
        if offset <= 0:
            offset = apex
            if apex <= 0:
                mistakes.row(
                    row.place("offset"), f"is {row.text('offset')!r} and there is no apex to take instead"
                )
        if apex > 0 and apex < onset:
            mistakes.row(row.place("apex"), f"apex {apex} lies before onset {onset}")
        elif offset < onset:
            mistakes.row(row.place("offset"), f"offset {offset} lies before onset {onset}")
        elif apex > offset:
            mistakes.row(row.place("apex"), f"apex {apex} lies after offset {offset}")
    if mistakes.in_rows > before:
        return None
    return Annotation(
        row,
        video,
        kind,
        onset if onset > 0 else None,
        apex if apex > 0 else None,
        offset,
        named,
        action_units_of(row.text("units")),
    )


def emotion_in(row: Row, mistakes: Mistakes, key: str = "emotion") -> str:
    """Read one cell as an emotion; empty where the cell or the column is."""
    word = row.text(key)
    if not word:
        return ""
    ours = emotion_of(word)
    if ours is None:
        mistakes.row(row.place(key), f"unknown emotion {word!r}; known are {EMOTION_WORDS}")
    return ours or ""


def truth_of(item: Annotation, recorded: Recorded, mistakes: Mistakes) -> Truth | None:
    """Place an annotation in the recording's media time; None where it lies outside.

    Many rows of CAS(ME)^3 begin a few frames before the first image: such a movement is taken to last from
    the first image on.
    """
    first, last = recorded.extent
    if last is not None and item.offset > last:
        mistakes.row(
            item.row.place("offset"), f"is {item.offset}, but {recorded.name} ends with frame {last}"
        )
        return None
    if item.offset < first:
        mistakes.row(
            item.row.place("offset"), f"is {item.offset}, but {recorded.name} begins with frame {first}"
        )
        return None

    def seconds(frame: int) -> float:
        return (frame - first) / recorded.rate_hz

    onset = max(item.onset or first, first)
    length_s = seconds(item.offset) - seconds(onset)
    return Truth(
        item.kind or ("micro" if length_s <= MICRO_AT_MOST_S else "macro"),
        seconds(onset),
        seconds(item.apex) if item.apex is not None and item.apex >= first else None,
        seconds(item.offset),
        item.emotion,
        item.action_units,
    )


def without_repeats(items: Iterable[Annotation], mistakes: Mistakes) -> list[Annotation]:
    """Leave out rows that say of the same video and frames what an earlier row said; each is a mistake."""
    seen: dict[tuple[str, str, int | None, int], Row] = {}
    kept = []
    for item in items:
        key = (item.video, item.kind, item.onset, item.offset)
        earlier = seen.setdefault(key, item.row)
        if earlier is item.row:
            kept.append(item)
        else:
            mistakes.row(
                item.row.place(),
                f"repeats row {earlier.number}: {item.video}, frames {item.onset} to {item.offset}",
            )
    return kept
