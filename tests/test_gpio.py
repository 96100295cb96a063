"""Pins are had or named, and lgpio loads where a hardened service lets nothing be written."""

import importlib.util
import os
import subprocess
import sys
import warnings
from pathlib import Path

import gpiozero
import pytest
from gpiozero.pins.mock import MockFactory, MockPin
from gpiozero.pins.native import NativeFactory

from edge import gpio
from edge.errors import ConfigError, PinError
from edge.gpio import Contact, Pins

ROOT = Path(__file__).parents[1]
TAKE_TWO = """
import os, sys
from edge.errors import ConfigError
from edge.gpio import Pins
here = os.getcwd()
pins = Pins()
pins.output(17, "leds.capture_pin")
pins.output(22, "leds.red_pin")
try:
    pins.check("leds.enabled = false")
except ConfigError as error:
    print(error)
assert os.getcwd() == here and "LG_WD" not in os.environ
import lgpio
print("alive" if lgpio._notify_thread.is_alive() else "dead")
"""


@pytest.fixture
def pins() -> Pins:
    return Pins(MockFactory())


def needs_lgpio() -> None:
    if importlib.util.find_spec("lgpio") is None:
        pytest.skip("lgpio is not installed: pip install lgpio==0.2.2.0")
    if not Path("/proc").is_dir():
        pytest.skip("there is no /proc here, where nobody may write")


def run(code: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run `code` in a folder in which even root cannot make a file."""
    inherited = {name: value for name, value in os.environ.items() if name != "GPIOZERO_PIN_FACTORY"}
    return subprocess.run(
        [sys.executable, "-c", code], cwd="/proc", capture_output=True, text=True, check=False, timeout=60,
        env=inherited | {"PYTHONPATH": str(ROOT)} | environment,
    )  # fmt: skip


def test_lgpio_by_itself_does_not_load_where_it_cannot_write() -> None:
    needs_lgpio()
    done = run("import lgpio")
    assert done.returncode != 0
    assert ".lgd-nfy" in done.stderr


@pytest.mark.parametrize("variable", ["TMPDIR", "RUNTIME_DIRECTORY", "STATE_DIRECTORY"])
def test_lgpio_is_loaded_wherever_something_may_be_written_and_leaves_nothing_there(
    variable: str, tmp_path: Path
) -> None:
    needs_lgpio()
    several = f"{tmp_path}:/nowhere" if variable.endswith("DIRECTORY") else str(tmp_path)
    done = run(TAKE_TWO, **{variable: several})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "alive"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_the_users_choice_is_lgpios(tmp_path: Path) -> None:
    needs_lgpio()
    done = run(TAKE_TWO.replace('and "LG_WD" not in', 'and "LG_WD" in'), LG_WD=str(tmp_path))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "alive")
    assert (tmp_path / ".lgd-nfy0").is_fifo()


def test_a_machine_that_is_no_raspberry_pi_is_told_in_one_line_what_lgpio_missed() -> None:
    needs_lgpio()
    if Path("/proc/device-tree/system/linux,revision").exists():
        pytest.skip("this machine is a Raspberry Pi")
    first, *others = run(TAKE_TWO).stdout.splitlines()
    assert first.startswith("leds.capture_pin = 17, leds.red_pin = 22: ")
    assert "lgpio" in first or "group gpio" in first
    assert first.endswith("; leds.enabled = false")
    assert others == ["alive"]


def test_without_a_folder_to_write_to_the_folders_that_were_tried_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edge.gpio.importlib.util.find_spec", lambda name: name)
    monkeypatch.delitem(sys.modules, "lgpio", raising=False)
    monkeypatch.delenv("GPIOZERO_PIN_FACTORY", raising=False)
    monkeypatch.setenv("STATE_DIRECTORY", "/proc/state")
    monkeypatch.setattr("edge.gpio.tempfile.tempdir", "/proc/temporary")
    problem = gpio._import_lgpio()
    assert problem.startswith("lgpio needs a folder that it can write to: ")
    assert "/proc/state" in problem
    assert "/proc/temporary" in problem


def test_the_library_that_gpiozero_falls_back_on_does_not_hide_what_kept_lgpio_from_the_pins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fall_back() -> None:
        warnings.warn("Falling back from lgpio: no permission", gpiozero.PinFactoryFallback, stacklevel=2)
        gpiozero.Device.pin_factory = NativeFactory()

    monkeypatch.delenv("GPIOZERO_PIN_FACTORY", raising=False)
    monkeypatch.setattr("edge.gpio._import_lgpio", lambda: "")
    monkeypatch.setattr(gpiozero.Device, "pin_factory", None)
    monkeypatch.setattr(gpiozero.Device, "ensure_pin_factory", staticmethod(fall_back))
    monkeypatch.setattr("edge.gpio.Path.glob", lambda *_: iter(()))
    pins = Pins()
    pins.output(17, "leds.capture_pin")
    with pytest.raises(
        ConfigError, match=r"leds\.capture_pin = 17: this machine has no GPIO .*lgpio: no perm"
    ):
        pins.check("leds.enabled = false")
    assert gpiozero.Device.pin_factory is None


def test_a_contact_tells_each_edge_and_its_state_with_the_pull_up_on(pins: Pins) -> None:
    factory = pins._factory
    edges: list[bool] = []
    contact = pins.contact(5, "switches.privacy_pin", edges.append)
    assert isinstance(contact, Contact)
    assert not contact.is_closed
    assert factory.pin(5).pull == "up"
    factory.pin(5).drive_low()
    assert contact.is_closed
    factory.pin(5).drive_high()
    assert edges == [True, False]
    pins.close()
    factory.pin(5).drive_low()
    assert edges == [True, False]
    with pytest.raises(PinError, match=r"switches\.privacy_pin = 5: cannot be read"):
        _ = contact.is_closed


def test_what_a_contact_asks_for_may_fail_without_ending_the_thread_that_tells_of_it(
    pins: Pins, caplog: pytest.LogCaptureFixture
) -> None:
    pins.contact(5, "switches.identify_pin", lambda closed: closed < 1 / 0)
    pins._factory.pin(5).drive_low()
    assert "switches.identify_pin = 5: what it asks for failed" in caplog.text


def test_pins_of_several_kinds_that_cannot_be_had_are_named_together_and_the_rest_given_back() -> None:
    class TakenPin(MockPin):
        def __init__(self, factory: MockFactory, info: object) -> None:
            if str(info.name) in {"GPIO5", "GPIO17"}:  # type: ignore[attr-defined]
                raise RuntimeError("'GPIO busy'")
            super().__init__(factory, info)

    factory = MockFactory(pin_class=TakenPin)
    pins = Pins(factory)
    led, contact = (
        pins.output(17, "leds.capture_pin"),
        pins.contact(5, "switches.privacy_pin", lambda _: None),
    )
    assert pins.output(23, "leds.blue_pin") is not None
    assert (led, contact, pins.output(-1, "leds.red_pin")) == (None, None, None)
    with pytest.raises(ConfigError) as caught:
        pins.check("set less")
    names = [line.partition(":")[0] for line in str(caught.value).splitlines()]
    assert names == ["leds.capture_pin = 17", "switches.privacy_pin = 5"]
    assert Pins(factory).output(23, "leds.blue_pin") is not None


def test_a_pin_that_this_program_uses_already_is_said_to_be(pins: Pins) -> None:
    pins.output(17, "leds.capture_pin")
    pins.output(17, "leds.red_pin")
    with pytest.raises(ConfigError, match=r"leds\.red_pin = 17: cannot be used: GPIO 17 is already used"):
        pins.check("set less")
