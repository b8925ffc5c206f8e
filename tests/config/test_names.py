from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from opentau_prep import make_dataset_names

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "dataset_names.json"
CASES = json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: ",".join(case["expected"]))
def test_make_dataset_names_golden_case_equals_recorded(case: dict[str, Any]) -> None:
    ids = [r or v for r, v in zip(case["repo_ids"], case["vqa"], strict=True)]
    names = make_dataset_names(ids)
    assert names == case["expected"]
    assert (len(set(names)) == len(names)) is case["unique"]


def test_make_dataset_names_nothing_gives_nothing() -> None:
    assert make_dataset_names([]) == []


def test_make_dataset_names_argument_stays_unchanged() -> None:
    ids = ("a", "a")
    assert make_dataset_names(ids) == ["a#0", "a#1"]
    assert ids == ("a", "a")
