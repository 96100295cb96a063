"""54 simulated GPIO lines under the name of a Raspberry Pi's chip, and the revision that gpiozero asks a Pi for.

Levels are read and contacts are closed through the kernel's own files, from any process, without touching the line.
"""

import os
import subprocess
from pathlib import Path

import gpiozero.pins.local

CONFIG = Path("/sys/kernel/config/gpio-sim/pi")
PI_4B = 0xC03111


class Bank:
    """The lines. One per machine."""

    def __init__(self) -> None:
        subprocess.run(["modprobe", "microedge-gpio-sim"], check=True)
        if not CONFIG.parent.exists():
            subprocess.run(["mount", "-t", "configfs", "configfs", "/sys/kernel/config"], check=True)
        bank = CONFIG / "bank0"
        bank.mkdir(parents=True)
        (bank / "num_lines").write_text("54")
        (bank / "label").write_text("pinctrl-bcm2835")
        (CONFIG / "live").write_text("1")
        subprocess.run(["udevadm", "settle"], check=True)
        self.chip = (bank / "chip_name").read_text().strip()
        self._folder = Path("/sys/devices/platform") / (CONFIG / "dev_name").read_text().strip() / self.chip

    def level(self, pin: int) -> int:
        """Give whether a line is high: as it is driven or, if nobody drives it, as it is pulled."""
        return int((self._folder / f"sim_gpio{pin}" / "value").read_text())

    def close_contact(self, pin: int, closed: bool) -> None:
        """Close or open a contact between a line and ground; the line has a pull-up resistor."""
        (self._folder / f"sim_gpio{pin}" / "pull").write_text("pull-down" if closed else "pull-up")


def pretend_pi() -> None:
    """Let gpiozero believe that this is a Raspberry Pi 4B; it refuses any computer without a revision."""
    gpiozero.pins.local.LocalPiFactory._get_revision = lambda _: PI_4B


def holds_camera(pid: int) -> bool:
    """Give whether a process has frame buffers of the camera, as the kernel sees it."""
    folder = Path(f"/proc/{pid}/fd")
    for name in os.listdir(folder):
        try:
            if "dmabuf" in os.readlink(folder / name):
                return True
        except FileNotFoundError:
            continue
    return False
