"""What the unit runs during a trial in place of `microedge run`: the same composition, with parts that fail when told.

A file in MARKS that holds this process's id, or 0 for whichever it is, has one of them fail:

    stall    the camera gives no frame for STALL_S, and then says so, as `CameraSource` does
    gone     the camera breaks, and cannot be opened while the file is there
    stuck    the camera breaks, and cannot be closed either
    reader   the camera's driver hangs for ever
    worker   a model hangs for ever
    store    the disk hangs for ever, with the outbox's lock held
    main     the main thread hangs for ever

A CPU engine takes the Coral's place in the inference child. STATE says what the device knows of itself.
"""

import argparse
import faulthandler
import json
import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from edge import app as composition
from edge.app import App
from edge.commands import ATTEND_S, StopRequest, log_to_stderr
from edge.config import Config, load
from edge.errors import EdgeError, SourceError, StuckError
from edge.frames import FrameSource
from edge.frames.paced import PacedSource
from edge.frames.portrait import load_portrait, portrait_landmarks
from edge.frames.script import Script
from edge.frames.synthetic import SyntheticSource
from edge.inference.cpu import installed_engines
from edge.inference.models import Models, load_models
from edge.inference.process import Isolation
from edge.pipeline import Pipeline
from edge.records import Event, Frame
from edge.store.file import state_folder
from edge.store.outbox import Outbox

MARKS = Path("/run/trial")
STATE = Path("/run/microedge/state.json")
STALL_S = 5.0
"""As in `CameraSource`."""
_STREAM_S = 3600.0
_SCRIPT = Script(
    micro_per_min=40.0, micro_duration_ms=(100.0, 180.0), micro_peak_iod=(0.024, 0.025), blink_per_min=0.0,
    emotions=("surprise", "happiness"), quiet_start_s=0.8,
)  # fmt: skip
"""Clear micro-expressions, one every second or two."""


def is_to_fail(what: str) -> bool:
    """Tell whether the trial wants it of this process."""
    try:
        return (MARKS / what).read_text() in (str(os.getpid()), "0")
    except OSError:
        return False


def hang() -> None:
    """Never return."""
    while True:
        time.sleep(3600)


class FailingSource:
    """A camera."""

    def __init__(self, source: FrameSource) -> None:
        if is_to_fail("gone"):
            raise SourceError("camera 0: not there, 0 found")
        self._source = source
        self.name, self.size, self.duration_s = source.name, source.size, source.duration_s
        self.nominal_rate_hz, self.start_time_ns = source.nominal_rate_hz, source.start_time_ns
        self.warnings, self.frames_out_of_order = source.warnings, 0

    def frames(self) -> Iterator[Frame]:
        for frame in self._source.frames():
            if is_to_fail("reader"):
                hang()
            if is_to_fail("gone") or is_to_fail("stuck"):
                raise SourceError("camera 0: has gone")
            if is_to_fail("stall"):
                time.sleep(STALL_S)
                raise SourceError(f"camera 0: no frame for {STALL_S:g} s; check the camera's cable")
            yield frame

    def close(self) -> None:
        if is_to_fail("stuck"):
            raise StuckError("camera 0: hangs and cannot be closed")
        self._source.close()


class FailingPipeline(Pipeline):
    """The device's pipeline."""

    def feed(self, frame: Frame) -> list[Event]:
        if is_to_fail("worker"):
            hang()
        return super().feed(frame)


class FailingOutbox(Outbox):
    """The device's outbox."""

    def flush(self) -> None:
        if is_to_fail("store"):
            with self._lock:
                hang()
        super().flush()


def opened(config: Config) -> FrameSource:
    """Open the camera; each time it sees another course of events."""
    camera = config.camera
    source = SyntheticSource(
        load_portrait(), portrait_landmarks(), rate_hz=camera.rate_hz, size=(camera.width, camera.height),
        seconds=_STREAM_S, seed=time.time_ns() % 1_000_000, script=_SCRIPT, face_px=120.0,
        start_time_ns=time.time_ns(),
    )  # fmt: skip
    return FailingSource(PacedSource(source))


def isolated(made: list[Models], config: Config) -> Models:
    """Load the models with a CPU engine in the child, and note them."""
    made.append(load_models(config, isolation=Isolation(engine=installed_engines()[0])))
    return made[-1]


def state_of(app: App, models: Models) -> dict[str, Any]:
    """Give what a trial looks at."""
    return {
        "pid": os.getpid(),
        "frames": app.statistics.frames,
        "child": models.accelerator.pid if models.accelerator is not None else None,
        "connected": app.mqtt is not None and app.mqtt.connected,
        "waiting": app.outbox.counts().waiting,
    }


def main() -> int:
    """Run until SIGTERM, as `microedge run` does."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path)
    config = load(parser.parse_args().config)
    log_to_stderr(config)
    faulthandler.enable()
    made: list[Models] = []
    replaced = partial(mock.patch.object, composition)
    with (
        StopRequest() as stop,
        replaced("Pipeline", FailingPipeline),
        replaced("Outbox", FailingOutbox),
        replaced("load_models", partial(isolated, made)),
        App(config, lambda: opened(config), is_live=True, folder=state_folder(config)) as app,
    ):
        while app.is_running and not stop.is_made:
            if is_to_fail("main"):
                hang()
            app.attend()
            text = json.dumps(state_of(app, made[-1]))
            STATE.with_suffix(".new").write_text(text)
            STATE.with_suffix(".new").rename(STATE)
            time.sleep(ATTEND_S)
    if app.failure:
        raise EdgeError(app.failure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
