"""Frames of a Raspberry Pi camera through picamera2 and libcamera.

Decisions, each for a fact of picamera2 (source read at 3e6dff0):

- Frames are taken in `pre_callback`, which runs for every completed request. The `capture_*` calls keep only
  the newest request, so two frames that arrive between two calls lose one.
- The callback only takes a reference and queues the request; a slow consumer loses the oldest requests, which
  go back to the camera at once. It never raises: that would end picamera2's thread, and every frame with it.
- Requests that failed are given back by picamera2 unseen, and the sensor may lose frames too. Both show in
  `Frame.sequence`, which comes from the sensor's clock.
- Luma is a view of the YUV420 (NV12, R8) buffer, stride honoured; the request is held until the next frame is
  asked for. Nothing is copied or converted.
- No raw stream: nobody reads it, and a cropped IMX296 fails with one.
- Exposure, gain, white balance and focus are settled before the first frame and locked (`edge.frames.exposure`).
  While they settle anew no frames are given, which downstream is a gap: time that was not assessed.

A sensor that cannot reach `camera.rate_hz` runs as fast as it can, and `warnings` says so: the device is then
`degraded` and states which events it can still see at its real rate. It does not refuse, because a Camera Module 3
with its 120 frames/s is of use under the default of 200, and a device that someone has mounted on a wall should
tell what it lacks and work.
"""

import logging
import threading
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import SourceError
from edge.frames import picamera, sensor_crop
from edge.frames.exposure import ExposureLock, Wish
from edge.frames.sensor_modes import RATE_TOLERANCE, SensorMode, choose, listed
from edge.frames.timing import FrameCounter, utc_of
from edge.records import Frame

log = logging.getLogger(__name__)

LUMA_FIRST = ("YUV420", "YVU420", "NV12", "NV21", "R8")
"""Formats whose buffer begins with the luma plane; R8, of monochrome cameras, is nothing else."""
BUFFERED_S = 0.1
"""How long camera and queue can go on while the reader is away; bounded by the next."""
FEWEST_BUFFERS, MOST_BUFFERS = 8, 32
CLOSE_S = 3.0
"""Closing takes a third of a second; after this the camera counts as hung."""
_PROBE = 16
"""Every so many rows and columns are looked at for the mean luma."""


class CameraSource:
    """A `FrameSource` over a camera that libcamera supports.

    The camera runs from construction to `close`, which may come from another thread. Media time 0 is the
    start of the first frame that `frames` yields; `start_time_ns` is estimated before that and exact
    afterwards. Who keeps a luma view beyond its turn reads another frame's pixels.

    Args:
        number: of the camera, as `rpicam-hello --list-cameras` shows it.
        rate_hz: frames per second; both frame duration limits are set to it.
        size: (width, height) px; libcamera may round it, see the attribute.
        field_of_view: "wide" or "narrow", see `sensor_modes.choose`.
        mains_hz, exposure_us, gain: see `exposure.Wish`.
        buffer_count: buffers that camera and queue share; None: as many as `BUFFERED_S` asks for.
        stall_s: without a frame for this long the camera counts as broken.
        close_s: the longest that `close` takes.

    Raises:
        SourceError: picamera2 is not installed, no such camera, in use, size or format refused, no frames, frames
            without a time.
        StuckError: this process could not close the camera, now or earlier.
    """

    def __init__(
        self,
        number: int = 0,
        *,
        rate_hz: float = 200.0,
        size: tuple[int, int] = (640, 480),
        field_of_view: str = "wide",
        mains_hz: int = 50,
        exposure_us: int = 0,
        gain: float = 0.0,
        buffer_count: int | None = None,
        stall_s: float = 5.0,
        close_s: float = CLOSE_S,
    ):
        self.nominal_rate_hz = rate_hz
        self.duration_s: float | None = None
        self.frames_out_of_order = 0
        self.frames_dropped = 0
        """Frames that came but were not taken in time; they are part of the jumps of `Frame.sequence`."""
        self.warnings: list[str] = []
        self._number, self._stall_s, self._close_s = number, stall_s, close_s
        buffers = buffer_count or min(max(round(rate_hz * BUFFERED_S), FEWEST_BUFFERS), MOST_BUFFERS)
        # A third of the buffers stays with the camera: it needs about four to run without a break.
        self._queue_limit = max(buffers * 2 // 3 - 1, 1)
        self._queue: deque[Any] = deque()
        self._arrived = threading.Condition()
        self._closed = False
        self._running: Generator[Frame, None, None] | None = None
        self._ended = threading.Event()
        self._library = picamera.library()
        about = picamera.found(self._library, number)
        self.name = f"camera {number} ({about.get('Model', 'unknown model')})"
        self._device = picamera.opened(self._library, number, self.name)
        try:
            self._crop_sensor(about, rate_hz)
            mode = choose(self._modes(), rate_hz, size, field_of_view)
            wish = self._configure(mode, Wish(rate_hz, mains_hz, exposure_us, gain), size, buffers)
            self.nominal_rate_hz = wish.rate_hz
            self._notes = [*self.warnings]
            self._lock = ExposureLock(self._device.camera_controls, wish)
            self._device.set_controls(self._lock.start_controls)
            self._device.pre_callback = self._take
            self._device.start()
            self.start_time_ns = utc_of(self._settle())
        except BaseException as error:
            self.close()
            if isinstance(error, SourceError) or not isinstance(error, picamera.FAILURES):
                raise
            raise SourceError(f"{self.name}: cannot be started ({picamera.cause(error)})") from error
        log.info("camera: %s, %s", self.name, mode or "without sensor modes")

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
            _give_back(request)
        counter = FrameCounter(self.nominal_rate_hz)
        first_ns: int | None = None
        while (request := self._next()) is not None:
            try:
                metadata, sensor_ns = self._described(request)
                if first_ns is None:
                    first_ns = sensor_ns
                    self.start_time_ns = utc_of(sensor_ns)
                # FrameDuration is in microseconds (libcamera control_ids_core.yaml).
                period_ns = 1000 * int(metadata.get("FrameDuration", 0)) or None
                sequence = counter.sequence(sensor_ns - first_ns, period_ns)
                # libcamera's own allocator, used for other cameras than Raspberry Pi's, unmaps the buffer on the way
                # out, and may not while the reader still has a view of it; then it goes with the view.
                with suppress(BufferError), self._mapped(request) as buffer:
                    luma = self._luma(buffer.array)
                    if self._attend(metadata, luma, sequence):
                        yield Frame(luma, sensor_ns - first_ns, sequence)
            except SourceError:
                raise
            except picamera.FAILURES as error:
                raise SourceError(f"{self.name}: a frame cannot be read ({picamera.cause(error)})") from error
            finally:
                _give_back(request)

    def close(self) -> None:
        """Stop the camera and give it free, whatever state it is in, within `close_s` and a moment.

        Raises:
            StuckError: it hangs and may still be on.
        """
        with self._arrived:
            if self._closed:
                return
            self._closed = True
            waiting = list(self._queue)
            self._queue.clear()
            self._arrived.notify_all()
        for request in waiting:
            _give_back(request)
        self._give_back_held()
        picamera.close(self._device, self._number, self.name, self._close_s)

    def _crop_sensor(self, about: Mapping[str, Any], rate_hz: float) -> None:
        if about.get("Model") != sensor_crop.MODEL:
            return
        try:
            lines = sensor_crop.crop(str(about.get("Id", "")), rate_hz)
        except SourceError as error:
            self.warnings.append(f"camera.rate_hz = {rate_hz:g}: {error}")
        else:
            log.info("camera: %s reads %d of its %d lines", self.name, lines, sensor_crop.SIZE[1])

    def _modes(self) -> list[SensorMode]:
        try:
            return listed(self._device.sensor_modes)
        except picamera.FAILURES:
            # Cameras without a raw stream (USB, libcamera's virtual one) make picamera2 stumble here.
            return []

    def _configure(self, mode: SensorMode | None, wish: Wish, size: tuple[int, int], buffers: int) -> Wish:
        """Configure the streams; give the wish with the rate that the camera can really be asked for."""
        controls: dict[str, object] = {}
        if "NoiseReductionMode" in self._device.camera_controls:
            # Off (0): temporal denoise would smear the very motion that we measure, and costs frame rate.
            controls["NoiseReductionMode"] = 0
        sensor = {} if mode is None else {"sensor": {"output_size": mode.size, "bit_depth": mode.bit_depth}}
        configuration = self._device.create_video_configuration(
            main={"format": "YUV420", "size": size},
            raw=None,
            controls=controls,
            buffer_count=buffers,
            # Nothing waits for `capture_*` calls.
            queue=False,
            **sensor,
        )
        self._device.configure(configuration)
        main = self._device.camera_configuration()["main"]
        if main["format"] not in LUMA_FIRST:
            raise SourceError(
                f"{self.name}: gives {main['format']}, not one of {', '.join(LUMA_FIRST)}; "
                'for a USB camera set camera.source = "webcam"'
            )
        self.size = (int(main["size"][0]), int(main["size"][1]))
        self._stride = int(main["stride"])
        if self.size != tuple(size):
            self.warnings.append(
                f"frames are {self.size[0]}x{self.size[1]} px, not {size[0]}x{size[1]} as asked"
            )
        limits = self._device.camera_controls.get("FrameDurationLimits")
        fastest_hz = 1_000_000 / int(limits[0]) if limits is not None and int(limits[0]) > 0 else wish.rate_hz
        if fastest_hz < RATE_TOLERANCE * wish.rate_hz:
            self.warnings.append(
                f"camera.rate_hz = {wish.rate_hz:g}: this camera gives at most {fastest_hz:.1f} frames/s"
                + (f" ({mode.size[0]}x{mode.size[1]} is its fastest mode)" if mode else "")
            )
        return Wish(min(wish.rate_hz, fastest_hz), wish.mains_hz, wish.exposure_us, wish.gain)

    def _settle(self) -> int:
        """Wait until exposure and focus are locked; give the sensor timestamp of the last frame seen, ns."""
        while True:
            request = self._next()
            assert request is not None, "nobody else knows of this source yet, so nobody has closed it"
            try:
                metadata, sensor_ns = self._described(request)
                if self._lock.is_settled:
                    self.warnings[:] = [*self._notes, *self._lock.warnings]
                    return sensor_ns
                self._set(self._lock.step(metadata, 128.0))
            finally:
                _give_back(request)

    def _attend(self, metadata: Mapping[str, Any], luma: NDArray[np.uint8], sequence: int) -> bool:
        """Keep an eye on the exposure; give whether the frame is exposed as those before it."""
        was_settled = self._lock.is_settled
        self._set(self._lock.step(metadata, float(luma[::_PROBE, ::_PROBE].mean())))
        if was_settled != self._lock.is_settled:
            self.warnings[:] = [*self._notes, *self._lock.warnings]
        return was_settled and self._lock.is_settled

    def _set(self, controls: dict[str, object]) -> None:
        if controls:
            self._device.set_controls(controls)

    def _take(self, request: Any) -> None:
        """Queue a completed request. Runs in picamera2's thread, for every frame; must not wait, nor raise."""
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
            _give_back(overflow)

    def _next(self) -> Any | None:
        """Wait for the oldest queued request; None once the source is closed."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: self._queue or self._closed, self._stall_s):
                raise SourceError(f"{self.name}: no frame for {self._stall_s:g} s; check the camera's cable")
            return None if self._closed else self._queue.popleft()

    def _described(self, request: Any) -> tuple[Mapping[str, Any], int]:
        """Give a request's metadata and its sensor timestamp, ns."""
        metadata: Mapping[str, Any] = request.get_metadata()
        if "SensorTimestamp" not in metadata:
            raise SourceError(f"{self.name}: its frames carry no SensorTimestamp; time cannot be known")
        return metadata, int(metadata["SensorTimestamp"])

    def _give_back_held(self) -> None:
        """Make the iterator return the request that it holds: its memory goes away with the camera."""
        if self._running is None:
            return
        try:
            self._running.close()
        except ValueError:
            # It is at work in another thread, has seen `_closed` and is on its way out.
            self._ended.wait(self._stall_s)

    def _mapped(self, request: Any) -> Any:
        return self._library.MappedArray(request, "main", reshape=False, write=False)

    def _luma(self, buffer: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """View the luma plane at the head of a planar buffer, without its padding."""
        width, height = self.size
        return buffer[: height * self._stride].reshape(height, self._stride)[:, :width]


def _give_back(request: Any) -> None:
    """Give a request back to the camera; one that cannot take it has failed, and the frames that stop tell so."""
    try:
        request.release()
    except (RuntimeError, OSError) as error:
        log.debug("camera: a request could not be given back (%s)", error)
