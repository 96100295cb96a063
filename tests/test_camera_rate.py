"""The tool that measures what a camera gives."""

import json

import pytest
from camera_stand_in import Machine

from tools import camera_rate


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["camera_rate", *arguments])
    return camera_rate.main()


def test_a_camera_that_gives_what_is_asked_passes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Machine().install(monkeypatch.setitem)
    assert run(monkeypatch, "--seconds", "5", "--set", "camera.width=96", "--set", "camera.height=64") == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["passed"], found["frames"], found["lost"], found["rate_hz"]) == (True, 1001, 0, 200.0)
    assert found["luma_step_share"] == 0.0


def test_lost_frames_and_another_rate_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Machine(cameras=["imx708"], lost=frozenset(range(300, 304))).install(monkeypatch.setitem)
    assert run(monkeypatch, "--seconds", "5", "--set", "camera.width=96", "--set", "camera.height=64") == 1
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["passed"], found["lost"], found["rate_hz"]) == (False, 4, pytest.approx(120.13, abs=0.1))
    assert found["warnings"][0].startswith("camera.rate_hz = 200: this camera gives at most 120.1 frames/s")


def test_no_camera_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Machine(cameras=[]).install(monkeypatch.setitem)
    assert run(monkeypatch) == 1
    assert capsys.readouterr().err.startswith("camera.number = 0: not there")
