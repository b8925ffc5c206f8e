"""Turns what the schema found wrong into faults that a person can act on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from opentau_prep.config.faults import Fault, JsonPath, nearest, shown
from opentau_prep.config.refs import Origin

__all__ = ["ENTRY_FAULT", "explain"]

# The type of a fault that is about a whole entry, though a field's check found it.
ENTRY_FAULT = "entry_fault"

_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a string",
    "tuple_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number below {lt}",
    "literal_error": "{expected}",
}


def explain(
    errors: Iterable[Mapping[str, Any]],
    *,
    mixture_fields: Iterable[str],
    entry_fields: Iterable[str],
    without_effect: Collection[str],
    origin: Origin,
    path: JsonPath,
) -> list[Fault]:
    """Return a fault for each of pydantic's errors, in their order.

    Args:
        errors: What `ValidationError.errors()` returns for a mixture.
        mixture_fields: The fields that a mixture has.
        entry_fields: The fields that an entry of `datasets` has.
        without_effect: Those of both that are not worth a place in a list of known fields.
        origin: Which file each part of the mixture came from.
        path: JSON path of the mixture in the document.
    """
    in_mixture, in_entry = list(mixture_fields), list(entry_fields)
    faults = []
    for error in errors:
        loc = _location(error)
        if error["type"] != "extra_forbidden":
            message = _message(error)
        elif len(loc) == 1:
            there = "the entries of datasets" if loc[0] in in_entry else ""
            message = _unknown_field(str(loc[0]), in_mixture, there, without_effect)
        else:
            there = "the mixture" if loc[-1] in in_mixture else ""
            message = _unknown_field(str(loc[-1]), in_entry, there, without_effect)
        faults.append(Fault(origin.at(loc).file, (*path, *loc), message))
    return faults


def _location(error: Mapping[str, Any]) -> JsonPath:
    loc: JsonPath = error["loc"]
    # pydantic adds "[key]" where a key, not its value, is at fault.
    is_key_fault = loc[-1:] == ("[key]",) and error["type"] == "value_error"
    return loc[:-1] if is_key_fault or error["type"] == ENTRY_FAULT else loc


def _unknown_field(
    name: str, known: list[str], elsewhere: str, without_effect: Collection[str]
) -> str:
    if elsewhere:
        return f"unknown field here: {shown(name)} is a field of {elsewhere}"
    near = nearest(name, known)
    if near:
        return f'unknown field {shown(name)}; the nearest known field is "{near}"'
    listed = ", ".join(field for field in known if field not in without_effect)
    return f"unknown field {shown(name)}; known are {listed}"


def _message(error: Mapping[str, Any]) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return "required, but missing"
    if kind == "value_error":
        return str(context["error"])
    if kind in _EXPECTED:
        # A bound of 1.0 reads better as 1, and a choice in JSON's quotes.
        plain = {
            name: int(bound) if isinstance(bound, float) and bound.is_integer() else bound
            for name, bound in context.items()
        }
        expected = _EXPECTED[kind].format(**plain).replace("'", '"')
        return f"found {shown(error['input'])}, expected {expected}"
    return str(error["msg"])
