"""The commands as a user meets them: exit codes, one clear message, and what they show."""

import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from rich.console import Console

from edge import config as edge_config
from edge.__main__ import main
from edge.commands import StopRequest
from edge.commands.demo_view import Lamps, LiveView, Scene
from edge.commands.score import Score, overlap_ratio
from edge.frames.portrait import load_portrait, portrait_landmarks
from edge.frames.script import PlantedEvent
from edge.frames.synthetic import SyntheticSource
from edge.payload import validate
from edge.pipeline import Statistics

ROOT = Path(__file__).resolve().parents[1]
Until = Callable[..., None]
OFFLINE = ("--set", "leds.enabled=false", "--set", "mqtt.enabled=false")


@dataclass(frozen=True, slots=True)
class Video:
    path: Path
    truth: list[PlantedEvent]


def write_video(path: Path, pictures: Sequence[Any], rate_hz: int) -> Path:
    """Write (rows, columns) uint8 pictures nearly without loss."""
    rows, columns = pictures[0].shape
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate_hz)
        stream.width, stream.height, stream.pix_fmt = columns, rows, "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "10"}
        for picture in pictures:
            for packet in stream.encode(
                av.VideoFrame.from_ndarray(picture, format="gray").reformat(format="yuv420p")
            ):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """Commands set the level of the whole process; other tests listen to its log."""
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory, clear_portrait: SyntheticSource) -> Video:
    """Two and a half seconds of the portrait at 200 frames/s with clear micro-expressions."""
    pictures = [frame.luma for frame in clear_portrait.frames()]
    return Video(
        write_video(tmp_path_factory.mktemp("video") / "face.mp4", pictures, 200), clear_portrait.truth
    )


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pictures = [np.full((120, 160), 90, np.uint8)] * 60
    return write_video(tmp_path_factory.mktemp("video") / "blank.mp4", pictures, 60)


def started(*arguments: str, **options: Any) -> "subprocess.Popen[str]":
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | options.pop("env", {})
    return subprocess.Popen(
        [sys.executable, "-m", "edge", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment, **options,
    )  # fmt: skip


def test_the_version_and_the_help_need_no_hardware(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--version"], ["--help"], ["run", "--help"], ["demo", "--help"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
    assert "microedge 0." in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["replay"],
        ["replay", "a.mp4", "--seconds", "0"],
        ["demo", "--rate", "nan"],
        ["config", "burn"],
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["run"], ["replay", "a.mp4"], ["demo"], ["config", "check"]])
def test_every_command_reports_every_mistake_of_its_settings_and_ends_with_2(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--set", "camera.width=9", "--set", "mqtt.prot=1"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("microedge: --set: ") for line in lines)


def test_config_shows_what_a_file_and_an_override_make_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[device]\nid = "lab-03"\n[camera]\nrate_hz = 90\n')
    assert main(["config", "show", "--config", str(path), "--set", "camera.rate_hz=120"]) == 0
    shown = tmp_path / "shown.toml"
    shown.write_text(capsys.readouterr().out)
    config = edge_config.load(shown)
    assert config.device.id == "lab-03"
    assert config.camera.rate_hz == 120


def test_the_example_and_the_reference_can_be_used_as_they_stand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "example"]) == 0
    path = tmp_path / "example.toml"
    path.write_text(capsys.readouterr().out)
    assert main(["config", "check", "--config", str(path)]) == 0
    assert "nothing wrong" in capsys.readouterr().out
    assert main(["config", "reference"]) == 0
    assert "`mqtt.host`" in capsys.readouterr().out


def test_output_into_a_closed_pipe_ends_without_a_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with os.fdopen(writer, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "edge", "config", "reference"], stdout=closed, stderr=subprocess.PIPE,
            text=True, env=environment, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == ""


@pytest.mark.parametrize("content", [None, b"", b"\x00\x01garbage" * 200, b"just text\n" * 50])
def test_an_unreadable_video_is_one_line_and_1(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "video.mp4"
    if content is not None:
        path.write_bytes(content)
    assert main(["replay", str(path)]) == 1
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 1
    assert "video.mp4" in captured.err
    assert captured.out == ""


def test_replay_finds_planted_events_and_writes_them_by_the_schema(
    video: Video, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "events.jsonl"
    assert main(["replay", str(video.path), "--out", str(out), "--set", "device.id=bench"]) == 0
    events = [json.loads(line) for line in out.read_text().splitlines()]
    assert events
    for event in events:
        validate(event)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert {event["device_id"] for event in events} == {"bench"}
    assert all(event["replayed"] for event in events)
    score = Score(video.truth)
    for event in events:
        score.take(event, 3.0)
    assert score.came_back >= 1
    summary = capsys.readouterr().out
    assert "200.00 frames/s measured" in summary
    assert "assessable" in summary
    assert "of 5 s of calm face seen" in " ".join(summary.split())
    assert "NOTHING COULD BE ASSESSED" not in summary


def test_replay_keeps_standard_output_to_the_events_when_asked_for_them(
    video: Video, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(video.path), "--out", "-", "--start", "0.5", "--seconds", "1.5"]) == 0
    captured = capsys.readouterr()
    for line in captured.out.splitlines():
        validate(json.loads(line))
    assert "of 1.49 s" in captured.err or "of 1.50 s" in captured.err


def test_the_journal_tells_events_refusals_and_lost_time_in_order(video: Video, tmp_path: Path) -> None:
    out, journal = tmp_path / "events.jsonl", tmp_path / "journal.jsonl"
    assert main(["replay", str(video.path), "--quiet", "--out", str(out), "--journal", str(journal)]) == 0
    *lines, summary = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in (*lines, summary):
        validate(line)
    starts = [line["start_s"] for line in lines]
    assert starts == sorted(starts)
    assert (lines[0]["kind"], lines[0]["reason"], lines[0]["start_s"]) == ("not_assessable", "warming up", 0)
    events = [line["event"] for line in lines if line["kind"] == "event"]
    assert events
    assert events == [json.loads(line) for line in out.read_text().splitlines()]
    refused = Counter(line["reason"] for line in lines if line["kind"] == "refusal")
    assert summary["kind"] == "summary"
    assert summary["events"] == len(events)
    assert summary["refusals"] == refused
    lost = [line for line in lines if line["kind"] == "not_assessable"]
    lost_s = sum(line["end_s"] - line["start_s"] for line in lost)
    assert lost_s == pytest.approx(sum(summary["not_assessable_s"].values()), abs=1e-5)
    assert lost_s + summary["assessable_s"] == pytest.approx(summary["end_s"], abs=1e-5)


def test_the_journal_of_a_video_without_a_face_is_one_stretch(blank: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    assert main(["replay", str(blank), "--quiet", "--journal", str(journal)]) == 0
    stretch, summary = [json.loads(line) for line in journal.read_text().splitlines()]
    assert (stretch["reason"], stretch["start_s"]) == ("no face", 0)
    assert stretch["end_s"] == summary["end_s"] > 0.9
    assert summary["assessable_s"] == 0


def test_a_journal_that_cannot_be_written_is_one_line_and_1(
    blank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(blank), "--journal", str(tmp_path / "absent" / "journal.jsonl")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_replay_gives_the_same_events_each_time(video: Video, tmp_path: Path) -> None:
    def events(name: str) -> list[dict[str, Any]]:
        out = tmp_path / name
        assert main(["replay", str(video.path), "--quiet", "--out", str(out)]) == 0
        found = [json.loads(line) for line in out.read_text().splitlines()]
        for each in found:
            del each["id"], each["boot_id"], each["series"], each["clock_synchronised"]
        return found

    assert events("first") == events("second")


def test_a_video_without_a_face_says_loudly_that_nothing_could_be_assessed(
    blank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(blank)]) == 0
    summary = capsys.readouterr().out
    assert "NOTHING COULD BE ASSESSED" in summary
    assert "no face" in summary


def test_a_frame_rate_that_cannot_place_an_event_is_the_reason_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = SyntheticSource(load_portrait(), portrait_landmarks(), rate_hz=10, seconds=3, size=(320, 240))
    slow = write_video(tmp_path / "slow.mp4", [frame.luma for frame in source.frames()], 10)
    assert main(["replay", str(slow)]) == 0
    summary = capsys.readouterr().out
    assert "NOTHING COULD BE ASSESSED" in summary
    assert "frame rate too low" in summary


def test_a_file_that_cannot_be_written_is_one_line_and_1(
    blank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(blank), "--out", str(tmp_path / "absent" / "events.jsonl")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_replay_publishes_under_a_name_that_is_not_the_device(
    video: Video, shared_broker: Any, topic_prefix: str, until: Until
) -> None:
    topics: list[str] = []
    events: list[dict[str, Any]] = []
    subscribed: list[bool] = []
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.on_connect = lambda client, *_: client.subscribe(f"{topic_prefix}/+/event", qos=1)
    client.on_subscribe = lambda *_: subscribed.append(True)
    client.on_message = lambda _client, _data, message: (
        topics.append(message.topic),
        events.append(json.loads(message.payload)),
    )
    client.connect("127.0.0.1", shared_broker.port)
    client.loop_start()
    try:
        until(lambda: subscribed, "the subscription")
        settings = (
            "device.id=bench", "mqtt.host=127.0.0.1", f"mqtt.port={shared_broker.port}",
            f"mqtt.topic_prefix={topic_prefix}",
        )  # fmt: skip
        overrides = [part for setting in settings for part in ("--set", setting)]
        assert main(["replay", str(video.path), "--quiet", "--publish", *overrides]) == 0
        until(lambda: events, "an event")
    finally:
        client.disconnect()
        client.loop_stop()
    assert set(topics) == {f"{topic_prefix}/bench-replay/event"}
    validate(events[0])


def test_run_reports_all_that_is_missing_at_once_and_never_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gpiozero.Device.pin_factory", None)
    monkeypatch.setenv("GPIOZERO_PIN_FACTORY", "mock")
    settings = (
        f"inference.models={tmp_path}", f"outbox.folder={tmp_path}", "mqtt.enabled=false",
        "camera.source=webcam", "camera.device=/dev/absent",
    )  # fmt: skip
    overrides = [part for setting in settings for part in ("--set", setting)]
    assert main(["run", *overrides]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert any("/dev/absent" in line for line in lines)
    assert any("inference.models" in line for line in lines)


def test_one_report_names_all_that_keeps_a_device_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = tmp_path / "password"
    secret.write_text("of all things\n")
    secret.chmod(0o644)
    monkeypatch.setattr("edge.clock.time.time_ns", lambda: 1_000_000_000)
    monkeypatch.setattr("gpiozero.Device.pin_factory", None)
    monkeypatch.setenv("GPIOZERO_PIN_FACTORY", "native")  # which needs a Raspberry Pi
    settings = (
        "camera.source=webcam", f"camera.device={tmp_path}/absent", "inference.accelerator=edgetpu",
        "mqtt.username=me", f"mqtt.password_file={secret}", f"outbox.folder={secret}/below",
    )  # fmt: skip
    assert main(["run", *(part for setting in settings for part in ("--set", setting))]) == 2
    report = [line for line in capsys.readouterr().err.splitlines() if line.startswith("microedge: ")]
    for wrong in (
        f"{tmp_path}/absent", "edgetpu: no libedgetpu", "edgetpu: no device",
        "leds.capture_pin = 17", f'mqtt.password_file = "{secret}": others may read it (mode 0644)',
        f'outbox.folder = "{secret}/below"', "clock: says 1970-01-01",
    ):  # fmt: skip
        assert sum(wrong in line for line in report) == 1, (wrong, report)
    assert "of all things" not in "".join(report)


def test_run_stops_cleanly_on_sigterm_and_says_so_to_its_service_manager(
    shared_broker: Any, topic_prefix: str, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        service = started(
            "run", "--set", "camera.source=synthetic", "--set", "leds.enabled=false", "--set", "mqtt.host=127.0.0.1",
            "--set", f"mqtt.port={shared_broker.port}", "--set", f"mqtt.topic_prefix={topic_prefix}",
            env={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "3000000"},
        )  # fmt: skip
        try:
            heard = []
            while "WATCHDOG=1" not in heard:
                heard.append(manager.recv(4096).decode())
            assert "READY=1" in heard
            service.send_signal(signal.SIGTERM)
            while "STOPPING=1" not in heard:
                heard.append(manager.recv(4096).decode())
            _, errors = service.communicate(timeout=60)
        finally:
            service.kill()
            service.wait()
    assert service.returncode == 0
    assert "Traceback" not in errors


def test_demo_brings_planted_events_back_through_its_broker(capsys: pytest.CaptureFixture[str]) -> None:
    # A small picture is drawn faster than real time on a slow machine.
    small = ("--set", "camera.width=320", "--set", "camera.height=240")
    assert main(["demo", "--seconds", "9", "--seed", "2", "--no-tty", "--no-browser", *small]) == 0
    shown = capsys.readouterr().out
    assert "planted: " in shown
    assert "from the broker: " in shown
    assert "LED capture: on" in shown
    assert "LED event: " in shown
    assert shown.index("LED capture: on") < shown.index("LED event: ") < shown.index("LED capture: off")
    assert "came back through the broker" in shown


def test_demo_fails_when_nothing_came_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--seconds", "1", "--no-tty"]) == 1
    assert "0 of 0 planted" in capsys.readouterr().out


def test_demo_says_what_is_wrong_with_a_photo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(b"no picture")
    assert main(["demo", "--photo", str(path)]) == 1
    assert capsys.readouterr().err == f"microedge: {path}: not a picture that can be read\n"


def test_the_live_view_fits_a_terminal_of_80_by_24_and_shows_lamps_truth_and_events() -> None:
    source = SyntheticSource(load_portrait(), portrait_landmarks(), seconds=60, size=(320, 240))
    score = Score(source.truth)
    first = score.rows[0].planted
    assert first is not None
    event = {
        "id": "a", "onset_s": first.onset_s, "offset_s": first.offset_s, "emotion": "uncertain", "confidence": 0.5,
        "action_units": [{"au": "AU12", "side": "left", "score": 0.9}],
    }  # fmt: skip
    score.take(event, first.offset_s + 0.4)
    statistics = Statistics(9000, 0, 0, 200.0, 15.0, 45.0, 44.0, {}, {}, 1, 1, 0)
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=80, height=24, color_system=None)
    view = LiveView(console, source, "127.0.0.1:1883", "microedge/demo/event")
    lamps = Lamps(capture=True, event=(True, True, True), fault=False)
    console.print(view.drawing(Scene(20.0, 20.0, statistics, True, lamps, score)))
    lines = output.getvalue().splitlines()
    assert len(lines) <= 23
    assert max(len(line) for line in lines) <= 80
    text = output.getvalue()
    for part in (
        "● capture",
        "● event",
        "○ fault",
        "face followed",
        "in real time",
        "uncertain 0.50",
        "400 ms",
        "missed",
    ):
        assert part in text


def micro(onset_s: float, offset_s: float, kind: Any = "micro") -> PlantedEvent:
    return PlantedEvent(kind, onset_s, (onset_s + offset_s) / 2, offset_s, "surprise")


def back(name: str, onset_s: float, offset_s: float) -> dict[str, Any]:
    return {"id": name, "onset_s": onset_s, "offset_s": offset_s}


def test_the_score_joins_each_planted_event_with_one_event_that_overlaps_it_by_half() -> None:
    score = Score([micro(1.0, 1.1), micro(3.0, 3.1), micro(5.0, 5.2, "blink")])
    assert score.planted == 2
    matched = score.take(back("a", 1.01, 1.11), media_s=1.4)
    assert matched is not None
    assert matched.is_match
    assert matched.delay_s == pytest.approx(0.29)
    assert score.take(back("a", 1.01, 1.11), media_s=1.5) is None  # a duplicate has the same id
    score.take(back("b", 1.0, 1.1), media_s=1.5)  # planted once, so it counts once
    score.take(back("c", 3.08, 3.18), media_s=3.5)  # overlaps by too little
    score.take(blinked := back("d", 5.05, 5.15), media_s=5.5)
    assert (score.came_back, score.false, score.received) == (1, 3, 4)
    assert score.during(blinked) == "blink"


def test_overlap_is_intersection_over_union() -> None:
    assert overlap_ratio((0.0, 1.0), (0.0, 1.0)) == 1.0
    assert overlap_ratio((0.0, 1.0), (0.5, 1.5)) == pytest.approx(1 / 3)
    assert overlap_ratio((0.0, 1.0), (2.0, 3.0)) == 0.0


def test_the_first_signal_is_a_request_and_the_next_one_has_its_usual_effect() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop.is_made
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_made
        assert signal.getsignal(signal.SIGTERM) is before
    assert signal.getsignal(signal.SIGTERM) is before
