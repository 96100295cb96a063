"""The mode that is chosen, over the tables that five real sensors list."""

import pytest
from camera_stand_in import SENSORS

from edge.frames.sensor_modes import SensorMode, choose, listed


@pytest.mark.parametrize(
    ("sensor", "rate_hz", "size", "field_of_view", "expected"),
    [
        ("imx219", 200, (640, 480), "wide", (640, 480, 10)),
        ("imx219", 206.65, (640, 480), "wide", (640, 480, 10)),
        ("imx219", 60, (640, 480), "wide", (640, 480, 10)),  # the next is too slow
        ("imx219", 40, (640, 480), "wide", (1640, 1232, 10)),
        ("imx219", 40, (640, 480), "narrow", (640, 480, 10)),
        ("imx219", 40, (1280, 720), "narrow", (1920, 1080, 10)),
        ("imx477", 120, (640, 480), "wide", (1332, 990, 10)),
        ("imx477", 50, (640, 480), "wide", (2028, 1080, 12)),
        ("imx477", 40, (640, 480), "wide", (2028, 1520, 12)),
        ("imx708", 120, (640, 480), "wide", (1536, 864, 10)),
        ("imx708", 50, (640, 480), "wide", (2304, 1296, 10)),
        ("imx708", 50, (640, 480), "narrow", (1536, 864, 10)),
        ("imx296", 60, (640, 480), "wide", (1456, 1088, 10)),
        ("imx296 cropped", 400, (640, 480), "wide", (1456, 1088, 10)),
        ("ov9281", 300, (640, 400), "wide", (640, 400, 8)),
        ("ov9281", 200, (640, 400), "wide", (640, 400, 10)),  # deep enough for the rate, so the deeper
        ("ov9281", 160, (1280, 720), "wide", (1280, 720, 8)),
        ("ov9281", 130, (640, 480), "narrow", (1280, 720, 10)),
        ("ov9281", 130, (640, 480), "wide", (1280, 800, 8)),
    ],
)
def test_a_sensor_runs_in_the_mode_that_reaches_the_rate_with_the_view_asked_for(
    sensor: str, rate_hz: float, size: tuple[int, int], field_of_view: str, expected: tuple[int, int, int]
) -> None:
    mode = choose(listed(SENSORS[sensor]), rate_hz, size, field_of_view)
    assert mode is not None
    assert (*mode.size, mode.bit_depth) == expected
    assert mode.rate_hz >= 0.99 * rate_hz


@pytest.mark.parametrize(
    ("sensor", "fastest"),
    [("imx477", (1332, 990, 10)), ("imx708", (1536, 864, 10)), ("imx296", (1456, 1088, 10))],
)
def test_a_sensor_that_cannot_reach_the_rate_runs_in_its_fastest_mode(
    sensor: str, fastest: tuple[int, int, int]
) -> None:
    mode = choose(listed(SENSORS[sensor]), 200.0, (640, 480))
    assert mode is not None
    assert (*mode.size, mode.bit_depth) == fastest


def test_a_camera_that_lists_no_sensor_modes_has_none_to_choose() -> None:
    # What picamera2 lists for a USB camera.
    assert choose(listed([{"format": "YUYV"}, {"format": "MJPEG"}]), 30.0, (640, 480)) is None


def test_a_mode_reads_as_people_say_it() -> None:
    assert str(SensorMode((640, 480), (1280, 960), 10, 206.65)) == "640x480 at up to 206.7 frames/s"
