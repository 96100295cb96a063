"""Look whether everything that a device installs is there as a wheel, or fill a folder with those wheels.

    python -m tools.wheels                                            # 64-bit Raspberry Pi OS: Python 3.11 and 3.13
    python -m tools.wheels --fill FOLDER --python 3.11 --extras demo  # for `tools/install --wheelhouse FOLDER`

pip resolves for the device, on this machine and without downloading; the versions are those of today. What the
requirements say of a Python version is judged here for the device's, and not by pip, which takes this machine's.
Ends with one JSON object; status 1 if something is missing. Needs the network, and `packaging`, which pytest brings.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


class WheelError(Exception):
    """Not everything is there as a wheel; holds pip's words."""


@dataclass(frozen=True, slots=True)
class Target:
    """What wheels must fit."""

    python: str
    """Major and minor version: "3.11"."""
    glibc: int
    """Minor version of the system's C library 2.x."""
    machine: str = "aarch64"

    @property
    def options(self) -> list[str]:
        """What pip must be told. It takes each platform literally, so that all older ones are given as well."""
        short = self.python.replace(".", "")
        platforms = [f"manylinux2014_{self.machine}"]
        platforms += [f"manylinux_2_{minor}_{self.machine}" for minor in range(17, self.glibc + 1)]
        abis = (f"cp{short}", "abi3", "none")
        return [
            "--only-binary=:all:", f"--python-version={self.python}", "--implementation=cp",
            *(f"--platform={platform}" for platform in platforms), *(f"--abi={abi}" for abi in abis),
        ]  # fmt: skip

    @property
    def environment(self) -> dict[str, str | Set[str]]:
        """What markers are judged by, as far as it differs from this machine."""
        return {
            "python_version": self.python, "python_full_version": f"{self.python}.0",
            "platform_machine": self.machine, "platform_system": "Linux", "sys_platform": "linux", "extra": "",
        }  # fmt: skip


TARGETS = {"bookworm": Target("3.11", glibc=36), "trixie": Target("3.13", glibc=41)}
"""The releases of Raspberry Pi OS."""

FROM_APT = ("picamera2", "lgpio")
"""The extra `pi`, which the installer takes from Raspberry Pi's archive: picamera2 must fit the system's libcamera and
needs python-prctl, which has no wheel; lgpio has none for Python 3.13, where pip would take an empty 0.0.0.2 if the
extra did not ask for more."""


def declared(target: Target, extras: Sequence[str] = ()) -> list[Requirement]:
    """Give what pyproject.toml asks for on the target, without the conditions that led to it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = list(project["dependencies"])
    for extra in extras:
        texts += project["optional-dependencies"][extra]
    return [_bare(each) for each in map(Requirement, texts) if _holds(each, target)]


def resolve(
    requirements: Iterable[Requirement], target: Target, options: Sequence[str] = ()
) -> dict[str, Mapping[str, Any]]:
    """Ask pip what it would install; metadata with the wheel's `url`, by canonical name.

    Raises:
        WheelError: something has no wheel that fits.
    """
    wanted = list(requirements)
    while True:
        chosen = _ask_pip(wanted, target, options)
        # pip judged what packages ask of each other by this machine's Python; so that is gone through again.
        lacking = [
            need
            for name, metadata in chosen.items()
            for need in map(Requirement, metadata.get("requires_dist", ()))
            if _holds(need, target) and not _is_met(need, chosen)
        ]
        if not lacking:
            return chosen
        known = {str(each) for each in wanted}
        new = [each for each in map(_bare, lacking) if str(each) not in known]
        if not new:
            raise WheelError(f"cannot be had together: {', '.join(map(str, lacking))}")
        wanted += new


def fill(folder: Path, target: Target, extras: Sequence[str] = (), source: Path = ROOT) -> list[Path]:
    """Download what the target needs and build our own wheel beside it; gives the files.

    Raises:
        WheelError: something has no wheel that fits, or our own cannot be built.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [each["url"] for each in resolve(declared(target, extras), target).values()]
    _pip("download", "--quiet", "--no-deps", f"--dest={folder}", *target.options, *wanted)
    for old in folder.glob("microedge-*.whl"):
        old.unlink()
    _pip("wheel", "--quiet", "--no-deps", f"--wheel-dir={folder}", str(source))
    return sorted(folder.glob("*.whl"))


def _pi(target: Target) -> dict[str, str]:
    """Say of each package of the extra `pi` whether pip could give it; the installer does without."""
    said = {}
    for need in declared(target, ["pi"]):
        if need.name not in FROM_APT:
            continue
        try:
            chosen = resolve([need], target)
        except WheelError as error:
            said[need.name] = f"pip: {str(error).splitlines()[0]}"
        else:
            said[need.name] = f"pip would have {chosen[canonicalize_name(need.name)]['version']}"
    return said


def _holds(need: Requirement, target: Target) -> bool:
    return need.marker is None or need.marker.evaluate(target.environment)


def _bare(need: Requirement) -> Requirement:
    bare = Requirement(str(need))
    bare.marker = None
    return bare


def _is_met(need: Requirement, chosen: Mapping[str, Mapping[str, Any]]) -> bool:
    metadata = chosen.get(canonicalize_name(need.name))
    return metadata is not None and need.specifier.contains(metadata["version"], prereleases=True)


def _ask_pip(
    requirements: Iterable[Requirement], target: Target, options: Sequence[str]
) -> dict[str, Mapping[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        _pip(
            "install", "--quiet", "--dry-run", "--ignore-installed", f"--report={report}", f"--target={folder}",
            *target.options, *options, *map(str, requirements),
        )  # fmt: skip
        items = json.loads(report.read_text())["install"]
    return {
        canonicalize_name(item["metadata"]["name"]): {**item["metadata"], "url": item["download_info"]["url"]}
        for item in items
    }


def _pip(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, "PIP_ROOT_USER_ACTION": "ignore"},
    )  # fmt: skip
    if done.returncode != 0:
        lines = [
            line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")
        ]
        raise WheelError("\n".join(lines) or done.stderr[-2000:])


def _check() -> dict[str, Any]:
    """Print what each release would get; what is missing stands under "problems"."""
    found: dict[str, Any] = {"problems": []}
    for release, target in TARGETS.items():
        print(f"{release}: Python {target.python}, glibc 2.{target.glibc}, {target.machine}")
        try:
            chosen = resolve(declared(target), target)
        except WheelError as error:
            print(f"  {error}")
            found["problems"].append(f"{release}: {error}")
            continue
        for metadata in chosen.values():
            print(f"  {metadata['name']} {metadata['version']}: {metadata['url'].rpartition('/')[2]}")
        found[release] = {name: metadata["version"] for name, metadata in sorted(chosen.items())}
        for name, words in _pi(target).items():
            print(f"  from apt, not from pip: {name} ({words})")
    return found


def main() -> int:
    """Check or fill, as the arguments say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fill", type=Path, metavar="FOLDER", help="download the wheels and build our own")
    parser.add_argument(
        "--python", default="3.11", choices=[each.python for each in TARGETS.values()], help="for --fill"
    )
    parser.add_argument("--machine", default="aarch64", choices=("aarch64", "x86_64"), help="for --fill")
    parser.add_argument(
        "--extras", default="", metavar="LIST", help="for --fill: demo, parquet; joined by commas"
    )
    options = parser.parse_args()
    if options.fill is None:
        found = _check()
        print(json.dumps(found))
        return 1 if found["problems"] else 0
    glibc = next(each.glibc for each in TARGETS.values() if each.python == options.python)
    target = Target(options.python, glibc, options.machine)
    try:
        files = fill(options.fill, target, [each for each in options.extras.split(",") if each])
    except WheelError as error:
        print(error, file=sys.stderr)
        print(json.dumps({"problems": [str(error)]}))
        return 1
    size_mb = round(sum(file.stat().st_size for file in files) / 1e6)
    print(json.dumps({"folder": str(options.fill), "wheels": len(files), "size_mb": size_mb}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
