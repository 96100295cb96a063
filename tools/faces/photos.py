"""Read a folder of face photos with its MANIFEST.csv, and split it by person."""

import csv
import zlib
from dataclasses import dataclass
from pathlib import Path

MESH_INDEX = (
    71, 63, 105, 66, 107, 336, 296, 334, 293, 301, 168, 197, 5, 4, 75, 97, 2, 326, 305, 33, 160,
    158, 133, 153, 144, 362, 385, 387, 263, 373, 380, 61, 39, 37, 0, 267, 269, 291, 405, 314, 17,
    84, 181, 78, 82, 13, 312, 308, 317, 14, 87, 152, 172, 397, 127, 356,
)  # fmt: skip
"""Vertex of the 468-point MediaPipe face mesh for each of `edge.records.LANDMARKS`."""


@dataclass(frozen=True, slots=True)
class Photo:
    """One row of the manifest."""

    id: str
    path: Path
    subject: str
    kind: str
    licence: str
    source: str


def read_manifest(folder: Path) -> list[Photo]:
    """List the photos of `folder`, in the manifest's order.

    Raises:
        FileNotFoundError: no MANIFEST.csv with the columns id, source, licence, subject, kind.
    """
    with (folder / "MANIFEST.csv").open(newline="") as lines:
        return [
            Photo(
                row["id"],
                folder / f"{row['id']}.jpg",
                row["subject"],
                row["kind"],
                row["licence"],
                row["source"],
            )
            for row in csv.DictReader(lines)
        ]


def split_of(subject: str) -> str:
    """Give "train", "validation" or "test" for a person; the same person is always in the same part.

    70 % train, 10 % validation (thresholds, calibration), 20 % test (published figures only).
    """
    bucket = zlib.crc32(subject.encode()) % 10
    return "test" if bucket < 2 else "validation" if bucket == 2 else "train"
