"""Clean datasets that several modules break, each in its own way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from breaking import mutation, write_broken

from opentau_prep.config.load import load_mixture
from opentau_prep.context import RunContext
from opentau_prep.heads.compute import prepare_heads
from opentau_prep.heads.options import HeadOptions
from opentau_prep.metadata.resolve import resolve_mixture
from opentau_prep.speed import prepare_speed


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A clean dataset with speed percentiles and a head of ours."""
    root = tmp_path / "prepared"
    write_broken(root, mutation("clean", ""))
    file = tmp_path / "mixture.json"
    file.write_text(json.dumps({"datasets": [{"repo_id": "lab/prepared", "root": str(root)}]}))
    resolved = resolve_mixture(load_mixture(file))
    prepare_speed(resolved, RunContext(workers=1))
    prepare_heads(resolved, RunContext(workers=1), HeadOptions(), out=tmp_path / "heads.json")
    return root


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clean datasets, which no test may change."""
    folder = tmp_path_factory.mktemp("datasets")
    for name, version in zip("abc", ("v2.1", "v3.0", "v2.0"), strict=True):
        write_broken(folder / name, mutation("clean", "", version))
    return folder
