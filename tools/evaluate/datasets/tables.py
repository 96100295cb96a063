"""Rows of a spreadsheet (.xlsx) or of a .csv file with the same columns, with their places for messages."""

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.evaluate.datasets.mistakes import DatasetError, Mistakes

_HEADER_WITHIN = 30
"""Sheets begin with up to 13 rows of remarks; a header further down is not looked for."""

Grid = list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Column:
    """One column that a reader asks for."""

    names: tuple[str, ...]
    """Headers that mean it, in any case."""
    is_required: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """One row that holds something."""

    path: Path
    sheet: str
    """Empty for a .csv file."""
    number: int
    """As the spreadsheet shows it, from 1."""
    cells: dict[str, Any]
    """By the reader's own keys; columns that the sheet lacks are absent."""
    headings: dict[str, str]
    """What to call each column in a message: header and letter."""

    def place(self, key: str = "") -> str:
        """Name file, row and, where given, the column."""
        sheet = f" [{self.sheet}]" if self.sheet else ""
        column = f", column {self.headings[key]}" if key else ""
        return f"{self.path.name}{sheet} row {self.number}{column}"

    def text(self, key: str) -> str:
        """Give a cell as text without surrounding blanks; empty where it is blank or the column is absent."""
        value = self.cells.get(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return "" if value is None else str(value).strip()

    def frame(self, key: str, mistakes: Mistakes) -> int | None:
        """Give a cell as a frame number, rounded half up; None after noting that it is none.

        The published sheets hold frame numbers as numbers and as text.
        """
        text = self.text(key)
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if math.isfinite(value):
            return math.floor(value + 0.5)
        mistakes.row(
            self.place(key), f"{f'is {text!r}' if text else 'is empty'}, expected the number of a frame"
        )
        return None


def grids(path: Path) -> dict[str, Grid]:
    """Read all sheets of a file as they stand, row 1 first. A .csv file is one sheet without a name.

    Raises:
        DatasetError: no such file, not a spreadsheet, or its reader is not installed.
    """
    if not path.is_file():
        raise DatasetError(path, ["no such file"])
    suffix = path.suffix.lower()
    if suffix == ".csv":
        try:
            with path.open(newline="", encoding="utf-8-sig") as stream:
                return {"": [tuple(cell or None for cell in row) for row in csv.reader(stream)]}
        except (UnicodeDecodeError, csv.Error) as error:
            raise DatasetError(path, [f"is not a .csv file in UTF-8 ({error})"]) from error
    if suffix == ".xls":
        raise DatasetError(path, ["is in the old .xls format; save it as .xlsx or .csv"])
    if suffix not in {".xlsx", ".xlsm"}:
        raise DatasetError(path, [f"is a {suffix or 'file without suffix'}; expected .xlsx or .csv"])
    return _workbook(path)


def _workbook(path: Path) -> dict[str, Grid]:
    try:
        import openpyxl
    except ImportError as error:
        raise DatasetError(
            path, ["reading .xlsx needs openpyxl: pip install microedge[evaluate], or save the sheet as .csv"]
        ) from error
    try:
        # Not read-only: sheets saved by other programs may state a wrong extent, which that mode believes.
        book = openpyxl.load_workbook(path, data_only=True)
    except Exception as error:  # zipfile, XML and key errors of many kinds: the file is not what it says
        raise DatasetError(path, [f"cannot be read as a spreadsheet ({error})"]) from error
    try:
        return {
            sheet.title: [tuple(row) for row in sheet.iter_rows(values_only=True)]
            for sheet in book.worksheets
        }
    finally:
        book.close()


def rows_below_header(path: Path, columns: Mapping[str, Column]) -> list[Row]:
    """Read the first sheet that has a row of headers, wherever above its data that row is.

    Raises:
        DatasetError: no sheet has one, or columns are missing; all that are, by name.
    """
    best: tuple[int, str, int, dict[str, int]] | None = None
    sheets = grids(path)
    for sheet, grid in sheets.items():
        for index, cells in enumerate(grid[:_HEADER_WITHIN]):
            found = _columns_in(cells, columns)
            if best is None or len(found) > best[0]:
                best = len(found), sheet, index, found
    if best is None or best[0] < 2:
        wanted = ", ".join(column.names[0] for column in columns.values() if column.is_required)
        first = next((_shown(cells) for grid in sheets.values() for cells in grid[:1]), "nothing")
        raise DatasetError(
            path,
            [f"no row of headers in the first {_HEADER_WITHIN} rows; expected {wanted}; row 1 holds {first}"],
        )
    _, sheet, index, found = best
    header = sheets[sheet][index]
    missing = [
        f"row {index + 1}: no column {' or '.join(column.names)}; found {_shown(header)}"
        for key, column in columns.items()
        if column.is_required and key not in found
    ]
    if missing:
        raise DatasetError(path, missing)
    headings = {key: f"{str(header[at]).strip()} ({_letter(at)})" for key, at in found.items()}
    return list(_rows(path, sheet, sheets[sheet], index + 1, found, headings))


def rows_by_position(path: Path, sheet: str, grid: Grid, keys: tuple[str, ...]) -> list[Row]:
    """Read a sheet that has no header: `keys` name its columns from A on."""
    places = {key: at for at, key in enumerate(keys)}
    headings = {key: f"{_letter(at)} ({key})" for key, at in places.items()}
    return list(_rows(path, sheet, grid, 0, places, headings))


def _rows(
    path: Path, sheet: str, grid: Grid, start: int, places: dict[str, int], headings: dict[str, str]
) -> Iterator[Row]:
    for number, cells in enumerate(grid[start:], start + 1):
        picked = {key: cells[at] if at < len(cells) else None for key, at in places.items()}
        filled = sum(value is not None and str(value).strip() != "" for value in picked.values())
        if filled > 1:  # a remark below the data fills one cell
            yield Row(path, sheet, number, picked, headings)


def _columns_in(cells: tuple[Any, ...], columns: Mapping[str, Column]) -> dict[str, int]:
    headers = [" ".join(str(cell).split()).casefold() if cell is not None else "" for cell in cells]
    found = {}
    for key, column in columns.items():
        for name in column.names:
            if name.casefold() in headers:
                found[key] = headers.index(name.casefold())
                break
    return found


def _shown(cells: tuple[Any, ...]) -> str:
    filled = [str(cell).strip() for cell in cells if cell is not None and str(cell).strip()]
    return ", ".join(filled[:12]) or "nothing"


def _letter(at: int) -> str:
    letters = ""
    at += 1
    while at:
        at, rest = divmod(at - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters
