"""Events as lines of JSON can be read back, while they are written and afterwards."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.errors import PublishError
from edge.out.jsonlines import JsonLinesSink
from edge.records import Event

MakeEvent = Callable[..., Event]


def test_each_event_can_be_read_as_soon_as_it_is_published(tmp_path: Path, make_event: MakeEvent) -> None:
    path = tmp_path / "events.jsonl"
    sink = JsonLinesSink(path)
    for seq in range(1, 4):
        sink.publish(make_event(), {"seq": seq, "note": "è\n"})
        assert [json.loads(line)["seq"] for line in path.read_text("utf-8").splitlines()] == list(
            range(1, seq + 1)
        )
    sink.close()
    sink.close()


def test_a_file_is_emptied_first_unless_it_is_to_be_continued(tmp_path: Path, make_event: MakeEvent) -> None:
    path = tmp_path / "events.jsonl"
    for append, expected in ((False, 1), (True, 2), (False, 1)):
        sink = JsonLinesSink(path, append=append)
        sink.publish(make_event(), {"seq": 1})
        sink.close()
        assert len(path.read_text().splitlines()) == expected


def test_standard_output_stays_open(capsys: pytest.CaptureFixture[str], make_event: MakeEvent) -> None:
    sink = JsonLinesSink(None)
    sink.publish(make_event(), {"seq": 1})
    sink.close()
    print("still open")
    assert capsys.readouterr().out == '{"seq":1}\nstill open\n'


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="Is a directory") as caught:
        JsonLinesSink(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full exists on Linux alone")
def test_a_full_disk_is_an_error_and_not_a_silent_loss(make_event: MakeEvent) -> None:
    sink = JsonLinesSink(Path("/dev/full"))
    with pytest.raises(PublishError, match="/dev/full: an event could not be written: No space left"):
        sink.publish(make_event(), {"seq": 1})
    with pytest.raises(PublishError, match="/dev/full: could not be completed"):
        sink.close()
