"""The models that ship, each with its passport: `manifest.toml` beside them.

A passport states the file's SHA-256 and tensors and, in words, what the model was trained on, how good it was
measured to be and where it fails. A model that differs from its passport is refused: a wrong one would still
give numbers, only meaningless ones. `python -m tools.passport` writes the measured part of a passport.
"""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.errors import ModelError
from edge.inference import Model, Tensor
from edge.inference.cpu import CpuModel

MANIFEST = "manifest.toml"


@dataclass(frozen=True, slots=True)
class CompiledFile:
    """The model as `edgetpu_compiler` made it for the Coral."""

    file: str
    """File name within the models folder."""
    sha256: str


@dataclass(frozen=True, slots=True)
class Passport:
    """What is declared about one model."""

    name: str
    file: str
    """File name within the models folder."""
    sha256: str
    input: Tensor
    outputs: tuple[Tensor, ...]
    """Sorted by name."""
    about: Mapping[str, str]
    """In words: purpose, licence, trained_on, measured, limits, source."""
    calibration: Mapping[str, float]
    """Numbers that make the outputs honest, by name; fitted on people that training never saw."""
    edgetpu: CompiledFile | None = None
    """None: not declared."""


def models_folder(folder: Path | None = None) -> Path:
    """Find the models: `folder` where given, else in the installed package, else in the checkout around it.

    Raises:
        ModelError: none of them holds a manifest.
    """
    package = Path(__file__).resolve().parents[1]
    places = [folder] if folder is not None else [package / "models", package.parent / "models"]
    for place in places:
        if (place / MANIFEST).is_file():
            return place
    raise ModelError(f"no {MANIFEST} in {' or '.join(str(place) for place in places)} (inference.models)")


def read_manifest(folder: Path) -> dict[str, Passport]:
    """Read all passports of a models folder, by model name.

    Raises:
        ModelError: no manifest, not TOML, or a passport that lacks an entry.
    """
    path = folder / MANIFEST
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise ModelError(f"{path}: not a TOML file ({error})") from error
    passports = {}
    for name, entry in table.items():
        try:
            passports[name] = _passport(name, entry)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{path}: passport {name} lacks or misstates {error}") from error
    return passports


def _passport(name: str, entry: dict[str, Any]) -> Passport:
    outputs = sorted((_tensor(output) for output in entry["outputs"]), key=lambda tensor: tensor.name)
    about = {key: str(value) for key, value in entry.get("about", {}).items()}
    calibration = {key: float(number) for key, number in entry.get("calibration", {}).items()}
    compiled = entry.get("edgetpu")
    return Passport(
        name,
        str(entry["file"]),
        str(entry["sha256"]),
        _tensor(entry["input"]),
        tuple(outputs),
        about,
        calibration,
        CompiledFile(str(compiled["file"]), str(compiled["sha256"])) if compiled is not None else None,
    )


def _tensor(entry: dict[str, Any]) -> Tensor:
    shape = tuple(int(side) for side in entry["shape"])
    return Tensor(str(entry["name"]), shape, float(entry["scale"]), int(entry["zero_point"]))


def load_model(name: str, *, folder: Path | None = None, engine: str = "auto", threads: int = 1) -> Model:
    """Load a shipped model and hold it against its passport.

    Args:
        name: as in the manifest, for example "detector".
        folder: models folder; None for the one that came with the program.
        engine: "auto", "litert" or "tflite-runtime".
        threads: CPU threads for one inference.

    Raises:
        ModelError: absent, damaged, swapped or unfit; the message names the file, what was expected and
            found.
    """
    place = models_folder(folder)
    passports = read_manifest(place)
    if name not in passports:
        raise ModelError(
            f"{place / MANIFEST}: no model {name!r}; it lists {', '.join(sorted(passports)) or 'none'}"
        )
    passport = passports[name]
    path = place / passport.file
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"model {name}: {path}: {error.strerror}") from error
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != passport.sha256:
        raise ModelError(
            f"model {name}: {path} is not the file of its passport: "
            f"SHA-256 expected {passport.sha256}, found {sha256}"
        )
    model = CpuModel(
        content, name=name, sha256=sha256, engine=engine, threads=threads, calibration=passport.calibration
    )
    declared = (passport.input, *passport.outputs)
    actual = (model.input, *model.outputs)
    if len(declared) != len(actual) or not all(map(_same, declared, actual)):
        model.close()
        raise ModelError(f"model {name}: {path}: tensors expected {_words(declared)}, found {_words(actual)}")
    return model


def _same(declared: Tensor, actual: Tensor) -> bool:
    return declared.name == actual.name and declared.is_like(actual)


def _words(tensors: tuple[Tensor, ...]) -> str:
    parts = (f"{t.name} {'x'.join(map(str, t.shape))} ({t.scale:.6g}, {t.zero_point})" for t in tensors)
    return "; ".join(parts)
