"""The machine as the checks see it: files below one root, commands that may not hang, and what the kernel tells.

Tests give another root, in which /sys, /proc, /dev, /etc and /usr/bin are files and scripts of their own.
"""

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from edge.clock import is_synchronised

COMMAND_S = 5.0
"""Time that a command gets; those asked for here answer within a second on a Raspberry Pi 4."""
_FOLDERS = ("usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin")


@dataclass(frozen=True, slots=True)
class Output:
    """What a command said."""

    text: str
    """Its standard output, without white space at its ends."""
    problem: str = ""
    """Why it failed, in one line; empty if it did not."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has a device file open."""

    pid: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})"


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class System:
    """One machine. Everything has the value of this one unless it is given."""

    root: Path = Path("/")
    """What stands for the root of the file system."""
    euid: int = field(default_factory=os.geteuid)
    now: Callable[[], datetime] = _now
    """UTC."""
    synchronised: Callable[[], bool] = is_synchronised
    """Whether something keeps the clock right."""
    page_bytes: int = field(default_factory=lambda: os.sysconf("SC_PAGE_SIZE"))
    """Of the kernel."""
    pointer_bits: int = 64 if sys.maxsize > 1 << 32 else 32
    machine: str = field(default_factory=platform.machine)
    statvfs: Callable[[Path], os.statvfs_result] = os.statvfs
    python: str = sys.executable
    """Interpreter for child processes."""
    packages: Mapping[str, str] | None = None
    """Versions by Python distribution; None: those that are installed."""
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    shipped: tuple[Path, ...] = (
        Path(sys.prefix) / "share" / "microedge" / "systemd",
        Path(__file__).resolve().parents[2] / "systemd",
    )
    """Folders that may hold the units of this version."""

    @property
    def is_root(self) -> bool:
        return self.euid == 0

    @property
    def board(self) -> str:
        """The computer's name, such as `Raspberry Pi 5 Model B Rev 1.0`; empty where the firmware tells none."""
        return self.read("/proc/device-tree/model").rstrip("\0")

    @property
    def is_pi(self) -> bool:
        return self.board.startswith("Raspberry Pi")

    def path(self, absolute: str | Path) -> Path:
        """Give where an absolute path of this machine lies."""
        return self.root / str(absolute).lstrip("/")

    def shown(self, path: Path) -> str:
        """Give a path below the root as the machine itself calls it."""
        return f"/{path.relative_to(self.root)}"

    def read(self, absolute: str | Path) -> str:
        """Give a small text file without white space at its ends; empty if it cannot be read."""
        try:
            return self.path(absolute).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""

    def glob(self, pattern: str) -> list[Path]:
        """Give what matches an absolute pattern, sorted."""
        return sorted(self.root.glob(pattern.lstrip("/")))

    def version(self, package: str) -> str:
        """Give the version of a Python distribution; empty if it is not installed."""
        if self.packages is not None:
            return self.packages.get(package, "")
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return ""

    def has(self, command: str) -> bool:
        """Whether a command is installed."""
        return self._command(command) is not None

    def run(self, command: str, *arguments: str, timeout_s: float = COMMAND_S) -> Output:
        """Run a command of this machine, never through a shell, and end it when it takes too long."""
        path = self._command(command)
        if path is None:
            return Output("", f"{command}: is not installed")
        return run_bounded([str(path), *arguments], timeout_s)

    def holders(self, device: Path) -> list[Holder]:
        """Give the processes that have a device file open, those of them that this user may look into."""
        try:
            wanted = device.stat()
        except OSError:
            return []
        found = []
        for pid, descriptor in self._descriptors():
            try:
                status = descriptor.stat()
            except OSError:
                continue  # closed meanwhile, or no file
            same = (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino)
            if same or (wanted.st_rdev and status.st_rdev == wanted.st_rdev):
                found.append(pid)
        return [Holder(pid, self.read(f"/proc/{pid}/comm") or "?") for pid in dict.fromkeys(found)]

    def _descriptors(self) -> Iterator[tuple[int, Path]]:
        for folder in self.glob("/proc/[0-9]*/fd"):
            try:
                for descriptor in folder.iterdir():
                    yield int(folder.parent.name), descriptor
            except OSError:
                continue  # another user's, or it has ended

    def _command(self, name: str) -> Path | None:
        for folder in _FOLDERS:
            path = self.root / folder / name
            if os.access(path, os.X_OK):
                return path
        return None


def run_bounded(command: list[str], timeout_s: float, environment: Mapping[str, str] | None = None) -> Output:
    """Run a program with nothing to read, and end it when it takes longer than `timeout_s`."""
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Output("", f"{name}: gave no answer within {timeout_s:g} s")
    except OSError as error:
        return Output("", f"{name}: {error.strerror}")
    text = done.stdout.decode(errors="replace").strip()
    if done.returncode < 0:
        return Output(text, f"{name}: was ended by signal {-done.returncode}")
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        return Output(text, said[-1][:300] if said else f"{name}: exit code {done.returncode}")
    return Output(text)
