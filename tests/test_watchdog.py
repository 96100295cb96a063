"""What the device does goes on feeding systemd's watchdog, or stops: the composition's part of `edge.out.systemd`."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from edge import app as composition
from edge.app import App
from edge.config import Config, load
from edge.errors import SourceError
from edge.frames import FrameSource
from edge.out import Payload
from edge.out.systemd import Part
from edge.pipeline import Pipeline
from edge.records import Event, Frame
from edge.store.outbox import Outbox
from tests.test_app import Camera
from tools.delivery.broker import free_port

Until = Callable[..., None]
Start = Callable[..., App]


class Progress(Counter[Part]):
    """In the watchdog's place: counts what each part reports."""

    def __init__(self, *arguments: object) -> None:
        super().__init__()

    def progress(self, part: Part) -> None:
        self[part] += 1

    def since(self, before: "Counter[Part]") -> set[Part]:
        """Give the parts that have reported twice since: the first may be what was under way."""
        return {part for part in Part if self[part] >= before[part] + 2}


@pytest.fixture
def progress(monkeypatch: pytest.MonkeyPatch) -> Progress:
    counted = Progress()
    monkeypatch.setattr(composition, "Watchdog", lambda *arguments: counted)
    # A device's times, shortened.
    monkeypatch.setattr("edge.feed.RETRY_S", (0.005, 0.02))
    monkeypatch.setattr("edge.dispatch.FLUSH_S", 0.02)
    return counted


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """Ends whatever a test has made hang, so that its threads end with it."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def start(released: threading.Event) -> Iterator[Start]:
    apps: list[App] = []

    def begin(
        *settings: str, open_source: Callable[[], FrameSource] = Camera, folder: Path | None = None
    ) -> App:
        config: Config = load(
            None, ["device.id=bench", "mqtt.enabled=false", "leds.enabled=false", *settings]
        )
        apps.append(App(config, open_source, is_live=True, folder=folder))
        return apps[-1]

    yield begin
    released.set()
    for app in apps:
        app.close()


def once(camera: Camera) -> Callable[[], FrameSource]:
    """Give what opens a camera that is away once it has broken."""
    cameras = iter([camera])

    def opened() -> FrameSource:
        for each in cameras:
            return each
        raise SourceError("no camera")

    return opened


@pytest.fixture
def hanging_model(released: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(Pipeline):
        def feed(self, frame: Frame) -> list[Event]:
            released.wait()
            return super().feed(frame)

    monkeypatch.setattr(composition, "Pipeline", Hanging)


def check_all_move(app: App, progress: Progress, until: Until) -> None:
    before = progress.copy()

    def has_all() -> bool:
        app.attend()
        return progress.since(before) == set(Part)

    until(has_all, "progress of every part")


def check_these_stand_still(app: App, progress: Progress, until: Until, *hung: Part) -> None:
    """Wait until the hang has taken hold, and then see that all others go on."""
    before = Counter[Part]()

    def moves_without() -> bool:
        nonlocal before
        app.attend()
        if any(progress[part] != before[part] for part in hung):
            before = progress.copy()
        return all(progress[part] >= before[part] + 10 for part in set(Part) - set(hung))

    until(moves_without, f"progress of all but {hung}")


def test_a_device_that_watches_moves_every_part(start: Start, progress: Progress, until: Until) -> None:
    check_all_move(start(), progress, until)


def test_a_camera_that_is_away_is_no_hang(start: Start, progress: Progress, until: Until) -> None:
    app = start(open_source=once(Camera(frames=3, breaks_with="cable pulled")))
    until(lambda: app._reader.problem == "no camera", "the camera to be away")
    check_all_move(app, progress, until)


def test_a_pause_is_no_hang(start: Start, progress: Progress, until: Until) -> None:
    app = start()
    assert app._reader.pause(timeout_s=20.0)
    check_all_move(app, progress, until)


def test_a_disk_that_takes_nothing_is_no_hang(
    start: Start, progress: Progress, until: Until, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    app = start(folder=tmp_path / "file" / "state")
    assert app.outbox.problem
    check_all_move(app, progress, until)


def test_a_broker_that_is_away_is_no_hang(start: Start, progress: Progress, until: Until) -> None:
    app = start("mqtt.enabled=true", f"mqtt.port={free_port()}")
    assert app.mqtt is not None
    check_all_move(app, progress, until)
    assert app.mqtt.problem


@pytest.mark.usefixtures("hanging_model")
def test_a_model_that_hangs_stops_the_heartbeat(start: Start, progress: Progress, until: Until) -> None:
    check_these_stand_still(start(), progress, until, Part.INFERENCE)


@pytest.mark.usefixtures("hanging_model")
def test_a_camera_that_is_away_does_not_speak_for_a_model_that_hangs(
    start: Start, progress: Progress, until: Until
) -> None:
    app = start(open_source=once(Camera(frames=1, breaks_with="cable pulled")))
    check_these_stand_still(app, progress, until, Part.INFERENCE)


def test_a_driver_that_hangs_stops_the_heartbeat(
    start: Start, progress: Progress, until: Until, released: threading.Event
) -> None:
    class Hanging(Camera):
        def frames(self) -> Iterator[Frame]:
            yield from Camera(frames=3).frames()
            released.wait()

    # The worker waits for a frame, and nobody speaks for it.
    check_these_stand_still(start(open_source=Hanging), progress, until, Part.CAMERA, Part.INFERENCE)


def test_a_disk_that_hangs_stops_the_heartbeat(
    start: Start, progress: Progress, until: Until, released: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hanging(Outbox):
        def flush(self) -> None:
            released.wait()
            super().flush()

        def append(self, payloads: Sequence[Payload]) -> list[Payload]:
            released.wait()
            return super().append(payloads)

    monkeypatch.setattr(composition, "Outbox", Hanging)
    check_these_stand_still(start(), progress, until, Part.OUTBOX)


def test_a_main_thread_that_looks_at_nothing_stops_the_heartbeat(
    start: Start, progress: Progress, until: Until
) -> None:
    start()
    until(lambda: all(progress[part] > 10 for part in set(Part) - {Part.CONTROL}), "progress of all others")
    assert progress[Part.CONTROL] == 0
