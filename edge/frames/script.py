"""What happens in a synthetic stream: planned from a seed before the first frame is drawn."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from edge.emotions import table
from edge.records import EMOTIONS, ActionUnit

Kind = Literal["micro", "blink", "speech", "macro", "head turn", "light"]


@dataclass(frozen=True, slots=True)
class PlantedEvent:
    """One thing that truly happens, with its times in seconds of media time."""

    kind: Kind
    onset_s: float
    """First instant that leaves neutral."""
    apex_s: float
    """Instant of the greatest movement (speech, with its many openings: some instant within)."""
    offset_s: float
    """Back at neutral (a light change: when the new level is reached)."""
    emotion: str | None = None
    """One of EMOTIONS for micro- and macro-expressions, else None."""
    action_units: tuple[ActionUnit, ...] = ()
    """`score` is the strength relative to the strongest unit of the event."""
    peak_iod: float = 0.0
    """Largest displacement of any point of the skin, in IOD. A blink: the share of the eye that closes."""
    change: float = 0.0
    """Head turn: yaw in degrees, positive to the subject's left. Light: change of brightness as a ratio."""


@dataclass(frozen=True, slots=True)
class Script:
    """How much of what happens. The default is a calm demonstration."""

    micro_per_min: float = 20.0
    micro_duration_ms: tuple[float, float] = (40.0, 200.0)
    """Onset to offset, drawn evenly on a logarithmic scale."""
    micro_peak_iod: tuple[float, float] = (0.012, 0.025)
    emotions: tuple[str, ...] = EMOTIONS
    blink_per_min: float = 8.0
    speech_per_min: float = 0.0
    macro_per_min: float = 0.0
    head_turn_per_min: float = 0.0
    light_per_min: float = 0.0
    head_motion: float = 1.0
    """Size of the never-ending small head motion; 1 is a person sitting still (2 degrees of yaw rms)."""
    noise: float = 2.0
    """Sensor noise at mid-grey, standard deviation in grey levels; half of its variance is shot noise."""
    flicker: float = 0.0
    """Amplitude of mains flicker as a ratio of the brightness (lamps that the exposure does not average)."""
    mains_hz: float = 50.0
    lost_frames: float = 0.0
    """Share of frames that the imagined sensor loses; they show as jumps of `Frame.sequence`."""
    apart_s: float = 0.35
    """Least time between two planted events; a negative value lets them overlap."""
    quiet_start_s: float = 2.0
    """Nothing is planted before, so that a pipeline can find the face and warm up."""


_TRIES = 12
"""Places to try for an event that would run into others, before it is left out."""

DEMO = Script()
"""A micro-expression about every 3 s, some blinks, gentle head motion."""

HARD = Script(
    micro_per_min=12.0, micro_peak_iod=(0.01, 0.025), blink_per_min=14.0, speech_per_min=5.0,
    macro_per_min=4.0, head_turn_per_min=4.0, light_per_min=3.0, flicker=0.01,
)  # fmt: skip
"""All confusers together, at about the rates of a lively conversation."""


def plan(script: Script, seconds: float, seed: int) -> list[PlantedEvent]:
    """Give the events of a stream in order of onset; the same arguments give the same events.

    Micro-expressions are placed first, at even gaps with 30 % jitter; the others take what is left, so
    crowded scripts hold fewer confusers than asked for.
    """
    random = np.random.default_rng([seed, 1])
    events: list[PlantedEvent] = []
    makers = (
        (script.micro_per_min, _micro),
        (script.speech_per_min, _speech),
        (script.macro_per_min, _macro),
        (script.head_turn_per_min, _head_turn),
        (script.light_per_min, _light),
        (script.blink_per_min, _blink),
    )
    for per_min, make in makers:
        gap_s = 60.0 / per_min if per_min > 0 else 0.0
        slots = int((seconds - script.quiet_start_s) / gap_s + 0.5) if per_min > 0 else 0
        for slot in range(slots):
            for _ in range(_TRIES):
                onset_s = script.quiet_start_s + gap_s * (slot + random.uniform(0.0, 0.6))
                event = make(onset_s, script, random)
                fits = event.offset_s < seconds - 0.1
                if fits and all(_apart(event, other, script.apart_s) for other in events):
                    events.append(event)
                    break
    return _bounded_light(sorted(events, key=lambda event: event.onset_s))


def course(event: PlantedEvent, time_s: float) -> float:
    """Give how far an event has gone at a time, 0 (neutral) to 1 (apex): raised cosines up and down."""
    if not event.onset_s < time_s < event.offset_s:
        return 0.0
    if time_s <= event.apex_s:
        phase = (time_s - event.onset_s) / (event.apex_s - event.onset_s)
    else:
        phase = (event.offset_s - time_s) / (event.offset_s - event.apex_s)
    if event.kind in ("macro", "head turn"):
        # Held: the cosine is over after two thirds of the way to the apex.
        phase = min(phase * 1.5, 1.0)
    return float(0.5 - 0.5 * np.cos(np.pi * phase))


def speech_course(event: PlantedEvent, time_s: float) -> tuple[float, float]:
    """Give how wide the mouth is open, 0..1, and how much it is stretched, -0.4..0.4, while a person speaks.

    Four to five openings a second, the rate of syllables in English (about 4 Hz; Greenberg 2003).
    """
    if not event.onset_s < time_s < event.offset_s:
        return 0.0, 0.0
    since_s, left_s = time_s - event.onset_s, event.offset_s - time_s
    fade = min(since_s / 0.12, left_s / 0.12, 1.0)
    fade = 0.5 - 0.5 * np.cos(np.pi * fade)
    # The onset serves as the seed: the same event always says the same.
    phase = event.onset_s * 7.0
    opening = np.sin(np.pi * 4.5 * since_s + 0.8 * np.sin(2 * np.pi * 1.1 * since_s + phase)) ** 2
    stress = 0.65 + 0.35 * np.sin(2 * np.pi * 1.7 * since_s + phase)
    stretch = 0.4 * np.sin(2 * np.pi * 2.1 * since_s + 2 * phase)
    return float(fade * opening * stress), float(fade * stretch)


def _apart(one: PlantedEvent, other: PlantedEvent, least_s: float) -> bool:
    return one.onset_s - other.offset_s >= least_s or other.onset_s - one.offset_s >= least_s


def _bounded_light(events: list[PlantedEvent]) -> list[PlantedEvent]:
    """Turn light changes round where the brightness would leave 0.8 to 1.2 of the start."""
    brightness = 1.0
    bounded = []
    for event in events:
        if event.kind == "light":
            too_far = not 0.8 <= brightness * (1 + event.change) <= 1.2
            bounded.append(replace(event, change=-event.change) if too_far else event)
            brightness *= 1 + bounded[-1].change
        else:
            bounded.append(event)
    return bounded


def _micro(onset_s: float, script: Script, random: np.random.Generator) -> PlantedEvent:
    low, high = np.log(script.micro_duration_ms)
    duration_s = float(np.exp(random.uniform(low, high))) / 1000.0
    apex_s = onset_s + duration_s * random.uniform(0.35, 0.6)
    emotion, units = _expression(script.emotions, random, one_sided=0.15)
    peak = random.uniform(*script.micro_peak_iod)
    return PlantedEvent("micro", onset_s, apex_s, onset_s + duration_s, emotion, units, peak)


def _macro(onset_s: float, script: Script, random: np.random.Generator) -> PlantedEvent:
    duration_s = random.uniform(0.8, 2.5)
    apex_s = onset_s + duration_s * random.uniform(0.35, 0.5)
    emotion, units = _expression(script.emotions, random, one_sided=0.05)
    return PlantedEvent(
        "macro", onset_s, apex_s, onset_s + duration_s, emotion, units, random.uniform(0.03, 0.06)
    )


def _expression(
    emotions: tuple[str, ...], random: np.random.Generator, one_sided: float
) -> tuple[str, tuple[ActionUnit, ...]]:
    """Draw an emotion, one of its sets, a side and the strengths of its units."""
    known = table()
    emotion = emotions[int(random.integers(len(emotions)))]
    sets = known.prototypes[emotion]
    chosen = sets[int(random.integers(len(sets)))]
    side = "both"
    # A set that means contempt on one side must not be drawn there for another emotion.
    has_rival = any(shared in known.prototypes[name] for name in known.one_sided for shared in sets)
    if emotion in known.one_sided or (not has_rival and random.random() < one_sided):
        side = "right" if random.random() < 0.5 else "left"
    strengths = random.uniform(0.6, 1.0, len(chosen))
    strengths[int(random.integers(len(chosen)))] = 1.0
    # Lips part and jaw drop cannot be one-sided.
    units = tuple(
        ActionUnit(au, "both" if au in ("AU25", "AU26") else side, float(strength))
        for au, strength in zip(chosen, strengths, strict=True)
    )
    return emotion, units


def _blink(onset_s: float, script: Script, random: np.random.Generator) -> PlantedEvent:
    # Closing takes about a third of a blink, opening the rest.
    duration_s = random.uniform(0.15, 0.30)
    apex_s = onset_s + duration_s * random.uniform(0.30, 0.40)
    closed = 1.0 if random.random() < 0.8 else random.uniform(0.5, 0.9)
    return PlantedEvent(
        "blink", onset_s, apex_s, onset_s + duration_s, None, (ActionUnit("AU45", "both", 1.0),), closed
    )


def _speech(onset_s: float, script: Script, random: np.random.Generator) -> PlantedEvent:
    duration_s = random.uniform(0.8, 2.5)
    apex_s = onset_s + duration_s * random.uniform(0.2, 0.8)
    units = (ActionUnit("AU25", "both", 1.0), ActionUnit("AU26", "both", 1.0))
    return PlantedEvent(
        "speech", onset_s, apex_s, onset_s + duration_s, None, units, random.uniform(0.025, 0.06)
    )


def _head_turn(onset_s: float, script: Script, random: np.random.Generator) -> PlantedEvent:
    duration_s = random.uniform(0.7, 1.6)
    yaw_deg = random.uniform(5.0, 11.0) * (1.0 if random.random() < 0.5 else -1.0)
    return PlantedEvent("head turn", onset_s, onset_s + duration_s / 2, onset_s + duration_s, change=yaw_deg)


def _light(onset_s: float, script: Script, random: np.random.Generator) -> PlantedEvent:
    ramp_s = random.uniform(0.005, 0.06)
    change = random.uniform(0.03, 0.12) * (1.0 if random.random() < 0.5 else -1.0)
    return PlantedEvent("light", onset_s, onset_s + ramp_s, onset_s + ramp_s, change=change)
