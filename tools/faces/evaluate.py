"""Measure both nets: `python -m tools.faces.evaluate --photos DIR --labels NPZ [--models DIR] [--out FILE.json]`.

Landmarks: mean distance to the teacher's points in per cent of the inter-ocular distance, of the int8 file and (with
`--floats`) of the float net, for each part of the photos, with a 95 % interval from a bootstrap over people.
Detector: recall over face sizes in composed scenes, on whole photos, and false faces on face-free textures.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.face.detect import CONFIRMED_SCORE, Detector
from edge.face.landmarks import LandmarkNet, find_in_still
from edge.face.tensors import INPUT_SIZE
from edge.inference import Model, Tensor
from edge.inference.manifest import load_model
from edge.records import LANDMARKS, FaceBox
from tools.faces.compose import face_extent, face_free, scene
from tools.faces.crops import placement, plain_crop
from tools.faces.dataset import LabelledFace, load_faces, load_pictures
from tools.faces.expressions import render, repose

PARTS = {
    "eyes": range(19, 31),
    "brows": range(10),
    "nose": range(10, 19),
    "mouth": range(31, 51),
    "outline": range(51, 56),
}
SIZE_BINS_PX = (8, 12, 18, 28, 45, 70, 126)


class FloatModel:
    """A trained Keras net behind the `Model` protocol, its outputs finer than int8 can show.

    Outputs are returned as real values; scale 1 and zero point 0 leave them as they are.
    """

    def __init__(self, path: Path, name: str) -> None:
        # TensorFlow is needed for the float nets only; the int8 ones are measured without it.
        import tensorflow as tf

        self._net = tf.keras.models.load_model(path, compile=False)
        self._run = tf.function(self._net)
        self.name, self.sha256, self.engine = name, "", "keras"
        self.input = Tensor("image", (1, INPUT_SIZE, INPUT_SIZE, 1), 1 / 64, 0)
        shapes = {key: (1, *value.shape[1:]) for key, value in self._net.output.items()}
        self.outputs = tuple(Tensor(key, shapes[key], 1.0, 0) for key in sorted(shapes))

    def run(self, values: NDArray[np.int8]) -> tuple[NDArray[Any], ...]:
        """Give the outputs as float32."""
        outputs = self._run(values.astype(np.float32) / 64, training=False)
        return tuple(outputs[tensor.name].numpy() for tensor in self.outputs)

    def close(self) -> None:
        """Nothing is held open."""


def interval(errors: dict[str, list[float]], seed: int = 0) -> tuple[float, float, float]:
    """Give the mean over all and its 95 % interval, drawing people (not photos) with replacement."""
    sums = np.array([sum(values) for values in errors.values()])
    counts = np.array([len(values) for values in errors.values()])
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(sums), (2000, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(sums.sum() / counts.sum()), float(low), float(high)


def landmark_errors(
    net: LandmarkNet, faces: list[LabelledFace], draw: Callable[[LabelledFace, np.random.Generator], Any]
) -> dict[str, Any]:
    """Measure the net on one drawn crop of each face.

    Args:
        draw: gives a (128, 128) picture and its (56, 2) true points.
    """
    by_person: dict[str, list[float]] = {}
    by_point = np.zeros(len(LANDMARKS))
    present = 0
    straight = np.array([INPUT_SIZE / 2, 46.0, np.log(50.0), 0.0])  # the identity: crop in, crop out
    for number, face in enumerate(faces):
        picture, truth = draw(face, np.random.default_rng(number))
        found, presence = net.find(picture, straight)
        iod = float(np.hypot(*(truth[28] - truth[19])))
        away = np.hypot(*(found - truth).T) / iod * 100
        by_person.setdefault(face.subject, []).append(float(away.mean()))
        by_point += away / len(faces)
        present += presence >= 0.5
    mean, low, high = interval(by_person)
    parts = {part: round(float(by_point[list(rows)].mean()), 2) for part, rows in PARTS.items()}
    return {
        "error_pct_iod": round(mean, 3),
        "interval_95": [round(low, 3), round(high, 3)],
        "faces": len(faces),
        "people": len(by_person),
        "present_share": round(present / len(faces), 4),
        "by_part": parts,
    }


def steady_crop(face: LabelledFace, rng: np.random.Generator) -> Any:
    """Cut a face as tracking would: nearly aligned, as photographed."""
    return plain_crop(face, placement(rng, 0.15))


def first_crop(face: LabelledFace, rng: np.random.Generator) -> Any:
    """Cut a face as a first guess would: up to 30 deg, 25 % of size and 14 % of the side off."""
    return plain_crop(face, placement(rng, 1.0))


def moving_crop(face: LabelledFace, rng: np.random.Generator) -> Any:
    """Cut a face with shut eyes, an open mouth or a turned head."""
    pose = repose(face, rng)
    return render(face, pose, placement(rng, 0.15), INPUT_SIZE, level=0, border=cv2.BORDER_REPLICATE, rng=rng)


def is_found(truth: NDArray[np.float32], faces: list[FaceBox]) -> bool:
    """Say whether one of the faces is the true one: centre within a third of its side, size within 1.6 times."""
    x, y, size = truth
    return any(
        np.hypot(face.centre_px[0] - x, face.centre_px[1] - y) < size / 3
        and abs(np.log(face.size_px / size)) < np.log(1.6)
        for face in faces
    )


def detector_figures(
    model: Model,
    net: LandmarkNet,
    faces: list[LabelledFace],
    pictures: list[NDArray[np.uint8]],
    *,
    count: int,
    score_min: float,
) -> dict[str, Any]:
    """Measure recall over face sizes, on whole photos, and false faces on face-free pictures.

    False faces are counted for the detector alone and after `net` was asked to confirm them, as tracking does.
    """
    detector = Detector(model, zoomed_looks=False, score_min=score_min)
    rng = np.random.default_rng(11)
    found = np.zeros(len(SIZE_BINS_PX) - 1)
    total = np.zeros_like(found)
    false_in_scenes = 0
    for _ in range(count):
        made = scene(faces, pictures, rng)
        seen = detector.detect(made.picture)
        hits = 0
        for truth in made.faces:
            place = int(np.clip(np.searchsorted(SIZE_BINS_PX, truth[2]) - 1, 0, len(found) - 1))
            hit = is_found(truth, seen)
            found[place] += hit
            total[place] += 1
            hits += hit
        hits += sum(is_found(truth, seen) for truth in made.unclear)
        false_in_scenes += max(0, len(seen) - hits)
    whole = [
        is_found(np.array(face_extent(face.landmarks)), detector.detect(face.pyramid[0])) for face in faces
    ]
    free = np.random.default_rng(12)
    false = confirmed = 0
    for _ in range(count):
        picture = face_free(faces, pictures, free)
        seen = detector.detect(picture)
        false += bool(seen)
        confirmed += any(net.find(picture, face)[1] >= 0.5 for face in seen)
    bins = zip(SIZE_BINS_PX[:-1], SIZE_BINS_PX[1:], found, total, strict=True)
    return {
        "score_min": score_min,
        "recall": round(float(found.sum() / total.sum()), 4),
        "recall_by_size_px": {f"{low}-{high}": [round(float(f / n), 4), int(n)] for low, high, f, n in bins},
        "recall_whole_photos": round(float(np.mean(whole)), 4),
        "photos": len(whole),
        "false_per_scene": round(false_in_scenes / count, 4),
        "false_share_face_free": round(false / count, 4),
        "false_share_confirmed": round(confirmed / count, 4),
        "scenes": count,
    }


def still_errors(detector: Detector, net: LandmarkNet, faces: list[LabelledFace]) -> dict[str, Any]:
    """Measure detection and landmarks together on whole photos."""
    by_person: dict[str, list[float]] = {}
    missed = []
    for face in faces:
        found = find_in_still(face.pyramid[0], detector, net)
        if found is None:
            missed.append(face.id)
            continue
        away = np.hypot(*(found - face.landmarks).T).mean() / face.iod_px * 100
        by_person.setdefault(face.subject, []).append(float(away))
    mean, low, high = interval(by_person)
    worst = max(max(values) for values in by_person.values())
    return {
        "error_pct_iod": round(mean, 3),
        "interval_95": [round(low, 3), round(high, 3)],
        "worst": round(worst, 2),
        "missed": missed,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True, help="folder with MANIFEST.csv and the photos")
    parser.add_argument("--labels", type=Path, required=True, help="file written by tools.faces.teacher")
    parser.add_argument("--models", type=Path, help="models folder; by default the program's")
    parser.add_argument("--floats", type=Path, help="folder with landmark.keras and detector.keras")
    parser.add_argument("--pictures", type=Path, help="face-free pictures that were not trained on")
    parser.add_argument("--parts", nargs="+", default=["validation", "test"])
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--score-min", type=float, default=0.4)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    models = {
        "int8": [
            load_model(name, folder=options.models, engine=options.engine)
            for name in ("landmark", "detector")
        ]
    }
    if options.floats:
        models["float"] = [
            FloatModel(options.floats / f"{name}.keras", name) for name in ("landmark", "detector")
        ]
    pictures = load_pictures(options.pictures)
    draws = {"steady": steady_crop, "first": first_crop, "moving": moving_crop}
    figures: dict[str, Any] = {}
    for part in options.parts:
        faces = load_faces(options.photos, options.labels, part)
        for kind, (landmark, detector) in models.items():
            net = LandmarkNet(landmark)
            figures[f"{part} {kind}"] = {
                **{name: landmark_errors(net, faces, draw) for name, draw in draws.items()},
                "still": still_errors(Detector(detector, score_min=CONFIRMED_SCORE), net, faces),
                "detector": detector_figures(
                    detector, net, faces, pictures, count=options.scenes, score_min=options.score_min
                ),
            }
    text = json.dumps(figures, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
