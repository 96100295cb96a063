"""Boots the virtual machine, runs one shell script in it and gives back what it printed.

Emulated throughout (TCG), so that it runs where no hardware virtualisation is to be had, ten to twenty times slower
than this computer. It has no network, and what it writes to its disk is forgotten.
"""

import contextlib
import fcntl
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.builds import cache_folder
from tools.vm.image import HERE, REPOSITORY, VmError, image, make_disk

SOURCES = ("edge", "models", "systemd", "tests", "tools", "pyproject.toml")
"""What of this repository the machine gets to see, below /payload/source."""
RESULT = "RESULT "
"""Begins a line of the guest that holds a JSON object for the report."""
_STATUS = "vm: exit status "
_POLL_S = 0.5
BOOT_AGAIN = 2
"""How often a machine is switched on again whose kernel died before anything of ours began: now and then one does,
while it patches its own code on two emulated processors."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came out of a run."""

    text: str
    """What the script printed, without its results."""
    results: dict[str, Any]
    """What the guest's parts found, by the name of the part."""
    wall_s: float
    """From switching on to switching off."""


def run(
    script: str,
    files: Mapping[str, Path] | None = None,
    *,
    timeout_s: float,
    systemd: bool = False,
    memory_mib: int = 2048,
    devices: Sequence[str] = (),
    resets: bool = False,
) -> Outcome:
    """Boot, run a script for /bin/sh as root, switch off. One machine at a time: another caller waits.

    Args:
        script: the guest's own scripts are in `/payload/guest`, this repository in `/payload/source`.
        files: further files or folders, by their name below `/payload`.
        timeout_s: for all of it; systemd is up after about 30 s, a bare machine after 10 s, on an idle computer.
        systemd: boot all of Debian, and run the script once it is up; otherwise only udev runs.
        memory_mib: what the machine has.
        devices: further devices, in the words of qemu's `-device`.
        resets: the machine must reset itself before its script has ended, which ends the run.

    Raises:
        VmError: it does not boot, does not reset if it should, the script fails or does not end in time; with the end
            of what was printed.
    """
    disk = image()
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context((cache_folder("vm") / "machine.lock").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="microedge-vm-")))
        _payload(folder / "payload", folder / "payload.img", script, files or {})
        words = "root=/dev/vda rw console=ttyS0 quiet panic=-1 mitigations=off"
        command = [
            # Not -cpu max: slower to emulate. The clock sources are left as the kernel chooses them.
            "qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "Nehalem", "-smp", "2",
            "-m", str(memory_mib), "-nic", "none", "-vga", "none", "-display", "none", "-no-reboot", "-monitor", "none",
            "-serial", f"file:{folder / 'console'}", "-serial", f"file:{folder / 'output'}",
            "-kernel", str(disk.kernel), "-initrd", str(disk.initrd),
            # What is written goes to a temporary file of qemu's.
            "-drive", f"file={disk.disk},format=raw,if=virtio,cache=unsafe,snapshot=on",
            "-drive", f"file={folder / 'payload.img'},format=raw,if=virtio,cache=unsafe,snapshot=on",
            *(word for device in devices for word in ("-device", device)),
            "-append", words if systemd else f"{words} init=/opt/vm/init",
        ]  # fmt: skip
        begun_s = time.monotonic()
        problem = _boot(command, folder, timeout_s)
        for _ in range(BOOT_AGAIN):
            if "Kernel panic" not in _read(folder / "console") or _read(folder / "output"):
                break
            print("  | (the emulated kernel stumbled over its own boot; once more)", flush=True)
            problem = _boot(command, folder, timeout_s)
        wall_s = time.monotonic() - begun_s
        text = _read(folder / "output")
        lines = text.replace("\r\n", "\n").splitlines()
        status = next(
            (line.removeprefix(_STATUS) for line in reversed(lines) if line.startswith(_STATUS)), None
        )
        if not problem and resets:
            problem = "" if status is None else "the machine went on instead of resetting itself"
        elif not problem and status is None:
            problem = "the machine went off before its script had ended"
        elif not problem and status != "0":
            problem = f"the script in the machine ended with status {status}"
        if problem:
            console = _read(folder / "console")[-3000:]
            raise VmError("\n".join([problem, "console:", console, "output:", *lines[-120:]]))
        results: dict[str, Any] = {}
        for line in lines:
            if line.startswith(RESULT):
                results |= json.loads(line.removeprefix(RESULT))
        rest = [line for line in lines if not line.startswith((RESULT, _STATUS))]
        return Outcome("\n".join(rest), results, round(wall_s, 1))


def _payload(folder: Path, disk: Path, script: str, files: Mapping[str, Path]) -> None:
    """Put everything that the guest needs on a disk of its own."""
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", ".pytest_cache")
    for name, path in {
        **{f"source/{name}": REPOSITORY / name for name in SOURCES},
        "guest": HERE / "guest",
        **files,
    }.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, target, ignore=ignored)
        else:
            shutil.copy(path, target)
    (folder / "main").write_text(script)
    size = sum(path.stat().st_size + 4096 for path in folder.rglob("*"))
    make_disk(folder, disk, size * 5 // 4 // 2**20 + 32)


def _boot(command: Sequence[str], folder: Path, timeout_s: float) -> str:
    """Run the machine to its end, passing on what it prints; give what went wrong."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    follow = _new_lines(folder / "output")
    try:
        deadline_s = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_S)
            for line in next(follow):
                if not line.startswith((RESULT, _STATUS)):
                    print(f"  | {line}", flush=True)
            if process.returncode is not None:
                break
            if time.monotonic() > deadline_s:
                return f"not done after {timeout_s:g} s"
    finally:
        if process.returncode is None:
            process.kill()
            process.wait()
    assert process.stderr is not None
    said = process.stderr.read().decode(errors="replace").strip()
    return f"qemu: {said[-1000:]}" if process.returncode != 0 else ""


def _new_lines(path: Path) -> Iterator[list[str]]:
    """Give, again and again, the whole lines that have come to a file since."""
    seen = 0
    while True:
        data = path.read_bytes()[seen:] if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        seen += len(whole)
        yield whole.decode(errors="replace").splitlines()


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
