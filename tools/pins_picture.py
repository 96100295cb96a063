"""Draws what the pins did as a time line."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

from tools.pins_signals import Change, Signal

matplotlib.use("agg")
from matplotlib import pyplot  # the backend is chosen before pyplot, which would look for a screen

LANES = (
    ("camera", "camera open", "0.25"), ("capture", "capture LED", "tab:orange"),
    ("privacy", "privacy switch", "tab:purple"), ("button", "identify button", "tab:purple"),
    ("red", "event LED, red", "red"), ("green", "green", "limegreen"), ("blue", "blue", "royalblue"),
    ("fault", "fault LED", "crimson"),
)  # fmt: skip


def draw(
    changes: Sequence[Change], steps: Sequence[tuple[float, str]], told: Sequence[Signal], path: Path
) -> None:
    """Write a picture with a row for each pin, the steps above, and what the LEDs told beside them."""
    end_s = steps[-1][0]
    figure, axis = pyplot.subplots(figsize=(22, 6.5))
    try:
        for row, (lane, _, colour) in enumerate(LANES):
            since_s: float | None = None
            for change in [*(one for one in changes if one.lane == lane), Change(end_s, lane, False)]:
                if change.is_on and since_s is None:
                    since_s = change.time_s
                elif not change.is_on and since_s is not None:
                    axis.barh(row, change.time_s - since_s, left=since_s, height=0.7, color=colour)
                    since_s = None
        for signal in told:
            row = 3.5 if signal.led == "event" else 7.55
            axis.text(
                signal.start_s,
                row,
                signal.meaning,
                fontsize=7,
                rotation=30,
                va="bottom" if row < 5 else "top",
            )
        for time_s, what in steps:
            if not what.startswith(" "):
                axis.axvline(time_s, color="0.7", linewidth=0.8, zorder=0)
                axis.text(time_s, -0.7, what, fontsize=8, rotation=25, va="bottom")
        axis.set_yticks(range(len(LANES)), [name for _, name, _ in LANES])
        axis.set_ylim(8.4, -0.6)
        axis.set_xlim(-0.3, end_s + 0.3)
        axis.set_xlabel("s")
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
        figure.tight_layout()
        figure.savefig(path, dpi=90)
    finally:
        pyplot.close(figure)
