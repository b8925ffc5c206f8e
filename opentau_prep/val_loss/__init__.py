"""Validation: one pass over all datasets, and its loss by dataset, control mode and norm head."""

from opentau_prep.val_loss.accumulate import GroupedLosses
from opentau_prep.val_loss.mixture import MixtureValidation
from opentau_prep.val_loss.plan import ValidationPlan, plan_validation
from opentau_prep.val_loss.subset import validation_subset

__all__ = [
    "GroupedLosses",
    "MixtureValidation",
    "ValidationPlan",
    "plan_validation",
    "validation_subset",
]
