"""Figures as a person reads them: one table, a column for each spotter and frame rate."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import isnan

from rich.console import Console
from rich.table import Table

from tools.evaluate.figures import Estimate, Figures, why_missed
from tools.evaluate.loso import Chosen
from tools.evaluate.matching import Rules, match
from tools.evaluate.records import NAMES, Recording
from tools.evaluate.table import DURATIONS_MS, INTENSITIES

_PERCENT = 100.0

HEADLINE: tuple[tuple[str, str, str], ...] = (
    ("F1, all peaks", "f1", "{:.3f}"),
    ("F1, peaks from 1 % IOD", "f1_from_1_percent", "{:.3f}"),
    ("precision", "precision", "{:.3f}"),
    ("recall", "recall", "{:.3f}"),
    ("recall, peaks from 1 %", "recall_from_1_percent", "{:.3f}"),
    ("recall, 40-80 ms from 1 %", "recall_40_80_ms_from_1_percent", "{:.3f}"),
    ("false alarms an hour", "false_per_hour", "{:.1f}"),
    ("apex error, median, ms", "apex_error_ms", "{:.1f}"),
    ("apex error, 90 %, ms", "apex_error_90_ms", "{:.1f}"),
    ("onset error, median, ms", "onset_error_ms", "{:.1f}"),
    ("onset error, 90 %, ms", "onset_error_90_ms", "{:.1f}"),
    ("offset error, median, ms", "offset_error_ms", "{:.1f}"),
    ("offset error, 90 %, ms", "offset_error_90_ms", "{:.1f}"),
    ("told after the offset, median, ms", "delay_ms", "{:.0f}"),
    ("told after the offset, 90 %, ms", "delay_90_ms", "{:.0f}"),
    ("seven emotions, UF1", "uf1_seven", "{:.3f}"),
    ("seven emotions, UAR", "uar_seven", "{:.3f}"),
    ("positive, negative, surprise, UF1", "uf1_three", "{:.3f}"),
    ("positive, negative, surprise, UAR", "uar_three", "{:.3f}"),
    ("the field's four classes, F1", "f1_four", "{:.3f}"),
    ("STRS", "strs", "{:.4f}"),
    ("STRS, seven emotions", "strs_seven", "{:.4f}"),
    ("`uncertain`, share", "uncertain_share", "{:.3f}"),
    ("accuracy of the rest", "accuracy_of_the_rest", "{:.3f}"),
    ("calibration error of confidence", "calibration_error", "{:.3f}"),
    ("  bins of equal count", "calibration_error_equal_count", "{:.3f}"),
    ("  false alarms counted as wrong", "calibration_error_with_false", "{:.3f}"),
    ("calibration error of spot_score", "score_calibration_error", "{:.3f}"),
    ("action units, F1", "action_unit_f1", "{:.3f}"),
    ("action units and side, F1", "action_unit_side_f1", "{:.3f}"),
)
"""Row, name in Figures.estimates, format."""

_RECALLS = (
    *((f"recall, {low}-{high} ms", f"recall_{low}_to_{high}_ms") for low, high in DURATIONS_MS),
    *(
        (f"recall, {low:g}-{most:g} % IOD", f"recall_{low:g}_to_{most:g}_percent")
        for low, most in INTENSITIES
    ),
)


def columns(recordings: Iterable[Recording]) -> dict[str, list[Recording]]:
    """Sort recordings into the columns of a report: by spotter and frame rate to the nearest Hz."""
    result: dict[str, list[Recording]] = {}
    for recording in recordings:
        result.setdefault(f"{recording.spotter}, {recording.rate_hz:.0f} Hz", []).append(recording)
    return dict(
        sorted(result.items(), key=lambda item: (item[0].split(",")[0] != "device", -item[1][0].rate_hz))
    )


def show(console: Console, of: Mapping[str, Figures]) -> None:
    """Print all figures."""
    table = Table(title="95 % intervals in brackets: people drawn again", title_justify="left")
    table.add_column("", no_wrap=True)
    for name in of:
        table.add_column(name, justify="right")

    def row(label: str, cells: Iterable[str]) -> None:
        table.add_row(label, *cells)

    row("recordings, people", (f"{f.recordings}, {f.people}" for f in of.values()))
    row(
        "time, assessable",
        (f"{f.duration_s / 60:.1f} min, {_PERCENT * f.assessable_share:.1f} %" for f in of.values()),
    )
    row(
        "found, missed, false",
        (f"{f.counts.true}, {f.counts.missed}, {f.counts.false}" for f in of.values()),
    )
    row("not assessed", (_share(f.unassessed, f.unassessed_share) for f in of.values()))
    row("found outside the class", (str(f.aside) for f in of.values()))
    table.add_section()
    for label, name, form in HEADLINE:
        row(label, (_estimate(f.estimates[name], form) for f in of.values()))
        if name == "false_per_hour":
            row(
                "  exact, if independent",
                ("[{:.1f}, {:.1f}]".format(*f.false_per_hour_poisson) for f in of.values()),
            )
    table.add_section()
    for label, name in _RECALLS:
        row(label, (_estimate(f.estimates[name], "{:.3f}") for f in of.values()))
    for title, counters in (
        ("missed: ", [f.missed_because for f in of.values()]),
        ("turned down: ", [f.refusals for f in of.values()]),
    ):
        table.add_section()
        for key in dict.fromkeys(key for counter in counters for key in counter):
            row(title + key, (str(counter.get(key, 0)) for counter in counters))
    table.add_section()
    for kind in dict.fromkeys(kind for f in of.values() for kind in f.false_during):
        row(f"false during {kind} (an hour of it)", (_alarms(f, kind) for f in of.values()))
    console.print(table)
    for name, figures in of.items():
        if figures.confusion.any():
            console.print(_confusion(name, figures))


def listing(recordings: Iterable[Recording], rules: Rules) -> list[str]:
    """Name each micro-expression that was missed, with what became of it, and each false alarm."""
    lines = []
    for recording in recordings:
        outcome = match(recording, rules)
        where = f"{recording.spotter} {recording.name}"
        for missed in outcome.missed:
            truth = missed.truth
            if not rules.counts(truth):
                continue
            size = f"{100 * truth.peak_iod:.1f} % IOD, " if truth.peak_iod is not None else ""
            units = " ".join(au for au, _ in truth.action_units)
            lines.append(
                f"missed  {where} at {truth.onset_s:.2f} s, "
                f"{1000 * (truth.offset_s - truth.onset_s):.0f} ms, {size}"
                f"{truth.emotion} {units}: {why_missed(truth, outcome)}"
            )
        lines += [
            f"false   {where} at {answer.onset_s:.2f} s, {1000 * (answer.offset_s - answer.onset_s):.0f} ms, "
            f"{100 * answer.intensity_iod:.1f} % IOD, {answer.emotion}, evidence {answer.score:.2f}"
            for answer in outcome.false
        ]
    return lines


def choices(title: str, chosen: Sequence[Chosen]) -> Table:
    """Show what was chosen for how many people."""
    table = Table(title=f"{title}: chosen on the other people", title_justify="left")
    for heading in ("threshold", "temperature", "people"):
        table.add_column(heading, justify="right")
    counts = Counter((one.threshold, one.temperature) for one in chosen)
    for (threshold, temperature), people in sorted(counts.items()):
        table.add_row(f"{threshold:.2f}", f"{temperature:.2f}", str(people))
    return table


def thresholds(of: Mapping[str, Figures]) -> Table:
    """Show what other thresholds would have brought, chosen or not: pick one on people who are not scored."""
    table = Table(title="by spot.threshold: F1, false alarms an hour", title_justify="left")
    table.add_column("threshold", justify="right")
    for name in of:
        table.add_column(name, justify="right")
    for points in zip(*(figures.curve for figures in of.values()), strict=True):
        cells = (f"{point.counts.f1:.3f}, {point.false_per_hour:.1f}" for point in points)
        table.add_row(f"{points[0].threshold:.2f}", *cells)
    return table


def _estimate(estimate: Estimate, form: str) -> str:
    if isnan(estimate.value):
        return "-"
    text = form.format(estimate.value)
    if isnan(estimate.low):
        return text
    return f"{text} [{form.format(estimate.low)}, {form.format(estimate.high)}]"


def _share(number: int, share: float) -> str:
    return str(number) if isnan(share) else f"{number} ({_PERCENT * share:.1f} %)"


def _alarms(figures: Figures, kind: str) -> str:
    alarms = figures.false_during.get(kind)
    if alarms is None:
        return "-"
    return f"{alarms.false}" if isnan(alarms.per_hour) else f"{alarms.false} ({alarms.per_hour:.0f})"


def _confusion(name: str, figures: Figures) -> Table:
    table = Table(title=f"{name}: what true positives were taken for", title_justify="left")
    table.add_column("truth")
    for emotion in NAMES:
        table.add_column(emotion[:9], justify="right")
    for emotion, counts in zip(NAMES, figures.confusion.astype(int), strict=True):
        table.add_row(emotion, *(str(number) if number else "." for number in counts))
    return table
