"""A public data set as recordings by name; `tools.evaluate.datasets` reads the layouts."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tools.evaluate import datasets
from tools.evaluate.datasets.submission import FORMS, target
from tools.evaluate.records import Recording

LONGEST_MS = 500
"""What the field still calls a micro-expression (Yan et al. 2013); the device's own default is shorter."""


class DatasetSet:
    """The recordings of one folder.

    Raises:
        ValueError, OSError: the layout is unknown, or folder or spreadsheet are not as it says.
    """

    def __init__(
        self,
        layout: str,
        folder: Path,
        sheet: Path | None,
        *,
        skip_bad_rows: bool = False,
        is_quiet: bool = False,
    ) -> None:
        self._layout, self._folder, self._sheet, self._skip = layout, folder, sheet, skip_bad_rows
        sources = datasets.read(layout, folder, sheet, skip_bad_rows=skip_bad_rows, is_quiet=is_quiet)
        self._sources = {source.name: source for source in sources}

    @classmethod
    def of(cls, header: dict[str, Any]) -> "DatasetSet":
        """Make it from what `header` gave."""
        sheet = header["sheet"]
        return cls(
            header["layout"],
            Path(header["folder"]),
            Path(sheet) if sheet else None,
            skip_bad_rows=header["skip_bad_rows"],
            is_quiet=True,  # whoever made the header has read it with its warnings
        )

    def header(self) -> dict[str, Any]:
        """Say where it is."""
        return {
            "layout": self._layout,
            "folder": str(self._folder.resolve()),
            "sheet": str(self._sheet.resolve()) if self._sheet else None,
            "skip_bad_rows": self._skip,
        }

    def names(self) -> list[str]:
        """Name all recordings in their order."""
        return list(self._sources)

    def source(self, name: str) -> datasets.Source:
        """Give the recording of this name."""
        return self._sources[name]

    def submit(self, path: Path, recordings: Iterable[Recording], form: str) -> None:
        """Write the device's answers as the challenges take them."""
        datasets.write_submission(
            path,
            [(self.source(r.name), r.answers) for r in recordings if r.spotter == "device"],
            form,
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says which data set it is."""
    parser.add_argument("layout", choices=tuple(datasets.LAYOUTS))
    parser.add_argument("folder", type=Path, help="the data set as it was unpacked")
    parser.add_argument("--sheet", type=Path, help="its spreadsheet of annotations, where it lies elsewhere")
    parser.add_argument(
        "--lenient",
        action="store_true",
        help="not the official rule: leave out micro-expressions that the device is not set to find, "
        "and those in time that it declared not assessable",
    )
    parser.add_argument(
        "--skip-bad-rows", action="store_true", help="leave out rows with mistakes, and say so"
    )
    parser.add_argument(
        "--submission", type=target, metavar="FILE.zip", help="write the answers as the challenges take them"
    )
    parser.add_argument("--form", choices=FORMS, default=FORMS[0], help="of the submission")
