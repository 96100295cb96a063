"""CAS(ME)^2: 97 long videos of 22 people at 30 frames/s, 57 micro- and 300 macro-expressions.

Sources: genbing99/SoftNet-SpotME and the MEGC 2020 baseline (HeyingGithub/Baseline-project-for-MEGC2020_spotting) for
folders, sheets and columns; xjtupanda/AUW-GCN:info_csv for the frame numbers as they stand.
"""

import re
from pathlib import Path

from tools.evaluate.datasets import folders
from tools.evaluate.datasets.annotations import Annotation, Errata, annotation, emotion_in
from tools.evaluate.datasets.mistakes import DatasetError, Mistakes
from tools.evaluate.datasets.source import Recorded
from tools.evaluate.datasets.tables import Row, grids, rows_by_position

_COLUMNS = ("subject", "video", "onset", "apex", "offset", "units", "class", "kind", "self-report")
_SUBJECTS = (15, 16, *range(19, 28), *range(29, 39), 40)
"""Numbers of the 22 people, in the order of the sheet's column A (sheet `naming rule1`)."""
_STIMULI = {
    **{"disgust1": "0101", "disgust2": "0102", "anger1": "0401", "anger2": "0402"},
    **{"happy1": "0502", "happy2": "0503", "happy3": "0505", "happy4": "0507", "happy5": "0508"},
}
"""Codes of the films that were shown, as folders name them (sheet `naming rule2`)."""
_VIDEO = re.compile(r"(\d{2})_(\d{4})[^.]*")
_ERRATA: Errata = {
    # Three apices lie after the offset.
    ("27_0101", (1221, 1230, 1224)): (1221, 0, 1224),
    ("31_0503", (2169, 2203, 2202)): (2169, 0, 2202),
    ("32_0401", (2407, 2455, 2451)): (2407, 0, 2451),
}


def recordings(folder: Path) -> list[Recorded]:
    """Find rawpic/s15/15_0101disgustingteeth/img001.jpg or rawvideo/s15/15_0101disgustingteeth.avi."""
    found: dict[str, tuple[tuple[bool, bool], Path]] = {}
    for path, match in folders.recordings(folder, _VIDEO):
        places = {part.casefold() for part in path.relative_to(folder).parts[:-1]} | {folder.name.casefold()}
        if places & {"selectedpic", "cropped"}:
            continue  # the short clips cut out of the long videos
        name = f"{match[1]}_{match[2]}"
        # Pictures rather than video. Subject 23's 0502 lies in the folder of subject 19 as well.
        rank = path.is_dir(), path.parent.name == f"s{match[1]}"
        if name not in found or rank > found[name][0]:
            found[name] = rank, path
    return [Recorded(name, f"s{name[:2]}", 30.0, path) for name, (_, path) in found.items()]


def annotations(path: Path, mistakes: Mistakes) -> list[Annotation]:
    """Read a sheet without header; its subjects and films are explained by two further sheets."""
    sheets = grids(path)
    subjects = dict(enumerate(_SUBJECTS, 1))
    stimuli = dict(_STIMULI)
    for title, grid in sheets.items():
        rule = "".join(title.split()).casefold()
        for cells in grid:
            if rule == "namingrule1" and len(cells) > 2 and isinstance(cells[2], int | float):
                subjects[int(cells[2])] = int(str(cells[1]).strip().lstrip("sS"))
            if rule == "namingrule2" and len(cells) > 1 and str(cells[0]).strip().isdecimal():
                stimuli[str(cells[1]).strip()] = f"{int(cells[0]):04d}"
    title, grid = next(iter(sheets.items()))
    width = max((len(cells) for cells in grid), default=0)
    if width < 8:
        wanted = ", ".join(_COLUMNS)
        raise DatasetError(path, [f"has {width} columns; expected 9 without a header: {wanted}"])
    items = []
    for row in rows_by_position(path, title, grid, _COLUMNS):
        if row.number == 1 and row.text("onset").casefold().startswith("onset"):
            continue  # someone added a header
        before = mistakes.in_rows
        subject, film = row.text("subject"), row.text("video").partition("_")[0]
        if not subject.isdecimal() or int(subject) not in subjects:
            mistakes.row(
                row.place("subject"), f"is {subject!r}, expected a subject from 1 to {max(subjects)}"
            )
        if film not in stimuli:
            known = ", ".join(stimuli)
            mistakes.row(
                row.place("video"), f"is {row.text('video')!r}, expected one of {known} and a number"
            )
        if mistakes.in_rows == before:
            name = f"{subjects[int(subject)]}_{stimuli[film]}"
            item = annotation(row, name, mistakes, errata=_ERRATA, emotion=_emotion)
            items += [item] if item else []
    return items


def _emotion(row: Row, mistakes: Mistakes) -> str:
    """Give the class of the movement; where that is negative, the negative emotion that the person reported."""
    coded, reported = emotion_in(row, mistakes, "class"), emotion_in(row, mistakes, "self-report")
    is_negative = row.text("class").casefold() == "negative"
    return (
        reported if is_negative and reported in {"anger", "sadness", "fear", "disgust", "contempt"} else coded
    )


def sheets(folder: Path) -> list[Path]:
    """Find CAS(ME)^2code_final(Updated).xlsx."""
    found = folders.sheet(folder, r"code_?final", lambda name: _VIDEO.fullmatch(name) is not None)
    return [] if found is None else [found]
