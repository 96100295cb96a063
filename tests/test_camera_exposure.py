"""How an exposure is divided into time and gain, for the rate, the lamps and the light there are."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.frames.exposure import ExposureLock, Limits, Wish, divide, longest_us

LIMITS = Limits((29.0, math.inf), (1.0, 10.67))


@pytest.mark.parametrize(
    ("rate_hz", "mains_hz", "total_us", "exposure_us", "half_periods"),
    [
        (60, 50, 12_000, 10_000, 1),
        (90, 50, 30_000, 10_000, 1),
        (97, 50, 30_000, 10_000, 1),
        (100, 50, 30_000, 9_700, 0),  # the last rates at which lamps flicker no more are a little lower
        (100, 60, 30_000, 8_333, 1),
        (30, 50, 100_000, 30_000, 3),
        (30, 60, 100_000, 25_000, 3),
        (200, 50, 12_000, 4_850, 0),
        (200, 60, 12_000, 4_850, 0),
        (309, 50, 12_000, 3_139, 0),
        (60, 0, 30_000, 16_167, 0),  # daylight: as long as a frame allows
        (60, 50, 4_000, 4_000, 0),  # so bright that a half-period would overexpose
        (60, 50, 10, 29, 0),
    ],
)
def test_an_exposure_is_as_long_as_a_frame_allows_in_whole_half_periods_of_the_mains(
    rate_hz: float, mains_hz: int, total_us: float, exposure_us: int, half_periods: int
) -> None:
    exposure = divide(total_us, Wish(rate_hz, mains_hz), LIMITS)
    assert (exposure.exposure_us, exposure.half_periods) == (exposure_us, half_periods)


@given(total_us=st.floats(30, 50_000), rate_hz=st.floats(10, 400), mains_hz=st.sampled_from((0, 50, 60)))
def test_brightness_stays_wherever_the_sensors_limits_allow(
    total_us: float, rate_hz: float, mains_hz: int
) -> None:
    exposure = divide(total_us, Wish(rate_hz, mains_hz), LIMITS)
    assert exposure.exposure_us <= longest_us(rate_hz) + 0.5
    assert 1.0 <= exposure.gain <= 10.67
    if total_us <= longest_us(rate_hz) * 10:
        assert exposure.brightness == pytest.approx(1, rel=0.001)
        assert exposure.exposure_us * exposure.gain == pytest.approx(total_us, rel=0.03)
    else:
        assert exposure.brightness <= 1.001


def test_a_fixed_exposure_or_gain_is_taken_and_the_other_follows() -> None:
    exposure = divide(12_000, Wish(200, 50, exposure_us=2_000), LIMITS)
    assert (exposure.exposure_us, exposure.gain) == (2_000, 6.0)
    exposure = divide(12_000, Wish(200, 50, gain=4.0), LIMITS)
    assert (exposure.exposure_us, exposure.gain) == (3_000, 4.0)
    exposure = divide(12_000, Wish(200, 50, exposure_us=1_000, gain=2.0), LIMITS)
    assert (exposure.exposure_us, exposure.gain) == (1_000, 2.0)
    assert exposure.brightness == pytest.approx(1 / 6)


def lock(wish: Wish) -> ExposureLock:
    return ExposureLock({"ExposureTime": (29, 0, 0), "AnalogueGain": (1.0, 10.67, 1.0)}, wish)


def settled(subject: ExposureLock, metadata: dict[str, float], frames: int = 200) -> int:
    """Show the same frame again and again; give after how many the exposure was locked."""
    for count in range(frames):
        if subject.is_settled:
            return count
        for name, value in subject.step(metadata, 128.0).items():
            if name in ("ExposureTime", "AnalogueGain"):
                metadata[name] = value  # type: ignore[assignment]
    raise AssertionError(f"not locked within {frames} frames")


@pytest.mark.parametrize("says", [{"AeState": 2}, {"AeLocked": True}, {}])
def test_a_steady_exposure_is_locked_soon_whatever_words_the_library_has_for_it(
    says: dict[str, float],
) -> None:
    subject = lock(Wish(100))
    assert settled(subject, {"ExposureTime": 8_000, "AnalogueGain": 2.0, **says}) < 12
    assert subject.exposure is not None
    assert subject.exposure.exposure_us == 9_700
    assert subject.warnings == []


def test_an_exposure_that_never_settles_is_locked_where_it_is() -> None:
    assert settled(lock(Wish(100)), {"ExposureTime": 8_000, "AnalogueGain": 2.0, "AeState": 1}) < 125


def test_a_camera_that_does_not_tell_how_it_exposes_is_used_and_says_so() -> None:
    subject = lock(Wish(100))
    settled(subject, {})
    assert subject.warnings == ["the camera does not tell how it exposes; its exposure is not locked"]


def test_wishes_beyond_the_sensor_are_named_with_the_limit() -> None:
    subject = lock(Wish(200, exposure_us=8_000, gain=50.0))
    settled(subject, {"ExposureTime": 8_000, "AnalogueGain": 2.0, "AeState": 2})
    assert subject.warnings == [
        "camera.exposure_us = 8000: at 200 frames/s at most 4850",
        "camera.gain = 50: the sensor's gain goes from 1 to 10.7",
    ]


def test_a_hand_before_the_lens_changes_nothing_and_dusk_does() -> None:
    subject = lock(Wish(100))
    metadata: dict[str, float] = {"ExposureTime": 8_000, "AnalogueGain": 2.0, "AeState": 2}
    settled(subject, metadata)
    assert not any(subject.step(metadata, 5.0) for _ in range(500))
    assert not any(subject.step(metadata, 100.0) for _ in range(500))
    assert not any(subject.step(metadata, 5.0) for _ in range(999))
    assert subject.step(metadata, 5.0)["ExposureTime"] == 0
    assert not subject.is_settled
