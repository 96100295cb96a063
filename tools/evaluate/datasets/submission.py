"""Answers in the form that the challenges take: one .csv for each of the two halves of the unseen set.

Spotting (MEGC 2022 to 2024): `vid,onset,offset,type`, type `me` or `mae`, as the second-placed entry of 2023 has it
(qin123xyz/MEGC2023_macro-and-micro-expression-spotting). In 2022 the frames' columns were named `pred_onset` and
`pred_offset` (genbing99/MTSN-Spot-ME-MaE). Spot-then-recognise (2024 on): `subject,video,onset,offset,emotion` as in
hitheyuhong/MEGC2024-CODE and the organisers' genbing99/STRS-Metric, emotion `negative`, `positive`, `surprise` or
`others`. Frames are numbered as the images are.
"""

import argparse
import csv
import io
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from tools.evaluate.datasets.source import Source
from tools.evaluate.datasets.words import MICRO_AT_MOST_S
from tools.evaluate.records import NAMES, Answer

FORMS = ("spot", "recognise")

_COLUMNS = {
    "spot": ("vid", "onset", "offset", "type"),
    "recognise": ("subject", "video", "onset", "offset", "emotion"),
}
_CLASSES = {"happiness": "positive", "surprise": "surprise", "other": "others"}
"""The challenges' classes; every other emotion is negative."""


def target(argument: str) -> Path:
    """Read a command-line argument as where a submission goes, before hours are spent on it.

    Raises:
        argparse.ArgumentTypeError: it is neither a .zip nor a folder.
    """
    path = Path(argument)
    if path.suffix and path.suffix.lower() != ".zip" and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{path}: a submission is two tables: name a .zip or a folder")
    return path


def write_submission(
    path: Path, answered: Iterable[tuple[Source, Sequence[Answer]]], form: str = "spot"
) -> None:
    """Write what was answered for each recording of the unseen set.

    Args:
        path: as `target` takes it: a .zip, which then holds `cas_pred.csv` and `samm_pred.csv`, or a folder.
        answered: recordings with their answers.
        form: one of FORMS.
    """
    tables: dict[str, list[tuple[object, ...]]] = {"cas_pred.csv": [], "samm_pred.csv": []}
    for source, answers in answered:
        half = "samm_pred.csv" if source.rate_hz > 100 else "cas_pred.csv"
        tables[half] += [_row(source, answer, form) for answer in sorted(answers, key=lambda a: a.onset_s)]
    texts = {name: _csv(_COLUMNS[form], rows) for name, rows in tables.items()}
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in texts.items():
                archive.writestr(name, text)
    else:
        path.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (path / name).write_text(text)


def _row(source: Source, answer: Answer, form: str) -> tuple[object, ...]:
    onset, offset = source.frame_number(answer.onset_s), source.frame_number(answer.offset_s)
    if form == "spot":
        is_micro = answer.offset_s - answer.onset_s <= MICRO_AT_MOST_S
        return source.name, onset, offset, "me" if is_micro else "mae"
    return source.subject, source.name, onset, offset, _class_of(answer)


def _class_of(answer: Answer) -> str:
    """Give the challenge's class; where the device said `uncertain`, that of its likeliest emotion."""
    emotion = answer.emotion
    if emotion in {None, "uncertain"} and answer.probabilities:
        emotion = NAMES[max(range(len(answer.probabilities)), key=answer.probabilities.__getitem__)]
    if emotion in {None, "uncertain"}:
        return "others"
    return _CLASSES.get(str(emotion), "negative")


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return stream.getvalue()
