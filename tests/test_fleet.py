"""The fleet's ledger misses nothing that a subscriber would miss, and a small fleet is delivered whole."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.delivery.broker import MOSQUITTO
from tools.delivery.judge import Arrival
from tools.fleet import is_clean
from tools.fleet_ledger import Ledger, Sight, add_up

ROOT = Path(__file__).resolve().parents[1]
SERIES = "a" * 32


def arrival(
    seq: int, *, id_: str = "", series: str = SERIES, content: bytes = b"c" * 16, at_ms: int = 100
) -> Arrival:
    return Arrival("dev-0001", series, seq, id_ or f"id-{seq}", content, at_ms * 1_000_000)


class Trial:
    """A ledger of two devices, of which the first has promised five events."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger(folder, devices=2, capacity=10, is_new=True)
        for device in (0, 1):
            self.ledger.begin(device, SERIES)
        for seq in range(1, 6):
            self.ledger.promise(0, SERIES, seq, f"id-{seq}", 90_000_000, commit_ms=0.5 * seq)
        # As the subscriber has it: opened in another process.
        self.sight = Sight(Ledger(folder, devices=2, capacity=10))

    def arrive(self, *arrivals: Arrival) -> None:
        for each in arrivals:
            self.sight.arrive(0, each)


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial(tmp_path)


def test_a_whole_delivery_is_without_fault(trial: Trial) -> None:
    trial.arrive(*(arrival(seq, at_ms=90 + seq) for seq in range(1, 6)))
    sums = add_up(trial.ledger)
    assert (sums.published, sums.arrived, sums.lost, sums.holes) == (5, 5, 0, 0)
    assert list(sums.delays_ms) == [1, 2, 3, 4, 5]
    assert list(sums.commits_ms) == [0.5, 1, 1.5, 2, 2.5]
    assert (trial.sight.out_of_order, trial.sight.duplicates_seen, sums.worst) == (0, 0, ())


def test_what_never_arrived_is_lost_and_a_hole_if_later_numbers_did(trial: Trial) -> None:
    trial.arrive(arrival(1), arrival(3), arrival(4))
    sums = add_up(trial.ledger)
    assert (sums.lost, sums.holes) == (2, 1)
    assert sums.worst == ((0, 2),)


def test_an_event_that_was_overtaken_is_out_of_order(trial: Trial) -> None:
    trial.arrive(*(arrival(seq) for seq in (1, 3, 2, 4, 5)))
    assert trial.sight.out_of_order == 1
    assert add_up(trial.ledger).lost == 0


def test_a_message_that_comes_again_is_counted_and_harmless(trial: Trial) -> None:
    trial.arrive(arrival(1), arrival(2), arrival(1), arrival(2), arrival(3))
    assert (trial.sight.duplicates_seen, trial.sight.duplicates_after_dedup) == (2, 0)
    assert (trial.sight.out_of_order, trial.sight.altered) == (0, 0)


def test_another_event_of_the_same_number_cannot_be_told_apart(trial: Trial) -> None:
    trial.arrive(arrival(1), arrival(1, id_="id-9"), arrival(2, id_="id-8"))
    assert trial.sight.duplicates_after_dedup == 1
    assert add_up(trial.ledger).renumbered == 1


def test_a_message_that_comes_again_with_other_content_is_altered(trial: Trial) -> None:
    trial.arrive(arrival(1), arrival(1, content=b"d" * 16))
    assert trial.sight.altered == 1


def test_what_no_place_is_for_is_counted(trial: Trial) -> None:
    trial.arrive(arrival(11), arrival(1, series="b" * 32), arrival(7))
    trial.sight.arrive(-1, arrival(1))
    assert trial.sight.ledger.elsewhere == 3
    assert add_up(trial.ledger).unpromised == 1


@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
def test_a_small_fleet_is_delivered_whole(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "tools.fleet", "--devices", "6", "--rate", "4", "--seconds", "2", "--processes", "2",
        "--folder", str(tmp_path / "fleet"),
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    result = json.loads(done.stdout.splitlines()[-1])
    assert is_clean(result)
    assert (result["published"], result["arrived"], result["connected"]) == (48, 48, 6)
    assert result["delay_ms"]["max"] > 0
    assert sorted(path.name for path in (tmp_path / "fleet").glob("dev-*"))[-1] == "dev-0006"
    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "must be empty" in again.stderr
