"""Counts, in the machine, what our camera source delivers against what libcamera and the pictures themselves say.

Each picture carries its number in a row of squares (`tools.vm.pictures`), so the pictures tell of a lost frame too.
"""

import json
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import virtual_camera

from edge.commands.run import open_camera
from edge.config import load
from tools.vm.pictures import number_in

PICTURES = Path("/payload/pictures")
LOOKED_AT = 8


def main() -> None:
    """Run at the pace of the pipeline and at limited ones; arguments: paces in Hz (0: its own), frames for each."""
    paces, count = [float(word) for word in sys.argv[1].split(",")], int(sys.argv[2])
    virtual_camera.install(PICTURES)
    # The virtual camera decodes JPEG with the fast, less exact cosine transform; so does this.
    truth = [
        simplejpeg.decode_jpeg((PICTURES / f"{index}.jpg").read_bytes(), "GRAY", fastdct=True)[:, :, 0]
        for index in range(len(list(PICTURES.iterdir())))
    ]
    found = {}
    for pace_hz in paces:
        name = f"{pace_hz:g} Hz" if pace_hz else "own pace"
        found[name] = trial(pace_hz, count, truth)
        print(name, json.dumps(found[name]), flush=True)
    print("RESULT", json.dumps({"frames": found}))


def trial(pace_hz: float, count: int, truth: list[np.ndarray]) -> dict[str, Any]:
    """Open, take `count` frames, look at every pixel of a few more, close, and compare."""
    virtual_camera.VirtualPicamera2.pace_hz = pace_hz
    source = open_camera(load(None, [f"camera.rate_hz={pace_hz or 120}"]))
    camera = virtual_camera.VirtualPicamera2.newest
    assert camera is not None
    stamps: list[int] = []
    sequences: list[int] = []
    numbers: list[int] = []
    frames = source.frames()
    for frame in frames:
        if not stamps:
            begun_s = time.monotonic()
        stamps.append(frame.timestamp_ns)
        sequences.append(frame.sequence)
        numbers.append(number_in(frame.luma))
        if len(stamps) == count:
            break
    took_s = time.monotonic() - begun_s
    paced = camera.camera if pace_hz else None
    ticks, starved = (paced.ticks, paced.starved) if paced is not None else (None, None)
    dropped = source.frames_dropped  # type: ignore[attr-defined]
    # Later, because this takes longer than the camera waits.
    differences = []
    for frame in frames:
        differences.append(np.abs(frame.luma.astype(np.int16) - truth[number_in(frame.luma)]))
        if len(differences) == LOOKED_AT:
            break
    # Who holds a luma view while the camera is closed keeps its memory from being given back.
    del frame
    source.close()
    completed = camera.completed
    first = next(
        (
            index
            for index in range(len(completed) - count + 1)
            if all(completed[index + step][1] - completed[index][1] == stamps[step] for step in range(count))
        ),
        None,
    )
    span = completed[first : first + count] if first is not None else []
    return {
        "delivered": len(stamps),
        "rate_hz": round((count - 1) / took_s, 1),
        "completed_by_picamera2_in_that_time": len(span),
        "libcamera_sequence_gaps": sum(after[0] - before[0] - 1 for before, after in pairwise(span)),
        "pictures_in_order": in_order(numbers, len(truth)),
        "gaps_stated_by_us": sequences[-1] - sequences[0] - (count - 1),
        "dropped_by_us": dropped,
        "timestamps_rise": all(before < after for before, after in pairwise(stamps)),
        "luma_worst_difference": max(int(each.max()) for each in differences),
        "sensor_ticks": ticks,
        "ticks_without_a_buffer": starved,
    }


def in_order(numbers: list[int], count: int) -> bool:
    """Give whether each of `count` pictures came as often as the camera shows it, none more or less, and in order."""
    repeats = virtual_camera.REPEATS
    return any(
        numbers == [(numbers[0] + (shown + index) // repeats) % count for index in range(len(numbers))]
        for shown in range(repeats)
    )


main()
