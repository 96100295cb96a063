"""Area *power*: under-voltage and throttling, temperature, fan, speed governor and memory."""

import re
from collections.abc import Iterator

from edge.doctor.case import Case
from edge.doctor.finding import Finding, failed, passed, skipped, warned

WARM_C, HOT_C = 70.0, 80.0
"""Raspberry Pis slow down from 80 degrees on; a 3B+ from 60 (bit 3 of the flags says so)."""
LEAST_MEMORY_MB, SERVICE_MB = 60, 250
"""Room below which everything is slow; and what the service takes, with a Coral's child (systemd/microedge.service)."""

FLAGS = {
    0: "under-voltage",
    1: "processor speed capped",
    2: "throttled",
    3: "soft temperature limit reached",
}
"""Bits of what the firmware tells of now; 16 higher they mean: since the start of the machine.

Source: raspberrypi/documentation, os/using-vcgencmd (`get_throttled`)."""
_SUPPLY = (
    "use the board's own power supply (5 V 3 A for a Pi 4, 5 V 5 A for a Pi 5) and a short cable; put a Coral on a "
    "powered hub"
)
_COOLING = "give it a fan or a heat sink and air"


def supply(case: Case) -> Iterator[Finding]:
    """Read the firmware's flags, every bit of them."""
    value, origin = _flags(case)
    if value is None:
        yield from _voltage_alarm(case)
        return
    now = [words for bit, words in FLAGS.items() if value >> bit & 1]
    before = [words for bit, words in FLAGS.items() if value >> (bit + 16) & 1 and words not in now]
    unknown = value & ~0xF000F
    told = f"{origin} = {value:#x}" + (f", with unknown bits {unknown:#x}" if unknown else "")
    once = f"; since the machine started also: {', '.join(before)}" if before else ""
    advice = _SUPPLY if value & 0x10001 else _COOLING
    if now:
        # A cap alone follows from one of the others, and goes when they do.
        yield failed("supply", f"now: {', '.join(now)}{once} ({told})", advice)
    elif before:
        yield warned("supply", f"since the machine started: {', '.join(before)}; not now ({told})", advice)
    else:
        yield passed("supply", f"no under-voltage and no throttling since the machine started ({told})")


def heat(case: Case) -> Iterator[Finding]:
    """Read the processor's temperature, and the fan's speed where there is one."""
    text = case.system.read("/sys/class/thermal/thermal_zone0/temp")
    if not re.fullmatch(r"-?\d+", text):
        yield skipped("temperature", "this machine tells none")
        return
    degrees = int(text) / 1000
    fans = (
        case.system.read(case.system.shown(path))
        for path in case.system.glob("/sys/class/hwmon/*/fan1_input")
    )
    fan = next(filter(None, fans), "")
    words = f"{degrees:.1f} °C, limit {HOT_C:g} °C" + (f"; fan at {fan} rev/min" if fan else "")
    if degrees >= HOT_C:
        yield failed("temperature", words, _COOLING)
    elif degrees >= WARM_C:
        yield warned("temperature", f"{words}; near it", _COOLING)
    else:
        yield passed("temperature", words)


def governor(case: Case) -> Iterator[Finding]:
    """Look at who decides on the processor's speed."""
    name = case.system.read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if not name:
        yield skipped("governor", "this machine tells none")
    elif name == "powersave":
        yield warned(
            "governor", "powersave: the processor stays at its slowest",
            "echo ondemand | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
        )  # fmt: skip
    else:
        yield passed("governor", name)


def memory(case: Case) -> Iterator[Finding]:
    """Look at how much memory is left."""
    rows = (line.split() for line in case.system.read("/proc/meminfo").splitlines())
    sizes_mb = {row[0].rstrip(":"): int(row[1]) / 1000 for row in rows if len(row) > 1 and row[1].isdecimal()}
    free_mb, all_mb = sizes_mb.get("MemAvailable"), sizes_mb.get("MemTotal", 0.0)
    if free_mb is None:
        yield skipped("memory", "this machine does not tell")
        return
    words = f"{free_mb:.0f} of {all_mb:.0f} MB available"
    advice = "ps -eo rss,comm --sort=-rss | head; stop what is not needed, such as the desktop"
    if free_mb < LEAST_MEMORY_MB:
        yield failed("memory", f"{words}, less than {LEAST_MEMORY_MB} MB", advice)
    elif free_mb < SERVICE_MB and not case.service.is_running:
        yield warned("memory", f"{words}, and the service takes up to {SERVICE_MB}", advice)
    else:
        yield passed("memory", words)


CHECKS = (supply, heat, governor, memory)


def _flags(case: Case) -> tuple[int | None, str]:
    """Give the firmware's flags and where they are from; None where there is no such firmware."""
    for path in case.system.glob("/sys/devices/platform/soc*/*firmware/get_throttled"):
        if (text := case.system.read(case.system.shown(path))) and re.fullmatch(r"(0x)?[0-9a-f]+", text):
            return int(text, 16), "get_throttled"
    if not case.system.has("vcgencmd"):
        return None, ""
    answer = case.system.run("vcgencmd", "get_throttled")
    found = re.search(r"throttled=0x([0-9a-fA-F]+)", answer.text)
    if found is None:
        case.unseen["the firmware's power flags (group video)"] = None
        return None, ""
    return int(found[1], 16), "vcgencmd get_throttled"


def _voltage_alarm(case: Case) -> Iterator[Finding]:
    """Read what the kernel's driver of the Pi's supply tells, where the flags cannot be read."""
    for path in case.system.glob("/sys/class/hwmon/*/name"):
        folder = case.system.shown(path.parent)
        if case.system.read(f"{folder}/name") == "rpi_volt":
            if case.system.read(f"{folder}/in0_lcrit_alarm") == "1":
                yield failed("supply", "under-voltage (rpi_volt, in0_lcrit_alarm = 1)", _SUPPLY)
            else:
                yield passed("supply", "no under-voltage now (rpi_volt, in0_lcrit_alarm = 0)")
            return
    if case.system.is_pi:
        yield warned(
            "supply", "the firmware's power flags cannot be read",
            "sudo microedge doctor; sudo apt install raspi-utils (vcgencmd)",
        )  # fmt: skip
    else:
        yield skipped("supply", "not a Raspberry Pi: nothing here tells of under-voltage")
