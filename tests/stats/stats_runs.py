"""Run the stats verbs in this process, and compute the same the plain way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from opentau_prep.config.load import mixture_from_roots
from opentau_prep.context import RunContext
from opentau_prep.metadata.resolve import resolve_mixture
from opentau_prep.stats.compute import prepare_stats
from opentau_prep.stats.options import StatsOptions

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}


def run_stats(*roots, workers=1, force=False, dry_run=False, keep_going=False, **options):
    """Return the report of `stats` on dataset folders."""
    artifact_root = options.pop("artifact_root", None)
    context = RunContext(
        workers=workers,
        force=force,
        dry_run=dry_run,
        keep_going=keep_going,
        artifact_root=artifact_root,
    )
    resolved = resolve_mixture(mixture_from_roots(roots))
    return prepare_stats(resolved, context, StatsOptions(**options))


def run_one(root, **options):
    """Return the one dataset's result."""
    report = run_stats(root, **options)
    assert not report.failures
    (result,) = report.results
    return result


def statuses(result):
    """Return file -> status."""
    return {file.name: file.status for file in result.files}


def frames_of(root):
    """Return column -> (N, D) array, and each frame's episode."""
    files = sorted((Path(root) / "data").rglob("*.parquet"))
    table = pa.concat_tables([pq.read_table(file) for file in files])
    columns = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        flat = column.flatten() if pa.types.is_nested(column.type) else column
        columns[name] = flat.to_numpy(zero_copy_only=False).reshape(len(table), -1)
    return columns, columns["episode_index"][:, 0]


def plain_stats(rows):
    """Return stat -> (D,) of (N, D) frames, by one NumPy call each in float64."""
    wide = rows.astype(np.float64)
    found = {
        "min": wide.min(axis=0),
        "max": wide.max(axis=0),
        "mean": wide.mean(axis=0),
        "std": wide.std(axis=0),
        "count": np.array([len(rows)]),
    }
    return {**found, **{n: np.quantile(wide, q, axis=0) for n, q in QUANTILES.items()}}


def assert_plain(found, rows, *, exact_quantiles=True):
    """Check the stats of one feature against NumPy: moments to 1e-12, quantiles to the bit."""
    for stat, expected in plain_stats(rows).items():
        got = np.asarray(found[stat], dtype=np.float64).reshape(-1)
        if stat in QUANTILES:
            if exact_quantiles:
                np.testing.assert_array_equal(got, expected, err_msg=stat)
        elif stat in ("mean", "std"):
            np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-15, err_msg=stat)
        else:
            np.testing.assert_array_equal(got, expected, err_msg=stat)


def read_lines(path):
    """Return the objects of a JSON-lines file."""
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def bytes_below(folder):
    """Return every file's bytes."""
    folder = Path(folder)
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }
