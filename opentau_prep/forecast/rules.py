"""The rules that a forecast judges by: their words, for findings and for `validate`'s catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["KINDS_OF", "ForecastRule", "rule_of"]


@dataclass(frozen=True)
class ForecastRule:
    """One rule; the attributes are those of `opentau_prep.validate.rule.Rule`.

    Attributes:
        kinds: The kinds of findings that it covers.
    """

    code: str
    name: str
    severity: Literal["error", "warning"]
    kinds: tuple[str, ...]
    what: str
    why: str
    fix: str
    command: tuple[str, ...] = ()


# For a head of one dataset, whose stats these are; `validate` repeats what the last forecast found.
_RECOMPUTE = (
    *("opentau-prep", "stats", "{subject}", "--published-stats", "replace"),
    *("&&", "opentau-prep", "forecast", "{subject}"),
)

RULES = (
    ForecastRule(
        "P001",
        "stats-of-other-width",
        "error",
        ("width",),
        "The stats have another number of dims than the dataset, beyond zero padding.",
        "They are of another robot or action space: normalizing fails, or takes the wrong dims.",
        "Choose stats of this robot, select columns with state_index or action_index, or recompute"
        " the stats.",
    ),
    ForecastRule(
        "P002",
        "range-collapsed",
        "error",
        ("collapsed",),
        "The range that normalizes a dim (q01 to q99, min to max, or the std) is less than a"
        " thousandth of what the data span, such as q01 = q99 where rare values differ.",
        "openpi divides by that range and 1e-6: a value of 1 becomes two million, and one frame"
        " decides the loss.",
        "Normalize with min and max, or leave the dim out. `forecast --normalization min_max` shows"
        " what min and max give.",
    ),
    ForecastRule(
        "P003",
        "beyond-range",
        "warning",
        ("out of range",),
        "More values lie beyond the range than stats of this data would leave: over 5 % beyond 1"
        " with min and max, over 10 % with q01 and q99 (of a head of several datasets: over 4 %"
        " beyond 2), over 25 % beyond two stds; or over 0.2 %, 1 % and 1 % beyond 5.",
        "The policy sees values that it was not trained on, or that a clip cuts off.",
        "Recompute the stats if they are these datasets' own, or take others. A mean of several"
        " datasets' quantiles fits none of them: normalize with min and max, or give the datasets"
        " heads of their own.",
        _RECOMPUTE,
    ),
    ForecastRule(
        "P004",
        "range-unused",
        "warning",
        ("unused range",),
        "The middle 98 % of the data use under 1 % of the range in a dim that moves, or under 5 %"
        " in most dims.",
        "Motion becomes as small as noise, or too small to change a token.",
        "Look for outliers that stretch the range, with `validate --deep`, and correct them.",
    ),
    ForecastRule(
        "P005",
        "other-units",
        "error",
        ("degrees", "radians", "ticks", "millimetres", "metres", "percent", "fraction"),
        "The dataset is in another unit than the stats: degrees against radians, motor ticks,"
        " millimetres against metres, 0 to 100 against 0 to 1.",
        "All values of those dims are far beyond the range, or all near its middle.",
        "Convert the dataset to the unit of the stats. Recomputed stats hide the difference from"
        " normalization, not from a policy that was trained on the other unit.",
    ),
    ForecastRule(
        "P006",
        "other-zero",
        "error",
        ("offset",),
        "Dims have the spread of the stats around another zero.",
        "The policy takes one pose for another: a joint that is calibrated differently.",
        "Calibrate the joint, or subtract the offset in the dataset.",
    ),
    ForecastRule(
        "P007",
        "sign-flipped",
        "error",
        ("flipped_sign",),
        "Dims are the negative of what the stats are of.",
        "The policy moves the joint the wrong way.",
        "Negate the dims in the dataset.",
    ),
    ForecastRule(
        "P008",
        "dims-reordered",
        "error",
        ("dim_order",),
        "Dims are those of the stats in another order.",
        "The policy moves one joint by what is meant for another.",
        "Put the columns in the order of the stats with state_index and action_index.",
    ),
    ForecastRule(
        "P009",
        "gripper-inverted",
        "error",
        ("inverted",),
        "A gripper's range is mirrored against the stats: open where they close.",
        "The policy lets go where it should grasp.",
        "Write the sum of the range's ends minus x for the gripper, such as 1 - x.",
    ),
    ForecastRule(
        "P010",
        "padding-as-data",
        "error",
        ("padding",),
        "A dim is zero throughout in the dataset and moves in the stats, or the other way round.",
        "A dim that does not exist is shown to the policy as a pose that never changes.",
        "Leave the dim out with state_index or action_index, or recompute the stats.",
    ),
    ForecastRule(
        "P011",
        "stats-of-another-robot",
        "error",
        ("pose", "unlike"),
        "Most dims are unlike the stats and no usual fault explains it, or they are poses where the"
        " stats are of joints.",
        "The stats are of another robot or control mode.",
        "Take stats of this robot and control mode, or recompute them.",
    ),
    ForecastRule(
        "P012",
        "not-normalized",
        "error",
        ("not normalized",),
        "The policy would not normalize a feature: stats are missing, are filed under a name that"
        " LeRobot does not look up, lack what the declared mode needs, or contradict the policy's"
        " own config.",
        "Values pass through as they are, without an error.",
        "Give the policy stats under the names of its features.",
    ),
)

OWN_HEADS = "of the mixture, as training builds them"
"""The source of a forecast without `--stats`."""

KINDS_OF = {kind: rule for rule in RULES for kind in rule.kinds}
"""Kind of finding -> its rule."""


def rule_of(code: str) -> ForecastRule:
    """Return the rule of a code; raise `KeyError` for any other."""
    return {rule.code: rule for rule in RULES}[code]
