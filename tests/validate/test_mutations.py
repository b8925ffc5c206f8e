"""Each mutation of a clean dataset is caught by the rules that should, and by no other."""

from __future__ import annotations

from pathlib import Path

import pytest
from breaking import check, check_mixture, codes_of, mutation, write_broken
from mutations import MUTATIONS

from opentau_prep.demo.mixture import write_demo
from opentau_prep.validate.catalogue import all_rules
from opentau_prep.validate.formats import as_text


@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v3.0"])
def test_validate_clean_dataset_says_nothing(tmp_path: Path, version) -> None:
    write_broken(tmp_path / "clean", mutation("clean", "", version))

    assert list(check(tmp_path / "clean").findings) == []


@pytest.mark.parametrize("change", MUTATIONS, ids=[m.name.replace(" ", "-") for m in MUTATIONS])
def test_validate_broken_dataset_fires_its_rules_only(tmp_path: Path, change) -> None:
    root = tmp_path / "broken"
    write_broken(root, change)

    report = check(root)

    told = [f"{f.code} {f.place}: {f.message}" for f in report.findings]
    assert codes_of(report) == change.codes, "\n".join(told)
    assert len(as_text(report).splitlines()) <= 12


def test_validate_without_the_frames_compares_stats_of_dataset_and_episodes(tmp_path: Path) -> None:
    older = next(m for m in MUTATIONS if m.name == "stats.json of older data")
    write_broken(tmp_path / "broken", older)

    assert codes_of(check(tmp_path / "broken", deep=False)) == {"S016"}  # with them: S017


@pytest.mark.parametrize("deep", [False, True])
def test_validate_clean_demo_notes_its_untagged_dataset_only(tmp_path: Path, deep: bool) -> None:
    # demo/old_push is there to show a dataset without tags: H002.
    report = check_mixture(write_demo(tmp_path / "demo"), deep=deep)

    assert [(f.code, f.severity) for f in report.findings] == [("H002", "note")]
    assert "demo/old_push" in report.findings[0].message


def test_mutations_are_sixty_or_more_and_reach_every_dataset_rule() -> None:
    caught = set().union(*(m.codes for m in MUTATIONS))
    elsewhere = {"A", "M", "N", "X"}  # tested with artifacts, mixtures and tokenizers

    # Without O009, of roots in a bucket of the hub: `test_trainers`; and S016, of which the frames
    # say more.
    own = [r for r in all_rules() if not r.trainers or "opentau" in r.trainers]
    missed = {r.code for r in own if r.scope != "mixture" and r.code[0] not in elsewhere}

    assert len(MUTATIONS) >= 60
    assert missed - caught == {"O009", "S016"}
