"""Frames of a Raspberry Pi camera through picamera2. The only module that imports it.

Decisions, each for a fact of picamera2 (source read at 3e6dff0):

- Frames are taken in `pre_callback`, which runs for every completed request. The `capture_*` calls keep only
  the newest request, so two frames that arrive between two calls lose one.
- The callback only takes a reference and queues the request; a slow consumer loses the oldest requests, which
  go back to the camera at once. Lost frames show in `Frame.sequence`, which comes from the sensor's clock.
- Luma is a view of the YUV420 (or NV12) buffer, stride honoured; the request is held until the next frame is
  asked for. Nothing is copied or converted.
"""

import importlib
import threading
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import SourceError
from edge.frames.timing import FrameCounter, utc_of
from edge.records import Frame

_INSTALL = "sudo apt install python3-picamera2 (and a virtual environment with --system-site-packages)"
_PLANAR = ("YUV420", "YVU420", "NV12", "NV21")
"""Formats whose buffer begins with the luma plane."""


class CameraSource:
    """A `FrameSource` over a camera that libcamera supports.

    The camera runs from construction to `close`, which may come from another thread. Media time 0 is the
    start of the first frame that `frames` yields; `start_time_ns` is estimated before that and exact
    afterwards. Who keeps a luma view beyond its turn reads another frame's pixels.

    Args:
        camera: number of the camera, as `rpicam-hello --list-cameras` shows it.
        rate_hz: frames per second; both frame duration limits are set to it.
        size: (width, height) px; libcamera may round it, see the attribute.
        controls: further libcamera controls by name, for example ExposureTime and AnalogueGain.
        buffer_count: buffers that camera and queue share. Slack is their number times the frame period.
        stall_s: without a frame for this long the camera counts as broken.

    Raises:
        SourceError: picamera2 is not installed, no such camera, in use, size or format refused, no frames.
    """

    def __init__(
        self,
        camera: int = 0,
        *,
        rate_hz: float = 200.0,
        size: tuple[int, int] = (640, 480),
        controls: Mapping[str, object] | None = None,
        buffer_count: int = 12,
        stall_s: float = 5.0,
    ):
        self.nominal_rate_hz = rate_hz
        self.duration_s: float | None = None
        self.frames_out_of_order = 0
        self.frames_dropped = 0
        """Frames that came but were not taken in time; they are part of the jumps of `Frame.sequence`."""
        self.warnings: list[str] = []
        self._stall_s = stall_s
        # A third of the buffers stays with the camera: it needs about four to run without a break.
        self._queue_limit = max(buffer_count * 2 // 3 - 1, 1)
        self._queue: deque[Any] = deque()
        self._arrived = threading.Condition()
        self._closed = False
        self._running: Generator[Frame, None, None] | None = None
        self._ended = threading.Event()
        self._library = _picamera2()
        self._device = _opened(self._library, camera)
        try:
            properties = self._device.camera_properties
            self.name = f"camera {camera} ({properties.get('Model', 'unknown model')})"
            self._configure(rate_hz, size, dict(controls or {}), buffer_count)
            self._device.pre_callback = self._take
            self._device.start()
            self.start_time_ns = utc_of(self._first_sensor_ns())
        except SourceError:
            self.close()
            raise
        except (RuntimeError, ValueError, KeyError, OSError) as error:
            self.close()
            raise SourceError(f"camera {camera}: cannot be started ({error})") from error

    def frames(self) -> Iterator[Frame]:
        """Yield frames from now on; what waited in the queue before the first call is given back unseen."""
        self._running = self._frames()
        return self._running

    def _frames(self) -> Generator[Frame, None, None]:
        try:
            yield from self._each()
        finally:
            self._ended.set()

    def _each(self) -> Iterator[Frame]:
        with self._arrived:
            stale = list(self._queue)
            self._queue.clear()
            self.frames_dropped = 0
        for request in stale:
            request.release()
        counter = FrameCounter(self.nominal_rate_hz)
        first_ns: int | None = None
        while (request := self._next()) is not None:
            mapped = self._library.MappedArray(request, "main", reshape=False, write=False)
            try:
                metadata = request.get_metadata()
                sensor_ns = self._sensor_ns(metadata)
                if first_ns is None:
                    first_ns = sensor_ns
                    self.start_time_ns = utc_of(sensor_ns)
                # FrameDuration is in microseconds (libcamera control_ids_core.yaml).
                period_ns = 1000 * int(metadata.get("FrameDuration", 0)) or None
                with mapped as buffer:
                    sequence = counter.sequence(sensor_ns, period_ns)
                    yield Frame(self._luma(buffer.array), sensor_ns - first_ns, sequence)
            finally:
                request.release()

    def close(self) -> None:
        """Stop the camera and give it free, whatever state it is in."""
        with self._arrived:
            if self._closed:
                return
            self._closed = True
            waiting = list(self._queue)
            self._queue.clear()
            self._arrived.notify_all()
        try:
            for request in waiting:
                request.release()
            self._give_back_held()
            self._device.stop()
        finally:
            self._device.close()

    def _configure(
        self, rate_hz: float, size: tuple[int, int], controls: dict[str, object], buffer_count: int
    ) -> None:
        period_us = round(1_000_000 / rate_hz)
        wanted: dict[str, object] = {"FrameDurationLimits": (period_us, period_us)}
        if "NoiseReductionMode" in self._device.camera_controls:
            # Off (0): temporal denoise would smear the very motion that we measure, and costs frame rate.
            wanted["NoiseReductionMode"] = 0
        mode = _sensor_mode(self._modes(), rate_hz, size)
        configuration = self._device.create_video_configuration(
            main={"format": "YUV420", "size": size},
            controls=wanted | controls,
            buffer_count=buffer_count,
            # Nothing waits for `capture_*` calls.
            queue=False,
            **({} if mode is None else {"sensor": mode}),
        )
        self._device.configure(configuration)
        main = self._device.camera_configuration()["main"]
        if main["format"] not in _PLANAR:
            raise SourceError(f"{self.name}: gives {main['format']}, not one of {', '.join(_PLANAR)}")
        self.size = (int(main["size"][0]), int(main["size"][1]))
        self._stride = int(main["stride"])
        if self.size != tuple(size):
            self.warnings.append(
                f"frames are {self.size[0]}x{self.size[1]} px, not {size[0]}x{size[1]} as asked"
            )
        limits = self._device.camera_controls.get("FrameDurationLimits")
        if limits is not None and period_us < int(limits[0]) * 0.99:
            self.warnings.append(
                f"the sensor mode gives at most {1_000_000 / int(limits[0]):.1f} frames/s, not {rate_hz:g}"
            )

    def _take(self, request: Any) -> None:
        """Queue a completed request. Runs in picamera2's thread, for every frame; must not wait."""
        request.acquire()
        overflow = None
        with self._arrived:
            if self._closed:
                overflow = request
            else:
                self._queue.append(request)
                if len(self._queue) > self._queue_limit:
                    overflow = self._queue.popleft()
                    self.frames_dropped += 1
                self._arrived.notify()
        if overflow is not None:
            overflow.release()

    def _next(self) -> Any | None:
        """Wait for the oldest queued request; None once the source is closed."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: self._queue or self._closed, self._stall_s):
                raise SourceError(f"{self.name}: no frame for {self._stall_s:g} s; check the camera's cable")
            return None if self._closed else self._queue.popleft()

    def _first_sensor_ns(self) -> int:
        """Wait until a frame has arrived, leave it in the queue and give its sensor timestamp."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: self._queue, self._stall_s):
                raise SourceError(
                    f"{self.name}: no frame within {self._stall_s:g} s; check the camera's cable"
                )
            request = self._queue[0]
            # A reference of our own: the queue may overflow while we read.
            request.acquire()
        try:
            return self._sensor_ns(request.get_metadata())
        finally:
            request.release()

    def _sensor_ns(self, metadata: Mapping[str, Any]) -> int:
        if "SensorTimestamp" not in metadata:
            raise SourceError(f"{self.name}: its frames carry no SensorTimestamp; time cannot be known")
        return int(metadata["SensorTimestamp"])

    def _give_back_held(self) -> None:
        """Make the iterator return the request that it holds: its memory goes away with the camera."""
        if self._running is None:
            return
        try:
            self._running.close()
        except ValueError:
            # It is at work in another thread, has seen `_closed` and is on its way out.
            self._ended.wait(self._stall_s)

    def _modes(self) -> list[dict[str, Any]]:
        try:
            return list(self._device.sensor_modes)
        except (RuntimeError, AttributeError, KeyError):
            # Cameras without a raw stream (USB, libcamera's virtual one) make picamera2 stumble here.
            return []

    def _luma(self, buffer: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """View the luma plane at the head of a planar buffer, without its padding."""
        width, height = self.size
        return buffer[: height * self._stride].reshape(height, self._stride)[:, :width]


def _picamera2() -> Any:
    try:
        return importlib.import_module("picamera2")
    except ImportError as error:
        raise SourceError(
            f"the camera needs picamera2 and libcamera ({error}); install: {_INSTALL}"
        ) from error


def _opened(library: Any, camera: int) -> Any:
    found = library.Picamera2.global_camera_info()
    if not 0 <= camera < len(found):
        raise SourceError(
            f"camera {camera}: not there, {len(found)} found; see `rpicam-hello --list-cameras`"
        )
    try:
        return library.Picamera2(camera)
    except RuntimeError as error:
        raise SourceError(
            f"camera {camera}: cannot be opened, another program may use it ({error})"
        ) from error


def _sensor_mode(
    modes: list[dict[str, Any]], rate_hz: float, size: tuple[int, int]
) -> dict[str, object] | None:
    """Choose the sensor mode that reaches the rate with the widest view, then the fewest pixels.

    picamera2 itself chooses by size alone and can land in a mode that is too slow (issue 880). If none is
    fast enough the fastest is taken. None for cameras that do not list such modes (USB, virtual).
    """
    known = [mode for mode in modes if {"fps", "size", "bit_depth", "crop_limits"} <= mode.keys()]
    if not known:
        return None
    enough = [mode for mode in known if mode["fps"] >= 0.99 * rate_hz]
    if not enough:
        best = max(known, key=lambda mode: float(mode["fps"]))
    else:
        covering = [mode for mode in enough if mode["size"][0] >= size[0] and mode["size"][1] >= size[1]]
        best = max(
            covering or enough, key=lambda mode: (_area(mode["crop_limits"][2:]), -_area(mode["size"]))
        )
    return {"output_size": best["size"], "bit_depth": best["bit_depth"]}


def _area(size: tuple[int, int]) -> int:
    return int(size[0]) * int(size[1])
