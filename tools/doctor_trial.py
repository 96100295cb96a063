"""Shows what `microedge doctor` says of a good and of a broken device, both with real systemd, in a container.

    python -m tools.doctor_trial

The good device runs the shipped unit with a synthetic camera, a password as systemd's credential, and mosquitto. Then
it is broken in every way that a container can be: a mistake in the configuration, no camera, no pins and no Coral
though all are asked for, a credential that everybody may read, a broker that is gone, a state folder on a full and
then on a read-only disk, a unit without its protection. Prints what doctor prints; ends with one JSON object; exit
code 1 if the good device fails a check, the broken one passes, or the running service notices that it was examined.
"""

import json
import sys
import time
from typing import Any

from tools.container import ContainerError, boot, layer, missing, rootfs
from tools.container.device import SETTINGS, equip
from tools.container.root import WITH_PYTHON

CONFIGURATION = f"""\
{SETTINGS}source = "synthetic"
rate_hz = 30.0
[leds]
enabled = false
"""
TIMEOUT_S = 300
FAILING = {
    "configuration/file", "camera/webcam", "coral/coral", "pins/gpio", "broker/credentials", "broker/reachable",
    "service/state",
}  # fmt: skip
"""Lines that must fail on the broken device, whatever its disk is like."""
_SCRIPT = r"""
set -e
doctor() {
  echo "=== $1"
  COLUMNS=100 microedge doctor || echo "exit code $?"
  microedge doctor --json >"/opt/trial/$1.json" || true
}
sessions() { mosquitto_sub -p 1884 -t microedge/trial/availability -C 1 -W 10; }

systemctl restart mosquitto
systemctl enable --now microedge
before="$(systemctl show microedge -p NRestarts -p MainPID) $(sessions)"
doctor good
useradd --create-home visitor
echo "=== as a visitor"
su visitor -c "microedge doctor" || echo "exit code $?"
after="$(systemctl show microedge -p NRestarts -p MainPID) $(sessions)"
[ "$before" = "$after" ] && echo undisturbed >/opt/trial/service || echo "$before / $after" >/opt/trial/service

systemctl stop microedge mosquitto
chmod 755 /etc/microedge/credentials
chmod 644 /etc/microedge/credentials/password
sed -i 's/source = .*/source = "webcam"/; s/rate_hz = .*/rate_hz = 9000/; s/enabled = false/enabled = true/' \
  /etc/microedge/config.toml
printf '[inference]\naccelerator = "edgetpu"\n' >>/etc/microedge/config.toml
mkdir -p /etc/systemd/system/microedge.service.d
printf '[Service]\nProtectSystem=no\nSystemCallFilter=\nCapabilityBoundingSet=~\nWatchdogSec=0\n' \
  >/etc/systemd/system/microedge.service.d/weak.conf
systemctl daemon-reload
systemctl start microedge || true
mount -t tmpfs -o size=4m,mode=0777 tmpfs /var/lib/microedge
dd if=/dev/zero of=/var/lib/microedge/filler bs=64k 2>/dev/null || true
doctor full
umount /var/lib/microedge
mount --bind /var/lib/microedge /var/lib/microedge
mount -o remount,bind,ro /var/lib/microedge
doctor read-only
cat >/opt/trial/gather.py <<'TEXT'
import json, pathlib
folder = pathlib.Path("/opt/trial")
found = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("good", "full", "read-only")}
print(json.dumps({**found, "service": (folder / "service").read_text().strip()}))
TEXT
/opt/microedge/bin/python /opt/trial/gather.py
"""


def examined() -> tuple[str, dict[str, Any]]:
    """Give what doctor printed, and its reports by device: good, full, read-only; and `service`.

    Raises:
        ContainerError: no container can be had here, or a step failed.
    """
    if lacks := missing():
        raise ContainerError("; ".join(lacks))
    release = WITH_PYTHON.get(sys.version_info[:2])
    if release is None:
        raise ContainerError(f"no Debian has Python {sys.version_info.major}.{sys.version_info.minor}")
    with layer(rootfs(release)) as over:
        binds = equip(over.root, CONFIGURATION)
        printed = boot(over.root, script=_SCRIPT, timeout_s=TIMEOUT_S, binds=binds)
    text, _, last = printed.rstrip().rpartition("\n")
    return text, dict(json.loads(last))


def failing(report: dict[str, Any]) -> set[str]:
    """Give the checks that failed, as area/name."""
    return {f"{check['area']}/{check['name']}" for check in report["checks"] if check["verdict"] == "fail"}


def mistakes(found: dict[str, Any]) -> list[str]:
    """Say what the reports should have said and did not; empty if all is well."""
    wrong = [f"good device: {name} failed" for name in sorted(failing(found["good"]))]
    for device, disk in (("full", "store/disk"), ("read-only", "store/folder")):
        missed = (FAILING | {disk}) - failing(found[device])
        wrong += [f"{device} device: {name} did not fail" for name in sorted(missed)]
        silent = [check["name"] for check in found[device]["checks"]
                  if check["verdict"] in ("warn", "fail") and not check.get("advice")]  # fmt: skip
        wrong += [f"{device} device: {name} without advice" for name in silent]
    if found["service"] != "undisturbed":
        wrong.append(f"the running service noticed: {found['service']}")
    return wrong


def main() -> int:
    """Run the trial, print, and give the exit code."""
    began_s = time.monotonic()
    try:
        text, found = examined()
    except ContainerError as error:
        print(json.dumps({"proof": "doctor_trial", "passed": False, "problem": str(error)}))
        return 1
    print(text)
    wrong = mistakes(found)
    report = {
        "proof": "doctor_trial", "passed": not wrong, "mistakes": wrong,
        "counts": {device: found[device]["counts"] for device in ("good", "full", "read-only")},
        "seconds": {device: found[device]["seconds"] for device in ("good", "full", "read-only")},
        "service": found["service"], "wall_s": round(time.monotonic() - began_s, 1),
    }  # fmt: skip
    print(json.dumps(report))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
