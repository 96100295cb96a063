"""What is committed outlives everything: restarts, kills, full and damaged disks; and what is given up is known."""

import contextlib
import logging
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from edge.config import History, load
from edge.config import Outbox as Settings
from edge.errors import PublishError
from edge.out import Payload
from edge.store.file import FILE, KEPT_ASIDE, set_aside_files, state_folder
from edge.store.ledger import Loss
from edge.store.outbox import FLUSH_AFTER, RETRY_S, TIDY_S, Counts, Outbox
from tools.delivery.disk import Disk, PlainDisk, make_disk

DAY_MS = 86_400_000
START_MS = 1_795_428_902_000


class Clocks:
    """Wall and steady time that the test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def pass_(self, seconds: float) -> None:
        self.now_s += seconds

    def ns(self) -> int:
        return START_MS * 1_000_000 + round((self.now_s - 1000.0) * 1e9)

    def s(self) -> float:
        return self.now_s


class Shelf:
    """Opens outboxes on one folder, one after the other."""

    def __init__(self, folder: Path | None) -> None:
        self.folder, self.clocks = folder, Clocks()
        self._open: list[Outbox] = []

    def outbox(
        self, *, days: int = 7, history_mb: int = 64, is_awaited: bool = True, **limits: int
    ) -> Outbox:
        history = History(days=days, max_mb=history_mb)
        outbox = Outbox(
            self.folder, Settings(**limits), history, is_awaited=is_awaited, clock_ns=self.clocks.ns,
            clock_s=self.clocks.s,
        )  # fmt: skip
        self._open.append(outbox)
        return outbox

    def close(self) -> None:
        for outbox in self._open:
            outbox.close()


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path / "state")
    yield shelf
    shelf.close()


def payloads(number: int, start: int = 0, note: str = "") -> list[Payload]:
    return [{"id": f"event-{start + index}", "context": {"note": note}} for index in range(number)]


def waiting(outbox: Outbox) -> list[str]:
    return [entry.payload["id"] for entry in outbox.peek(-1, 10_000)]


def acknowledge(outbox: Outbox, number: int) -> None:
    for entry in outbox.peek(-1, number):
        outbox.acknowledge(entry.position)


def names(*numbers: int) -> list[str]:
    return [f"event-{number}" for number in numbers]


def files_with(folder: Path, text: str) -> list[str]:
    return [file.name for file in sorted(folder.iterdir()) if text.encode() in file.read_bytes()]


def test_entries_keep_their_order_and_leave_only_when_they_are_confirmed(shelf: Shelf) -> None:
    outbox = shelf.outbox()
    outbox.append(payloads(2))
    outbox.append(payloads(3, start=2))
    assert waiting(outbox) == names(0, 1, 2, 3, 4)
    first, second = outbox.peek(-1, 2)
    assert [entry.payload["id"] for entry in outbox.peek(second.position, 1)] == ["event-2"]
    outbox.acknowledge(second.position)
    outbox.acknowledge(second.position)
    outbox.acknowledge(10**15)
    assert waiting(outbox) == names(0, 2, 3, 4)
    assert outbox.counts() == Counts(waiting=4, confirmed=1, lost=0)
    assert first.kept_ms == START_MS


def test_what_cannot_be_read_for_a_moment_is_not_passed_over(shelf: Shelf) -> None:
    outbox = shelf.outbox()
    outbox.append(payloads(2))
    generation = outbox.generation
    assert outbox._ledger is not None
    # SQLite gives up each statement, as it would for a card that answers with an error now and then.
    outbox._ledger.database.set_progress_handler(lambda: 1, 1)
    outbox.append(payloads(1, start=2))
    assert waiting(outbox) == names(2)
    outbox._ledger.database.set_progress_handler(None, 1)
    assert outbox.generation > generation
    assert waiting(outbox) == names(0, 1, 2)


def test_what_was_confirmed_is_not_given_out_again_after_a_restart(shelf: Shelf) -> None:
    outbox = shelf.outbox()
    outbox.append(payloads(200))
    acknowledge(outbox, FLUSH_AFTER + 5)
    outbox.close()
    outbox = shelf.outbox()
    assert waiting(outbox) == names(*range(FLUSH_AFTER + 5, 200))
    assert outbox.counts() == Counts(waiting=200 - FLUSH_AFTER - 5, confirmed=0, lost=0)


def test_numbers_go_on_over_restarts_without_a_hole(shelf: Shelf) -> None:
    seen = []
    for start in range(3):
        outbox = shelf.outbox()
        seen += outbox.append(payloads(4, start=4 * start))
        acknowledge(outbox, 4)
        outbox.close()
    assert [payload["seq"] for payload in seen] == list(range(1, 13))
    assert len({payload["series"] for payload in seen}) == 1


def test_a_killed_process_loses_nothing_that_it_was_told_is_kept(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from edge.config import History, Outbox as Settings; from edge.store.outbox import Outbox\n"
        "outbox = Outbox(Path(sys.argv[1]), Settings(), History())\n"
        "for number in range(10**6):\n"
        "    outbox.append([{'id': str(number)}]); print(number, flush=True)\n"
    )
    root = Path(__file__).parents[1]
    promised: list[str] = []
    for _ in range(3):
        device = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], cwd=root, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(root)},
        )  # fmt: skip
        assert device.stdout is not None
        lines = [device.stdout.readline() for _ in range(25)]
        device.send_signal(signal.SIGKILL)
        # What it had printed by then is still in the pipe; half a line may be the last of it.
        lines += [line for line in device.stdout if line.endswith("\n")]
        device.wait()
        device.stdout.close()
        promised += [line.strip() for line in lines]
        outbox = Outbox(tmp_path, Settings(), History())
        kept = outbox.peek(-1, 10**6)
        outbox.close()
        assert [entry.payload["seq"] for entry in kept] == list(range(1, len(kept) + 1))
        # One more may have been committed than there was time to say so.
        found = [entry.payload["id"] for entry in kept]
        assert len(found) >= len(promised)
        promised = found


def test_two_processes_cannot_number_events_in_one_folder(shelf: Shelf) -> None:
    shelf.outbox()
    with pytest.raises(PublishError, match=r"outbox\.folder = .*another microedge process"):
        shelf.outbox()


def test_a_full_outbox_gives_up_the_oldest_and_says_which_and_why(shelf: Shelf) -> None:
    outbox = shelf.outbox(max_events=3)
    series, _ = outbox.number
    for number in range(5):
        outbox.append(payloads(1, start=number))
    assert waiting(outbox) == names(2, 3, 4)
    assert outbox.counts() == Counts(waiting=3, confirmed=0, lost=2)
    lost = [Loss(series, 1, 2, "full", "2026-11-23T10:15:02.000Z")]
    assert outbox.losses() == lost
    outbox.close()
    again = shelf.outbox(max_events=3)
    assert again.losses() == lost
    assert again.counts().lost == 2


def test_the_cap_in_bytes_counts_what_waits_and_not_the_history(shelf: Shelf) -> None:
    outbox = shelf.outbox(max_mb=1)
    big = "x" * 100_000
    for number in range(8):
        outbox.append(payloads(1, start=number, note=big))
    acknowledge(outbox, 8)
    outbox.flush()
    for number in range(8, 20):
        outbox.append(payloads(1, start=number, note=big))
    assert waiting(outbox) == names(*range(11, 20))
    assert outbox.counts().lost == 3


def test_an_entry_that_was_given_up_while_it_was_on_its_way_stays_lost(shelf: Shelf) -> None:
    outbox = shelf.outbox(max_events=2)
    outbox.append(payloads(2))
    on_its_way = outbox.peek(-1, 2)
    outbox.append(payloads(1, start=2))
    for entry in on_its_way:
        outbox.acknowledge(entry.position)
    assert outbox.counts() == Counts(waiting=1, confirmed=1, lost=1)


def test_a_cap_that_was_lowered_is_kept_from_the_start(shelf: Shelf) -> None:
    outbox = shelf.outbox()
    outbox.append(payloads(50))
    outbox.close()
    outbox = shelf.outbox(max_events=5)
    assert waiting(outbox) == names(*range(45, 50))
    assert outbox.counts().lost == 45


def test_what_waits_too_long_is_given_up_as_expired(shelf: Shelf) -> None:
    outbox = shelf.outbox(expire_h=2)
    series, _ = outbox.number
    outbox.append(payloads(2))
    shelf.clocks.pass_(1.5 * 3600)
    outbox.append(payloads(1, start=2))
    shelf.clocks.pass_(1.0 * 3600)
    outbox.flush()
    assert waiting(outbox) == names(2)
    assert [(loss.first_seq, loss.last_seq, loss.reason) for loss in outbox.losses()] == [(1, 2, "expired")]
    assert outbox.losses()[0].series == series


def rows(folder: Path, what: str = "id") -> list[Any]:
    with contextlib.closing(sqlite3.connect(folder / FILE)) as database:
        return [row[0] for row in database.execute(f"SELECT {what} FROM events ORDER BY position")]


def test_delivered_events_stay_as_history_for_as_long_as_is_set(shelf: Shelf) -> None:
    assert shelf.folder is not None
    outbox = shelf.outbox(days=2)
    outbox.append(payloads(2))
    acknowledge(outbox, 1)
    shelf.clocks.pass_(DAY_MS * 1.5 / 1000)
    outbox.append(payloads(1, start=2))
    outbox.flush()
    assert rows(shelf.folder) == names(0, 1, 2)
    assert rows(shelf.folder, "waiting") == [0, 1, 1]
    shelf.clocks.pass_(DAY_MS / 1000)
    outbox.flush()
    assert rows(shelf.folder) == names(1, 2), "an event that waits is no history"


def test_history_that_takes_too_much_room_loses_its_oldest(shelf: Shelf) -> None:
    assert shelf.folder is not None
    outbox = shelf.outbox(history_mb=1)
    for number in range(20):
        outbox.append(payloads(1, start=number, note="x" * 100_000))
    acknowledge(outbox, 15)
    outbox.flush()
    shelf.clocks.pass_(TIDY_S)
    outbox.flush()
    assert rows(shelf.folder) == names(*range(6, 20))


def test_without_history_a_delivered_event_is_gone_from_the_disk(shelf: Shelf) -> None:
    assert shelf.folder is not None
    outbox = shelf.outbox(days=0)
    outbox.append(payloads(3))
    acknowledge(outbox, 3)
    outbox.close()
    assert rows(shelf.folder) == []
    assert files_with(shelf.folder, "event-") == []


def test_events_that_nobody_awaits_are_history_from_the_start_and_do_not_pile_up(shelf: Shelf) -> None:
    assert shelf.folder is not None
    outbox = shelf.outbox(is_awaited=False, max_events=3)
    sent = outbox.append(payloads(10))
    assert outbox.counts() == Counts(waiting=0, confirmed=0, lost=0)
    assert (rows(shelf.folder), set(rows(shelf.folder, "waiting"))) == (names(*range(10)), {0})
    outbox.close()
    # With a broker again, numbers go on and old events stay where they are.
    outbox = shelf.outbox(max_events=3)
    assert outbox.append(payloads(1, start=10))[0]["seq"] == sent[-1]["seq"] + 1
    assert waiting(outbox) == names(10)
    outbox.close()
    outbox = shelf.outbox(is_awaited=False, days=0)
    outbox.append(payloads(5, start=11))
    assert "event-11" not in rows(shelf.folder)


def test_a_wipe_leaves_no_text_of_any_event_in_any_file(shelf: Shelf) -> None:
    assert shelf.folder is not None
    outbox = shelf.outbox()
    series, _ = outbox.number
    outbox.append(payloads(300, note="telltale"))
    acknowledge(outbox, 250)
    (shelf.folder / "events.damaged-20260101T000000Z.db").write_bytes(b"telltale")
    outbox.flush()
    assert files_with(shelf.folder, "telltale")
    wiped = outbox.wipe()
    assert (wiped.events, wiped.undelivered) == (300, 50)
    assert files_with(shelf.folder, "telltale") == files_with(shelf.folder, "event-2") == []
    assert outbox.counts() == Counts(waiting=0, confirmed=250, lost=50)
    assert [(loss.series, loss.first_seq, loss.last_seq, loss.reason) for loss in outbox.losses()] == [
        (series, 251, 300, "wiped")
    ]
    # Counting goes on: a subscriber must not take the next event for an old one.
    assert outbox.append(payloads(1))[0]["seq"] == 301


def test_a_reader_that_holds_the_log_makes_a_wipe_say_that_it_is_not_complete(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shelf.folder is not None
    monkeypatch.setattr("edge.store.file.BUSY_S", 0.05)
    outbox = shelf.outbox()
    outbox.append(payloads(10))
    with contextlib.closing(sqlite3.connect(shelf.folder / FILE, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchone()
        with pytest.raises(PublishError, match="reader"):
            outbox.wipe()
    outbox.wipe()
    assert files_with(shelf.folder, "event-") == []


def damage(file: Path) -> None:
    """Overwrite all but the first page with noise."""
    content = bytearray(file.read_bytes())
    content[4096:] = bytes(index * 37 % 251 for index in range(len(content) - 4096))
    file.write_bytes(content)


def test_a_damaged_file_is_set_aside_and_named_and_another_series_begins(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    assert shelf.folder is not None
    outbox = shelf.outbox()
    before = outbox.append(payloads(100))[-1]
    outbox.close()
    damage(shelf.folder / FILE)
    outbox = shelf.outbox()
    assert outbox.problem == ""
    assert [file.name for file in set_aside_files(shelf.folder / FILE)] == [outbox.set_aside]
    assert outbox.set_aside in caplog.text
    after = outbox.append(payloads(1, start=100))[0]
    assert after["series"] != before["series"]
    assert after["seq"] == 1


def test_a_file_that_is_no_database_is_set_aside_too(shelf: Shelf) -> None:
    assert shelf.folder is not None
    shelf.folder.mkdir()
    (shelf.folder / FILE).write_text("not a database " * 1000)
    outbox = shelf.outbox()
    assert outbox.problem == ""
    assert outbox.set_aside


def test_a_dying_card_does_not_fill_itself_with_damaged_files(shelf: Shelf) -> None:
    assert shelf.folder is not None
    for _ in range(KEPT_ASIDE + 3):
        outbox = shelf.outbox()
        outbox.append(payloads(50))
        outbox.close()
        damage(shelf.folder / FILE)
    shelf.outbox()
    assert len(set_aside_files(shelf.folder / FILE)) == KEPT_ASIDE


def test_what_waits_in_a_partly_damaged_file_still_goes_out(shelf: Shelf) -> None:
    assert shelf.folder is not None
    outbox = shelf.outbox()
    sent = outbox.append(payloads(10))
    outbox.close()
    with contextlib.closing(sqlite3.connect(shelf.folder / FILE)) as database:
        ((page,),) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'waiting_events'")
    content = bytearray((shelf.folder / FILE).read_bytes())
    content[(page - 1) * 4096 : page * 4096] = b"noise" * 819 + b"!"
    (shelf.folder / FILE).write_bytes(content)
    outbox = shelf.outbox()
    assert outbox.set_aside
    assert [entry.payload for entry in outbox.peek(-1, 100)] == sent
    assert outbox.append(payloads(1, start=10))[0]["series"] != sent[0]["series"]
    outbox.close()
    assert waiting(shelf.outbox()) == names(*range(11))


def test_a_file_that_is_removed_while_it_is_used_loses_nothing_that_waits(shelf: Shelf) -> None:
    assert shelf.folder is not None
    outbox = shelf.outbox()
    outbox.append(payloads(5))
    (shelf.folder / FILE).unlink()
    outbox.append(payloads(1, start=5))
    outbox.close()
    assert waiting(shelf.outbox()) == names(*range(6))


def test_a_file_of_a_later_version_is_left_alone(shelf: Shelf) -> None:
    assert shelf.folder is not None
    shelf.outbox().close()
    with contextlib.closing(sqlite3.connect(shelf.folder / FILE)) as database:
        database.execute("PRAGMA user_version = 2")
    outbox = shelf.outbox()
    assert "has version 2" in outbox.problem
    outbox.append(payloads(1))
    assert waiting(outbox) == names(0)
    assert rows(shelf.folder) == []


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    monkeypatch.setattr("tools.delivery.disk.SIZE_KB", 64 << 10)
    disk = make_disk(tmp_path / "disk", small=True)
    if isinstance(disk, PlainDisk):
        pytest.skip("only root can mount a small file system")
    yield disk
    disk.remove()


def test_a_folder_that_cannot_be_made_keeps_events_in_memory_and_they_reach_the_disk_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "state").write_text("in the way")
    shelf = Shelf(tmp_path / "state" / "device")
    outbox = shelf.outbox()
    assert "outbox.folder" in outbox.problem
    first = outbox.append(payloads(2))
    assert waiting(outbox) == names(0, 1)
    (tmp_path / "state").unlink()
    shelf.clocks.pass_(RETRY_S)
    second = outbox.append(payloads(1, start=2))
    assert outbox.problem == ""
    assert [payload["seq"] for payload in first + second] == [1, 2, 1]
    assert first[0]["series"] != second[0]["series"]
    outbox.close()
    assert waiting(shelf.outbox()) == names(0, 1, 2)
    assert caplog.text.count("kept in memory only") == 1
    assert caplog.text.count("takes events again") == 1


def test_older_events_that_a_late_disk_brings_come_first_and_the_sender_is_told(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "state")
    outbox = shelf.outbox()
    outbox.append(payloads(3))
    outbox.close()
    (tmp_path / "state").rename(tmp_path / "away")
    (tmp_path / "state").write_text("in the way")
    outbox = shelf.outbox()
    outbox.append(payloads(1, start=3))
    assert waiting(outbox) == names(3)
    before = outbox.generation
    (tmp_path / "state").unlink()
    (tmp_path / "away").rename(tmp_path / "state")
    shelf.clocks.pass_(RETRY_S)
    outbox.flush()
    assert outbox.generation > before
    assert waiting(outbox) == names(0, 1, 2, 3)
    shelf.close()


@given(
    steps=some.lists(
        some.sampled_from(["append", "append", "confirm", "restart", "fail", "recover", "flush"]), max_size=40
    )
)
@settings(max_examples=40, deadline=None)
def test_whatever_happens_series_have_no_holes_and_nothing_kept_is_lost(
    steps: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A disk that fails is played by a trigger that raises what a full disk does."""
    shelf = Shelf(tmp_path_factory.mktemp("outbox"))
    assert shelf.folder is not None
    outbox = shelf.outbox()
    published: list[Payload] = []
    confirmed: set[str] = set()

    def ask(statement: str) -> None:
        with contextlib.closing(sqlite3.connect(shelf.folder / FILE)) as database:  # type: ignore[operator]
            database.execute(statement)

    is_failing = False
    for number, step in enumerate(steps):
        if step == "append":
            published += outbox.append(payloads(2, start=2 * number))
        elif step == "confirm":
            for entry in outbox.peek(-1, 1):
                outbox.acknowledge(entry.position)
                confirmed.add(entry.payload["id"])
        elif step == "restart" and not is_failing:
            outbox.close()
            outbox = shelf.outbox()
        elif step == "fail" and not is_failing:
            is_failing = True
            ask("CREATE TRIGGER broken BEFORE INSERT ON events BEGIN SELECT RAISE(FAIL, 'disk is full'); END")
        elif step == "recover" and is_failing:
            is_failing = False
            ask("DROP TRIGGER broken")
        elif step == "flush":
            outbox.flush()
        left = [payload for payload in published if payload["id"] not in confirmed]
        assert sorted(waiting(outbox)) == sorted(payload["id"] for payload in left)
    shelf.close()
    series: dict[str, list[int]] = {}
    for payload in published:
        series.setdefault(payload["series"], []).append(payload["seq"])
    assert all(seqs == list(range(1, len(seqs) + 1)) for seqs in series.values())


def test_a_full_disk_is_warned_of_and_has_room_for_some_hundred_events_that_outlive_a_kill(
    small_disk: Disk,
) -> None:
    shelf = Shelf(small_disk.folder)
    outbox = shelf.outbox()
    outbox.flush()
    assert outbox.warning == ""
    small_disk.fill(0)
    published = [payload for number in range(200) for payload in outbox.append(payloads(1, start=number))]
    outbox.flush()
    assert outbox.problem == ""
    assert f'outbox.folder = "{small_disk.folder}"' in outbox.warning
    # As the disk would be found after a kill: nobody has tidied up.
    for file in list(small_disk.folder.glob("events.db*")):
        (small_disk.folder.parent / file.name).write_bytes(file.read_bytes())
    after = Shelf(small_disk.folder.parent)
    assert [entry.payload for entry in after.outbox().peek(-1, 1000)] == published
    after.close()
    small_disk.free()
    outbox.flush()
    assert outbox.warning == ""
    shelf.close()


def test_a_disk_that_is_full_to_the_last_loses_nothing_and_what_it_missed_is_written_later(
    small_disk: Disk,
) -> None:
    shelf = Shelf(small_disk.folder)
    outbox = shelf.outbox()
    published = outbox.append(payloads(20, note="x" * 2000))
    small_disk.fill(0)
    for number in range(20, 60):
        published += outbox.append(payloads(1, start=number, note="x" * 200_000))
    assert "cannot be written" in outbox.problem
    assert waiting(outbox) == names(*range(60))
    small_disk.free()
    published += outbox.append(payloads(1, start=60))
    assert outbox.problem == ""
    outbox.close()
    outbox = shelf.outbox()
    assert [entry.payload for entry in outbox.peek(-1, 100)] == published
    shelf.close()


def test_facts_are_remembered_over_restarts(shelf: Shelf) -> None:
    outbox = shelf.outbox()
    outbox.remember("paused", "yes")
    assert outbox.recall("paused") == "yes"
    outbox.close()
    outbox = shelf.outbox()
    assert (outbox.recall("paused"), outbox.recall("never said")) == ("yes", "")


def test_the_folder_is_the_set_one_or_the_service_managers_or_the_users_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/microedge:/var/lib/other")
    assert state_folder(load(None, ["outbox.folder=/data"])) == Path("/data")
    assert state_folder(load(None)) == Path("/var/lib/microedge")
    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.setenv("XDG_STATE_HOME", "/home/anna/state")
    assert state_folder(load(None)) == Path("/home/anna/state/microedge")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/anna")
    assert state_folder(load(None)) == Path("/home/anna/.local/state/microedge")
