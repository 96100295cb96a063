"""What is proved, step by step, on one machine."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tools.install_trial.machine import SYNTHETIC, Machine
from tools.install_trial.tree import Entry, difference, listing, times

OLD, NEW, BAD = "0.0.8", "0.0.9", "0.0.10"
"""Versions that are installed: the first, a later one, and one with something wrong."""
PLACES = ("opt", "etc", "usr")
"""Where an installation lays things down that nothing else writes to."""
LIMIT_S = 180.0
"""Longest time from the command to a running service."""


@dataclass(slots=True)
class Report:
    """What was found."""

    failures: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    say: Callable[[str], None] = print

    def check(self, claim: str, holds: bool, found: object = "") -> None:
        """Print whether a claim holds, with what was found where it does not."""
        self.say(f"  {'yes' if holds else 'NO '}  {claim}" + ("" if holds else f": found {found}"))
        if not holds:
            self.failures.append(claim)


def install(machine: Machine, report: Report, *, command: str, network: bool = True) -> None:
    """One command brings a bare machine to a running service; the same again changes nothing."""
    machine.configure(SYNTHETIC)
    found = machine.run(f"try first {command}", network=network)
    seconds = float(found["first.seconds"])
    report.figures["install_s"] = seconds
    report.check("one command installs and starts", _is_up(found, "first", OLD), found)
    report.check(f"within {LIMIT_S:g} s", seconds <= LIMIT_S, f"{seconds:g} s")
    report.check("the configuration is as it was", machine.configuration == SYNTHETIC.encode())

    before, before_times = _laid_down(machine), times(machine.root, *PLACES)
    found = machine.run(f"until_true 60 is_running\ntry again {command}", network=network)
    after = _laid_down(machine)
    report.figures["again_s"] = float(found["again.seconds"])
    report.check(
        "it starts with the machine", found["again.same_run"] == "yes" and _is_up(found, "again", OLD), found
    )
    now = times(machine.root, *PLACES)
    touched = [path for path in after if path in now and before_times.get(path) != now[path]]
    changed = difference(before, after)
    report.check(
        "a second run changes nothing and writes nothing",
        not changed and not touched,
        [*changed, *touched][:10],
    )


def collect_events(machine: Machine, report: Report) -> None:
    """Bring events into the history, by a broker on the machine, and others into the outbox, without one."""
    found = machine.run(f"""
try broker /trial/{OLD}/tools/install --with-broker
until_true 240 has_events 0 3; note delivered $?
systemctl stop mosquitto
until_true 240 has_events 1 3; note waiting $?
systemctl disable --quiet mosquitto
""")
    report.check(
        "--with-broker brings one, and the service runs on", found["broker.same_run"] == "yes", found
    )
    report.check("events are delivered to it", found["delivered"] == "0", found)
    report.check("events wait while it is away", found["waiting"] == "0", found)


def broken_upgrades(machine: Machine, report: Report) -> None:
    """Whatever goes wrong with an upgrade, the version before runs on."""
    events = machine.kept_events()
    found = machine.run(f"""
until_true 60 is_running
try pip /trial/no-such-dependency/tools/install
half_way() {{ ls -d /opt/microedge.d/b/lib/python3*/site-packages/numpy >/dev/null 2>&1; }}
killed() {{ setsid /trial/{NEW}/tools/install & until_true 120 half_way; kill -KILL -$!; wait $!; }}
try killed killed
try crashing /trial/crashing/tools/install
""")
    for name, words in (("pip", "one for which pip fails"), ("killed", "one that is killed half-way")):
        holds = (
            found[f"{name}.status"] != "0"
            and found[f"{name}.same_run"] == "yes"
            and _is_up(found, name, OLD, None)
        )
        report.check(f"{words} leaves the old version running, undisturbed", holds, found)
    report.figures["rollback_s"] = float(found["crashing.seconds"])
    holds = found["crashing.status"] == "1" and _is_up(found, "crashing", OLD, None)
    report.check("one that crashes at its start is taken back, and the old version runs", holds, found)
    found = machine.run(f"until_true 60 is_running\ntry cut /trial/{NEW}/tools/install", network=False)
    holds = found["cut.status"] == "1" and found["cut.same_run"] == "yes" and _is_up(found, "cut", OLD, None)
    report.check("one without a network leaves the old version running, undisturbed", holds, found)
    report.check("the configuration is as it was", machine.configuration == SYNTHETIC.encode())
    report.check("no event is lost", events.keys() <= machine.kept_events().keys())


def upgrade(machine: Machine, report: Report) -> None:
    """An upgrade brings its own units and keeps configuration, outbox and history; there is a way back."""
    events = machine.kept_events()
    found = machine.run(f"""
until_true 60 is_running
try up /trial/{NEW}/tools/install
note extra "$(ls /etc/systemd/journald.conf.d 2>/dev/null | wc -l)"
""")
    report.figures["upgrade_s"] = float(found["up.seconds"])
    report.check("an upgrade installs and starts", _is_up(found, "up", NEW), found)
    report.check("with its own unit", found["up.unit"] == "Another version's unit", found["up.unit"])
    report.check("and without the file that it no longer has", found["extra"] == "0", found)
    report.check("the configuration is as it was", machine.configuration == SYNTHETIC.encode())
    kept = machine.kept_events()
    waiting = sum(events.values())
    lost = {*events.items()} - {*kept.items()}
    report.check(f"{waiting} waiting and {len(events) - waiting} delivered events stay", not lost, lost)
    found = machine.run(f"until_true 60 is_running\ntry back /trial/{NEW}/tools/install --rollback")
    report.check("--rollback brings the version before back", _is_up(found, "back", OLD), found)
    report.check("with its unit", found["back.unit"] != "Another version's unit", found["back.unit"])


def uninstall(machine: Machine, report: Report) -> None:
    """Removal leaves the data where that is asked for, and else nothing."""
    events = machine.kept_events()
    found = machine.run(
        "try out /opt/microedge/uninstall --keep-data; note gone $(property LoadState)", network=False
    )
    kept = machine.configuration == SYNTHETIC.encode() and events.keys() <= machine.kept_events().keys()
    report.check("--keep-data keeps configuration and events", found["out.status"] == "0" and kept, found)
    report.check("the unit is gone", found["gone"] == "not-found", found["gone"])
    found = machine.run(f"try out /trial/{OLD}/tools/uninstall --yes", network=False)
    places = (
        "etc/microedge",
        "opt/microedge",
        "opt/microedge.d",
        "var/lib/microedge",
        "usr/local/bin/microedge",
    )
    left = [place for place in places if os.path.lexists(machine.root / place)]
    report.check("uninstall removes these too", found["out.status"] == "0" and not left, left)


def from_wheels(machine: Machine, report: Report) -> None:
    """A folder of wheels brings a machine without a network to a running service."""
    machine.configure(SYNTHETIC)
    command = f"/trial/{OLD}/tools/install --wheelhouse /trial/wheels --extras demo"
    found = machine.run(f"try wheels {command}\n/opt/microedge/uninstall --yes", network=False)
    report.figures["from_wheels_s"] = float(found["wheels.seconds"])
    report.check("from wheels it installs and starts without a network", _is_up(found, "wheels", OLD), found)


def like_a_pi(machine: Machine, report: Report) -> None:
    """Where the archive has picamera2, it is used from there beside our own numpy; what is missing is said plainly."""
    found = machine.run(f"""
# The pins of a machine that has none.
mkdir -p /etc/systemd/system/microedge.service.d
printf '[Service]\\nEnvironment=GPIOZERO_PIN_FACTORY=mock\\n' >/etc/systemd/system/microedge.service.d/pins.conf
echo 'deb [trusted=yes] file:/trial/archive ./' >/etc/apt/sources.list.d/pi.list
apt-get -q update
/trial/{OLD}/tools/install >/tmp/said 2>&1; note status $?
cat /tmp/said
note state "$(property ActiveState)"
note says_camera "$(grep -ci 'does not watch yet: .*camera' /tmp/said)"
note says_doctor "$(grep -c 'microedge doctor' /tmp/said)"
note mode "$(stat -c '%a %U %G' /etc/microedge/config.toml)"
note paths "$(/opt/microedge/bin/python -c '
import gpiozero, numpy, picamera2
print(*(module.__file__.split("/")[1] for module in (gpiozero, numpy, picamera2)))')"
/opt/microedge/uninstall --yes
rm /etc/apt/sources.list.d/pi.list
""")
    paths = found["paths"]
    report.check(
        "picamera2 is the system's; gpiozero and numpy beside it are our own", paths == "opt opt usr", paths
    )
    is_told = "0" not in (found["says_camera"], found["says_doctor"])
    holds = found["status"] == "0" and found["state"] == "activating" and is_told
    report.check("without a camera it is installed, goes on trying, and says so and what to do", holds, found)
    mode = found["mode"]
    report.check("the service alone can read the example configuration", mode == "640 root microedge", mode)


def nothing_left(machine: Machine, report: Report, before: Mapping[str, Entry]) -> None:
    """Once the Debian packages are removed too, as uninstall tells, the machine is as it was."""
    told = " ".join(dict.fromkeys(" ".join(re.findall(r"autoremove --purge (.*)", machine.said)).split()))
    # Bookworm's mosquitto leaves its user behind.
    machine.run(f"apt-get -q -y autoremove --purge {told}\nuserdel mosquitto || true", network=False)
    left = difference(before, listing(machine.root))
    report.check(f"without {told} the machine is as it was", not left, left[:20])


def _laid_down(machine: Machine) -> dict[str, Entry]:
    places = tuple(f"{place}/" for place in PLACES)
    return {path: entry for path, entry in listing(machine.root).items() if path.startswith(places)}


def _is_up(found: Mapping[str, str], name: str, version: str, status: str | None = "0") -> bool:
    return (
        status in (None, found[f"{name}.status"])
        and found[f"{name}.state"] == "active"
        and found[f"{name}.version"] == f"microedge {version}"
    )
