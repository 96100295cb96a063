"""Says how the device is doing, everywhere at once: fault LED, retained health message, service manager, log."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge import clock
from edge.baseline import Rest
from edge.config import Config
from edge.errors import PublishError
from edge.inference import AcceleratorStatus
from edge.out.leds import Fault, Leds
from edge.out.mqtt.commands import CommandDesk
from edge.out.mqtt.sink import MqttSink
from edge.out.systemd import Notifier
from edge.payload import health_payload
from edge.pipeline import Statistics
from edge.stages import Spread, Stage
from edge.store.outbox import Outbox

log = logging.getLogger(__name__)

PERIOD_S = 10.0
"""Time between two health messages while nothing changes (DESIGN section 3)."""
LEAST_S = 1.0
"""Time between two health messages however much changes: a face at the edge of the picture comes and goes."""
BROKER_GRACE_S = 3.0
"""A broker that is away for less is not shown as a fault; connecting takes a moment."""
TEMPERATURE = Path("/sys/class/thermal/thermal_zone0/temp")


@dataclass(frozen=True, slots=True)
class Report:
    """What the device knows about itself at one moment."""

    statistics: Statistics
    face: bool
    has_frames: bool
    """Whether a first frame has gone all the way through."""
    is_paused: bool
    """Whether a command or the privacy switch has closed the camera."""
    accelerator: AcceleratorStatus
    stages: Callable[[], Mapping[Stage, Spread]]
    """What the stages cost the last frames; asked for only when it is sent."""
    queue_dropped: int
    frames_skipped: int
    """Frames that the statistics count as lost, but that nobody wanted: the device was paused."""
    camera_problem: str
    """Empty, or why no frames come."""
    sink_problem: str
    unwritten: int
    """Events that were given up before they were numbered."""
    failure: str
    """Empty, or why the run is over before its time."""
    warnings: tuple[str, ...]
    """Of the source."""
    configuration_problem: str = ""
    """Why the configuration file is not what the device runs with; empty if it is."""
    is_private: bool = False
    """Whether the privacy switch keeps the camera closed."""


class Health:
    """Turns reports into signs, and sends a sign when it changes."""

    def __init__(
        self,
        config: Config,
        boot_id: str,
        mqtt: MqttSink | None,
        leds: Leds | None,
        notifier: Notifier,
        outbox: Outbox,
        desk: CommandDesk,
        *,
        clock_s: Callable[[], float] = time.monotonic,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Take where to show health; `mqtt` and `leds` may be absent.

        Args:
            config: the whole configuration.
            boot_id: as in the events.
            mqtt: publishes the retained health message.
            leds: shows faults.
            notifier: shows one line of status.
            outbox: keeps the events.
            desk: counts the commands.
            clock_s: monotonic seconds.
            clock_ns: UTC, ns since 1970.
        """
        self._config, self._boot_id = config, boot_id
        self._mqtt, self._leds, self._notifier = mqtt, leds, notifier
        self._outbox, self._desk = outbox, desk
        self._clock_s, self._clock_ns = clock_s, clock_ns
        self._shown: tuple[object, ...] = ()
        self._sent_s = -math.inf
        self._state = ""
        self._broker_away_s: float | None = None
        self._dropped_before = 0
        self._dropping_s = -math.inf

    def reconfigure(self, config: Config) -> None:
        """Judge by other settings from now on."""
        self._config = config

    def show(self, report: Report) -> None:
        """Show a report; cheap when nothing has changed."""
        now_s = self._clock_s()
        state, reasons = self._judge(report, now_s)
        self._show_faults(report, now_s)
        shown = (state, tuple(reasons), report.face, report.statistics.rest.ready)
        due_s = LEAST_S if shown != self._shown else PERIOD_S
        if now_s - self._sent_s >= due_s:
            self._shown, self._sent_s = shown, now_s
            self._send(state, reasons, report)
        if state != self._state:
            log.info("state: %s%s", state, f" ({'; '.join(reasons)})" if reasons else "")
            self._state = state

    def stopping(self, report: Report) -> None:
        """Show that the device stops."""
        self._notifier.stopping()
        self._send("stopping", [], report)

    def _judge(self, report: Report, now_s: float) -> tuple[str, list[str]]:
        """Give the state as the health schema names it, and why it is not `running`."""
        problems = [problem for problem in (report.failure, report.camera_problem) if problem]
        if problems:
            return "fault", problems
        if report.is_paused:
            reasons = ["privacy switch"] if report.is_private else []
            return "paused", reasons + self._trouble(report, now_s)
        if not report.has_frames:
            return "starting", []
        reasons = [*report.warnings, *self._trouble(report, now_s)]
        if report.accelerator.state == "lost":
            reasons.append(report.accelerator.reason)
        if report.queue_dropped > self._dropped_before:
            self._dropped_before, self._dropping_s = report.queue_dropped, now_s
        if now_s - self._dropping_s < PERIOD_S:
            reasons.append(
                f"camera.rate_hz = {self._config.camera.rate_hz:g}: this machine is too slow for it, "
                "frames are being dropped"
            )
        shortest_ms, longest_ms = report.statistics.shortest_event_ms, self._config.event.max_duration_ms
        if report.statistics.duration_s >= 1 and shortest_ms > longest_ms:
            reasons.append(
                f"{report.statistics.frame_rate_hz:.1f} frames/s: too slow to assess any event up to "
                f"event.max_duration_ms = {longest_ms}"
            )
        return ("degraded" if reasons else "running"), reasons

    def _trouble(self, report: Report, now_s: float) -> list[str]:
        """Give what keeps events from being kept, published or asked for."""
        disk = self._outbox.problem or self._outbox.warning
        problems = (report.configuration_problem, clock.problem(self._clock_ns()), report.sink_problem, disk)
        reasons = [problem for problem in problems if problem]
        if self._mqtt is not None:
            if self._away_s(now_s) >= BROKER_GRACE_S:
                reasons.append(f"mqtt: {self._mqtt.problem}")
            if problem := self._mqtt.commands_problem:
                reasons.append(f"mqtt: {problem}")
        return reasons

    def _away_s(self, now_s: float) -> float:
        """Give for how long nothing has got through to the broker, s."""
        if self._mqtt is None or not self._mqtt.problem:
            self._broker_away_s = None
            return 0.0
        if self._broker_away_s is None:
            self._broker_away_s = now_s
        return now_s - self._broker_away_s

    def _show_faults(self, report: Report, now_s: float) -> None:
        if self._leds is None:
            return
        self._leds.fault(Fault.CAMERA, bool(report.camera_problem))
        self._leds.fault(Fault.MODELS, bool(report.failure))
        self._leds.fault(Fault.ACCELERATOR, report.accelerator.state == "lost")
        self._leds.fault(Fault.BROKER, self._away_s(now_s) >= BROKER_GRACE_S)
        self._leds.fault(Fault.DISK, bool(self._outbox.problem or self._outbox.warning))
        self._leds.fault(Fault.CONFIGURATION, bool(report.configuration_problem))
        self._leds.fault(Fault.OTHER, bool(report.sink_problem or clock.problem(self._clock_ns())))

    def _send(self, state: str, reasons: list[str], report: Report) -> None:
        self._notifier.status(self._line(state, reasons, report))
        if self._mqtt is None:
            return
        try:
            self._mqtt.publish_health(
                health_payload(
                    self._config.device.id,
                    self._boot_id,
                    self._clock_ns(),
                    state,
                    **self._figures(reasons, report),
                )
            )
        except PublishError as error:
            # A figure that breaks the contract is our mistake; it must not end the service.
            log.error("health: %s", error)

    def _figures(self, reasons: list[str], report: Report) -> dict[str, Any]:
        numbers = report.statistics
        commands = self._desk.counts()
        return {
            "reasons": [reason[:300] for reason in reasons][:20] or None,
            "frame_rate_hz": None if report.is_paused else _known(numbers.frame_rate_hz, 1),
            "frames": numbers.frames,
            "frames_dropped": max(0, numbers.dropped - report.frames_skipped),
            "frames_out_of_order": numbers.out_of_order,
            "clock_steps": numbers.clock_steps,
            "assessable_share": assessable_share(numbers),
            "shortest_assessable_ms": _known(numbers.shortest_event_ms, 1),
            "face": report.face and not report.is_paused,
            "other_faces": numbers.others,
            "events": numbers.events,
            "not_assessable_s": {
                str(reason): round(seconds, 3) for reason, seconds in numbers.not_assessable_s.items()
            },
            "refusals": {
                "total": sum(numbers.refusals.values()),
                "by_reason": {str(reason): count for reason, count in numbers.refusals.items()},
            },
            "baseline": _baseline(numbers.rest),
            "outbox": _outbox(self._outbox, report.unwritten),
            "commands": {"accepted": commands.accepted, "refused": dict(commands.refused)},
            "engine": report.accelerator.engine,
            "accelerator": _accelerator(report.accelerator),
            "stage_ms": _stage_ms(report.stages()) or None,
            "temperature_c": _temperature_c(),
        }

    def _line(self, state: str, reasons: list[str], report: Report) -> str:
        if reasons:
            return f"{state}: {'; '.join(reasons)}"
        face = "face followed" if report.face else "no face"
        numbers = report.statistics
        rate_hz = _known(numbers.frame_rate_hz, 1)
        dropped = max(0, numbers.dropped - report.frames_skipped)
        rate = f"{rate_hz:g} frames/s" if rate_hz is not None else "rate not known yet"
        return f"{state}: {rate}, {face}, {numbers.events} events, {dropped} frames dropped"


def assessable_share(statistics: Statistics) -> float | None:
    """Give the share of media time that could be assessed, 0..1; None before there is any."""
    if statistics.duration_s <= 0:
        return None
    return round(min(max(statistics.assessable_s / statistics.duration_s, 0.0), 1.0), 3)


def _baseline(rest: Rest) -> dict[str, Any]:
    figures = (
        ("noise_floor_iod", rest.noise_floor_iod, 6),
        ("asymmetry_iod", rest.asymmetry_iod, 4),
        ("blinks_per_min", rest.blinks_per_min, 1),
    )
    known = {name: round(value, digits) for name, value, digits in figures if value is not None}
    return {"ready": rest.ready, "progress": round(rest.progress, 3), **known}


def _outbox(outbox: Outbox, unwritten: int) -> dict[str, Any]:
    counts = outbox.counts()
    series, next_seq = outbox.number
    return {
        "durable": not outbox.problem, "series": series, "last_seq": next_seq - 1,
        "waiting": counts.waiting, "lost": counts.lost, "unwritten": unwritten,
        "losses": [asdict(loss) for loss in outbox.losses()],
        **({"set_aside": outbox.set_aside} if outbox.set_aside else {}),
    }  # fmt: skip


def _accelerator(status: AcceleratorStatus) -> dict[str, Any]:
    return {
        "asked": status.asked, "state": status.state, "restarts": status.restarts,
        "fallback_runs": status.fallback_runs, **({"reason": status.reason[:300]} if status.reason else {}),
    }  # fmt: skip


def _known(value: float, digits: int) -> float | None:
    """Round a figure; None where it is not known yet (no frames: no rate)."""
    return round(float(value), digits) if math.isfinite(value) and value > 0 else None


def _stage_ms(stages: Mapping[Stage, Spread]) -> dict[str, dict[str, float]]:
    return {
        stage.name.lower(): {
            "p50": round(spread.p50, 3),
            "p95": round(spread.p95, 3),
            "p99": round(spread.p99, 3),
            "share": round(spread.share, 4),
        }
        for stage, spread in stages.items()
    }


def _temperature_c() -> float | None:
    try:
        return round(int(TEMPERATURE.read_text()) / 1000, 1)
    except (OSError, ValueError):
        return None
