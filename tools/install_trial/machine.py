"""The container that a trial happens in, and the words of shell that its scripts share."""

import re
import shutil
import sqlite3
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tools.container import boot

_CONFIG = "etc/microedge/config.toml"
_STATE = "var/lib/microedge"

# A line "@@ name value" is a finding; everything else is only shown when something is wrong.
_WORDS = """
note() { echo "@@ $1 $2"; }
property() { systemctl show microedge --property "$1" --value; }
seconds() { awk -v a="$1" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f", b - a }'; }
events() {  # how many have this value of `waiting`: 1 waits, 0 was confirmed
  python3 -c 'import sqlite3, sys
store = sqlite3.connect("file:/var/lib/microedge/events.db?mode=ro", uri=True)
print(store.execute("SELECT count(*) FROM events WHERE waiting = ?", (int(sys.argv[1]),)).fetchone()[0])' "$1"
}
until_true() {  # seconds, command ...
  end=$(($(date +%s) + $1)); shift
  until "$@"; do [ "$(date +%s)" -lt "$end" ] || return 1; sleep 0.2; done
}
is_running() { [ "$(property ActiveState)" = active ]; }
has_events() { [ "$(events "$1")" -ge "$2" ]; }
try() {  # name of this step, then the command; notes its status, its time and how the service is afterwards
  name=$1; shift
  run=$(property InvocationID); begun=$(date +%s.%N)
  "$@"; note "$name.status" $?
  note "$name.seconds" "$(seconds "$begun")"
  note "$name.state" "$(property ActiveState)"
  note "$name.same_run" "$([ "$(property InvocationID)" = "$run" ] && echo yes || echo no)"
  note "$name.version" "$(/opt/microedge/bin/microedge --version 2>&1 | tail -n 1)"
  note "$name.unit" "$(property Description)"
}
"""

SYNTHETIC = """\
# Made by hand, with a comment that must stay.
[device]
id = "trial"

[camera]
source = "synthetic"
width = 320
height = 240
rate_hz = 100.0

[leds]
enabled = false
"""
"""A configuration for a machine that has neither camera nor pins."""


class Machine:
    """A root folder that is booted for one script after another; `shared` appears in it as /trial, for reading."""

    def __init__(self, root: Path, shared: Path) -> None:
        self.root, self.shared = root, shared
        self.said = ""
        """All that its scripts have printed."""

    def run(self, script: str, *, network: bool = True, timeout_s: float = 600.0) -> dict[str, str]:
        """Boot it, run a script with the words above, and give what that has noted, by name.

        Raises:
            ContainerError: it does not boot, or the script fails or takes too long.
        """
        printed = boot(
            self.root, script=f"{_WORDS}\n{script}", timeout_s=timeout_s, network=network,
            binds=[(self.shared, "/trial")],
        )  # fmt: skip
        self.said += printed
        return dict(re.findall(r"(?m)^@@ (\S+) (.*)$", printed))

    def configure(self, text: str) -> None:
        """Put a configuration there, as somebody would who prepares a device."""
        path = self.root / _CONFIG
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    @property
    def configuration(self) -> bytes:
        """The bytes of the configuration; empty if there is none."""
        path = self.root / _CONFIG
        return path.read_bytes() if path.exists() else b""

    def kept_events(self) -> Mapping[str, int]:
        """Give the ids of all events on its disk, with 1 for those that wait; it must not be running."""
        with tempfile.TemporaryDirectory() as folder:
            # A copy with its write-ahead log: reading would change the original's.
            for file in (self.root / _STATE).glob("events.db*"):
                shutil.copy(file, folder)
            store = sqlite3.connect(Path(folder) / "events.db")
            try:
                return dict(store.execute("SELECT id, waiting FROM events").fetchall())
            finally:
                store.close()
