"""H.264 as a camera streams it: each frame goes through the encoder and comes back decoded."""

import av
import numpy as np
from numpy.typing import NDArray


class H264:
    """One stream of luma frames of one size, without B-frames, as live encoders work.

    Args:
        size: (width, height), both even.
        crf: constant rate factor, 18 (hardly visible) to 30 (blocky).
    """

    def __init__(self, size: tuple[int, int], *, rate_hz: float, crf: int, preset: str) -> None:
        if size[0] % 2 or size[1] % 2:
            raise ValueError(f"H.264 needs an even width and height, got {size[0]} x {size[1]}")
        self._encoder = av.CodecContext.create("libx264", "w")
        self._encoder.width, self._encoder.height = size
        self._encoder.pix_fmt = "yuv420p"
        self._encoder.framerate = round(rate_hz)
        self._encoder.thread_count = 1
        self._encoder.options = {"crf": str(crf), "preset": preset, "tune": "zerolatency"}
        self._decoder = av.CodecContext.create("h264", "r")
        self._decoder.thread_count = 1
        self._frame = av.VideoFrame(*size, "yuv420p")
        for plane in self._frame.planes[1:]:
            plane.update(bytes([128]) * plane.buffer_size)
        self._sent = 0
        self.bytes = 0
        """Size of the stream so far."""

    def pass_through(self, luma: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Give the frame (height, width) uint8 as the decoder shows it."""
        plane = self._frame.planes[0]
        buffer = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        buffer[:, : plane.width] = luma
        self._frame.pts = self._sent
        self._sent += 1
        for packet in self._encoder.encode(self._frame):
            self.bytes += packet.size
            for decoded in self._decoder.decode(packet):
                shown = decoded.planes[0]
                rows = np.frombuffer(shown, np.uint8).reshape(shown.height, shown.line_size)
                return rows[:, : shown.width].copy()
        raise RuntimeError(f"the H.264 decoder gave nothing back for frame {self._sent - 1}")
