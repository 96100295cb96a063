"""`microedge bench`: the yardstick is what it says, and the figures fit together."""

import contextlib
import io
import json
import logging
import math
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edge.__main__ import main
from edge.bench import machine
from edge.bench.yardstick import load_yardstick, make_yardstick
from edge.frames.portrait import load_portrait, portrait_landmarks
from edge.frames.replay import ReplaySource
from edge.frames.synthetic import SyntheticSource
from edge.inference.cpu import ENGINES

QUICK = ["bench", "--repeats", "2", "--seconds", "1", "--json"]


@pytest.fixture(scope="module")
def measured() -> Any:
    """A bench of the animated portrait; its output is what a user of `--json` reads."""
    return bench([])


def microedge(*arguments: str) -> int:
    """Give the command's exit code; what it sets of the process's log is set back, for other tests read theirs."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    try:
        return main(arguments)
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers


def bench(arguments: list[str]) -> Any:
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        assert microedge(*QUICK, *arguments) == 0
    return json.loads(text.getvalue())


def test_the_figures_that_are_promised_are_there_and_finite(measured: Any) -> None:
    for key in ("frames_per_second", "cpu_ms_per_frame", "yardstick_ms", "yardstick_multiple", "rss_mb"):
        assert math.isfinite(measured[key]), key
        assert measured[key] > 0, key
    assert set(measured["frame_ms"]) == {"p50", "p95", "p99", "max"}
    assert measured["dropped"] >= 0
    assert measured["machine"]["packages"]["numpy"] == np.__version__


def test_percentiles_rise_and_stages_add_up_to_the_path(measured: Any) -> None:
    for name, stage in measured["stages"].items():
        assert stage["p50"] <= stage["p95"] <= stage["p99"] <= stage["max"], name
    stages = measured["stages"]
    parts = sum(stage["mean"] for name, stage in stages.items() if name != "path")
    assert parts == pytest.approx(stages["path"]["mean"], rel=0.05)
    assert {"landmarks", "track", "motion", "spot", "event", "path"} <= set(stages)


def test_the_multiple_is_the_frames_cost_in_yardsticks(measured: Any) -> None:
    blocks = measured["blocks"]["multiple"]
    ratio = measured["cpu_ms_per_frame"] / measured["yardstick_ms"]
    # With two blocks a median is their mean, and the mean of ratios is near the ratio of means.
    assert measured["yardstick_multiple"] == pytest.approx(ratio, rel=0.25)
    assert blocks["low"] <= blocks["median"] <= blocks["high"]


def test_the_luma_is_copied_once_and_nothing_grows(measured: Any) -> None:
    assert measured["memory"]["copies_per_frame"] == 1
    assert abs(measured["memory"]["blocks_per_frame"]) < 0.5


def test_a_start_is_told_in_the_order_of_its_steps(measured: Any) -> None:
    start = measured["startup"]
    assert 0 < start["imported_s"] < start["models_s"] < start["first_frame_s"] < start["assessable_s"]
    assert measured["start_to_assessable_s"] == start["assessable_s"]


def test_a_recording_is_measured_as_well(tmp_path: Path) -> None:
    face = SyntheticSource(load_portrait(), portrait_landmarks(), seconds=1.5, rate_hz=60.0, seed=1)
    video = tmp_path / "face.mkv"
    with av.open(str(video), "w") as container:
        stream = container.add_stream("ffv1", rate=60, width=640, height=480, pix_fmt="gray")
        for frame in face.frames():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.luma, format="gray")))
        container.mux(stream.encode())
    result = bench([str(video), "--repeats", "1"])
    assert result["source"].startswith("face.mkv")
    assert result["rate_hz"] == pytest.approx(ReplaySource(video).nominal_rate_hz)
    assert result["frames"] == 200


def test_a_recording_without_a_face_is_measured_and_says_so(tmp_path: Path, capsys: Any) -> None:
    video = tmp_path / "wall.mkv"
    with av.open(str(video), "w") as container:
        stream = container.add_stream("ffv1", rate=60, width=160, height=120, pix_fmt="gray")
        for _ in range(30):
            grey = np.full((120, 160), 90, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="gray")))
        container.mux(stream.encode())
    assert microedge("bench", str(video), "--repeats", "1", "--seconds", "1") == 0
    told = capsys.readouterr().out
    assert "A face was followed in 0 % of the frames" in told
    assert "no frame could be assessed" in told


def test_a_peer_that_is_not_installed_is_one_line_that_says_how(capsys: Any) -> None:
    if find_spec("mediapipe") is not None:
        pytest.skip("mediapipe is installed here")
    assert microedge("bench", "--peer") == 1
    assert "pip install 'mediapipe==" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--seconds", "0"], "0: must be above 0"),
        (["--repeats", "0"], "0: must be 1..10000"),
        (["--rate", "fast"], "fast"),
    ],
)
def test_a_wrong_option_is_named_with_its_limit(arguments: list[str], told: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        microedge("bench", *arguments)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_a_rate_beyond_the_cameras_limits_is_refused_as_in_the_configuration(capsys: Any) -> None:
    assert microedge("bench", "--rate", "1000") == 2
    assert "camera.rate_hz" in capsys.readouterr().err


def test_a_recording_that_is_not_there_is_one_line(capsys: Any) -> None:
    assert microedge("bench", "nowhere.mkv") == 1
    assert "nowhere.mkv" in capsys.readouterr().err


def test_the_yardstick_has_the_operators_and_the_size_of_mobilenet_v2() -> None:
    content, macs = make_yardstick()
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    operators = Counter(
        names[model.operatorCodes[operator.opcodeIndex].builtinCode]
        for operator in model.subgraphs[0].operators
    )
    # Sandler et al. 2018: 300 million multiply-adds, 17 blocks with a depthwise convolution each, 10 residual.
    assert macs == pytest.approx(300e6, rel=0.01)
    assert operators["DEPTHWISE_CONV_2D"] == 17
    assert operators["CONV_2D"] == 35
    assert operators["ADD"] == 10
    assert operators["FULLY_CONNECTED"] == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_the_yardstick_runs_on_every_engine_and_its_signal_survives(engine: str) -> None:
    pytest.importorskip(ENGINES[engine])
    yardstick = load_yardstick(engine)
    picture = np.random.default_rng(0).integers(-128, 128, yardstick.input.shape, np.int8)
    (answer,) = yardstick.run(picture)
    assert answer.shape == (1, 1000)
    assert answer.std() > 0


def test_the_yardstick_is_the_same_at_each_call() -> None:
    first, _ = make_yardstick()
    make_yardstick.cache_clear()
    assert make_yardstick()[0] == first


def test_the_machine_is_named() -> None:
    here = machine.describe()
    assert here.cpu
    assert here.cores >= 1
    assert machine.resident_mb() > 10
