"""The hand-crafted spotter finds what is plain to see, on rendered frames through the real face tracker."""

from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from edge.config import load
from edge.errors import ConfigError
from edge.frames.portrait import load_portrait, portrait_landmarks
from edge.frames.script import PlantedEvent, Script
from edge.frames.synthetic import SyntheticSource
from edge.inference.models import Models, load_models
from edge.records import ActionUnit, Frame
from tools.evaluate.classic import ClassicSpotter
from tools.evaluate.records import Answer

CALM = Script(micro_per_min=0, blink_per_min=0, head_motion=0.5, noise=2.0)
RATE_HZ = 200.0
SMILE = PlantedEvent("micro", 1.0, 1.06, 1.13, "happiness", (ActionUnit("AU12", "both", 1.0),), 0.02)


@pytest.fixture(scope="module")
def models() -> Iterator[Models]:
    models = load_models(load(None))
    yield models
    models.close()


def spot(models: Models, frames: Iterator[Frame], **settings: float) -> list[Answer]:
    spotter = ClassicSpotter(load(None), models, **({"rate_hz": RATE_HZ} | settings))
    for frame in frames:
        spotter.feed(frame)
    return spotter.finish()


def face(script: Script, *events: PlantedEvent, seconds: float = 1.6) -> Iterator[Frame]:
    source = SyntheticSource(
        load_portrait(), portrait_landmarks(), rate_hz=RATE_HZ, size=(320, 240), seconds=seconds, seed=5,
        script=script, face_px=110,
    )  # fmt: skip
    source.truth[:] = events
    source._onsets[:] = [event.onset_s for event in events]
    return source.frames()


def test_a_strong_micro_expression_of_a_calm_face_is_found_and_nothing_else(models: Models) -> None:
    (answer,) = spot(models, face(CALM, SMILE))
    common = min(answer.offset_s, SMILE.offset_s) - max(answer.onset_s, SMILE.onset_s)
    union = max(answer.offset_s, SMILE.offset_s) - min(answer.onset_s, SMILE.onset_s)
    assert common / union >= 0.5
    assert answer.apex_s == pytest.approx(SMILE.apex_s, abs=0.015)
    assert 0.004 < answer.intensity_iod < 0.02
    assert 0 < answer.score <= 1
    assert (answer.emotion, answer.confidence, answer.probabilities) == ("uncertain", 0.0, ())


def test_an_expression_that_stays_is_no_answer(models: Models) -> None:
    lasting = PlantedEvent("macro", 0.5, 1.1, 2.6, "happiness", SMILE.action_units, 0.03)
    assert spot(models, face(CALM, lasting)) == []


def test_a_still_noisy_face_gives_nothing(models: Models) -> None:
    still = Script(micro_per_min=0, blink_per_min=0, head_motion=0, noise=3.0)
    assert spot(models, face(still, seconds=1.0)) == []


def test_a_head_that_shifts_and_comes_back_gives_nothing(models: Models) -> None:
    portrait = cv2.GaussianBlur(load_portrait(), (0, 0), 1.0)

    def shifting() -> Iterator[Frame]:
        for number in range(200):
            phase = np.clip((number / RATE_HZ - 0.5) / 0.14, 0, 1)
            shift = 6.0 * (
                0.5 - 0.5 * np.cos(2 * np.pi * phase)
            )  # 4 % IOD, there and back as a micro-expression
            matrix = np.array([[1, 0, shift], [0, 1, shift / 2]])
            luma = cv2.warpAffine(
                portrait, matrix, portrait.shape[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
            )
            yield Frame(luma, round(number * 1e9 / RATE_HZ), number)

    assert spot(models, shifting()) == []


def test_without_a_face_or_with_too_few_frames_there_are_no_answers(models: Models) -> None:
    blank = np.full((240, 320), 90, np.uint8)
    assert spot(models, (Frame(blank, number * 5_000_000, number) for number in range(60))) == []
    assert spot(models, face(CALM, seconds=0.15)) == []
    assert spot(models, iter(())) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"rate_hz": 10.0},
            r"mean_duration_s = 0\.12 at rate_hz = 10: half of it is 0\.6 frames; at least 1",
        ),
        ({"rate_hz": 0.0}, "rate_hz = 0"),
        ({"mean_duration_s": float("nan")}, "mean_duration_s = nan"),
        ({"p": 1.5}, r"p = 1\.5: must be within 0 and 1"),
    ],
)
def test_settings_that_make_no_sense_are_named(
    models: Models, settings: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        spot(models, iter(()), **settings)
