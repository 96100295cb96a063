"""Proves the camera path on the real `Picamera2` class, in a virtual machine whose camera plays faces.

    python -m tools.camera_vm [--photos FOLDER] [--parts frames,contract,run,replay]

Parts:
    frames    every frame that libcamera completes is delivered, in order and bit for bit, at the camera's own pace and
              at 60 and 120 Hz; opened and closed again and again
    contract  the suite that every frame source keeps (tests/test_source_contract.py), on this camera
    run       `microedge run` with a real broker: a face is found, and no frame dropped at a rate that emulation reaches
    replay    a clip gives the same events there (Python 3.13, LiteRT) as on this computer

The machine is emulated: rates say nothing of a Raspberry Pi. Exposure, gain, focus, sensor modes and crops are not
there at all. Ends with one JSON object; exit code 1 if something is not as it must be.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import av
import numpy as np

from edge.frames.portrait import load_portrait, portrait_landmarks
from edge.frames.script import Script
from edge.frames.synthetic import SyntheticSource
from tools.vm.image import REPOSITORY, VmError
from tools.vm.machine import Outcome, run
from tools.vm.pictures import load_photos, write_pictures

PYTHON = "/opt/microedge/bin/python"
PACES_HZ, COUNT = (0, 60, 120), 600
"""0 is the camera's own pace."""
RATES_HZ, SECONDS = (20, 10, 5), 20
"""Of `microedge run`, tried from the top."""
IN_FLIGHT = 60
PICTURES = 64
CLIP_HZ, CLIP_S = 120.0, 4.0
ONSET_TOLERANCE_S = 0.02
CONFIDENCE_TOLERANCE = 0.1
"""Engines round differently from one version to the next."""
CONTRACT_HZ = 60
CONTRACT = "tests/test_source_contract.py"
TIMEOUT_S = 1500
"""For one part; on a computer with nothing else to do each takes one to three minutes."""


def main() -> int:
    """Run the parts that were asked for, each in a machine of its own; give the exit code."""
    parser = argparse.ArgumentParser(description="The real Picamera2 in a virtual machine.")
    parser.add_argument(
        "--photos", type=Path, help="folder of face photos; default: the portrait of the demo"
    )
    parser.add_argument("--parts", default=",".join(CHECKS), help=f"of {', '.join(CHECKS)}; default: all")
    arguments = parser.parse_args()
    report: dict[str, Any] = {}
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="microedge-camera-") as name:
        folder = Path(name)
        write_pictures(folder / "pictures", load_photos(arguments.photos, PICTURES), PICTURES)
        for part in arguments.parts.split(","):
            print(f"{part}:", flush=True)
            try:
                report[part], found = CHECKS[part](folder)
            except VmError as error:
                report[part], found = None, [str(error)]
            failures += [f"{part}: {each}" for each in found]
    for failure in failures:
        print(f"FAILED {failure}", flush=True)
    print(json.dumps({"proof": "camera_vm", "passed": not failures, **report}))
    return 1 if failures else 0


def _machine(folder: Path, command: str) -> Outcome:
    files = {"pictures": folder / "pictures"}
    if (clip := folder / "clip.mkv").exists():
        files["clip.mkv"] = clip
    return run(f"set -e\ncd /payload/source\n{command}\n", files, timeout_s=TIMEOUT_S)


def _frames(folder: Path) -> tuple[dict[str, Any], list[str]]:
    paces = ",".join(str(pace) for pace in PACES_HZ)
    outcome = _machine(folder, f"{PYTHON} /payload/guest/camera_frames.py {paces} {COUNT}")
    failures = []
    for name, found in outcome.results["frames"].items():
        wanted = {
            "delivered": COUNT, "completed_by_picamera2_in_that_time": COUNT, "libcamera_sequence_gaps": 0,
            "pictures_in_order": True, "dropped_by_us": 0, "timestamps_rise": True, "luma_worst_difference": 0,
        }  # fmt: skip
        failures += [
            f"{name}: {key} = {found[key]}, not {value}"
            for key, value in wanted.items()
            if found[key] != value
        ]
    return outcome.results["frames"] | {"wall_s": outcome.wall_s}, failures


def _contract(folder: Path) -> tuple[dict[str, Any], list[str]]:
    if not (REPOSITORY / CONTRACT).exists():
        return {}, [f"{CONTRACT} is not there"]
    command = (
        f"export MICROEDGE_CAMERA=picamera2 MICROEDGE_CAMERA_RATE_HZ={CONTRACT_HZ}\n"
        f"{PYTHON} -m pytest -p no:cacheprovider --noconftest -p contract_plugin -q {CONTRACT} || true"
    )
    outcome = _machine(folder, command)
    found = outcome.results["contract"]
    failures = [] if found["exit_code"] == 0 and found["passed"] else [f"{found}"]
    return found | {"wall_s": outcome.wall_s}, failures


def _run(folder: Path) -> tuple[dict[str, Any], list[str]]:
    rates = ",".join(str(rate) for rate in RATES_HZ)
    outcome = _machine(folder, f"{PYTHON} /payload/guest/camera_run.py {rates} {SECONDS}")
    found: dict[str, Any] = outcome.results["run"]
    last = list(found.values())[-1]
    failures = []
    if not last["face_found"]:
        failures.append("no face was found")
    if last["dropped_by_us"] != 0 or not last["frames"]:
        failures.append(f"{last['dropped_by_us']} frames dropped even at {list(found)[-1]}: {last}")
    # Some are always on their way: at the camera, in the queue, or before the first that is read.
    if last["completed_by_libcamera"] - last["frames"] > IN_FLIGHT:
        failures.append(f"only {last['frames']} frames of {last['completed_by_libcamera']}")
    failures += [
        f"{name}: exit code {each['exit_code']}" for name, each in found.items() if each["exit_code"] != 0
    ]
    return found | {"wall_s": outcome.wall_s}, failures


def _replay(folder: Path) -> tuple[dict[str, Any], list[str]]:
    _write_clip(folder / "clip.mkv")
    here_file = folder / "here.jsonl"
    options = ["--quiet", "--set", "device.id=vm", "--out"]
    subprocess.run(
        [sys.executable, "-m", "edge", "replay", str(folder / "clip.mkv"), *options, str(here_file)],
        cwd=REPOSITORY, check=True,
    )  # fmt: skip
    outcome = _machine(
        folder,
        f"{PYTHON} /payload/guest/replay.py /payload/clip.mkv {' '.join(options)} /tmp/there.jsonl",
    )
    there = outcome.results["replay"]
    here = [json.loads(line) for line in here_file.read_text().splitlines()]
    failures = [] if here else ["the clip gave no event on this computer"]
    if len(here) != len(there["events"]):
        failures.append(f"{len(there['events'])} events there, {len(here)} here")
    for ours, theirs in zip(here, there["events"], strict=False):
        for key in ("onset_s", "offset_s"):
            if abs(ours[key] - theirs[key]) > ONSET_TOLERANCE_S:
                failures.append(f"{key} {theirs[key]} there, {ours[key]} here")
        if ours["emotion"] != theirs["emotion"]:
            failures.append(f"emotion {theirs['emotion']} there, {ours['emotion']} here")
        elif abs(ours["confidence"] - theirs["confidence"]) > CONFIDENCE_TOLERANCE:
            failures.append(f"confidence {theirs['confidence']} there, {ours['confidence']} here")
    report = {name: there[name] for name in ("python", "versions")} | {
        "events_here": [_short(event) for event in here],
        "events_there": [_short(event) for event in there["events"]],
        "wall_s": outcome.wall_s,
    }
    return report, failures


def _short(event: dict[str, Any]) -> str:
    return f"{event['onset_s']:.3f}-{event['offset_s']:.3f} s {event['emotion']} {event['confidence']:.2f}"


def _write_clip(path: Path) -> None:
    """Write seconds of the portrait with clear micro-expressions, without loss."""
    script = Script(
        micro_per_min=60.0, micro_duration_ms=(100.0, 180.0), micro_peak_iod=(0.024, 0.025), blink_per_min=0.0,
        emotions=("surprise", "happiness"), quiet_start_s=0.8,
    )  # fmt: skip
    source = SyntheticSource(
        load_portrait(), portrait_landmarks(), rate_hz=CLIP_HZ, size=(320, 240), seconds=CLIP_S, seed=5, script=script,
        face_px=120.0,
    )  # fmt: skip
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=int(CLIP_HZ))
        stream.width, stream.height, stream.pix_fmt = 320, 240, "gray"
        for frame in source.frames():
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.luma), format="gray")
            picture.pts = frame.sequence
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


CHECKS = {"frames": _frames, "contract": _contract, "run": _run, "replay": _replay}


if __name__ == "__main__":
    sys.exit(main())
