"""Plug-in for pytest: the source contract on the virtual camera, with its outcome as a result of this machine."""

import json
import os
from pathlib import Path
from typing import Any

import virtual_camera

virtual_camera.install(Path("/payload/pictures"), float(os.environ["MICROEDGE_CAMERA_RATE_HZ"]))


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int) -> None:
    """Print how many tests passed, failed and were skipped."""
    counts = {
        name: len(terminalreporter.stats.get(name, [])) for name in ("passed", "failed", "error", "skipped")
    }
    print("\nRESULT", json.dumps({"contract": {"exit_code": int(exitstatus), **counts}}), flush=True)
