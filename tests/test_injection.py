"""The faults that are injected are the faults that they are named after, and the device accounts for each."""

import numpy as np
import pytest

from edge.continuity import Continuity
from edge.records import Frame
from tools.evaluate.injection import FAULTS, Delivery, Outcome, Stream, _in_clip_time, table
from tools.evaluate.records import Answer, Recording, Stretch

FRAMES = 4000
STAMPS = np.arange(FRAMES, dtype=np.int64) * 5_000_000
LUMA = np.zeros((2, 2), np.uint8)


def stream(name: str, seed: int = 5) -> Stream:
    return FAULTS[name](STAMPS, np.random.default_rng(seed))


@pytest.mark.parametrize("name", FAULTS)
def test_every_lost_and_every_refused_frame_is_accounted_for(name: str) -> None:
    injected = stream(name)
    continuity = Continuity()
    for delivery in injected.deliveries:
        continuity.take(Frame(LUMA, delivery.timestamp_ns, delivery.sequence))
    assert continuity.dropped == injected.lost(FRAMES)
    # A step of the clock takes four frames to be believed.
    assert continuity.out_of_order == injected.refused() + 4 * continuity.clock_steps
    assert continuity.clock_steps == name.startswith("clock")


@pytest.mark.parametrize("name", FAULTS)
def test_the_same_seed_injects_the_same(name: str) -> None:
    assert stream(name) == stream(name)


def test_faults_are_what_they_are_called() -> None:
    assert stream("none").deliveries == tuple(Delivery(i, 5_000_000 * i, i) for i in range(FRAMES))
    assert stream("5 % lost").lost(FRAMES) == pytest.approx(200, abs=50)
    assert stream("bursts of 10, every 2 s").lost(FRAMES) == 100
    assert stream("2-s stall").lost(FRAMES) == 400
    gapless = stream("5 % lost, not numbered")
    assert [d.sequence for d in gapless.deliveries] == list(range(len(gapless.deliveries)))
    assert (stream("1 % twice").lost(FRAMES), stream("1 % twice").refused()) == (0, pytest.approx(40, abs=20))
    late = stream("1 % out of order")
    assert late.lost(FRAMES) == late.refused() == pytest.approx(40, abs=20)
    assert late.deliveries[0].index == 0
    for name, step_ns in (("clock 1 h ahead", 3_600_000_000_000), ("clock 2 s back", -2_000_000_000)):
        deliveries = stream(name).deliveries
        assert {d.timestamp_ns - 5_000_000 * d.index for d in deliveries} == {0, step_ns}


def test_answers_after_a_step_are_held_against_the_clips_own_time() -> None:
    def answer(onset_s: float) -> Answer:
        return Answer(onset_s, onset_s + 0.05, onset_s + 0.1, 0.9, None, 0.0)

    given = Recording(
        "a", "b", 200.0, 3610.0, 9.0, (), (answer(1.0), answer(3608.0)),
        not_assessable=(Stretch(4.0, 3604.02, "gap"), Stretch(3604.02, 3604.27, "warming up")),
    )  # fmt: skip
    mapped = _in_clip_time(given, Stream((), 3_600_000_000_000, 4_000_000_000))
    assert [a.onset_s for a in mapped.answers] == [1.0, pytest.approx(8.0)]
    assert [s.end_s for s in mapped.not_assessable] == [pytest.approx(4.02), pytest.approx(4.27)]


def test_clips_are_summed_up_and_a_ratio_of_nothing_is_none() -> None:
    def outcome(clip: str, found: int, missed: int) -> Outcome:
        return Outcome("1 % lost", clip, 20, 20, 0, 0, 0, 0.9, found, 0, missed, 1)

    def cells(*outcomes: Outcome) -> list[str]:
        return [next(iter(column.cells)) for column in table(outcomes).columns]

    assert cells(outcome("a", 3, 1), outcome("b", 1, 0)) == [
        "1 % lost", "40", "40", "0 of 0", "0", "90.0%", "4", "0", "1", "0.80", "0.73", "2", "1 1"
    ]  # fmt: skip
    assert cells(outcome("a", 0, 0))[9:11] == ["-", "-"]
