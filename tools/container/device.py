"""Makes a container's root a device: the real units and settings, and this checkout's program as if installed.

What `tools/install` takes minutes for takes no time here: the packages are those of the environment that runs this.
"""

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from tools.container.machine import ContainerError

CHECKOUT = Path(__file__).resolve().parents[2]
SOURCE = "/opt/microedge/source"
PYTHON = "/opt/microedge/bin/python"
_PROGRAM = f"""\
#!{PYTHON}
import sys
sys.path.insert(0, "{SOURCE}")
from edge.__main__ import main
sys.exit(main())
"""
_BROKER = """\
per_listener_settings true
listener 1883 127.0.0.1
allow_anonymous false
password_file /etc/mosquitto/passwords
# For whoever watches the device; nothing of it is a secret here.
listener 1884 127.0.0.1
allow_anonymous true
max_queued_messages 0
autosave_interval 1
"""
USER, PASSWORD = "device", "correct horse battery staple"
"""What the broker asks of the device."""
SETTINGS = f"""\
[device]
id = "trial"
[mqtt]
username = "{USER}"
password_file = "microedge_password"
[camera]
width = 320
height = 240
"""
"""What trials have in common; to be gone on with in the section of the camera."""


def equip(
    root: Path, configuration: str, *, units: Path = CHECKOUT / "systemd"
) -> Sequence[tuple[Path, str]]:
    """Put program, units, configuration, credential and a broker with a password into a root folder.

    Nothing is started or enabled.

    Args:
        root: a `layer` or copy of a `rootfs`.
        configuration: the text of /etc/microedge/config.toml.
        units: the folder of units.

    Returns:
        What `boot` is to bind.

    Raises:
        ContainerError: the root's Python is not of the version that runs this, whose packages it is to use.
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if not (root / "usr/bin" / version).exists():
        raise ContainerError(
            f"{root}: has no {version}, whose packages are at hand: run this with its own version"
        )
    _lay(root, units)
    program = root / "opt/microedge"
    (program / "bin").mkdir(parents=True)
    (program / "bin/python").symlink_to(f"/usr/bin/{version}")
    (program / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    (program / "bin/microedge").write_text(_PROGRAM)
    (program / "bin/microedge").chmod(0o755)
    packages = f"/opt/microedge/lib/{version}/site-packages"
    for part in ("edge", "models", "tools", "tests"):
        # Copied, so that a trial of an hour runs one version whatever becomes of the checkout meanwhile.
        shutil.copytree(CHECKOUT / part, root / SOURCE.lstrip("/") / part)
    (root / "usr/local/bin/microedge").symlink_to("/opt/microedge/bin/microedge")
    (root / "etc/microedge/config.toml").write_text(configuration)
    (root / "etc/microedge/credentials").mkdir(mode=0o700)
    secret = root / "etc/microedge/credentials/password"
    secret.write_text(PASSWORD + "\n")
    secret.chmod(0o600)
    _run("systemd-tmpfiles", f"--root={root}", "--create", str(units / "microedge.tmpfiles"))
    (root / "etc/mosquitto/conf.d/trial.conf").write_text(_BROKER)
    passwords = root / "etc/mosquitto/passwords"
    _run("chroot", str(root), "mosquitto_passwd", "-b", "-c", "/etc/mosquitto/passwords", USER, PASSWORD)
    passwords.chmod(0o644)
    return [(Path(sysconfig.get_path("purelib")), packages)]


def _lay(root: Path, units: Path) -> None:
    """Put everything in `units` where it belongs."""
    for source, target in (
        ("*.service", "etc/systemd/system/{name}"),
        ("microedge.sysusers", "usr/lib/sysusers.d/microedge.conf"),
        ("microedge.tmpfiles", "usr/lib/tmpfiles.d/microedge.conf"),
        ("*.rules", "usr/lib/udev/rules.d/{name}"),
        ("system.conf.d/*.conf", "etc/systemd/system.conf.d/{name}"),
        ("journald.conf.d/*.conf", "etc/systemd/journald.conf.d/{name}"),
    ):
        for path in units.glob(source):
            there = root / target.format(name=path.name)
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes(path.read_bytes())
    _run("systemd-sysusers", f"--root={root}", str(units / "microedge.sysusers"))
    (root / "etc/microedge").mkdir()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ContainerError(f"{command[0]}: exit status {done.returncode}: {done.stderr.strip()}")
