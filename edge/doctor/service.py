"""Area *service*: the unit as systemd has it, how it has been doing, its hardening, and the watchdogs."""

import re
from collections.abc import Iterator
from pathlib import Path

from edge.doctor.case import UNIT, Case
from edge.doctor.finding import Finding, failed, passed, skipped, warned

EXPOSURE = 2.0
"""Most that `systemd-analyze security` may say of the unit; the shipped one is below."""
MANY_RESTARTS = 3
_ANALYZE_S = 20.0
_AGAIN = "sudo systemctl edit microedge --full shows it; to have the shipped one again: sudo tools/install"


def unit(case: Case) -> Iterator[Finding]:
    """Hold the installed unit against the shipped one."""
    if not case.system.path("/run/systemd/system").is_dir():
        yield skipped("service", "systemd does not run here")
        return
    if not case.service.is_installed:
        yield skipped("service", "microedge is not installed as a service here", "sudo tools/install")
        return
    fragment = case.service.value("FragmentPath")
    text, shipped = case.system.read(fragment), _shipped(case)
    drop_ins = [Path(each).name for each in case.service.value("DropInPaths").split()]
    beside = f"; drop-ins: {', '.join(drop_ins)}" if drop_ins else ""
    if case.service.value("NeedDaemonReload") == "yes":
        yield warned("unit", f"{fragment}: has changed since systemd read it", "sudo systemctl daemon-reload")
    elif text and shipped and text != shipped:
        yield warned("unit", f"{fragment}: differs from the one of this version{beside}", _AGAIN)
    else:
        yield passed("unit", f"{fragment}{' as shipped' if text == shipped else ''}{beside}")


def condition(case: Case) -> Iterator[Finding]:
    """Say how the service is doing and how it ended last time."""
    service = case.service
    if not service.is_installed:
        return
    if service.value("UnitFileState") != "enabled":
        state = service.value("UnitFileState") or "not enabled"
        words = f"{UNIT} is {state}: it does not start with the machine"
        yield warned("at boot", words, "sudo systemctl enable microedge")
    else:
        yield passed("at boot", "enabled")
    active, sub = service.value("ActiveState"), service.value("SubState")
    status = service.value("StatusText") if service.is_running else ""
    words = f"{active} ({sub})" + (f": {status}" if status else "")
    last = f"last exit {service.value('Result')}, code {service.value('ExecMainStatus')}"
    # A line of status begins with the state that the health message has too.
    if status.startswith("fault"):
        yield failed("state", words, "the other areas say more; journalctl -u microedge -e")
    elif status.startswith("degraded"):
        yield warned("state", words, "the other areas say more; journalctl -u microedge -e")
    elif active == "active":
        yield passed("state", words)
    elif active == "failed" or sub == "auto-restart":
        why = "wrong configuration: microedge config check" if service.value("ExecMainStatus") == "2" else ""
        yield failed("state", f"{words}, {last}{_last_words(case)}", why or "journalctl -u microedge -e")
    elif active == "inactive":
        yield warned("state", f"{words}: it does not run; {last}", "sudo systemctl start microedge")
    else:
        yield warned("state", words, "look again in a minute: systemctl status microedge")
    text = service.value("NRestarts")
    restarts = int(text) if text.isdecimal() else 0
    if restarts >= MANY_RESTARTS:
        yield warned("restarts", f"{restarts} since it was last started by hand; {last}",
                     "journalctl -u microedge -p warning -e")  # fmt: skip
    else:
        yield passed("restarts", f"{restarts} since it was last started by hand")


def watchdogs(case: Case) -> Iterator[Finding]:
    """Look at what restarts a hung service, and a hung machine."""
    if not case.service.is_installed:
        return
    period = case.service.value("WatchdogUSec")
    if not case.service.is_running:
        # systemd tells what the last process had.
        written = next(reversed(case.written("WatchdogSec")), "")
        period = f"{written} s" if written.isdecimal() and int(written) else written
    if period in ("", "0", "infinity"):
        yield warned("watchdog", "WatchdogSec is off: nothing restarts a service that hangs", _AGAIN)
    else:
        yield passed("watchdog", f"a service that makes no progress for {period} is restarted")
    answer = case.system.run("systemctl", "show", "--property", "RuntimeWatchdogUSec")
    period = answer.text.partition("=")[2]
    if not case.system.glob("/dev/watchdog*"):
        yield skipped("board watchdog", "this machine has none")
    elif period in ("", "0", "infinity"):
        yield warned(
            "board watchdog", "is off: a machine that hangs stays so until somebody pulls the plug",
            "put RuntimeWatchdogSec=15 below [Manager] into /etc/systemd/system.conf.d/60-microedge-watchdog.conf; "
            "sudo systemctl daemon-reexec",
        )  # fmt: skip
    else:
        yield passed("board watchdog", f"a machine that hangs for {period} is started again")


def hardening(case: Case) -> Iterator[Finding]:
    """Ask systemd how much of the machine the unit could reach."""
    if not case.service.is_installed:
        return
    answer = case.system.run("systemd-analyze", "security", "--no-pager", UNIT, timeout_s=_ANALYZE_S)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", answer.text)
    if found is None:
        yield skipped("hardening", f"systemd-analyze security tells nothing: {answer.problem or 'no figure'}")
    elif float(found[1]) > EXPOSURE:
        yield warned(
            "hardening", f"exposure {found[1]}, must be at most {EXPOSURE}: a drop-in has taken protection away",
            f"systemd-analyze security {UNIT}; systemctl cat {UNIT}",
        )  # fmt: skip
    else:
        yield passed("hardening", f"exposure {found[1]} of 10, at most {EXPOSURE}")


def journal(case: Case) -> Iterator[Finding]:
    """Look for a limit on what the log may take of the disk."""
    if not case.service.is_installed:
        return
    files = [
        path
        for folder in ("/usr/lib/systemd", "/etc/systemd")
        for path in (
            *case.system.glob(f"{folder}/journald.conf"),
            *case.system.glob(f"{folder}/journald.conf.d/*.conf"),
        )
    ]
    limits = [
        line.strip()
        for path in files
        for line in case.system.read(case.system.shown(path)).splitlines()
        if re.match(r"(SystemMaxUse|RuntimeMaxUse|Storage=volatile)", line.strip())
    ]
    if limits:
        yield passed("journal", f"limited: {', '.join(dict.fromkeys(limits))}")
    else:
        yield warned(
            "journal", "may take a tenth of the disk, up to 4 GB, and writes to the card at any time",
            "put SystemMaxUse=64M below [Journal] into /etc/systemd/journald.conf.d/60-microedge.conf; "
            "sudo systemctl restart systemd-journald",
        )  # fmt: skip


CHECKS = (unit, condition, watchdogs, hardening, journal)


def _shipped(case: Case) -> str:
    """Give the unit of this version; empty where it is not to be found."""
    try:
        return Path(case.shipped(UNIT)).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _last_words(case: Case) -> str:
    """Give the last line that the service wrote into the log."""
    unit = f"_SYSTEMD_UNIT={UNIT}"
    answer = case.system.run("journalctl", unit, "--lines", "1", "--output", "cat", "--quiet", "--no-pager")
    lines = answer.text.splitlines()
    return f"; it said last: {lines[-1][:200]}" if lines and not answer.problem else ""
