"""CAS(ME)^3, part A: 1,300 videos of 100 people at 30 frames/s, 860 micro- and 3,346 macro-expressions.

Sources: jingtingEmmaLi/CAS-ME-3 (the authors' own annotations and lists of damaged images) for sheets, columns and
frame numbers; zizheng-guo/ME-TST and zzy188zzy/megc_spotting_code for folders and the first image of each video.
"""

import re
from pathlib import Path

from tools.evaluate.datasets import folders
from tools.evaluate.datasets.annotations import Annotation, Errata, annotation
from tools.evaluate.datasets.mistakes import Mistakes
from tools.evaluate.datasets.source import Recorded
from tools.evaluate.datasets.tables import Column, rows_below_header

_SUBJECT = re.compile(r"spno\.?(\d+)", re.IGNORECASE)
_VIDEO = re.compile(r"[a-z]", re.IGNORECASE)
_COLUMNS = {
    "subject": Column(("Subject", "sub")),
    "video": Column(("Filename", "seq")),
    "onset": Column(("Onset",)),
    "apex": Column(("Apex",)),
    "offset": Column(("Offset",)),
    "units": Column(("AU", "AUs", "Action Units"), is_required=False),
    "kind": Column(("Expression type", "Type"), is_required=False),
    "emotion": Column(("emotion",), is_required=False),
}
_ERRATA: Errata = {
    # As corrected by the authors in CAS(ME)3_part_A_v2.xls, rows 697, 3649, 3897 and 3906.
    ("spNO.149_d", (112, 83, 358)): (112, 160, 358),
    ("spNO.216_d", (3647, 2668, 2694)): (2647, 2668, 2694),
    ("spNO.40_e", (1812, 1824, 0)): (1812, 1824, 1845),
    ("spNO.40_e", (2327, 2363, 0)): (2327, 2363, 2403),
}


def recordings(folder: Path) -> list[Recorded]:
    """Find spNO.1/a/color/355.jpg; the labels write `spNO`, some folders `spNo`."""
    found = []
    for place, match in folders.recordings(folder, _SUBJECT):
        if {part.casefold() for part in place.relative_to(folder).parts} & {"part_b", "part_c"}:
            continue  # part B has no labels, part C labels of its own
        subject = f"spNO.{match[1]}"
        for path, letter in folders.recordings(place, _VIDEO, depth=1):
            inside = [path / name for name in ("color", "Color") if (path / name).is_dir()]
            found.append(Recorded(f"{subject}_{letter[0].lower()}", subject, 30.0, (*inside, path)[0]))
    return found


def sheets(folder: Path) -> list[Path]:
    """Find the micro-expressions' sheet and, where it is there, the macro-expressions'."""
    names = (r"part_A_ME_label", r"part_A_MaE_label")
    found = (folders.sheet(folder, name, lambda name: _SUBJECT.fullmatch(name) is not None) for name in names)
    return [path for path in found if path is not None]


def annotations(path: Path, mistakes: Mistakes) -> list[Annotation]:
    """Read a sheet of one kind; its file's name says which where no column does."""
    kind = "macro" if "mae_label" in path.name.casefold() else "micro"
    items = []
    for row in rows_below_header(path, _COLUMNS):
        subject = _SUBJECT.fullmatch(row.text("subject"))
        if subject is None:
            mistakes.row(row.place("subject"), f"is {row.text('subject')!r}, expected spNO. and a number")
            continue
        name = f"spNO.{subject[1]}_{row.text('video').lower()}"
        item = annotation(row, name, mistakes, kind=kind, errata=_ERRATA)
        items += [item] if item else []
    return items
