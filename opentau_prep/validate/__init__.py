"""A linter for robot datasets and mixtures: rules, findings, and what to do about them."""

from opentau_prep.validate.check import validate
from opentau_prep.validate.findings import Finding, ValidateReport
from opentau_prep.validate.view import CheckOptions

__all__ = ["CheckOptions", "Finding", "ValidateReport", "validate"]
