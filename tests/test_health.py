"""Health as subscribers see it: counts by reason, the baseline, and a message when something changes."""

from dataclasses import replace
from typing import Any

import pytest

from edge.baseline import Rest
from edge.config import History, load
from edge.config import Outbox as OutboxConfig
from edge.health import PERIOD_S, Health, Report
from edge.inference import AcceleratorStatus
from edge.out import Payload
from edge.out.mqtt.commands import CommandDesk, Received
from edge.out.systemd import Notifier
from edge.pipeline import Statistics
from edge.records import Reason
from edge.stages import Spread, Stage
from edge.store.outbox import Outbox

STATISTICS = Statistics(
    4000, 0, 0, 200.0, 20.0, 20.0, 17.0, {Reason.NO_FACE: 2.5, Reason.TURNING: 0.5},
    {Reason.BLINK: 4, Reason.TOO_SHORT_FOR_RATE: 1}, 3, 1, 0,
)  # fmt: skip
STAGES = {
    Stage.PATH: Spread(0.51234, 1.2, 1.4, 3.0, 1.0, 0.6),
    Stage.LANDMARKS: Spread(0.4, 0.5, 0.6, 0.7, 0.16667, 0.07),
}


CPU = AcceleratorStatus("cpu", "litert", "off")


class Outlet:
    """Takes the place of the broker's connection and keeps what was to be published."""

    problem = commands_problem = ""

    def __init__(self) -> None:
        self.sent: list[Payload] = []

    def publish_health(self, payload: Payload) -> None:
        self.sent.append(payload)


class Bench:
    """A Health whose clock the test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.outlet: Any = Outlet()
        self.outbox = Outbox(None, OutboxConfig(max_events=3), History(days=0))
        self.desk = CommandDesk("microedge/bench", "bench")
        self._health = Health(
            load(None, ["device.id=bench"]), "boot-1", self.outlet, None, Notifier({}), self.outbox, self.desk,
            clock_s=lambda: self.now_s, clock_ns=lambda: 1_795_000_000_000_000_000,
        )  # fmt: skip

    def show(self, statistics: Statistics, after_s: float = 1.5, is_paused: bool = False) -> None:
        self.now_s += after_s
        self._health.show(
            Report(
                statistics=statistics, face=True, has_frames=True, is_paused=is_paused, accelerator=CPU,
                stages=lambda: STAGES, queue_dropped=0, frames_skipped=0, camera_problem="", sink_problem="",
                unwritten=0, failure="", warnings=(),
            )
        )  # fmt: skip

    @property
    def last(self) -> Payload:
        return self.outlet.sent[-1]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_refusals_and_lost_time_are_counted_by_reason(bench: Bench) -> None:
    bench.show(STATISTICS)
    assert bench.last["refusals"] == {"total": 5, "by_reason": {"blink": 4, "too short for this rate": 1}}
    assert bench.last["not_assessable_s"] == {"no face": 2.5, "turning too fast": 0.5}
    assert bench.last["assessable_share"] == 0.85


def test_the_baseline_is_shown_as_far_as_it_is_known(bench: Bench) -> None:
    bench.show(replace(STATISTICS, rest=Rest(progress=0.4444)))
    assert bench.last["baseline"] == {"ready": False, "progress": 0.444}
    rest = Rest(True, 1.0, noise_floor_iod=0.00041239, asymmetry_iod=0.02345, blinks_per_min=14.26)
    bench.show(replace(STATISTICS, rest=rest))
    assert bench.last["baseline"] == {
        "ready": True, "progress": 1.0, "noise_floor_iod": 0.000412, "asymmetry_iod": 0.0234, "blinks_per_min": 14.3,
    }  # fmt: skip


def test_a_baseline_that_is_ready_is_told_at_once_and_not_every_second(bench: Bench) -> None:
    bench.show(STATISTICS)
    bench.show(replace(STATISTICS, rest=Rest(progress=0.9)))
    assert len(bench.outlet.sent) == 1  # progress alone waits its turn
    for _ in range(3):
        bench.show(replace(STATISTICS, rest=Rest(True, 1.0, 0.0004, 0.02, 12.0)))
    assert [payload["baseline"]["ready"] for payload in bench.outlet.sent] == [False, True]
    bench.show(replace(STATISTICS, rest=Rest(True, 1.0, 0.0005, 0.02, 12.0)), after_s=PERIOD_S)
    assert bench.last["baseline"]["noise_floor_iod"] == 0.0005


def test_each_stage_tells_its_times_and_how_often_it_runs(bench: Bench) -> None:
    bench.show(STATISTICS)
    assert bench.last["stage_ms"] == {
        "path": {"p50": 0.512, "p95": 1.2, "p99": 1.4, "share": 1.0},
        "landmarks": {"p50": 0.4, "p95": 0.5, "p99": 0.6, "share": 0.1667},
    }


def test_health_says_how_far_events_have_got_and_which_numbers_are_lost(bench: Bench) -> None:
    bench.outbox.append([{"id": str(number)} for number in range(5)])
    bench.show(STATISTICS)
    outbox = bench.last["outbox"]
    series, _ = bench.outbox.number
    assert (outbox["series"], outbox["last_seq"], outbox["durable"]) == (series, 5, True)
    assert (outbox["waiting"], outbox["lost"], outbox["unwritten"]) == (3, 2, 0)
    (loss,) = outbox["losses"]
    assert (loss["series"], loss["first_seq"], loss["last_seq"], loss["reason"]) == (series, 1, 2, "full")


def test_health_counts_commands_by_what_became_of_them(bench: Bench) -> None:
    for name, payload in (("pause", b""), ("fly", b"{}"), ("pause", b"{"), ("resume", b"\xff")):
        bench.desk.take(Received(name, payload, False))
    bench.show(STATISTICS)
    assert bench.last["commands"] == {"accepted": 1, "refused": {"unknown": 1, "not_json": 1, "not_utf8": 1}}


def test_a_disk_or_broker_that_fails_degrades_the_device_and_says_why(bench: Bench) -> None:
    bench.outbox.problem = 'outbox.folder = "/x": cannot be written: read-only'
    bench.outlet.problem = "refused: Not authorized"
    bench.show(STATISTICS)
    assert bench.last["state"] == "degraded"
    assert bench.last["outbox"]["durable"] is False
    assert bench.last["reasons"] == [bench.outbox.problem]
    bench.show(STATISTICS, after_s=5.0)
    assert bench.last["reasons"] == [bench.outbox.problem, "mqtt: refused: Not authorized"]
    bench.outbox.problem = bench.outlet.problem = ""
    bench.show(STATISTICS)
    assert bench.last["state"] == "running"


def test_a_paused_device_sees_no_face_and_has_no_frame_rate(bench: Bench) -> None:
    bench.show(STATISTICS)
    assert (bench.last["face"], bench.last["frame_rate_hz"]) == (True, 200.0)
    bench.show(STATISTICS, is_paused=True)
    assert bench.last["state"] == "paused"
    assert bench.last["face"] is False
    assert "frame_rate_hz" not in bench.last


def test_a_disk_that_is_nearly_full_is_told_while_events_are_still_kept(bench: Bench) -> None:
    bench.outbox.warning = 'outbox.folder = "/x": the disk has less than 10 MB left'
    bench.show(STATISTICS)
    assert (bench.last["state"], bench.last["reasons"]) == ("degraded", [bench.outbox.warning])
    assert bench.last["outbox"]["durable"] is True
