"""Area *coral*: the Edge TPU, its driver and the compiled models, as far as `inference.accelerator` asks for them."""

from collections.abc import Iterator
from pathlib import Path

from edge.doctor.case import Case
from edge.doctor.finding import Finding, failed, passed, skipped, warned
from edge.errors import ModelError
from edge.inference import edgetpu
from edge.inference.manifest import models_folder, read_manifest
from edge.store.folder import may

PCI_ID = ("0x1ac1", "0x089a")
"""Vendor and device of a Coral on PCIe or M.2."""
HIGH_SPEED, SUPER_SPEED = 480, 5000
"""Speeds of USB 2 and 3 as the kernel tells them, Mbit/s."""
_DRIVER = (
    "add the packages of https://packages.cloud.google.com/apt coral-edgetpu-stable, or a newer build; then: "
    "sudo apt install libedgetpu1-std"
)


def device(case: Case) -> Iterator[Finding]:
    """Look for a Coral on USB and on PCIe, and at how it is connected."""
    wanted = case.config.inference.accelerator
    if wanted == "cpu" and case.is_config_known:
        yield skipped("coral", "inference.accelerator = cpu: not asked for")
        return
    usb = _usb_devices(case)
    apex = case.system.glob("/dev/apex_*")
    if not usb and not apex:
        yield from _absent(case)
    for folder in usb:
        yield from _usb(case, folder)
    for node in apex:
        name = case.system.shown(node)
        status = node.stat()
        if may(status, case.user.uid, case.user.groups, 6):
            yield passed("on PCIe", name)
        else:
            yield failed(
                "on PCIe", f"{name}: {case.who()} may not use it (mode {status.st_mode & 0o777:04o})",
                "echo 'SUBSYSTEM==\"apex\", MODE=\"0660\", GROUP=\"plugdev\"' | sudo tee "
                "/etc/udev/rules.d/65-apex.rules; sudo udevadm control --reload; sudo udevadm trigger",
            )  # fmt: skip


def driver(case: Case) -> Iterator[Finding]:
    """Look at the driver, and whether it goes together with the runtime."""
    if not _is_of_interest(case):
        yield skipped("libedgetpu", "not needed without a Coral")
        return
    is_demanded = case.config.inference.accelerator == "edgetpu"
    worse = failed if is_demanded else warned
    folders = [case.system.path(each) for each in ("/usr/local/lib", "/usr/lib", "/lib")]
    library = edgetpu.find_library(folders)
    if library is None:
        yield worse("libedgetpu", f"no {edgetpu.LIBRARY}", _DRIVER)
        return
    version = edgetpu.library_version(case.system.path("/var/lib/dpkg/status"))
    pairs = [
        edgetpu.pairing(engine, runtime, version)
        for engine, package in (("tflite-runtime", "tflite-runtime"), ("litert", "ai-edge-litert"))
        if (runtime := case.system.version(package))
    ]
    best = min(pairs, key=lambda pair: edgetpu.VERDICTS.index(pair.verdict), default=None)
    if best is None:
        yield failed("libedgetpu", "there is no runtime to go with it", "see runtime above")
    elif best.verdict == "known to crash":
        yield failed("libedgetpu", best.words, "install a pair from one TensorFlow, such as tflite-runtime 2.17.1 with "
                     "libedgetpu 16.0TF2.17.1, or set inference.accelerator = \"cpu\"")  # fmt: skip
    elif best.verdict == "unproven":
        yield warned(
            "libedgetpu", best.words, "watch accelerator in the health message: restarts must stay at 0"
        )
    else:
        yield passed("libedgetpu", best.words)


def compiled(case: Case) -> Iterator[Finding]:
    """Look for the models as the Edge TPU's compiler makes them."""
    if not _is_of_interest(case):
        return
    named = case.config.inference.models
    try:
        folder = models_folder(Path(named) if named else None)
        passports = read_manifest(folder)
    except ModelError:
        return  # area runtime says so
    files = {
        name: folder / (passport.edgetpu.file if passport.edgetpu else edgetpu.COMPILED.format(name=name))
        for name, passport in passports.items()
    }
    absent = [path.name for path in files.values() if not path.is_file()]
    if absent:
        worse = failed if case.config.inference.accelerator == "edgetpu" else warned
        sources = " ".join(f"{name}.tflite" for name in files)
        yield worse("edgetpu models", f"{folder}: no {', '.join(absent)}; the CPU does their work",
                    f"on an x86-64 Debian: edgetpu_compiler {sources}; copy the results there")  # fmt: skip
    else:
        yield passed("edgetpu models", f"{', '.join(path.name for path in files.values())} in {folder}")


CHECKS = (device, driver, compiled)


def _absent(case: Case) -> Iterator[Finding]:
    on_pci = any(
        (
            case.system.read(case.system.shown(folder / "vendor")),
            case.system.read(case.system.shown(folder / "device")),
        )
        == PCI_ID
        for folder in case.system.glob("/sys/bus/pci/devices/*")
    )
    if on_pci:
        yield failed(
            "coral", "one is on PCIe, but there is no /dev/apex_0: its driver is not loaded",
            "sudo apt install gasket-dkms; on a Pi 5 also dtoverlay=pciex1-compat-pi5,no-mip and kernel=kernel8.img in "
            "/boot/firmware/config.txt; sudo reboot",
        )  # fmt: skip
    elif case.config.inference.accelerator == "edgetpu":
        yield failed(
            "coral", "inference.accelerator = edgetpu: neither 1a6e:089a nor 18d1:9302 on USB, nor /dev/apex_0",
            "plug it into a blue USB 3 port and look at: lsusb; or set inference.accelerator = \"auto\"",
        )  # fmt: skip
    else:
        yield skipped("coral", "none is plugged in: the CPU does its work (inference.accelerator = auto)")


def _usb(case: Case, folder: Path) -> Iterator[Finding]:
    """Judge one Coral on USB by what the kernel tells of it."""

    def told(name: str) -> str:
        return case.system.read(case.system.shown(folder / name))

    ids = f"{told('idVendor')}:{told('idProduct')}"
    state = (
        "in use before, firmware loaded" if ids == "18d1:9302" else "not used yet, it gets its firmware then"
    )
    text = told("speed")
    speed = int(text) if text.isdecimal() else 0
    words = f"{ids} ({state}), port {folder.name}, {speed or 'unknown'} Mbit/s"
    if speed >= SUPER_SPEED:
        yield passed("on USB", f"{words}: USB 3")
    elif speed:
        yield warned(
            "on USB", f"{words}: USB {2 if speed >= HIGH_SPEED else 1}; a run takes about twice as long as on USB 3",
            "plug it into a blue port, with the cable that came with it, without a hub",
        )  # fmt: skip
    else:
        yield warned(
            "on USB", f"{words}: the kernel does not tell how fast it is connected", "unplug it, plug it in"
        )
    node = f"/dev/bus/usb/{int(told('busnum') or 0):03}/{int(told('devnum') or 0):03}"
    try:
        status = case.system.path(node).stat()
    except OSError:
        yield warned("permission", f"{node} is not there", "sudo udevadm trigger")
        return
    if not may(status, case.user.uid, case.user.groups, 6):
        yield failed(
            "permission", f"{node}: {case.who()} may not use it (mode {status.st_mode & 0o777:04o})",
            "tools/install puts /usr/lib/udev/rules.d/60-microedge-coral.rules there; then: sudo udevadm trigger",
        )  # fmt: skip
    else:
        yield passed("permission", f"{case.who()} may use {node}")


def _usb_devices(case: Case) -> list[Path]:
    def ids(folder: Path) -> tuple[str, str]:
        shown = case.system.shown(folder)
        return case.system.read(f"{shown}/idVendor"), case.system.read(f"{shown}/idProduct")

    return [folder for folder in case.system.glob("/sys/bus/usb/devices/*") if ids(folder) in edgetpu.USB_IDS]


def _is_of_interest(case: Case) -> bool:
    wanted = case.config.inference.accelerator
    has_one = bool(_usb_devices(case)) or bool(case.system.glob("/dev/apex_*"))
    return wanted == "edgetpu" or (wanted == "auto" and has_one)
