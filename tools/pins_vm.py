"""Proves LEDs, switch and button on real lgpio and gpiozero over the kernel's gpio-sim, in a virtual machine.

    python -m tools.pins_vm [--parts leds,run]

Parts:
    leds    every signal of the LEDs, read back from the kernel: capture, the rhythm and colour of each emotion, the
            blinks of each fault; dark after the end
    run     `microedge run` on a virtual camera, in a folder it cannot write to: starts with the privacy switch on,
            the switch opens and closes the camera, the button makes it blink, the capture LED is lit whenever the
            process holds frames of the camera; and what it says when lines are held by another program, when lgpio can
            make its pipe nowhere, and when the user may not open the chip

Only gpiozero's question for the Raspberry Pi's revision is answered in its place. Ends with one JSON object; exit
code 1 if something is not as it must be.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tools.vm.image import VmError
from tools.vm.machine import run
from tools.vm.pictures import load_photos, write_pictures

PYTHON = "/opt/microedge/bin/python"
PARTS = ("leds", "run")
TIMEOUT_S = 1500


def main() -> int:
    """Run the parts that were asked for; give the exit code."""
    parser = argparse.ArgumentParser(description="LEDs and switches on gpio-sim in a virtual machine.")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}; default: all")
    arguments = parser.parse_args()
    report: dict[str, Any] = {}
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="microedge-pins-") as name:
        pictures = Path(name) / "pictures"
        write_pictures(pictures, load_photos(None, 1), 4)
        for part in arguments.parts.split(","):
            print(f"{part}:", flush=True)
            try:
                outcome = run(
                    f"cd /payload/source && {PYTHON} /payload/guest/pins_{part}.py",
                    {"pictures": pictures},
                    timeout_s=TIMEOUT_S,
                )
            except VmError as error:
                failures.append(f"{part}: {error}")
                continue
            report |= outcome.results | {f"{part}_wall_s": outcome.wall_s}
            failures += _leds(outcome.results["leds"]) if part == "leds" else _run(outcome.results)
    for failure in failures:
        print(f"FAILED {failure}", flush=True)
    print(json.dumps({"proof": "pins_vm", "passed": not failures, **report}))
    return 1 if failures else 0


def _leds(found: dict[str, Any]) -> list[str]:
    failures = []
    if found["factory"] != "LGPIOFactory":
        failures.append(f"gpiozero went through {found['factory']}, not lgpio")
    if found["pipes_left"]:
        failures.append(f"lgpio left {found['pipes_left']}")
    if found["capture"] != [1, 0, 1]:
        failures.append(f"capture LED was {found['capture']}, not [1, 0, 1]")
    for kind in ("emotions", "faults"):
        for name, signal in found[kind].items():
            if signal["seen"] != signal["wanted"]:
                failures.append(f"{name}: {signal['seen']}, not {signal['wanted']}")
    if any(found["after_close"]):
        failures.append(f"after the end the lines are at {found['after_close']}")
    return failures


def _run(found: dict[str, Any]) -> list[str]:
    steps = found["switch"]["steps"]
    failures = [f"{name}: {value}" for name, value in steps.items() if str(value).startswith("no, ")]
    wanted = {
        "camera while private at start": 0, "working directory stays": "/payload", "pipes left": [], "exit code": 0,
        "capture LED after the end": 0,
    }  # fmt: skip
    failures += [
        f"{name}: {steps[name]}, not {value}" for name, value in wanted.items() if steps[name] != value
    ]
    if found["switch"]["camera_open_while_dark"] or not found["switch"]["samples"]:
        failures.append(f"the camera was open while its LED was dark: {found['switch']}")
    busy = "\n".join(found["busy"]["says"])
    if found["busy"]["exit_code"] != 2 or "GPIO 17" not in busy or "GPIO 24" not in busy:
        failures.append(f"lines in use: {found['busy']}")
    unwritable = "\n".join(found["unwritable"]["says"])
    if found["unwritable"]["exit_code"] != 2 or "lgpio needs a folder" not in unwritable:
        failures.append(f"nowhere to write: {found['unwritable']}")
    forbidden = "\n".join(found["forbidden"]["says"])
    if found["forbidden"]["exit_code"] != 2 or "add it to the group gpio" not in forbidden:
        failures.append(f"not permitted: {found['forbidden']}")
    return failures


if __name__ == "__main__":
    sys.exit(main())
