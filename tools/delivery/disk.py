"""A folder whose disk can fill up: a small file system of its own for root, else a limit on the writing process."""

import contextlib
import os
import resource
import subprocess
from pathlib import Path
from typing import Protocol

SIZE_KB = 16_384
"""Of the small file system: room for the events of a run, and for a write-ahead log that SQLite lets grow to 4 MB."""


class Disk(Protocol):
    """Where a device's outbox lives. Whoever makes it removes it."""

    folder: Path
    is_full: bool

    def fill(self, spare_bytes: int) -> None:
        """Leave at most `spare_bytes`: the next commits fail, mostly in the middle."""

    def free(self) -> None:
        """Give the room back."""

    def began(self, pid: int) -> None:
        """A process that writes here has started."""

    def remove(self) -> None:
        """Take the disk away. May be called again."""


class PlainDisk:
    """A folder of the real disk. To fill it, the device's own process is forbidden to write.

    The limit applies to the end of a file, so `spare_bytes` is not heeded: no file grows beyond a page. The device
    sees EFBIG where a full disk gives ENOSPC.

    Source: setrlimit(2), RLIMIT_FSIZE; Python ignores SIGXFSZ.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.is_full = False
        self._pid = 0

    def fill(self, spare_bytes: int) -> None:
        self.is_full = True
        self._limit()

    def free(self) -> None:
        self.is_full = False
        self._limit()

    def began(self, pid: int) -> None:
        self._pid = pid
        if self.is_full:
            self._limit()

    def remove(self) -> None:
        """Nothing is to be taken away."""

    def _limit(self) -> None:
        # The process may have been killed meanwhile.
        with contextlib.suppress(ProcessLookupError):
            _, hard = resource.prlimit(self._pid, resource.RLIMIT_FSIZE)
            resource.prlimit(self._pid, resource.RLIMIT_FSIZE, (4096 if self.is_full else hard, hard))


class SmallDisk:
    """A file system in memory that a ballast file fills to the last byte. Needs root."""

    def __init__(self, folder: Path) -> None:
        """Mount it.

        Raises:
            OSError: this is not root, or mounting is not allowed here.
        """
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.is_full = False
        self._ballast = folder / "ballast"
        mounted = _command(
            "mount", "-t", "tmpfs", "-o", f"size={SIZE_KB}k,mode=0700", "microedge-chaos", str(folder)
        )
        if mounted.returncode != 0:
            raise OSError(f"{folder}: cannot mount a small file system: {mounted.stderr.strip()}")
        self._is_mounted = True

    def fill(self, spare_bytes: int) -> None:
        self.is_full = True
        with self._ballast.open("ab", buffering=0) as ballast:
            for size in (1 << 16, 4096, 1):
                with contextlib.suppress(OSError):
                    while ballast.write(bytes(size)):
                        pass
            ballast.truncate(max(0, ballast.tell() - spare_bytes))

    def free(self) -> None:
        self.is_full = False
        self._ballast.unlink(missing_ok=True)

    def began(self, pid: int) -> None:
        """The file system is full or not, whoever writes."""

    def remove(self) -> None:
        if self._is_mounted:
            self._is_mounted = False
            # Lazily: a process that has just been killed may still hold it for a moment.
            _command("umount", "--lazy", str(self.folder))


def make_disk(folder: Path, *, small: bool) -> Disk:
    """Give a disk for `folder`: a small one if asked for and possible here."""
    if small and os.geteuid() == 0:
        with contextlib.suppress(OSError):
            return SmallDisk(folder)
    return PlainDisk(folder)


def _command(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(words, capture_output=True, text=True, check=False)
