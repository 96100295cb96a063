"""Miniature, made-up copies of the public data sets, with the quirks of the published folders and sheets."""

import csv
import json
import logging
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge.frames.synthetic import SyntheticSource
from edge.records import EMOTIONS
from tools.evaluate.__main__ import main
from tools.evaluate.datasets import LAYOUTS, DatasetError, Source, read, write_submission
from tools.evaluate.datasets.words import action_units_of, emotion_of
from tools.evaluate.records import Answer

openpyxl = pytest.importorskip("openpyxl", reason="needs pip install microedge[evaluate]")

Rows = Sequence[Sequence[Any]]


def pictures(folder: Path, names: Iterable[str]) -> Path:
    """Write tiny grey images, each of its own brightness."""
    folder.mkdir(parents=True)
    for level, name in enumerate(names):
        assert cv2.imwrite(str(folder / name), np.full((8, 12), 10 + level, np.uint8))
    return folder


def movie(path: Path, frames: int, rate_hz: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), rate_hz, (32, 24))
    for level in range(frames):
        writer.write(np.full((24, 32, 3), 10 + level, np.uint8))
    writer.release()
    return path


def workbook(path: Path, **sheets: Rows) -> Path:
    """Write an .xlsx; an underscore in a sheet's name stands for a blank."""
    path.parent.mkdir(parents=True, exist_ok=True)
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title.replace("__", " "))
        for row in rows:
            sheet.append(list(row))
    book.save(path)
    return path


def mistakes_of(call: Callable[[], object]) -> tuple[str, ...]:
    with pytest.raises(DatasetError) as raised:
        call()
    return raised.value.mistakes


def by_name(sources: list[Source]) -> dict[str, Source]:
    return {source.name: source for source in sources}


# --- CAS(ME)^2 ------------------------------------------------------------------------------------------------

CAS2_ROWS: Rows = [
    (1, "anger1_1", 5, 9, 14, "4+10", "negative", "macro-expression", "anger", 10),
    (1, "disgust1_1", 2, 3, 0, 12, "positive", "micro-expression", "happyiness", 2),
    (1, "anger1_2", 16, 0, 18, "L14", "others", "micro-expression", "sadness", 3),
    (7, "happy1_1", 3, 4, 5, "1+2", "negative", "micro-expression", "helpless", 3),
]


def cas_me_2(folder: Path, rows: Rows = CAS2_ROWS) -> Path:
    raw = folder / "CAS(ME)2" / "rawpic"
    for name in ("s15/15_0401girlcrashing", "s15/15_0101disgustingteeth", "s23/23_0502funnyerrors"):
        pictures(raw / name, (f"img{number:03d}.jpg" for number in (1, 2, 20)))
    # As published: the same video once more in a stranger's folder, and clips that are no long videos.
    pictures(raw / "s19" / "23_0502funnyerrors", (f"img{number:03d}.jpg" for number in (1, 2, 20)))
    pictures(folder / "CAS(ME)2" / "selectedpic" / "s15" / "15_0402beatingpregnantwoman", ["img5.jpg"])
    workbook(
        folder / "CAS(ME)2" / "CAS(ME)^2code_final(Updated).xlsx",
        CASFEcode_final=rows,
        naming__rule1=[(15, "s15", 1), (23, "s23", 7)],
        naming__rule2=[("0101", "disgust1"), ("0401", "anger1"), (502, "happy1")],
    )
    return folder


def test_cas_me_2_is_read_with_its_coded_names_and_frames_from_one(tmp_path: Path) -> None:
    sources = by_name(read("cas-me-2", cas_me_2(tmp_path)))
    assert list(sources) == ["15_0101", "15_0401", "23_0502"]
    assert {source.subject for source in sources.values()} == {"s15", "s23"}
    macro, micro = sources["15_0401"].truth
    assert (macro.kind, macro.onset_s, macro.apex_s, macro.offset_s) == (
        "macro",
        pytest.approx(4 / 30),
        pytest.approx(8 / 30),
        pytest.approx(13 / 30),
    )
    assert macro.action_units == (("AU4", "both"), ("AU10", "both"))
    assert micro.apex_s is None, "0 is not known"
    assert micro.action_units == (("AU14", "left"),)


def test_cas_me_2_takes_the_apex_where_the_offset_is_not_known(tmp_path: Path) -> None:
    (truth,) = by_name(read("cas-me-2", cas_me_2(tmp_path)))["15_0101"].truth
    assert (truth.onset_s, truth.offset_s) == (pytest.approx(1 / 30), pytest.approx(2 / 30))


def test_cas_me_2_gives_the_class_and_within_negative_the_reported_emotion(tmp_path: Path) -> None:
    sources = by_name(read("cas-me-2", cas_me_2(tmp_path)))
    assert [truth.emotion for truth in sources["15_0401"].truth] == ["anger", "other"]
    assert [truth.emotion for truth in sources["15_0101"].truth] == ["happiness"]
    assert [truth.emotion for truth in sources["23_0502"].truth] == ["other"], "helpless is none of the seven"


def test_cas_me_2_prefers_a_video_in_the_folder_of_its_own_subject(tmp_path: Path) -> None:
    source = by_name(read("cas-me-2", cas_me_2(tmp_path)))["23_0502"]
    assert source.path.parent.name == "s23"


def test_cas_me_2_is_read_from_video_files_and_a_csv_too(tmp_path: Path) -> None:
    movie(tmp_path / "rawvideo" / "s15" / "15_0401girlcrashing.avi", 20, 30)
    with (tmp_path / "code_final.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(row for row in CAS2_ROWS if row[1].startswith("anger"))
    (source,) = read("cas-me-2", tmp_path / "rawvideo")
    assert [truth.kind for truth in source.truth] == ["macro", "micro"]
    frames = [(frame.sequence, frame.timestamp_ns) for frame in source.frames()]
    assert len(frames) == 20
    assert frames[3] == (3, 100_000_000)


def test_known_errors_of_the_published_sheet_are_read_as_corrected(tmp_path: Path) -> None:
    pictures(tmp_path / "rawpic" / "s27" / "27_0101disgustingteeth", ["img001.jpg", "img1300.jpg"])
    workbook(
        tmp_path / "code_final.xlsx",
        code=[(11, "disgust1_1", 1221, 1230, 1224, "4+5+7", "negative", "macro-expression", "disgust")],
    )
    (source,) = read("cas-me-2", tmp_path)
    assert [(t.apex_s, t.emotion) for t in source.truth] == [(None, "disgust")]


# --- SAMM Long Videos -----------------------------------------------------------------------------------------

SAMM_HEADER = (
    *("Subject", "Filename", "Inducement Code", "Onset", "Apex", "Offset", "Duration", "Type"),
    *("Action Units", "Notes"),
)
SAMM_ROWS: Rows = [
    ("006", "006_1_1", 1, 10, 20, 40, 31, "Micro - 1/2", "4+L14B", "While blinking"),
    ("006", "006_1_2", 1, 50, -1, 180, 131, "Macro", "4D+7B+ref(10)", None),
    ("006", "006_1_3", 1, 0, 3, 8, 9, "Macro", "Chewing", None),
    ("011", "011_2_1", 2, 5, 9, 12, 8, "Micro - 1/2", 7, None),
]


def samm(folder: Path, rows: Rows = SAMM_ROWS, header: Sequence[Any] = SAMM_HEADER) -> Path:
    for video in ("006_1", "011_2", "011_3"):
        names = (f"{video}_{number:04d}.jpg" for number in (1, 2, 200))
        pictures(folder / "SAMM_longvideos" / video, names)
    remarks = [("SAMM Long Videos", "made up for a test")] + [()] * 8
    workbook(
        folder / "SAMM_LongVideos_V3_Release.xlsx", FACS_Movement_Only=[*remarks, header, *rows, (), ("end",)]
    )
    return folder


def test_samm_long_videos_is_read_from_below_its_remarks(tmp_path: Path) -> None:
    sources = by_name(read("samm-lv", samm(tmp_path)))
    assert {name: source.subject for name, source in sources.items()} == {
        "006_1": "006",
        "011_2": "011",
        "011_3": "011",
    }
    begun_before, micro, macro = sources["006_1"].truth
    assert (micro.kind, micro.onset_s, micro.apex_s, micro.offset_s) == ("micro", 0.045, 0.095, 0.195)
    assert micro.action_units == (("AU4", "both"), ("AU14", "left"))
    assert (macro.kind, macro.apex_s) == ("macro", None), "-1 is not known"
    assert macro.action_units == (("AU4", "both"), ("AU7", "both"))
    assert begun_before.onset_s == 0.0, "an onset of 0 lies before the video"
    assert begun_before.action_units == ()


def test_samm_emotions_come_from_the_micro_facs_codes(tmp_path: Path) -> None:
    samm(tmp_path)
    assert {truth.emotion for source in read("samm-lv", tmp_path) for truth in source.truth} == {""}
    workbook(
        tmp_path / "SAMM_Micro_FACS_Codes_v2.xlsx",
        Codes=[
            *([("remark",)] * 13),
            ("Subject", "Filename", "Onset Frame", "Estimated Emotion", "Objective Classes"),
            ("006", "006_1_1", 10, "Contempt", 4),
            ("006", "006_1_2", 50, "Anger", 4),
        ],
    )
    first = by_name(read("samm-lv", tmp_path))["006_1"]
    assert [truth.emotion for truth in first.truth] == ["", "contempt", ""], "codes are of micro-expressions"


def test_frames_of_a_folder_are_drawn_one_by_one_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "SAMM_longvideos" / "006_1", (f"006_1_{n}.jpg" for n in (9, 10, 11, 100)))
    (folder / "Thumbs.db").write_bytes(b"x")
    source = Source("006_1", "006", 200.0, folder)
    drawn = source.frames()
    first = next(drawn)
    assert (first.luma.shape, first.luma.dtype) == ((8, 12), np.uint8)
    assert (first.sequence, first.timestamp_ns) == (0, 0)
    rest = [(frame.sequence, frame.timestamp_ns) for frame in drawn]
    assert rest == [(1, 5_000_000), (2, 10_000_000), (91, 455_000_000)]


def test_a_missing_or_damaged_image_is_a_lost_frame(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = pictures(tmp_path / "a", ("1.jpg", "2.jpg", "4.jpg"))
    (folder / "2.jpg").write_bytes(b"not a picture")
    frames = list(Source("a", "s", 30.0, folder).frames())
    assert [frame.sequence for frame in frames] == [0, 3]
    assert "1 images cannot be read" in caplog.text


def test_recordings_without_rows_and_an_incomplete_set_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sources = by_name(read("samm-lv", samm(tmp_path)))
    assert sources["011_3"].truth == ()
    assert sources["011_3"].is_labelled
    assert "1 recordings have no rows: 011_3" in caplog.text
    assert "3 recordings, 2 micro- and 2 macro-expressions; the whole set has 147, 159 and 343" in caplog.text


def test_micro_expressions_that_the_device_cannot_report_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slow = ("006", "006_1_4", 1, 20, 60, 199, 180, "Micro - 1/2", 4, None)
    read("samm-lv", samm(tmp_path, [*SAMM_ROWS, slow]))
    assert "1 of 3 micro-expressions last longer than 0.5 s" in caplog.text


# --- CAS(ME)^3 ------------------------------------------------------------------------------------------------

CAS3_HEADER = ("Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Objective class", "emotion")


def cas_me_3(folder: Path, rows: Rows | None = None) -> Path:
    part = folder / "part_A" / "data"
    pictures(part / "spNO.1" / "a" / "color", (f"{number}.jpg" for number in range(8, 41)))
    pictures(part / "spNO.1" / "a" / "depth", (f"{number}.png" for number in range(8, 41)))
    pictures(folder / "part_B" / "spNO.9" / "a" / "color", ["1.jpg"])
    pictures(part / "spNo.3" / "J" / "color", (f"{number}.jpg" for number in range(2, 41)))
    listed = rows or [
        # Numbers are text in the published sheet.
        ("spNO.1", "a", "10", "12", "15", "4+R12", "III", "disgust"),
        ("spNO.1", "a", "5", "20", "30", "L2+R2", "II", "Others"),
        ("spNO.3", "j", "2", "3", "9", "5", "II", "surprise"),
    ]
    labels = folder / "part_A" / "annotation" / "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx"
    workbook(labels, label=[CAS3_HEADER, *listed], Sheet1=[()], Sheet3=[])
    return folder


def test_cas_me_3_counts_from_the_first_image_that_a_video_has(tmp_path: Path) -> None:
    sources = by_name(read("cas-me-3", cas_me_3(tmp_path)))
    assert {name: source.subject for name, source in sources.items()} == {
        "spNO.1_a": "spNO.1",
        "spNO.3_j": "spNO.3",
    }
    cut, whole = sources["spNO.1_a"].truth
    assert (whole.onset_s, whole.offset_s) == (pytest.approx(2 / 30), pytest.approx(7 / 30))
    assert (whole.kind, whole.emotion) == ("micro", "disgust")
    assert whole.action_units == (("AU4", "both"), ("AU12", "right"))
    assert (cut.onset_s, cut.emotion) == (0.0, "other"), "it begins before the first image"
    assert cut.action_units == (("AU2", "both"),)
    assert next(sources["spNO.1_a"].frames()).timestamp_ns == 0


def test_cas_me_3_macro_expressions_are_read_from_their_own_sheet(tmp_path: Path) -> None:
    cas_me_3(tmp_path)
    workbook(
        tmp_path / "part_A" / "annotation" / "cas(me)3_part_A_MaE_label_JpgIndex_v2_emotion.xlsx",
        Sheet1=[("sub", "seq", "onset", "apex", "offset", "emotion"), ("spNO.3", "j", 12, 20, 38, "sadness")],
    )
    truth = by_name(read("cas-me-3", tmp_path))["spNO.3_j"].truth
    assert [(item.kind, item.emotion) for item in truth] == [("micro", "surprise"), ("macro", "sadness")]


def test_cas_me_3_rows_that_its_authors_corrected_later_are_read_so(tmp_path: Path) -> None:
    pictures(tmp_path / "spNO.40" / "e" / "color", ("9.jpg", "3000.jpg"))
    pictures(tmp_path / "spNO.149" / "d" / "color", ("9.jpg", "3000.jpg"))
    rows = [
        ("spNO.40", "e", "1812", "1824", "0", "18", "VII", "others"),
        ("spNO.149", "d", "112", "83", "358", "T28+14", "VII", "fear"),
    ]
    workbook(tmp_path / "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx", label=[CAS3_HEADER, *rows])
    sources = by_name(read("cas-me-3", tmp_path))
    assert sources["spNO.40_e"].truth[0].offset_s == pytest.approx((1845 - 9) / 30)
    assert sources["spNO.149_d"].truth[0].apex_s == pytest.approx((160 - 9) / 30)


# --- the unseen sets ------------------------------------------------------------------------------------------


def unseen(folder: Path) -> Path:
    pictures(folder / "SAMM_data" / "001_2", (f"001_2_{number:05d}.jpg" for number in range(1, 101)))
    pictures(folder / "CAS_data" / "dzw_a1", (f"{number}.jpg" for number in range(1, 61)))
    return folder


def answer(onset_s: float, offset_s: float, emotion: str | None, **changes: Any) -> Answer:
    return Answer(onset_s, (onset_s + offset_s) / 2, offset_s, 0.9, emotion, 0.8, **changes)


def test_the_unseen_set_is_read_without_truth_at_two_rates(tmp_path: Path) -> None:
    sources = read("megc-unseen", unseen(tmp_path))
    assert [(s.name, s.subject, s.rate_hz, s.truth, s.is_labelled) for s in sources] == [
        ("001_2", "001", 200.0, (), False),
        ("dzw_a1", "dzw", 30.0, (), False),
    ]


def test_a_submission_holds_frame_numbers_in_the_form_of_the_challenge(tmp_path: Path) -> None:
    samm_source, cas_source = read("megc-unseen", unseen(tmp_path / "set"))
    answered = [
        (samm_source, [answer(0.2, 0.3, "anger"), answer(0.05, 0.1, "happiness")]),
        (cas_source, [answer(1.0, 1.6, "uncertain", probabilities=(0.1,) * 5 + (0.4, 0.1, 0.0))]),
    ]
    write_submission(tmp_path / "spot.zip", answered)
    with zipfile.ZipFile(tmp_path / "spot.zip") as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    assert texts == {
        "samm_pred.csv": "vid,onset,offset,type\n001_2,11,21,me\n001_2,41,61,me\n",
        "cas_pred.csv": "vid,onset,offset,type\ndzw_a1,31,49,mae\n",
    }
    write_submission(tmp_path / "recognise", answered, "recognise")
    assert (tmp_path / "recognise" / "samm_pred.csv").read_text() == (
        "subject,video,onset,offset,emotion\n001,001_2,11,21,positive\n001,001_2,41,61,negative\n"
    )
    assert (tmp_path / "recognise" / "cas_pred.csv").read_text().endswith("dzw,dzw_a1,31,49,surprise\n")


def test_a_submission_is_not_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["dataset", "megc-unseen", str(unseen(tmp_path)), "--submission", str(tmp_path / "all.csv")])
    assert "all.csv: a submission is two tables: name a .zip or a folder" in capsys.readouterr().err


def test_the_unseen_set_is_scored_where_a_sheet_is_given(tmp_path: Path) -> None:
    sheet = workbook(
        tmp_path / "mine.xlsx",
        truth=[("vid", "onset", "offset", "type"), ("dzw_a1", 10, 20, "me"), ("001_2", 5, 60, "mae")],
    )
    sources = by_name(read("megc-unseen", unseen(tmp_path / "set"), sheet))
    assert sources["dzw_a1"].truth[0].kind == "micro"
    assert sources["001_2"].truth[0].apex_s is None
    assert sources["001_2"].is_labelled


def test_half_a_second_decides_where_a_sheet_has_no_kinds(tmp_path: Path) -> None:
    sheet = tmp_path / "mine.csv"
    sheet.write_text("vid,onset,offset\ndzw_a1,10,25\ndzw_a1,30,46\n")
    truth = by_name(read("megc-unseen", unseen(tmp_path / "set"), sheet))["dzw_a1"].truth
    assert [item.kind for item in truth] == ["micro", "macro"]


# --- from end to end ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def samm_with_a_face(tmp_path_factory: pytest.TempPathFactory, clear_portrait: SyntheticSource) -> Path:
    """Two and a half seconds of the animated portrait in the layout of SAMM Long Videos."""
    folder = tmp_path_factory.mktemp("SAMM")
    video = folder / "SAMM_longvideos" / "006_1"
    video.mkdir(parents=True)
    for frame in clear_portrait.frames():
        cv2.imwrite(str(video / f"006_1_{frame.sequence + 1:04d}.jpg"), frame.luma)
    rows: list[tuple[Any, ...]] = []
    codes: list[tuple[Any, ...]] = []
    for number, event in enumerate((event for event in clear_portrait.truth if event.kind == "micro"), 1):
        frames = (round(200 * time_s) + 1 for time_s in (event.onset_s, event.apex_s, event.offset_s))
        units = "+".join(unit.au.removeprefix("AU") for unit in event.action_units)
        rows.append(("006", f"006_1_{number}", 1, *frames, None, "Micro - 1/2", units, None))
        codes.append((f"006_1_{number}", event.emotion))
    workbook(folder / "SAMM_LongVideos_V3_Release.xlsx", FACS_Movement_Only=[SAMM_HEADER, *rows])
    workbook(folder / "SAMM_Micro_FACS_Codes_v2.xlsx", Codes=[("Filename", "Estimated Emotion"), *codes])
    return folder


def test_one_command_scores_a_data_set(samm_with_a_face: Path, tmp_path: Path) -> None:
    written = tmp_path / "figures.json"
    assert main(["dataset", "samm-lv", str(samm_with_a_face), "--json", str(written)]) == 0
    (figures,) = json.loads(written.read_text())["figures"].values()
    assert figures["true"] + figures["missed"] == 2
    assert figures["true"] >= 1
    assert figures["estimates"]["f1"]["value"] > 0.5


def test_one_command_answers_an_unseen_set(samm_with_a_face: Path, tmp_path: Path) -> None:
    zipped = tmp_path / "submission.zip"
    frames = samm_with_a_face / "SAMM_longvideos"
    assert main(["dataset", "megc-unseen", str(frames), "--submission", str(zipped)]) == 0
    with zipfile.ZipFile(zipped) as archive:
        answers = list(csv.DictReader(archive.read("samm_pred.csv").decode().splitlines()))
    assert answers
    assert {(row["vid"], row["type"]) for row in answers} == {("006_1", "me")}
    assert all(1 <= int(row["onset"]) < int(row["offset"]) <= 520 for row in answers)


def test_the_command_says_what_is_wrong_with_a_sheet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dataset", "samm-lv", str(samm(tmp_path, with_cell(0, 4, 9)))]) == 2
    assert "row 11, column Apex (E): apex 9 lies before onset 10" in capsys.readouterr().err


# --- words ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["happy", "Happiness", "happyiness", "positive"])
def test_words_for_happiness_are_one(word: str) -> None:
    assert emotion_of(word) == "happiness"


def test_each_of_our_emotions_is_known_by_its_own_name() -> None:
    assert [emotion_of(name) for name in (*EMOTIONS, "other")] == [*EMOTIONS, "other"]


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("4+L14", [("AU4", "both"), ("AU14", "left")]),
        ("AU12", [("AU12", "both")]),
        ("R12B+17", [("AU12", "right"), ("AU17", "both")]),
        ("R2+R1", [("AU2", "right"), ("AU1", "right")]),
        ("A1B+A2C", [("AU1", "both"), ("AU2", "both")]),
        ("T28 + 14(A/B)", [("AU28", "both"), ("AU14", "both")]),
        ("L12 or L14", []),
        ("ref(7B)+43C", [("AU43", "both")]),
        ("", []),
    ],
)
def test_action_units_are_read_with_their_sides(text: str, units: list[tuple[str, str]]) -> None:
    assert list(action_units_of(text)) == units


# --- bad input ------------------------------------------------------------------------------------------------


def with_cell(row: int, column: int, value: Any) -> Rows:
    rows = [list(cells) for cells in SAMM_ROWS]
    rows[row][column] = value
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            with_cell(0, 4, 9),
            "SAMM_LongVideos_V3_Release.xlsx [FACS_Movement_Only] row 11, column Apex (E): apex 9 lies before onset 10",
        ),
        (with_cell(0, 4, 41), "row 11, column Apex (E): apex 41 lies after offset 40"),
        (with_cell(1, 5, 49), "row 12, column Offset (F): offset 49 lies before onset 50"),
        (with_cell(3, 5, 201), "row 14, column Offset (F): is 201, but 011_2 ends with frame 200"),
        (with_cell(3, 3, "five"), "row 14, column Onset (D): is 'five', expected the number of a frame"),
        (with_cell(3, 3, None), "row 14, column Onset (D): is empty, expected the number of a frame"),
        (with_cell(2, 7, "Mikro"), "row 13, column Type (H): is 'Mikro', expected one of macro"),
        (with_cell(1, 1, "007_1_2"), "row 12, column Filename (B): recording 007_1 is not in the folder"),
        (with_cell(1, 1, "EP02"), "row 12, column Filename (B): is 'EP02', expected SUBJECT_VIDEO_NUMBER"),
        ([*SAMM_ROWS, SAMM_ROWS[0]], "row 15: repeats row 11: 006_1, frames 10 to 40"),
    ],
)
def test_a_wrong_cell_is_named_by_file_row_and_column(tmp_path: Path, rows: Rows, message: str) -> None:
    (found,) = mistakes_of(lambda: read("samm-lv", samm(tmp_path, rows)))
    assert message in found


def test_an_unknown_emotion_is_quoted_with_the_words_that_are_known(tmp_path: Path) -> None:
    rows = [("spNO.1", "a", "10", "12", "15", "4", "III", "bored")]
    (found,) = mistakes_of(lambda: read("cas-me-3", cas_me_3(tmp_path, rows)))
    assert "row 2, column emotion (H): unknown emotion 'bored'; known are anger" in found


def test_all_mistakes_of_a_sheet_are_reported_at_once(tmp_path: Path) -> None:
    rows = [list(cells) for cells in SAMM_ROWS]
    rows[0][4], rows[1][3], rows[3][5], rows[3][7] = 5, "?", 999, "blink"
    call = lambda: read("samm-lv", samm(tmp_path, rows))  # noqa: E731
    found = mistakes_of(call)
    assert [text.split("row ")[1][:2] for text in found] == ["11", "12", "14"]
    with pytest.raises(DatasetError, match=r"SAMM_LongVideos_V3_Release\.xlsx: 3 mistakes\n  SAMM"):
        read("samm-lv", tmp_path)


def test_rows_with_mistakes_can_be_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sources = by_name(read("samm-lv", samm(tmp_path, with_cell(0, 4, 9)), skip_bad_rows=True))
    assert len(sources["006_1"].truth) == 2
    assert "apex 9 lies before onset 10; the row is left out" in caplog.text


def test_who_reads_again_is_spared_the_warnings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read("samm-lv", samm(tmp_path, with_cell(0, 4, 9)), skip_bad_rows=True, is_quiet=True)
    assert caplog.text == ""


def test_missing_columns_are_all_named(tmp_path: Path) -> None:
    header = ["Onset", "Offset", "Type"]
    found = mistakes_of(lambda: read("samm-lv", samm(tmp_path, [(1, 2, "Macro")], header)))
    assert [text.split(";")[0] for text in found] == ["row 10: no column Filename", "row 10: no column Apex"]
    assert found[0].endswith("found Onset, Offset, Type")


def test_a_sheet_without_any_header_is_refused(tmp_path: Path) -> None:
    (found,) = mistakes_of(lambda: read("samm-lv", samm(tmp_path, [(1, 2, 3)], ["a", "b"])))
    assert found.startswith(
        "no row of headers in the first 30 rows; expected Filename, Onset, Apex, Offset, Type;"
    )


def test_a_cas_me_2_row_with_unknown_subject_and_film_is_named(tmp_path: Path) -> None:
    rows = [(41, "boredom1_1", 5, 9, 14, "4", "negative", "macro-expression", "anger")]
    found = mistakes_of(lambda: read("cas-me-2", cas_me_2(tmp_path, rows)))
    assert "row 1, column A (subject): is '41', expected a subject from 1 to 22" in found[0]
    assert "row 1, column B (video): is 'boredom1_1', expected one of disgust1" in found[1]


def test_a_cas_me_2_sheet_with_too_few_columns_is_refused(tmp_path: Path) -> None:
    (found,) = mistakes_of(lambda: read("cas-me-2", cas_me_2(tmp_path, [(1, "anger1_1", 5)])))
    assert found.startswith("has 3 columns; expected 9 without a header: subject, video, onset")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_of_another_layout_says_what_was_expected_and_what_is_there(
    tmp_path: Path, layout: str
) -> None:
    pictures(tmp_path / "holiday" / "beach", ["IMG_1.jpg"])
    (found,) = mistakes_of(lambda: read(layout, tmp_path))
    assert f"does not look like {LAYOUTS[layout].title}: expected" in found
    assert "it holds holiday/" in found


def test_an_absent_folder_and_an_unknown_set_are_said(tmp_path: Path) -> None:
    assert mistakes_of(lambda: read("samm-lv", tmp_path / "none"))[0].endswith("it does not exist")
    assert (
        "known are cas-me-2, samm-lv, cas-me-3, megc-unseen"
        in mistakes_of(lambda: read("casme", tmp_path))[0]
    )


def test_an_absent_sheet_is_said_with_its_name(tmp_path: Path) -> None:
    pictures(tmp_path / "006_1", ["006_1_0001.jpg"])
    (found,) = mistakes_of(lambda: read("samm-lv", tmp_path))
    assert "expected SAMM_LongVideos_V3_Release.xlsx in it or beside it" in found


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("labels.xls", b"x", "save it as .xlsx or .csv"),
        ("labels.txt", b"x", "expected .xlsx or .csv"),
        ("labels.xlsx", b"x", "cannot be read as a spreadsheet"),
        ("labels.csv", b"\xff\xfe\x00", "is not a .csv file in UTF-8"),
        ("labels.csv", None, "no such file"),
    ],
)
def test_a_file_that_is_no_spreadsheet_is_refused(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    pictures(tmp_path / "006_1", ["006_1_0001.jpg"])
    if content is not None:
        (tmp_path / name).write_bytes(content)
    (found,) = mistakes_of(lambda: read("samm-lv", tmp_path, tmp_path / name))
    assert message in found


def test_a_recording_without_pictures_is_an_error_and_its_rows_are_not_reported_too(tmp_path: Path) -> None:
    samm(tmp_path)
    for picture in (tmp_path / "SAMM_longvideos" / "011_2").iterdir():
        picture.unlink()
    (found,) = mistakes_of(lambda: read("samm-lv", tmp_path))
    assert "011_2: holds no numbered images" in found


def test_a_video_of_another_rate_is_taken_at_the_rate_of_the_set(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = movie(tmp_path / "dzw_a1.avi", 10, 25)
    with caplog.at_level(logging.WARNING):
        frames = list(Source("dzw_a1", "dzw", 30.0, path).frames())
    assert frames[-1].timestamp_ns == 300_000_000
    assert "the file states 25 frames/s, the set 30" in caplog.text
