"""Measures what the configured camera really gives: rate, lost frames, the evenness of time and of light.

    python -m tools.camera_rate [--seconds 10] [--config FILE] [--set camera.rate_hz=120 ...]

For a person with a real camera; it needs nothing of the device but the camera, which no other program may use.
Light is looked at as a micro-expression spotter is bothered by it: the mean luma of neighbouring frames, and over a
second. Ends with one JSON object; exit code 1 if a frame was lost or the rate is not the one that was asked for.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from edge.commands.run import open_camera
from edge.config import load
from edge.errors import ConfigError, EdgeError
from edge.frames import FrameSource

WITHIN = 0.01
"""Share by which the rate may differ from the one asked for."""
_PROBE = 8


def main() -> int:
    """Open, take frames for some seconds of the camera's own time, report; give the exit code."""
    parser = argparse.ArgumentParser(description="What the configured camera really gives.")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    arguments = parser.parse_args()
    try:
        config = load(arguments.config, arguments.overrides)
        source = open_camera(config)
        try:
            found = measured(source, arguments.seconds)
        finally:
            source.close()
    except EdgeError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    passed = found["lost"] == 0 and abs(found["rate_hz"] / config.camera.rate_hz - 1) <= WITHIN
    for name, value in found.items():
        print(f"{name:24} {value}")
    print(json.dumps({"proof": "camera_rate", "passed": passed, "asked_hz": config.camera.rate_hz, **found}))
    return 0 if passed else 1


def measured(source: FrameSource, seconds: float) -> dict[str, object]:
    """Take frames for so long; give what they say."""
    stamps_ns: list[int] = []
    numbers: list[int] = []
    luma: list[float] = []
    for frame in source.frames():
        stamps_ns.append(frame.timestamp_ns)
        numbers.append(frame.sequence)
        luma.append(float(frame.luma[::_PROBE, ::_PROBE].mean()))
        if frame.timestamp_ns >= seconds * 1e9:
            break
    if len(stamps_ns) < 3:
        raise EdgeError(
            f"{source.name}: gave {len(stamps_ns)} frames in {seconds:g} s; at least 3 are needed"
        )
    periods_ms = np.diff(stamps_ns) / 1e6
    rate_hz = 1e3 / float(np.median(periods_ms))
    light = np.array(luma)
    second = max(round(rate_hz), 1)
    per_second = [light[start : start + second].mean() for start in range(0, len(light), second)]
    return {
        "camera": source.name,
        "size": list(source.size),
        "frames": len(stamps_ns),
        "rate_hz": round(rate_hz, 2),
        "lost": numbers[-1] - numbers[0] + 1 - len(numbers),
        "period_ms_worst": round(float(periods_ms.max()), 2),
        "period_ms_spread": round(float(periods_ms.std()), 4),
        "luma": round(float(light.mean()), 1),
        "luma_step_share": round(float(np.abs(np.diff(light)).mean() / max(light.mean(), 1)), 5),
        "luma_drift_share": round(float((max(per_second) - min(per_second)) / max(light.mean(), 1)), 5),
        "warnings": list(source.warnings),
    }


if __name__ == "__main__":
    sys.exit(main())
