"""Trials of the real thing: clean when the device keeps its word, and not when it does not."""

import shutil
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tools.chaos import SUMS, report, summary
from tools.delivery.broker import MOSQUITTO
from tools.delivery.faults import Fault, schedule
from tools.delivery.trial import Trial

needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")


def test_the_same_seed_gives_the_same_trouble() -> None:
    assert schedule(7, 5.0) == schedule(7, 5.0)
    assert schedule(7, 5.0) != schedule(8, 5.0)


def test_trouble_comes_in_order_one_at_a_time_in_each_lane_and_of_every_kind() -> None:
    kinds = set()
    for seed in range(100):
        faults = schedule(seed, 5.0)
        assert faults
        assert [fault.at_s for fault in faults] == sorted(fault.at_s for fault in faults)
        for lane in {fault.lane for fault in faults}:
            own = [fault for fault in faults if fault.lane == lane]
            for earlier, later in pairwise(own):
                assert earlier.at_s + earlier.lasts_s <= later.at_s + 0.001
        assert all(0 <= fault.at_s < 5.0 for fault in faults)
        kinds |= {fault.kind for fault in faults}
    assert kinds == {
        "broker restart", "broker frozen", "cut", "cut within a message", "half-open", "stall", "swallowed answers",
        "kill", "kill in a burst", "kill at start", "stop", "frozen", "disk full",
    }  # fmt: skip


@needs_mosquitto
@pytest.mark.parametrize("seed", [158, 161])
def test_nothing_is_lost_doubled_or_out_of_order(seed: int) -> None:
    outcome = Trial(seed, 2.5).run()
    one = report(outcome)
    assert outcome.is_clean, one
    result = summary([one])
    assert result["published"] > 20
    assert not any(result[name] for name in SUMS[1:7]), result
    assert not Path(outcome.folder or "/nowhere").exists()


HASTY = """
from tools.delivery import device

class Hasty(device.TellingOutbox):
    def peek(self, after, limit):
        entries = super().peek(after, limit)
        for entry in entries:
            self.acknowledge(entry.position)
        return entries

device.main(Hasty)
"""
FORGETFUL = """
from tools.delivery import device

class Forgetful(device.TellingOutbox):
    def __init__(self, folder, *others):
        super().__init__(None, *others)

device.main(Forgetful)
"""


@needs_mosquitto
@pytest.mark.parametrize(
    ("program", "faults"),
    [
        pytest.param(
            HASTY, [Fault(0.8, "network", "cut within a message", 0.3, 2000)], id="confirmed too early"
        ),
        pytest.param(
            FORGETFUL,
            [Fault(0.6, "network", "cut", 0.8), Fault(1.2, "process", "kill", 0.3)],
            id="not on the disk",
        ),
    ],
)
def test_a_device_that_does_not_keep_its_word_is_caught(program: str, faults: list[Fault]) -> None:
    outcome = Trial(3, 1.5, faults=faults, command=(sys.executable, "-c", program)).run()
    try:
        assert outcome.verdict.lost
        assert not outcome.is_clean
        assert any(finding.startswith("lost: ") for finding in outcome.verdict.findings)
        assert (Path(outcome.folder) / "device.log").exists()
    finally:
        shutil.rmtree(outcome.folder)
