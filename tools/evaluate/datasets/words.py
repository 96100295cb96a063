"""The words of the data sets in ours: emotions, kinds of expression, action units with their side."""

import re

_EMOTIONS = {
    "happiness": ("happiness", "happy", "happyiness", "positive"),
    "sadness": ("sadness", "sad"),
    "anger": ("anger", "angry"),
    "fear": ("fear",),
    "disgust": ("disgust",),
    "surprise": ("surprise", "surprised"),
    "contempt": ("contempt",),
    "other": (
        *("other", "others", "negative", "repression"),
        *("helpless", "helpness", "pain", "confused", "sympathy"),  # self-reports of CAS(ME)^2
    ),
}
"""Ours, and every word that the sets use for it. `happyiness` and `helpness` are spelt so in CAS(ME)^2."""

_OURS = {word: ours for ours, words in _EMOTIONS.items() for word in words}

_KINDS = {
    "micro": ("micro-expression", "micro", "micro - 1/2", "me"),
    "macro": ("macro-expression", "macro", "mae"),
}
_KIND_OF = {word: kind for kind, words in _KINDS.items() for word in words}

EMOTION_WORDS = ", ".join(sorted(_OURS))
KIND_WORDS = ", ".join(sorted(_KIND_OF))

MICRO_AT_MOST_S = 0.5
"""The challenges' limit between micro- and macro-expressions, where a sheet does not say which it is."""

_UNIT = re.compile(r"([LRABTU]?)(\d{1,2})(?:[A-E](?:/[A-E])?|\([A-E]/[A-E]\))?")
"""A FACS code: `L` or `R` for one side, `A` asymmetric, `T`/`U` upper and `B` lower part; intensity A to E."""


def emotion_of(word: str) -> str | None:
    """Give our word for a set's own, in any case; None if it is unknown."""
    return _OURS.get(word.strip().casefold())


def kind_of(word: str) -> str | None:
    """Give `micro` or `macro` for a set's own word, in any case; None if it is unknown."""
    return _KIND_OF.get(" ".join(word.split()).casefold())


def action_units_of(text: str) -> tuple[tuple[str, str], ...]:
    """Read `4+L14`, `AU12`, `R12B+17` as (AU, side) pairs.

    Coders also wrote doubts and remarks (`L12 or L14`, `ref(7B)`, `Chewing`): parts that are not one plain code
    are left out.
    """
    units: dict[str, set[str]] = {}
    for part in text.replace("AU", "").split("+"):
        match = _UNIT.fullmatch(part.strip())
        if match:
            side = {"L": "left", "R": "right"}.get(match[1], "both")
            units.setdefault(f"AU{int(match[2])}", set()).add(side)
    # `R2+L2`, and a code given with and without a side, are the unit on both sides.
    return tuple((au, sides.pop() if len(sides) == 1 else "both") for au, sides in units.items())
