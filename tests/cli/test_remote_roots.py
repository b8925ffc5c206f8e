"""Commands on roots that fsspec reads: what they make is what the plain folders give."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from builders import VERSIONS, tiny_dataset
from cli_runner import run_cli

# Provenance names what told of the inputs; a fit also says how long it took.
_OWN = re.compile(r"/prep/|prep\.json$|\.html$")
PLAN = ("--world-size", 2, "--batch-size", 2)
_VOLATILE = {"timings_seconds", "seconds", "mixture_json", "mixture_hash_sha256", "files"}


@pytest.fixture(scope="module")
def sides(tmp_path_factory) -> dict[str, Path]:
    """The same three datasets, named by path and by URL, each prepared by `run`."""
    home = tmp_path_factory.mktemp("remote")
    for i, version in enumerate(VERSIONS):
        lengths = [12 + 3 * k for k in range(5)]
        tiny_dataset(home / "data", version, name=version, lengths=lengths, seed=i)
    found = {}
    for side, prefix in (("local", ""), ("remote", "local://")):
        entries = [{"repo_id": v, "root": f"{prefix}{home}/data/{v}"} for v in VERSIONS]
        entries[1]["excluded_episodes"] = [2]
        found[side] = home / side
        found[side].mkdir()
        mixture = {"datasets": entries, "val_split_ratio": 0.2}
        (found[side] / "mix.json").write_text(json.dumps(mixture))
        ran = on(found[side], "run", "--workers", 2)
        assert ran.code == 0, ran.err
    return found


def on(side: Path, command: str, *options: object):
    return run_cli(
        command, "--mixture-json", "mix.json", "--artifact-root", "made", *options, cwd=side
    )


def made(side: Path) -> dict[str, object]:
    """Return the artifacts of a side without what must differ, by name."""
    found: dict[str, object] = {}
    for path in sorted(side.rglob("*")):
        name = re.sub(r"mix-[0-9a-f]{12}", "mix-ID", path.relative_to(side).as_posix())
        if path.is_dir() or _OWN.search(name) or name == "mix.json":
            continue
        content = re.sub(rb"mix-[0-9a-f]{12}", b"mix-ID", path.read_bytes())
        if name.endswith(("quantile_sketch.json", "fit_report.json")):
            found[name] = without_volatile(json.loads(content))
        else:
            found[name] = content
    return found


def without_volatile(value: object) -> object:
    if isinstance(value, dict):
        return {k: without_volatile(v) for k, v in value.items() if k not in _VOLATILE}
    return [without_volatile(v) for v in value] if isinstance(value, list) else value


def test_run_makes_the_same_artifacts(sides) -> None:
    local, remote = made(sides["local"]), made(sides["remote"])
    assert list(local) == list(remote)
    assert [name for name in local if local[name] != remote[name]] == []
    kinds = {Path(name).name for name in local}
    assert {
        "stats.json",
        "quantile_sketch.json",
        "speed_percentiles.jsonl",
        "norm_heads.json",
        "tokenizer.json",
        "mix-ID.json",
    } <= kinds


def test_run_writes_nothing_into_the_datasets(sides) -> None:
    data = sides["local"].parent / "data"
    assert not list(data.rglob("prep")) + list(data.rglob("quantile_sketch*"))


def test_run_again_finds_all_fresh(sides) -> None:
    before = {p: p.stat().st_mtime_ns for p in sides["remote"].rglob("*") if p.is_file()}
    ran = on(sides["remote"], "run", "--json")
    assert ran.code == 0
    steps = {step["step"]: step for step in ran.json["steps"]}
    assert {d["status"] for d in steps["stats"]["datasets"]} == {"up to date"}
    assert {d["files_read"] for d in steps["stats"]["datasets"]} == {0}
    assert before == {p: p.stat().st_mtime_ns for p in before}


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("val-plan", ("--world-size", 2, "--batch-size", 4, "--out", "plan.json")),
        ("validate", ("--write", "--deep", "--workers", 1)),
        ("heads", ("--out", "sketch_heads.json", "--quantiles", "sketch", "--audit")),
        ("report", ()),
    ],
)
def test_command_says_and_makes_the_same(sides, command: str, options) -> None:
    ran = {side: on(path, command, *options) for side, path in sides.items()}
    assert ran["remote"].code == ran["local"].code
    folders = str(sides["remote"]), str(sides["local"])  # commands are absolute
    assert ran["remote"].out.replace("local://", "").replace(*folders) == ran["local"].out
    assert ran["remote"].err.replace("local://", "") == ran["local"].err
    assert made(sides["remote"]) == made(sides["local"])


def test_changed_dataset_is_stale(sides, tmp_path: Path) -> None:
    side = tmp_path / "side"
    shutil.copytree(sides["remote"], side)
    data = tmp_path / "data"
    shutil.copytree(sides["local"].parent / "data", data)
    mixture = json.loads((side / "mix.json").read_text())
    for entry in mixture["datasets"]:
        entry["root"] = f"local://{data}/{entry['repo_id']}"
    (side / "mix.json").write_text(json.dumps(mixture))
    assert on(side, "stats").code == 0  # copies count as changed where a store tells only times
    file = next((data / "v3.0" / "data").rglob("*.parquet"))
    file.write_bytes(file.read_bytes() + b"")
    ran = on(side, "stats", "--json")
    read = {d["dataset"]: d["files_read"] for d in ran.json["datasets"]}
    assert read["v3.0"] > 0
    assert read["v2.0"] == read["v2.1"] == 0


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("stats", "URL"), 4, "--artifact-root DIR"),
        (("run", "URL"), 4, "--artifact-root DIR"),
        (("report", "URL"), 4, "--artifact-root DIR"),
        (("validate", "URL", "--write"), 4, "--artifact-root DIR"),
        (("validate", "URL", "--fix"), 2, "--fix changes files in place"),
        (("stats", "URL", "--format", "openpi", "--artifact-root", "A"), 2, "folders only"),
        (("stats", "nope://b/x", "--artifact-root", "A"), 2, "no driver is known"),
        (("stats", "s3://K:S3CRET@b/x", "--artifact-root", "A"), 2, "no credentials"),
        (("stats", "URL", "--artifact-root", "s3://b/made"), 2, "only paths are written to"),
        (("val-plan", "URL", *PLAN, "--out", "s3://b/p.json"), 2, "only paths are written to"),
        (("stats", "local:///none/x", "--artifact-root", "A"), 3, "info.json: file is missing"),
    ],
)
def test_refusals_come_at_once_and_clear(tmp_path: Path, sides, args, code: int, said: str) -> None:
    url = f"local://{sides['local'].parent}/data/v2.1"
    ran = run_cli(*(url if arg == "URL" else arg for arg in args), cwd=tmp_path)
    assert ran.code == code
    assert said in ran.err
    assert ran.err.count("\n") == 1
    assert "S3CRET" not in ran.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [("validate", "--json"), ("report", "--artifact-root", "A")])
def test_credentials_in_a_mixture_are_never_shown(tmp_path: Path, sides, command) -> None:
    good = f"{sides['local'].parent}/data/v2.1"
    roots = ["s3://K:S3CRET@b/x", "ftp://me:S3CRET@h/y?t=S3CRET", good]
    entries = [{"repo_id": f"a/{i}", "root": root} for i, root in enumerate(roots)]
    (tmp_path / "mix.json").write_text(json.dumps({"datasets": entries}))
    ran = run_cli(*command, "--mixture-json", "mix.json", cwd=tmp_path)
    assert ran.code == 1
    (tmp_path / "mix.json").unlink()
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    shown = "".join([ran.out, ran.err, *written])
    assert "no credentials" in shown
    assert "S3CRET" not in shown


def test_validate_and_val_plan_need_no_artifact_root(sides, tmp_path: Path) -> None:
    url = f"local://{sides['local'].parent}/data/v2.1"
    assert run_cli("validate", url, cwd=tmp_path).code in (0, 1)
    ran = run_cli("val-plan", url, *PLAN, cwd=tmp_path)
    assert ran.code == 0, ran.err
