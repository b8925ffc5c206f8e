"""P: what the policy will see. The findings that `forecast` left for the mixture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentau_prep.artifacts.catalog import MIXTURE_OUTPUTS
from opentau_prep.artifacts.jsonio import load_own
from opentau_prep.errors import MetadataError
from opentau_prep.forecast.rules import RULES as FORECAST_RULES
from opentau_prep.validate.findings import Hit, hit
from opentau_prep.validate.rule import Rule

if TYPE_CHECKING:
    from opentau_prep.validate.mixture_view import MixtureView

__all__ = ["RULES"]


def _found(view: MixtureView, code: str) -> Iterator[Hit]:
    """Yield the stored findings of one rule; without a forecast there are none."""
    if view.outputs is None:
        return
    file = view.outputs / MIXTURE_OUTPUTS["forecast"]
    for each in _read(file):
        if each.get("code") == code and isinstance(each.get("message"), str):
            dims = [dim for dim in each.get("dims") or () if isinstance(dim, int)]
            column = each.get("feature") if isinstance(each.get("feature"), str) else None
            yield hit(each["message"], file=str(file), column=column, dims=dims)


def _read(file: Path) -> Iterator[dict[str, Any]]:
    try:
        document = load_own(file.read_bytes(), where=str(file))
    except (OSError, MetadataError):
        return
    datasets = document.get("datasets") if isinstance(document, dict) else None
    for dataset in datasets if isinstance(datasets, list) else ():
        findings = dataset.get("findings") if isinstance(dataset, dict) else None
        yield from (f for f in findings or () if isinstance(f, dict))


def _check(code: str) -> Callable[[MixtureView], Iterator[Hit]]:
    return partial(_found, code=code)


RULES = tuple(
    Rule(
        rule.code,
        rule.name,
        rule.severity,
        f"{rule.what} (`forecast` looks for it; `validate` repeats what it found.)",
        rule.why,
        rule.fix,
        _check(rule.code),
        "mixture",
        rule.command,
    )
    for rule in FORECAST_RULES
)
