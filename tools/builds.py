"""What trials in containers and emulated machines share: what they need here, and where their builds stay."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path


def lacking(commands: Mapping[str, str], why_root: str) -> list[str]:
    """Say what keeps this machine from a trial; empty if nothing does.

    Args:
        commands: what must be installed, and the Debian package that has it.
        why_root: what to say if this is not root.
    """
    lacks = [] if os.geteuid() == 0 else [why_root]
    for command, package in commands.items():
        if shutil.which(command) is None:
            lacks.append(f"{command} is not installed (apt install {package})")
    return lacks


def cache_folder(name: str) -> Path:
    """Give, and make, `${XDG_CACHE_HOME:-~/.cache}/microedge/NAME`, where what takes minutes to build is kept."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    folder = (Path(home) if home else Path.home() / ".cache") / "microedge" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
