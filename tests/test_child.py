"""The inference child keeps to itself: signals, memory images, the working directory, words on stderr."""

import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.config import load
from edge.inference import Tensor
from edge.inference.channel import ModelOrder
from edge.inference.cpu import installed_engines
from edge.inference.manifest import models_folder
from edge.inference.models import Models, load_models
from edge.inference.process import Child, Isolation

Until = Callable[..., None]

PLAIN = Isolation(engine=installed_engines()[0], first_retry_s=0.01, longest_retry_s=0.05)
SLOW_DEADLINE = ["inference.deadline_ms=1000"]
"""A busy machine must not make a sound child look late."""


@pytest.fixture
def models(until: Until) -> Iterator[Models]:
    """The models with a child in use."""
    loaded = load_models(load(None, SLOW_DEADLINE), isolation=PLAIN)
    until(lambda: loaded.status.state == "in use", "the child")
    yield loaded
    loaded.close()


def pid_of(models: Models) -> int:
    assert models.accelerator is not None
    assert models.accelerator.pid is not None
    return models.accelerator.pid


def test_the_child_leaves_it_to_the_program_when_to_end(models: Models) -> None:
    status = Path(f"/proc/{pid_of(models)}/status").read_text()
    ignored = int(next(line for line in status.splitlines() if line.startswith("SigIgn")).split()[1], 16)
    for number in (signal.SIGTERM, signal.SIGINT):
        assert ignored >> (number - 1) & 1, number


def test_an_abort_of_the_child_leaves_no_picture_of_a_face_on_disk(models: Models) -> None:
    soft, hard = resource.prlimit(pid_of(models), resource.RLIMIT_CORE)
    assert soft == (0 if hard == 0 else 1)


def test_the_child_has_no_socket_and_no_file_of_the_programs(models: Models, tmp_path: Path) -> None:
    opened = Path(f"/proc/{pid_of(models)}/fd")
    names = sorted(os.readlink(each) for each in opened.iterdir())
    assert sum(name.startswith("socket:") for name in names) == 1
    strangers = [
        name
        for name in names
        if not name.startswith(("socket:", "/dev/", "/memfd:microedge", "pipe:", "/sys"))
    ]
    assert strangers == []


def test_the_child_imports_nothing_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    (tmp_path / "mmap.py").write_text("raise SystemExit('imported from the working directory')\n")
    (tmp_path / "numpy.py").write_text("raise SystemExit('imported from the working directory')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)  # may name it as well
    loaded = load_models(load(None, SLOW_DEADLINE), isolation=PLAIN)
    try:
        until(lambda: loaded.status.state != "starting", "the child")
        assert loaded.status.state == "in use", loaded.status.reason
    finally:
        loaded.close()


def test_a_child_that_dies_while_nothing_is_asked_of_it_is_missed(models: Models, until: Until) -> None:
    first = pid_of(models)
    os.kill(first, signal.SIGKILL)
    until(lambda: models.status.restarts == 1, "another child")
    assert pid_of(models) != first
    assert models.status.fallback_runs == 0


def started(script: str) -> Child:
    """A child that runs a script in the place of ours."""
    isolation = Isolation(engine=PLAIN.engine, load_s=20.0, command=(sys.executable, "-c", script))
    tensor = Tensor("values", (1, 4), 1.0, 0)
    return Child(isolation, [ModelOrder("none", "", "", tensor, (tensor,))])


def test_of_a_child_that_complains_for_weeks_only_the_end_is_kept() -> None:
    child = started(
        "import sys, socket, json\nfrom os import write\n"
        "link = socket.socket(fileno=json.loads(sys.argv[1])['socket'])\n"
        "write(2, b'transfer retried\\n' * 10_000)\nlink.send(bytes.fromhex('52454459') + bytes(16))\n"
        "link.recv(1)\nwrite(2, b'F driver.cc:1148 transfer failed\\n')\n"
    )
    child.await_ready()
    child.trim_words()
    assert child.end(grace_s=20.0) == ("exit status 0", "F driver.cc:1148 transfer failed")


SLOW_LANDMARKS = """
import sys, time
sys.path.append({root!r})
from edge.inference import child
sound, calls = child.Loaded.run, 0
def run(self, values):
    global calls
    calls += 1
    if calls > 3 and values.shape[1] == 128:
        time.sleep(0.08)
    return sound(self, values)
child.Loaded.run = run
child.main()
"""


def test_one_slow_model_of_three_does_not_hide_behind_the_others(until: Until) -> None:
    script = SLOW_LANDMARKS.format(root=str(models_folder().parent))
    isolation = replace(PLAIN, first_retry_s=60.0, hang_s=60.0, command=(sys.executable, "-c", script))
    models = load_models(load(None, ["inference.deadline_ms=40"]), isolation=isolation)
    picture, motion = (np.zeros(model.input.shape, np.int8) for model in (models.landmark, models.spotter))

    def is_answered_in_time() -> bool:
        before = models.status.fallback_runs
        models.spotter.run(motion)
        return models.status.fallback_runs == before or models.status.state == "lost"

    def is_given_up() -> bool:
        models.landmark.run(picture)
        until(is_answered_in_time, "an answer in time")
        return models.status.state == "lost"

    try:
        until(lambda: models.status.state == "in use", "the child")
        until(is_given_up, "giving the child up", 60.0)
        assert "answers later than inference.deadline_ms = 40 in more than" in models.status.reason
    finally:
        models.close()
