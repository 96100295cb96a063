"""The inference child may die in any way: the call in hand is answered, the loss is shown, and it comes back."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gpiozero.pins.mock import MockFactory

from edge.app import App
from edge.baseline import Rest
from edge.config import Config, History, load
from edge.config import Outbox as OutboxConfig
from edge.errors import ConfigError, ModelError
from edge.health import Health, Report
from edge.inference import edgetpu
from edge.inference.channel import ModelOrder, Order
from edge.inference.coral import Accelerator
from edge.inference.cpu import installed_engines
from edge.inference.manifest import load_model, models_folder, read_manifest
from edge.inference.models import NAMES, Models, load_models
from edge.inference.process import Isolation
from edge.out.leds import Fault
from edge.out.mqtt.commands import CommandDesk
from edge.out.systemd import Notifier
from edge.pipeline import Statistics
from edge.store.outbox import Outbox
from tests.test_app import Camera
from tests.test_inference import MOST_STEPS_APART, some_input

Until = Callable[..., None]
Start = Callable[..., Models]

PATIENT = Isolation(engine=installed_engines()[0], first_retry_s=0.01, longest_retry_s=0.05, hang_s=0.05)
DEADLINE_MS = 1000
"""Longer than the device's: a busy machine must not make a sound child look like a hanging one."""

BABBLER = """
import mmap, socket, sys
sys.path.append({root!r})
from edge.inference.channel import DONE, HEADER, READY, Order, areas, message
order = Order.of_text(sys.argv[1])
memory = mmap.mmap(order.memory, 0)
link = socket.socket(fileno=order.socket)
link.send(message(READY))
while asked := link.recv(1024):
    kind, sequence, place, size = HEADER.unpack(asked)
    {answer}
"""


@pytest.fixture
def start() -> Iterator[Start]:
    """Load the models with a child of a kind; whatever was started is ended."""
    started: list[Models] = []

    def begin(isolation: Isolation = PATIENT, deadline_ms: float = DEADLINE_MS) -> Models:
        config = load(None, [f"inference.deadline_ms={deadline_ms}"])
        started.append(load_models(config, isolation=isolation))
        return started[-1]

    yield begin
    for models in started:
        models.close()


def accelerator_of(models: Models) -> Accelerator:
    assert models.accelerator is not None
    return models.accelerator


def test_the_child_answers_as_the_cpu_does(start: Start, until: Until) -> None:
    models = start()
    until(lambda: models.status.state == "in use", "the child")
    for name in NAMES:
        model, cpu = getattr(models, name), load_model(name)
        for seed in range(3):
            values = some_input(cpu, seed)
            assert all(map(np.array_equal, model.run(values), cpu.run(values)))
    assert models.status.fallback_runs == 0


def test_until_the_child_is_ready_the_cpu_answers(start: Start) -> None:
    models = start(replace(PATIENT, command=(sys.executable, "-c", "import time; time.sleep(100)")))
    cpu = load_model("landmark")
    values = some_input(cpu, 0)
    assert all(map(np.array_equal, models.landmark.run(values), cpu.run(values)))
    assert (models.status.state, models.status.engine, models.status.fallback_runs) == (
        "starting", cpu.engine, 1,
    )  # fmt: skip


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGABRT, signal.SIGSTOP])
def test_a_child_that_dies_or_hangs_is_replaced_and_no_call_goes_unanswered(
    start: Start, until: Until, kind: signal.Signals
) -> None:
    models = start(deadline_ms=1000 if kind != signal.SIGSTOP else 20)
    accelerator = accelerator_of(models)
    until(lambda: models.status.state == "in use", "the child")
    cpu = load_model("spotter")
    inputs = [some_input(cpu, seed) for seed in range(8)]
    wanted = [cpu.run(values) for values in inputs]
    first = accelerator.pid
    assert first is not None
    os.kill(first, kind)
    seen: set[str] = set()
    turn = 0

    def runs_until_back() -> bool:
        nonlocal turn
        turn += 1
        answer = models.spotter.run(inputs[turn % 8])
        assert all(map(np.array_equal, answer, wanted[turn % 8]))
        seen.add(models.status.state)
        return models.status.state == "in use" and accelerator.pid not in (None, first)

    until(runs_until_back, "a new child")
    assert seen == {"in use", "lost"}
    assert models.status.restarts >= 1
    assert models.status.fallback_runs >= 1
    until(lambda: not Path(f"/proc/{first}").exists(), "the end of the old child")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("link.send(message(DONE, sequence + 1, place, 1))", "which was not asked for"),
        ("link.send(message(DONE, sequence, place, 7))", "which was not asked for"),
        ("link.send(b'!')", "which was not asked for"),
        ("link.send(message(b'FAIL', text='USB transfer error 2'))", "USB transfer error 2"),
        ("sys.exit('F driver.cc:1148 transfer')", r"exit status 1\); F driver.cc:1148"),
        # The right form, but nothing in it: found out by the test inputs.
        (
            "link.send(message(DONE, sequence, place, areas(memory, order.models)[place].output_bytes))",
            "is unlike the CPU's",
        ),
    ],
)
def test_a_child_that_answers_wrongly_is_never_used(
    start: Start, until: Until, answer: str, reason: str
) -> None:
    script = BABBLER.format(root=str(models_folder().parent), answer=answer)
    models = start(replace(PATIENT, command=(sys.executable, "-c", script)))
    until(lambda: models.status.state == "lost", "the loss")
    assert re.search(reason, models.status.reason), models.status.reason
    cpu = load_model("detector")
    values = some_input(cpu, 0)
    assert all(map(np.array_equal, models.detector.run(values), cpu.run(values)))
    assert models.status.restarts == 0
    assert accelerator_of(models).pid is None


# Sound until it has proven itself, then wrong once the program relies on it.
TURNCOAT = """
import os, sys
sys.path.append({root!r})
from edge.inference import channel, child
sound = channel.message
count = 0
def message(kind, sequence=0, place=0, size=0, text=""):
    global count
    count += kind == channel.DONE
    if kind == channel.DONE and count > 3:
        {deed}
    return sound(kind, sequence, place, size, text)
child.message = message
child.main()
"""


@pytest.mark.parametrize(
    ("deed", "reason"),
    [
        ("sequence -= 1", "not asked for"),
        ("size += 64", "not asked for"),
        ("raise RuntimeError('Deadline exceeded: USB transfer error 2')", "USB transfer error 2"),
    ],
)
def test_garbage_from_a_child_in_use_is_not_taken_for_an_answer(
    start: Start, until: Until, deed: str, reason: str
) -> None:
    script = TURNCOAT.format(root=str(models_folder().parent), deed=deed)
    models = start(replace(PATIENT, first_retry_s=5.0, command=(sys.executable, "-c", script)))
    until(lambda: models.status.state == "in use", "the child")
    cpu = load_model("landmark")
    values = some_input(cpu, 3)
    assert all(map(np.array_equal, models.landmark.run(values), cpu.run(values)))
    assert models.status.fallback_runs == 1
    until(lambda: reason in models.status.reason, f"{reason} in {models.status}")
    assert models.status.state == "lost"


def test_a_late_answer_is_not_taken_for_a_later_one(start: Start, until: Until) -> None:
    models = start(replace(PATIENT, hang_s=60.0), deadline_ms=20)
    accelerator = accelerator_of(models)
    until(lambda: models.status.state == "in use", "the child")
    cpu = load_model("landmark")
    inputs = [some_input(cpu, seed) for seed in range(4)]
    wanted = [cpu.run(values) for values in inputs]
    pid = accelerator.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    for values, expected in zip(inputs, wanted, strict=True):
        assert all(map(np.array_equal, models.landmark.run(values), expected))
    assert models.status.fallback_runs == 4
    os.kill(pid, signal.SIGCONT)

    def answers_again() -> bool:
        before = models.status.fallback_runs
        assert all(map(np.array_equal, models.landmark.run(inputs[2]), wanted[2]))
        return models.status.fallback_runs == before

    until(answers_again, "an answer of the same child")
    assert accelerator.pid == pid


def test_a_child_whose_model_file_is_gone_says_which(tmp_path: Path, until: Until) -> None:
    models = [load_model(name) for name in NAMES]
    absent = {name: (tmp_path / f"{name}.tflite", "") for name in NAMES}
    accelerator = Accelerator(models, absent, PATIENT, asked="auto")
    until(lambda: accelerator.status.state == "lost", "the loss")
    assert "detector.tflite: No such file" in accelerator.status.reason
    accelerator.close()


def test_the_child_ends_with_its_accelerator(start: Start, until: Until) -> None:
    models = start()
    until(lambda: models.status.state == "in use", "the child")
    pid = accelerator_of(models).pid
    models.close()
    models.close()
    assert not Path(f"/proc/{pid}").exists()


def test_the_child_ends_with_the_program_and_does_not_see_the_service_manager(
    tmp_path: Path, until: Until
) -> None:
    script = (
        "import os, sys, time\nfrom edge.config import load\nfrom edge.inference.models import load_models\n"
        "from edge.inference.process import Isolation\n"
        f"m = load_models(load(None), isolation=Isolation(engine={PATIENT.engine!r}))\n"
        "while m.accelerator.pid is None: time.sleep(0.01)\n"
        "print(m.accelerator.pid, flush=True)\ntime.sleep(100)\n"
    )
    environment = {**os.environ, "NOTIFY_SOCKET": "/nowhere", "PYTHONPATH": str(models_folder().parent)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as program:
        assert program.stdout is not None
        child = int(program.stdout.readline())
        assert b"NOTIFY_SOCKET" not in Path(f"/proc/{child}/environ").read_bytes()
        assert os.getsid(child) == child
        program.kill()
        program.wait()
    until(lambda: _has_ended(child), "the end of the child")


def _has_ended(pid: int) -> bool:
    # Whoever inherits orphans may be slow to reap them.
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True


# A driver with the entry points of libedgetpu that takes no operator upon itself, so that the CPU runs all of them.
DRIVER = """
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
typedef struct Delegate {
  void *data;
  int (*prepare)(void *, struct Delegate *);
  void *copy_from, *copy_to, *free_buffer;
  int64_t flags;
  void *opaque;
} Delegate;
static int prepare(void *context, Delegate *self) { return 0; }
Delegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
  for (size_t i = 0; i < count; i++) {
    if (!strcmp(keys[i], "device") && !strcmp(values[i], ":7")) { report("no such device"); return 0; }
    if (!strcmp(keys[i], "device") && !strcmp(values[i], "pci")) { fputs("F driver.cc:1148\\n", stderr); abort(); }
  }
  Delegate *made = calloc(1, sizeof(Delegate));
  made->prepare = prepare;
  return made;
}
void tflite_plugin_destroy_delegate(Delegate *made) { free(made); }
"""


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shared library in the place of libedgetpu."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler here")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "driver.c").write_text(DRIVER)
    library = folder / edgetpu.LIBRARY
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, folder / "driver.c"], check=True)
    return library


def with_driver(library: Path, device: str) -> Accelerator:
    """An accelerator that loads a driver; the models need not be compiled for one that takes nothing upon itself."""
    files = {name: (models_folder() / f"{name}.tflite", "") for name in NAMES}
    isolation = replace(PATIENT, engine="edgetpu", library=str(library), device=device, deadline_s=1.0)
    return Accelerator([load_model(name) for name in NAMES], files, isolation, asked="edgetpu")


def test_the_child_loads_the_driver_and_runs_models_with_it(driver: Path, until: Until) -> None:
    accelerator = with_driver(driver, "")
    until(lambda: accelerator.status.state == "in use", "the child")
    model, cpu = accelerator.models[1], load_model("landmark")
    assert model.engine == "edgetpu"
    values = some_input(cpu, 0)
    for one, other in zip(model.run(values), cpu.run(values), strict=True):
        assert np.percentile(np.abs(one.astype(np.int16) - other), 99) <= MOST_STEPS_APART
    assert accelerator.status.fallback_runs == 0
    accelerator.close()


@pytest.mark.parametrize(
    ("device", "reason"),
    [(":7", r"cannot open inference.device = ':7' .*no such device"), ("pci", r"SIGABRT\); .*")],
)
def test_a_driver_that_fails_or_aborts_does_not_take_the_program_with_it(
    driver: Path, until: Until, device: str, reason: str
) -> None:
    accelerator = with_driver(driver, device)
    until(lambda: accelerator.status.state == "lost", "the loss")
    assert re.search(reason, accelerator.status.reason, re.S), accelerator.status.reason
    accelerator.close()


def test_a_driver_that_is_none_is_named(tmp_path: Path, until: Until) -> None:
    accelerator = with_driver(tmp_path / "nothing.so", "")
    until(lambda: accelerator.status.state == "lost", "the loss")
    assert "nothing.so cannot open the first device" in accelerator.status.reason
    accelerator.close()


def test_an_order_survives_the_command_line() -> None:
    passport = read_manifest(models_folder())["spotter"]
    model = ModelOrder("spotter", "/a b/c.tflite", "", passport.input, passport.outputs)
    order = Order("edgetpu", "/lib/x", ":1", 2, 3, 4, 5, (model,))
    assert Order.of_text(order.to_text()) == order


class Lamp:
    """Takes the place of the LEDs."""

    def __init__(self) -> None:
        self.faults: dict[Fault, bool] = {}

    def fault(self, fault: Fault, is_on: bool) -> None:
        self.faults[fault] = is_on


def test_edgetpu_demanded_without_any_of_it_names_everything_that_is_missing() -> None:
    if edgetpu.find_library() or edgetpu.find_devices():
        pytest.skip("there is a Coral, or its library, here")
    with pytest.raises(ConfigError) as caught:
        load_models(load(None, ["inference.accelerator=edgetpu"]))
    text = str(caught.value)
    assert "libedgetpu.so.1: install" in text
    assert "18d1:9302" in text
    assert "landmark_edgetpu.tflite" in text
    assert "edgetpu_compiler -o" in text


@pytest.fixture
def unplugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A machine with all that a Coral takes but the device itself; gives the setting that names its models."""
    folder = tmp_path / "models"
    shutil.copytree(models_folder(), folder)
    for name in NAMES:
        (folder / edgetpu.COMPILED.format(name=name)).touch()
    monkeypatch.setattr(edgetpu, "find_library", lambda: tmp_path / edgetpu.LIBRARY)
    monkeypatch.setattr(edgetpu, "find_devices", list)
    return f"inference.models={folder}"


def test_edgetpu_demanded_without_the_device_alone_is_worth_another_start(unplugged: str) -> None:
    with pytest.raises(ModelError, match="edgetpu: no device") as caught:
        load_models(load(None, ["inference.accelerator=edgetpu", unplugged]))
    assert len(str(caught.value).splitlines()) == 1


def test_auto_goes_on_looking_for_a_device_that_is_not_plugged_in_yet(unplugged: str, until: Until) -> None:
    models = load_models(load(None, [unplugged]))
    until(lambda: models.status.state == "lost", "an attempt")
    values = some_input(load_model("spotter"), 0)
    assert all(map(np.array_equal, models.spotter.run(values), load_model("spotter").run(values)))
    models.close()


def test_without_a_coral_auto_runs_on_the_cpu_and_says_why() -> None:
    if edgetpu.find_devices():
        pytest.skip("there is a Coral here")
    models = load_models(load(None))
    assert models.status.state == "absent"
    assert "no device" in models.status.reason
    assert models.status.engine == models.detector.engine
    models.close()


def test_the_library_is_found_where_debian_puts_it(tmp_path: Path) -> None:
    place = tmp_path / "aarch64-linux-gnu"
    place.mkdir()
    assert edgetpu.find_library([tmp_path]) is None
    (place / edgetpu.LIBRARY).touch()
    assert edgetpu.find_library([tmp_path]) == place / edgetpu.LIBRARY


def test_devices_are_found_on_usb_before_and_after_their_firmware_and_on_pcie(tmp_path: Path) -> None:
    usb, dev = tmp_path / "usb", tmp_path / "dev"
    for name, vendor, product in (("1-1", "1a6e", "089a"), ("1-2", "18d1", "9302"), ("1-3", "046d", "c52b")):
        (usb / name).mkdir(parents=True)
        (usb / name / "idVendor").write_text(vendor + "\n")
        (usb / name / "idProduct").write_text(product + "\n")
    (usb / "1-0:1.0").mkdir()
    dev.mkdir()
    (dev / "apex_0").touch()
    assert edgetpu.find_devices(usb, dev) == ["usb", "usb", str(dev / "apex_0")]


@pytest.mark.parametrize(
    ("engine", "runtime", "library", "verdict"),
    [
        ("tflite-runtime", "2.17.1", "16.0TF2.17.1-1", "ok"),
        ("tflite-runtime", "2.5.0.post1", "16.0", "ok"),
        ("tflite-runtime", "2.17.0", "16.0TF2.17.1-1", "unproven"),
        ("tflite-runtime", "2.14.0", "16.0TF2.17.1-1", "known to crash"),
        ("tflite-runtime", "2.14.0", "16.0", "known to crash"),
        ("tflite-runtime", "2.9.1", "16.0", "unproven"),
        ("tflite-runtime", "2.14.0", "", "unproven"),
        ("litert", "2.3.0", "16.0TF2.19.1-1", "unproven"),
    ],
)
def test_runtime_and_library_are_judged_as_a_pair(
    engine: str, runtime: str, library: str, verdict: str
) -> None:
    judged = edgetpu.pairing(engine, runtime, library)
    assert judged.verdict == verdict
    assert runtime in judged.words


def test_the_runtime_that_goes_with_the_driver_is_taken_before_the_faster_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = tmp_path / "status"
    entry = "Package: libedgetpu1-std\nStatus: install ok installed\nVersion: 16.0TF2.{}-1\n"
    monkeypatch.setattr(edgetpu, "installed_engines", lambda: ["litert", "tflite-runtime"])
    monkeypatch.setattr(edgetpu, "_runtime_version", {"litert": "2.3.0", "tflite-runtime": "2.14.0"}.get)
    for built_with, taken in (("14.0", "tflite-runtime"), ("19.1", "litert")):
        status.write_text(entry.format(built_with))
        assert edgetpu.best_runtime(status)[0] == taken


def test_the_librarys_version_is_that_of_its_package(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text(
        "Package: bash\nStatus: install ok installed\nVersion: 5.2\n\n"
        "Package: libedgetpu1-max\nStatus: install ok installed\nVersion: 16.0TF2.17.1-1\n"
    )
    assert edgetpu.library_version(status) == "16.0TF2.17.1-1"
    assert edgetpu.library_version(tmp_path / "none") == ""


def test_a_lost_accelerator_lights_its_fault_and_degrades_the_state(start: Start, until: Until) -> None:
    models = start(replace(PATIENT, first_retry_s=5.0, command=("/nowhere/python",)))
    until(lambda: models.status.state == "lost", "the loss")
    lamp = Lamp()
    said: list[str] = []
    notifier = Notifier({})
    notifier.status = said.append  # type: ignore[method-assign]
    outbox, desk = Outbox(None, OutboxConfig(), History(days=0)), CommandDesk("microedge/lab", "lab")
    health = Health(load(None), "boot", None, lamp, notifier, outbox, desk)  # type: ignore[arg-type]
    numbers = Statistics(4000, 0, 0, 200.0, 20.0, 20.0, 17.0, {}, {}, 3, 1, 0, rest=Rest())
    health.show(
        Report(
            statistics=numbers, face=True, has_frames=True, is_paused=False, accelerator=models.status, stages=dict,
            queue_dropped=0, frames_skipped=0, camera_problem="", sink_problem="", unwritten=0, failure="", warnings=(),
        )
    )  # fmt: skip
    assert said[-1].startswith("degraded: inference child: cannot be started (No such file or directory)")
    assert lamp.faults[Fault.ACCELERATOR]


def test_the_device_shows_the_loss_of_its_child_and_its_return_and_handles_every_frame(
    monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    made: list[Models] = []

    def isolated(config: Config) -> Models:
        made.append(load_models(config, isolation=replace(PATIENT, first_retry_s=0.3, longest_retry_s=0.3)))
        return made[-1]

    monkeypatch.setattr("edge.app.load_models", isolated)
    config = load(None, ["mqtt.enabled=false", f"inference.deadline_ms={DEADLINE_MS}"])
    factory = MockFactory()
    with App(config, Camera, is_live=True, pin_factory=factory) as app:
        leds = app.leds
        assert leds is not None

        def faults() -> frozenset[Fault]:
            app.attend()
            return leds.faults

        accelerator = accelerator_of(made[0])
        until(lambda: app.statistics.frames > 0 and accelerator.pid is not None, "the child and frames")
        assert Fault.ACCELERATOR not in faults()
        pid = accelerator.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(lambda: Fault.ACCELERATOR in faults(), "the fault light")
        until(lambda: Fault.ACCELERATOR not in faults(), "the light's end")
        assert made[0].status.restarts >= 1
        assert (app.statistics.dropped, app.failure) == (0, "")
    assert accelerator.pid is None
    factory.reset()
