"""Read a data set: find its recordings and sheets, place every row, and report all that does not fit at once."""

import logging
from collections import Counter
from pathlib import Path

from edge.errors import SourceError
from tools.evaluate.datasets import folders
from tools.evaluate.datasets.annotations import Annotation, truth_of, without_repeats
from tools.evaluate.datasets.layouts import LAYOUTS, Layout
from tools.evaluate.datasets.mistakes import DatasetError, Mistakes
from tools.evaluate.datasets.source import Recorded, Source
from tools.evaluate.datasets.words import MICRO_AT_MOST_S
from tools.evaluate.records import Truth

logger = logging.getLogger(__name__)

_NAMED = 12
"""Names in a warning; beyond that a count says enough."""


def read(
    layout: str,
    folder: Path,
    sheet: Path | None = None,
    *,
    skip_bad_rows: bool = False,
    is_quiet: bool = False,
) -> list[Source]:
    """Read a data set from its published folders and spreadsheets.

    Each row's own word decides between micro and macro, as in the literature; where a sheet has none, 0.5 s do.
    Recordings without rows stay in: nothing happens in them, and that too is scored. They, and a copy that is
    smaller than the whole set, are named in warnings.

    Args:
        layout: one of LAYOUTS.
        folder: the set's own folder, or one above or below it as long as its recordings are inside.
        sheet: the annotations, .xlsx or .csv; None looks for the set's own. The unseen sets have none and are
            read without truth.
        skip_bad_rows: leave out rows with mistakes, with a warning each, instead of raising. The figure is then
            not the one of the literature.
        is_quiet: give no warnings; for a worker process, which reads again what was read before.

    Returns:
        The recordings in natural order of their names.

    Raises:
        DatasetError: unknown layout, a folder of another layout, a sheet that is absent or wrong; every mistake
            with its file, row and column.
    """
    if layout not in LAYOUTS:
        raise DatasetError(folder, [f"unknown data set {layout!r}; known are {', '.join(LAYOUTS)}"])
    chosen = LAYOUTS[layout]
    found = chosen.recordings(folder) if folder.is_dir() else []
    if not found:
        raise DatasetError(
            folder,
            [f"does not look like {chosen.title}: expected {chosen.expected}; {folders.contents(folder)}"],
        )
    found.sort(key=lambda recorded: folders.natural(recorded.name))
    sheets = [sheet] if sheet is not None else chosen.sheets(folder)
    if not sheets and chosen.sheet_expected:
        raise DatasetError(
            folder,
            [
                f"no annotations: expected {chosen.sheet_expected} in it or beside it, or a sheet named with --sheet"
            ],
        )
    mistakes = Mistakes(sheets[0] if sheets else folder, skip_bad_rows=skip_bad_rows, is_quiet=is_quiet)
    usable = _usable(found, mistakes)
    rows: list[Annotation] = []
    for path in sheets:
        rows += chosen.annotations(path, mistakes)
    truth = _placed(without_repeats(rows, mistakes), found, usable, mistakes)
    mistakes.stop_if_any()
    if sheets and not is_quiet:
        _remark(chosen, truth)
    return [
        Source(
            recorded.name,
            recorded.subject,
            recorded.rate_hz,
            recorded.path,
            tuple(sorted(truth[recorded.name], key=lambda item: item.onset_s)),
            is_labelled=bool(sheets),
        )
        for recorded in usable
    ]


def _usable(found: list[Recorded], mistakes: Mistakes) -> list[Recorded]:
    """Give the recordings that have frames."""
    kept = []
    for recorded in found:
        try:
            _ = recorded.extent
        except SourceError as error:
            mistakes.whole(str(error))
        else:
            kept.append(recorded)
    return kept


def _placed(
    rows: list[Annotation], found: list[Recorded], usable: list[Recorded], mistakes: Mistakes
) -> dict[str, list[Truth]]:
    """Give the truth of each usable recording, by name."""
    by_name = {recorded.name: recorded for recorded in usable}
    broken = {recorded.name for recorded in found} - by_name.keys()
    truth: dict[str, list[Truth]] = {name: [] for name in by_name}
    for item in rows:
        if item.video in by_name:
            placed = truth_of(item, by_name[item.video], mistakes)
            truth[item.video] += [placed] if placed else []
        elif item.video not in broken:  # those are reported already
            mistakes.row(item.row.place("video"), f"recording {item.video} is not in the folder")
    return truth


def _remark(layout: Layout, truth: dict[str, list[Truth]]) -> None:
    """Warn of what makes the figure another than that of the literature."""
    bare = [name for name, items in truth.items() if not items]
    if bare:
        more = f" and {len(bare) - _NAMED} more" if len(bare) > _NAMED else ""
        logger.warning("%d recordings have no rows: %s%s", len(bare), ", ".join(bare[:_NAMED]), more)
    items = [item for listed in truth.values() for item in listed]
    kinds = Counter(item.kind for item in items)
    slow = sum(item.kind == "micro" and item.offset_s - item.onset_s > MICRO_AT_MOST_S for item in items)
    if slow:
        logger.warning(
            "%d of %d micro-expressions last longer than %g s; the device does not report such ones",
            slow, kinds["micro"], MICRO_AT_MOST_S,
        )  # fmt: skip
    here = len(truth), kinds["micro"], kinds["macro"]
    if layout.counts is not None and here != layout.counts:
        logger.warning(
            "%s here: %d recordings, %d micro- and %d macro-expressions; the whole set has %d, %d and %d",
            layout.title, *here, *layout.counts,
        )  # fmt: skip
