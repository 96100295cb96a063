"""Area *runtime*: the versions that have to go together, and whether the models run on them."""

import platform
import re
import time
from collections.abc import Iterator
from pathlib import Path

from edge.doctor.case import Case
from edge.doctor.finding import Finding, failed, passed, warned
from edge.doctor.system import run_bounded

DISTRIBUTIONS = {"litert": "ai-edge-litert", "tflite-runtime": "tflite-runtime"}
MODULES = {"litert": "ai_edge_litert.interpreter", "tflite-runtime": "tflite_runtime.interpreter"}
IMPORT_S = 20.0
"""Time for a runtime to be loaded from a slow card."""
RELEASES = ("bookworm", "trixie")
_PIP = "/opt/microedge/bin/pip install"
_OTHER_OS = "write a new card with Raspberry Pi OS Lite (64-bit), Bookworm or Trixie"


def machine(case: Case) -> Iterator[Finding]:
    """Name the computer, its system and how wide that is."""
    system = case.system
    release = dict(line.split("=", 1) for line in system.read("/etc/os-release").splitlines() if "=" in line)
    name = release.get("PRETTY_NAME", "unknown system").strip('"')
    words = f"{system.board or system.machine}, {name}, {system.pointer_bits}-bit"
    codename = release.get("VERSION_CODENAME", "").strip('"')
    if system.pointer_bits != 64:
        yield failed("machine", f"{words}: there are no runtimes for 32 bits", _OTHER_OS)
    elif system.is_pi and codename not in RELEASES:
        yield warned("machine", f"{words}: tried on {' and '.join(RELEASES)} alone", _OTHER_OS)
    else:
        yield passed("machine", words)


def python(case: Case) -> Iterator[Finding]:
    """Name the interpreter and numpy."""
    numpy = case.system.version("numpy")
    if not numpy:
        yield failed("python", f"Python {platform.python_version()}, no numpy", f"{_PIP} 'numpy>=1.26'")
    else:
        yield passed("python", f"Python {platform.python_version()}, numpy {numpy}")


def engines(case: Case) -> Iterator[Finding]:
    """Load each runtime that is installed, in a process of its own: a wheel for another processor ends it."""
    usable = []
    for engine, distribution in DISTRIBUTIONS.items():
        version = case.system.version(distribution)
        if not version:
            continue
        problem = run_bounded([case.system.python, "-c", f"import {MODULES[engine]}"], IMPORT_S).problem
        if not problem:
            usable.append(engine)
        advice = f"{_PIP} --force-reinstall {distribution}=={version}"
        if engine == "tflite-runtime" and _major(case.system.version("numpy")) >= 2:
            # Its binaries were made for numpy 1: it loads, and fails with the first tensor.
            problem = f"made for numpy 1, and numpy is {case.system.version('numpy')}"
            advice = f"{_PIP} 'numpy<2'"
            usable.remove(engine)
        if problem and usable:
            yield warned(
                engine, f"{distribution} {version} cannot be used: {problem}; {usable[0]} is", advice
            )
        elif problem:
            yield failed(engine, f"{distribution} {version} cannot be used: {problem}", advice)
        else:
            yield passed(
                engine,
                f"{distribution} {version} loads" + (" and runs the models" if usable == [engine] else ""),
            )
    if not usable:
        yield failed(
            "engine",
            "no runtime that works: neither ai-edge-litert nor tflite-runtime",
            f"{_PIP} ai-edge-litert",
        )


def models(case: Case) -> Iterator[Finding]:
    """Load each model, hold it against its passport and run it once."""
    import numpy as np

    from edge.errors import ModelError
    from edge.inference.manifest import load_model, models_folder, read_manifest
    from edge.inference.models import NAMES

    wanted = case.config.inference
    advice = "install microedge again: tools/install"
    if wanted.models:
        advice = f"inference.models = {wanted.models}: put the files of one version of microedge there"
    try:
        folder = models_folder(Path(wanted.models) if wanted.models else None)
        passports = read_manifest(folder)
    except ModelError as error:
        yield failed("models", str(error), advice)
        return
    times: list[str] = []
    for name in (name for name in NAMES if name in passports):
        try:
            model = load_model(name, folder=folder, threads=wanted.threads)
        except ModelError as error:
            yield failed("models", str(error), advice)
            return
        values = np.zeros(model.input.shape, np.int8)
        model.run(values)
        began_s = time.perf_counter()
        model.run(values)
        times.append(f"{name} {1000 * (time.perf_counter() - began_s):.1f} ms")
        engine = model.engine
        model.close()
    if absent := [name for name in NAMES if name not in passports]:
        yield failed("models", f"{folder}: lacks {', '.join(absent)}", advice)
        return
    yield passed("models", f"as their passports say; one run of each by {engine}: {', '.join(times)}")


def pages(case: Case) -> Iterator[Finding]:
    """Look at the kernel's page size, which the driver of a Coral on PCIe wants to be 4 KiB."""
    kib = case.system.page_bytes // 1024
    has_pci = bool(case.system.glob("/dev/apex_*")) or case.config.inference.device.startswith("pci")
    if kib == 4 or not has_pci:
        note = "" if kib == 4 else "; fine, as there is no Coral on PCIe, which wants 4"
        yield passed("page size", f"{kib} KiB{note}")
    else:
        yield failed(
            "page size", f"{kib} KiB: the driver of a Coral on PCIe wants 4",
            "add the line kernel=kernel8.img to /boot/firmware/config.txt; sudo reboot",
        )  # fmt: skip


CHECKS = (machine, python, engines, models, pages)


def _major(version: str) -> int:
    found = re.match(r"\d+", version)
    return int(found[0]) if found else 0
