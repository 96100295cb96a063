"""Run microedge as a 64-bit Raspberry Pi does: aarch64 wheels on an emulated processor, beside this machine's answers.

    python -m tools.arm64 [--release bookworm|trixie]

A Debian for arm64 gets our wheel and aarch64's, without a network; there the models answer fixed inputs and `microedge
replay` goes through a short clip. The answers must be near this machine's, and the events the same within a frame or
two. An emulated processor says nothing about speed. The Debian is built once (five minutes) and kept.

It needs root, the network for the wheels, and the Debian packages mmdebstrap, systemd-container, qemu-user-static,
binfmt-support and arch-test. Ends with one JSON object; status 1 if a claim does not hold.
"""

import argparse
import fcntl
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np

from edge.frames.portrait import load_portrait, portrait_landmarks
from edge.frames.script import DEMO
from edge.frames.synthetic import SyntheticSource
from tools.builds import cache_folder
from tools.container import ContainerError, layer, missing
from tools.container.root import MIRROR
from tools.wheels import TARGETS, WheelError, fill

PROBE = Path(__file__).with_name("arm64_probe.py")
RATE_HZ, CLIP_S, SEED = 200, 14.0, 3
ANSWER_STEPS = 4.0
"""Most by which an output may differ on average, in int8 steps. Measured: 3.0; two engines on one machine: 2.1."""
TIME_S = 0.010
"""Most by which onset, apex and offset may differ: two frames."""
PROBABILITY = 0.15
"""Most by which the probability of an emotion may differ; 0.11 was measured."""


def root_folder(release: str) -> Path:
    """Give the root folder of an arm64 Debian with Python, built once and kept.

    Raises:
        ContainerError: this machine cannot emulate or build it.
    """
    _prepare_emulation()
    folder = cache_folder("arm64")
    root = folder / release
    with (folder / f"{release}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            print(f"building a {release} for arm64: some five minutes, once", flush=True)
            unfinished = folder / f".{release}"
            shutil.rmtree(unfinished, ignore_errors=True)
            without = [f"--dpkgopt=path-exclude=/usr/share/{each}/*" for each in ("doc", "man", "locale")]
            _run(
                "mmdebstrap", "--quiet", "--variant=minbase", "--arch=arm64", "--include=python3,python3-venv",
                "--aptopt=Acquire::Languages \"none\"", *without, release, str(unfinished), MIRROR,
            )  # fmt: skip
            unfinished.rename(root)
    return root


def _prepare_emulation() -> None:
    lacks = missing()
    if shutil.which("qemu-aarch64-static") is None or shutil.which("update-binfmts") is None:
        lacks.append("no emulator (apt install qemu-user-static binfmt-support arch-test)")
    if lacks:
        raise ContainerError("; ".join(lacks))
    if not Path("/proc/sys/fs/binfmt_misc/register").exists():
        _run("mount", "-t", "binfmt_misc", "binfmt_misc", "/proc/sys/fs/binfmt_misc")
    if not Path("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists():
        _run("update-binfmts", "--enable", "qemu-aarch64")


def make_clip(path: Path) -> None:
    """Write a short video of the moving portrait; every decoder gives the same pictures of it."""
    source = SyntheticSource(
        load_portrait(), portrait_landmarks(), rate_hz=RATE_HZ, seconds=CLIP_S, seed=SEED,
        script=replace(DEMO, micro_per_min=60.0),
    )  # fmt: skip
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE_HZ, options={"crf": "12", "preset": "ultrafast"})
        stream.width, stream.height = source.size
        stream.pix_fmt = "yuv420p"
        for frame in source.frames():
            picture = av.VideoFrame.from_ndarray(frame.luma, format="gray").reformat(format="yuv420p")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def compare_answers(here: Path, there: Path) -> tuple[float, int, int]:
    """Give the largest mean and the largest single difference between outputs, int8 steps, and how many there were."""
    means, largest = [], 0
    with np.load(here) as ours, np.load(there) as theirs:
        for name in (name for name in ours.files if name in theirs.files):
            steps = np.abs(ours[name].astype(int) - theirs[name].astype(int))
            means.append(float(steps.mean()))
            largest = max(largest, int(steps.max()))
    return max(means, default=math.inf), largest, len(means)


def compare_events(here: Path, there: Path) -> tuple[list[str], int]:
    """Say how the events of two replays differ beyond the tolerance, and give how many there are here."""
    ours, theirs = ([json.loads(line) for line in path.read_text().splitlines()] for path in (here, there))
    if len(ours) != len(theirs):
        return [f"{len(ours)} events here, {len(theirs)} there"], len(ours)
    said = []
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        for key in ("onset_s", "apex_s", "offset_s"):
            if abs(one[key] - other[key]) > TIME_S:
                said.append(f"event {number}: {key} {one[key]} here, {other[key]} there")
        for emotion, share in one["probabilities"].items():
            if abs(share - other["probabilities"][emotion]) > PROBABILITY:
                said.append(
                    f"event {number}: {emotion} {share} here, {other['probabilities'][emotion]} there"
                )
    return said, len(ours)


def main() -> int:
    """Build, run on both, compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--release", default="bookworm", choices=tuple(TARGETS))
    release = parser.parse_args().release
    began_s = time.monotonic()
    try:
        found = _trial(release)
    except (ContainerError, WheelError) as error:
        print(error, file=sys.stderr)
        found = {"failures": [str(error)[:300]]}
    found |= {"trial_s": round(time.monotonic() - began_s, 1), "load": round(os.getloadavg()[0], 1)}
    print(json.dumps({"release": release, **found}))
    return 1 if found["failures"] else 0


def _trial(release: str) -> dict[str, Any]:
    root = root_folder(release)
    with tempfile.TemporaryDirectory() as name, layer(root) as over:
        shared = Path(name)
        here, there = shared / "here", shared / "there"
        here.mkdir()
        there.mkdir()
        make_clip(shared / "clip.mkv")
        files = fill(shared / "wheels", TARGETS[release])
        print(f"{release}: {len(files)} wheels, clip of {CLIP_S:g} s at {RATE_HZ} frames/s", flush=True)
        _run(
            sys.executable,
            str(PROBE),
            str(shared / "clip.mkv"),
            str(here),
            environment={"PYTHONPATH": str(PROBE.parents[1])},
        )
        shutil.copy(PROBE, shared)
        began_s = time.monotonic()
        pip = "/opt/microedge/bin/pip install --quiet --no-compile --no-index --find-links /trial/wheels microedge"
        _in_it(over.root, shared, f"python3 -m venv /opt/microedge && {pip}")
        installed_s = time.monotonic() - began_s
        _in_it(
            over.root, shared, "/opt/microedge/bin/python /trial/arm64_probe.py /trial/clip.mkv /trial/there"
        )
        abouts = [json.loads((folder / "about.json").read_text()) for folder in (here, there)]
        mean, largest, compared = compare_answers(here / "answers.npz", there / "answers.npz")
        differences, events = compare_events(here / "events.jsonl", there / "events.jsonl")
    failures = []
    for about in abouts:
        print("  " + ", ".join(f"{key} {value}" for key, value in about.items()))
    words = f"{mean:.1f} int8 steps apart on average in the worst (limit {ANSWER_STEPS:g}), single values {largest}"
    print(f"  {compared} outputs: {words}")
    if mean > ANSWER_STEPS:
        failures.append(f"the answers are {mean:.1f} steps apart")
    print(f"  {events} events here; beyond the tolerance: {'; '.join(differences) or 'nothing'}")
    failures += differences
    if not events:
        failures.append("the clip has no events")
    found = {"mean_steps": round(mean, 2), "largest_steps": largest, "outputs": compared, "events": events}
    install = {"wheels": len(files), "install_s": round(installed_s, 1)}
    return {**install, **found, "there": abouts[1], "failures": failures}


def _in_it(root: Path, shared: Path, command: str) -> None:
    """Run a shell command in the emulated Debian, without a network; `shared` is /trial there.

    Neither /proc nor /sys are there: they would tell of this machine's processor, and LiteRT's cpuinfo, which takes it
    for an ARM one, crashes on that.
    """
    (root / "trial").mkdir(exist_ok=True)
    # A Raspberry Pi 5's. QEMU's own choice has vector extensions that no Raspberry Pi has; OpenCV 4.14 uses them, and
    # QEMU 7.2 then calculates wrongly.
    processor = {"QEMU_CPU": "cortex-a76"}
    script = 'mount --bind "$1" "$2/trial" && exec chroot "$2" /bin/sh -c "$3"'
    parts = ("unshare", "--mount", "--net", "sh", "-c", script, "sh", str(shared), str(root), command)
    _run(*parts, environment=processor)


def _run(*command: str, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    if done.returncode != 0:
        words = (done.stderr + done.stdout).strip()[-3000:]
        raise ContainerError(f"{' '.join(command[:2])} ...: exit status {done.returncode}: {words}")


if __name__ == "__main__":
    sys.exit(main())
