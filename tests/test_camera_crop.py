"""The crop of a Global Shutter camera, as the kernel is asked for it."""

import errno
import os
import struct
from pathlib import Path

import pytest

from edge.errors import SourceError
from edge.frames import sensor_crop

ID = "/base/axi/pcie@120000/rp1/i2c@88000/imx296@1a"


@pytest.mark.parametrize(
    ("rate_hz", "lines"), [(60, 1088), (120, 532), (160, 388), (200, 304), (309, 188), (400, 136), (536, 96)]
)
def test_the_lines_that_a_rate_leaves_time_for(rate_hz: float, lines: int) -> None:
    assert sensor_crop.lines_for(rate_hz) == lines
    # The driver's own reckoning: a line takes 1100 ticks of 74.25 MHz, and 30 lines lie between frames.
    assert 74_250_000 / 1100 / (lines + 30) >= min(rate_hz, 60.37) * 0.9999


@pytest.fixture
def subdevices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two sensors as Linux shows them; the devices' nodes are files that nothing is read from."""
    folder = tmp_path / "class"
    for number, place in enumerate(("i2c@80000", "i2c@88000")):
        node = tmp_path / "sys/firmware/devicetree/base/axi/pcie@120000/rp1" / place / "imx296@1a"
        node.mkdir(parents=True)
        (entry := folder / f"v4l-subdev{number}" / "device").mkdir(parents=True)
        (entry / "of_node").symlink_to(node)
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, flags: real(tmp_path / Path(path).name, flags | os.O_CREAT))
    return folder


def test_the_right_sensor_is_asked_for_a_strip_around_its_middle(subdevices: Path) -> None:
    calls = []

    def ioctl(descriptor: int, request: int, argument: bytearray) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        calls.append((name, request, struct.unpack("=4I2i2I8I", argument)))

    assert sensor_crop.crop(ID, 200.0, subdevices=subdevices, ioctl=ioctl) == 304
    # VIDIOC_SUBDEV_S_SELECTION as linux/v4l2-subdev.h has it; active, pad 0, crop, no flags; left, top, width, height.
    assert calls == [("v4l-subdev1", 0xC040563E, (1, 0, 0, 0, 0, 392, 1456, 304, *[0] * 8))]


def test_what_the_driver_makes_of_it_is_believed(subdevices: Path) -> None:
    def ioctl(_descriptor: int, _request: int, argument: bytearray) -> None:
        argument[28:32] = struct.pack("=I", 308)

    assert sensor_crop.crop(ID, 200.0, subdevices=subdevices, ioctl=ioctl) == 308


def test_a_crop_that_is_refused_gives_the_device_and_the_reason(
    subdevices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    with pytest.raises(
        SourceError, match=r"/dev/v4l-subdev1: its crop cannot be set to 304 lines \(Device or res"
    ):
        sensor_crop.crop(ID, 200.0, subdevices=subdevices, ioctl=refuse)


@pytest.mark.parametrize("other", ["/base/soc/i2c@1/imx296@1a", "imx296@1a", ""])
def test_a_sensor_that_the_kernel_does_not_show_is_named(subdevices: Path, other: str) -> None:
    with pytest.raises(SourceError, match=r"no device under .* belongs to this sensor"):
        sensor_crop.crop(other, 200.0, subdevices=subdevices, ioctl=_unused)


def _unused(*_: object) -> None:
    raise AssertionError("no device was to be asked")
