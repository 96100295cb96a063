"""Build the container's Debian, boot it once, and say how it is.

    python -m tools.container [bookworm|trixie] [--shell "COMMANDS"]

Ends with one JSON object; status 1 if this machine cannot boot it.
"""

import argparse
import json
import sys
import time

from tools.container import ContainerError, boot, layer, rootfs
from tools.container.root import RELEASES

_SCRIPT = """
systemctl is-system-running --wait || systemctl --failed --no-pager
systemctl --version | head -1
python3 --version
"""


def main() -> int:
    """Build, boot, tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("release", nargs="?", default="bookworm", choices=RELEASES)
    parser.add_argument("--shell", default=_SCRIPT, metavar="COMMANDS", help="what to run in it")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS")
    options = parser.parse_args()
    began_s = time.monotonic()
    try:
        root = rootfs(options.release)
        built_s = time.monotonic()
        with layer(root) as over:
            print(boot(over.root, script=options.shell, timeout_s=options.timeout), end="")
    except ContainerError as error:
        print(error, file=sys.stderr)
        print(json.dumps({"release": options.release, "problem": str(error)[:300]}))
        return 1
    figures = {"build_s": round(built_s - began_s, 1), "boot_s": round(time.monotonic() - built_s, 1)}
    print(json.dumps({"release": options.release, "root": str(root), **figures}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
