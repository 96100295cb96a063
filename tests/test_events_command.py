"""`microedge events` as a user meets it: tables, files, following, and one clear message for what goes wrong."""

import csv
import io
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edge.__main__ import main
from edge.commands import export
from edge.config import History as HistoryConfig
from edge.config import Outbox as OutboxConfig
from edge.payload import PayloadWriter, encode
from edge.records import Event
from edge.store.file import FILE
from edge.store.outbox import Outbox

ROOT = Path(__file__).resolve().parents[1]
START_NS = 1_795_428_900_000_000_000  # 2026-11-23 10:15:00 UTC
NASTY = '=HYPERLINK("http://x") [bold]ü\x1b[31m'
Append = Callable[..., list[dict[str, Any]]]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.mkdir()
    return path


@pytest.fixture
def outbox(folder: Path) -> Iterator[Outbox]:
    outbox = Outbox(folder, OutboxConfig(max_events=30), HistoryConfig())
    yield outbox
    outbox.close()


@pytest.fixture
def append(make_event: Callable[..., Event]) -> Append:
    """Commit events, the n-th of a test n minutes after START_NS, and give them as numbered."""
    count = 0

    def commit(outbox: Outbox, number: int = 1, context: dict[str, Any] | None = None, **changes: Any) -> Any:
        nonlocal count
        payloads = []
        for _ in range(number):
            start_ns = START_NS + count * 60_000_000_000
            writer = PayloadWriter("lab-03", "boot", start_ns, {"spotter": "0" * 64}, context=context)
            payloads.append(writer.write(make_event(**changes), "0" * 32, 1))
            count += 1
        return outbox.append(payloads)

    return commit


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `microedge events` on the folder and give the exit code and what was printed."""

    def events(*arguments: str) -> tuple[int, str, str]:
        code = main(["events", "--folder", str(folder), *arguments])
        return code, *capsys.readouterr()

    return events


@pytest.fixture
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nine hours ahead of UTC, without summer time."""
    monkeypatch.setenv("TZ", "JST-9")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def deliver(outbox: Outbox) -> None:
    for entry in outbox.peek(-1, 1000):
        outbox.acknowledge(entry.position)
    outbox.flush()


def test_a_table_shows_the_newest_twenty_with_the_last_at_the_bottom(
    outbox: Outbox, append: Append, run: Run, in_tokyo: None
) -> None:
    append(outbox, 24, context={"session": "interview-7"})
    deliver(outbox)
    append(outbox, emotion=None)
    code, out, err = run()
    assert (code, err) == (0, "")
    head, *rows = out.splitlines()
    assert head.split() == [
        "seq",
        "local",
        "time",
        "emotion",
        "conf",
        "ms",
        "%",
        "IOD",
        "action",
        "units",
        "session",
        "delivery",
    ]
    assert len([row for row in rows if "AU9" in row]) == 20
    assert rows[0].split() == [
        "6",
        "2026-11-23",
        "19:20:12.415",
        "disgust",
        "0.71",
        "115",
        "1.10",
        "AU9",
        "interview-7",
        "delivered",
    ]
    assert rows[19].split() == [
        "25",
        "2026-11-23",
        "19:39:12.415",
        "movement",
        "115",
        "1.10",
        "AU9",
        "waiting",
    ]
    assert "20 events, 2026-11-23 19:20:12 to 2026-11-23 19:39:12: 19 delivered, 1 waiting." in out
    assert "begins 2026-11-23 19:15:12 with seq 1; --last N shows more of it" in out
    assert "Given up before delivery: none." in out


def test_times_are_read_as_they_are_shown(outbox: Outbox, append: Append, run: Run, in_tokyo: None) -> None:
    append(outbox, 10)

    def first(*arguments: str) -> int:
        return int(run(*arguments)[1].splitlines()[1].split()[0])

    assert first("--since", "2026-11-23T19:18") == 4
    assert first("--since", "2026-11-23 10:18", "--utc") == 4
    assert first("--since", "2026-11-23T10:18Z") == 4
    assert first("--since", "2026-11-23T11:18+01:00") == 4
    assert first("--until", "2026-11-23T19:18", "--last", "1") == 3
    assert " 2026-11-23 10:15:12.415 " in run("--utc", "--last", "10")[1].splitlines()[1]


@pytest.mark.parametrize(("age", "number"), [("1h30m", 2), ("2h", 3), ("3d", 4), ("1w", 5), ("30s", 0)])
def test_an_age_counts_back_from_now(
    folder: Path, run: Run, make_event: Callable[..., Event], age: str, number: int
) -> None:
    outbox = Outbox(folder, OutboxConfig(), HistoryConfig())
    for minutes in (7 * 24 * 60 - 10, 3 * 24 * 60 - 10, 110, 80, 20):
        writer = PayloadWriter(
            "lab-03", "b", time.time_ns() - minutes * 60_000_000_000, {"spotter": "0" * 64}
        )
        outbox.append([writer.write(make_event(), "0" * 32, 1)])
    outbox.close()
    out = run("--since", age, "--json")[1]
    assert len(out.splitlines()) == number


def test_json_lines_are_the_events_as_published_and_have_standard_output_to_themselves(
    outbox: Outbox, append: Append, run: Run
) -> None:
    published = append(outbox, 25, context={"note": NASTY})
    code, out, err = run("--json")
    assert code == 0
    assert out.splitlines() == [encode(payload) for payload in published]
    assert err.startswith("25 events, ")
    assert run("--json", "--last", "2", "--emotion", "disgust")[1].splitlines() == [
        encode(each) for each in published[-2:]
    ]


def test_csv_is_flat_typed_and_safe_for_a_spreadsheet(
    outbox: Outbox, append: Append, run: Run, tmp_path: Path
) -> None:
    append(outbox, context={"session": NASTY, "note": 'a, "b"\nc', "tags": ["-1", "x"]})
    append(outbox, emotion=None)
    path = tmp_path / "events.csv"
    code, out, _ = run("--csv", str(path))
    assert (code, f"Written to {path}." in out) == (0, True)
    first, second = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))
    assert first["session"] == "'" + NASTY
    assert first["note"] == 'a, "b"\nc'
    assert first["tags"] == "'-1; x"
    assert first["action_units"] == "AU9 both 0.83"
    assert first["time"] == "2026-11-23T10:15:12.415Z"
    assert (first["seq"], first["onset_s"], first["probability_disgust"]) == ("1", "12.415", "0.71")
    assert (first["baseline_ready"], first["replayed"]) == ("true", "false")
    assert (second["emotion"], second["confidence"], second["note"]) == ("", "", "")
    assert len(first) == len(export.COLUMNS)
    assert run("--csv", "-")[1] == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", " =1", "\t=1", "\tx", "\r", "\uff1d1"])
def test_every_beginning_of_a_formula_is_defused(outbox: Outbox, append: Append, run: Run, text: str) -> None:
    append(outbox, context={"note": text, "session": "1-1"})
    (row,) = csv.DictReader(io.StringIO(run("--csv", "-")[1], newline=""))
    assert row["note"] == "'" + text.replace("\r", "\n")
    assert row["session"] == "1-1"


def test_parquet_has_types_times_in_utc_and_lists(
    outbox: Outbox, append: Append, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "BATCH_ROWS", 10)
    append(outbox, 24, context={"session": NASTY, "tags": ["a", "b"]})
    append(outbox, emotion=None)
    path = tmp_path / "events.parquet"
    assert run("--parquet", str(path))[0] == 0
    file = pq.ParquetFile(path)
    assert file.num_row_groups == 3
    schema = file.schema_arrow
    assert schema.field("time").type == pa.timestamp("ms", "UTC")
    assert (schema.field("seq").type, schema.field("confidence").type) == (pa.int64(), pa.float64())
    assert schema.field("tags").type == pa.list_(pa.string())
    rows = file.read().to_pylist()
    assert [row["seq"] for row in rows] == list(range(1, 26))
    assert rows[0]["time"] == datetime(2026, 11, 23, 10, 15, 12, 415_000, UTC)
    assert rows[0]["action_units"] == [{"au": "AU9", "side": "both", "score": 0.83}]
    assert (rows[0]["session"], rows[0]["tags"]) == (NASTY, ["a", "b"])
    assert (rows[24]["emotion"], rows[24]["probability_anger"], rows[24]["tags"]) == (None, None, None)


def test_without_pyarrow_parquet_names_what_to_install(
    outbox: Outbox, append: Append, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(outbox)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, err = run("--parquet", str(tmp_path / "x.parquet"))
    assert code == 1
    assert "pip install 'microedge[parquet]'" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("form", ["--csv", "--parquet"])
def test_an_export_that_fails_leaves_the_file_before_it_as_it_was(
    outbox: Outbox, append: Append, run: Run, tmp_path: Path, form: str
) -> None:
    append(outbox, 3)
    outbox.append([{"id": "0", "time": "never"}])
    path = tmp_path / "out" / "events"
    path.parent.mkdir()
    path.write_text("before")
    code, _, err = run(form, str(path))
    assert code == 1
    assert "position 4 cannot be read" in err
    assert [file.name for file in path.parent.iterdir()] == ["events"]
    assert path.read_text() == "before"
    assert run(form, str(path), "--until", "2026-11-23T00:00Z")[0] == 1


@pytest.mark.parametrize("form", ["--csv", "--parquet"])
@pytest.mark.parametrize("target", ["/dev/full", "absent/events", "."])
def test_a_file_that_cannot_be_written_is_named(
    outbox: Outbox,
    append: Append,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    form: str,
    target: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    append(outbox, 3)
    code, _, err = run(form, target)
    assert code == 1
    (line,) = err.splitlines()
    assert "cannot be written: " in line


def test_what_was_lost_is_told_so_that_silence_is_not_taken_for_completeness(
    outbox: Outbox, append: Append, run: Run
) -> None:
    append(outbox, 34)
    out = run("--last", "50")[1]
    assert len([line for line in out.splitlines() if line.endswith("lost     ")]) == 4
    assert "34 events, " in out
    assert ": 4 lost, 30 waiting." in out
    assert "Given up before delivery: 4 events (full 4); the last:" in out
    assert "  seq 1-4 of series " in out
    assert "the outbox was full" in out
    assert "Given up before delivery: 4 events" in run("--json")[2]
    outbox.wipe()
    out = run()[1]
    assert "No event found." in out
    assert "is empty" in out
    assert "34 events (full 4, wiped 30)" in out


def test_nothing_found_is_said_and_is_no_failure(outbox: Outbox, append: Append, run: Run) -> None:
    append(outbox)
    code, out, _ = run("--emotion", "fear", "--session", "s")
    assert (code, out.splitlines()[0]) == (0, "No event found.")


def test_text_from_the_network_cannot_steer_the_terminal(outbox: Outbox, append: Append, run: Run) -> None:
    append(outbox, context={"session": "[bold]\x1b[2Jx\u202e"})
    out = run()[1]
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "[bold]" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--since", "yesterday"],
        ["--since", "5"],
        ["--since", "999999999999999w"],
        ["--since", "0001-01-01T00:00"],
        ["--until", "2026-13-01"],
        ["--emotion", "joy"],
        ["--follow", "--csv", "x.csv"],
        ["--follow", "--until", "1h"],
        ["--parquet", "-"],
    ],
)
def test_what_cannot_be_meant_ends_with_2_and_one_line(
    run: Run, in_tokyo: None, arguments: list[str]
) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert arguments[0] in err


@pytest.mark.parametrize("arguments", [["--last", "0"], ["--json", "--csv", "x"], ["--last", "many"]])
def test_wrong_usage_ends_with_2(run: Run, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 2


def test_a_folder_without_a_history_says_what_to_do(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run()
    assert code == 1
    assert "no history here" in err
    assert main(["events", "--set", f"outbox.folder={tmp_path}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / FILE) in line
    assert "outbox.folder" in line


class Following:
    """`microedge events --follow` in a process of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edge", "events", "--folder", folder, "--follow", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def line(self, holding: str) -> str:
        """Wait for a line that holds some text."""
        try:
            while holding not in (line := self._lines.get(timeout=20)):
                continue
            return line
        except queue.Empty:
            pytest.fail(f"no line with {holding!r} within 20 s; the end: {self.end()}")

    def end(self, number: int = signal.SIGINT) -> tuple[int, str]:
        self.process.send_signal(number)
        assert self.process.stderr is not None
        said = self.process.stderr.read()
        return self.process.wait(20), said

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)


def test_following_shows_each_event_as_it_is_kept_until_ctrl_c(
    folder: Path, outbox: Outbox, append: Append
) -> None:
    append(outbox, 2)
    following = Following(folder, "--utc", "--last", "1")
    assert following.line("disgust").split()[0] == "2"
    append(outbox, emotion="anger")
    assert following.line("anger").split()[:3] == ["3", "2026-11-23", "10:17:12.415"]
    outbox.wipe()
    assert "seq 1-3 of series" in following.line("removed by a wipe")
    append(outbox, emotion="fear")
    assert following.line("fear").split()[0] == "4"
    assert following.end() == (0, "")


def test_following_as_json_lines_outlives_a_file_that_is_set_aside(
    folder: Path, outbox: Outbox, append: Append
) -> None:
    (first,) = append(outbox)
    following = Following(folder, "--json")
    assert json.loads(following.line("{")) == first
    outbox.close()
    for path in folder.iterdir():
        path.rename(path.with_name(f"old-{path.name}"))
    again = Outbox(folder, OutboxConfig(), HistoryConfig())
    try:
        (second,) = append(again)
        assert json.loads(following.line("{")) == second
    finally:
        again.close()
    code, said = following.end(signal.SIGTERM)
    assert code == 0
    assert all("no history here" in line or "can be read again" in line for line in said.splitlines())
