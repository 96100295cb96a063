"""What a trial begins with: a Debian that has never seen microedge, and versions of microedge to install."""

import fcntl
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tools.builds import cache_folder
from tools.container import ContainerError, missing
from tools.container.root import MIRROR, RELEASES

ROOT = Path(__file__).parents[2]
_PACKAGES = ("ca-certificates", "dbus", "systemd-sysv", "udev")
"""Neither Python nor a package list: all else is the installer's to fetch."""
_PARTS = ("pyproject.toml", "README.md", "edge", "models", "systemd", "tools/install", "tools/uninstall")
"""Of a checkout, what an installation needs."""
_PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy")


def bare_root(release: str) -> Path:
    """Give the root folder of a Debian with systemd and little else, built once and kept; write to a `layer` of it.

    Raises:
        ContainerError: this machine lacks something, or the packages cannot be had.
    """
    if release not in RELEASES:
        raise ContainerError(f"release {release!r}: not one of {', '.join(RELEASES)}")
    if lacks := missing():
        raise ContainerError("; ".join(lacks))
    folder = cache_folder("container")
    root = folder / f"bare-{release}"
    with (folder / f"bare-{release}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            unfinished = folder / f".bare-{release}"
            shutil.rmtree(unfinished, ignore_errors=True)
            done = subprocess.run(
                ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(_PACKAGES)}",
                 release, str(unfinished), MIRROR],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode != 0:
                raise ContainerError(f"mmdebstrap: {done.stderr[-2000:]}")
            (unfinished / "etc/machine-id").write_text("6d6963726f656467652d62617265303031"[:32] + "\n")
            (unfinished / "etc/hostname").write_text("bare\n")
            (unfinished / "etc/hosts").write_text("127.0.0.1 localhost bare\n")
            (unfinished / "var/log/journal").mkdir(parents=True, exist_ok=True)
            unfinished.rename(root)
    return root


def pass_network_settings(root: Path) -> None:
    """Let pip in there reach its index as pip here does: certificate authority, index and proxy of this machine."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    settings = dict(re.findall(r"^(?:global|:env:)\.([a-z-]+)='(.*)'$", listed, re.MULTILINE))
    lines = [
        f"{name} = {settings[name]}" for name in _PIP_SETTINGS if "file:" not in settings.get(name, "file:")
    ]
    if "cert" in settings:
        shutil.copy(settings["cert"], root / "etc/pip-authorities.pem")
        lines.append("cert = /etc/pip-authorities.pem")
    if lines:
        (root / "etc/pip.conf").write_text("\n".join(["[global]", *lines, ""]))


def version(folder: Path, number: str) -> Path:
    """Copy what is installed of this checkout to `folder`, as another version."""
    for part in _PARTS:
        source, target = ROOT / part, folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    _replace(folder / "edge/__init__.py", r'__version__ = ".*"', f'__version__ = "{number}"')
    _replace(folder / "pyproject.toml", r'(?m)^version = ".*"', f'version = "{number}"')
    return folder


def without_a_dependency(folder: Path) -> Path:
    """Make a version need a package that does not exist, so that pip gives up after it has begun."""
    _replace(
        folder / "pyproject.toml",
        r"(?m)^dependencies = \[",
        'dependencies = ["microedge-no-such-package>=1",',
    )
    return folder


def that_crashes(folder: Path) -> Path:
    """Make a version that passes every look at it and ends as soon as the service starts it."""
    _replace(
        folder / "edge/commands/run.py",
        r"(?m)^def main\(.*:$",
        r'\g<0>\n    raise RuntimeError("made to crash")',
    )
    return folder


def that_changes_units(folder: Path) -> Path:
    """Make a version with another unit, and with one file less in systemd/."""
    _replace(
        folder / "systemd/microedge.service", r"(?m)^Description=.*$", "Description=Another version's unit"
    )
    (folder / "systemd/journald.conf.d/60-microedge.conf").unlink()
    return folder


def _replace(path: Path, pattern: str, text: str) -> None:
    changed, count = re.subn(pattern, text, path.read_text(), count=1)
    if count != 1:
        raise ContainerError(f"{path}: {pattern!r} is not there")
    path.write_text(changed)
