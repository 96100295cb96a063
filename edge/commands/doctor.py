"""`microedge doctor`: examine this machine and say what to do about what is wrong with it."""

import argparse
import json
from pathlib import Path
from typing import Any

from edge import __version__
from edge.commands import DEVICE_CONFIG
from edge.config import read
from edge.doctor import AREAS
from edge.doctor.case import Case
from edge.doctor.examine import Report, examine
from edge.doctor.finding import Verdict
from edge.doctor.system import System
from edge.errors import ConfigError


def main(arguments: argparse.Namespace, system: System | None = None) -> int:
    """Examine, print, and give 0 if nothing failed, else 1.

    Raises:
        ConfigError: an override on the command line is wrong.
    """
    from edge.commands.doctor_view import View

    case = case_of(arguments.config, arguments.overrides, system or System())
    areas = [area for area in AREAS if not arguments.only or area in arguments.only]
    if arguments.json:
        report = examine(case, areas)
        print(json.dumps(as_payload(case, report)))
    else:
        view = View()
        report = examine(case, areas, begun=view.begun)
        view.show(report, is_root=case.system.is_root)
    return report.exit_code


def case_of(path: Path | None, overrides: list[str], system: System) -> Case:
    """Read the configuration as far as it can be read; what is wrong with the file is for the report to say."""
    if path is None and _is_there(device := system.path(DEVICE_CONFIG)):
        path = device
    config, mistakes = read(path, overrides, opens_camera=True)
    if usage := [mistake for mistake in mistakes if mistake.startswith("--set: ")]:
        raise ConfigError("\n".join(usage))
    is_closed = path is not None and any(
        each.endswith("cannot be read: Permission denied") for each in mistakes
    )
    return Case(None if is_closed else config, system=system, path=path, mistakes=mistakes)


def as_payload(case: Case, report: Report) -> dict[str, Any]:
    """Give the report as `microedge.doctor/1`, checked."""
    from edge.payload import utc, validate

    payload = {
        "schema": "microedge.doctor/1",
        "time": utc(int(case.system.now().timestamp() * 1000) * 1_000_000),
        "version": __version__,
        "device_id": case.config.device.id,
        "verdict": str(report.verdict),
        "counts": {str(verdict): report.count(verdict) for verdict in Verdict},
        "seconds": round(report.seconds, 2),
        "unseen": list(report.unseen),
        "checks": [
            {
                "area": line.area, "name": line.finding.name, "verdict": str(line.finding.verdict),
                "words": line.finding.words, **({"advice": line.finding.advice} if line.finding.advice else {}),
            }
            for line in report.lines
        ],
    }  # fmt: skip
    validate(payload)
    return payload


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        # A folder that is closed to this user: reading will say so.
        return True
