"""Which options of a class of `cli.options` were given, by field or as a person writes them."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, get_type_hints

if TYPE_CHECKING:
    from opentau_prep.cli.options import FitFlags

__all__ = ["fit_given_by", "given_by", "names_given"]


def given_by(*flags: object) -> dict[str, Any]:
    """Return the options that were given, by name."""
    found = {}
    for each in flags:
        for field in fields(each):  # type: ignore[arg-type]
            value = getattr(each, field.name)
            if value is not None and value != []:
                found[field.name] = value
    return found


def fit_given_by(flags: FitFlags) -> dict[str, Any]:
    """Return the options of the fit that were given, by name; numbers that may be `auto` read.

    Raises:
        ConfigError: One of those is neither.
    """
    found = given_by(flags)
    for name in ("total_chunks", "max_token_length"):
        if name in found:
            # Not before: it imports SciPy.
            from opentau_prep.tokenizer.options import number_or_auto

            found[name] = number_or_auto(found[name], f"--{name.replace('_', '-')}")
    return found


def names_given(flags: object) -> list[str]:
    """Return the options that were given as a person writes them, such as `--chunk-size`."""
    hints = get_type_hints(type(flags), include_extras=True)
    names = []
    for name in given_by(flags):
        declared = hints[name].__metadata__[0].param_decls
        names.append(declared[0].partition("/")[0] if declared else f"--{name.replace('_', '-')}")
    return names
