"""A stand-in for the picamera2 library, at the one place where `edge.frames.picamera` imports it.

It is as strict as the real one (source read at 3e6dff0), and stricter where that would let a mistake pass: a request
that is given back too often, or used after it has been given back, is noted in `Machine.misuse`; a buffer that went
back is overwritten; frames come only while buffers are free; a callback that raises ends the thread for good, and
with it every frame; an unknown control, stream key or sensor key is refused. The same contract
(`test_source_contract.py`) runs over it and over the real library in a virtual machine.

Time is the sensor's: frames are stamped one frame period apart and come as fast as they are taken, or, if the
machine is `hasty`, as fast as the processor can make them.
"""

import mmap
import sys
import threading
import time
import types
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Controls = dict[str, Any]


def mode(
    width: int, height: int, fps: float, crop: tuple[int, int, int, int], depth: int = 10
) -> dict[str, Any]:
    return {
        "size": (width, height),
        "fps": fps,
        "crop_limits": crop,
        "bit_depth": depth,
        "format": f"SRGGB{depth}",
    }


# As `rpicam-hello --list-cameras` prints them (raspberrypi/documentation, and users' listings).
SENSORS: dict[str, list[dict[str, Any]]] = {
    "imx219": [
        mode(*about, depth)
        for depth in (10, 8)
        for about in (
            (640, 480, 206.65, (1000, 752, 1280, 960)),
            (1640, 1232, 41.85, (0, 0, 3280, 2464)),
            (1920, 1080, 47.57, (680, 692, 1920, 1080)),
            (3280, 2464, 21.19, (0, 0, 3280, 2464)),
        )
    ],
    "imx477": [
        mode(1332, 990, 120.05, (696, 528, 2664, 1980)),
        mode(2028, 1080, 50.03, (0, 440, 4056, 2160), 12),
        mode(2028, 1520, 40.01, (0, 0, 4056, 3040), 12),
        mode(4056, 3040, 10.0, (0, 0, 4056, 3040), 12),
    ],
    "imx708": [
        mode(1536, 864, 120.13, (768, 432, 3072, 1728)),
        mode(2304, 1296, 56.03, (0, 0, 4608, 2592)),
        mode(4608, 2592, 14.35, (0, 0, 4608, 2592)),
    ],
    "imx296": [mode(1456, 1088, 60.38, (0, 0, 1456, 1088))],
    # What the same sensor lists once it is cropped (signag/raspi-cam-srv issue 14): the size stays, the crop tells.
    "imx296 cropped": [mode(1456, 1088, 406.67, (376, 476, 688, 136))],
    "ov9281": [
        mode(1280, 800, 143.66, (0, 0, 1280, 800), 8),
        mode(1280, 720, 171.79, (0, 40, 1280, 720), 8),
        mode(640, 400, 309.79, (0, 0, 1280, 800), 8),
        mode(1280, 800, 114.93, (0, 0, 1280, 800)),
        mode(1280, 720, 137.42, (0, 40, 1280, 720)),
        mode(640, 400, 247.83, (0, 0, 1280, 800)),
    ],
}
MONO = {"ov9281"}
STREAM_KEYS = {"format", "size", "stride", "preserve_ar"}
CONFIGURATION_KEYS = {"main", "raw", "controls", "buffer_count", "queue", "sensor"}
DELAY_FRAMES = 3
"""From the request that carries a control to the frame that shows it, as sensors have it."""


@dataclass
class Machine:
    """What is plugged in, what is wrong with it, and what was done with it."""

    cameras: list[str] = field(default_factory=lambda: ["imx219"])
    is_virtual: bool = False
    """Like libcamera's virtual pipeline: NV12 whatever is asked, no modes, few controls, hardly any metadata."""
    is_busy: bool = False
    gives_format: str = "YUV420"
    light_us: float = 12_000.0
    """Exposure times gain at which this scene is well exposed."""
    hasty: bool = False
    """Makes frames as long as there is a free buffer, and does not wait for who reads them."""
    lost: frozenset[int] = frozenset()
    """Frames, by number since the start, that the sensor makes but nobody gets."""
    silent_from: int | None = None
    """From this frame on nothing comes any more; taken when the camera starts."""
    stampless: bool = False
    fails_to_start: str = ""
    loses_controls: int = 0
    """So many times controls that were set are lost, as can happen in picamera2's `release`."""
    stuck_exposure: bool = False
    hangs_at_close: threading.Event | None = None
    """Closing waits for it; the camera stays taken."""
    has_focus: bool = False
    fastest_us: int | None = None

    devices: "list[Device]" = field(default_factory=list)
    misuse: list[str] = field(default_factory=list)

    def install(self, set_module: Callable[[dict[str, Any], str, Any], None]) -> None:
        """Take the place of picamera2; `set_module` is pytest's `monkeypatch.setitem`."""
        machine = self

        class Picamera2(Device):
            def __init__(self, camera_num: int = 0) -> None:
                super().__init__(machine, camera_num)

            @staticmethod
            def global_camera_info() -> list[dict[str, Any]]:
                return [
                    {
                        "Model": name.split()[0],
                        "Num": number,
                        "Id": f"/base/soc/i2c@{number}/{name.split()[0]}@1a",
                    }
                    for number, name in enumerate(machine.cameras)
                ]

        module = types.ModuleType("picamera2")
        module.Picamera2 = Picamera2  # type: ignore[attr-defined]
        module.MappedArray = MappedArray  # type: ignore[attr-defined]
        set_module(sys.modules, "picamera2", module)


class Request:
    """A completed request: a buffer, metadata, and references that are counted."""

    def __init__(self, device: "Device", buffer: mmap.mmap, metadata: Controls) -> None:
        self.device, self.buffer, self._metadata = device, buffer, metadata
        self._references = 1
        self._lock = threading.Lock()

    def acquire(self) -> None:
        with self._lock:
            if self._references == 0:
                self.device.machine.misuse.append("acquired after it was given back")
                raise RuntimeError("CompletedRequest: acquiring lock with ref_count 0")
            self._references += 1

    def release(self) -> None:
        with self._lock:
            self._references -= 1
            if self._references < 0:
                self.device.machine.misuse.append("given back too often")
                raise RuntimeError("CompletedRequest: lock now has negative ref_count")
            if self._references == 0:
                self.device.take_back(self.buffer)

    def get_metadata(self) -> Controls:
        self.check("its metadata was read")
        return dict(self._metadata)

    def check(self, what: str) -> None:
        if self._references <= 0:
            self.device.machine.misuse.append(f"{what} after it was given back")
            raise AssertionError(what)


class MappedArray:
    """The buffer of a request as an array, while it is entered."""

    def __init__(self, request: Request, stream: str, reshape: bool = True, write: bool = True) -> None:
        assert (stream, reshape, write) == ("main", False, False)
        request.check("its buffer was mapped")
        self._request = request
        self._mapping: mmap.mmap | None = None
        self.array: Any = None

    def __enter__(self) -> "MappedArray":
        memory = self._request.buffer
        if self._request.device.machine.is_virtual:
            # libcamera's own allocator makes a mapping for each use, and unmaps it afterwards.
            self._mapping = memory = mmap.mmap(-1, len(memory))
            memory[:] = self._request.buffer[:]
        self.array = np.array(memory, copy=False, dtype=np.uint8)
        return self

    def __exit__(self, *_: object) -> None:
        self.array = None
        if self._mapping is not None:
            self._mapping.close()


class Device:
    """The Picamera2 object: one camera, from opening to closing."""

    def __init__(self, machine: Machine, number: int) -> None:
        self.machine = machine
        self.model = machine.cameras[number]
        if machine.is_busy or any(device.is_open for device in machine.devices):
            try:
                raise RuntimeError("Failed to acquire camera: Device or resource busy")
            except RuntimeError as error:
                raise RuntimeError("Camera __init__ sequence did not complete.") from error
        self.is_open = True
        self.calls: list[str] = []
        self.sent: list[Controls] = []
        """What was given to `set_controls`, in order."""
        self.pre_callback: Callable[[Request], None] | None = None
        self.camera_properties = {"Model": self.model}
        self.configuration: dict[str, Any] = {}
        self._mode = (
            {"fps": 30.0} if machine.is_virtual else max(SENSORS[self.model], key=lambda mode: mode["size"])
        )
        self._pending: Controls = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        machine.devices.append(self)

    @property
    def camera_controls(self) -> dict[str, tuple[Any, Any, Any]]:
        if self.machine.is_virtual:
            return {"FrameDurationLimits": (16_666, 33_333, 16_666)}
        fastest_us = self.machine.fastest_us or int(1e6 / self._mode["fps"])
        controls: dict[str, tuple[Any, Any, Any]] = {
            "FrameDurationLimits": (fastest_us, 1_000_000, 33_333),
            "ExposureTime": (29, 0, 20_000) if self.model.startswith("imx296") else (75, 11_766_829, 20_000),
            "AnalogueGain": (1.0, 10.666, 1.0),
            "AeEnable": (False, True, True),
            "NoiseReductionMode": (0, 4, 1),
        }
        if self.model not in MONO:
            controls |= {"AwbEnable": (False, True, None), "ColourGains": (0.0, 32.0, None)}
        if self.machine.has_focus:
            controls |= {"AfMode": (0, 2, 0), "AfTrigger": (0, 1, 0)}
        return controls

    @property
    def sensor_modes(self) -> list[dict[str, Any]]:
        if self.machine.is_virtual:
            raise AttributeError("'NoneType' object has no attribute 'at'")
        return SENSORS[self.model]

    def create_video_configuration(self, **wanted: Any) -> dict[str, Any]:
        assert wanted.keys() <= CONFIGURATION_KEYS
        assert wanted["main"].keys() <= STREAM_KEYS
        width, height = wanted["main"]["size"]
        wanted["main"] = {**wanted["main"], "size": (width - width % 2, height - height % 2)}
        return wanted

    def configure(self, configuration: dict[str, Any]) -> None:
        sensor = configuration.get("sensor") or {}
        assert sensor.keys() <= {"output_size", "bit_depth"}
        for about in [] if self.machine.is_virtual else SENSORS[self.model]:
            if (about["size"], about["bit_depth"]) == (sensor.get("output_size"), sensor.get("bit_depth")):
                self._mode = about
        self.configuration = configuration
        self._pending = {}
        self.set_controls(configuration["controls"])
        self._format = "NV12" if self.machine.is_virtual else self.machine.gives_format
        self.size = configuration["main"]["size"]
        # Raspberry Pi's ISP rounds the length of a row up to 64 bytes.
        self.stride = -(-self.size[0] // 64) * 64 + (0 if self.machine.is_virtual else 64)
        rows = self.size[1] if self._format == "R8" else self.size[1] * 3 // 2
        self.buffers = [mmap.mmap(-1, rows * self.stride) for _ in range(configuration["buffer_count"])]
        self.free: deque[mmap.mmap] = deque(self.buffers)
        self._freed = threading.Condition()

    def camera_configuration(self) -> dict[str, Any]:
        return {"main": {"size": self.size, "stride": self.stride, "format": self._format}}

    def set_controls(self, controls: Controls) -> None:
        unknown = controls.keys() - self.camera_controls.keys()
        if unknown:
            raise RuntimeError(f"Control {unknown} is not advertised by libcamera")
        self.sent.append(dict(controls))
        with self._lock:
            if self._thread is not None and self.machine.loses_controls > 0:
                self.machine.loses_controls -= 1
                return
            self._pending |= controls

    def start(self) -> None:
        self.calls.append("start")
        if self.machine.fails_to_start:
            raise RuntimeError(self.machine.fails_to_start)
        self._thread = threading.Thread(target=self._run, name="stand-in camera", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        raise AssertionError("Picamera2.stop may wait for ever; close alone stops the camera")

    def close(self) -> None:
        self.calls.append("close")
        self._stopping.set()
        if self.machine.hangs_at_close is not None:
            self.machine.hangs_at_close.wait()
        if self._thread is not None:
            self._thread.join(10)
        self.is_open = False

    def take_back(self, buffer: mmap.mmap) -> None:
        """Take a buffer that nobody uses any more; who still looks at it sees that."""
        buffer[:] = b"\xee" * len(buffer)
        with self._freed:
            self.free.append(buffer)
            self._freed.notify()

    def _run(self) -> None:
        index = 0
        active: Controls = {"AeEnable": True, "FrameDurationLimits": (33_333, 33_333)}
        delayed: deque[Controls] = deque([{}] * DELAY_FRAMES)
        ae_us, since = 2_000.0, 0
        stamp_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        silent_from = self.machine.silent_from
        while not self._stopping.is_set():
            with self._freed:
                if not self._freed.wait_for(self._may_expose, 0.02):
                    continue
                buffer = self.free.popleft()
            with self._lock:
                delayed.append(self._pending)
                self._pending = {}
            arriving = delayed.popleft()
            active |= arriving
            since = 0 if arriving.get("AfTrigger") == 0 else since + 1
            slowest_us = int(1e6 / self._mode["fps"])
            period_us = max(active["FrameDurationLimits"][0], self.machine.fastest_us or slowest_us)
            stamp_ns += period_us * 1000
            index += 1
            ae_us += 0.5 * (min(self.machine.light_us, period_us * 8) - ae_us)
            is_last = silent_from is not None and index >= silent_from
            if index in self.machine.lost or is_last:
                with self._freed:
                    self.free.append(buffer)
                if is_last:
                    self._stopping.wait(0.01)
                continue
            exposure_us, gain = self._exposed(active, ae_us, period_us)
            self._draw(buffer, index, exposure_us * gain / self.machine.light_us)
            metadata: Controls = {} if self.machine.stampless else {"SensorTimestamp": stamp_ns}
            if not self.machine.is_virtual:
                is_steady = abs(ae_us - min(self.machine.light_us, period_us * 8)) < 0.01 * ae_us
                metadata |= {
                    "FrameDuration": period_us, "ExposureTime": exposure_us, "AnalogueGain": gain,
                    "DigitalGain": 1.0, "AeState": (2 if is_steady else 1) if active["AeEnable"] else 0,
                }  # fmt: skip
                if self.machine.has_focus:
                    metadata["AfState"] = 1 if since < 30 else 2
            request = Request(self, buffer, metadata)
            # An exception ends this thread, as it does in picamera2, and no frame comes any more.
            if self.pre_callback is not None:
                self.pre_callback(request)
            request.release()

    def _may_expose(self) -> bool:
        """Whether there is a buffer for the next frame, and someone who will read it."""
        return len(self.free) >= (1 if self.machine.hasty else len(self.buffers) - 1)

    def _exposed(self, active: Controls, ae_us: float, period_us: int) -> tuple[int, float]:
        longest_us = period_us * 0.99
        if active["AeEnable"] or self.machine.stuck_exposure:
            exposure_us = int(min(longest_us, ae_us))
            return exposure_us, ae_us / exposure_us
        # Lines of 19 us, gains of 256 / (256 - code): what is given is not quite what was asked.
        exposure_us = int(min(active["ExposureTime"], longest_us)) // 19 * 19
        return exposure_us, 256 / (256 - round(256 - 256 / active["AnalogueGain"]))

    def _draw(self, buffer: mmap.mmap, index: int, brightness: float) -> None:
        rows = np.frombuffer(buffer, np.uint8)
        luma = rows[: self.size[1] * self.stride].reshape(self.size[1], self.stride)
        luma[:] = 255  # the padding, which nobody may look at
        luma[:, : self.size[0]] = picture(index, *self.size, brightness)


def picture(index: int, width: int, height: int, brightness: float = 1.0) -> np.ndarray:
    """Give the picture of a frame: a grey that its number is written into."""
    image = np.full((height, width), min(round(110 * brightness), 255), np.uint8)
    image[1, :16] = [(index >> bit & 1) * 200 for bit in range(16)]
    return image


def number_in(luma: np.ndarray) -> int:
    """Read a frame's number back from its picture."""
    return int(sum(int(pixel > 100) << bit for bit, pixel in enumerate(luma[1, :16])))
