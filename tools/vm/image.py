"""The disk of the virtual machine: Debian trixie, its libcamera, gpio-sim and a Python with all we need; built once.

Trixie because only its backports have a libcamera (0.7.1) whose virtual camera works; its Python is 3.13, which is also
what Raspberry Pi OS Trixie has. gpio-sim is not in Debian's kernels and is built from their own source package.
"""

import fcntl
import hashlib
import shutil
import subprocess
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.builds import cache_folder, lacking

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
RELEASE = "trixie"
MIRROR = "http://deb.debian.org/debian"
PACKAGES = (
    # What an installed Raspberry Pi OS has too, as far as microedge meets it; and a broker.
    "ca-certificates", "dbus", "gpiod", "iproute2", "kmod", "libcamera-ipa", "libcamera-tools", "mosquitto",
    "mosquitto-clients", "procps", "python3", "python3-libcamera", "python3-venv", "systemd", "systemd-sysv", "udev",
    "linux-image-amd64", "initramfs-tools", "lz4",
    # What builds gpio-sim, lgpio and python-prctl.
    "gcc", "libc6-dev", "libcap-dev", "linux-headers-amd64", "make", "python3-dev", "swig", "xz-utils",
)  # fmt: skip
PIN = "Package: *libcamera*\nPin: release n=trixie-backports\nPin-Priority: 900\n"
"""The virtual camera of trixie's own 0.4.0 gives frames of stride zero."""
EXACT = ("picamera2==0.3.38", "lgpio==0.2.2.0", "pytest>=8", "hypothesis>=6.100")
"""What is proved here is proved for these; the requirements of the package itself come on top."""
RECIPE = ("modules.sh", "python.sh", "guest.sh")
"""Run one after another in the root; each is kept as a stage of its own while building."""
DISK_MIB = 4096
_NEEDED = {
    "mmdebstrap": "mmdebstrap",
    "chroot": "coreutils",
    "mke2fs": "e2fsprogs",
    "qemu-system-x86_64": "qemu-system-x86",
}
"""Command and the Debian package that has it."""


class VmError(Exception):
    """No machine can be had, or what was to run in it has failed; in words."""


@dataclass(frozen=True, slots=True)
class Image:
    """What a machine boots from; never written to."""

    disk: Path
    kernel: Path
    initrd: Path


def missing() -> list[str]:
    """Say what keeps this computer from building and running the machine; empty if nothing does."""
    return lacking(_NEEDED, "building the disk needs root")


def requirements() -> list[str]:
    """Give what goes into the machine's Python: all that the package and its demo ask for, and the exact versions."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["demo"], *EXACT]


def recipe_id() -> str:
    """Name the disk by all that decides on what is in it."""
    parts = [*PACKAGES, RELEASE, PIN, *requirements(), str(DISK_MIB)]
    parts += [path.read_text() for path in inputs()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def image() -> Image:
    """Give the disk with its kernel, built if it is not there: four to ten minutes, 350 MB of downloads, 2 GB.

    Raises:
        VmError: this computer lacks something, or a part cannot be had.
    """
    if lacks := missing():
        raise VmError("; ".join(lacks))
    folder = cache_folder("vm")
    built = folder / f"disk-{recipe_id()}"
    with (folder / "lock").open("w") as lock:
        # Several runs may want it at once; one of them builds.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            _build(folder, built)
            for old in folder.glob("disk-*"):
                if old != built:
                    shutil.rmtree(old)
    return Image(built / "disk.img", built / "vmlinuz", built / "initrd.img")


def inputs() -> list[Path]:
    """Give the files that the recipe consists of."""
    return [HERE / "recipe" / name for name in (*RECIPE, "start", "init", "vm.service", "pykms.py")]


def _build(folder: Path, built: Path) -> None:
    root = folder / "root"
    begun_s = time.monotonic()
    _say("building the disk of the virtual machine; this is done once and takes some minutes")
    base = hashlib.sha256("\n".join([*PACKAGES, RELEASE, PIN]).encode()).hexdigest()[:12]
    note = folder / "root.base"
    if not (root.exists() and note.exists() and note.read_text() == base):
        shutil.rmtree(root, ignore_errors=True)
        note.unlink(missing_ok=True)
        _debootstrap(root)
        note.write_text(base)
    work = root / "opt/recipe"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(HERE / "recipe", work)
    (work / "requirements.txt").write_text("\n".join(requirements()) + "\n")
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    # This computer may trust an authority that Debian does not know.
    authorities = Path("/etc/ssl/certs/ca-certificates.crt")
    if authorities.exists():
        shutil.copy(authorities, work / "authorities.pem")
    for script in RECIPE:
        _say(f"  {script} ({time.monotonic() - begun_s:.0f} s)")
        _run(
            ["chroot", str(root), "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root",
             "/bin/sh", "-eu", f"/opt/recipe/{script}"],
        )  # fmt: skip
    unfinished = folder / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    (kernel,) = (root / "boot").glob("vmlinuz-*")
    shutil.copy(kernel, unfinished / "vmlinuz")
    shutil.copy(root / "boot/vm.img", unfinished / "initrd.img")
    _say(f"  disk ({time.monotonic() - begun_s:.0f} s)")
    make_disk(root, unfinished / "disk.img", DISK_MIB)
    unfinished.rename(built)
    _say(f"  done ({time.monotonic() - begun_s:.0f} s)")


def _debootstrap(root: Path) -> None:
    pin = f'mkdir -p "$1/etc/apt/preferences.d" && printf %s "{PIN}" >"$1/etc/apt/preferences.d/libcamera"'
    _run(
        ["mmdebstrap", "--quiet", "--variant=minbase", "--architectures=amd64", f"--include={','.join(PACKAGES)}",
         '--aptopt=Acquire::Languages "none"', '--aptopt=Acquire::Retries "3"',
         '--aptopt=Apt::Install-Recommends "false"',
         *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")),
         f"--setup-hook={pin}", RELEASE, str(root),
         f"deb {MIRROR} {RELEASE} main", f"deb {MIRROR} {RELEASE}-backports main"],
    )  # fmt: skip


def make_disk(folder: Path, disk: Path, size_mib: int) -> None:
    """Write a folder into a file as an ext4 file system; nothing is mounted for it."""
    disk.unlink(missing_ok=True)
    with disk.open("wb") as file:
        file.truncate(size_mib << 20)
    _run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(folder), "-F", str(disk)])


def _say(text: str) -> None:
    print(text, flush=True)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        words = (done.stdout + done.stderr).strip()[-3000:]
        raise VmError(f"{' '.join(command[:3])}: exit status {done.returncode}: {words}")
