"""Mistakes in a data set: gathered while it is read, reported all at once."""

import logging
from collections.abc import Sequence
from pathlib import Path

from edge.errors import EdgeError

logger = logging.getLogger(__name__)

_SHOWN = 50
"""A wrong sheet gives a mistake per row; more lines than this say nothing new."""


class DatasetError(EdgeError, ValueError):
    """A data set or its annotations cannot be used as they are; the text lists every mistake, one a line."""

    def __init__(self, where: Path, mistakes: Sequence[str]) -> None:
        self.mistakes = tuple(mistakes)
        shown = self.mistakes[:_SHOWN]
        more = len(self.mistakes) - len(shown)
        lines = [*shown, f"... and {more} more"] if more else list(shown)
        if len(lines) == 1:
            super().__init__(f"{where}: {lines[0]}")
        else:
            super().__init__(f"{where}: {len(self.mistakes)} mistakes\n  " + "\n  ".join(lines))


class Mistakes:
    """What is wrong with one data set.

    Args:
        where: what the report is about: the sheet, or the folder where there is none.
        skip_bad_rows: tell of mistakes in rows as warnings and go on without those rows. Mistakes of the data
            set as a whole (a missing column, a folder of another layout) are errors either way.
        is_quiet: skip them without a word.
    """

    def __init__(self, where: Path, *, skip_bad_rows: bool = False, is_quiet: bool = False) -> None:
        self._where = where
        self._skip = skip_bad_rows
        self._is_quiet = is_quiet
        self._found: list[str] = []
        self.in_rows = 0
        """Mistakes in rows so far: who reads a row looks whether it rose."""

    def row(self, place: str, text: str) -> None:
        """Note a mistake in one row; `place` names file, row and column as the spreadsheet shows them."""
        self.in_rows += 1
        if not self._skip:
            self._found.append(f"{place}: {text}")
        elif not self._is_quiet:
            logger.warning("%s: %s; the row is left out", place, text)

    def whole(self, text: str) -> None:
        """Note a mistake that concerns the whole."""
        self._found.append(text)

    def stop_if_any(self) -> None:
        """Raise DatasetError with all mistakes so far."""
        if self._found:
            raise DatasetError(self._where, self._found)
