"""The shipped units under real systemd, in a container: nothing here is a stand-in but the camera and the pins."""

import json
from pathlib import Path
from typing import Any

import pytest

from tools.container import boot, layer
from tools.container.device import PYTHON, SETTINGS, SOURCE, equip

CONFIGURATION = f"""\
{SETTINGS}source = "synthetic"
rate_hz = 100.0
"""


@pytest.fixture(scope="module")
def found(debian: tuple[str, Path]) -> dict[str, Any]:
    """What was found by taking the steps of tests/container_steps.py."""
    with layer(debian[1]) as over:
        binds = equip(over.root, CONFIGURATION)
        printed = boot(
            over.root, script=f"exec {PYTHON} {SOURCE}/tests/container_steps.py", timeout_s=240, binds=binds
        )
    print(printed)
    return dict(json.loads(printed.splitlines()[-1]))


def test_everything_runs_in_the_sandbox(found: dict[str, Any]) -> None:
    assert "ran on: litert" in found["sandbox"]["journal"]


def test_a_wrong_configuration_ends_the_service_once_and_starts_the_fault_led(found: dict[str, Any]) -> None:
    step = found["wrong_configuration"]
    assert (step["exit"], step["restarts"]) == ("2", "0")
    assert "camera.rate_hz = 100000" in step["journal"]
    assert step["fault"] == "active", step["fault_journal"]


def test_without_a_frame_the_service_is_not_ready_and_says_why(found: dict[str, Any]) -> None:
    step = found["absent_camera"]
    assert step["state"] == "activating"
    assert step["status"].startswith("fault: ")
    # Without GPIO it may have ended by itself before, as failed.
    assert step["fault"] in ("inactive", "failed")


def test_once_it_is_ready_frames_flow_and_events_reach_a_broker_that_asks_for_a_password(
    found: dict[str, Any],
) -> None:
    step = found["running"]
    assert step["user"] == "microedge"
    assert step["frames"] > 0
    assert "frames/s" in step["status"]
    assert step["event"]["clock_synchronised"] is True


def test_the_password_is_neither_in_the_journal_nor_in_the_process_list(found: dict[str, Any]) -> None:
    assert found["running"]["tells_password"] is False


def test_a_reload_keeps_the_process_and_a_bad_file_changes_nothing(found: dict[str, Any]) -> None:
    assert found["reload"] == {"same_process": True, "is_active": True}


def test_a_process_that_hangs_is_killed_and_runs_again(found: dict[str, Any]) -> None:
    step = found["hang"]
    assert int(step["restarts"]) >= 1
    assert "Watchdog timeout" in step["journal"]
    # Where each thread was.
    assert "Fatal Python error: Aborted" in step["journal"]
    assert "edge/app.py" in step["journal"].rpartition("Fatal Python error")[2]


def test_it_stops_when_told_to_and_leaves_nothing_behind(found: dict[str, Any]) -> None:
    step = found["stop"]
    assert (step["result"], step["state"], step["processes"]) == ("success", "inactive", [])
    assert step["runtime_folder"] is False


def test_nothing_is_written_but_its_state(found: dict[str, Any]) -> None:
    assert [path for path in found["written"] if not path.startswith("/var/lib/microedge/")] == []
    assert "/var/lib/microedge/events.db" in found["written"]
