"""`microedge run`: the service. Camera, models, broker and LEDs as the configuration says, until stopped."""

import argparse
import time

from edge.app import App
from edge.commands import ATTEND_S, StopRequest, configuration, log_to_stderr
from edge.config import Config
from edge.errors import EdgeError
from edge.frames import FrameSource
from edge.frames.camera import CameraSource
from edge.frames.paced import PacedSource
from edge.frames.portrait import moving_portrait
from edge.frames.webcam import WebcamSource
from edge.out.jsonlines import JsonLinesSink
from edge.store.file import state_folder

SYNTHETIC_S = 3600.0
"""Length of the synthetic stream, which is planned from end to end before it begins."""


def main(arguments: argparse.Namespace) -> int:
    """Run until SIGTERM, Ctrl-C, the end of the frames or a failure."""
    config = configuration(arguments)
    log_to_stderr(config)
    sinks = [JsonLinesSink(None)] if arguments.json else []
    with (
        StopRequest() as stop,
        App(
            config, lambda: open_camera(config), is_live=True, folder=state_folder(config), sinks=sinks
        ) as app,
    ):
        while app.is_running and not stop.is_made:
            app.attend()
            time.sleep(ATTEND_S)
    if app.failure:
        raise EdgeError(app.failure)
    return 0


def open_camera(config: Config) -> FrameSource:
    """Open the source that `camera.source` names.

    Raises:
        SourceError: if it is not there or refuses the settings.
    """
    camera = config.camera
    size = (camera.width, camera.height)
    if camera.source == "picamera2":
        return CameraSource(rate_hz=camera.rate_hz, size=size)
    if camera.source == "webcam":
        return WebcamSource(camera.device, rate_hz=camera.rate_hz, size=size)
    return PacedSource(moving_portrait(camera, seconds=SYNTHETIC_S, start_time_ns=time.time_ns()))
