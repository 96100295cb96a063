"""Train the spotter and write it as an int8 model.

    python -m tools.spotter.train --signals DIR [DIR ...] --validation DIR --out DIR [--epochs 40]

The folders hold clips of tools.simulate.signals and tools.simulate.tabulated; nobody of the validation folder is
in the others. A checkpoint is written after each epoch and taken up again by the next call; seeds are fixed.
Beside the model, `metrics.json` and `training.png` tell how it went and what quantisation cost.
"""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import tensorflow as tf
from matplotlib import pyplot

from edge.evidence import OUTPUTS, WINDOW, encode
from edge.inference.cpu import CpuModel
from tools.spotter.material import Windows, read_all
from tools.spotter.net import build, to_int8

_BATCH = 64
_JUDGED = slice(104, 124)
"""Window positions whose loss counts in full: those that the device looks at, and a few around them."""
_ELSEWHERE = 0.3
_IMPORTANCE = np.full(WINDOW, _ELSEWHERE, np.float32)
_IMPORTANCE[_JUDGED] = 1.0


def main() -> None:
    """Train, quantise, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--signals", type=Path, nargs="+", required=True)
    parser.add_argument("--validation", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--windows", type=int, default=16000, help="per epoch")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    tf.keras.utils.set_random_seed(1)
    clips, others = read_all(options.signals), read_all([options.validation])
    if shared := {clip.subject for clip in clips} & {clip.subject for clip in others}:
        parser.error(f"--validation {options.validation}: {sorted(shared)[:3]} are in --signals as well")
    training, held_out = Windows(clips, seed=1), Windows(others, seed=2)
    check = _inputs_and_labels(held_out.draw(4000, 0, augment=False))

    model = build()
    steps = options.epochs * (options.windows // _BATCH)
    optimizer = tf.keras.optimizers.AdamW(
        tf.keras.optimizers.schedules.CosineDecay(2e-3, steps, alpha=0.01), weight_decay=1e-3
    )
    history: list[dict[str, float]] = []
    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer)
    manager = tf.train.CheckpointManager(checkpoint, options.out / "checkpoint", max_to_keep=1)
    log = options.out / "history.json"
    if manager.latest_checkpoint:
        checkpoint.restore(manager.latest_checkpoint)
        history = json.loads(log.read_text())

    @tf.function
    def step(motion: tf.Tensor, labels: dict[str, tf.Tensor]) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = _loss(model(motion, training=True), labels)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    for epoch in range(len(history), options.epochs):
        motion, labels = _inputs_and_labels(training.draw(options.windows, epoch))
        losses = [
            float(
                step(
                    motion[at : at + _BATCH],
                    {name: values[at : at + _BATCH] for name, values in labels.items()},
                )
            )
            for at in range(0, len(motion) - _BATCH + 1, _BATCH)
        ]
        scores = _scores(_predict(model, check[0]), check[1])
        history.append({"loss": float(np.mean(losses)), **scores})
        print(epoch, json.dumps({name: round(value, 4) for name, value in history[-1].items()}), flush=True)
        manager.save()
        log.write_text(json.dumps(history))

    examples, _ = _inputs_and_labels(training.draw(400, 10_000))
    (options.out / "spotter.tflite").write_bytes(to_int8(model, examples[:, 0]))
    report = {
        "float": _scores(_predict(model, check[0]), check[1]),
        "int8": _scores(_predict_int8(options.out / "spotter.tflite", check[0]), check[1]),
    }
    (options.out / "metrics.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))
    _plot(history, options.out / "training.png")


def _inputs_and_labels(windows: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    labels = {name: windows[name] for name in ("phase", "emotion", "units", "confusers", "peak")}
    for name in ("emotion", "units", "confusers"):
        labels[name] = labels[name][:, ::2]  # these heads give one value for two steps
    return encode(windows["motion"])[:, None], labels


def _loss(outputs: dict[str, tf.Tensor], labels: dict[str, tf.Tensor]) -> tf.Tensor:
    def binary(name: str) -> tf.Tensor:
        entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels[name], outputs[name][:, 0])
        step = _IMPORTANCE if entropy.shape[1] == WINDOW else _IMPORTANCE[::2]
        return tf.reduce_mean(step[:, None] * entropy, axis=(0, 1))

    moments, inside = tf.split(binary("phase"), [3, 1])
    kinds = labels["emotion"]
    # Confusers teach "other", but the seven words are what the head is for.
    weight = tf.where(kinds < 0, 0.0, tf.where(kinds == 7, 0.15, 1.0)) * _IMPORTANCE[::2]
    emotion = tf.nn.sparse_softmax_cross_entropy_with_logits(
        tf.cast(tf.maximum(kinds, 0), tf.int32), outputs["emotion"][:, 0], name=None
    )
    emotion = tf.reduce_sum(weight * emotion) / (tf.reduce_sum(weight) + 1.0)
    return (
        2.0 * tf.reduce_sum(moments)
        + 2.0 * tf.reduce_sum(inside)
        + 0.15 * emotion
        + 0.5 * tf.reduce_mean(binary("units"))
        + 0.25 * tf.reduce_mean(binary("confusers"))
    )


def _predict(model: tf.keras.Model, motion: np.ndarray) -> dict[str, np.ndarray]:
    parts = [model(motion[at : at + 500], training=False) for at in range(0, len(motion), 500)]
    return {name: np.concatenate([part[name].numpy()[:, 0] for part in parts]) for name in OUTPUTS}


def _predict_int8(path: Path, motion: np.ndarray) -> dict[str, np.ndarray]:
    content = path.read_bytes()
    model = CpuModel(content, name="spotter", sha256=hashlib.sha256(content).hexdigest())
    which = {output.shape[-1]: number for number, output in enumerate(model.outputs)}
    results: dict[str, list[np.ndarray]] = {name: [] for name in OUTPUTS}
    for window in motion:
        outputs = model.run(model.input.quantize(window[None]))
        for name, width in OUTPUTS.items():
            number = which[width]
            results[name].append(model.outputs[number].dequantize(outputs[number])[0, 0].copy())
    return {name: np.stack(values) for name, values in results.items()}


def _scores(outputs: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> dict[str, float]:
    """Give step-wise figures of where the device looks: average precision of `inside`, accuracy of the emotion."""
    seen, half = _JUDGED, slice(_JUDGED.start // 2, _JUDGED.stop // 2)
    inside = outputs["phase"][:, seen, 3].ravel()
    truth = labels["phase"][:, seen, 3].ravel() > 0.5
    strong = labels["peak"][:, seen].ravel() >= 0.01
    kinds = labels["emotion"][:, half].ravel()
    known = (kinds >= 0) & (kinds < 7)
    right = (
        outputs["emotion"][:, half].reshape(-1, outputs["emotion"].shape[-1])[known].argmax(axis=1)
        == kinds[known]
    )
    return {
        "average_precision": _average_precision(inside, truth),
        "average_precision_1pc": _average_precision(inside[~truth | strong], truth[~truth | strong]),
        "emotion_accuracy": float(right.mean()),
    }


def _average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    order = np.argsort(-scores, kind="stable")
    hits = truth[order]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean())


def _plot(history: list[dict[str, float]], path: Path) -> None:
    figure, axes = pyplot.subplots(1, len(history[0]), figsize=(4 * len(history[0]), 3))
    for axis, name in zip(axes, history[0], strict=True):
        axis.plot([row[name] for row in history])
        axis.set_title(name)
        axis.set_xlabel("epoch")
    figure.tight_layout()
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
