"""Boots a root folder with real systemd in it and runs one script there."""

import contextlib
import os
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

_FOLDER = Path("opt/trial")
_UNIT = Path("etc/systemd/system/trial.service")
_WANTS = Path("etc/systemd/system/multi-user.target.wants/trial.service")
_UNIT_TEXT = f"""\
[Unit]
Description=What this container was booted for
After=multi-user.target
[Service]
# Not oneshot: while one starts, the system does not count as up.
Type=exec
ExecStart=/bin/sh /{_FOLDER}/script
ExecStopPost=/bin/sh -c 'echo $EXIT_STATUS >/{_FOLDER}/status; systemctl poweroff --force --force >/dev/null 2>&1'
StandardOutput=append:/{_FOLDER}/output
StandardError=append:/{_FOLDER}/output
WorkingDirectory=/
TimeoutStopSec=infinity
[Install]
WantedBy=multi-user.target
"""
_JOURNAL_LINES = 80


class ContainerError(Exception):
    """No container can be had, or what was to run in it has failed; in words."""


def boot(
    root: Path,
    *,
    script: str,
    timeout_s: float,
    network: bool = False,
    binds: Sequence[tuple[Path, str]] = (),
) -> str:
    """Boot a root folder, run a shell script in it once the system is up, and switch it off again.

    systemd is the first process there, with the unified cgroup hierarchy. Where this machine keeps its controllers in
    the old hierarchy, memory and CPU limits are accepted there but not enforced.

    Args:
        root: it is written to: a copy or a `layer` of a `rootfs`. The journal stays in its `/var/log/journal`.
        script: for /bin/sh, run by root; give it `set -e` to stop at a command that fails.
        timeout_s: for everything, boot included (about a second).
        network: whether it shares this machine's network; if not, it has a loopback interface of its own alone.
        binds: folders of this machine, and where they appear in the container for reading only.

    Returns:
        What the script wrote to its standard output and error.

    Raises:
        ContainerError: the container does not boot, the script fails or does not end in time; with the end of what was
            printed and of the container's journal.
    """
    folder = root / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "script").write_text(script)
    output, status = folder / "output", folder / "status"
    output.write_text("")
    status.unlink(missing_ok=True)
    (root / _UNIT).write_text(_UNIT_TEXT)
    wants = root / _WANTS
    wants.parent.mkdir(parents=True, exist_ok=True)
    if not wants.is_symlink():
        wants.symlink_to(f"/{_UNIT}")
    # Unique; it would otherwise be the folder's.
    name = f"trial-{os.getpid()}-{threading.get_ident() % 100_000}"
    command = [
        "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", f"--directory={root}",
        f"--machine={name}", "--hostname=container", "--boot", "--console=pipe", "--link-journal=no",
        *(() if network else ("--private-network",)),
        *(f"--bind-ro={ours}:{theirs}" for ours, theirs in binds),
    ]  # fmt: skip
    problem = _boot(command, timeout_s)
    if status.exists() and not problem:
        code = status.read_text().strip()
        if code == "0":
            return output.read_text(errors="replace")
        problem = f"the script ended with status {code}"
    parts = [
        problem or "the container ended before its script",
        output.read_text(errors="replace")[-8000:],
        _journal(root),
    ]
    raise ContainerError("\n".join(filter(None, parts)))


def _boot(command: Sequence[str], timeout_s: float) -> str:
    """Run it to its end; give what went wrong."""
    with tempfile.TemporaryFile("w+", errors="replace") as console:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=console, stderr=console,
            env={**os.environ, "UNIFIED_CGROUP_HIERARCHY": "1"},
        )  # fmt: skip
        try:
            process.wait(timeout_s)
        except BaseException as error:
            # nspawn takes SIGTERM for an orderly shutdown, which a container that hangs would not give.
            process.kill()
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                return f"not done after {timeout_s:g} s"
            raise
        console.seek(0)
        return f"systemd-nspawn: {console.read()[-2000:].strip()}" if process.returncode != 0 else ""


def _journal(root: Path) -> str:
    """Give the end of what the container's journal holds; empty where it cannot be read."""
    with contextlib.suppress(OSError):
        done = subprocess.run(
            ["journalctl", f"--directory={root}/var/log/journal", "--quiet", "--no-pager", f"--lines={_JOURNAL_LINES}"],
            capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
        return done.stdout
    return ""
