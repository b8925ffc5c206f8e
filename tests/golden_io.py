"""Read the golden vectors under `tests/golden/` and compare with them bit for bit.

Test modules say `from golden_io import ...`: the pytest settings put `tests/` on the path.
Encoding: an array is `{"dtype", "shape", "data"}`; NaN and the infinities are strings wherever
a number can stand.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parent / "golden"
_NON_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_ARRAY_KEYS = {"dtype", "shape", "data"}


@cache
def load_golden(name: str) -> Any:
    """Return the parsed `tests/golden/<name>.json`, still encoded (shared: do not change it)."""
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def decode(obj: Any) -> Any:
    """Return `obj` with every array object as an ndarray, in lists and mappings at any depth.

    Non-finite strings are decoded inside arrays only: elsewhere "NaN" may be a name. For a bare
    number that can be non-finite, use `number`.
    """
    if isinstance(obj, Mapping):
        if set(obj) == _ARRAY_KEYS:
            return _array(obj)
        return {key: decode(value) for key, value in obj.items()}
    if isinstance(obj, list):
        return [decode(value) for value in obj]
    return obj


def number(value: Any) -> Any:
    """Return a bare number, with the strings of non-finite ones decoded."""
    return _NON_FINITE.get(value, value) if isinstance(value, str) else value


def golden_cases(name: str, section: str | None = "cases", label: str = "name") -> list[Any]:
    """Return the cases of a file as pytest parameters, with readable ids."""
    import pytest

    cases = load_golden(name) if section is None else load_golden(name)[section]
    return [pytest.param(case, id=str(case.get(label, i))) for i, case in enumerate(cases)]


def assert_same_bits(actual: Any, expected: Any, where: str = "value") -> None:
    """Fail unless both are the same dtype, shape and bits; any NaN equals any NaN.

    Mappings are compared key by key, lists and tuples item by item, everything else with `==`.
    """
    if isinstance(expected, Mapping):
        _assert_same_keys(actual, expected, where)
        for key, value in expected.items():
            assert_same_bits(actual[key], value, f"{where}[{key!r}]")
    elif isinstance(expected, (list, tuple)):
        assert len(actual) == len(expected), f"{where}: {len(actual)} items, not {len(expected)}"
        for i, value in enumerate(expected):
            assert_same_bits(actual[i], value, f"{where}[{i}]")
    elif isinstance(expected, (np.ndarray, np.generic)):
        _assert_same_array(np.asarray(actual), np.asarray(expected), where)
    else:
        assert actual == expected, f"{where}: {actual!r}, not {expected!r}"


def _array(obj: Mapping[str, Any]) -> np.ndarray:
    dtype = np.dtype(obj["dtype"])
    flat = list(_flatten(obj["data"]))
    if dtype.kind == "f":
        # Through float64 first: a float32 is stored as the float64 of itself.
        values = np.array([number(v) for v in flat], dtype=np.float64).astype(dtype)
    else:
        values = np.array(flat, dtype=dtype)
    return values.reshape(obj["shape"])


def _flatten(data: Any) -> Iterable[Any]:
    if isinstance(data, list):
        for item in data:
            yield from _flatten(item)
    else:
        yield data


def _assert_same_keys(actual: Any, expected: Mapping[Any, Any], where: str) -> None:
    missing = set(expected) - set(actual)
    extra = set(actual) - set(expected)
    assert not missing, f"{where}: missing {sorted(missing)}"
    assert not extra, f"{where}: unexpected {sorted(extra)}"


def _assert_same_array(actual: np.ndarray, expected: np.ndarray, where: str) -> None:
    assert actual.dtype == expected.dtype, f"{where}: dtype {actual.dtype}, not {expected.dtype}"
    assert actual.shape == expected.shape, f"{where}: shape {actual.shape}, not {expected.shape}"
    if actual.dtype.kind in "fc":
        # A NaN's payload is not part of the contract; signed zeros are.
        actual = np.where(np.isnan(actual), np.array(np.nan, actual.dtype), actual)
        expected = np.where(np.isnan(expected), np.array(np.nan, expected.dtype), expected)
    if actual.tobytes() != expected.tobytes():
        differ = np.flatnonzero(_bits(actual) != _bits(expected))
        first = differ[0]
        raise AssertionError(
            f"{where}: {differ.size} of {actual.size} values differ, first at flat index {first}: "
            f"{actual.ravel()[first]!r}, not {expected.ravel()[first]!r}"
        )


def _bits(array: np.ndarray) -> np.ndarray:
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(np.dtype((np.void, flat.dtype.itemsize)))
