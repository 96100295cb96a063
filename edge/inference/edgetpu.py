"""What is known about the Edge TPU of this machine: its library, its devices, and which versions go together.

Nothing here loads the library except `delegate`, which only the inference child calls: the library may end the
process that holds it.
"""

import importlib.metadata
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edge.errors import ModelError
from edge.inference.cpu import ENGINES, engine_module, installed_engines

ENGINE = "edgetpu"
LIBRARY = "libedgetpu.so.1"
USB_IDS = {("1a6e", "089a"): "usb", ("18d1", "9302"): "usb"}
"""Vendor and product of the Coral USB Accelerator before and after it got its firmware."""
COMPILED = "{name}_edgetpu.tflite"
"""What edgetpu_compiler calls its output."""

_USB = Path("/sys/bus/usb/devices")
_DEV = Path("/dev")
_LIBRARY_FOLDERS = ("/usr/local/lib", "/usr/lib", "/lib")
_DPKG = Path("/var/lib/dpkg/status")
_PACKAGES = {"litert": "ai-edge-litert", "tflite-runtime": "tflite-runtime"}


def find_library(folders: Iterable[str | Path] | None = None) -> Path | None:
    """Find the driver without loading it: in LD_LIBRARY_PATH and where Debian puts it.

    Args:
        folders: in place of those; their subfolders of Debian's architectures are searched too.
    """
    if folders is None:
        named = [each for each in os.environ.get("LD_LIBRARY_PATH", "").split(":") if each]
        folders = [*named, *_LIBRARY_FOLDERS]
    for folder in map(Path, folders):
        for place in (folder, *sorted(folder.glob("*-linux-gnu*"))):
            if (place / LIBRARY).is_file():
                return place / LIBRARY
    return None


def find_devices(usb: Path = _USB, dev: Path = _DEV) -> list[str]:
    """Give the devices of this machine, "usb" for each on USB and the device file for each on PCIe."""
    found = []
    for folder in sorted(usb.glob("*")):
        try:
            ids = ((folder / "idVendor").read_text().strip(), (folder / "idProduct").read_text().strip())
        except OSError:  # a hub's interface has none, and a device may be unplugged meanwhile
            continue
        if ids in USB_IDS:
            found.append(USB_IDS[ids])
    return found + [str(path) for path in sorted(dev.glob("apex_*"))]


def missing(models: dict[str, Path], library: Path | None, devices: list[str]) -> list[str]:
    """Give what is missing to use the Edge TPU, one sentence each, with what to do about it.

    Args:
        models: the compiled file of each model, by the model's name.
        library: as found.
        devices: as found.
    """
    found = []
    if library is None:
        found.append(f"no {LIBRARY}: install the package libedgetpu1-std")
    if not devices:
        ids = " or ".join(":".join(pair) for pair in USB_IDS)
        found.append(f"no device: neither {ids} on USB nor /dev/apex_0")
    absent = [path for path in models.values() if not path.is_file()]
    if absent:
        # Compiled in one go they share the memory on the chip; else each switch uploads a model again.
        folder = absent[0].parent
        sources = " ".join(str(folder / f"{name}.tflite") for name in models)
        found.append(
            f"no {', '.join(path.name for path in absent)} in {folder}: "
            f"run `edgetpu_compiler -o {folder} {sources}` on an x86-64 Debian"
        )
    return found


def delegate(engine: str, library: str, device: str) -> Any:
    """Load the driver and open a device. Only for the inference child.

    Args:
        engine: the runtime that will use it, of `best_runtime`.
        library: its path.
        device: empty for the first, else "usb", "pci", ":1", "usb:0" and so on.

    Raises:
        ModelError: the runtime is absent, or the driver finds no device.
    """
    module = engine_module(engine)
    if module is None:
        raise ModelError(f"{_PACKAGES[engine]} is not installed")
    try:
        return module.load_delegate(library, delegate_options(device))
    except (OSError, ValueError, RuntimeError) as error:
        where = f"inference.device = {device!r}" if device else "the first device"
        raise ModelError(f"{library} cannot open {where} ({error or 'no reason given'})") from error


def delegate_options(device: str) -> dict[str, str]:
    """Give the driver's options that select a device. Source: libedgetpu, tflite/public/edgetpu_c.h."""
    return {"device": device} if device else {}


VERDICTS = ("ok", "unproven", "known to crash")


@dataclass(frozen=True, slots=True)
class Pairing:
    """Whether a runtime and a driver go together."""

    verdict: Literal["ok", "unproven", "known to crash"]
    words: str


def pairing(engine: str, runtime: str, library: str) -> Pairing:
    """Judge a runtime and a driver: unless both come from the same TensorFlow, the process crashes.

    Source: google-coral/edgetpu#712 and #812, google-coral/libedgetpu#26 and #53, tensorflow/tensorflow#62371; the
    drivers of feranick/libedgetpu name their TensorFlow, Google's own 16.0 of July 2021 comes from TensorFlow 2.5.

    Args:
        engine: "litert" or "tflite-runtime".
        runtime: its version, such as "2.14.0"; empty: not known.
        library: the version of its Debian package, such as "16.0TF2.17.1-1"; empty: not known.
    """
    pair = f"{_PACKAGES[engine]} {runtime or 'of unknown version'} with libedgetpu {library or 'of unknown version'}"
    if engine == "litert":
        return Pairing("unproven", f"{pair}: no proof that they work together; a pair that does is "
                                   "tflite-runtime 2.17.1 with libedgetpu 16.0TF2.17.1")  # fmt: skip
    if not runtime or not library:
        return Pairing("unproven", f"{pair}: both must come from the same TensorFlow")
    named = re.search(r"TF(\d+\.\d+(?:\.\d+)?)", library)
    built_with = named[1] if named else "2.5"
    if not named and runtime.split(".")[:2] in (["2", minor] for minor in "6789"):
        return Pairing("unproven", f"{pair}: reported to work; the driver was built with TensorFlow 2.5")
    if runtime.split(".")[:2] != built_with.split(".")[:2]:
        return Pairing(
            "known to crash",
            f"{pair}: the driver was built with TensorFlow {built_with}; install a matching one",
        )
    if named and ".".join(runtime.split(".")[:3]) != built_with:
        return Pairing("unproven", f"{pair}: TensorFlow {built_with} in the driver, close but not the same")
    return Pairing("ok", f"{pair}: from the same TensorFlow")


def best_runtime(dpkg: Path = _DPKG) -> tuple[str, Pairing]:
    """Give the installed runtime that goes best with the installed driver; the CPU may have another.

    Raises:
        ModelError: no runtime at all.
    """
    library = library_version(dpkg)
    pairs = [(engine, pairing(engine, _runtime_version(engine), library)) for engine in installed_engines()]
    if not pairs:
        raise ModelError(f"no runtime: install one of {', '.join(_PACKAGES.values())}")
    return min(pairs, key=lambda pair: VERDICTS.index(pair[1].verdict))


def library_version(dpkg: Path = _DPKG) -> str:
    """Give the version of the installed Debian package of the driver; empty if there is none."""
    try:
        text = dpkg.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    for entry in text.split("\n\n"):
        if re.search(r"^Package: libedgetpu1-(std|max)$", entry, re.M) and "Status: install ok" in entry:
            version = re.search(r"^Version: (\S+)$", entry, re.M)
            return version[1] if version else ""
    return ""


def _runtime_version(engine: str) -> str:
    assert engine in ENGINES
    for package in (_PACKAGES[engine], f"{_PACKAGES[engine]}-nightly"):
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""
