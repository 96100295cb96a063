"""Says beforehand whether events can be kept in a folder: by whom it can be written, and how much room is left."""

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

LEAST_FREE_MB = 10
"""Room on the disk below which events may soon be kept in memory only."""
_WRITE_AND_ENTER = 0o3


@dataclass(frozen=True, slots=True)
class User:
    """As whom a folder is to be written."""

    uid: int
    groups: frozenset[int]
    """Numbers of all groups, the user's own among them."""
    name: str = ""
    """Empty: this process."""

    @classmethod
    def current(cls) -> "User":
        """Give the user that this process runs as."""
        return cls(os.geteuid(), frozenset({os.getegid(), *os.getgroups()}))


def folder_problem(
    folder: Path,
    user: User | None = None,
    *,
    setting: str = "outbox.folder",
    statvfs: Callable[[Path], os.statvfs_result] = os.statvfs,
) -> str:
    """Say why `user` (None: this process) cannot keep events in `folder`; empty if it can.

    A folder that is not there is made, so the nearest one above it counts. Modes alone are looked at, not access
    control lists.
    """
    user = user or User.current()
    named = f'{setting} = "{folder}"'
    try:
        there = _nearest(folder)
        disk = statvfs(there)
        if disk.f_flag & os.ST_RDONLY:
            return f"{named}: its file system is mounted read-only"
        if not there.is_dir():
            return f"{named}: {there} is not a folder"
        if not may(there.stat(), user.uid, user.groups, _WRITE_AND_ENTER):
            who = f"user {user.name or user.uid}"
            return f"{named}: {who} may not write to {there} (mode {there.stat().st_mode & 0o7777:04o})"
    except OSError as error:
        return f"{named}: {error.strerror}"
    return ""


def room_problem(
    folder: Path,
    *,
    setting: str = "outbox.folder",
    statvfs: Callable[[Path], os.statvfs_result] = os.statvfs,
) -> str:
    """Say that the folder's disk is full or nearly so; empty if it is not, or cannot be asked."""
    try:
        disk = statvfs(_nearest(folder))
    except OSError:
        return ""
    free_mb = disk.f_bavail * disk.f_frsize // 1_000_000
    if free_mb < LEAST_FREE_MB:
        return f'{setting} = "{folder}": the disk has {free_mb} MB left, less than {LEAST_FREE_MB} MB'
    # File systems that need no table of files give 0 of 0.
    if disk.f_files and not disk.f_favail:
        return (
            f'{setting} = "{folder}": the disk can hold no more files (inodes), though {free_mb} MB are free'
        )
    return ""


def may(status: os.stat_result, uid: int, groups: Collection[int], wanted: int) -> bool:
    """Give whether the mode lets a user do `wanted` (bits: 4 read, 2 write, 1 run or enter).

    Source: path_resolution(7): the first of owner, group and others that applies decides alone.
    """
    if uid == 0:
        return True
    shift = 6 if status.st_uid == uid else 3 if status.st_gid in groups else 0
    return status.st_mode >> shift & wanted == wanted


def _nearest(folder: Path) -> Path:
    """Give the folder, or the nearest above it that exists.

    Raises:
        OSError: this user may not look.
    """
    for place in (folder, *folder.absolute().parents):
        try:
            place.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        return place
    return Path("/")
