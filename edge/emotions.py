"""The emotion-to-action-unit table: versioned data (emotions.toml) that training, animation and judging share."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from edge.records import EMOTIONS


@dataclass(frozen=True, slots=True)
class EmotionTable:
    """Which action units stand for which emotion."""

    version: str
    prototypes: dict[str, tuple[tuple[str, ...], ...]]
    """Sets of FACS codes for each of EMOTIONS, the full prototype first."""
    one_sided: frozenset[str]
    """Emotions whose sets are meant for one side of the face."""
    sources: dict[str, str]
    """Publication by the short name that emotions.toml uses."""


@cache
def table() -> EmotionTable:
    """Read the table that this version carries."""
    data = tomllib.loads((resources.files("edge") / "emotions.toml").read_text(encoding="utf-8"))
    return EmotionTable(
        version=data["version"],
        prototypes={name: tuple(tuple(units) for units in data[name]["sets"]) for name in EMOTIONS},
        one_sided=frozenset(name for name in EMOTIONS if data[name]["one_sided"]),
        sources=data["sources"],
    )
