"""Lists of files: what an installation changed, and what its removal left."""

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

Entry = tuple[int, int, int, str]
"""Mode, owner, group, and a hash of the content or the link's target."""

_NOT_OURS = (
    # What lives while the system runs, and the trial itself.
    "dev", "proc", "run", "sys", "tmp", "var/tmp", "opt/trial", "trial", "etc/systemd/system/trial.service",
    "etc/systemd/system/multi-user.target.wants/trial.service", "var/log/journal", "var/lib/systemd",
    "etc/resolv.conf", "etc/.updated", "var/.updated", "var/log/wtmp", "var/log/lastlog",
    # A broker's.
    "var/lib/mosquitto", "var/log/mosquitto",
    # apt's and dpkg's own: lists, downloads, records, and what maintainer scripts put together.
    "var/lib/apt", "var/cache/apt", "var/lib/dpkg", "var/log/apt", "var/log/dpkg.log", "var/log/alternatives.log",
    "var/cache/debconf", "var/cache/ldconfig", "etc/ld.so.cache", "etc/alternatives", "var/lib/python",
    # The copies that useradd and its kin keep of the files before.
    "etc/passwd-", "etc/shadow-", "etc/group-", "etc/gshadow-", "etc/.pwd.lock", "etc/subuid-", "etc/subgid-",
)  # fmt: skip


def listing(root: Path) -> dict[str, Entry]:
    """List everything in a root folder that an installation might leave, by path, folders included.

    What belongs to Debian packages is left out, and what Python has compiled of it.
    """
    packaged = _packaged(root)
    return {relative: _entry(path) for path, relative in _walk(root) if relative not in packaged}


def difference(before: Mapping[str, Entry], after: Mapping[str, Entry]) -> list[str]:
    """Say what was added (+), removed (-) and changed (~)."""
    said = [f"+ {path}" for path in sorted(after.keys() - before.keys())]
    said += [f"- {path}" for path in sorted(before.keys() - after.keys())]
    said += [f"~ {path}" for path in sorted(before.keys() & after.keys()) if before[path] != after[path]]
    return said


def times(root: Path, *places: str) -> dict[str, int]:
    """Give when each file below these places was last written, ns; links are taken as such."""
    found = {}
    for place in places:
        for folder, _, files in os.walk(root / place):
            for name in files:
                path = Path(folder, name)
                found[str(path.relative_to(root))] = path.lstat().st_mtime_ns
    return found


def _walk(root: Path) -> Iterator[tuple[Path, str]]:
    skipped = {str(root / each) for each in _NOT_OURS}
    stack = [str(root)]
    while stack:
        for entry in os.scandir(stack.pop()):
            relative = entry.path.removeprefix(f"{root}/")
            if entry.path in skipped or (entry.name == "__pycache__" and relative.startswith("usr/")):
                continue
            yield Path(entry.path), relative
            if entry.is_dir(follow_symlinks=False):
                stack.append(entry.path)


def _entry(path: Path) -> Entry:
    status = path.lstat()
    content = ""
    if stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    elif stat.S_ISREG(status.st_mode):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    return status.st_mode, status.st_uid, status.st_gid, content


def _packaged(root: Path) -> set[str]:
    """Give what dpkg has installed, folders included; as /bin and /lib are links into /usr, by both names."""
    paths: set[str] = set()
    for record in (root / "var/lib/dpkg/info").glob("*.list"):
        for line in record.read_text().splitlines():
            path = line.removeprefix("/")
            paths.update((path, f"usr/{path}"))
    return paths
