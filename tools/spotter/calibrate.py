"""Fit what makes the spotter's probabilities honest, and write it into its passport.

    python -m tools.evaluate rendered --split validation ... --save answers.jsonl
    python -m tools.spotter.calibrate answers.jsonl [more.jsonl] --models models

One number: the temperature of the emotions' odds (Guo et al., On Calibration of Modern Neural Networks, ICML
2017), the one under which the true emotions of the found micro-expressions are likeliest. The answers must come
from people who took no part in training, and must not be those that the published figures are measured on.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from edge.evidence import KINDS
from edge.inference.manifest import MANIFEST, read_manifest
from tools.evaluate.matching import Hit, match
from tools.evaluate.records import load
from tools.passport import as_toml

KEY = "emotion_temperature"
_FEWEST = 30
"""Found micro-expressions from which a temperature says more than chance does."""


def temperature(probabilities: NDArray[np.float64], right: NDArray[np.intp]) -> float:
    """Give the temperature (0.2..5) with the least mean negative log-likelihood.

    Args:
        probabilities: (n, kinds), at temperature 1.
        right: (n,) number of the true kind.
    """
    logarithms = np.log(np.maximum(probabilities, 1e-6))

    def loss(log_temperature: float) -> float:
        scaled = logarithms / np.exp(log_temperature)
        scaled -= scaled.max(axis=1, keepdims=True)
        chosen = scaled[np.arange(len(right)), right]
        return float(np.mean(np.log(np.exp(scaled).sum(axis=1)) - chosen))

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.2), np.log(5.0)), method="bounded").x))


def main() -> None:
    """Fit, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("answers", type=Path, nargs="+", help="saved by tools.evaluate")
    parser.add_argument("--models", type=Path, default=Path("models"))
    options = parser.parse_args()
    passports = read_manifest(options.models)
    spotter = passports["spotter"]
    hits: list[tuple[Hit, float]] = []
    for path in options.answers:
        header, recordings = load(path)
        made_with = header["models"]["spotter"]
        if header["of"].get("split") == "test":
            parser.error(f"{path}: was made with --split test, whose people are for published figures only")
        if made_with["sha256"] != spotter.sha256:
            parser.error(f"{path}: was made with another spotter than {options.models / spotter.file}")
        found = [hit for recording in recordings for hit in match(recording).hits]
        hits += [
            (hit, made_with.get(KEY, 1.0))
            for hit in found
            if hit.truth.emotion in KINDS and hit.answer.probabilities
        ]
    if len(hits) < _FEWEST:
        parser.error(f"{len(hits)} found micro-expressions with a known emotion: {_FEWEST} are needed")
    given = np.array([np.power(hit.answer.probabilities, present) for hit, present in hits])
    right = np.array([KINDS.index(hit.truth.emotion) for hit, _ in hits])
    fitted = round(temperature(given, right), 3)
    for name, value in (("as trained", 1.0), ("calibrated", fitted)):
        shares = given ** (1 / value)
        top = (shares / shares.sum(axis=1, keepdims=True)).max(axis=1)
        accuracy = float((shares.argmax(axis=1) == right).mean())
        print(f"{name}: temperature {value}, mean confidence {top.mean():.3f}, right {accuracy:.3f}")
    passports["spotter"] = replace(spotter, calibration=dict(spotter.calibration) | {KEY: fitted})
    (options.models / MANIFEST).write_text(as_toml(passports), encoding="utf-8")


if __name__ == "__main__":
    main()
