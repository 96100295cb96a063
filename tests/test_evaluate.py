"""The scorer: who counts as found, once, and what is left out."""

from edge.records import Event, NotAssessable, Quality, Reason, Spot
from tools.evaluate.rendered import Outcome, overlap_ratio, score, summary, unweighted_f1
from tools.simulate.script import Planted

ALL = {"peak_iod": (0.0, 1.0), "duration_s": (0.04, 0.2)}


def planted(onset_s: float, offset_s: float, peak_iod: float = 0.015, emotion: str = "happiness") -> Planted:
    return Planted(
        "micro", onset_s, (onset_s + offset_s) / 2, offset_s, emotion, (("AU12", "both"),), peak_iod
    )


def event(onset_s: float, offset_s: float) -> Event:
    onset, offset = round(onset_s * 1e9), round(offset_s * 1e9)
    spot = Spot(
        1,
        onset,
        (onset + offset) // 2,
        offset,
        0.9,
        (0.9, *(0.1 / 7,) * 7),
        (),
        (0, 0, 0, 0),
        0.01,
        (0.0,) * 5,
    )
    return Event(spot, "happiness", 0.9, Quality(200.0, 0, 0.0, 200.0))


def outcome(
    truth: list[Planted], events: list[Event], excluded: list[NotAssessable] | None = None
) -> Outcome:
    return Outcome("someone", truth, events, [], excluded or [], 60.0, 60.0)


def test_overlap_is_intersection_over_union():
    assert round(overlap_ratio(planted(1.0, 1.2), event(1.1, 1.3)), 6) == round(1 / 3, 6)
    assert overlap_ratio(planted(1.0, 1.2), event(2.0, 2.1)) == 0


def test_an_event_finds_one_planted_expression_and_the_second_is_false():
    result = score([outcome([planted(1.0, 1.1)], [event(1.0, 1.1), event(1.01, 1.11)])], **ALL)
    assert (len(result.hits), len(result.missed), len(result.false)) == (1, 0, 1)
    assert round(result.f1, 3) == round(2 / 3, 3)


def test_counts_are_pooled_over_clips_before_f1():
    one = outcome([planted(1.0, 1.1)], [event(1.0, 1.1)])
    other = outcome([planted(1.0, 1.1), planted(2.0, 2.1), planted(3.0, 3.1)], [])
    assert round(score([one, other], **ALL).f1, 3) == round(2 / 5, 3)


def test_an_event_on_an_expression_outside_the_class_counts_neither_way():
    result = score([outcome([planted(1.0, 1.4)], [event(1.0, 1.4)])], **ALL)
    assert (len(result.hits), len(result.missed), len(result.false)) == (0, 0, 0)


def test_an_expression_in_time_that_was_not_assessed_is_not_missed_but_a_found_one_counts():
    gap = NotAssessable(900_000_000, 1_050_000_000, Reason.GAP)
    assert score([outcome([planted(1.0, 1.1)], [], [gap])], **ALL).missed == []
    assert len(score([outcome([planted(1.0, 1.1)], [event(1.0, 1.1)], [gap])], **ALL).hits) == 1


def test_the_summary_names_what_went_on_during_false_alarms():
    blink = Planted("blink", 4.9, 5.0, 5.2)
    figures = summary([outcome([planted(1.0, 1.1), blink], [event(1.0, 1.1), event(5.0, 5.1)])])
    assert figures["false_during"] == {"blink": 1}
    assert figures["false_per_hour"] == 60.0


def test_unweighted_f1_is_the_mean_over_emotions():
    assert unweighted_f1([("happiness", "happiness"), ("anger", "happiness")]) == (2 / 3 + 0) / 2
