"""The three models of the path, loaded together as the configuration says."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from edge.config import Config
from edge.errors import ConfigError, ModelError
from edge.inference import AcceleratorStatus, Model
from edge.inference import edgetpu as coral_facts
from edge.inference.coral import Accelerator
from edge.inference.manifest import load_model, models_folder, read_manifest
from edge.inference.process import Isolation

log = logging.getLogger(__name__)

NAMES = ("detector", "landmark", "spotter")


@dataclass(frozen=True, slots=True)
class Models:
    """The three models of the path."""

    detector: Model
    landmark: Model
    spotter: Model
    accelerator: Accelerator | None = None
    without: AcceleratorStatus | None = None
    """The status where there is no accelerator; None: "off"."""

    @property
    def status(self) -> AcceleratorStatus:
        """How the accelerator is doing."""
        if self.accelerator is not None:
            return self.accelerator.status
        return self.without or AcceleratorStatus("cpu", self.detector.engine, "off")

    def close(self) -> None:
        """Close all three, and the accelerator; may be called again."""
        for model in (self.spotter, self.landmark, self.detector):
            model.close()


def load_models(config: Config, *, isolation: Isolation | None = None) -> Models:
    """Load and check the three models that the configuration names.

    Where a Coral is used, this does not wait for it: the CPU answers until it is ready. That goes for one that is not
    plugged in yet, if all else that it takes is installed.

    Args:
        config: its section `inference` decides.
        isolation: run a child that is so made, whatever `inference.accelerator` says; with a CPU engine in it,
            isolation can be tried without a Coral. Its deadline is replaced by `inference.deadline_ms`.

    Raises:
        ModelError: naming each model that is absent, damaged or not what its passport says.
        ConfigError: `inference.accelerator = edgetpu`, naming everything that is missing for it; a ModelError if
            that is the device alone, so that the service is started again until it is there.
    """
    wanted = config.inference
    folder = Path(wanted.models) if wanted.models else None
    loaded: list[Model] = []
    problems: list[str] = []
    for name in NAMES:
        try:
            loaded.append(load_model(name, folder=folder, threads=wanted.threads))
        except ModelError as error:
            problems.append(str(error))
    try:
        if problems:
            raise ModelError("\n".join(dict.fromkeys(problems)))
        detector, landmark, spotter = loaded
        engine = detector.engine
        if isolation is None and wanted.accelerator == "cpu":
            return Models(detector, landmark, spotter)
        place = models_folder(folder)
        if isolation is None:
            lacks, is_away, isolation = _coral(config, place)
            if lacks and wanted.accelerator == "edgetpu":
                # A device that is merely absent may be there at the next start; what is not installed will not.
                kind = ModelError if is_away else ConfigError
                raise kind("\n".join(f"inference.accelerator = edgetpu: {each}" for each in lacks))
            if lacks and not is_away:
                status = AcceleratorStatus("auto", engine, "absent", reason="; ".join(lacks))
                return Models(detector, landmark, spotter, without=status)
        accelerator = Accelerator(
            loaded,
            _files(place, isolation.engine),
            replace(isolation, deadline_s=wanted.deadline_ms / 1000),
            asked=wanted.accelerator,
        )
    except BaseException:
        for model in loaded:
            model.close()
        raise
    detector, landmark, spotter = accelerator.models
    return Models(detector, landmark, spotter, accelerator)


def _coral(config: Config, folder: Path) -> tuple[list[str], bool, Isolation]:
    """Give what is missing to use a Coral, whether that is only the device itself, and how to run one."""
    library = coral_facts.find_library()
    files = {name: path for name, (path, _) in _files(folder, coral_facts.ENGINE).items()}
    devices = coral_facts.find_devices()
    lacks = coral_facts.missing(files, library, devices)
    if not lacks:
        _, pair = coral_facts.best_runtime()
        log.log(logging.WARNING if pair.verdict == "known to crash" else logging.INFO,
                "Edge TPU: %s (%s)", pair.words, pair.verdict)  # fmt: skip
    is_away = not devices and not coral_facts.missing(files, library, ["any"])
    isolation = Isolation(
        library=str(library or ""), device=config.inference.device, threads=config.inference.threads
    )
    return lacks, is_away, isolation


def _files(folder: Path, engine: str) -> dict[str, tuple[Path, str]]:
    """Give path and SHA-256 ("" where not declared) of what the child loads, by model."""
    passports = read_manifest(folder)
    files = {}
    for name in NAMES:
        passport = passports[name]
        if engine != coral_facts.ENGINE:
            files[name] = (folder / passport.file, passport.sha256)
        elif passport.edgetpu is not None:
            files[name] = (folder / passport.edgetpu.file, passport.edgetpu.sha256)
        else:
            files[name] = (folder / coral_facts.COMPILED.format(name=name), "")
    return files
