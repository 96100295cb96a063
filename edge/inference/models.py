"""The three models of the path, loaded together as the configuration says."""

from dataclasses import dataclass
from pathlib import Path

from edge.config import Config
from edge.errors import ConfigError, ModelError
from edge.inference import Model
from edge.inference.manifest import load_model


@dataclass(frozen=True, slots=True)
class Models:
    """The three models of the path."""

    detector: Model
    landmark: Model
    spotter: Model

    def close(self) -> None:
        """Close all three."""
        for model in (self.spotter, self.landmark, self.detector):
            model.close()


def load_models(config: Config) -> Models:
    """Load and check the three models that the configuration names.

    Raises:
        ModelError: naming each model that is absent, damaged or not what its passport says.
        ConfigError: an accelerator is demanded that this version does not drive.
    """
    if config.inference.accelerator == "edgetpu":
        raise ConfigError(
            "inference.accelerator = edgetpu: this version runs models on the CPU; set auto or cpu"
        )
    folder = Path(config.inference.models) if config.inference.models else None
    loaded: list[Model] = []
    problems: list[str] = []
    for name in ("detector", "landmark", "spotter"):
        try:
            loaded.append(load_model(name, folder=folder, threads=config.inference.threads))
        except ModelError as error:
            problems.append(str(error))
    if problems:
        for model in loaded:
            model.close()
        raise ModelError("\n".join(dict.fromkeys(problems)))
    return Models(*loaded)
