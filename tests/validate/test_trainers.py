"""What trainers cannot open, for the trainer that is asked for; chunks against episode lengths."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from breaking import FPS, LENGTHS, Mutation, check, check_mixture, codes_of, mutation, table
from breaking import write_broken as write

from opentau_prep.errors import DataError
from opentau_prep.validate.catalogue import all_rules, find_rule

COLUMNS = table(
    "data/*/*.parquet",
    lambda t: t.append_column("language_events", pa.array([""] * len(t), pa.string())),
)


@pytest.mark.parametrize(
    ("change", "trainer", "codes"),
    [
        (mutation("v2.1", ""), "opentau", ""),
        (mutation("v2.1", ""), "lerobot", "O005"),
        (mutation("v2.1", ""), "openpi", ""),
        (mutation("v3.0", "", "v3.0"), "opentau", ""),
        (mutation("v3.0", "", "v3.0"), "lerobot", ""),
        (mutation("v3.0", "", "v3.0"), "openpi", "O006"),
        (mutation("index", "", "v3.0", omit_columns=("index",)), "lerobot", "C005 O010"),
        (mutation("index", "", "v3.0", omit_columns=("index",)), "opentau", "C005"),
        (mutation("frame", "", "v3.0", omit_columns=("frame_index",)), "lerobot", "C005"),
        (mutation("time", "", omit_columns=("timestamp",)), "opentau", "C005 O007"),
        (mutation("time", "", omit_columns=("timestamp",)), "openpi", "C005 O007"),
        (mutation("language", "", "v3.0", files=COLUMNS), "lerobot", "C006 O008"),
        (mutation("language", "", "v3.0", files=COLUMNS), "opentau", "C006"),
    ],
    ids=lambda value: value.name if isinstance(value, Mutation) else value,
)
def test_validate_for_a_trainer_reports_what_it_cannot_open(
    tmp_path: Path, change: Mutation, trainer: str, codes: str
) -> None:
    write(tmp_path / "set", change)

    report = check(tmp_path / "set", deep=False, trainers=(trainer,))

    assert codes_of(report) == set(codes.split())
    assert all(f.severity == "error" for f in report.findings if f.code[0] == "O")


def test_validate_for_several_trainers_reports_for_each(tmp_path: Path) -> None:
    write(tmp_path / "set", mutation("v2.1", ""))

    assert codes_of(check(tmp_path / "set", trainers=("lerobot", "openpi"))) == {"O005"}
    assert codes_of(check(tmp_path / "set", trainers=())) == set()


@pytest.mark.parametrize(
    ("chunk_size", "action_freq", "fires"),
    [(max(LENGTHS), None, True), (min(LENGTHS), None, False), (60, 5, True), (60, 20, False)],
)
def test_validate_chunk_longer_than_most_episodes(
    tmp_path: Path, chunk_size: int, action_freq: float | None, fires: bool
) -> None:
    write(tmp_path / "set", mutation("clean", ""))
    mixture = {"datasets": [{"repo_id": "a/b", "root": "set"}], "action_freq": action_freq}
    (tmp_path / "m.json").write_text(json.dumps(mixture))

    report = check_mixture(tmp_path / "m.json", chunk_size=chunk_size)

    found = [f.message for f in report.findings if f.code == "M017"]
    assert bool(found) is fires
    if fires:
        seconds = chunk_size / (action_freq or FPS)
        assert f"{chunk_size} steps lasts {seconds:g} s" in found[0]


@pytest.mark.parametrize(
    ("root", "fires"), [("hf://buckets/lab/pick", True), ("hf://datasets/lab/pick", False)]
)
def test_validate_bucket_of_the_hub_cannot_be_opened(root: str, fires: bool) -> None:
    rule = find_rule("O009")
    view = SimpleNamespace(dataset=SimpleNamespace(root=root))

    assert bool(list(rule.check(view))) == fires
    assert rule.trainers == ("opentau", "openpi")


def test_validate_bucket_that_does_not_answer_is_named() -> None:
    fault = DataError("cannot be read", where="hf://buckets/lab/pick/meta/info.json")

    (found,) = find_rule("M003").check(SimpleNamespace(lost=[("pick", fault)]))

    assert "read no storage bucket" in found.message
    assert "copy the bucket" in str(found.hint)


def test_rule_texts_name_the_trainer_that_does_what_they_say() -> None:
    """'Training stops' is true of no version: words say which trainer, or speak of the data."""
    vague = re.compile(r"\b([Tt]he trainers?|[Tt]raining (stops|fails|refuses|looks)|readers)\b")

    wrong = [
        rule.code
        for rule in all_rules()
        if rule.holds_for.endswith("any trainer") and vague.search(f"{rule.what} {rule.why}")
    ]

    assert wrong == []
