"""The unseen sets of MEGC 2023 to 2025: 10 videos of SAMM at 200 frames/s and 20 of CAS(ME)^3 at 30.

Their annotations are not public: a submission is written instead. Whoever has some gives a sheet with the columns
below. Sources: megc2025.github.io/challenge.html for sets and rates; qin123xyz/MEGC2023_macro-and-micro-expression-
spotting and zzy188zzy/megc_spotting_code for the videos' names.
"""

import re
from pathlib import Path

from tools.evaluate.datasets import folders
from tools.evaluate.datasets.annotations import Annotation, annotation
from tools.evaluate.datasets.mistakes import Mistakes
from tools.evaluate.datasets.source import Recorded
from tools.evaluate.datasets.tables import Column, rows_below_header

_VIDEO = re.compile(r"(\d{3})_\d{1,2}|([a-z]{2,})_[a-z]\d", re.IGNORECASE)
_COLUMNS = {
    "video": Column(("vid", "video", "Filename")),
    "onset": Column(("onset",)),
    "apex": Column(("apex",), is_required=False),
    "offset": Column(("offset",)),
    "kind": Column(("type",), is_required=False),
    "units": Column(("AU", "Action Units"), is_required=False),
    "emotion": Column(("emotion",), is_required=False),
}


def recordings(folder: Path) -> list[Recorded]:
    """Find SAMM's 001_2 at 200 frames/s and CAS(ME)^3's dzw_a1 at 30."""
    found: dict[str, Recorded] = {}
    for path, match in folders.recordings(folder, _VIDEO):
        rate_hz = 200.0 if match[1] else 30.0
        found.setdefault(match[0], Recorded(match[0], match[1] or match[2], rate_hz, path))
    return list(found.values())


def annotations(path: Path, mistakes: Mistakes) -> list[Annotation]:
    """Read `vid,onset,offset`, and `apex`, `type`, `AU`, `emotion` where they are there."""
    rows = rows_below_header(path, _COLUMNS)
    items = (annotation(row, row.text("video"), mistakes) for row in rows)
    return [item for item in items if item is not None]


def sheets(folder: Path) -> list[Path]:
    """Give none: the sets come without annotations."""
    del folder
    return []
