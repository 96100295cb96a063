"""Exposure, gain, white balance and focus: let the camera find them, then hold them still.

Every step of an automatic exposure moves the whole picture's brightness, and every hunt of an autofocus its
outlines: both look like movement. So the camera's own algorithms (libcamera's) run for a moment, and what they found
is turned into one exposure time and one gain that stay until the light has changed for good.

- While they look, frames come at 30 Hz at most: a rate of 200 Hz would let them expose for 5 ms only, and with the
  highest gain of their tuning a dim room then stays dark although the sensor could do more.
- What they found is a product, exposure times gain. It is divided anew for the real rate: as long an exposure as
  the frame period allows, because less gain is less noise.
- Lamps on the mains flicker at twice its frequency. An exposure of a whole number of half-periods (10 ms at 50 Hz,
  8.33 ms at 60 Hz) takes all of it away, but fits only into frames of up to 97 (50 Hz) or 116 (60 Hz) a second.
  Above, nothing does; the longest exposure then leaves the least: with 4.85 ms of 5 ms and lamps at 100 Hz, 66 % of
  what a very short one would show. Frames lit differently are then for the motion stage to sort out (a flicker is no
  movement, `edge.evidence`), or for lamps that do not flicker.
- In light so strong that a half-period overexposes even without gain, the exposure is as short as it has to be.
- Values are read back from the frames' metadata. picamera2 may lose controls that are set while it hands a request
  back (`CompletedRequest.release`), and then they are set again.

Times are counted in frames, so that there is no clock here.

Source: libcamera's `control_ids_core.yaml` (units, AeState, AfState) and Raspberry Pi's `agc_channel.cpp` (what the
product is, what limits it), read at 26bfadc6.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

log = logging.getLogger(__name__)

SETTLING_HZ = 30.0
"""Highest frame rate while the algorithms look; it is what they are tuned at."""
SETTLED_FRAMES = 8
"""So many frames in a row must be said, or seen, to be steady."""
SETTLING_FRAMES = 120
"""Most frames that settling takes, 4 s, for a lens may travel for two; then what there is is locked."""
LOCKING_FRAMES = 60
"""Most frames from setting the controls until the metadata shows them: they pass through every buffer first."""
ATTEMPTS = 3
READOUT_SHARE = 0.03
"""Part of the frame period in which a sensor cannot expose: 4 lines of 500 (IMX219), 22 of 1,000 (IMX477)."""
DARK, BRIGHT = 28.0, 215.0
"""Mean luma beyond which a locked picture is taken for lost. picamera2 asks for the video range, 16..235."""
RELOCK_S = 10.0
"""For so long it must be, taken together; a hand before the lens is none of our business."""
_STEADY = 0.02
_TOLERANCE_US, _TOLERANCE = 60.0, 0.06
"""An exposure is a number of lines of up to 30 us; the steps of the IMX219's gain reach 4 % at its top."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the configuration asks for; 0 stands for the camera's own choice."""

    rate_hz: float
    mains_hz: int = 50
    """Frequency of the mains that the lamps run on; 0: no such lamps."""
    exposure_us: int = 0
    gain: float = 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What the sensor can do in its mode."""

    exposure_us: tuple[float, float]
    gain: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Exposure:
    """One exposure time and one gain."""

    exposure_us: int
    gain: float
    brightness: float
    """Of what the camera's own algorithm aimed at; below 1 the limits leave the picture darker."""
    half_periods: int
    """Of the mains; 0: lamps flicker."""


def divide(total_us: float, wish: Wish, limits: Limits) -> Exposure:
    """Turn a product of exposure and gain into the two.

    Args:
        total_us: exposure time (us) times analogue and digital gain.
        wish: where it fixes an exposure or a gain, that is taken, as far as the limits allow.
        limits: of the sensor.
    """
    shortest, longest = limits.exposure_us[0], min(limits.exposure_us[1], longest_us(wish.rate_hz))
    lowest, highest = limits.gain
    if wish.gain:
        lowest = highest = min(max(wish.gain, lowest), highest)
    half_us = 500_000 / wish.mains_hz if wish.mains_hz else math.inf
    if wish.exposure_us:
        exposure_us = float(wish.exposure_us)
    else:
        exposure_us = min(longest, total_us / lowest)
        if exposure_us >= half_us:
            exposure_us = math.floor(exposure_us / half_us) * half_us
    exposure_us = min(max(exposure_us, shortest), longest)
    gain = min(max(total_us / exposure_us, lowest), highest)
    periods = exposure_us / half_us
    is_whole = periods > 0.5 and abs(periods - round(periods)) < 0.01
    return Exposure(
        round(exposure_us), gain, exposure_us * gain / total_us, round(periods) if is_whole else 0
    )


def longest_us(rate_hz: float) -> float:
    """Give the longest exposure that fits into a frame, us."""
    return 1_000_000 / rate_hz * (1 - READOUT_SHARE)


class _Phase(Enum):
    IDLE = "idle"
    """There is nothing that could be set."""
    SETTLING = "settling"
    LOCKING = "locking"
    LOCKED = "locked"


class ExposureLock:
    """Settles, locks, and watches what is locked; told of every frame, it says which controls to set.

    Args:
        controls: what the camera has, as picamera2's `camera_controls`: name to (least, most, default). A camera
            without exposure or gain (USB, virtual) is left alone, and `warnings` says so.
        wish: what the configuration asks for.
    """

    def __init__(self, controls: Mapping[str, tuple[Any, Any, Any]], wish: Wish) -> None:
        self._wish = wish
        self._available = frozenset(controls)
        self.warnings: list[str] = []
        self.exposure: Exposure | None = None
        """What is locked, or about to be."""
        self._steady = self._frames = self._attempts = self._odd = 0
        self._last_us = 0.0
        self._phase = _Phase.SETTLING
        if not {"ExposureTime", "AnalogueGain"} <= self._available:
            self._phase = _Phase.IDLE
            self.warnings.append(
                "this camera's exposure cannot be locked; a change of light may hide movement"
            )
            return
        self._limits = Limits(_range(controls["ExposureTime"]), _range(controls["AnalogueGain"]))

    @property
    def is_settled(self) -> bool:
        """Whether frames are exposed as they will be from now on."""
        return self._phase in {_Phase.IDLE, _Phase.LOCKED}

    @property
    def start_controls(self) -> dict[str, object]:
        """The controls to start with, or to settle anew."""
        period_us = round(1_000_000 / self._wish.rate_hz)
        if self._phase is not _Phase.IDLE:
            period_us = max(period_us, round(1_000_000 / SETTLING_HZ))
        # Exposure and gain 0 give them back to the algorithm (picamera2's `CompletedRequest.release`).
        return self._known(
            FrameDurationLimits=(period_us, period_us), AeEnable=True, ExposureTime=0, AnalogueGain=0.0, AwbEnable=True
        )  # fmt: skip

    def step(self, metadata: Mapping[str, Any], mean_luma: float) -> dict[str, object]:
        """Take note of a frame; give the controls to set now, mostly none.

        Args:
            metadata: of the frame, as libcamera gives it.
            mean_luma: of the frame.
        """
        self._frames += 1
        if self._phase is _Phase.SETTLING:
            return self._settle(metadata)
        if self._phase is _Phase.LOCKING:
            return self._lock(metadata)
        return self._watch(mean_luma) if self._phase is _Phase.LOCKED else {}

    def _settle(self, metadata: Mapping[str, Any]) -> dict[str, object]:
        total_us = _total_us(metadata)
        is_same = total_us > 0 and abs(total_us - self._last_us) <= _STEADY * total_us
        self._steady = self._steady + 1 if _is_converged(metadata, is_same) else 0
        self._last_us = total_us
        if self._frames == 1:
            # Auto (1) and start (0): once, for a focus that follows would hunt. Cameras without a lens motor lack both.
            return self._known(AfMode=1, AfTrigger=0)
        if self._steady < SETTLED_FRAMES and self._frames < SETTLING_FRAMES:
            return {}
        if total_us <= 0:
            self._phase = _Phase.LOCKED
            self.warnings.append("the camera does not tell how it exposes; its exposure is not locked")
            return {}
        self._phase, self._frames, self._attempts = _Phase.LOCKING, 0, 1
        self.exposure = divide(total_us, self._wish, self._limits)
        return self._locked_controls(self.exposure)

    def _lock(self, metadata: Mapping[str, Any]) -> dict[str, object]:
        exposure = self.exposure
        assert exposure is not None
        got_us, got_gain = float(metadata.get("ExposureTime", 0)), float(metadata.get("AnalogueGain", 0))
        period_us = 1_000_000 / self._wish.rate_hz
        is_taken = (
            abs(got_us - exposure.exposure_us) <= _TOLERANCE_US + _TOLERANCE * exposure.exposure_us
            and abs(got_gain - exposure.gain) <= _TOLERANCE * exposure.gain
            and abs(float(metadata.get("FrameDuration", period_us)) - period_us) <= _TOLERANCE * period_us
        )
        if not is_taken and self._frames < LOCKING_FRAMES:
            return {}
        if not is_taken and self._attempts < ATTEMPTS:
            self._attempts, self._frames = self._attempts + 1, 0
            return self._locked_controls(exposure)
        self._phase, self._frames, self._odd = _Phase.LOCKED, 0, 0
        self.warnings[:] = self._complaints(exposure)
        if not is_taken:
            self.warnings.append(
                f"the exposure could not be locked: asked for {exposure.exposure_us} us and gain {exposure.gain:.2f}, "
                f"the camera gives {got_us:.0f} us and {got_gain:.2f}"
            )
        log.info("camera: %s", _described(exposure, self._wish))
        return {}

    def _watch(self, mean_luma: float) -> dict[str, object]:
        exposure = self.exposure
        is_lost = exposure is not None and (
            (mean_luma > BRIGHT and self._can_darken(exposure))
            or (mean_luma < DARK and self._can_brighten(exposure))
        )
        self._odd = max(self._odd + (1 if is_lost else -1), 0)
        if self._odd < RELOCK_S * self._wish.rate_hz:
            return {}
        log.info("camera: mean luma %.0f for %g s: the exposure is settled anew", mean_luma, RELOCK_S)
        self._phase, self._frames, self._steady, self._last_us = _Phase.SETTLING, 0, 0, 0.0
        return self.start_controls

    def _can_brighten(self, exposure: Exposure) -> bool:
        """Whether settling anew could help in the dark; at its limits a camera stays as it is."""
        wish = self._wish
        return (not wish.gain and exposure.gain < 0.95 * self._limits.gain[1]) or (
            not wish.exposure_us and exposure.exposure_us < 0.95 * longest_us(wish.rate_hz)
        )

    def _can_darken(self, exposure: Exposure) -> bool:
        wish = self._wish
        return (not wish.gain and exposure.gain > 1.05 * self._limits.gain[0]) or (
            not wish.exposure_us and exposure.exposure_us > 1.05 * self._limits.exposure_us[0]
        )

    def _complaints(self, exposure: Exposure) -> list[str]:
        wish, found = self._wish, []
        if wish.exposure_us and exposure.exposure_us < 0.98 * wish.exposure_us:
            found.append(
                f"camera.exposure_us = {wish.exposure_us}: at {wish.rate_hz:g} frames/s at most {exposure.exposure_us}"
            )
        if wish.gain and abs(exposure.gain - wish.gain) > _TOLERANCE * wish.gain:
            least, most = self._limits.gain
            found.append(
                f"camera.gain = {wish.gain:g}: the sensor's gain goes from {least:.3g} to {most:.3g}"
            )
        if exposure.brightness < 0.5 and not (wish.exposure_us and wish.gain):
            found.append(
                f"camera.rate_hz = {wish.rate_hz:g}: too little light for it: {exposure.exposure_us} us and gain "
                f"{exposure.gain:.1f} give {exposure.brightness:.0%} of the brightness wanted"
            )
        return found

    def _locked_controls(self, exposure: Exposure) -> dict[str, object]:
        period_us = round(1_000_000 / self._wish.rate_hz)
        return self._known(
            FrameDurationLimits=(period_us, period_us), AeEnable=False, ExposureTime=exposure.exposure_us,
            AnalogueGain=exposure.gain, AwbEnable=False, AfMode=0,
        )  # fmt: skip

    def _known(self, **controls: object) -> dict[str, object]:
        """Leave out what the camera lacks; picamera2 raises for it."""
        return {name: value for name, value in controls.items() if name in self._available}


def _range(about: tuple[Any, Any, Any]) -> tuple[float, float]:
    """Give (least, most) of a control; some sensors state 0 or less than the least for "no limit"."""
    least, most = float(about[0]), float(about[1])
    return max(least, 1e-3), most if most > least else math.inf


def _total_us(metadata: Mapping[str, Any]) -> float:
    """Give exposure time (us) times all gains; 0 where the metadata lacks them."""
    exposure_us, gain = float(metadata.get("ExposureTime", 0)), float(metadata.get("AnalogueGain", 0))
    return exposure_us * gain * float(metadata.get("DigitalGain", 1.0))


def _is_converged(metadata: Mapping[str, Any], is_same: bool) -> bool:
    """Whether exposure and focus have settled, as the camera says; else, whether they look so."""
    if metadata.get("AfState") == 1:  # scanning
        return False
    if "AeState" in metadata:
        return bool(metadata["AeState"] == 2)  # converged
    # Until libcamera 0.4 there was AeLocked.
    return bool(metadata.get("AeLocked", is_same))


def _described(exposure: Exposure, wish: Wish) -> str:
    text = f"exposure {exposure.exposure_us} us and gain {exposure.gain:.2f} are locked at {wish.rate_hz:g} frames/s"
    if not wish.mains_hz:
        return text
    half_us = 500_000 / wish.mains_hz
    if exposure.half_periods:
        return (
            f"{text}; lamps on {wish.mains_hz} Hz do not flicker ({exposure.half_periods} x {half_us:.0f} us)"
        )
    return (
        f"{text}; lamps on {wish.mains_hz} Hz may flicker: {half_us:.0f} us of light fit into a frame up to "
        f"{(1 - READOUT_SHARE) * 1e6 / half_us:.0f} frames/s"
    )
