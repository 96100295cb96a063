"""Looking for recordings and sheets in a data set's folder without opening its hundreds of thousands of images."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from tools.evaluate.datasets.source import VIDEO_SUFFIXES

_DEPTH = 5
"""Archives unpack into folders of their own above the data: part_A/data/part_A_split/part_A/spNO.1."""


def entries(folder: Path, is_leaf: Callable[[str], bool], depth: int = _DEPTH) -> Iterator[Path]:
    """Yield what lies in a folder, level by level, sorted; folders that are leaves are not looked into."""
    level = [folder]
    for _ in range(depth):
        below: list[Path] = []
        for place in level:
            with os.scandir(place) as listing:
                found = sorted(listing, key=lambda entry: natural(entry.name))
            for entry in found:
                yield Path(entry.path)
                if entry.is_dir() and not is_leaf(entry.name):
                    below.append(Path(entry.path))
        level = below


def recordings(
    folder: Path, pattern: re.Pattern[str], depth: int = _DEPTH
) -> list[tuple[Path, re.Match[str]]]:
    """Give the folders and video files whose name (without suffix) the pattern matches in full."""
    found = []
    for path in entries(folder, lambda name: pattern.fullmatch(name) is not None, depth):
        is_video = path.suffix.lower() in VIDEO_SUFFIXES
        match = pattern.fullmatch(path.stem if is_video else path.name)
        if match and (is_video or path.is_dir()):
            found.append((path, match))
    return found


def sheet(folder: Path, pattern: str, is_leaf: Callable[[str], bool]) -> Path | None:
    """Find a spreadsheet by its name, in the folder, below it, or beside it; the latest of several versions."""
    wanted = re.compile(pattern, re.IGNORECASE)
    suffixes = (".xlsx", ".xlsm", ".csv", ".xls")
    inside = list(entries(folder, is_leaf, depth=3))
    for places in (inside, sorted(folder.parent.iterdir())):
        found = [
            path
            for path in places
            if path.suffix.lower() in suffixes
            and wanted.search(path.name)
            and not path.name.startswith(("~$", "."))  # lock files of an open spreadsheet
        ]
        if found:
            # An .xls is the last choice: it can only be named in an error. Then the later version.
            return max(found, key=lambda path: (path.suffix.lower() != ".xls", natural(path.stem)))
    return None


def contents(folder: Path) -> str:
    """Say what a folder holds, for the message that it is the wrong one."""
    if not folder.exists():
        return "it does not exist"
    if not folder.is_dir():
        return "it is a file"
    names = sorted(
        (entry.name + ("/" if entry.is_dir() else "") for entry in os.scandir(folder)), key=natural
    )
    if not names:
        return "it is empty"
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"it holds {', '.join(names[:8])}{more}"


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts 9 before 10."""
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part.casefold())
        for part in re.split(r"(\d+)", name)
        if part
    ]
