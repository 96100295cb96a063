"""Area *camera*: whether the configured one is there and free, and whether a mode of its sensor has the asked rate."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from edge.config import Camera
from edge.doctor import v4l2
from edge.doctor.case import Case
from edge.doctor.finding import Finding, Verdict, failed, passed, skipped, warned
from edge.doctor.system import Holder
from edge.errors import SourceError
from edge.frames import picamera
from edge.frames.sensor_crop import MODEL, SIZE, lines_for
from edge.frames.sensor_modes import RATE_TOLERANCE, SensorMode, choose, listed
from edge.store.folder import may

_CABLE = (
    "switch off and look at both ends of the camera's cable; /boot/firmware/config.txt needs camera_auto_detect=1 or "
    "the dtoverlay of this camera; then: rpicam-hello --list-cameras"
)
CLOSE_S = 5.0
_GROUP = "sudo usermod -aG video $USER, and log in again"
_INSTALL = "sudo apt install python3-picamera2; the virtual environment needs --system-site-packages"
_STOP = "sudo systemctl stop microedge, or end that program: sudo kill PID"


def camera(case: Case) -> Iterator[Finding]:
    """Look at the source that `camera.source` names."""
    if not case.is_config_known:
        yield skipped("camera", "the configuration may not be read")
    elif case.config.camera.source == "synthetic":
        yield from _synthetic()
    elif case.config.camera.source == "webcam":
        yield from _webcam(case)
    else:
        yield from _picamera2(case)


CHECKS = (camera,)


def _synthetic() -> Iterator[Finding]:
    if importlib.util.find_spec("matplotlib") is None:
        yield failed(
            "portrait", "camera.source = synthetic moves a portrait that comes with matplotlib, which is absent",
            "/opt/microedge/bin/pip install matplotlib",
        )  # fmt: skip
    else:
        yield skipped("camera", "camera.source = synthetic: a moving portrait, no camera")


def _webcam(case: Case) -> Iterator[Finding]:
    name = case.config.camera.device
    setting = f"camera.device = {name}"
    node = case.system.path(name)
    if not node.is_char_device():
        others = [case.system.shown(path) for path in case.system.glob("/dev/video*")]
        yield failed("webcam", f"{setting}: no such device; there is {', '.join(others) or 'no /dev/video*'}",
                     "plug it in, or name another in camera.device; v4l2-ctl --list-devices")  # fmt: skip
        return
    model = case.system.read(f"/sys/class/video4linux/{Path(name).name}/name") or "unknown model"
    yield passed("webcam", f"{setting}: {model}")
    status = node.stat()
    if not may(status, case.user.uid, case.user.groups, 6):
        yield failed("permission", f"{setting}: {case.who()} may not use it (mode {status.st_mode & 0o777:04o})",
                     f"sudo usermod -aG video {case.user.name or '$USER'}, and log in again")  # fmt: skip
    yield _webcam_rate(case.config.camera, node)
    yield from _holders(case, [node])


def _webcam_rate(wanted: Camera, node: Path) -> Finding:
    """Hold what the webcam's driver lists against the asked rate."""
    asked = f"camera.rate_hz = {wanted.rate_hz:g} at {wanted.width}x{wanted.height}"
    try:
        rates = v4l2.rates_hz(node, (wanted.width, wanted.height))
    except OSError as error:
        return skipped("rate", f"the driver cannot be asked: {error.strerror}", "sudo microedge doctor")
    listing = "v4l2-ctl --list-formats-ext (sudo apt install v4l-utils) shows what it has"
    if not rates:
        return warned("rate", f"{asked}: the driver lists nothing for this size", listing)
    best = max(rates, key=lambda name: rates[name])
    words = f"{asked}: up to {rates[best]:.1f} frames/s, as {best}"
    if rates[best] >= RATE_TOLERANCE * wanted.rate_hz:
        return passed("rate", words)
    return warned("rate", words, f"set camera.rate_hz = {rates[best]:.0f}, or another size; {listing}")


def _picamera2(case: Case) -> Iterator[Finding]:
    number = case.config.camera.number
    try:
        library = picamera.library()
    except Exception as error:
        # What its C libraries raise when they do not fit each other is of any class.
        yield failed("picamera2", f"camera.source = picamera2: {error}", _INSTALL)
        return
    try:
        about = picamera.found(library, number)
    except SourceError as error:
        yield failed("camera", str(error), _CABLE)
        return
    name = f"camera {number} ({about.get('Model', 'unknown model')})"
    yield passed("camera", name)
    held = list(_holders(case, case.system.glob("/dev/media*") + case.system.glob("/dev/video*")))
    if case.service.is_running:
        # It must not be opened again, and how it does is told by who has it.
        yield from held
        return
    try:
        device = picamera.opened(library, number, name)
    except SourceError as error:
        others = [each for each in held if each.verdict is Verdict.FAIL]
        yield from others or [failed("in use", str(error), _GROUP if "permission" in str(error) else _STOP)]
        return
    try:
        modes = listed(device.sensor_modes)
    finally:
        picamera.close(device, number, name, CLOSE_S)
    yield _rate(case.config.camera, str(about.get("Model", "")), modes)


def _rate(wanted: Camera, model: str, modes: list[SensorMode]) -> Finding:
    """Hold a sensor's modes against the asked rate."""
    mode = choose(modes, wanted.rate_hz, (wanted.width, wanted.height), wanted.field_of_view)
    asked = f"camera.rate_hz = {wanted.rate_hz:g}"
    if mode is None:
        return warned(
            "rate", f"the sensor lists no modes: whether it has {asked} shows only in use", "microedge run"
        )
    if MODEL in model.lower() and mode.rate_hz < wanted.rate_hz:
        lines = lines_for(wanted.rate_hz)
        return passed("rate", f"{asked}: the IMX296 is made to read {lines} of its {SIZE[1]} lines")
    if mode.rate_hz >= RATE_TOLERANCE * wanted.rate_hz:
        return passed("rate", f"{asked}: sensor mode {mode}, one of {len(modes)}")
    advice = f"set camera.rate_hz = {mode.rate_hz:.0f}, or use a faster sensor"
    return warned("rate", f"{asked}: the fastest sensor mode is {mode}", advice)


def _holders(case: Case, nodes: list[Path]) -> Iterator[Finding]:
    """Say who has the camera."""
    holders: list[Holder] = []
    for node in nodes:
        holders += [each for each in case.system.holders(node) if each not in holders]
    # PipeWire and WirePlumber keep control nodes open for as long as they run and do not stream.
    holders = [each for each in holders if each.name not in ("pipewire", "wireplumber")]
    if not case.system.is_root:
        case.unseen["which programs of other users have the camera or the pins"] = None
    if case.service.is_running and (not holders or case.is_ours(holders)):
        yield passed(
            "in use", f"by the running service, as it should be: {case.service.value('StatusText') or '-'}"
        )
    elif holders:
        yield failed(
            "in use", f"by {', '.join(map(str, holders))}", _STOP.replace("PID", str(holders[0].pid))
        )
    else:
        yield passed("in use", "by nobody")
