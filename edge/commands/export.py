"""Writes events as flat tables for other programs: CSV for spreadsheets, Parquet for data frames."""

import csv
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from edge.errors import EdgeError, HistoryError
from edge.records import EMOTIONS
from edge.store.history import Kept

BATCH_ROWS = 5000
"""Rows that are in memory at a time, and of a row group in Parquet."""
_FORMULA = re.compile(r"\s*[=+\-@\uff0b\uff0d\uff1d\uff20]|[\t\r\n]")
"""What makes a spreadsheet take a text for a formula; the wide forms are those of East Asian keyboards.

Source: OWASP, CSV Injection.
"""


class Kind(Enum):
    """What a column holds."""

    TEXT = auto()
    TRUTH = auto()
    WHOLE = auto()
    REAL = auto()
    TIME = auto()
    """UTC, whole milliseconds."""
    TAGS = auto()
    """A list of texts."""
    UNITS = auto()
    """A list of action units, each with `au`, `side` and `score`."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table."""

    name: str
    kind: Kind
    value: Callable[[Kept], Any]
    """None where the event does not say."""


def _of(kind: Kind, *names: str, within: str = "", prefix: str = "") -> list[Column]:
    """Give columns for fields of the event, or of the object `within` it."""

    def value(name: str, kept: Kept) -> Any:
        return (kept.payload.get(within, {}) if within else kept.payload).get(name)

    return [Column(prefix + name, kind, partial(value, name)) for name in names]


COLUMNS: tuple[Column, ...] = (
    *_of(Kind.TEXT, "device_id", "series"),
    *_of(Kind.WHOLE, "seq"),
    *_of(Kind.TEXT, "id"),
    Column("time", Kind.TIME, lambda kept: kept.time),
    Column("kept", Kind.TIME, lambda kept: datetime.fromtimestamp(kept.kept_ms / 1000, UTC)),
    Column("delivery", Kind.TEXT, lambda kept: kept.delivery),
    *_of(Kind.TRUTH, "clock_synchronised", "replayed"),
    *_of(Kind.TEXT, "boot_id"),
    *_of(Kind.WHOLE, "face_id"),
    *_of(Kind.REAL, "onset_s", "apex_s", "offset_s"),
    *_of(Kind.WHOLE, "duration_ms"),
    *_of(Kind.TEXT, "emotion"),
    *_of(Kind.REAL, "confidence"),
    *_of(Kind.REAL, *EMOTIONS, "other", within="probabilities", prefix="probability_"),
    *_of(Kind.UNITS, "action_units"),
    *_of(Kind.REAL, "eyes", "brows", "nose", "mouth", within="regions", prefix="region_"),
    *_of(Kind.REAL, "intensity_iod", "spot_score"),
    *_of(Kind.REAL, "frame_rate_hz", within="quality"),
    *_of(Kind.WHOLE, "frames_dropped", within="quality"),
    *_of(Kind.REAL, "head_turn_deg_s", "face_px", within="quality"),
    *_of(Kind.TRUTH, "baseline_ready", within="quality"),
    *_of(Kind.REAL, "noise_floor_iod", within="quality"),
    *_of(Kind.TEXT, "session", "note", within="context"),
    *_of(Kind.TAGS, "tags", within="context"),
    *_of(Kind.TEXT, "detector", "landmark", "spotter", within="model", prefix="model_"),
)
"""Every column of both formats, in their order."""


def write_csv(events: Iterable[Kept], path: Path | None) -> None:
    """Write a header and a row for each event, UTF-8, to `path` (None: standard output).

    Lists are joined by "; ", an action unit reads `AU12 left 0.83`. Text that a spreadsheet would take for a formula
    gets an apostrophe in front.

    Raises:
        EdgeError: naming the file, if it cannot be written.
    """
    if path is None:
        _write_rows(events, sys.stdout)
        return
    with _in_place_of(path) as target, target.open("w", encoding="utf-8", newline="") as stream:
        _write_rows(events, stream)


def write_parquet(events: Iterable[Kept], path: Path) -> None:
    """Write the columns with their types: times in UTC, lists as lists, nothing as null.

    Raises:
        EdgeError: pyarrow cannot be used, or naming the file, if it cannot be written.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise EdgeError(f"--parquet needs pyarrow ({error}): pip install 'microedge[parquet]'") from error
    unit = pa.struct([("au", pa.string()), ("side", pa.string()), ("score", pa.float64())])
    types = {
        Kind.TEXT: pa.string(), Kind.TRUTH: pa.bool_(), Kind.WHOLE: pa.int64(),
        Kind.REAL: pa.float64(), Kind.TIME: pa.timestamp("ms", "UTC"), Kind.TAGS: pa.list_(pa.string()),
        Kind.UNITS: pa.list_(unit),
    }  # fmt: skip
    schema = pa.schema([(column.name, types[column.kind]) for column in COLUMNS])
    remaining = iter(events)
    with _in_place_of(path) as target, pq.ParquetWriter(target, schema) as writer:
        while batch := list(islice(remaining, BATCH_ROWS)):
            arrays = [
                pa.array([column.value(kept) for kept in batch], field.type)
                for column, field in zip(COLUMNS, schema, strict=True)
            ]
            writer.write_batch(pa.record_batch(arrays, schema=schema))


def _write_rows(events: Iterable[Kept], stream: TextIO) -> None:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([column.name for column in COLUMNS])
    for kept in events:
        writer.writerow([_cell(column.kind, column.value(kept)) for column in COLUMNS])


def _cell(kind: Kind, value: Any) -> str | int | float:
    """Give a value as CSV shows it."""
    if value is None:
        return ""
    if kind is Kind.TIME:
        return str(value.replace(tzinfo=None).isoformat(timespec="milliseconds")) + "Z"
    if kind is Kind.TRUTH:
        return "true" if value else "false"
    if kind is Kind.UNITS:
        return "; ".join(f"{unit['au']} {unit['side']} {unit['score']:g}" for unit in value)
    if kind in (Kind.WHOLE, Kind.REAL):
        return float(value) if kind is Kind.REAL else int(value)
    text = "; ".join(value) if kind is Kind.TAGS else str(value)
    # One kind of line end: the writer does not quote a cell for the other.
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return "'" + text if _FORMULA.match(text) else text


@contextmanager
def _in_place_of(path: Path) -> Iterator[Path]:
    """Give a name to write to, whose file takes the place of `path` once the block has ended well.

    So an export that fails neither leaves half a file behind nor spoils the one before. A pipe or a device is written
    to as it is.

    Raises:
        EdgeError: naming the file, if it cannot be written.
    """
    try:
        path = path.resolve()
        is_plain = not path.exists() or stat.S_ISREG(path.stat().st_mode)
        target = path.with_name(f".{path.name}.{os.getpid()}.part") if is_plain else path
        try:
            yield target
            if is_plain:
                target.replace(path)
        finally:
            if is_plain:
                target.unlink(missing_ok=True)
    except HistoryError:
        raise
    except OSError as error:
        raise EdgeError(f"{path}: cannot be written: {error.strerror or error}") from error
