"""The journal of a replay: everything once, in order of time, each line by its schema."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.errors import PublishError
from edge.out.journal import Journal
from edge.payload import PayloadWriter, validate
from edge.pipeline import Statistics
from edge.records import Event, NotAssessable, Reason, Refusal

MakeEvent = Callable[..., Event]
STATISTICS = Statistics(4000, 2, 0, 200.0, 20.0, 20.0, 19.0, {Reason.GAP: 1.0}, {Reason.BLINK: 1}, 1, 1, 0)


def lines_of(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        validate(line)
    return lines


def test_lines_come_in_order_of_time_however_late_they_were_known(
    tmp_path: Path, make_event: MakeEvent
) -> None:
    journal, event = Journal(tmp_path / "j"), make_event()
    spot = replace(
        event.spot, onset_ns=3_000_000_000, apex_ns=3_050_000_000, offset_ns=3_100_000_000,
        confusers=(0.9, 0.1, 0.0, 0.2, 0.0),
    )  # fmt: skip
    payload = PayloadWriter("lab-03", "boot-1", 0, {"spotter": "0" * 64}).write(event, "0" * 32, 1)
    journal.publish(event, payload)
    journal.note([Refusal(spot, Reason.BLINK)], [])
    # Known last, because a stretch is known when it has ended; it began first.
    journal.note([], [NotAssessable(0, 15_000_000_000, Reason.GAP)])
    journal.conclude(STATISTICS)
    journal.close()
    stretch, refusal, found, summary = lines_of(tmp_path / "j")
    assert (stretch["reason"], stretch["start_s"], stretch["end_s"]) == ("gap", 0, 15)
    assert (refusal["reason"], refusal["start_s"], refusal["apex_s"]) == ("blink", 3, 3.05)
    assert refusal["confusers"] == {
        "blink": 0.9, "speech": 0.1, "head turn": 0.0, "macro-expression": 0.2, "light change": 0.0,
    }  # fmt: skip
    assert found["event"] == payload
    assert (found["start_s"], found["end_s"]) == (12.415, 12.53)
    assert (summary["end_s"], summary["events"], summary["refusals"]) == (20, 1, {"blink": 1})


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_can_stand_against_a_candidate(
    reason: Reason, tmp_path: Path, make_event: MakeEvent
) -> None:
    journal = Journal(tmp_path / "j")
    journal.note([Refusal(make_event().spot, reason)], [])
    journal.conclude(STATISTICS)
    journal.close()
    assert lines_of(tmp_path / "j")[0]["reason"] == str(reason)


def test_a_stretch_with_a_reason_that_is_none_of_time_is_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.note([], [NotAssessable(0, 1_000, Reason.BLINK)])
    with pytest.raises(PublishError, match="journal"):
        journal.conclude(STATISTICS)
    journal.close()


def test_a_journal_that_cannot_be_opened_names_its_file(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="absent"):
        Journal(tmp_path / "absent" / "j")


def test_a_full_disk_is_reported_with_the_file(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    journal = Journal(full)
    with pytest.raises(PublishError, match="/dev/full: could not be completed: No space left"):
        journal.conclude(STATISTICS)
