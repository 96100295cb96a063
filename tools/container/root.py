"""The files of a Debian that systemd-nspawn can boot: built once, kept in the cache, and overlaid for each use."""

import contextlib
import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import getsource
from pathlib import Path

from tools.builds import cache_folder, lacking
from tools.container.machine import ContainerError

WITH_PYTHON = {(3, 11): "bookworm", (3, 13): "trixie"}
"""The Debian release that has which Python."""
RELEASES = tuple(WITH_PYTHON.values())
MIRROR = "http://deb.debian.org/debian"
PACKAGES = (
    "ca-certificates", "dbus", "mosquitto", "mosquitto-clients", "procps", "python3", "python3-venv",
    "systemd", "systemd-sysv", "udev",
)  # fmt: skip
"""What an installed Raspberry Pi OS has too, as far as microedge meets it; and a broker."""
_NEEDED = {"mmdebstrap": "mmdebstrap", "systemd-nspawn": "systemd-container"}
"""Command and the Debian package that has it."""
_QUIET = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
)
"""Would wake up during a trial."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A root folder whose changes lie apart."""

    root: Path
    changes: Path
    """Holds whatever was written or removed since, laid out as in `root` (overlayfs: removed files are devices 0:0)."""


def missing() -> list[str]:
    """Say what keeps this machine from booting a container; empty if nothing does."""
    return lacking(_NEEDED, "it needs root")


def rootfs(release: str = "bookworm") -> Path:
    """Give the pristine root folder of a Debian release for this machine's processor, built if it is not there.

    It is shared: write to a `layer` or a copy (`cp -a --reflink=auto`) of it. Building takes half a minute to two
    minutes and about 300 MB of disk.

    Raises:
        ContainerError: this machine lacks something, or the packages cannot be had.
    """
    if release not in RELEASES:
        raise ContainerError(f"release {release!r}: not one of {', '.join(RELEASES)}")
    if lacks := missing():
        raise ContainerError("; ".join(lacks))
    recipe = hashlib.sha256(" ".join((MIRROR, *PACKAGES, *_QUIET, getsource(_build))).encode()).hexdigest()[
        :12
    ]
    folder = cache_folder("container")
    root = folder / f"{release}-{recipe}"
    with (folder / f"{release}.lock").open("w") as lock:
        # Several trials may want it at once; one of them builds.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            for old in folder.glob(f"{release}-*"):
                shutil.rmtree(old)
            unfinished = folder / f".{release}"
            shutil.rmtree(unfinished, ignore_errors=True)
            _build(release, unfinished)
            unfinished.rename(root)
    return root


@contextlib.contextmanager
def layer(base: Path) -> Iterator[Layer]:
    """Put a layer in memory over a root folder; both vanish in the end, and `base` stays as it is.

    Raises:
        ContainerError: the kernel does not let us mount.
    """
    with contextlib.ExitStack() as stack:
        top = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="microedge-container-")))
        # In memory, because a folder that is itself an overlay (a CI job's) cannot be the upper part of another.
        _run("mount", "-t", "tmpfs", "-o", "mode=0755", "microedge", str(top))
        stack.callback(_run, "umount", str(top))
        changes, work, root = top / "changes", top / "work", top / "root"
        for part in (changes, work, root):
            part.mkdir()
        options = f"lowerdir={base},upperdir={changes},workdir={work}"
        _run("mount", "-t", "overlay", "-o", options, "microedge", str(root))
        stack.callback(_run, "umount", str(root))
        yield Layer(root, changes)


def _build(release: str, root: Path) -> None:
    _run(
        "mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}",
        "--aptopt=Acquire::Retries \"3\"", release, str(root), MIRROR,
    )  # fmt: skip
    _run("systemctl", f"--root={root}", "mask", *_QUIET)
    # Otherwise each boot would be the first one, and begin with enabling everything.
    (root / "etc/machine-id").write_text(hashlib.sha256(release.encode()).hexdigest()[:32] + "\n")
    (root / "etc/hostname").write_text("container\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 container\n")
    # Its presence makes journald keep what it hears over a restart of the container.
    (root / "var/log/journal").mkdir(parents=True, exist_ok=True)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip()[-2000:]
        raise ContainerError(f"{' '.join(command[:3])}: exit status {done.returncode}: {words}")
