"""MediaPipe FaceMesh on the same frames, where its wheel is installed: what a landmark net per frame costs."""

import os
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.errors import EdgeError


class FaceMesh:
    """MediaPipe's face mesh, tracking one face from frame to frame as its users run it.

    Raises:
        EdgeError: mediapipe is not installed here, or is one without the face mesh.
    """

    def __init__(self) -> None:
        os.environ.setdefault("GLOG_minloglevel", "2")
        try:
            import mediapipe
        except ImportError as error:
            raise EdgeError(
                "--peer: mediapipe is not installed here; pip install 'mediapipe==0.10.14' and call again"
            ) from error
        self.name = f"MediaPipe FaceMesh {mediapipe.__version__}"
        if not hasattr(mediapipe, "solutions"):
            raise EdgeError(
                f"--peer: mediapipe {mediapipe.__version__} no longer has FaceMesh; pip install 'mediapipe==0.10.14'"
            )
        self._mesh: Any = mediapipe.solutions.face_mesh.FaceMesh(
            static_image_mode=False, max_num_faces=1, refine_landmarks=False
        )
        self.found = self.seen = 0

    def __enter__(self) -> "FaceMesh":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mesh.close()

    def run(self, lumas: Sequence[NDArray[np.uint8]]) -> tuple[float, float]:
        """Give CPU (of all its threads) and wall time per frame, ms; turning grey into RGB is not counted."""
        images = [cv2.cvtColor(luma, cv2.COLOR_GRAY2RGB) for luma in lumas]
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        for image in images:
            self.found += self._mesh.process(image).multi_face_landmarks is not None
        cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
        self.seen += len(images)
        return 1000 * cpu_s / len(images), 1000 * wall_s / len(images)
