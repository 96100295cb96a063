"""The scorer: who counts as found, once, what is left out, and figures whose right value is known."""

import json
import zipfile
from dataclasses import replace
from math import isnan
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from edge.config import Config
from edge.config import load as load_config
from edge.frames.portrait import load_portrait, portrait_landmarks
from edge.records import ActionUnit
from tools.evaluate import rendered
from tools.evaluate.__main__ import main
from tools.evaluate.calibration import calibration_error, reliability
from tools.evaluate.figures import Figures, figures, poisson_interval
from tools.evaluate.loso import loso, tempered
from tools.evaluate.matching import Rules, count, match, overlap_ratio
from tools.evaluate.recognition import confusion, measure, strs
from tools.evaluate.records import NAMES, Answer, Recording, Refused, Run, Stretch, Truth, load, save
from tools.evaluate.rendered import Plan, RenderedSet
from tools.evaluate.running import Work, as_gated, run
from tools.evaluate.thresholds import at_threshold
from tools.evaluate.worst import choose
from tools.faces.photos import MESH_INDEX, Photo
from tools.plot import read_truth

STRICT = Rules(is_strict=True)


def truth(
    onset_s: float, offset_s: float, peak_iod: float | None = 0.015, emotion: str = "happiness"
) -> Truth:
    middle_s = (onset_s + offset_s) / 2
    return Truth("micro", onset_s, middle_s, offset_s, emotion, (("AU12", "both"),), peak_iod)


def answer(
    onset_s: float, offset_s: float, emotion: str = "happiness", confidence: float = 0.9, score: float = 0.9
) -> Answer:
    rest = (1 - confidence) / (len(NAMES) - 1)
    shares = tuple(confidence if name == emotion else rest for name in NAMES)
    units = (ActionUnit("AU12", "both", 0.9),)
    return Answer(onset_s, (onset_s + offset_s) / 2, offset_s, score, emotion, confidence, shares, units)


def recording(
    of: list[Truth],
    answers: list[Answer],
    *,
    subject: str = "someone",
    refused: tuple[Refused, ...] = (),
    lost: tuple[Stretch, ...] = (),
    rate_hz: float = 200.0,
) -> Recording:
    return Recording("a", subject, rate_hz, 60.0, 60.0, tuple(of), tuple(answers), refused, lost)


def counts(made: Recording, rules: Rules | None = None) -> tuple[int, int, int]:
    """Found, missed, false."""
    total = count([match(made)], rules or Rules())
    return total.true, total.missed, total.false


def small(recordings: list[Recording], rules: Rules | None = None) -> Figures:
    return figures(recordings, rules or Rules(), draws=20)


def value(of: Figures, name: str) -> float:
    return of.estimates[name].value


# Spotting


def test_overlap_is_intersection_over_union():
    assert overlap_ratio(truth(1.0, 1.2), answer(1.1, 1.3)) == pytest.approx(1 / 3)
    assert overlap_ratio(truth(1.0, 1.2), answer(2.0, 2.1)) == 0


def test_where_frames_are_counted_the_last_one_belongs_to_the_interval():
    # Frames 10-19 and 15-24 at 10 frames/s: 5 of 15 frames.
    assert overlap_ratio(truth(1.0, 1.9), answer(1.5, 2.4), frame_s=0.1) == pytest.approx(5 / 15)
    found = recording([truth(1.0, 1.9)], [answer(1.2, 1.4)], rate_hz=10.0)
    assert count([match(found)], STRICT).true == 0
    # Frames 10-15 and 10-12 at 10 frames/s: 3 of 6 frames are one half, 0.2 of 0.5 s are not.
    half = recording([truth(1.0, 1.5)], [answer(1.0, 1.2)], rate_hz=10.0)
    by_frames = Rules(is_strict=True, counts_frames=True)
    assert count([match(half, STRICT)], STRICT).true == 0
    assert count([match(half, by_frames)], by_frames).true == 1


def test_an_overlap_of_exactly_one_half_is_found_and_anything_less_is_not():
    assert counts(recording([truth(1.0, 1.2)], [answer(1.0, 1.1)])) == (1, 0, 0)
    assert counts(recording([truth(1.1, 1.3)], [answer(1.1, 1.2)])) == (1, 0, 0)
    assert counts(recording([truth(1.0, 1.2)], [answer(1.0, 1.0999)])) == (0, 1, 1)


def test_the_second_answer_to_the_same_expression_is_false():
    assert counts(recording([truth(1.0, 1.1)], [answer(1.01, 1.11), answer(1.0, 1.1)])) == (1, 0, 1)


def test_the_answer_that_overlaps_best_is_the_true_one():
    outcome = match(recording([truth(1.0, 1.1)], [answer(1.03, 1.11), answer(1.0, 1.1)]))
    assert [hit.answer.onset_s for hit in outcome.hits] == [1.0]
    assert [false.onset_s for false in outcome.false] == [1.03]


def test_one_answer_over_two_expressions_finds_one_of_them():
    # It shares exactly half its union with both.
    both = recording([truth(1.0, 1.1), truth(1.1, 1.2)], [answer(1.0, 1.2)])
    assert counts(both) == (1, 1, 0)
    assert match(both).hits[0].truth.onset_s == 1.0


def test_where_two_answers_overlap_alike_the_earlier_is_true():
    outcome = match(recording([truth(1.0, 1.2)], [answer(0.98, 1.18), answer(1.02, 1.22)]))
    assert outcome.hits[0].answer.onset_s == 0.98


def test_counts_are_pooled_over_recordings_before_f1():
    one = recording([truth(1.0, 1.1)], [answer(1.0, 1.1)])
    other = recording([truth(1.0, 1.1), truth(2.0, 2.1), truth(3.0, 3.1)], [])
    assert count([match(one), match(other)], Rules()).f1 == pytest.approx(2 / 5)
    assert value(small([one, other]), "f1") == pytest.approx(2 / 5)


def test_an_answer_on_an_expression_outside_the_class_counts_neither_way():
    long = recording([truth(1.0, 1.4)], [answer(1.0, 1.4)])
    assert counts(long) == (0, 0, 0)
    assert small([long]).aside == 1
    weak = recording([truth(1.0, 1.1, peak_iod=0.005)], [answer(1.0, 1.1)])
    assert counts(weak, Rules(peak_iod=(0.01, 1.0))) == (0, 0, 0)


def test_what_could_not_be_assessed_is_not_missed_but_reported_and_a_found_one_counts():
    gap = (Stretch(0.9, 1.05, "gap"),)
    lost = recording([truth(1.0, 1.1), truth(2.0, 2.1)], [answer(2.0, 2.1)], lost=gap)
    assert counts(lost) == (1, 0, 0)
    of = small([lost])
    assert (of.unassessed, of.unassessed_share) == (1, 0.5)
    assert of.missed_because == {"not assessable: gap": 1}
    assert counts(recording([truth(1.0, 1.1)], [answer(1.0, 1.1)], lost=gap)) == (1, 0, 0)


def test_strict_counts_every_length_and_excuses_nothing():
    gap = (Stretch(0.9, 1.05, "gap"),)
    hard = recording([truth(1.0, 1.1), truth(2.0, 2.45), truth(3.0, 3.4)], [answer(2.0, 2.4)], lost=gap)
    assert counts(hard) == (0, 0, 0)
    assert counts(hard, STRICT) == (1, 2, 0)
    assert small([hard], STRICT).unassessed == 0
    assert value(small([hard], STRICT), "recall") == pytest.approx(1 / 3)


def test_an_expression_without_a_measured_peak_counts_unless_a_peak_is_asked_for():
    unknown = truth(1.0, 1.1, peak_iod=None)
    assert Rules().counts(unknown)
    assert not Rules(peak_iod=(0.01, 1.0)).counts(unknown)


# Recognition


def test_unweighted_f1_and_recall_are_means_over_the_emotions_that_occur_or_are_named():
    # happiness: right once, named twice; anger: never right.
    result = measure(confusion(np.array([0, 2]), np.array([0, 0]), 7))
    assert result.uf1 == pytest.approx((2 / 3 + 0) / 2)
    assert result.uar == pytest.approx(1 / 2)
    # Mean precision (1/2 + 0) / 2, mean recall (1 + 0) / 2.
    assert result.f1 == pytest.approx(2 * 0.25 * 0.5 / 0.75)


def test_strs_is_the_product_as_the_field_prints_it():
    assert round(strs(0.2906, 0.6882), 4) == 0.2
    assert round(strs(0.0997, 0.5638), 4) == 0.0562


def test_recognition_is_scored_on_true_positives_only():
    made = recording(
        [truth(1.0, 1.1), truth(2.0, 2.1, emotion="fear"), truth(3.0, 3.1, emotion="anger")],
        [answer(1.0, 1.1), answer(2.0, 2.1, "anger"), answer(9.0, 9.1, "surprise")],
    )
    of = small([made])
    assert value(of, "uf1_seven") == pytest.approx((1 + 0 + 0) / 3)
    # Fear taken for anger is negative all the same.
    assert value(of, "uf1_three") == 1.0
    assert value(of, "strs") == pytest.approx(value(of, "f1"))
    assert value(of, "strs_seven") < value(of, "strs")
    assert of.confusion[NAMES.index("fear"), NAMES.index("anger")] == 1
    assert of.confusion.sum() == 2


def test_strs_knows_others_as_a_class_and_three_class_recognition_does_not():
    other = recording(
        [truth(1.0, 1.1), truth(2.0, 2.1, emotion="other")], [answer(1.0, 1.1), answer(2.0, 2.1)]
    )
    of = small([other])
    assert value(of, "uf1_three") == value(of, "uf1_seven") == 1.0
    # positive: precision 1/2, recall 1; others: never named.
    assert value(of, "f1_four") == pytest.approx(2 * 0.25 * 0.5 / 0.75)


def test_action_units_are_scored_with_their_side():
    whole = replace(
        answer(1.0, 1.1), action_units=(ActionUnit("AU12", "right", 0.9), ActionUnit("AU4", "both", 0.6))
    )
    of = small([recording([truth(1.0, 1.1)], [whole])])
    assert value(of, "action_unit_f1") == pytest.approx(2 / 3)
    # Truth: AU12 right and left. Answer: AU12 right, AU4 right and left.
    assert value(of, "action_unit_side_f1") == pytest.approx(2 / 5)


def test_uncertain_answers_are_counted_and_the_rest_judged():
    sure, unsure = answer(1.0, 1.1), replace(answer(2.0, 2.1, "fear", 0.3), emotion="uncertain")
    of = small([recording([truth(1.0, 1.1), truth(2.0, 2.1)], [sure, unsure])])
    assert value(of, "uncertain_share") == 0.5
    assert value(of, "accuracy_of_the_rest") == 1.0


# Calibration


def test_the_calibration_error_of_made_up_probabilities_is_as_computed_by_hand():
    stated = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55])
    right = np.array([True, True, True, False, True, False])
    # |0.95 - 0.75| for four, |0.55 - 0.5| for two.
    assert calibration_error(stated, right) == pytest.approx((4 * 0.2 + 2 * 0.05) / 6)
    assert [part.count for part in reliability(stated, right)] == [2, 4]


def test_probabilities_that_come_true_have_no_calibration_error():
    stated = np.repeat([0.25, 0.75], 400)
    right = np.concatenate((np.arange(400) % 4 == 0, np.arange(400) % 4 != 0))
    assert calibration_error(stated, right) == pytest.approx(0)


def test_bins_of_equal_count_hold_as_many_answers_each():
    stated = np.linspace(0.9, 1.0, 40)
    assert [part.count for part in reliability(stated, stated > 0.95, equal_count=True)] == [4] * 10


def test_false_alarms_may_be_counted_as_wrong():
    made = recording(
        [truth(1.0, 1.1)], [answer(1.0, 1.1, confidence=0.95), answer(5.0, 5.1, confidence=0.95)]
    )
    of = small([made])
    assert value(of, "calibration_error") == pytest.approx(0.05)
    assert value(of, "calibration_error_with_false") == pytest.approx(0.45)


def test_a_statement_of_certainty_is_in_the_last_bin():
    assert [part.stated for part in reliability(np.array([1.0]), np.array([True]))] == [1.0]


# Figures


def test_errors_are_medians_over_what_was_found():
    made = recording([truth(1.0, 1.1), truth(2.0, 2.1)], [answer(1.01, 1.1), answer(2.02, 2.1)])
    of = small([made])
    assert value(of, "onset_error_ms") == pytest.approx(15)
    assert value(of, "apex_error_ms") == pytest.approx(7.5)
    assert value(of, "offset_error_ms") == pytest.approx(0)


def test_the_delay_counts_from_the_true_offset_to_the_frame_that_brought_the_answer():
    answers = [
        replace(answer(1.0, 1.1), told_s=1.2),
        replace(answer(2.0, 2.11), told_s=2.25),
        answer(3.0, 3.1),
    ]
    of = small([recording([truth(1.0, 1.1), truth(2.0, 2.1), truth(3.0, 3.1)], answers)])
    assert value(of, "delay_ms") == pytest.approx(125)


def test_false_alarms_are_sorted_by_what_went_on_and_by_its_own_time():
    blinks = [Truth("blink", 4.9, 5.0, 5.2), Truth("blink", 5.1, 5.2, 5.5)]
    of = small(
        [recording([truth(1.0, 1.1), *blinks], [answer(1.0, 1.1), answer(5.0, 5.1), answer(8.0, 8.1)])]
    )
    assert {kind: alarms.false for kind, alarms in of.false_during.items()} == {
        "blink": 1,
        "nothing": 1,
        "micro": 0,
    }
    assert of.false_during["blink"].per_hour == pytest.approx(3600 / 0.6)
    assert value(of, "false_per_hour") == pytest.approx(120)


def test_the_poisson_interval_is_exact():
    low, high = poisson_interval(0, 1.0)
    assert (low, round(high, 3)) == (0, 3.689)
    assert poisson_interval(10, 2.0) == pytest.approx((4.795 / 2, 18.390 / 2), rel=1e-3)


def test_recall_is_told_by_duration_and_intensity():
    made = recording(
        [truth(1.0, 1.06, 0.005), truth(2.0, 2.06, 0.02), truth(3.0, 3.15, 0.02), truth(4.0, 4.4, 0.02)],
        [answer(2.0, 2.06), answer(4.0, 4.4)],
    )
    of = small([made])
    assert value(of, "recall_40_to_80_ms") == 0.5
    assert value(of, "recall_120_to_200_ms") == 0.0
    # Beyond what the device is set to: shown, but counted nowhere else.
    assert value(of, "recall_200_to_500_ms") == 1.0
    assert value(of, "recall") == pytest.approx(1 / 3)
    assert value(of, "recall_0.4_to_0.7_percent") == 0.0
    assert value(of, "recall_1.6_to_2.5_percent") == 0.5
    assert isnan(value(of, "recall_80_to_120_ms"))


def test_a_miss_says_what_became_of_it():
    near = Refused(answer(1.0, 1.1), "speech")
    made = recording(
        [truth(1.0, 1.1), truth(2.0, 2.2), truth(3.0, 3.1)], [answer(2.15, 2.3)], refused=(near,)
    )
    assert small([made]).missed_because == {"refused: speech": 1, "badly placed": 1, "not seen": 1}


def test_intervals_come_from_people_and_are_the_same_each_time():
    sharp = recording([truth(1.0, 1.1), truth(2.0, 2.1)], [answer(1.0, 1.1), answer(2.0, 2.1)], subject="one")
    blind = recording([truth(1.0, 1.1)], [], subject="other")
    once, again = small([sharp, blind]), small([sharp, blind])
    assert once.estimates["f1"] == again.estimates["f1"]
    estimate = once.estimates["f1"]
    assert estimate.low == 0 < estimate.value < estimate.high == 1
    assert once.estimates["strs"].low == 0, "a draw in which nothing is found counts"
    # Two recordings of one person say nothing about other people.
    assert isnan(small([sharp, replace(blind, subject="one")]).estimates["f1"].low)


def test_a_set_without_micro_expressions_has_false_alarms_and_no_f1():
    of = small([recording([Truth("blink", 5.0, 5.1, 5.2)], [answer(5.0, 5.1)])])
    assert isnan(value(of, "f1"))
    assert value(of, "false_per_hour") == pytest.approx(60)
    assert json.loads(json.dumps(of.as_json()))["estimates"]["f1"]["value"] is None


# Saved runs


def full() -> Recording:
    return recording(
        [truth(1.0, 1.1), replace(truth(3.0, 3.2, None), apex_s=None)],
        [answer(1.0, 1.1)],
        refused=(Refused(answer(2.0, 2.1), "weak evidence"),),
        lost=(Stretch(0.0, 0.25, "warming up"),),
    )


def test_a_run_survives_the_file(tmp_path: Path):
    save(tmp_path / "run", {"kind": "rendered"}, [full(), full()])
    assert load(tmp_path / "run") == ({"kind": "rendered"}, [full(), full()])


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path):
    path = tmp_path / "run"
    Run(path, {"seed": 9}).add(full())
    with path.open("a") as lines:
        lines.write('{"name": "cut sh')
    going_on = Run(path, {"seed": 9})
    assert going_on.recordings == [full()]
    going_on.add(full())
    assert load(path)[1] == [full(), full()]


def test_a_run_made_otherwise_is_not_continued(tmp_path: Path):
    Run(tmp_path / "run", {"seed": 9})
    with pytest.raises(ValueError, match=r"seed: 9 there, 10 here"):
        Run(tmp_path / "run", {"seed": 10})


def test_a_damaged_run_is_refused_by_line(tmp_path: Path):
    save(tmp_path / "run", {}, [full()])
    lines = (tmp_path / "run").read_text().splitlines()
    (tmp_path / "run").write_text("\n".join([lines[0], '{"name": 1}', lines[1], ""]))
    with pytest.raises(ValueError, match="line 2"):
        load(tmp_path / "run")
    (tmp_path / "other").write_text("[]\n")
    with pytest.raises(ValueError, match="line 1"):
        load(tmp_path / "other")


def test_a_saved_run_is_scored_by_one_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    header = Work("rendered", {}, (), False).as_header()
    save(tmp_path / "run", header, [full(), replace(full(), subject="other", rate_hz=90.0)])
    assert main(["score", str(tmp_path / "run"), "--list", "--json", str(tmp_path / "figures.json")]) == 0
    out = capsys.readouterr().out
    assert "missed  device a at 3.00 s, 200 ms, happiness AU12: not seen" in out
    assert "device, 90 Hz" in out
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["figures"]["device, 200 Hz"]["estimates"]["recall"]["value"] == 0.5
    assert main(["score", str(tmp_path / "figures.json")]) == 2
    assert "line 1" in capsys.readouterr().err


def test_the_classic_spotter_is_held_to_the_same_time():
    device = recording([], [], lost=(Stretch(0.9, 1.05, "gap"),))
    classic = as_gated(device, [answer(1.0, 1.1), answer(2.0, 2.1)])
    assert [kept.onset_s for kept in classic.answers] == [2.0]
    assert [refused.reason for refused in classic.refused] == ["gap"]
    assert classic.spotter == "classic"


# Leave one subject out


def candidates(subject: str, true_score: float, false_score: float, confidence: float = 0.9) -> Recording:
    """One expression, found with one score, and one false candidate of another."""
    given = [answer(1.0, 1.1, score=true_score, confidence=confidence), answer(5.0, 5.1, score=false_score)]
    return recording(
        [truth(1.0, 1.1)],
        [one for one in given if one.score >= 0.5],
        subject=subject,
        refused=tuple(Refused(one, "weak evidence") for one in given if one.score < 0.5),
    )


def test_the_threshold_is_chosen_on_the_other_people_only():
    # All but the odd one are told apart at 0.3; the odd one alone would need 0.7, and alone would move the choice.
    crowd = [candidates(name, 0.42, 0.18) for name in ("a", "b", "c")]
    odd = candidates("odd", 0.92, 0.68)
    answered, chosen = loso([*crowd, odd], Rules(), Config())
    by_subject = {one.subject: one for one in chosen}
    assert 0.18 < by_subject["odd"].threshold <= 0.42
    of_odd = next(one for one in answered if one.subject == "odd")
    assert len(of_odd.answers) == 2, "its own false candidate had no say"
    # Whatever the left-out person's own candidates say, the choice for that person stays.
    other = loso([*crowd, candidates("odd", 0.1, 0.95)], Rules(), Config())[1]
    assert {one.subject: one for one in other}["odd"] == by_subject["odd"]


def test_the_temperature_is_chosen_on_the_other_people_only():
    modest = [candidates(name, 0.9, 0.1, confidence=0.5) for name in ("a", "b", "c")]
    wrong = candidates("odd", 0.9, 0.1, confidence=0.99)
    wrong = replace(wrong, truth=(truth(1.0, 1.1, emotion="fear"),))
    chosen = {one.subject: one.temperature for one in loso([*modest, wrong], Rules(), Config())[1]}
    # The others are always right and said so too modestly; one who was confidently wrong tempers the rest.
    assert chosen["odd"] == min(chosen.values()) < 1 < chosen["a"]


def test_of_thresholds_that_do_equally_well_the_device_keeps_its_own():
    people = [candidates(name, 0.9, 0.1) for name in ("a", "b")]
    own = load_config(None, ["spot.threshold=0.35"])
    assert {one.threshold for one in loso(people, Rules(), own)[1]} == {0.35}


def test_a_lower_threshold_lets_in_only_what_was_refused_for_its_score_and_has_a_duration_of_an_event():
    kept = answer(1.0, 1.1, score=0.3)
    made = recording(
        [],
        [],
        refused=(
            Refused(kept, "blink"),
            Refused(answer(2.0, 2.1, score=0.9), "gap"),
            Refused(answer(3.0, 3.4, score=0.4), "weak evidence"),
        ),
    )
    assert at_threshold(made, 0.25, (0.04, 0.2)).answers == (kept,)
    assert at_threshold(made, 0.35, (0.04, 0.2)).answers == ()


def test_other_thresholds_are_shown_with_what_they_would_bring():
    of = small([candidates("a", 0.92, 0.62), candidates("b", 0.42, 0.12)])
    by_threshold = {point.threshold: point for point in of.curve}
    low, high = by_threshold[0.4].counts, by_threshold[0.7].counts
    assert (low.true, low.false, low.missed) == (2, 1, 0)
    assert (high.true, high.false, high.missed) == (1, 0, 1)
    assert by_threshold[0.4].false_per_hour == pytest.approx(30)
    shares = [part.right for part in of.reliability["spot_score, all candidates"]]
    assert shares == [0, 1, 0, 1]


def test_a_temperature_of_one_changes_nothing_and_a_high_one_makes_uncertain():
    said = answer(1.0, 1.1, "fear", 0.6)
    same = tempered(said, 1.0, 0.4)
    assert same.emotion == "fear"
    assert same.probabilities == pytest.approx(said.probabilities)
    assert tempered(said, 4.0, 0.4).emotion == "uncertain"


def test_what_was_chosen_for_whom_is_written_with_the_figures(tmp_path: Path):
    header = Work("rendered", {}, (), False).as_header()
    save(tmp_path / "run", header, [candidates(name, 0.9, 0.1) for name in ("a", "b")])
    assert main(["score", str(tmp_path / "run"), "--loso", "--json", str(tmp_path / "figures.json")]) == 0
    written = json.loads((tmp_path / "figures.json").read_text())
    assert [one["subject"] for one in written["chosen"]["device, 200 Hz, left out"]] == ["a", "b"]
    assert written["figures"]["device, 200 Hz, left out"]["estimates"]["f1"]["value"] == 1.0


def test_one_person_cannot_be_left_out():
    with pytest.raises(ValueError, match="two people"):
        loso([candidates("a", 0.9, 0.1)], Rules(), Config())


# Pictures and data sets


def test_the_worst_are_the_largest_misses_and_the_surest_false_alarms():
    gap = (Stretch(3.9, 4.05, "gap"),)
    made = recording(
        [truth(1.0, 1.1, 0.01), truth(2.0, 2.1, 0.02), truth(4.0, 4.1, 0.025)],
        [answer(7.0, 7.1, score=0.6), answer(8.0, 8.1, score=0.8)],
        lost=gap,
    )
    cases = choose([made, replace(made, spotter="classic")], Rules(), 1)
    assert [(case.file, case.onset_s) for case in cases] == [("missed-1", 2.0), ("false-1", 8.0)]
    assert "2.0 % IOD" in cases[0].title


def test_an_unlabelled_data_set_gives_a_submission_and_no_score(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "unseen" / "001_2"
    folder.mkdir(parents=True)
    for number in range(1, 31):
        assert cv2.imwrite(str(folder / f"001_2_{number:04d}.jpg"), np.full((96, 128), 60, np.uint8))
    saved, answers, pictures = tmp_path / "run", tmp_path / "answers.zip", tmp_path / "pictures"
    call = [
        "dataset",
        "megc-unseen",
        str(tmp_path / "unseen"),
        "--save",
        str(saved),
        "--submission",
        str(answers),
    ]
    assert main(call) == 0
    assert "nothing to score" in capsys.readouterr().out
    assert "samm_pred.csv" in zipfile.ZipFile(answers).namelist()
    (seen,) = load(saved)[1]
    assert (seen.subject, seen.answers, seen.not_assessable[0].reason) == ("001", (), "no face")
    # As if something had been annotated and answered: its pictures are made from the recording itself.
    header, _ = load(saved)
    save(
        saved,
        header,
        [replace(seen, truth=(truth(0.05, 0.1),), answers=(answer(0.08, 0.12),), assessable_s=0.1)],
    )
    assert main(["score", str(saved), "--plots", str(pictures), "--worst", "1"]) == 0
    assert {path.name for path in pictures.iterdir()} == {
        "reliability.png",
        "recall.png",
        "confusion.png",
        "thresholds.png",
        "missed-1.png",
        "false-1.png",
    }


def test_a_wrong_folder_is_told_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["dataset", "samm-lv", str(tmp_path)]) == 2
    assert "does not look like SAMM Long Videos" in capsys.readouterr().err


def test_the_truth_beside_a_rendered_video_is_read_and_anything_else_refused(tmp_path: Path):
    written = {
        "kind": "blink",
        "onset_s": 1.0,
        "apex_s": 1.1,
        "offset_s": 1.3,
        "emotion": "",
        "peak_iod": 0.0,
    }
    (tmp_path / "a.json").write_text(json.dumps([written]))
    assert read_truth(tmp_path / "a.json") == (Truth("blink", 1.0, 1.1, 1.3, peak_iod=0.0),)
    (tmp_path / "a.json").write_text(json.dumps([{"kind": "blink"}]))
    with pytest.raises(ValueError, match=r"a\.json: is not the truth"):
        read_truth(tmp_path / "a.json")


def test_pictures_without_a_place_are_refused():
    with pytest.raises(SystemExit):
        main(["score", "run", "--worst", "3"])


# Rendered people


@pytest.fixture
def portrait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RenderedSet:
    """A set of one person: the portrait that ships with matplotlib, moved by the device's own animator."""
    path = tmp_path / "portrait.png"
    assert cv2.imwrite(str(path), load_portrait())
    mesh = np.zeros((1, 468, 3), np.float32)
    mesh[0, list(MESH_INDEX), :2] = portrait_landmarks()
    people = SimpleNamespace(photos=(Photo("a", path, "hopper", "portrait", "", ""),), meshes=mesh)
    monkeypatch.setattr(rendered.People, "read", lambda *_: people)
    return RenderedSet(Plan("photos", "labels", "model", "test", "facs", 8.0, 0.015, False, 3, False))


def test_a_clip_shows_the_same_at_every_rate(portrait: RenderedSet):
    names = portrait.names(2, [200.0, 90.0])
    assert names == ["facs-000@200", "facs-000@90", "facs-001@200", "facs-001@90"]
    sources = [portrait.source(name) for name in names[:3]]
    assert sources[0].truth == sources[1].truth != sources[2].truth
    assert {truth.kind for source in sources for truth in source.truth} > {"micro"}
    assert next(sources[0].frames()).luma.shape == (480, 640)


def test_a_run_of_rendered_clips_is_saved_clip_by_clip_and_goes_on(
    portrait: RenderedSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    portrait = RenderedSet(replace(portrait.plan, seconds=1.2))
    work = Work("rendered", portrait.header(), (), True)
    names = portrait.names(1, [90.0])
    (device, classic) = run(work, names, Run(tmp_path / "run", work.as_header()))
    assert (device.spotter, classic.spotter) == ("device", "classic")
    assert device.subject == "hopper"
    assert device.rate_hz == pytest.approx(90, abs=0.1)
    assert device.truth == classic.truth == portrait.source(names[0]).truth
    assert 0 < device.assessable_s == classic.assessable_s <= device.duration_s
    assert "1/1 recordings" in capsys.readouterr().err
    again = run(work, names, Run(tmp_path / "run", work.as_header()))
    assert again == [device, classic]
    assert capsys.readouterr().err == "", "nothing was left to run"


def test_compressed_frames_keep_their_times_and_size(portrait: RenderedSet):
    plain = portrait.source("facs-000@90").frames()
    coded = RenderedSet(replace(portrait.plan, h264=True)).source("facs-000@90").frames()
    for _ in range(3):
        one, other = next(plain), next(coded)
        assert (one.timestamp_ns, one.sequence) == (other.timestamp_ns, other.sequence)
        assert one.luma.shape == other.luma.shape
        difference = np.abs(one.luma.astype(int) - other.luma).mean()
        assert 0 < difference < 4
