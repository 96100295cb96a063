"""A configuration that is read again: what a running device takes, what waits, and what a bad file does not do."""

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge.commands import ReloadRequest
from edge.config import KEYS, load
from edge.frames.synthetic import SyntheticSource
from edge.inference.models import load_models
from edge.pipeline import Pipeline
from edge.records import Frame
from edge.reload import compare
from edge.settings import is_taken_at_reload

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = """
[device]
id = "bench"
[camera]
source = "synthetic"
width = 320
height = 240
rate_hz = 60
[leds]
enabled = false
[mqtt]
enabled = false
"""


def test_new_values_are_taken_or_wait_and_the_rest_stays_as_it_is() -> None:
    used = load(None, ["device.id=bench", "spot.threshold=0.7", "mqtt.host=one"])
    read = load(None, ["device.id=other", "spot.threshold=0.9", "mqtt.host=two", "event.merge_gap_ms=20"])
    reload = compare(used, read)
    assert reload.taken == ("spot.threshold", "event.merge_gap_ms")
    assert reload.waiting == ("device.id", "mqtt.host")
    assert (reload.config.spot.threshold, reload.config.event.merge_gap_ms) == (0.9, 20)
    assert (reload.config.device.id, reload.config.mqtt.host) == ("bench", "one")
    assert reload.changes("spot")
    assert not reload.changes("mqtt")
    assert reload.words == (
        "now in use: spot.threshold, event.merge_gap_ms; needs a restart (systemctl restart microedge): device.id, "
        "mqtt.host"
    )


def test_a_file_that_has_not_changed_changes_nothing() -> None:
    config = load(None, ["device.id=bench"])
    reload = compare(config, load(None, ["device.id=bench"]))
    assert (reload.taken, reload.waiting, reload.config) == ((), (), config)
    assert reload.words == "nothing has changed"


def test_what_guards_the_capture_led_waits_for_a_restart() -> None:
    waiting = {name for name in KEYS if not is_taken_at_reload(name)}
    # Else a camera could be configured beside LEDs that are still off.
    assert {"camera.source", "leds.enabled", "leds.capture_pin"} <= waiting


@pytest.mark.parametrize(
    ("settings", "is_told"), [((), True), (("spot.threshold=1.0", "event.min_duration_ms=150"), False)]
)
def test_a_pipeline_goes_on_with_other_settings_and_keeps_face_and_counts(
    clear_portrait: SyntheticSource, settings: tuple[str, ...], is_told: bool
) -> None:
    frames = [Frame(f.luma.copy(), f.timestamp_ns, f.sequence) for f in clear_portrait.frames()]
    config = load(None, ["spot.threshold=1.0"])
    pipeline = Pipeline(config, load_models(config))
    for frame in frames[:40]:
        assert pipeline.feed(frame) == []
    assert pipeline.reconfigure(load(None, settings)) == []
    events = [event for frame in frames[40:] for event in pipeline.feed(frame)] + pipeline.finish()
    statistics = pipeline.statistics
    pipeline.close()
    assert bool(events) == is_told
    assert (statistics.frames, statistics.faces, statistics.dropped) == (len(frames), 1, 0)


class _Service:
    """`microedge run` as systemd starts it: a socket to tell it things, no terminal."""

    def __init__(self, folder: Path, config: Path) -> None:
        environment = {
            "PYTHONPATH": str(ROOT), "NOTIFY_SOCKET": str(folder / "notify"), "STATE_DIRECTORY": str(folder / "state"),
            "GPIOZERO_PIN_FACTORY": "mock",
        }  # fmt: skip
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._manager.bind(str(folder / "notify"))
        self._manager.settimeout(60)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edge", "run", "--config", str(config)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env=os.environ | environment,
        )  # fmt: skip
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.log = ""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.put(line)

    def told(self, beginning: str) -> str:
        """Wait for a message to the service manager that begins so, and give it."""
        while not (message := self._manager.recv(4096).decode()).startswith(beginning):
            pass
        return message

    def logged(self, text: str) -> str:
        """Wait for a line of the log with this text, and give it."""
        while text not in (line := self._lines.get(timeout=60)):
            self.log += line
        return line

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> int:
        self.process.terminate()
        code = self.process.wait(timeout=60)
        self._manager.close()
        return code


@contextmanager
def service(folder: Path, config: Path) -> Iterator[_Service]:
    running = _Service(folder, config)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def test_sighup_takes_what_can_be_taken_and_a_bad_file_leaves_everything_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(SETTINGS)
    with service(tmp_path, file) as running:
        running.told("READY=1")
        file.write_text(SETTINGS + "keep_alive_s = 60\n[spot]\nthreshold = 0.6\n")
        running.reload()
        line = running.logged(": reloaded")
        assert "now in use: spot.threshold" in line
        assert "needs a restart (systemctl restart microedge): mqtt.keep_alive_s" in line
        assert "MONOTONIC_USEC" in running.told("RELOADING=1")
        running.told("READY=1")

        file.write_text(SETTINGS + "[spot]\nthreshold = 2\nhop_ms = 0\n")
        running.reload()
        assert "spot.threshold = 2: must be 0..1" in running.logged("not reloaded")
        assert "spot.hop_ms" in running.logged("not reloaded")
        running.told("READY=1")
        status = running.told("STATUS=degraded")
        assert "configuration not reloaded, the old one is in use" in status
        assert "(and 1 more)" in status

        file.write_text(SETTINGS.replace("width = 320", "width = 400"))
        running.reload()
        assert "camera.width" in running.logged(": reloaded")
        running.logged("is open again")
        running.told("STATUS=running")
        assert running.stop() == 0


def test_under_systemd_a_camera_that_is_absent_is_waited_for_and_the_service_says_so(tmp_path: Path) -> None:
    file, absent = tmp_path / "config.toml", tmp_path / "absent"
    file.write_text(
        SETTINGS.replace('"synthetic"', f'"webcam"\ndevice = "{absent}"').replace("enabled = false", "", 1)
    )
    with service(tmp_path, file) as running:
        assert str(absent) in running.told("STATUS=fault")
        assert running.process.poll() is None
        assert running.stop() == 0


def test_with_a_terminal_a_hang_up_keeps_its_usual_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    before = signal.getsignal(signal.SIGHUP)
    monkeypatch.setattr(sys, "stdin", Terminal())
    with ReloadRequest() as reload:
        assert signal.getsignal(signal.SIGHUP) == before
        assert not reload.take()
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(sys, "stderr", None)
    with ReloadRequest() as reload:
        os.kill(os.getpid(), signal.SIGHUP)
        assert reload.take()
        assert not reload.take()
    assert signal.getsignal(signal.SIGHUP) == before
