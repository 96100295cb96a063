"""Proves the webcam source on a real V4L2 driver, in a virtual machine: the kernel's own test webcam (`vivid`).

    python -m tools.webcam_vm

The source contract (tests/test_source_contract.py) runs on `/dev/video0`; then the driver is unbound and bound again
under the reader, three times, which is what pulling a webcam's plug does. The machine is emulated: rates say nothing.
Ends with one JSON object; exit code 1 if something is not as it must be.
"""

import json
import re
import sys

from tools.vm.image import VmError
from tools.vm.machine import run

PYTHON = "/opt/microedge/bin/python"
SCRIPT = f"""set -e
cd /payload/source
modprobe vivid n_devs=1 node_types=0x1 num_inputs=1 input_types=0x0
udevadm settle
export MICROEDGE_CAMERA=webcam:/dev/video0 MICROEDGE_CAMERA_SIZE=320x180 MICROEDGE_CAMERA_RATE_HZ=30
export MICROEDGE_CAMERA_FRAMES=60 PYTHONPATH=.
{PYTHON} -m pytest -o addopts= -p no:cacheprovider --noconftest -q --tb=short tests/test_source_contract.py \\
    > /tmp/contract 2>&1 || true
tail -n 40 /tmp/contract
echo "RESULT {{\\"contract\\": \\"$(tail -n 1 /tmp/contract)\\"}}"
{PYTHON} /payload/guest/webcam_unplug.py
"""


def main() -> int:
    """Boot, run both, report; give the exit code."""
    try:
        outcome = run(SCRIPT, timeout_s=500)
    except VmError as error:
        print(error)
        print(json.dumps({"proof": "webcam_vm", "passed": False}))
        return 1
    contract, unplug = outcome.results["contract"], outcome.results["unplug"]
    passed = (
        re.fullmatch(r"\d+ passed in .*", contract) is not None
        and unplug["media_time_rises"]
        and not unplug["failure"]
        and unplug["led"] == "x.."
    )
    print(json.dumps({"proof": "webcam_vm", "passed": passed, **outcome.results, "wall_s": outcome.wall_s}))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
