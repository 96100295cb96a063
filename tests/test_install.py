"""The installer: what it refuses, where it puts each file, that its wheels exist, and that it leaves no trace."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tools.container import boot, layer
from tools.install_trial import bare, steps
from tools.install_trial.machine import Machine
from tools.install_trial.tree import difference, listing
from tools.wheels import TARGETS, Target, WheelError, declared, fill, resolve

ROOT = Path(__file__).parents[1]
INSTALL, UNINSTALL = ROOT / "tools/install", ROOT / "tools/uninstall"
READING_MATTER = ("README.md", "configuration.md", "checklist.md", "broker/")
"""Of systemd/, what is not laid down on a device."""
PLACES = {
    "60-microedge-coral.rules": "/usr/lib/udev/rules.d/60-microedge-coral.rules",
    "journald.conf.d/60-microedge.conf": "/etc/systemd/journald.conf.d/60-microedge.conf",
    "microedge-fault.service": "/etc/systemd/system/microedge-fault.service",
    "microedge.service": "/etc/systemd/system/microedge.service",
    "microedge.sysusers": "/usr/lib/sysusers.d/microedge.conf",
    "microedge.tmpfiles": "/usr/lib/tmpfiles.d/microedge.conf",
    "system.conf.d/60-microedge-watchdog.conf": "/etc/systemd/system.conf.d/60-microedge-watchdog.conf",
}


def call(*command: str | Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command; what lies in `path` is found before the system's."""
    found_first = f"{path}:{os.environ['PATH']}" if path is not None else os.environ["PATH"]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": found_first}
    )


@pytest.mark.parametrize("script", [INSTALL, UNINSTALL])
def test_help_is_given_to_anybody_and_a_wrong_option_is_status_2(script: Path) -> None:
    helped, wrong = call(script, "--help"), call(script, "--upgrade-please")
    assert helped.returncode == 0
    assert helped.stdout.startswith("usage: sudo tools/")
    assert wrong.returncode == 2
    assert "unknown option --upgrade-please" in wrong.stderr


def test_all_that_speaks_against_a_machine_is_said_at_once(tmp_path: Path) -> None:
    for name, answer in (("id", "1000"), ("dpkg", "armhf"), ("df", "Avail\n  17")):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\nprintf '{answer}\\n'\n")
        program.chmod(0o755)
    refused = call(INSTALL, "--check", "--wheelhouse", tmp_path, path=tmp_path)
    assert refused.returncode == 1
    for words in (
        "must be run as root",
        "programs are armhf",
        "17 MB free: 1300 MB",
        f"no microedge-*.whl in {tmp_path}",
    ):
        assert words in refused.stderr


def test_every_file_of_the_units_folder_has_a_place_on_a_device() -> None:
    text = INSTALL.read_text()
    function = text[text.index("destination() {") : text.index("\n}\n", text.index("destination() {")) + 3]
    files = [
        str(file.relative_to(ROOT / "systemd")) for file in (ROOT / "systemd").rglob("*") if file.is_file()
    ]
    placed = {
        file: call("bash", "-c", f'{function} destination "$1"', "bash", file).stdout.strip()
        for file in files
        if not file.startswith(READING_MATTER)
    }
    assert placed == PLACES
    for file in set(files) - set(placed):
        assert not call("bash", "-c", f'{function} destination "$1"', "bash", file).stdout.strip()


def test_the_unit_starts_the_program_where_it_is_installed() -> None:
    program = re.findall(r"(?m)^PROGRAM=(.*)$", INSTALL.read_text())
    assert program == re.findall(r"(?m)^PROGRAM=(.*)$", UNINSTALL.read_text())
    assert f"ExecStart={program[0]}/bin/microedge run" in (ROOT / "systemd/microedge.service").read_text()


def test_requirements_are_judged_by_the_python_of_the_device() -> None:
    wanted = {release: {str(each) for each in declared(target)} for release, target in TARGETS.items()}
    assert "tflite-runtime==2.14.0" in wanted["bookworm"]
    assert not any(each.startswith("tflite-runtime") for each in wanted["trixie"])
    assert "numpy<2,>=1.26" in wanted["bookworm"]
    assert "numpy>=1.26" in wanted["trixie"]


@pytest.fixture(scope="module")
def index() -> None:
    """Skip where no package index can be reached."""
    try:
        resolve([Requirement("paho-mqtt")], TARGETS["bookworm"])
    except WheelError as error:
        pytest.skip(f"no package index can be reached: {error}")


@pytest.mark.parametrize("release", TARGETS)
@pytest.mark.usefixtures("index")
def test_all_that_a_device_installs_has_a_wheel_for_aarch64(release: str) -> None:
    chosen = resolve(declared(TARGETS[release]), TARGETS[release])
    assert {"numpy", "ai-edge-litert", "opencv-python-headless", "av"} <= chosen.keys()
    assert ("tflite-runtime" in chosen) == (release == "bookworm")
    # simplejpeg, in the system's picamera2, is compiled for the system's numpy: 1.24 on Bookworm, 2.2 on Trixie.
    assert chosen["numpy"]["version"].partition(".")[0] == {"bookworm": "1", "trixie": "2"}[release]


@pytest.mark.usefixtures("index")
def test_an_empty_lgpio_is_not_taken_for_the_real_one() -> None:
    wanted = [each for each in declared(TARGETS["trixie"], ["pi"]) if each.name == "lgpio"]
    if "0.0.0.2" not in resolve([Requirement("lgpio")], TARGETS["trixie"])["lgpio"]["version"]:
        pytest.skip("lgpio has a wheel for Python 3.13 by now")
    with pytest.raises(WheelError, match="lgpio"):
        resolve(wanted, TARGETS["trixie"])


@pytest.mark.usefixtures("index")
def test_installed_from_wheels_it_runs_a_second_time_changes_nothing_and_removal_leaves_nothing(
    debian: tuple[str, Path], tmp_path: Path
) -> None:
    release, root = debian
    machine_name = os.uname().machine
    if machine_name not in ("x86_64", "aarch64"):
        pytest.skip(f"no container: no device is a {machine_name}")
    with layer(root) as over:
        # What a first boot leaves is not the installer's.
        boot(over.root, script="true", timeout_s=60)
        before = listing(over.root)
        bare.version(tmp_path / steps.OLD, steps.OLD)
        target = Target(TARGETS[release].python, TARGETS[release].glibc, machine_name)
        fill(tmp_path / "wheels", target, ["demo"], source=tmp_path / steps.OLD)
        said: list[str] = []
        report = steps.Report(say=said.append)
        machine = Machine(over.root, tmp_path)
        command = f"/trial/{steps.OLD}/tools/install --wheelhouse /trial/wheels --extras demo"
        steps.install(machine, report, command=command, network=False)
        steps.uninstall(machine, report)
        left = difference(before, listing(over.root))
    assert not report.failures, "\n".join([*said, machine.said])
    assert not left
