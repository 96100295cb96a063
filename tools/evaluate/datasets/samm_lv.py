"""SAMM Long Videos: 147 videos of 30 people at 200 frames/s, 159 micro- and 343 macro-expressions.

Sources: genbing99/SoftNet-SpotME and zizheng-guo/ME-TST for folders, sheets and columns; the MEGC 2020 baseline
(HeyingGithub/Baseline-project-for-MEGC2020_spotting) and zzy188zzy/megc_spotting_code for the frame numbers of
releases 1 and 3 as they stand.
"""

import re
from pathlib import Path

from tools.evaluate.datasets import folders
from tools.evaluate.datasets.annotations import Annotation, Errata, annotation, emotion_in
from tools.evaluate.datasets.mistakes import Mistakes
from tools.evaluate.datasets.source import Recorded
from tools.evaluate.datasets.tables import Column, Row, rows_below_header

_VIDEO = re.compile(r"(\d{3})_\d{1,2}")
_COLUMNS = {
    "video": Column(("Filename",)),
    "onset": Column(("Onset",)),
    "apex": Column(("Apex",)),
    "offset": Column(("Offset",)),
    "kind": Column(("Type",)),
    "units": Column(("Action Units",), is_required=False),
    "emotion": Column(("Emotion", "Estimated Emotion"), is_required=False),
}
_CODES_COLUMNS = {"video": Column(("Filename",)), "emotion": Column(("Estimated Emotion", "Emotion"))}
_ERRATA: Errata = {
    # Release 1: apices outside the interval; release 3 gives -1 for all of them.
    ("010_1", (89, 721, 209)): (89, 0, 209),
    ("026_2", (2049, 2980, 2150)): (2049, 0, 2150),
    ("028_4", (1071, 1143, 1134)): (1071, 0, 1134),
    ("036_6", (1672, 3714, 2449)): (1672, 0, 2449),
    ("036_6", (2450, 4119, 3208)): (2450, 0, 3208),
}


def recordings(folder: Path) -> list[Recorded]:
    """Find SAMM_longvideos/006_1/006_1_0001.jpg."""
    found: dict[str, Recorded] = {}
    for path, match in folders.recordings(folder, _VIDEO):
        name = match[0]
        found.setdefault(name, Recorded(name, match[1], 200.0, path))  # pictures come before a video so named
    return list(found.values())


def annotations(path: Path, mistakes: Mistakes) -> list[Annotation]:
    """Read FACS_Movement_Only; emotions come from SAMM_Micro_FACS_Codes beside it, where that is there."""
    codes = folders.sheet(path.parent, r"Micro_FACS_Codes", lambda name: _VIDEO.fullmatch(name) is not None)
    emotions: dict[str, str] = {}
    if codes is not None:
        for row in rows_below_header(codes, _CODES_COLUMNS):
            emotions[row.text("video")] = emotion_in(row, mistakes)
    items = []
    for row in rows_below_header(path, _COLUMNS):
        event = row.text("video")
        name = event.rpartition("_")[0]
        if not _VIDEO.fullmatch(name):
            mistakes.row(row.place("video"), f"is {event!r}, expected SUBJECT_VIDEO_NUMBER as in 006_1_2")
            continue

        def emotion(row: Row, mistakes: Mistakes, event: str = event) -> str:
            # The codes are of micro-expressions; a macro-expression may bear the same number.
            is_micro = row.text("kind").casefold().startswith("micro")
            return emotion_in(row, mistakes) or (emotions.get(event, "") if is_micro else "")

        item = annotation(row, name, mistakes, errata=_ERRATA, emotion=emotion)
        items += [item] if item else []
    return items


def sheets(folder: Path) -> list[Path]:
    """Find SAMM_LongVideos_V3_Release.xlsx, or another release."""
    found = folders.sheet(folder, r"LongVideos", lambda name: _VIDEO.fullmatch(name) is not None)
    return [] if found is None else [found]
