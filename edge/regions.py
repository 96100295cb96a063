"""The facial regions whose motion is measured, and the channels that come of it.

A region is a Gaussian window placed on landmarks, so it sits on the same skin in every face. `depth_iod`
is how far its skin lies in front of the outer eye corners on the neutral head of the ICT face model
(Li et al., CVPR 2020), in IOD; `python -m tools.simulate.depth` prints the column. With it a head turn is
a known pattern of displacements and can be removed, not only a similarity.
"""

from dataclasses import dataclass

from edge.records import LANDMARKS


@dataclass(frozen=True, slots=True)
class Region:
    """A window on the face."""

    name: str
    landmarks: tuple[str, ...]
    """The window is centred on the mean of these points..."""
    shift_iod: tuple[float, float]
    """...plus this shift, (x, y) IOD in the aligned crop."""
    group: str
    """eyes, brows, nose or mouth: the evidence that an event names."""
    rigidity: float
    """Weight in the head-motion fit: 1 where expressions hardly move the skin, small where they do."""
    depth_iod: float


def _pair(
    name: str,
    landmarks: tuple[str, ...],
    shift_iod: tuple[float, float],
    group: str,
    rigidity: float,
    depth_iod: float,
) -> tuple[Region, Region]:
    """Make the region on the subject's right (image left) and its mirror on the left; `*` is the side."""
    right = Region(
        f"right_{name}",
        tuple(p.replace("*", "right") for p in landmarks),
        shift_iod,
        group,
        rigidity,
        depth_iod,
    )
    left = Region(
        f"left_{name}",
        tuple(p.replace("*", "left") for p in landmarks),
        (-shift_iod[0], shift_iod[1]),
        group,
        rigidity,
        depth_iod,
    )
    return right, left


REGIONS: tuple[Region, ...] = (
    *_pair("brow_inner", ("*_brow_inner", "*_brow_inner_mid"), (0.0, 0.0), "brows", 0.3, 0.24),
    *_pair("brow_mid", ("*_brow_mid",), (0.0, 0.0), "brows", 0.3, 0.17),
    *_pair("brow_outer", ("*_brow_outer_mid", "*_brow_outer"), (0.0, 0.0), "brows", 0.3, 0.05),
    *_pair("forehead", ("*_brow_mid", "*_brow_inner_mid"), (0.0, -0.16), "brows", 0.3, 0.15),
    Region("glabella", ("right_brow_inner", "left_brow_inner"), (0.0, 0.02), "brows", 0.5, 0.24),
    *_pair("upper_lid", ("*_eye_upper_outer", "*_eye_upper_inner"), (0.0, -0.02), "eyes", 0.1, 0.12),
    *_pair("lower_lid", ("*_eye_lower_outer", "*_eye_lower_inner"), (0.0, 0.05), "eyes", 0.4, 0.10),
    *_pair("eye_outer", ("*_eye_outer",), (-0.05, 0.0), "eyes", 0.8, 0.04),
    *_pair("eye_inner", ("*_eye_inner",), (0.03, 0.0), "eyes", 1.0, 0.11),
    Region("nose_bridge", ("nose_bridge_top", "nose_bridge_upper"), (0.0, 0.0), "nose", 1.0, 0.30),
    Region("nose_middle", ("nose_bridge_lower",), (0.0, 0.0), "nose", 1.0, 0.45),
    Region("nose_tip", ("nose_tip",), (0.0, 0.0), "nose", 0.8, 0.49),
    *_pair("nose_side", ("*_nose_wing", "*_eye_inner"), (-0.02, 0.0), "nose", 0.5, 0.29),
    *_pair("nose_wing", ("*_nose_wing",), (-0.02, -0.02), "nose", 0.5, 0.31),
    *_pair("under_eye", ("*_eye_lower_outer", "*_eye_lower_inner"), (0.0, 0.17), "eyes", 0.6, 0.12),
    *_pair("cheek", ("*_eye_lower_outer", "*_nose_wing"), (-0.10, 0.06), "mouth", 0.5, 0.15),
    *_pair("nasolabial", ("*_nose_wing", "mouth_*"), (-0.06, 0.0), "mouth", 0.3, 0.26),
    *_pair("lip_corner", ("mouth_*",), (-0.01, 0.0), "mouth", 0.1, 0.21),
    Region("philtrum", ("nose_base", "upper_lip_top"), (0.0, 0.0), "mouth", 0.4, 0.35),
    *_pair("upper_lip", ("upper_lip_*", "upper_lip_*_outer"), (0.0, 0.0), "mouth", 0.2, 0.34),
    *_pair("lower_lip", ("lower_lip_*", "lower_lip_*_outer"), (0.0, 0.0), "mouth", 0.1, 0.31),
    *_pair("below_corner", ("mouth_*",), (0.0, 0.15), "mouth", 0.2, 0.20),
    Region("chin", ("lower_lip_bottom", "chin"), (0.0, 0.0), "mouth", 0.1, 0.27),
)
"""In the order of every per-region array."""

TEXTURE_REGIONS = ("right_upper_lid", "left_upper_lid", "right_lip_corner", "left_lip_corner", "chin")
"""Regions whose change of appearance, not only of place, is a channel: blinks, gaze, an opening mouth."""

RIGID = ("shift_x", "shift_y", "scale", "roll", "yaw", "pitch")
"""Head motion against the anchor: shifts in IOD, scale as its logarithm, angles in radians."""

CHANNELS: tuple[str, ...] = (
    *(f"{region.name}.{axis}" for region in REGIONS for axis in ("x", "y")),
    *(f"head.{name}" for name in RIGID),
    *(f"{name}.texture" for name in TEXTURE_REGIONS),
    "light",
)
"""Names of `edge.records.Motion.values`: displacements in IOD, `texture` in units of the region's own
contrast, `light` as the logarithm of the brightness ratio."""

LANDMARK_INDEX = {name: index for index, name in enumerate(LANDMARKS)}
