"""What each action unit moves.

Source of the movements: the appearance changes that the Facial Action Coding System describes for each unit
(Ekman, Friesen and Hager, *FACS: The Manual*, 2002). The numbers are ours: FACS gives places and directions,
we chose relative sizes and widths. Which units make an emotion stands in `edge/emotions.toml`.

Axes of a move, for either half of the face: `out` is away from the midline, `up` is towards the brow, both
in units of the action unit's peak displacement. `width` is the standard deviation, in IOD, of the Gaussian
by which the skin around the point follows.
"""

from dataclasses import dataclass

SIDES = ("right", "left", "both")
"""The subject's own sides."""


@dataclass(frozen=True, slots=True)
class Move:
    """How one place on the face moves with an action unit."""

    place: str
    """A place of `edge.frames.rig` without its side, such as `brow_inner`; `MIDLINE` ones have none."""
    out: float
    up: float
    width: float


@dataclass(frozen=True, slots=True)
class Movement:
    """All that one action unit moves on one side."""

    moves: tuple[Move, ...] = ()
    upper_lid: float = 0.0
    """Upper lid margin, downwards, in units of the peak displacement; negative raises it."""
    lower_lid: float = 0.0
    """Lower lid margin, upwards."""
    upper_lip: float = 0.0
    """Upper lip's free edge, upwards (lips part)."""
    lower_lip: float = 0.0
    """Lower lip's free edge, downwards (lips part)."""


MIDLINE = (
    "glabella", "nose_bridge_top", "nose_bridge_upper", "upper_lip_top", "lower_lip_bottom", "chin",
    "chin_boss",
)  # fmt: skip
"""Places without a side. With a one-sided action unit they move half as far."""

MOVEMENTS: dict[str, Movement] = {
    # Inner brow raiser: frontalis, medial part.
    "AU1": Movement((
        Move("brow_inner", -0.10, 1.00, 0.10), Move("brow_inner_mid", 0.0, 0.65, 0.10),
        Move("brow_mid", 0.0, 0.25, 0.09), Move("forehead_inner", 0.0, 0.75, 0.14),
        Move("glabella", 0.0, 0.50, 0.09),
    )),
    # Outer brow raiser: frontalis, lateral part.
    "AU2": Movement((
        Move("brow_outer", 0.0, 0.80, 0.10), Move("brow_outer_mid", 0.05, 1.00, 0.11),
        Move("brow_mid", 0.0, 0.60, 0.10), Move("forehead_outer", 0.0, 0.70, 0.14),
    )),
    # Brow lowerer: corrugator and depressor supercilii draw the brows down and together.
    "AU4": Movement((
        Move("brow_inner", -0.55, -0.80, 0.10), Move("brow_inner_mid", -0.45, -0.75, 0.10),
        Move("brow_mid", -0.25, -0.60, 0.10), Move("brow_outer_mid", -0.10, -0.25, 0.09),
        Move("glabella", 0.0, -0.50, 0.09), Move("forehead_inner", -0.15, -0.45, 0.13),
        Move("nose_bridge_top", 0.0, -0.25, 0.07),
    )),
    # Upper lid raiser: levator palpebrae.
    "AU5": Movement((Move("lid_fold", 0.0, 0.35, 0.06),), upper_lid=-1.0),
    # Cheek raiser: outer ring of orbicularis oculi draws cheek and temple skin towards the eye.
    "AU6": Movement((
        Move("cheek", -0.10, 1.00, 0.15), Move("cheek_outer", -0.45, 0.80, 0.13),
        Move("under_eye", 0.0, 0.60, 0.09), Move("crow_foot", -0.55, 0.0, 0.09),
        Move("brow_outer", -0.10, -0.20, 0.09),
    ), lower_lid=0.35),
    # Lid tightener: inner ring of orbicularis oculi.
    "AU7": Movement((
        Move("under_eye", -0.20, 0.70, 0.07), Move("lid_fold", -0.05, -0.25, 0.06),
    ), upper_lid=0.40, lower_lid=0.90),
    # Nose wrinkler: levator labii superioris alaeque nasi.
    "AU9": Movement((
        Move("nose_wing", 0.05, 1.00, 0.09), Move("nose_side", -0.05, 0.95, 0.09),
        Move("nose_bridge_upper", 0.0, 0.30, 0.08), Move("infraorbital", -0.15, 0.65, 0.12),
        Move("brow_inner", -0.20, -0.50, 0.09), Move("glabella", 0.0, -0.45, 0.09),
        Move("upper_lip", 0.0, 0.45, 0.08), Move("upper_lip_top", 0.0, 0.40, 0.08),
    )),
    # Upper lip raiser: levator labii superioris.
    "AU10": Movement((
        Move("upper_lip", 0.05, 1.00, 0.08), Move("upper_lip_outer", 0.10, 0.70, 0.08),
        Move("upper_lip_top", 0.0, 0.65, 0.08), Move("nasolabial", 0.20, 0.80, 0.11),
        Move("nose_wing", 0.10, 0.45, 0.09), Move("infraorbital", 0.0, 0.50, 0.13),
    ), upper_lip=0.40),
    # Lip corner puller: zygomaticus major.
    "AU12": Movement((
        Move("mouth", 0.70, 0.72, 0.11), Move("upper_lip_outer", 0.45, 0.45, 0.09),
        Move("lower_lip_outer", 0.50, 0.40, 0.09), Move("nasolabial", 0.50, 0.60, 0.12),
        Move("cheek", 0.15, 0.55, 0.16), Move("cheek_low", 0.35, 0.50, 0.13),
    )),
    # Dimpler: buccinator pulls the corner back and in; the skin beyond it is drawn to the corner.
    "AU14": Movement((
        Move("mouth", 1.00, 0.15, 0.09), Move("upper_lip_outer", 0.45, 0.05, 0.08),
        Move("lower_lip_outer", 0.45, 0.10, 0.08), Move("cheek_low", -0.40, 0.05, 0.09),
    )),
    # Lip corner depressor: depressor anguli oris.
    "AU15": Movement((
        Move("mouth", 0.25, -0.97, 0.10), Move("lower_lip_outer", 0.15, -0.70, 0.08),
        Move("upper_lip_outer", 0.10, -0.45, 0.08), Move("chin_side", 0.15, -0.60, 0.11),
    )),
    # Lower lip depressor: depressor labii inferioris.
    "AU16": Movement((
        Move("lower_lip", 0.20, -0.70, 0.08), Move("lower_lip_outer", 0.20, -0.50, 0.08),
        Move("lower_lip_bottom", 0.0, -0.65, 0.08), Move("chin_side", 0.10, -0.40, 0.10),
    ), lower_lip=0.35),
    # Chin raiser: mentalis pushes the chin boss and lower lip up.
    "AU17": Movement((
        Move("chin_boss", 0.0, 1.00, 0.12), Move("lower_lip_bottom", 0.0, 0.75, 0.08),
        Move("lower_lip", 0.0, 0.60, 0.08), Move("chin_side", -0.10, 0.55, 0.10),
        Move("chin", 0.0, 0.55, 0.11),
    )),
    # Lip stretcher: risorius.
    "AU20": Movement((
        Move("mouth", 1.00, -0.12, 0.10), Move("upper_lip_outer", 0.60, -0.05, 0.09),
        Move("lower_lip_outer", 0.65, -0.10, 0.09), Move("cheek_low", 0.65, 0.0, 0.13),
        Move("chin_side", 0.35, -0.15, 0.11),
    )),
    # Lip tightener: orbicularis oris narrows the lips and draws the corners in.
    "AU23": Movement((
        Move("mouth", -0.55, 0.0, 0.08), Move("upper_lip", -0.15, -0.85, 0.05),
        Move("upper_lip_top", 0.0, -0.80, 0.05), Move("upper_lip_outer", -0.35, -0.50, 0.05),
        Move("lower_lip", -0.15, 0.85, 0.05), Move("lower_lip_bottom", 0.0, 0.85, 0.05),
        Move("lower_lip_outer", -0.35, 0.50, 0.05),
    )),
    # Lip presser: the lips are pushed against each other.
    "AU24": Movement((
        Move("upper_lip", 0.0, -0.95, 0.06), Move("upper_lip_top", 0.0, -0.95, 0.06),
        Move("upper_lip_outer", -0.10, -0.50, 0.06), Move("lower_lip", 0.0, 1.00, 0.06),
        Move("lower_lip_bottom", 0.0, 1.00, 0.06), Move("lower_lip_outer", -0.10, 0.50, 0.06),
        Move("mouth", -0.20, 0.0, 0.08), Move("chin_boss", 0.0, 0.40, 0.10),
    )),
    # Lips part.
    "AU25": Movement((Move("lower_lip_bottom", 0.0, -0.40, 0.08),), upper_lip=0.25, lower_lip=0.60),
    # Jaw drop: chin and lower lip go down together.
    "AU26": Movement((
        Move("chin", 0.0, -1.00, 0.16), Move("chin_boss", 0.0, -0.85, 0.12),
        Move("chin_side", 0.0, -0.75, 0.13), Move("lower_lip_bottom", 0.0, -0.45, 0.08),
        Move("jaw", -0.05, -0.45, 0.15), Move("cheek_low", -0.10, -0.25, 0.12),
    ), upper_lip=0.05, lower_lip=0.55),
    # Blink: the upper lid does nine tenths of the way.
    "AU45": Movement((Move("lid_fold", 0.0, -0.10, 0.06),), upper_lid=0.90, lower_lid=0.10),
}  # fmt: skip
"""What each action unit moves on the side(s) it acts on."""
