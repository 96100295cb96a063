"""Every model that ships can go to the Edge TPU, as far as that can be told without its compiler."""

import re
import tomllib
from pathlib import Path
from typing import Any

import flatbuffers
import pytest
from ai_edge_litert import schema_py_generated as schema

from edge.inference.manifest import models_folder, read_manifest
from tools.edgetpu_check import OPERATORS, complaint_together, complaints, main, weight_bytes

FOLDER = models_folder()
FILES = sorted(FOLDER.glob("*.tflite"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_model_keeps_the_rules_of_the_edge_tpu(path: Path) -> None:
    assert complaints(path.read_bytes()) == []


def test_every_model_file_has_a_passport_and_every_passport_a_file() -> None:
    assert {path.name for path in FILES} == {passport.file for passport in read_manifest(FOLDER).values()}


@pytest.mark.parametrize("name", sorted(read_manifest(FOLDER)))
def test_a_passport_says_what_the_model_learned_from_and_where_it_fails(name: str) -> None:
    about = read_manifest(FOLDER)[name].about
    missing = {"purpose", "licence", "trained_on", "measured", "limits"} - {
        key for key in about if about[key]
    }
    assert not missing


def test_all_models_together_fit_the_memory_of_the_edge_tpu() -> None:
    sizes = {path.stem: weight_bytes(path.read_bytes()) for path in FILES}
    assert complaint_together(sizes) == ""
    # All but the graph's description, which is small.
    for path in FILES:
        assert 0.5 * path.stat().st_size < sizes[path.stem] < path.stat().st_size


def test_models_too_large_together_are_named_with_their_sizes() -> None:
    sizes = {"one": 4 * 2**20, "other": round(3.8 * 2**20)}
    assert "7.80 MiB of weights, more than the 7.7 MiB" in complaint_together(sizes)
    assert "one 4.00, other 3.80" in complaint_together(sizes)
    assert complaint_together({"one": 4 * 2**20}) == ""


def test_the_checker_says_how_full_the_memory_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["edgetpu_check", *map(str, FILES)])
    assert main() == 0
    assert re.search(r"together: 0\.\d\d of 7\.7 MiB on the chip: ok", capsys.readouterr().out)
    monkeypatch.setattr("tools.edgetpu_check.MEMORY_BYTES", 200_000)
    assert main() == 1
    assert "more than the 0.2 MiB on the chip" in capsys.readouterr().out


def test_every_allowed_operator_names_a_source_that_is_listed() -> None:
    table = tomllib.loads(OPERATORS.read_text())
    assert {entry["source"] for entry in table["operators"].values()} <= table["sources"].keys()


def packed(model: Any) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.fixture
def model() -> Any:
    return schema.ModelT.InitFromPackedBuf(FILES[0].read_bytes(), 0)


def test_a_sound_model_is_still_sound_after_being_written_again(model: Any) -> None:
    assert complaints(packed(model)) == []


def test_a_float_input_is_named(model: Any) -> None:
    graph = model.subgraphs[0]
    graph.tensors[graph.inputs[0]].type = schema.TensorType.FLOAT32
    assert any("is FLOAT32, expected INT8" in sentence for sentence in complaints(packed(model)))


def test_a_batch_of_two_is_named(model: Any) -> None:
    graph = model.subgraphs[0]
    graph.tensors[graph.outputs[0]].shape = [2, *graph.tensors[graph.outputs[0]].shape[1:]]
    assert any("expected batch 1" in sentence for sentence in complaints(packed(model)))


def test_a_free_dimension_is_named(model: Any) -> None:
    graph = model.subgraphs[0]
    graph.tensors[graph.inputs[0]].shapeSignature = [-1, 128, 128, 1]
    assert any("free dimension" in sentence for sentence in complaints(packed(model)))


def test_an_operator_version_that_was_never_seen_compiled_is_named(model: Any) -> None:
    model.operatorCodes[0].version = 99
    assert any("has version 99" in sentence for sentence in complaints(packed(model)))


def test_an_operator_that_stays_on_the_cpu_is_named(model: Any) -> None:
    model.operatorCodes[0].builtinCode = model.operatorCodes[0].deprecatedBuiltinCode = (
        schema.BuiltinOperator.ARG_MAX
    )
    assert any("operator ARG_MAX is not known to map" in sentence for sentence in complaints(packed(model)))


def test_weights_with_a_scale_per_channel_are_named_for_fully_connected(model: Any) -> None:
    codes, graph = model.operatorCodes, model.subgraphs[0]
    convolution = next(
        operator
        for operator in graph.operators
        if codes[operator.opcodeIndex].builtinCode == schema.BuiltinOperator.CONV_2D
    )
    code = codes[convolution.opcodeIndex]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    assert any("scales, expected 1" in sentence for sentence in complaints(packed(model)))


def test_a_file_that_is_no_model_is_said_to_be_none() -> None:
    assert complaints(b"not a model") == complaints(b"not a model")
    assert complaints(b"not a model")[0].startswith("not a model file")
