"""Rules on what lies in a dataset's folder, and on tokenizer folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from breaking import check, check_mixture, codes_of, info, lines, mutation, write_broken

from opentau_prep.config.load import load_mixture, mixture_from_roots
from opentau_prep.context import RunContext
from opentau_prep.metadata.resolve import resolve_mixture
from opentau_prep.speed import prepare_speed

SPEED = "meta/speed_percentiles.jsonl"


def test_validate_fresh_artifacts_says_nothing(prepared: Path) -> None:
    assert list(check(prepared).findings) == []


def _truncate(root: Path) -> None:
    file = root / SPEED
    file.write_bytes(file.read_bytes()[:-9])


def _edit_speed(root: Path) -> None:
    file = root / SPEED
    file.write_bytes(file.read_bytes() + b"\n")


def _drop_row(root: Path) -> None:
    (root / "meta/prep/speed_percentiles.json").unlink()
    lines(SPEED, lambda rows: rows[:1])(root)


def _strange_task(root: Path) -> None:
    (root / "meta/prep/speed_percentiles.json").unlink()
    lines(SPEED, lambda rows: [{**row, "task_index": row["task_index"] + 7} for row in rows])(root)


def _remove(rel: str) -> Callable[[Path], None]:
    return lambda root: (root / rel).unlink()


def _grow(root: Path) -> None:
    file = root / "data/chunk-000/episode_000001.parquet"
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(file), file, compression="none")


def _tear_head(root: Path) -> None:
    next((root / "meta/norm_heads").glob("*.json")).write_bytes(b'{"a": ')


def _misspell_head(root: Path) -> None:
    head = next((root / "meta/norm_heads").glob("*.json"))
    head.write_text(head.read_text().replace('"members"', '"member"'))


def _rename_task(root: Path) -> None:
    lines("meta/tasks.jsonl", lambda rows: [{**r, "task": r["task"] + "!"} for r in rows])(root)
    edit = lambda rows: [{**r, "tasks": [t + "!" for t in r["tasks"]]} for r in rows]  # noqa: E731
    lines("meta/episodes.jsonl", edit)(root)


ARTIFACTS = [
    ("A001", _truncate),
    ("A001", _tear_head),
    ("A001", _misspell_head),
    ("A002", _rename_task),
    ("A002", _grow),
    ("A003", _remove("meta/prep/speed_percentiles.json")),
    ("A004", _edit_speed),
    ("A005", _remove(SPEED)),
    ("A003 A006", _drop_row),
    ("A003 A006", _strange_task),
]


@pytest.mark.parametrize(("codes", "change"), ARTIFACTS)
def test_validate_changed_artifact_fires_its_rules_only(
    prepared: Path, codes: str, change: Callable[[Path], None]
) -> None:
    change(prepared)

    report = check(prepared, deep=False)

    told = [f"{f.code} {f.place}: {f.message}" for f in report.findings]
    assert codes_of(report) == set(codes.split()), "\n".join(told)


def test_validate_same_size_other_content_is_stale_only_when_deep(prepared: Path) -> None:
    file = prepared / "data/chunk-000/episode_000001.parquet"
    content = file.read_bytes()
    assert b"parquet-cpp" in content  # the writer's name, in the footer
    file.write_bytes(content.replace(b"parquet-cpp", b"parquet-abc"))

    assert codes_of(check(prepared, deep=False)) == set()
    assert codes_of(check(prepared, deep=True)) == {"A002"}


# Tokenizer folders


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A mixture and a folder as `fit-tokenizer` writes it for that mixture."""
    from tokenizers import Tokenizer, models

    from opentau_prep.heads.mixture import mixture_norm_heads
    from opentau_prep.tokenizer import ProcessorSettings, processor_files

    home = tmp_path_factory.mktemp("fitted")
    write_broken(home / "a", mutation("clean", ""))
    file = home / "mixture.json"
    file.write_text(json.dumps({"datasets": [{"repo_id": "lab/a", "root": str(home / "a")}]}))
    mixture = load_mixture(file)
    heads = mixture_norm_heads(mixture, max_state_dim=32, max_action_dim=32)
    tokenizer = Tokenizer(models.BPE())
    settings = ProcessorSettings(
        scale=10, vocab_size=300, min_token=-40, action_dim=32, time_horizon=50
    )
    folder = home / "tokenizer"
    folder.mkdir()
    for name, content in processor_files(tokenizer, settings).items():
        (folder / name).write_bytes(content)
    ranges = {
        key: {s: stats["actions"][s].tolist() for s in ("min", "max")}
        for key, stats in zip(heads.norm_keys, heads.per_norm_key_stats, strict=True)
    }
    report = {
        "mixture_hash_sha256": mixture.sha256,
        "chunk_size": 50,
        "action_dim": 32,
        "config_version": 1,
        "vocab_size": 300,
        "scale": 10,
        "normalization": "per_robot_type_control_mode",
        "per_head_action_stats": ranges,
        "token_lengths": {"datasets": {"lab/a": {"counts": {"40": 9, "60": 1}}}},
    }
    (folder / "fit_report.json").write_text(json.dumps(report))
    norm = {"config_version": 1, "zero_range_center": True}
    (folder / "opentau_action_norm.json").write_text(json.dumps(norm))
    return file, folder


def _report(**values: Any) -> Callable[[Path], None]:
    return _json("fit_report.json", **values)


def _json(name: str, **values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / name
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    return change


TOKENIZERS = [
    ("clean", "", lambda folder: None),
    ("no norm file", "N001", _remove("opentau_action_norm.json")),
    ("no tokenizer", "N001", _remove("tokenizer.json")),
    ("processor torn", "N001", lambda f: (f / "processor_config.json").write_text("{")),
    ("report is a list", "N001", lambda f: (f / "fit_report.json").write_text("[]")),
    ("another mixture", "N002", _report(mixture_hash_sha256="0" * 64)),
    ("another chunk size", "N003 N009", _json("processor_config.json", time_horizon=16)),
    ("another scale", "N003", _json("processor_config.json", scale=5)),
    (
        "another version",
        "N004",
        _json("opentau_action_norm.json", config_version=0, zero_range_center=False),
    ),
    ("contradiction", "N004", _json("opentau_action_norm.json", zero_range_center=False)),
    ("another mode", "N004", _json("opentau_action_norm.json", normalization="QUANTILE")),
    ("other mode's stats", "N004 N006", _report(normalization_mode="MEAN_STD")),
    ("version of text", "N004", _json("opentau_action_norm.json", config_version="1")),
    ("too narrow", "N003 N005", _json("processor_config.json", action_dim=4)),
    (
        "other ranges",
        "N006",
        _report(
            per_head_action_stats={"demo_arm6::joint": {"min": [-9.0] * 32, "max": [9.0] * 32}}
        ),
    ),
    ("a head unknown", "N006", _report(per_head_action_stats={})),
    (
        "truncates",
        "N007",
        _report(token_lengths={"datasets": {"lab/a": {"counts": {"50": 3, "61": 1}}}}),
    ),
]


@pytest.mark.parametrize(
    ("codes", "change"), [t[1:] for t in TOKENIZERS], ids=[t[0] for t in TOKENIZERS]
)
def test_validate_tokenizer_folder_fires_its_rules_only(
    tmp_path: Path, fitted: tuple[Path, Path], codes: str, change: Callable[[Path], None]
) -> None:
    import shutil

    mixture, folder = fitted
    copy = tmp_path / "tokenizer"
    shutil.copytree(folder, copy)
    change(copy)

    report = check_mixture(mixture, tokenizer=copy, chunk_size=50, max_tokens=60)

    told = [f"{f.code} {f.place}: {f.message}" for f in report.findings]
    assert codes_of(report) == set(codes.split()), "\n".join(told)


def test_validate_truncated_tokens_are_told_by_dataset(prepared: Path) -> None:
    entry = {
        "dataset": "lab/prepared",
        "norm_key": "arm::joint",
        "fitted_chunks": 10,
        "token_lengths": {"n_chunks": 10, "truncated_share": 0.25},
        "roundtrip": None,
    }
    document = {
        "format": "opentau-prep/action-tokens",
        "mixture_id": "mixture-0123456789ab",
        "chunk_size": 50,
        "action_dim": 32,
        "vocab_size": 300,
        "scale": 10.0,
        "config_version": 1,
        "max_token_length": None,
        "measured_on": "held-out episodes",
        "discrete_action_max_length": 60,
        "entries": [entry],
    }
    file = prepared / "meta/action_tokens/mixture-0123456789ab.json"
    file.parent.mkdir()
    file.write_text(json.dumps(document))

    report = check(prepared, deep=False)

    assert codes_of(report) == {"A003", "N008"}
    assert "25.0% of the chunks" in str([f.message for f in report.findings])


def test_validate_artifact_root_is_looked_into(tmp_path: Path) -> None:
    from opentau_prep.config.salvage import Salvage
    from opentau_prep.validate import validate

    root, elsewhere = tmp_path / "d", tmp_path / "artifacts"
    write_broken(root, mutation("clean", ""))
    mixture = mixture_from_roots([root])
    context = RunContext(workers=1, artifact_root=elsewhere)
    prepare_speed(resolve_mixture(mixture), context)
    (elsewhere / "d" / SPEED).write_bytes(b"{")
    info(total_episodes=6)(root)

    assert codes_of(validate(Salvage.of(mixture), context)) == {"A001"}
