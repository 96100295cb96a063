"""`microedge events`: what this device has seen, as a table, as it happens, or as a file for another program."""

import argparse
import re
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

from edge.commands import StopRequest, configuration
from edge.commands.events_view import Tally, View
from edge.commands.export import write_csv, write_parquet
from edge.errors import ConfigError, HistoryError
from edge.records import EMOTIONS
from edge.store.history import MOVEMENT, History, Kept, Selection, history_folder

TABLE_EVENTS = 20
"""Events of a table unless `--last` says otherwise."""
FOLLOW_S = 0.25
"""How often following looks for new events."""
WORDS = (*EMOTIONS, "other", "uncertain", MOVEMENT)
_AGO = re.compile(r"(?:[0-9]+[wdhms])+")
_PART = re.compile(r"([0-9]+)([wdhms])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def main(arguments: argparse.Namespace) -> int:
    """Show, follow or export what was asked for.

    Raises:
        ConfigError: a value cannot be read, or two options do not go together.
        EdgeError: there is no history, it cannot be read, or the file cannot be written.
    """
    _check(arguments)
    zone = UTC if arguments.utc else None
    config = configuration(arguments)
    selection = _selection(arguments, zone)
    # What another program reads has standard output to itself.
    view = View(zone, to_stderr=arguments.json or arguments.csv == "-")
    with History(arguments.folder or history_folder(config)) as history:
        if arguments.follow:
            _follow(history, selection, view, as_json=arguments.json)
        else:
            _show(history, selection, view, arguments)
    return 0


def _show(history: History, selection: Selection, view: View, arguments: argparse.Namespace) -> None:
    """Give what there is now, then say what it is and what is missing from it."""
    tally = Tally()
    events = tally.through(history.events(selection))
    goal = ""
    if arguments.json:
        for kept in events:
            print(kept.text)
    elif arguments.csv:
        goal = arguments.csv
        write_csv(events, None if goal == "-" else Path(goal))
    elif arguments.parquet:
        goal = arguments.parquet
        write_parquet(events, Path(goal))
    else:
        view.show(list(events))
    view.say(tally.sentence(view) + (f" Written to {goal}." if goal not in ("", "-") else ""), "bold")
    oldest = history.oldest()
    if oldest is None:
        view.say(f"The history in {history.path} is empty.")
    else:
        hidden = selection == Selection(last=TABLE_EVENTS) and tally.first != oldest
        older = "; --last N shows more of it" if hidden else ""
        began = view.moment(oldest.time)
        view.say(f"The history in {history.path} begins {began} with seq {oldest.seq}{older}.", "dim")
    view.losses(history.losses())


def _follow(history: History, selection: Selection, view: View, *, as_json: bool) -> None:
    """Give what there is, then each event as it is committed, until Ctrl-C or SIGTERM."""

    def show(events: Iterable[Kept]) -> None:
        if not as_json:
            view.show(list(events))
            return
        for kept in events:
            print(kept.text, flush=True)

    problem = ""
    with StopRequest() as stop:
        follower = history.follow(history.before(selection), selection)
        while not stop.is_made:
            fresh: list[Kept] = []
            try:
                for lost in follower.lost():
                    view.loss(lost)
                fresh = follower.more()
                now = ""
            except HistoryError as error:
                # A damaged file is about to be replaced, or a card has been taken out; either may pass.
                now = str(error)
            if now != problem:
                view.say(now or f"{history.path}: can be read again", "bold red" if now else "")
                problem = now
            show(fresh)
            if not fresh:
                time.sleep(FOLLOW_S)


def _check(arguments: argparse.Namespace) -> None:
    """Refuse options that do not go together and words that no event has.

    Raises:
        ConfigError: naming them.
    """
    if arguments.follow and (arguments.csv or arguments.parquet):
        raise ConfigError("--follow goes with a table or --json, not with --csv or --parquet")
    if arguments.follow and arguments.until:
        raise ConfigError("--follow has no end: leave --until out")
    if arguments.parquet == "-":
        raise ConfigError("--parquet -: must be a file; --csv - and --json write to standard output")
    if arguments.emotion and arguments.emotion not in WORDS:
        raise ConfigError(f"--emotion {arguments.emotion}: must be one of {', '.join(WORDS)}")


def _selection(arguments: argparse.Namespace, zone: tzinfo | None) -> Selection:
    is_table = not (arguments.json or arguments.csv or arguments.parquet)
    return Selection(
        since=_moment("--since", arguments.since, zone),
        until=_moment("--until", arguments.until, zone),
        emotion=arguments.emotion,
        session=arguments.session,
        last=arguments.last or (TABLE_EVENTS if is_table else None),
    )


def _moment(option: str, text: str, zone: tzinfo | None) -> datetime | None:
    """Read `2026-11-23T10:15`, with or without a zone, or `1d12h` for so long ago; None if nothing is given.

    Raises:
        ConfigError: it is neither.
    """
    if not text:
        return None
    try:
        if _AGO.fullmatch(text):
            ago_s = sum(int(number) * _UNIT_S[unit] for number, unit in _PART.findall(text))
            return datetime.now(UTC) - timedelta(seconds=ago_s)
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None and zone is not None:
            return moment.replace(tzinfo=zone)
        return moment if moment.tzinfo is not None else moment.astimezone()
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            f"{option} {text}: must be a time such as 2026-11-23T10:15 (Z at its end for UTC) or an age such as "
            "90s, 45m, 2h, 3d, 1d12h or 2w"
        ) from error
