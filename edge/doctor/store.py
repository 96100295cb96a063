"""Area *store*: the state folder, its disk, and how the events in it are doing."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from edge.doctor.case import Case
from edge.doctor.finding import Finding, failed, passed, skipped, warned
from edge.errors import HistoryError
from edge.store.file import FILE, WAITING, set_aside_files, state_folder
from edge.store.folder import LEAST_FREE_MB, folder_problem, room_problem
from edge.store.reading import HistoryFile

LITTLE_FREE_MB = 200
"""Room below which a person should look, days before LEAST_FREE_MB is reached."""
SHARE_WAITING = 0.5
"""Of `outbox.max_events`; above it the oldest waiting event may soon be given up."""
LONG_H = 1.0
"""A working broker takes every event within seconds."""
_SERVICE_FOLDER = "/var/lib/microedge"
_IN_MEMORY = ("tmpfs", "ramfs")
_ROOM = "sudo apt clean; sudo journalctl --vacuum-size=50M; du -xh / | sort -h | tail"


def folder(case: Case) -> Iterator[Finding]:
    """Look at whether events can be kept, and whether they outlive a power cut."""
    if not case.is_config_known:
        yield skipped("folder", "the configuration may not be read")
        return
    place = _folder(case)
    if case.service.is_installed and not case.config.outbox.folder and not _exists(place):
        yield skipped("folder", f"{place}: the service makes it when it first starts")
        return
    if problem := folder_problem(place, case.user, statvfs=case.system.statvfs):
        advice = f"sudo chown -R {case.user.name or '$USER'} {place}"
        if "read-only" in problem:
            advice = "dmesg | grep -i remount: a card that fails is made read-only; else: sudo mount -o remount,rw /"
        yield failed("folder", problem, advice)
        return
    kind = _file_system(case, place)
    words = f"{place}: {case.who()} may write to it ({kind or 'unknown file system'})"
    if kind in _IN_MEMORY:
        advice = "name a folder on a disk in outbox.folder; with an overlay root, on another partition"
        yield warned("folder", f"{words}: in memory, so that a power cut takes waiting events along", advice)
    else:
        yield passed("folder", words)


def room(case: Case) -> Iterator[Finding]:
    """Look at how much room the disk has left."""
    if not case.is_config_known:
        return
    place = _folder(case)
    if problem := room_problem(place, statvfs=case.system.statvfs):
        yield failed("disk", problem, _ROOM)
        return
    try:
        disk = case.system.statvfs(next(each for each in (place, *place.absolute().parents) if _exists(each)))
    except OSError as error:
        yield skipped("disk", f"{place}: {error.strerror}")
        return
    free_mb, all_mb = (blocks * disk.f_frsize // 1_000_000 for blocks in (disk.f_bavail, disk.f_blocks))
    words = f"{free_mb} of {all_mb} MB free, at least {LEAST_FREE_MB} are needed"
    yield warned("disk", words, _ROOM) if free_mb < LITTLE_FREE_MB else passed("disk", words)


def events(case: Case) -> Iterator[Finding]:
    """Look into the outbox: is it sound, what waits, what was lost."""
    if not case.is_config_known:
        return
    place = _folder(case)
    if not _exists(place / FILE):
        yield skipped("events", f"{place}: none yet")
        return
    file = HistoryFile(place)
    try:
        ((state,),) = file.ask("PRAGMA quick_check(1)")
        ((waiting, oldest_ms),) = file.ask(
            "SELECT count(*), min(kept_ms) FROM events WHERE waiting = ?", (WAITING,)
        )
        losses = file.ask(
            "SELECT reason, sum(last_seq - first_seq + 1), max(time) FROM losses GROUP BY reason"
        )
        ((kept,),) = file.ask("SELECT count(*) FROM events")
    except HistoryError as error:
        if "may not be read by this user" in str(error):
            case.unseen["the events that wait"] = None
            yield skipped("events", f"{place}: this user may not read them", "sudo microedge doctor")
        else:
            yield failed(
                "events", str(error).partition("; outbox.folder or")[0], "sudo systemctl restart microedge"
            )
        return
    finally:
        file.close()
    if state != "ok":
        yield failed(
            "events",
            f"{place / FILE}: is damaged: {state}",
            "sudo systemctl restart microedge: sets it aside",
        )
        return
    yield _waiting(case, waiting, oldest_ms, kept)
    if losses:
        why = ", ".join(f"{reason} {number}" for reason, number, _ in losses)
        yield warned("lost events", f"{why}; the last on {max(time for _, _, time in losses)}",
                     "microedge events names them; full: is the broker reached?")  # fmt: skip


def damaged(case: Case) -> Iterator[Finding]:
    """Look for files that the service found damaged and set aside."""
    if case.is_config_known and (aside := _set_aside(_folder(case))):
        place = _folder(case)
        yield warned(
            "damaged files", f"{len(aside)} set aside, the last {aside[-1].name}: after a power cut, or the card fails",
            f"if it happens again, take a new card; then: sudo rm {place}/events.damaged-*",
        )  # fmt: skip


CHECKS = (folder, room, events, damaged)


def _waiting(case: Case, waiting: int, oldest_ms: int | None, kept: int) -> Finding:
    most = case.config.outbox.max_events
    words = f"sound, {kept} kept, {waiting} waiting for the broker (outbox.max_events = {most})"
    if not waiting or oldest_ms is None or not case.config.mqtt.enabled:
        return passed("events", words)
    age_h = (case.system.now() - datetime.fromtimestamp(oldest_ms / 1000, UTC)).total_seconds() / 3600
    words += f", the oldest for {age_h:.1f} h" if age_h >= 0 else ", the oldest from the future"
    if waiting >= SHARE_WAITING * most or age_h > LONG_H:
        return warned("events", words, "see area broker; nothing is lost until the outbox is full")
    return passed("events", words)


def _folder(case: Case) -> Path:
    if case.service.is_installed and not case.config.outbox.folder:
        return case.system.path(_SERVICE_FOLDER)
    return state_folder(case.config)


def _file_system(case: Case, place: Path) -> str:
    """Give the kind of file system that what is written to a folder lands on; empty if it cannot be told."""
    place = place.absolute()
    name = case.system.shown(place) if place.is_relative_to(case.system.root) else str(place)
    kind, options = _mounted(case, name)
    upper = re.search(r"\bupperdir=([^,\s]+)", options)
    if kind == "overlay" and upper is not None:
        # An overlay only hides where it writes to: memory on a Raspberry Pi with a protected card, a disk elsewhere.
        return _mounted(case, upper[1])[0]
    return kind


def _mounted(case: Case, name: str) -> tuple[str, str]:
    """Give kind and options of the mount that a path lies on."""
    best = ("", "", "")
    for line in case.system.read("/proc/self/mounts").splitlines():
        _, point, kind, options, *_ = (*line.split(), "", "", "", "")
        if Path(name).is_relative_to(point or "-") and len(point) >= len(best[0]):
            best = (point, kind, options)
    return best[1], best[2]


def _set_aside(place: Path) -> list[Path]:
    try:
        return set_aside_files(place / FILE)
    except PermissionError:
        return []


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        return True
