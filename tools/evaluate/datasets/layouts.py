"""The data sets by name: where each one's parts are read.

The data need a licence and none was at hand: these layouts are as public readers and annotations show them, named in
each module. What those do not show is not known here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tools.evaluate.datasets import cas_me_2, cas_me_3, megc_unseen, samm_lv
from tools.evaluate.datasets.annotations import Annotation
from tools.evaluate.datasets.mistakes import Mistakes
from tools.evaluate.datasets.source import Recorded


@dataclass(frozen=True, slots=True)
class Layout:
    """One data set."""

    title: str
    expected: str
    """What its folder should hold, for the message that it does not."""
    recordings: Callable[[Path], list[Recorded]]
    sheets: Callable[[Path], list[Path]]
    """The sheets in its folder; none if they are not there."""
    annotations: Callable[[Path, Mistakes], list[Annotation]]
    sheet_expected: str = ""
    """Name of its sheet; empty where the set is published without one."""
    counts: tuple[int, int, int] | None = None
    """Recordings, micro- and macro-expressions of the whole set: fewer is not the set of the literature."""


LAYOUTS: dict[str, Layout] = {
    "cas-me-2": Layout(
        "CAS(ME)^2",
        "rawpic/s15/15_0101disgustingteeth/img001.jpg or rawvideo/s15/15_0101disgustingteeth.avi",
        cas_me_2.recordings,
        cas_me_2.sheets,
        cas_me_2.annotations,
        "CAS(ME)^2code_final(Updated).xlsx",
        (97, 57, 300),
    ),
    "samm-lv": Layout(
        "SAMM Long Videos",
        "SAMM_longvideos/006_1/006_1_0001.jpg or SAMM_longvideos/006_1.avi",
        samm_lv.recordings,
        samm_lv.sheets,
        samm_lv.annotations,
        "SAMM_LongVideos_V3_Release.xlsx",
        (147, 159, 343),
    ),
    "cas-me-3": Layout(
        "CAS(ME)^3 part A",
        "part_A/spNO.1/a/color/8.jpg",
        cas_me_3.recordings,
        cas_me_3.sheets,
        cas_me_3.annotations,
        "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx",
        (1300, 860, 3346),
    ),
    "megc-unseen": Layout(
        "MEGC unseen set",
        "SAMM's 001_2/001_2_0001.jpg (200 frames/s) and CAS(ME)^3's dzw_a1/1.jpg (30 frames/s), or videos so named",
        megc_unseen.recordings,
        megc_unseen.sheets,
        megc_unseen.annotations,
    ),
}
