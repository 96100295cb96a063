"""The history can be read by anyone at any moment, and reading leaves the service and its files alone."""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edge.config import Config
from edge.config import History as HistoryConfig
from edge.config import Outbox as OutboxConfig
from edge.errors import HistoryError
from edge.payload import PayloadWriter, encode
from edge.records import Event
from edge.store import history
from edge.store.file import FILE
from edge.store.history import History, Selection, history_folder
from edge.store.outbox import Outbox

ROOT = Path(__file__).resolve().parents[1]
NOBODY = 65534
START_NS = 1_795_428_900_000_000_000  # 2026-11-23 10:15:00 UTC
Append = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def opened() -> Iterator[Callable[..., Outbox]]:
    """Open outboxes that are closed with the test."""
    with contextlib.ExitStack() as parts:

        def open_outbox(folder: Path, *, days: int = 7, max_events: int = 100_000) -> Outbox:
            outbox = Outbox(folder, OutboxConfig(max_events=max_events), HistoryConfig(days=days))
            parts.callback(outbox.close)
            return outbox

        yield open_outbox


@pytest.fixture
def append(make_event: Callable[..., Event]) -> Append:
    """Commit events, the n-th of a test n minutes after START_NS, and give them as numbered."""
    count = 0

    def commit(outbox: Outbox, number: int = 1, context: dict[str, Any] | None = None, **changes: Any) -> Any:
        nonlocal count
        payloads = []
        for _ in range(number):
            writer = PayloadWriter("lab-03", "boot", START_NS + count * 60_000_000_000, {"spotter": "0" * 64})
            writer.context = context or {}
            payloads.append(writer.write(make_event(**changes), "0" * 32, 1))
            count += 1
        return outbox.append(payloads)

    return commit


def deliver(outbox: Outbox) -> None:
    for entry in outbox.peek(-1, 1000):
        outbox.acknowledge(entry.position)
    outbox.flush()


def picture(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Everything about the folder's files that a reader could change."""
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.iterdir())}


def killed_writer(folder: Path) -> None:
    """Leave a folder behind as a process does that is killed between two events."""
    program = (
        "import os, sys; from pathlib import Path; from edge.config import History, Outbox as Config\n"
        "from edge.store.outbox import Outbox\n"
        "outbox = Outbox(Path(sys.argv[1]), Config(), History())\n"
        "for number in range(5):\n"
        "    outbox.append([{'id': str(number), 'time': '2026-11-23T10:15:00.000Z'}])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program, folder], env=environment, check=False)


@contextlib.contextmanager
def as_somebody_else() -> Iterator[None]:
    """Give up root's right to read everything, if the tests have it."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user can reach, unlike those that pytest gives."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        path.chmod(0o755)
        (path / "state").mkdir()
        yield path / "state"
        (path / "state").chmod(0o755)


def seqs(events: Any) -> list[int]:
    return [kept.seq for kept in events]


def test_events_come_in_order_as_published_with_what_became_of_them(
    tmp_path: Path, opened: Callable[..., Outbox], append: Append
) -> None:
    outbox = opened(tmp_path, max_events=2)
    published = append(outbox, 2)
    deliver(outbox)
    published += append(outbox, 3)
    kept = list(History(tmp_path).events())
    assert [each.payload for each in kept] == published
    assert [each.text for each in kept] == [encode(each) for each in published]
    assert [each.delivery for each in kept] == ["delivered", "delivered", "lost", "waiting", "waiting"]
    assert kept[0].time == datetime(2026, 11, 23, 10, 15, 12, 415_000, UTC)
    (lost,) = History(tmp_path).losses()
    assert (lost.first_seq, lost.last_seq, lost.events, lost.reason) == (3, 3, 1, "full")


def test_a_history_longer_than_one_transaction_is_read_whole(
    tmp_path: Path, opened: Callable[..., Outbox], append: Append, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "BATCH_ROWS", 7)
    append(opened(tmp_path), 30)
    assert seqs(History(tmp_path).events()) == list(range(1, 31))
    assert seqs(History(tmp_path).events(Selection(last=20))) == list(range(11, 31))
    assert seqs(History(tmp_path).follow(-1).more()) == list(range(1, 8))


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(emotion="anger"), [3, 4]),
        (Selection(emotion="movement"), [5]),
        (Selection(session="s1"), [2, 3]),
        (Selection(session="s1", emotion="anger"), [3]),
        (Selection(since=datetime(2026, 11, 23, 10, 18, 12, 415_000, UTC)), [4, 5, 6]),
        (Selection(until=datetime(2026, 11, 23, 10, 18, 12, 415_000, UTC)), [1, 2, 3]),
        (Selection(last=2), [5, 6]),
        (Selection(last=0), []),
        (Selection(last=100), [1, 2, 3, 4, 5, 6]),
        (Selection(last=2, emotion="disgust"), [2, 6]),
        (Selection(emotion="fear"), []),
    ],
)
def test_a_selection_takes_what_fits_all_of_it(
    tmp_path: Path, opened: Callable[..., Outbox], append: Append, selection: Selection, expected: list[int]
) -> None:
    outbox = opened(tmp_path)
    append(outbox, context={"note": "none"})
    append(outbox, context={"session": "s1"})
    append(outbox, context={"session": "s1"}, emotion="anger")
    append(outbox, context={"session": "s2"}, emotion="anger")
    append(outbox, emotion=None)
    append(outbox)
    assert seqs(History(tmp_path).events(selection)) == expected


def test_what_is_committed_while_it_is_read_belongs_to_the_next_reading(
    tmp_path: Path, opened: Callable[..., Outbox], append: Append
) -> None:
    outbox = opened(tmp_path)
    append(outbox, 3)
    reading = History(tmp_path).events()
    first = next(reading)
    append(outbox, 3)
    assert seqs([first, *reading]) == [1, 2, 3]


def test_reading_beside_the_service_writes_nothing(
    tmp_path: Path, opened: Callable[..., Outbox], append: Append
) -> None:
    append(opened(tmp_path), 3)
    before = picture(tmp_path)
    program = (
        "import sys; from pathlib import Path; from edge.store.history import History\n"
        "print(len(list(History(Path(sys.argv[1])).events())))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    # In a process of its own, as the locks of SQLite are.
    said = subprocess.run(
        [sys.executable, "-c", program, tmp_path], env=environment, capture_output=True, check=False
    )
    assert said.stdout == b"3\n", said.stderr
    assert picture(tmp_path) == before


def test_reading_after_a_clean_end_makes_no_file(
    tmp_path: Path, opened: Callable[..., Outbox], append: Append
) -> None:
    outbox = opened(tmp_path)
    append(outbox, 3)
    outbox.close()
    before = picture(tmp_path)
    assert "events.db-wal" not in before
    assert seqs(History(tmp_path).events()) == [1, 2, 3]
    assert picture(tmp_path) == before


def test_what_a_killed_service_leaves_is_read_and_left_as_it_is(tmp_path: Path) -> None:
    killed_writer(tmp_path)
    before = picture(tmp_path)
    assert {"events.db-wal", "events.db-shm"} <= before.keys()
    assert seqs(History(tmp_path).events()) == [1, 2, 3, 4, 5]
    assert picture(tmp_path) == before


def test_a_log_without_its_index_is_read_and_left_as_it_is(tmp_path: Path) -> None:
    killed_writer(tmp_path)
    (tmp_path / "events.db-shm").unlink()
    before = picture(tmp_path)
    with History(tmp_path) as reader:
        assert seqs(reader.events()) == [1, 2, 3, 4, 5]
        assert reader.losses() == []
    assert picture(tmp_path) == before


@pytest.mark.parametrize("left", ["clean", "killed", "copied"])
def test_a_folder_that_may_only_be_read_is_read(
    public_folder: Path, opened: Callable[..., Outbox], left: str
) -> None:
    killed_writer(public_folder)
    if left == "clean":
        opened(public_folder).close()
    elif left == "copied":
        (public_folder / "events.db-shm").unlink()
    for path in public_folder.iterdir():
        path.chmod(0o444)
    public_folder.chmod(0o555)
    before = picture(public_folder)
    with as_somebody_else():
        assert seqs(History(public_folder).events()) == [1, 2, 3, 4, 5]
    assert picture(public_folder) == before


def test_a_service_that_starts_again_finds_nothing_in_its_way(
    tmp_path: Path, opened: Callable[..., Outbox], append: Append
) -> None:
    killed_writer(tmp_path)
    following = History(tmp_path).follow(-1)
    assert seqs(following.more()) == [1, 2, 3, 4, 5]
    outbox = opened(tmp_path)
    append(outbox, 2)
    assert outbox.problem == ""
    assert seqs(following.more()) == [6, 7]
    outbox.close()
    assert following.more() == []
    append(opened(tmp_path), 1)
    assert seqs(following.more()) == [8]


def test_following_gives_each_new_event_once(
    tmp_path: Path, opened: Callable[..., Outbox], append: Append
) -> None:
    outbox = opened(tmp_path)
    append(outbox, 3)
    reader = History(tmp_path)
    following = reader.follow(reader.newest(), Selection(emotion="anger"))
    assert following.more() == []
    append(outbox, emotion="anger")
    append(outbox)
    append(outbox, emotion="anger")
    assert seqs(following.more()) == [4, 6]
    deliver(outbox)
    assert following.more() == []


def test_following_goes_on_after_a_wipe(
    tmp_path: Path, opened: Callable[..., Outbox], append: Append
) -> None:
    outbox = opened(tmp_path)
    append(outbox, 3)
    following = History(tmp_path).follow(-1)
    assert seqs(following.more()) == [1, 2, 3]
    assert outbox.wipe().events == 3
    append(outbox, 2)
    assert seqs(following.more()) == [4, 5]
    outbox.wipe()
    assert following.more() == []
    append(outbox, 1)
    assert seqs(following.more()) == [6]


def test_a_reader_in_the_middle_of_its_work_does_not_hold_up_a_wipe(
    tmp_path: Path, opened: Callable[..., Outbox], append: Append, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "BATCH_ROWS", 2)
    outbox = opened(tmp_path)
    append(outbox, 10)
    reading = History(tmp_path).events()
    next(reading)
    assert outbox.wipe().events == 10
    assert seqs(reading) == [2]


def test_following_goes_on_where_positions_begin_anew(
    tmp_path: Path, opened: Callable[..., Outbox], append: Append
) -> None:
    outbox = opened(tmp_path)
    append(outbox, 5)
    following = History(tmp_path).follow(-1)
    assert len(following.more()) == 5
    outbox.close()
    for path in tmp_path.iterdir():
        path.unlink()
    series = {append(opened(tmp_path))[0]["series"]}
    assert {kept.series for kept in following.more()} == series


def test_following_gives_nothing_twice_where_events_are_not_kept_after_delivery(
    tmp_path: Path, opened: Callable[..., Outbox], append: Append
) -> None:
    outbox = opened(tmp_path, days=0)
    append(outbox, 3)
    following = History(tmp_path).follow(-1)
    assert seqs(following.more()) == [1, 2, 3]
    for entry in outbox.peek(-1, 2):
        outbox.acknowledge(entry.position)
    outbox.flush()
    append(outbox)
    assert seqs(following.more()) == [4]
    deliver(outbox)
    append(outbox)
    assert seqs(following.more()) == [5]


def absent(folder: Path) -> None:
    """Leave the folder as it is."""


def foreign(folder: Path) -> None:
    (folder / FILE).write_text("these are notes, and no database of any kind " * 100)


def another_database(folder: Path) -> None:
    with contextlib.closing(sqlite3.connect(folder / FILE)) as database:
        database.execute("CREATE TABLE birds (name TEXT)")


def empty(folder: Path) -> None:
    (folder / FILE).touch()


def newer(folder: Path) -> None:
    with contextlib.closing(sqlite3.connect(folder / FILE)) as database:
        database.execute("PRAGMA user_version = 9")


def damaged(folder: Path) -> None:
    Outbox(folder, OutboxConfig(), HistoryConfig()).close()
    whole = bytearray((folder / FILE).read_bytes())
    whole[4096:] = b"\xa5" * (len(whole) - 4096)
    (folder / FILE).write_bytes(whole)


def shortened(folder: Path) -> None:
    Outbox(folder, OutboxConfig(), HistoryConfig()).close()
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:5000])


def no_event(folder: Path) -> None:
    outbox = Outbox(folder, OutboxConfig(), HistoryConfig())
    outbox.append([{"id": "0", "time": "tomorrow"}])
    outbox.close()


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (absent, "no history here"),
        (foreign, "is not a history of microedge"),
        (another_database, "is not a history of microedge"),
        (empty, "no history here"),
        (newer, "has version 9: this microedge reads version 1"),
        (damaged, "is damaged"),
        (shortened, "is damaged"),
        (no_event, "position 1 cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_in_one_line(
    tmp_path: Path, made: Callable[[Path], None], said: str
) -> None:
    made(tmp_path)
    with pytest.raises(HistoryError) as raised:
        list(History(tmp_path).events())
    (line,) = str(raised.value).splitlines()
    assert line.startswith(f"{tmp_path / FILE}: ")
    assert said in line
    assert made is no_event or "outbox.folder" in line


def test_a_history_closed_to_this_user_says_how_to_read_it(public_folder: Path) -> None:
    killed_writer(public_folder)
    (public_folder / FILE).chmod(0o000)
    with as_somebody_else(), pytest.raises(HistoryError, match="sudo -u microedge"):
        list(History(public_folder).events())
    public_folder.chmod(0o000)
    with as_somebody_else(), pytest.raises(HistoryError, match="sudo -u microedge"):
        list(History(public_folder).events())


def test_the_services_folder_is_read_before_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, state = tmp_path / "service", tmp_path / "state"
    monkeypatch.setattr(history, "SERVICE_FOLDER", service)
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    config = Config()
    assert history_folder(config) == state / "microedge"
    service.mkdir()
    (service / FILE).touch()
    assert history_folder(config) == service
    assert history_folder(replace(config, outbox=OutboxConfig(folder=str(tmp_path)))) == tmp_path
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}:/elsewhere")
    assert history_folder(config) == tmp_path


def test_a_services_folder_closed_to_this_user_is_named_unless_there_is_one_of_the_users_own(
    public_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = public_folder / "service"
    service.mkdir(mode=0o000)
    monkeypatch.setattr(history, "SERVICE_FOLDER", service)
    monkeypatch.setenv("XDG_STATE_HOME", str(public_folder))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    with as_somebody_else():
        assert history_folder(Config()) == service
    (public_folder / "microedge").mkdir()
    (public_folder / "microedge" / FILE).touch()
    with as_somebody_else():
        assert history_folder(Config()) == public_folder / "microedge"


def test_a_folder_with_strange_characters_in_its_name_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "a b?mode=rw#%41&ü"
    killed_writer(folder)
    assert seqs(History(folder).events()) == [1, 2, 3, 4, 5]
    shutil.rmtree(folder)


def test_every_event_is_read_while_another_process_writes(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from edge.config import History, Outbox as Config\n"
        "from edge.store.outbox import Outbox\n"
        "for _ in range(4):\n"
        "    outbox = Outbox(Path(sys.argv[1]), Config(), History())\n"
        "    for number in range(50):\n"
        "        outbox.append([{'id': str(number), 'time': '2026-11-23T10:15:00.000Z'}])\n"
        "    outbox.close()\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    found: list[int] = []
    with subprocess.Popen([sys.executable, "-c", program, tmp_path], env=environment) as writer:
        following = None
        while len(found) < 200:
            is_over = writer.poll() is not None
            try:
                following = following or History(tmp_path).follow(-1)
                found += seqs(following.more())
            except HistoryError:
                # Before the first event there is no whole file yet.
                assert not found
            assert len(found) == 200 or not is_over
    assert found == list(range(1, 201))
    assert json.loads(next(History(tmp_path).events()).text)["seq"] == 1
