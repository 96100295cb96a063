"""What training is fed, and how probabilities are made honest; the training itself is `tools.spotter.train`."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from edge.evidence import CONFUSERS, INPUTS, KINDS, STEP_NS, UNITS, WINDOW
from edge.inference.manifest import load_model, models_folder, read_manifest
from edge.regions import CHANNELS
from tools import passport
from tools.spotter import calibrate, material


def planted(**changes: object) -> dict[str, object]:
    event = {
        "kind": "micro",
        "onset_s": 2.0,
        "apex_s": 2.05,
        "offset_s": 2.12,
        "emotion": "disgust",
        "action_units": [["AU9", "both"], ["AU14", "left"]],
        "peak_iod": 0.012,
    }
    return event | changes


def store(
    folder: Path, *, rate_hz: float = 200.0, seconds: float = 4.0, truth: list[dict[str, object]]
) -> Path:
    """Write a clip whose first channel is the time itself."""
    times = np.arange(0, seconds, 1 / rate_hz)
    values = np.zeros((len(times), len(CHANNELS)), np.float16)
    values[:, 0] = times
    path = folder / "clip_00000.npz"
    np.savez(path, times_s=times, values=values, rate_hz=rate_hz, truth=json.dumps(truth), subject="made up")
    return path


def test_a_window_holds_consecutive_steps_and_labels_at_their_times(tmp_path: Path) -> None:
    clip = material.read(store(tmp_path, truth=[planted()]))
    drawn = material.Windows([clip], seed=3).draw(60, 0, augment=False)
    assert drawn["motion"].shape == (60, WINDOW, len(INPUTS))
    for motion, phase, emotion, peak in zip(
        drawn["motion"], drawn["phase"], drawn["emotion"], drawn["peak"], strict=True
    ):
        times = motion[:, 0]
        np.testing.assert_allclose(np.diff(times), STEP_NS * 1e-9, atol=2e-3)  # float16 holds 2 s to 2 ms
        inside = (times > 2.003) & (times < 2.117)
        assert phase[inside, 3].all()
        assert not phase[(times < 1.99) | (times > 2.13), 3].any()
        assert (emotion[inside] == KINDS.index("disgust")).all()
        assert peak[inside] == pytest.approx(0.012)


def test_one_sided_units_are_labelled_on_their_side_and_two_sided_ones_on_both(tmp_path: Path) -> None:
    clip = material.read(store(tmp_path, truth=[planted()]))
    drawn = material.Windows([clip], seed=3).draw(40, 0, augment=False)
    seen = {UNITS[number] for number in np.flatnonzero(drawn["units"].any(axis=(0, 1)))}
    assert seen == {("AU9", "right"), ("AU9", "left"), ("AU14", "left")}


def test_a_micro_expression_too_short_for_the_rate_is_not_asked_for(tmp_path: Path) -> None:
    clip = material.read(store(tmp_path, rate_hz=30.0, truth=[planted(offset_s=2.09)]))
    drawn = material.Windows([clip], seed=3).draw(40, 0, augment=False)
    assert not drawn["phase"].any()


@pytest.mark.parametrize(
    ("kind", "confuser"),
    [
        ("blink", "blink"),
        ("swallow", "speech"),
        ("vibration", "head turn"),
        ("brow flash", "macro-expression"),
    ],
)
def test_each_planted_kind_teaches_its_confuser(tmp_path: Path, kind: str, confuser: str) -> None:
    truth = [planted(kind=kind, emotion="", action_units=[])]
    drawn = material.Windows([material.read(store(tmp_path, truth=truth))], seed=3).draw(40, 0, augment=False)
    assert np.flatnonzero(drawn["confusers"].any(axis=(0, 1))).tolist() == [CONFUSERS.index(confuser)]
    assert not drawn["phase"].any()


def test_the_same_seed_and_epoch_draw_the_same_windows(tmp_path: Path) -> None:
    clip = material.read(store(tmp_path, truth=[planted()]))
    one, same, other = (material.Windows([clip], seed=3).draw(8, epoch)["motion"] for epoch in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_mirroring_twice_gives_the_same_motion() -> None:
    values = np.random.default_rng(0).standard_normal((5, len(CHANNELS))).astype(np.float32)
    once = values[:, material.MIRROR] * material.SIGN
    np.testing.assert_array_equal(once[:, material.MIRROR] * material.SIGN, values)
    assert not np.array_equal(once, values)


def test_a_folder_without_clips_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="empty"):
        material.read_all([tmp_path / "empty"])


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 2.5])
def test_the_fitted_temperature_is_the_one_that_the_outcomes_were_drawn_with(true_temperature: float) -> None:
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 2, (4000, 8))
    honest = np.exp(logits / true_temperature)
    honest /= honest.sum(axis=1, keepdims=True)
    right = np.array([rng.choice(8, p=row) for row in honest])
    said = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert calibrate.temperature(said, right) == pytest.approx(true_temperature, rel=0.1)


def test_calibration_travels_from_the_passport_to_the_model_and_goes_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "models"
    shutil.copytree(models_folder(), folder)
    passports = read_manifest(folder)
    spotter = passports["spotter"]
    passports["spotter"] = type(spotter)(
        *(getattr(spotter, name) for name in ("name", "file", "sha256", "input", "outputs", "about")),
        calibration={"emotion_temperature": 1.25},
    )
    (folder / "manifest.toml").write_text(passport.as_toml(passports), encoding="utf-8")
    model = load_model("spotter", folder=folder)
    assert model.calibration == {"emotion_temperature": 1.25}
    model.close()

    monkeypatch.setattr(sys, "argv", ["passport", str(folder / "spotter.tflite")])
    assert passport.main() == 0
    assert read_manifest(folder)["spotter"].calibration == {"emotion_temperature": 1.25}
    shutil.copy(folder / "detector.tflite", folder / "spotter.tflite")
    assert passport.main() == 0
    assert read_manifest(folder)["spotter"].calibration == {}
