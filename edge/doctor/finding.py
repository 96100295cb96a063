"""What a check has found."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How it stands, best first."""

    PASS = "pass"
    SKIPPED = "skipped"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    name: str
    """What was looked at, in one to three words."""
    verdict: Verdict
    words: str
    """What was found: the measured value, its limit and the setting."""
    advice: str = ""
    """What to do about it, with the command to type; empty if nothing is to be done."""


def passed(name: str, words: str) -> Finding:
    """Give a line that needs nobody."""
    return _finding(name, Verdict.PASS, words, "")


def skipped(name: str, words: str, advice: str = "") -> Finding:
    """Give a line for what was not asked for, is not there, or may not be seen."""
    return _finding(name, Verdict.SKIPPED, words, advice)


def warned(name: str, words: str, advice: str) -> Finding:
    """Give a line for what works now, but costs something or may end."""
    return _finding(name, Verdict.WARN, words, advice)


def failed(name: str, words: str, advice: str) -> Finding:
    """Give a line for what keeps the device from its work."""
    return _finding(name, Verdict.FAIL, words, advice)


def _finding(name: str, verdict: Verdict, words: str, advice: str) -> Finding:
    # What a library says may go over several lines.
    return Finding(name, verdict, " ".join(words.split()), " ".join(advice.split()))
