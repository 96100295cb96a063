"""`microedge fault`: blinks why the service is not running, until it is terminated.

systemd starts it when microedge.service has failed (`OnFailure=`) and ends it when that starts again, so that a person
who stands before a dead device learns the reason from its fault LED (`edge.out.leds` lists the codes).
"""

import argparse
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edge.commands import ATTEND_S, StopRequest, device_config, log_to_stderr
from edge.config import Leds as LedsConfig
from edge.config import read
from edge.errors import ConfigError
from edge.out.leds import Fault, Leds

log = logging.getLogger(__name__)


def main(arguments: argparse.Namespace, pin_factory: Any = None) -> int:
    """Blink until SIGTERM or Ctrl-C; end at once where there is no fault LED to blink.

    Raises:
        ConfigError: there is no GPIO here, or the pin cannot be had.
    """
    # A file with a mistake is the likeliest reason to be here: what can be read of it says where the LED is.
    config, mistakes = read(device_config(arguments), arguments.overrides)
    log_to_stderr(config)
    if not config.leds.enabled or config.leds.fault_pin < 0:
        setting = "leds.fault_pin = -1" if config.leds.enabled else "leds.enabled = false"
        log.info("%s: there is no fault LED to blink", setting)
        return 0
    code = Fault(arguments.code) if arguments.code else code_of(os.environ)
    with StopRequest() as stop:
        leds = _take(config.leds, pin_factory, is_certain=not mistakes)
        try:
            leds.fault(code, True)
            log.info("fault LED on GPIO %d: blinking %d, %s", config.leds.fault_pin, code, code.name.lower())
            for mistake in mistakes:
                log.info("configuration: %s", mistake)
            while not stop.is_made:
                time.sleep(ATTEND_S)
        finally:
            leds.close()
    return 0


def _take(config: LedsConfig, pin_factory: Any, *, is_certain: bool) -> Leds:
    """Take all LEDs, so that those are put out which a crash has left lit; else the fault LED alone."""
    if is_certain:
        try:
            return Leds(config, pin_factory)
        except ConfigError as error:
            log.debug("%s", error)
    return Leds(replace(config, capture_pin=-1, red_pin=-1, green_pin=-1, blue_pin=-1), pin_factory)


def code_of(environment: Mapping[str, str]) -> Fault:
    """Derive the blink code from how the service ended.

    Source: systemd.exec(5), MONITOR_SERVICE_RESULT and MONITOR_EXIT_STATUS, which systemd 251 and later give to a
    unit that `OnFailure=` has started. 2 is the exit code of a wrong configuration or command line.
    """
    is_exit = environment.get("MONITOR_SERVICE_RESULT", "exit-code") == "exit-code"
    return Fault.CONFIGURATION if is_exit and environment.get("MONITOR_EXIT_STATUS") == "2" else Fault.OTHER
