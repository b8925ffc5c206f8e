"""Validation: one pass over all datasets, and its losses by dataset, control mode and norm head."""

from opentau_prep.val_loss.losses import GroupedLosses
from opentau_prep.val_loss.mixture import MixtureValidation
from opentau_prep.val_loss.plan import ValidationPlan, plan_validation

__all__ = [
    "GroupedLosses",
    "MixtureValidation",
    "ValidationPlan",
    "plan_validation",
]
