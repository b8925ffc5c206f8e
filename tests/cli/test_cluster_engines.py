"""Commands on a cluster write what they write on one machine, byte for byte."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_runner import run_cli
from clusters import PACKAGES, need, running_cluster

FIT = ("--chunk-size", "10", "--total-chunks", "200", "--max-token-length", "16")
COMMANDS = (
    ("stats",),
    ("speed-percentiles",),
    ("fit-tokenizer", *FIT, "--vocab-size", "512"),
    ("validate", "--deep", "--write"),
    ("run",),
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cluster") / "demo"
    assert run_cli("demo", "--out", folder).code == 0
    return folder


@pytest.fixture(scope="module")
def local(demo: Path) -> dict[str, Any]:
    return content_after_commands(demo)


@pytest.fixture(params=list(PACKAGES))
def cluster(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    with running_cluster(request.param) as address:
        yield request.param, address


def content_after_commands(demo: Path, *options: object) -> dict[str, Any]:
    """Run the commands on a copy that is always at the same place; return every file's content.

    The mixture and its roots are relative to the working directory, which the workers do not share.
    """
    root, before = Path(shutil.copytree(demo, demo.parent / "copy")), os.getcwd()
    os.chdir(root.parent)
    try:
        for words in COMMANDS:
            ran = run_cli(*words, "--quiet", "--mixture-json", "copy/mixture.json", *options)
            assert ran.code == 0, (words, ran.out, ran.err)
        found = sorted(path for path in root.rglob("*") if path.is_file())
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}
    finally:
        os.chdir(before)
        shutil.rmtree(root)


@pytest.mark.slow
def test_commands_on_a_cluster_write_the_same_bytes(
    demo: Path, local: dict[str, Any], cluster: tuple[str, str]
) -> None:
    engine, address = cluster
    options = ["--engine", engine, "--engine-address", address]
    found = content_after_commands(demo, *options)
    assert sorted(found) == sorted(local)
    assert [name for name in found if found[name] != local[name]] == []
    if engine == "dask":
        assert modules_of_workers(address) >= {
            "opentau_prep.stats.compute",
            "opentau_prep.speed.compute",
            "opentau_prep.tokenizer.corpus",
            "opentau_prep.validate.check",
        }


@pytest.mark.slow
@pytest.mark.parametrize("command", ["stats", "stats --format openpi"])
def test_relative_paths_mean_those_of_the_command_not_of_the_workers(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    with running_cluster("dask") as address:  # whose workers are somewhere else
        monkeypatch.chdir(tmp_path)
        shutil.copytree(demo / "datasets/demo/arm6_pick", "mine")
        options = ["--artifact-root", "out", "--engine", "dask", "--engine-address", address]
        ran = run_cli(*command.split(), "mine", *options)
    assert ran.code == 0, ran.err
    assert list(Path("out").rglob("*stats.json")) != []


def modules_of_workers(address: str) -> set[str]:
    """Return which modules every worker has, so what ran there and not beside the command."""
    import distributed

    with distributed.Client(address, set_as_default=False) as client:
        found = client.run(eval, "set(__import__('sys').modules)")
    return set.intersection(*found.values())


@pytest.mark.slow
@pytest.mark.parametrize("engine", list(PACKAGES))
def test_stats_json_on_a_cluster_of_its_own_is_the_local_document(
    demo: Path, engine: str, tmp_path: Path
) -> None:
    need(engine)
    documents = []
    for name in ("local", engine):
        root = Path(shutil.copytree(demo, tmp_path / name / "demo"))
        options = ["--engine", name, "--workers", 2, "--json"]
        ran = run_cli("stats", "--mixture-json", "demo/mixture.json", *options, cwd=root.parent)
        assert ran.code == 0, ran.err
        documents.append((ran.json, ran.err))
    assert documents[0] == documents[1]


def test_engine_address_that_nobody_answers_exits_4(demo: Path) -> None:
    need("dask")
    address = ["--engine", "dask", "--engine-address", "nonsense://x"]
    ran = run_cli("stats", "--mixture-json", demo / "mixture.json", *address)
    assert (ran.code, ran.out) == (4, "")
    assert "--engine-address nonsense://x" in ran.err
    assert "Traceback" not in ran.err
