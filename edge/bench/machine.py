"""What a measurement was made on, in words: figures of another machine mean nothing without it."""

import os
import platform
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

_MODEL = Path("/proc/device-tree/model")
_CPU = Path("/proc/cpuinfo")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_PACKAGES = ("ai-edge-litert", "tflite-runtime", "numpy", "opencv-python-headless")


@dataclass(frozen=True, slots=True)
class Machine:
    """One computer as it is now."""

    board: str
    """Such as `Raspberry Pi 5 Model B Rev 1.0`; empty where the firmware names none."""
    cpu: str
    cores: int
    """That this process may use."""
    governor: str
    """Of the clock frequency; empty where it is not told."""
    load: float
    """Processes that wanted a core over the last minute: what else went on."""
    system: str
    python: str
    packages: dict[str, str]
    """Versions of what does the work, of those installed."""


def describe() -> Machine:
    """Look at this computer."""
    return Machine(
        board=_read(_MODEL).rstrip("\0"),
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        governor=_read(_GOVERNOR),
        load=round(os.getloadavg()[0], 2),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=".".join(map(str, sys.version_info[:3])),
        packages={name: version for name in _PACKAGES if (version := _version(name))},
    )


def resident_mb() -> float:
    """Give the memory of this process that lies in RAM and belongs to no file, MiB (proc(5), RssAnon)."""
    return process_status().get("RssAnon", float("nan")) / 1024


def process_status() -> dict[str, int]:
    """Give this process's memory (`VmRSS`, `RssAnon`, kB) and number of `Threads`, those that the kernel tells.

    Source: proc(5), /proc/pid/status.
    """
    rows = (line.split() for line in _read(Path("/proc/self/status")).splitlines())
    wanted = ("VmRSS:", "RssAnon:", "Threads:")
    return {row[0].rstrip(":"): int(row[1]) for row in rows if row and row[0] in wanted}


def _cpu() -> str:
    for line in _read(_CPU).splitlines():
        if line.lower().startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
