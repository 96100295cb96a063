"""Models are loaded whole or refused with a reason, and the engines agree."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.config import load
from edge.errors import ConfigError, ModelError
from edge.inference import Model, Tensor
from edge.inference.cpu import ENGINES, CpuModel, installed_engines
from edge.inference.manifest import MANIFEST, load_model, models_folder, read_manifest
from edge.inference.models import Models, load_models
from edge.inference.process import Isolation
from tools import passport

NAMES = sorted(read_manifest(models_folder()))
MOST_STEPS_APART = 12
"""Engines round differently inside; all but one in a hundred values of an output agree within so many int8 steps
(measured: 7; single ones, where the output means nothing, differ by 20)."""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A copy of the shipped models that a test may spoil."""
    return Path(shutil.copytree(models_folder(), tmp_path / "models"))


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def some_input(model: Model, seed: int) -> np.ndarray:
    """A smooth picture-like input: white noise would be unlike anything the model was made for."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 40, model.input.shape)
    for axis in range(1, noise.ndim):
        noise = np.cumsum(noise, axis=axis) / np.sqrt(noise.shape[axis])
    return np.clip(noise, -128, 127).astype(np.int8)


KINDS = (*ENGINES, "child", "edgetpu")


@pytest.fixture(params=KINDS)
def served(request: pytest.FixtureRequest, until: Callable[..., None]) -> Iterator[Models]:
    """The three models by each of the ways to run them: what follows holds for all."""
    kind = request.param
    if kind in ("child", "edgetpu"):
        isolation = Isolation(engine=installed_engines()[0]) if kind == "child" else None
        accelerator = "auto" if kind == "child" else kind
        try:
            models = load_models(
                load(None, [f"inference.accelerator={accelerator}", "inference.deadline_ms=1000"]),
                isolation=isolation,
            )
        except ConfigError as error:
            pytest.skip(f"no Coral here: {error}")
        until(lambda: models.status.state == "in use", "the child")
    elif kind in installed_engines():
        models = Models(*(load_model(name, engine=kind) for name in ("detector", "landmark", "spotter")))
    else:
        pytest.skip(f"{kind} is not installed here")
    yield models
    if kind in ("child", "edgetpu"):
        assert models.status.fallback_runs == 0, "the CPU answered in the place of what was to be tested"
    models.close()


def test_a_model_answers_with_the_tensors_of_its_passport(served: Models, name: str) -> None:
    passport_of = read_manifest(models_folder())[name]
    model: Model = getattr(served, name)
    outputs = model.run(some_input(model, 0))
    assert [output.shape for output in outputs] == [tensor.shape for tensor in passport_of.outputs]
    assert all(output.dtype == np.int8 for output in outputs)
    assert [tensor.name for tensor in model.outputs] == sorted(tensor.name for tensor in model.outputs)
    assert (model.name, model.sha256) == (name, passport_of.sha256)
    assert model.engine in (*ENGINES, "edgetpu")


def test_the_same_input_gives_the_same_output(served: Models, name: str) -> None:
    model: Model = getattr(served, name)
    values = some_input(model, 1)
    first = [output.copy() for output in model.run(values)]
    model.run(some_input(model, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, model.run(values), strict=True))


def test_models_in_turn_do_not_disturb_each_other(served: Models) -> None:
    models: list[Model] = [served.detector, served.landmark, served.spotter]
    inputs = [some_input(model, 4) for model in models]
    alone = [
        [output.copy() for output in model.run(values)] for model, values in zip(models, inputs, strict=True)
    ]
    for _ in range(3):
        for model, values, wanted in zip(models, inputs, alone, strict=True):
            assert all(map(np.array_equal, model.run(values), wanted))


def test_every_way_to_run_a_model_agrees_within_a_few_steps(served: Models, name: str) -> None:
    model, reference = getattr(served, name), load_model(name)
    values = some_input(reference, 2)
    for one, other in zip(model.run(values), reference.run(values), strict=True):
        assert np.percentile(np.abs(one.astype(np.int16) - other), 99) <= MOST_STEPS_APART


def test_an_input_of_another_shape_is_refused(served: Models, name: str) -> None:
    with pytest.raises(ValueError, match=r"(?i)dimension|shape"):
        getattr(served, name).run(np.zeros((1, 2, 3), np.int8))


@pytest.mark.skipif(len(installed_engines()) < 2, reason="only one engine is installed here")
def test_both_engines_agree_within_a_few_steps(name: str) -> None:
    loaded = [load_model(name, engine=engine) for engine in ENGINES]
    for seed in range(4):
        values = some_input(loaded[0], seed)
        for one, other in zip(*(model.run(values) for model in loaded), strict=True):
            apart = np.abs(one.astype(np.int16) - other.astype(np.int16))
            assert np.percentile(apart, 99) <= MOST_STEPS_APART
            assert apart.size < 16 or apart.mean() < 4.0


def test_litert_is_preferred_where_it_is_installed(name: str) -> None:
    assert load_model(name).engine == installed_engines()[0]


def test_an_unknown_engine_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ModelError, match="'gpu': expected auto or one of litert, tflite-runtime"):
        load_model(NAMES[0], engine="gpu")


def test_a_damaged_file_is_refused_with_both_hashes(models: Path, name: str) -> None:
    path = models / f"{name}.tflite"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(
        ModelError, match=rf"{name}.tflite is not the file of its passport.*expected \w+, found \w+"
    ):
        load_model(name, folder=models)


def test_swapped_files_are_refused(models: Path) -> None:
    shutil.copy(models / f"{NAMES[0]}.tflite", models / f"{NAMES[1]}.tflite")
    with pytest.raises(ModelError, match="not the file of its passport"):
        load_model(NAMES[1], folder=models)


def test_an_absent_file_is_named(models: Path, name: str) -> None:
    (models / f"{name}.tflite").unlink()
    with pytest.raises(ModelError, match=rf"model {name}: .*{name}.tflite: No such file"):
        load_model(name, folder=models)


def test_an_unknown_model_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"no model 'nose'; it lists \w+"):
        load_model("nose")


def test_a_folder_without_a_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"no {MANIFEST} in {tmp_path}"):
        load_model(NAMES[0], folder=tmp_path)


def test_tensors_that_differ_from_the_passport_are_refused(models: Path, name: str) -> None:
    manifest = models / MANIFEST
    text = manifest.read_text()
    start = text.index(f"[{name}]")
    manifest.write_text(text[:start] + text[start:].replace("scale = ", "scale = 1", 1))
    with pytest.raises(ModelError, match=r"tensors expected .* found"):
        load_model(name, folder=models)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda text: text.replace("sha256", "sha265"), "lacks or misstates 'sha256'"),
        (lambda text: text + "\n[", "not a TOML file"),
        (lambda text: text.replace("shape = [1, ", 'shape = ["one", '), "lacks or misstates"),
    ],
)
def test_a_spoiled_manifest_is_refused(models: Path, spoil: Callable[[str], str], reason: str) -> None:
    manifest = models / MANIFEST
    manifest.write_text(spoil(manifest.read_text()))
    with pytest.raises(ModelError, match=reason):
        load_model(NAMES[0], folder=models)


@pytest.mark.parametrize("engine", installed_engines())
@pytest.mark.parametrize("content", [b"", b"TFL3", b"\x00" * 400, b"\x7fELF" * 100])
def test_bytes_that_are_no_model_are_refused(engine: str, content: bytes) -> None:
    with pytest.raises(ModelError, match="model noise: not a TensorFlow Lite file"):
        CpuModel(content, name="noise", sha256="", engine=engine)


def test_quantizing_and_back_is_off_by_half_a_step_at_most() -> None:
    tensor = Tensor("x", (1, 256), 0.02, -5)
    real = np.linspace(-2.4, 2.6, 256, dtype=np.float32)
    assert np.abs(tensor.dequantize(tensor.quantize(real)) - real).max() <= 0.0101


def test_values_beyond_the_range_saturate() -> None:
    tensor = Tensor("x", (1, 2), 0.02, 0)
    assert tensor.quantize(np.array([-99, 99], np.float32)).tolist() == [-128, 127]


def test_a_passport_written_again_keeps_its_words(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_manifest(models)
    path = models / f"{NAMES[0]}.tflite"
    monkeypatch.setattr("sys.argv", ["passport", str(path), "--about", 'limits=says "no"\nto masks'])
    assert passport.main() == 0
    after = read_manifest(models)
    assert after[NAMES[0]].about == {**before[NAMES[0]].about, "limits": 'says "no"\nto masks'}
    assert {name: after[name] for name in NAMES[1:]} == {name: before[name] for name in NAMES[1:]}
    load_model(NAMES[0], folder=models).close()
