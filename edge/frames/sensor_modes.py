"""Which mode of a sensor to run: fast enough, with the field of view that is wanted.

A mode is a way of reading the sensor out: which part of it (the crop, which is the field of view), how many pixels
that gives, how deep they are, and how many times a second that can be done. libcamera lists them; picamera2 left
alone takes one by size and can land in a mode that is far too slow (raspberrypi/picamera2 issue 880).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

RATE_TOLERANCE = 0.99
"""A mode that gives this share of the rate has it: 200 Hz asked of 199.4 is what people mean."""


@dataclass(frozen=True, slots=True)
class SensorMode:
    """One way of reading a sensor out, as picamera2's `sensor_modes` lists it."""

    size: tuple[int, int]
    """(width, height) px that come out of the sensor."""
    crop: tuple[int, int]
    """(width, height) of the part of the sensor that they show, in px of the whole sensor."""
    bit_depth: int
    rate_hz: float
    """The most frames that it gives in a second."""

    def __str__(self) -> str:
        width, height = self.size
        return f"{width}x{height} at up to {self.rate_hz:.1f} frames/s"


def listed(modes: Iterable[Mapping[str, Any]]) -> list[SensorMode]:
    """Give the modes that picamera2 lists; entries without a rate or a crop (USB, virtual cameras) are left out."""
    return [
        SensorMode(
            (int(mode["size"][0]), int(mode["size"][1])),
            (int(mode["crop_limits"][2]), int(mode["crop_limits"][3])),
            int(mode["bit_depth"]),
            float(mode["fps"]),
        )
        for mode in modes
        if {"fps", "size", "bit_depth", "crop_limits"} <= mode.keys()
    ]


def choose(
    modes: Iterable[SensorMode], rate_hz: float, size: tuple[int, int], field_of_view: str = "wide"
) -> SensorMode | None:
    """Choose the mode for a rate and a field of view.

    Among those that reach the rate: no fewer pixels than the frames have, if there are such, or the frames would be
    enlarged; then the widest crop, or the narrowest; then the fewest pixels, which cost less to move and, being
    sums of several, have less noise; then the deeper ones, for an 8-bit mode of the OV9281 has failed on a Pi 5
    where its 10-bit mode ran (raspberrypi/libcamera issue 126). If none is fast enough: the fastest, as above among
    equals. What then becomes of the rate is for the caller to say (`edge.frames.camera`).

    Args:
        modes: what the sensor lists.
        rate_hz: frames per second that are wanted.
        size: (width, height) px of the frames that are wanted.
        field_of_view: "wide", as much of the scene as the rate allows, or "narrow", as many sensor pixels on a far face
            as it allows.

    Returns:
        None if there is no mode to choose from.
    """
    known = list(modes)
    if not known:
        return None
    enough = [mode for mode in known if mode.rate_hz >= RATE_TOLERANCE * rate_hz]
    if not enough:
        fastest_hz = max(mode.rate_hz for mode in known)
        enough = [mode for mode in known if mode.rate_hz >= RATE_TOLERANCE * fastest_hz]
    covering = [mode for mode in enough if mode.size[0] >= size[0] and mode.size[1] >= size[1]]
    wideness = -1 if field_of_view == "wide" else 1
    return min(
        covering or enough, key=lambda mode: (wideness * _area(mode.crop), _area(mode.size), -mode.bit_depth)
    )


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]
