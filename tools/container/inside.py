"""What a trial needs inside of the container: the units as systemd knows them, and what it can watch from there."""

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

OBSERVER_PORT = 1884
"""Where the broker asks for no password."""
_LOOK_S = 0.1


class TrialError(Exception):
    """What was to come did not come; in words."""


def until(condition: Callable[[], T | None], what: str, limit_s: float = 60.0) -> T:
    """Look again and again until `condition` holds, and give what it gave.

    Raises:
        TrialError: it does not come true.
    """
    deadline_s = time.monotonic() + limit_s
    while not (found := condition()):
        if time.monotonic() > deadline_s:
            raise TrialError(f"waited {limit_s:g} s in vain for: {what}")
        time.sleep(_LOOK_S)
    return found


def run(*command: str) -> str:
    """Run a command and give what it printed.

    Raises:
        TrialError: it has failed.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise TrialError(f"{' '.join(command)}: exit status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


class Unit:
    """A unit of this system."""

    def __init__(self, name: str) -> None:
        self.name = name

    def show(self) -> Mapping[str, str]:
        """Give all its properties."""
        lines = run("systemctl", "show", self.name).splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def __getitem__(self, name: str) -> str:
        """Give one property."""
        return run("systemctl", "show", self.name, "--value", f"--property={name}").rstrip("\n")

    @property
    def is_active(self) -> bool:
        return self["ActiveState"] == "active"

    @property
    def pid(self) -> int:
        """Of its main process; 0: it has none."""
        return int(self["MainPID"])

    @property
    def processes(self) -> list[int]:
        """Every process of the user that it runs as.

        Not those of its control group: where this machine keeps its controllers in the old hierarchy, the container's
        kernel interface shows them as 0.
        """
        return [
            int(folder.name) for folder in Path("/proc").glob("[0-9]*")
            if folder.exists() and folder.owner() == self["User"]
        ]  # fmt: skip

    def do(self, verb: str) -> None:
        """Have systemd do something with it, and wait for that.

        Raises:
            TrialError: it fails.
        """
        run("systemctl", verb, self.name)

    def drop_in(self, name: str, text: str) -> None:
        """Override settings of it until the machine is switched off; an empty text takes them back."""
        path = Path(f"/run/systemd/system/{self.name}.d/{name}.conf")
        path.parent.mkdir(parents=True, exist_ok=True)
        if text:
            path.write_text(text)
        else:
            path.unlink(missing_ok=True)
        run("systemctl", "daemon-reload")

    def journal(self) -> str:
        """Give what it and systemd have logged of it since the machine was switched on."""
        run("journalctl", "--sync")
        return run("journalctl", "--unit", self.name, "--output=cat", "--no-pager", "--quiet")


def retained(topic: str) -> dict[str, Any]:
    """Give the retained message of a topic.

    Raises:
        TrialError: there is none.
    """
    return dict(
        json.loads(run("mosquitto_sub", "-p", str(OBSERVER_PORT), "-t", topic, "-C", "1", "-W", "10"))
    )
