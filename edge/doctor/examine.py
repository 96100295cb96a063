"""Runs the checks, each area in a child process, so that one that hangs or crashes is a line of the report.

A camera library may hang, a broken wheel may end the process that loads it, and neither can be taken back within one
process. So the child says over a pipe which check it begins and what it found; when nothing comes in time, or the
child is gone, that check has failed, and another child goes on behind it.
"""

import contextlib
import faulthandler
import importlib
import json
import os
import selectors
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

from edge.doctor import AREAS
from edge.doctor.case import Case
from edge.doctor.finding import Finding, Verdict, failed
from edge.store.folder import User

Check = Callable[[Case], Iterable[Finding]]

CHECK_S = 30.0
"""Longest time that one check gets; each bounds what it waits for by less."""
LOAD_S = 30.0
"""Longest time for the libraries of an area to be loaded from a slow card."""
HANGING = {
    "camera": "sudo systemctl stop microedge; if it hangs again: switch off, look at the camera's cable, switch on",
    "broker": "getent hosts NAME shows whether the name service answers",
    "store": "dmesg | tail: a disk that does not answer is about to fail",
}
"""What to do about a check that hangs, by area."""
REPORT_IT = "please report it, with the output of microedge doctor --json"


@dataclass(frozen=True, slots=True)
class Line:
    """A finding and where it belongs."""

    area: str
    finding: Finding


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was found."""

    lines: tuple[Line, ...]
    unseen: tuple[str, ...]
    """What this user may not see, in words."""
    seconds: float
    """How long it took."""

    def count(self, verdict: Verdict) -> int:
        return sum(line.finding.verdict is verdict for line in self.lines)

    @property
    def verdict(self) -> Verdict:
        """The worst of all; a report of nothing but skipped lines passes."""
        return next((each for each in (Verdict.FAIL, Verdict.WARN) if self.count(each)), Verdict.PASS)

    @property
    def exit_code(self) -> int:
        """0: nothing failed. 1: something did."""
        return int(self.count(Verdict.FAIL) > 0)


def examine(
    case: Case,
    areas: Sequence[str] = AREAS,
    *,
    check_s: float = CHECK_S,
    begun: Callable[[str], None] = lambda area: None,
) -> Report:
    """Run the checks of `areas` one after the other and give what they found.

    Args:
        case: the machine and its configuration.
        areas: of AREAS.
        check_s: longest time for one check.
        begun: told of each area before it is looked at.
    """
    started_s = time.monotonic()
    # Asked once, here, and not by every child anew.
    _ = case.service, case.user
    lines: list[Line] = []
    unseen: dict[str, None] = {}
    for area in areas:
        begun(area)
        for finding in _examined(case, area, check_s, unseen):
            lines.append(Line(area, finding))
    return Report(tuple(lines), tuple(unseen), time.monotonic() - started_s)


def _examined(case: Case, area: str, check_s: float, unseen: dict[str, None]) -> Iterator[Finding]:
    """Give the findings of an area; a check that hangs or ends its child gives one that says so."""
    first = 0
    while True:
        at = ""
        with _Child(case, area, first) as child:
            for message in child.messages(check_s):
                if "begin" in message:
                    at = message["begin"]
                    first += 1
                elif "done" in message:
                    return
                else:
                    unseen.update(dict.fromkeys(message["unseen"]))
                    for found in message["findings"]:
                        yield Finding(**{**found, "verdict": Verdict(found["verdict"])})
        advice = HANGING.get(area, REPORT_IT) if child.is_hanging else REPORT_IT
        yield failed(at or area, f"the check itself {child.end}", advice)
        if not at:
            # It did not come as far as the first check; the next child would not either.
            return


class _Child:
    """A child process that runs the checks of one area, from the one with number `first` on."""

    def __init__(self, case: Case, area: str, first: int) -> None:
        self.end = ""
        """How it ended, in words."""
        self.is_hanging = self._is_gone = False
        reading, writing = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(reading)
            _serve(case, area, first, writing)
        os.close(writing)
        self._pipe = reading

    def __enter__(self) -> "_Child":
        return self

    def __exit__(self, *exception: object) -> None:
        """End it, with everything that it has started."""
        os.close(self._pipe)
        if self._is_gone:
            return
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError):
                kill(self._pid, signal.SIGKILL)
        deadline_s = time.monotonic() + 1.0
        # One that waits for hardware does not end even so; it is left to the end of this process.
        while os.waitpid(self._pid, os.WNOHANG)[0] == 0 and time.monotonic() < deadline_s:
            time.sleep(0.01)

    def messages(self, limit_s: float) -> Iterator[dict[str, Any]]:
        """Give what the child says, until it ends or says nothing for `limit_s`; loading its area may take longer."""
        buffer, wait_s = b"", max(limit_s, LOAD_S)
        with selectors.DefaultSelector() as selector:
            selector.register(self._pipe, selectors.EVENT_READ)
            while selector.select(wait_s):
                wait_s = limit_s
                piece = os.read(self._pipe, 65_536)
                if not piece:
                    self.end = self._how_it_ended()
                    return
                *lines, buffer = (buffer + piece).split(b"\n")
                yield from map(json.loads, lines)
        self.is_hanging, self.end = True, f"gave no answer within {wait_s:g} s"

    def _how_it_ended(self) -> str:
        _, status = os.waitpid(self._pid, 0)
        self._is_gone = True
        if os.WIFSIGNALED(status):
            name = signal.Signals(os.WTERMSIG(status)).name
            return f"was ended by {name}: a library that it uses has crashed"
        return f"ended with exit code {os.waitstatus_to_exitcode(status)} and no answer"


def _serve(case: Case, area: str, first: int, pipe: int) -> NoReturn:
    """Be the child: run the checks and tell of them over the pipe."""
    try:
        with open(pipe, "w", encoding="utf-8") as stream:

            def say(message: dict[str, Any]) -> None:
                print(json.dumps(message), file=stream, flush=True)

            # Of its own session, so that all that it starts can be ended with it.
            os.setsid()
            # A running service goes first.
            os.nice(19)
            # What the libraries say for themselves would land between the lines of the report.
            nowhere = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(nowhere, descriptor)
            # A crash is told of by the parent, in one line.
            faulthandler.disable()
            try:
                module = importlib.import_module(f"edge.doctor.{area}")
                if (user := getattr(module, "user", None)) is not None:
                    _become(user(case))
                checks: tuple[Check, ...] = module.CHECKS
            except Exception as error:
                say({"unseen": [], "findings": [asdict(_broken(area, error))]})
                checks = ()
            for check in checks[first:]:
                say({"begin": check.__name__.replace("_", " ")})
                findings = [asdict(finding) for finding in _found(check, case)]
                say({"unseen": list(case.unseen), "findings": findings})
            say({"done": True})
    finally:
        os._exit(1)


def _found(check: Check, case: Case) -> list[Finding]:
    found: list[Finding] = []
    try:
        for finding in check(case):
            found.append(finding)
    except Exception as error:
        found.append(_broken(check.__name__.replace("_", " "), error))
    return found


def _broken(name: str, error: Exception) -> Finding:
    return failed(name, f"the check itself broke: {type(error).__name__}: {error}", REPORT_IT)


def _become(user: User | None) -> None:
    """Give up root's rights for those of `user`."""
    if user is not None:
        os.setgroups(list(user.groups))
        os.setgid(min(user.groups))
        os.setuid(user.uid)
