"""A dataset that outlasts the others is read by all workers, with the bytes of one."""

from __future__ import annotations

import shutil

import pyarrow.parquet as pq
import pytest
from builders import tiny_dataset
from clusters import running_cluster

from opentau_prep.config.load import mixture_from_roots
from opentau_prep.context import RunContext
from opentau_prep.metadata.resolve import resolve_mixture
from opentau_prep.stats import compute, scan
from opentau_prep.stats.compute import prepare_stats


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A dataset of 40 files that counts as large, between two small ones."""
    folder = tmp_path / "source"
    tiny_dataset(folder, "v2.1", 2, name="a")
    tiny_dataset(folder, "v2.1", 40, name="b", lengths=[30] * 40)
    tiny_dataset(folder, "v3.0", 3, name="c")
    monkeypatch.setattr(compute, "_LARGE_FRAMES", 1000)
    # Blocks of about 100 frames: a batch holds a few files.
    monkeypatch.setattr(scan, "BLOCK_BYTES", 4096)
    return folder


def _stats(source, folder, **how):
    """Compute stats of copies; return every file below them, and the report."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    roots = sorted(str(path) for path in folder.iterdir())
    report = prepare_stats(resolve_mixture(mixture_from_roots(roots)), RunContext(**how))
    assert [each.name for each in (*report.results, *report.failures)] == ["a", "b", "c"]
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}, report


def test_a_large_dataset_stays_here_and_takes_threads(source, tmp_path, monkeypatch):
    alone, _ = _stats(source, tmp_path / "copy", workers=1)
    seen = []

    def in_order(self, what, fn, items, labels):
        return [fn(item) for item in items]

    def noting(entry, *, run):
        seen.append((entry.name, run.threads))
        return work(entry, run=run)

    work = compute._prepare_one
    monkeypatch.setattr(compute, "_prepare_one", noting)
    jobs = resolve_mixture(mixture_from_roots([str(source / name) for name in "abc"])).first_entries
    assert compute._are_large(jobs, RunContext(workers=2)).tolist() == [False, True, False]
    monkeypatch.setattr(
        RunContext, "map", lambda self, what, fn, items, labels: list(map(fn, items))
    )
    together, _ = _stats(source, tmp_path / "copy", workers=2)
    assert seen == [("b", 2), ("a", 1), ("c", 1)]
    assert together == alone


@pytest.mark.slow
def test_parts_of_a_large_dataset_are_spread_over_a_cluster(source, tmp_path):
    alone, _ = _stats(source, tmp_path / "copy", workers=1)
    with running_cluster("dask") as address:
        how = {"engine": "dask", "engine_address": address, "workers": 2}
        spread, _ = _stats(source, tmp_path / "copy", **how)
        files = sorted((source / "b/data").rglob("*.parquet"))
        files[7].write_bytes(b"torn")
        table = pq.read_table(files[9])
        pq.write_table(table.drop_columns(["action"]), files[9])
        _, report = _stats(source, tmp_path / "copy", keep_going=True, **how)
    assert spread == alone
    broken = next(each for each in report.results if each.name == "b")
    assert [finding.code for finding in broken.findings] == ["unreadable_file"] * 2
