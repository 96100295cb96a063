"""The real `Picamera2` class over libcamera's virtual camera, which plays pictures; what that needs, and a count.

Three adaptations, all on the camera's side of picamera2, none of which a Raspberry Pi needs:

- this camera has no raw stream, so the list of raw modes is taken from its only stream;
- its frames are one memory area with two planes, which picamera2's own allocator does not make, so libcamera makes
  them; mapping, synchronising and releasing them stays picamera2's own code;
- it gives a frame whenever it gets a buffer, with no regard to `FrameDurationLimits`. `PacedCamera` hands a buffer on
  only at each tick of a clock, as a sensor would, and counts the ticks that found none; and the frame period is in
  each frame's metadata, as a sensor's is.
"""

import mmap
import threading
import time
from collections import deque
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import libcamera
import picamera2
from picamera2.allocators import DmaAllocator

PIPELINE = Path("/usr/share/libcamera/pipeline/virtual/virtual.yaml")
REAL = picamera2.Picamera2
SIZE = (640, 480)
REPEATS = 4
"""The virtual camera shows each picture so many times in a row (libcamera: image_frame_generator.cpp, frameRepeat)."""
START_S = 0.25
"""A sensor takes a moment to start; all buffers are queued by then."""


class PacedCamera:
    """A libcamera camera that gives frames at a rate of its own; everything else is the camera's."""

    def __init__(self, camera: Any, rate_hz: float) -> None:
        self._camera, self._period_s = camera, 1 / rate_hz
        self._waiting: deque[Any] = deque()
        self._stopped = threading.Event()
        self._clock: threading.Thread | None = None
        self.ticks = self.starved = 0
        """Instants at which a sensor would have given a frame, and those among them that found no buffer."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._camera, name)

    def __eq__(self, other: object) -> bool:
        return bool(self._camera == other)

    __hash__ = None  # type: ignore[assignment]

    def queue_request(self, request: Any) -> None:
        self._waiting.append(request)

    def start(self, *arguments: Any) -> None:
        self._camera.start(*arguments)
        self._stopped.clear()
        self._clock = threading.Thread(target=self._tick, daemon=True)
        self._clock.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._clock is not None:
            self._clock.join()
        self._waiting.clear()
        self._camera.stop()

    def _tick(self) -> None:
        due_s = time.monotonic() + START_S
        while not self._stopped.wait(max(due_s - time.monotonic(), 0)):
            # This thread may be late; a sensor is not. Then several ticks follow each other at once.
            due_s += self._period_s
            self.ticks += 1
            if self._waiting:
                self._camera.queue_request(self._waiting.popleft())
            else:
                self.starved += 1


class TwoPlaneAllocator(DmaAllocator):
    """picamera2's allocator with memory from libcamera."""

    def __init__(self, camera: Any) -> None:
        super().__init__()
        self._camera = camera

    def allocate(self, configuration: Any, _: Any) -> None:
        self.libcamera_fds = []
        self.cleanup()
        self._source = libcamera.FrameBufferAllocator(self._camera)
        for each in configuration:
            self._source.allocate(each.stream)
            self.frame_buffers[each.stream] = list(self._source.buffers(each.stream))
            for buffer in self.frame_buffers[each.stream]:
                handle = buffer.planes[0].fd
                self.libcamera_fds.append(handle)
                self.mapped_buffers_used[handle] = False
                length = sum(plane.length for plane in buffer.planes)
                self.mapped_buffers[buffer] = mmap.mmap(
                    handle, length, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE
                )


class VirtualPicamera2(REAL):
    """`Picamera2`, adapted as this module says, that also notes every frame which libcamera has completed."""

    pace_hz: ClassVar[float] = 0.0
    """Rate of the sensor, Hz; 0: as fast as buffers come back."""
    newest: "ClassVar[VirtualPicamera2 | None]" = None
    """The one that was opened last."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.completed: list[tuple[int, int]] = []
        """libcamera's sequence number and SensorTimestamp (ns) of each completed request, in order."""
        super().__init__(*arguments, **keywords)
        VirtualPicamera2.newest = self

    @property
    def period_us(self) -> int:
        """What a sensor states as FrameDuration, microseconds; 0 if it keeps no pace."""
        return round(1e6 / self.pace_hz) if self.pace_hz else 0

    def counts(self) -> dict[str, int]:
        """Give how many frames libcamera completed, and how many more its clock had time for.

        In emulation the thread that is the sensor's clock is late at times, and frames are then missing although
        nobody dropped one.
        """
        period_ns = 1e9 / self.pace_hz
        stamps = [stamp for _, stamp in self.completed]
        missing = sum(max(round((after - before) / period_ns) - 1, 0) for before, after in pairwise(stamps))
        return {"completed": len(stamps), "missing": missing}

    def _get_raw_modes(self) -> list[dict[str, Any]]:
        formats = self.camera.generate_configuration([libcamera.StreamRole.VideoRecording]).at(0).formats
        return [
            {"format": str(pixels), "size": (size.width, size.height)}
            for pixels in formats.pixel_formats
            for size in formats.sizes(pixels)
        ]

    def configure_(self, configuration: Any) -> None:
        if isinstance(self.camera, PacedCamera):
            self.camera = self.camera._camera
        self.allocator = TwoPlaneAllocator(self.camera)
        super().configure_(configuration)
        if self.pace_hz:
            self.camera = PacedCamera(self.camera, self.pace_hz)

    def process_requests(self, display: Any) -> None:
        with self._requestslock:
            for each in self._requests:
                buffer = next(iter(each.request.buffers.values()))
                stamp = each.request.metadata[libcamera.controls.SensorTimestamp]
                self.completed.append((buffer.metadata.sequence, stamp))
        super().process_requests(display)


def write_pipeline(pictures: Path) -> None:
    """Tell libcamera of a camera that plays `pictures` (0.jpg, 1.jpg, ... with even sides)."""
    text = (
        "%YAML 1.1\n---\n"
        '"Virtual0":\n'
        "  supported_formats:\n"
        f"  - width: {SIZE[0]}\n"
        f"    height: {SIZE[1]}\n"
        "  frames:\n"
        f'    path: "{pictures}/"\n'
        '  location: "CameraLocationFront"\n'
        '  model: "Virtual File"\n'
    )
    if not PIPELINE.exists() or PIPELINE.read_text() != text:
        PIPELINE.parent.mkdir(parents=True, exist_ok=True)
        PIPELINE.write_text(text)


def install(pictures: Path, pace_hz: float = 0.0) -> None:
    """Make `picamera2.Picamera2` the virtual camera that plays `pictures`.

    To be called before the first camera is opened: libcamera reads its pictures once in a process.
    """
    write_pipeline(pictures)
    VirtualPicamera2.pace_hz = pace_hz
    picamera2.Picamera2 = VirtualPicamera2
    picamera2.request.CompletedRequest.get_metadata = _metadata


_GIVEN = picamera2.request.CompletedRequest.get_metadata


def _metadata(request: Any) -> dict[str, Any]:
    """Give a request's metadata with the frame period, if the camera keeps one."""
    given: dict[str, Any] = _GIVEN(request)
    return given | ({"FrameDuration": request.picam2.period_us} if request.picam2.period_us else {})
