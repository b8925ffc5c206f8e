"""`validation.json` holds nothing of the machine that it was written on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from breaking import Salvage, info, mutation, salvage_mixture, write_broken

from opentau_prep.config.load import load_mixture, mixture_from_roots
from opentau_prep.context import RunContext
from opentau_prep.metadata.resolve import resolve_mixture
from opentau_prep.validate import validate
from opentau_prep.validate.persist import (
    inspect_findings,
    inspect_mixture_findings,
    write_findings,
)


def _prepare(folder: Path) -> Path:
    write_broken(folder / "set", mutation("x", "", files=info(total_episodes=5)))
    content = {"datasets": [{"repo_id": "lab/set", "root": "set"}]}
    (folder / "mixture.json").write_text(json.dumps(content))
    (folder / "mixture.prep").mkdir()
    (folder / "mixture.prep/val_plan.json").write_text("{}")
    return folder / "mixture.json"


def test_written_findings_are_the_same_bytes_in_any_folder(tmp_path: Path) -> None:
    one = _prepare(tmp_path / "one here")
    shutil.copytree(one.parent, tmp_path / "two")
    two = tmp_path / "two/mixture.json"
    for file in (one, two):
        context = RunContext(workers=1)
        report = validate(salvage_mixture(file), context)
        write_findings(report, context, load_mixture(file))

    for rel in ("set/meta/validation.json", "mixture.prep/validation.json"):
        content = (one.parent / rel).read_bytes()
        assert content == (two.parent / rel).read_bytes()
        assert str(tmp_path).encode() not in content
        assert b"F009" in content or b"M018" in content


def test_read_findings_have_the_paths_of_this_machine(tmp_path: Path) -> None:
    file = _prepare(tmp_path / "one here")
    context, mixture = RunContext(workers=1), load_mixture(file)
    report = validate(salvage_mixture(file), context)
    write_findings(report, context, mixture)

    (dataset,) = resolve_mixture(mixture).datasets
    found = inspect_findings(dataset, context, mixture).findings
    of_mixture = inspect_mixture_findings(mixture, context).findings

    assert [*(found or ()), *(of_mixture or ())] == list(report.findings)
    assert any(str(tmp_path) in str(each.command) for each in report.findings)


def test_written_findings_of_roots_name_no_folder(tmp_path: Path) -> None:
    file = _prepare(tmp_path)
    mixture = mixture_from_roots([file.parent / "set"])
    context = RunContext(workers=1, prep_dir=tmp_path / "prep")
    write_findings(validate(Salvage.of(mixture), context), context, mixture)

    assert str(tmp_path).encode() not in (tmp_path / "set/meta/validation.json").read_bytes()
    assert str(tmp_path).encode() not in (tmp_path / "prep/validation.json").read_bytes()
