"""Install on a bare Debian in a container, break it, upgrade it, remove it; the report says what held.

    python -m tools.install_trial [--release bookworm|trixie]

It needs root, the network, and the Debian packages mmdebstrap and systemd-container. The container has neither apt's
lists nor Python nor any of pip's downloads when the clock starts. Ends with one JSON object; status 1 if a claim does
not hold.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from tools.container import ContainerError, layer
from tools.container.root import RELEASES
from tools.install_trial import bare, steps
from tools.install_trial.archive import make_archive
from tools.install_trial.machine import Machine
from tools.install_trial.tree import listing
from tools.wheels import TARGETS, Target, WheelError, fill


def main() -> int:
    """Build, try, tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--release", default="bookworm", choices=RELEASES)
    parser.add_argument("--verbose", action="store_true", help="also print what the machine has printed")
    options = parser.parse_args()
    began_s = time.monotonic()
    report = steps.Report()
    machine = None
    try:
        root = bare.bare_root(options.release)
        with tempfile.TemporaryDirectory() as folder, layer(root) as over:
            machine = Machine(over.root, Path(folder))
            _try(machine, report, options.release)
    except (ContainerError, WheelError) as error:
        print(error, file=sys.stderr)
        report.failures.append(str(error).splitlines()[0])
    if machine is not None and (options.verbose or report.failures):
        print(machine.said)
    figures = {"release": options.release, **report.figures, "load": round(os.getloadavg()[0], 1)}
    figures["trial_s"] = round(time.monotonic() - began_s, 1)
    print(json.dumps({**figures, "failures": report.failures}))
    return 1 if report.failures else 0


def _try(machine: Machine, report: steps.Report, release: str) -> None:
    shared = machine.shared
    bare.version(shared / steps.OLD, steps.OLD)
    bare.that_changes_units(bare.version(shared / steps.NEW, steps.NEW))
    bare.without_a_dependency(bare.version(shared / "no-such-dependency", steps.BAD))
    bare.that_crashes(bare.version(shared / "crashing", steps.BAD))
    bare.pass_network_settings(machine.root)
    # What a first boot leaves is not the installation's.
    machine.run("true")
    before = listing(machine.root)

    print(f"{release}, bare; load {os.getloadavg()[0]:.1f}")
    steps.install(machine, report, command=f"/trial/{steps.OLD}/tools/install --extras demo")
    print("events")
    steps.collect_events(machine, report)
    print("upgrades that fail")
    steps.broken_upgrades(machine, report)
    print("an upgrade")
    steps.upgrade(machine, report)
    print("removal")
    steps.uninstall(machine, report)
    print("from wheels")
    target = Target(TARGETS[release].python, TARGETS[release].glibc, os.uname().machine)
    fill(shared / "wheels", target, ["demo"], source=shared / steps.OLD)
    steps.from_wheels(machine, report)
    print("with an archive like Raspberry Pi's, and without a camera")
    make_archive(shared / "archive")
    steps.like_a_pi(machine, report)
    print("what is left")
    steps.nothing_left(machine, report, before)


if __name__ == "__main__":
    sys.exit(main())
