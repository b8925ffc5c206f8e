"""A linter for robot datasets and mixtures: rules, findings, and what to do about them."""

from opentau_prep.validate.check import CheckOptions, validate
from opentau_prep.validate.findings import Finding
from opentau_prep.validate.report import ValidateReport
from opentau_prep.validate.targets import Subject

__all__ = ["CheckOptions", "Finding", "Subject", "ValidateReport", "validate"]
