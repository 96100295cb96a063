"""`microedge run`: the service. Camera, models, broker and LEDs as the configuration says, until stopped."""

import argparse
import faulthandler
import logging
import os
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from edge.app import App
from edge.commands import ATTEND_S, ReloadRequest, StopRequest, configuration, log_to_stderr
from edge.config import Config
from edge.errors import ConfigError, EdgeError, StuckError
from edge.frames import FrameSource, picamera, webcam
from edge.frames.camera import CameraSource
from edge.frames.paced import PacedSource
from edge.frames.portrait import moving_portrait
from edge.frames.webcam import WebcamSource
from edge.out import EventSink
from edge.out.jsonlines import JsonLinesSink
from edge.reload import compare
from edge.store.file import state_folder

log = logging.getLogger(__name__)

SYNTHETIC_S = 3600.0
"""Length of the synthetic stream, which is planned from end to end before it begins."""


def main(arguments: argparse.Namespace) -> int:
    """Run until SIGTERM, Ctrl-C, the end of the frames or a failure."""
    config = configuration(arguments, opens_camera=True)
    log_to_stderr(config)
    if sys.__stderr__ is not None:
        # A process that systemd aborts because it hangs, or that a driver takes down, leaves where each thread was.
        faulthandler.enable(file=sys.__stderr__)
    sinks = [JsonLinesSink(None)] if arguments.json else []
    try:
        app = _watch(config, arguments, sinks)
    except EdgeError as error:
        if isinstance(error.__cause__, StuckError):
            _end_at_once(str(error))
        raise
    if app.holds_camera:
        _end_at_once(app.failure)
    if app.failure:
        raise EdgeError(app.failure)
    return 0


def _watch(config: Config, arguments: argparse.Namespace, sinks: Sequence[EventSink]) -> App:
    """Start the device, attend it until it is to end, and give it back closed."""
    with (
        StopRequest() as stop,
        ReloadRequest() as reload,
        App(
            config,
            lambda: open_camera(config),
            is_live=True,
            find_source=lambda: find_camera(config),
            folder=state_folder(config),
            sinks=sinks,
        ) as app,  # fmt: skip
    ):
        while app.is_running and not stop.is_made:
            if reload.take():
                _reload(app, arguments)
            app.attend()
            time.sleep(ATTEND_S)
    return app


def _end_at_once(failure: str) -> NoReturn:
    """End the process, and with it a camera that its driver did not give back.

    An orderly end would first put the capture LED out, and then may hang in the same driver.
    """
    log.warning("camera: was not given back by its driver; ends with this process")
    for line in failure.splitlines():
        print(f"microedge: {line}", file=sys.stderr)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if failure else 0)


def _reload(app: App, arguments: argparse.Namespace) -> None:
    """Read the configuration again; one with a mistake changes nothing."""
    with app.reloading():
        try:
            new = compare(app.config, configuration(arguments, opens_camera=True))
        except ConfigError as error:
            mistakes = str(error).splitlines()
            for mistake in mistakes:
                log.error("not reloaded: %s", mistake)
            further = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
            app.refuse_reload(f"configuration not reloaded, the old one is in use: {mistakes[0]}{further}")
            return
        if new.changes("log"):
            log_to_stderr(new.config)
        app.reload(new, lambda: open_camera(new.config))
        log.info("reloaded: %s", new.words)


def open_camera(config: Config) -> FrameSource:
    """Open the source that `camera.source` names.

    Raises:
        SourceError: if it is not there or refuses the settings.
    """
    camera = config.camera
    size = (camera.width, camera.height)
    if camera.source == "picamera2":
        return CameraSource(
            camera.number,
            rate_hz=camera.rate_hz,
            size=size,
            field_of_view=camera.field_of_view,
            mains_hz=camera.mains_hz,
            exposure_us=camera.exposure_us,
            gain=camera.gain,
        )
    if camera.source == "webcam":
        return WebcamSource(camera.device, rate_hz=camera.rate_hz, size=size)
    return PacedSource(moving_portrait(camera, seconds=SYNTHETIC_S, start_time_ns=time.time_ns()))


def find_camera(config: Config) -> None:
    """Look for the source that `camera.source` names, without opening it.

    Raises:
        SourceError: if it is not there.
    """
    if config.camera.source == "picamera2":
        picamera.found(picamera.library(), config.camera.number)
    elif config.camera.source == "webcam":
        webcam.find(config.camera.device)
