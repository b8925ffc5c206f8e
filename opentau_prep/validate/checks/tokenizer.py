"""N: the tokenizer folder against the mixture that it was fitted on."""

from __future__ import annotations

from opentau_prep.validate.rule import Rule

__all__ = ["RULES"]

RULES: tuple[Rule, ...] = ()
