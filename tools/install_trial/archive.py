"""A Debian archive on disk that has the two packages which only Raspberry Pi's has, for the installer to find.

That archive cannot be reached from everywhere, and its camera stack works on a Raspberry Pi alone. These stand-ins have
the names, the place and the dependencies of the real ones, as far as an installation meets them: a picamera2 that
imports numpy and something compiled against the system's numpy, and finds no camera.
"""

import hashlib
import subprocess
from pathlib import Path

_PICAMERA2 = '''\
"""Stands in for picamera2 on a machine without a camera."""
import bottleneck  # compiled against the system's numpy, as simplejpeg is in the real one
import numpy

bottleneck.nansum(numpy.ones(3, numpy.float32))


class Picamera2:
    @staticmethod
    def global_camera_info():
        return []

    def __init__(self, *arguments, **settings):
        raise IndexError("list index out of range")
'''
_PACKAGES = {
    "python3-picamera2": ("python3-numpy, python3-bottleneck, python3-gpiozero", "picamera2", _PICAMERA2),
    "python3-lgpio": ("python3", "lgpio", '"""Stands in for lgpio."""\n'),
}
"""Dependencies, module and its text, by package."""


def make_archive(folder: Path) -> None:
    """Fill a folder with the packages and their index, as for `deb [trusted=yes] file:FOLDER ./`."""
    entries = []
    for package, (depends, module, text) in _PACKAGES.items():
        tree = folder / "build" / package
        place = tree / "usr/lib/python3/dist-packages" / module
        place.mkdir(parents=True)
        (place / "__init__.py").write_text(text)
        control = (
            f"Package: {package}\nVersion: 99\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\n"
            f"Depends: {depends}\nDescription: stand-in\n"
        )
        (tree / "DEBIAN").mkdir()
        (tree / "DEBIAN/control").write_text(control)
        cleaner = tree / "DEBIAN/prerm"
        cleaner.write_text(f"#!/bin/sh\nrm -rf /usr/lib/python3/dist-packages/{module}/__pycache__\n")
        cleaner.chmod(0o755)
        file = folder / f"{package}.deb"
        subprocess.run(
            ["dpkg-deb", "--build", "--root-owner-group", tree, file], check=True, capture_output=True
        )
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        entries.append(f"{control}Filename: ./{file.name}\nSize: {file.stat().st_size}\nSHA256: {digest}\n")
    (folder / "Packages").write_text("\n".join(entries))
