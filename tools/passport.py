"""Write a model's passport: `python -m tools.passport models/NAME.tflite [--name NAME] [--about KEY=TEXT ...]`.

Hash, shapes and quantisation are measured; the words under `about` that the manifest already holds are kept,
and those given here are set. Calibration belongs to one file: it is kept while the hash stays the same. The
manifest is `manifest.toml` in the model's folder.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

from edge.errors import EdgeError
from edge.inference import Tensor
from edge.inference.cpu import CpuModel
from edge.inference.manifest import MANIFEST, Passport, read_manifest

HEAD = """\
# Passports of the models in this folder. `python -m tools.passport` rewrites what is measured and keeps the words.
# real value = scale * (int8 - zero_point)
"""


def measure(path: Path, name: str, before: Passport | None, about: dict[str, str]) -> Passport:
    """Load a model file and state what it is; `before` is what the manifest says by now."""
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    known = dict(before.about) if before else {}
    same = before if before and before.sha256 == sha256 else None
    calibration = same.calibration if same else {}
    compiled = same.edgetpu if same else None
    model = CpuModel(content, name=name, sha256=sha256)
    try:
        return Passport(
            name, path.name, sha256, model.input, model.outputs, known | about, dict(calibration), compiled
        )
    finally:
        model.close()


def as_toml(passports: dict[str, Passport]) -> str:
    """Give the manifest's text; a JSON string is a TOML basic string."""
    parts = [HEAD]
    for name in sorted(passports):
        passport = passports[name]
        parts.append(f"[{name}]\nfile = {json.dumps(passport.file)}\nsha256 = {json.dumps(passport.sha256)}")
        parts.append(f"input = {_inline(passport.input)}")
        parts.append(
            "outputs = [\n" + "".join(f"  {_inline(tensor)},\n" for tensor in passport.outputs) + "]\n"
        )
        if passport.edgetpu:
            file, digest = json.dumps(passport.edgetpu.file), json.dumps(passport.edgetpu.sha256)
            parts[-1] += f"edgetpu = {{ file = {file}, sha256 = {digest} }}\n"
        words = (f"{key} = {json.dumps(text, ensure_ascii=False)}" for key, text in passport.about.items())
        parts.append("\n".join((f"[{name}.about]", *words)) + "\n")
        if passport.calibration:
            numbers = (f"{key} = {number!r}" for key, number in passport.calibration.items())
            parts.append("\n".join((f"[{name}.calibration]", *numbers)) + "\n")
    return "\n".join(parts)


def _inline(tensor: Tensor) -> str:
    return (
        f"{{ name = {json.dumps(tensor.name)}, shape = {list(tensor.shape)}, "
        f"scale = {tensor.scale!r}, zero_point = {tensor.zero_point} }}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="the .tflite file, in its place beside the manifest")
    parser.add_argument("--name", help="name in the manifest; by default the file's")
    parser.add_argument(
        "--about", action="append", default=[], metavar="KEY=TEXT",
        help="purpose, licence, source, trained_on, measured or limits, in words; may be given several times",
    )  # fmt: skip
    options = parser.parse_args()
    name = options.name or options.model.stem
    folder = options.model.parent
    unclear = [given for given in options.about if "=" not in given]
    if unclear:
        parser.error(f"--about {unclear[0]!r}: expected KEY=TEXT")
    try:
        passports = read_manifest(folder) if (folder / MANIFEST).exists() else {}
        about = dict(given.split("=", 1) for given in options.about)
        passports[name] = measure(options.model, name, passports.get(name), about)
    except (EdgeError, OSError) as error:
        print(f"passport: {error}", file=sys.stderr)
        return 1
    (folder / MANIFEST).write_text(as_toml(passports), encoding="utf-8")
    print(f"{folder / MANIFEST}: {name} {passports[name].sha256[:12]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
