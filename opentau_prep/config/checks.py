"""What the fields of a mixture may hold, beyond their types.

A check raises `ValueError` with what was found and what was expected, or returns the value (where
the schema calls it on a field of its own). The schema says which field each one guards.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

from opentau_prep.config.faults import nearest, shown

__all__ = [
    "check_cache_name",
    "check_distinct",
    "check_plain_text",
    "check_some_datasets",
    "check_standard_name",
    "check_stat",
    "check_weights",
    "parse_dim",
]

_Ints = TypeVar("_Ints", bound=Sequence[int])
_Some = TypeVar("_Some", bound=Sequence[object])

_CAMERA = re.compile(r"camera(0|[1-9][0-9]{0,5})")
_STANDARD_NAMES = ("state", "actions", "prompt", "response", "mistake", "success", "advantage")
_DIM = re.compile(r"0|[1-9][0-9]{0,8}")
# Nearly every id there is: one look instead of many.
_USUAL_ID = re.compile(r"\w[\w.-]{0,99}(?:/\w[\w.-]{0,99})?", re.ASCII)
# What file systems take in one name.
_MAX_SEGMENT_BYTES = 255
_MAX_STAT_INT = 2**63


def check_plain_text(text: str) -> str:
    """Refuse an empty string, and control characters: they have no place in a name or a path."""
    if not text:
        raise ValueError("must not be empty")
    if text.isascii() and text.isprintable():
        return text
    if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in text):
        raise ValueError(f"found {shown(text)}, which holds a control character or a line break")
    return text


def check_cache_name(name: str) -> str:
    """Refuse an id that, joined to a cache folder, would name something outside of it."""
    if _USUAL_ID.fullmatch(name):
        return name
    check_plain_text(name)
    if "\\" in name:
        raise ValueError(f"found {shown(name)}, which holds a backslash: folders part with '/'")
    segments = name.split("/")
    if not segments[0] or re.fullmatch(r"[A-Za-z]:", segments[0]):
        raise ValueError(f"found {shown(name)}, an absolute path: a local dataset goes in root")
    if any(segment in (".", "..") for segment in segments):
        raise ValueError(f"found {shown(name)}, which would leave the cache folder")
    if not all(segments):
        raise ValueError(f"found {shown(name)}, which has an empty part between its slashes")
    if any(len(segment.encode(errors="replace")) > _MAX_SEGMENT_BYTES for segment in segments):
        raise ValueError(f"found {shown(name)}, which is longer than a folder name can be")
    return name


def check_standard_name(name: str) -> str:
    """Refuse a name that no model input has."""
    if name in _STANDARD_NAMES or _CAMERA.fullmatch(name):
        return name
    cameras = [f"camera{index}" for index in range(10)]
    near = nearest(name, [*_STANDARD_NAMES, *cameras])
    known = f"camera0, camera1, ..., {', '.join(_STANDARD_NAMES)}"
    tip = f'the nearest is "{near}"' if near else f"known are {known}"
    raise ValueError(f"unknown standard name {shown(name)}; {tip}")


def check_distinct(values: _Ints) -> _Ints:
    """Refuse a list that is empty or holds a number twice."""
    if not values:
        raise ValueError("found an empty list, expected null (for all) or at least one number")
    repeated = [value for value, count in Counter(values).items() if count > 1]
    if repeated:
        raise ValueError(f"found {shown(repeated)} more than once, expected distinct numbers")
    return values


def check_some_datasets(entries: _Some) -> _Some:
    """Refuse a mixture of nothing."""
    if not entries:
        raise ValueError("found an empty list, expected at least one dataset")
    return entries


def check_weights(weights: Sequence[float], n_datasets: int | None) -> None:
    """Refuse weights that are not one per dataset (None: not known), or are all zero."""
    if n_datasets is not None and len(weights) != n_datasets:
        raise ValueError(
            f"found {len(weights)} weights for {n_datasets} datasets, "
            "expected one per dataset, or null"
        )
    if weights and not any(weights):
        raise ValueError("found only zeros, expected at least one positive weight")
    if not math.isfinite(sum(weights)):
        raise ValueError("found weights whose sum is not finite")


def parse_dim(text: str) -> int:
    """Return the dim that a JSON key (always a string) means."""
    if not _DIM.fullmatch(text):
        raise ValueError(f'found the key {shown(text)}, expected an action dim such as "0"')
    return int(text)


def check_stat(value: object) -> object:
    """Refuse a stat that is not a number or a rectangular nested list of numbers."""
    _shape(value)
    return value


def _shape(value: object) -> tuple[int, ...]:
    if isinstance(value, list):
        shapes = {_shape(item) for item in value}
        if len(shapes) > 1:
            raise ValueError("found lists of different lengths side by side")
        return (len(value), *(shapes.pop() if shapes else ()))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"found {shown(value)}, expected a number or a list of numbers")
    if isinstance(value, int) and abs(value) >= _MAX_STAT_INT:
        raise ValueError(f"found {shown(value)}, a number that no array holds")
    return ()
