"""A device whose service has failed says so by its fault LED."""

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from gpiozero.pins.mock import MockFactory, MockPin

from edge.__main__ import _parser
from edge.commands.fault import code_of, main
from edge.config import Leds as LedsConfig
from edge.out.leds import Fault, Leds

Until = Callable[..., None]


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.out.leds.BLINK_S", 0.004)
    monkeypatch.setattr("edge.out.leds.PAUSE_S", 0.3)


def bursts(pin: MockPin) -> list[int]:
    """The numbers of blinks between two pauses, as a person would count them."""
    counts = [0]
    for before, after in itertools.pairwise(pin.states):
        if after.state and not before.state:
            if after.timestamp > 0.2:
                counts.append(0)
            counts[-1] += 1
    return [count for count in counts if count]


def blink(pins: MockFactory, until: Until, pin: int, *arguments: str) -> int:
    """Run the command until its second round, and give how many times it blinked in the first."""

    def stop() -> None:
        try:
            until(lambda: len(bursts(pins.pin(pin))) >= 2, "a second round")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    person = threading.Thread(target=stop)
    person.start()
    assert main(_parser().parse_args(["fault", *arguments]), pins) == 0
    person.join()
    return bursts(pins.pin(pin))[0]


@pytest.mark.parametrize("code", [1, 2, 7])
def test_it_blinks_its_code_on_the_configured_pin_and_ends_dark_on_sigterm(
    code: int, pins: MockFactory, until: Until
) -> None:
    assert blink(pins, until, 12, "--code", str(code), "--set", "leds.fault_pin=12") == code
    assert pins.pin(12).state == 0


def test_a_pin_in_a_file_with_mistakes_elsewhere_is_used_and_nothing_else_is_touched(
    pins: MockFactory, until: Until, tmp_path: Path
) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[leds]\nfault_pin = 5\n[mqtt]\nport = 0\n")
    assert blink(pins, until, 5, "--config", str(path), "--code", "7") == 7
    assert set(pins.pins) == {pins.pin(5).info}


def test_a_file_that_cannot_be_read_at_all_leaves_the_default_pin(
    pins: MockFactory, until: Until, tmp_path: Path
) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[leds\n")
    assert blink(pins, until, LedsConfig().fault_pin, "--config", str(path), "--code", "1") == 1


def test_a_capture_led_that_a_crash_has_left_lit_goes_out(pins: MockFactory, until: Until) -> None:
    capture = pins.pin(LedsConfig().capture_pin)
    capture.function, capture.state = "output", 1
    blink(pins, until, LedsConfig().fault_pin, "--code", "1")
    assert capture.state == 0


def test_it_blinks_although_another_program_has_the_other_pins(pins: MockFactory, until: Until) -> None:
    other = Leds(LedsConfig(fault_pin=-1), pins)
    other.capture(True)
    assert blink(pins, until, LedsConfig().fault_pin, "--code", "2") == 2
    assert other.state.capture
    other.capture(False)
    other.close()


@pytest.mark.parametrize(
    ("environment", "code"),
    [
        ({}, Fault.OTHER),
        ({"MONITOR_SERVICE_RESULT": "exit-code", "MONITOR_EXIT_STATUS": "2"}, Fault.CONFIGURATION),
        ({"MONITOR_SERVICE_RESULT": "exit-code", "MONITOR_EXIT_STATUS": "1"}, Fault.OTHER),
        ({"MONITOR_SERVICE_RESULT": "signal", "MONITOR_EXIT_STATUS": "2"}, Fault.OTHER),
        ({"MONITOR_SERVICE_RESULT": "watchdog", "MONITOR_EXIT_STATUS": "ABRT"}, Fault.OTHER),
        ({"MONITOR_SERVICE_RESULT": "start-limit-hit", "MONITOR_EXIT_STATUS": "1"}, Fault.OTHER),
    ],
)
def test_the_code_follows_from_how_the_service_ended(environment: dict[str, str], code: Fault) -> None:
    assert code_of(environment) == code


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--set", "leds.enabled=false"], 0, "leds.enabled = false: there is no fault LED to blink"),
        (["--set", "leds.fault_pin=-1"], 0, "leds.fault_pin = -1: there is no fault LED to blink"),
        ([], 2, "leds.fault_pin = 24: this machine has no GPIO"),
        (["--code", "8"], 2, "invalid choice: 8"),
    ],
)
def test_where_there_is_nothing_to_blink_it_says_so_and_ends(
    arguments: list[str], status: int, words: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edge", "fault", *arguments], capture_output=True, text=True, timeout=60, check=False,
        cwd=Path(__file__).parents[1], env=os.environ | {"GPIOZERO_PIN_FACTORY": "absent"},
    )  # fmt: skip
    assert done.returncode == status
    assert words in done.stderr
