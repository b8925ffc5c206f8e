"""The made-up robots of the demo mixtures: names, limits (rad, m, opening 0..1) and home poses."""

from __future__ import annotations

from typing import Final

from opentau_prep.demo.trajectories import Robot

__all__ = ["ARM6", "ARM6_POSE", "ARM8", "BIMANUAL14", "HUMANOID26", "MOBILE11"]

# Each joint has a range and a home of its own, as real arms do: that is what makes a swapped pair
# of dims, or another unit, visible in the stats.
_ARM6_JOINTS = ("shoulder_pan", "shoulder_lift", "elbow", "wrist_flex", "wrist_roll")
_ARM6_LOW = (-1.9, -1.8, 0.1, -1.6, -2.8)
_ARM6_HIGH = (1.9, 0.4, 2.9, 1.6, 2.8)
_ARM6_HOME = (0.0, -1.2, 1.7, 0.6, -0.3)
_ARM7_JOINTS = (*(f"joint_{i}" for i in range(1, 8)),)
_ARM7_LOW = (-2.8, -1.7, -2.8, -3.0, -2.8, 0.0, -2.8)
_ARM7_HIGH = (2.8, 1.7, 2.8, -0.1, 2.8, 3.7, 2.8)
_ARM7_HOME = (0.1, -0.5, 0.2, -2.1, 0.1, 1.8, 0.8)
_FINGERS = ("thumb_rotate", "thumb_bend", "index", "middle", "ring", "pinky")


def _sides(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{side}_{name}" for side in ("left", "right") for name in names)


ARM6: Final = Robot(
    names=(*_ARM6_JOINTS, "gripper"),
    low=(*_ARM6_LOW, 0.0),
    high=(*_ARM6_HIGH, 1.0),
    home=(*_ARM6_HOME, 0.9),
    grippers=(5,),
)
ARM6_POSE: Final = Robot(
    names=("x", "y", "z", "roll", "pitch", "yaw", "gripper"),
    low=(0.10, -0.35, 0.02, -3.1, -1.5, -1.5, 0.0),
    high=(0.55, 0.35, 0.45, 3.1, 1.5, 1.5, 1.0),
    home=(0.28, 0.0, 0.25, 0.4, 0.9, 0.1, 0.9),
    grippers=(6,),
)
ARM8: Final = Robot(
    names=(*_ARM7_JOINTS, "gripper"),
    low=(*_ARM7_LOW, 0.0),
    high=(*_ARM7_HIGH, 1.0),
    home=(*_ARM7_HOME, 0.9),
    grippers=(7,),
)
BIMANUAL14: Final = Robot(
    names=_sides((*_ARM6_JOINTS, "wrist_yaw", "gripper")),
    low=(*_ARM6_LOW, -1.2, 0.0) * 2,
    high=(*_ARM6_HIGH, 1.2, 1.0) * 2,
    home=(*_ARM6_HOME, 0.2, 0.9) * 2,
    grippers=(6, 13),
)
HUMANOID26: Final = Robot(
    names=(*_sides(_ARM7_JOINTS), *_sides(_FINGERS)),
    low=(*_ARM7_LOW * 2, *(0.0,) * 12),
    high=(*_ARM7_HIGH * 2, *(1.0,) * 12),
    home=(*_ARM7_HOME * 2, *(0.9,) * 12),
    grippers=tuple(range(14, 26)),
)
# A mobile base beside the arm: the mixture selects the arm's columns only.
MOBILE11: Final = Robot(
    names=("base_vx", "base_vy", "base_wz", *ARM8.names),
    low=(-0.5, -0.5, -1.0, *ARM8.low),
    high=(0.5, 0.5, 1.0, *ARM8.high),
    home=(0.0, 0.0, 0.0, *ARM8.home),
    grippers=(10,),
)
