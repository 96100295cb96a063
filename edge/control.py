"""Carries out the commands that were accepted (`edge.out.mqtt.commands`), in the main thread, and has them answered.

What a command has set outlives a restart: it is kept beside the events, because a device that a person has paused
must not look again only because the power failed.
"""

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from edge.errors import EdgeError
from edge.feed import PausedBy, Reader
from edge.out.leds import Leds
from edge.out.mqtt.command_fields import RefusedError, check, parse
from edge.out.mqtt.commands import CAPACITY, Answer, Command, CommandDesk
from edge.store.outbox import Outbox

log = logging.getLogger(__name__)

CLOSE_S = 2.0
"""Time that the camera gets to close before a pause is said to have failed."""
IDENTIFY_S = 5.0
"""How long `identify` lasts if it does not say (command-1.json)."""
_PAUSED, _CONTEXT = "paused", "context"
"""The facts that the outbox keeps."""


def was_paused(outbox: Outbox) -> bool:
    """Give whether the device was paused when it last ran, for `Reader` to begin with."""
    return outbox.recall(_PAUSED) == "true"


class Control:
    """What remote control has set, and the place that sets it."""

    def __init__(
        self,
        desk: CommandDesk,
        reader: Reader,
        outbox: Outbox,
        *,
        answer: Callable[[Answer], None],
        tell: Callable[[Mapping[str, Any]], None],
        leds: Leds | None = None,
    ) -> None:
        """Take the parts that commands act upon.

        Args:
            desk: where commands wait.
            reader: is paused and resumed; was made with a pause by command if `was_paused(outbox)`.
            outbox: is wiped, and keeps over a restart what commands have set.
            answer: publishes an answer and returns at once.
            tell: told what events are to carry as their `context` from now on, before the command is answered.
            leds: show where the device is.
        """
        self._desk, self._reader, self._outbox, self._leds = desk, reader, outbox, leds
        self._answer, self._tell_context = answer, tell
        self._context = _recalled_context(outbox)
        tell(self._context)
        self._done: dict[str, Callable[[Command], Mapping[str, Any]]] = {
            "pause": self._pause,
            "resume": self._resume,
            "identify": self._identify,
            "context": self._tell,
            "wipe": self._wipe,
        }

    def attend(self) -> None:
        """Carry out the commands that wait. To be called a few times a second."""
        # No more than can wait now, so that a flood of them cannot keep the main thread.
        for _ in range(CAPACITY):
            if (command := self._desk.next()) is None:
                return
            self._answer(self._carry_out(command))

    def _carry_out(self, command: Command) -> Answer:
        try:
            return self._desk.done(command, self._done[command.name](command))
        except EdgeError as error:
            problem = str(error)
            log.warning("command %s: %s", command.name, problem)
        except Exception as error:
            # Whoever sent it waits for an answer, and the device has other things to do than to end over a command.
            log.exception("command %s: failed", command.name)
            problem = f"{type(error).__name__}: {error}"
        return self._desk.failed(command, problem)

    def _pause(self, command: Command) -> Mapping[str, Any]:
        self._require_camera()
        changed = PausedBy.COMMAND not in self._reader.paused_by
        is_closed = self._reader.pause(CLOSE_S)
        self._remember_pause(True)
        if not is_closed:
            raise EdgeError(
                f"the camera has not given a frame for {CLOSE_S:g} s and is still open; it is closed once it gives one"
            )
        if changed:
            log.info("paused: the camera is closed")
        return {"changed": changed}

    def _resume(self, command: Command) -> Mapping[str, Any]:
        self._require_camera()
        if PausedBy.SWITCH in self._reader.paused_by:
            # Nothing is changed: whoever turns the switch off later must not wake a device that was told to rest.
            raise EdgeError("the privacy switch is on: the camera stays closed until a person turns it off")
        changed = PausedBy.COMMAND in self._reader.paused_by
        self._remember_pause(False)
        self._reader.resume()
        if changed:
            log.info("resumed")
        return {"changed": changed}

    def _identify(self, command: Command) -> Mapping[str, Any]:
        seconds = command.arguments.get("seconds", IDENTIFY_S)
        if self._leds is None:
            raise EdgeError("leds.enabled = false: there is no LED to blink")
        if not self._leds.identify(seconds):
            pins = "leds.red_pin, leds.green_pin, leds.blue_pin and leds.fault_pin"
            raise EdgeError(f"{pins} = -1: there is no LED to blink")
        return {"seconds": seconds}

    def _tell(self, command: Command) -> Mapping[str, Any]:
        return {"changed": self._replace_context(dict(command.arguments))}

    def _wipe(self, command: Command) -> Mapping[str, Any]:
        # First, so that what it said is overwritten on disk together with the events.
        self._replace_context({})
        wiped = self._outbox.wipe()
        log.warning("wiped: %d events removed, %d of them undelivered", wiped.events, wiped.undelivered)
        return {"events": wiped.events, "undelivered": wiped.undelivered}

    def _replace_context(self, context: dict[str, Any]) -> bool:
        if context == self._context:
            return False
        self._context = context
        self._tell_context(context)
        self._outbox.remember(_CONTEXT, json.dumps(context) if context else "")
        # Not what it says: a log is read by more people than events are.
        log.info("context: %s", ", ".join(context) if context else "none")
        return True

    def _remember_pause(self, paused: bool) -> None:
        if was_paused(self._outbox) != paused:
            self._outbox.remember(_PAUSED, "true" if paused else "")

    def _require_camera(self) -> None:
        if not self._reader.is_live:
            raise EdgeError("a recording is being played: only a camera can be paused")


def _recalled_context(outbox: Outbox) -> dict[str, Any]:
    kept = outbox.recall(_CONTEXT)
    try:
        fields = parse(kept.encode(errors="replace"))
        check("context", fields, "")
    except RefusedError as error:
        # Events would break their contract with it, and none would get out.
        log.warning("context: what was kept of it cannot be used: %s", error)
        return {}
    return {key: value for key, value in fields.items() if key in ("session", "note", "tags")}
