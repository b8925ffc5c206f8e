"""S020: whether the quantiles that training takes are those of the frames, as the sketch tells."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from breaking import both, check, codes_of, document, info, mutation, with_stats, write_broken

from opentau_prep.heads.mixture import build_mixture_heads
from opentau_prep.heads.options import HeadOptions
from opentau_prep.metadata.resolve import resolve_mixture
from opentau_prep.notices import collect_notices

STATE = "observation.state"  # the first column: folded findings give its numbers


def _written(root: Path, version="v2.1", *changes) -> Path:
    own = with_stats(episode_quantiles="episode")
    write_broken(root, mutation("", "", version, files=both(own, *changes)))
    return root


def test_validate_rank_is_that_of_the_pooled_value_among_the_frames(tmp_path: Path) -> None:
    root = _written(tmp_path / "d")
    files = sorted((root / "data").rglob("*.parquet"))
    parts = [np.stack(pq.read_table(f)[STATE].to_numpy()) for f in files]
    weights = [len(part) for part in parts]
    q01 = np.average([np.quantile(p, 0.01, axis=0) for p in parts], axis=0, weights=weights)
    ranks = (np.concatenate(parts) < q01).mean(axis=0)
    (found,) = [f for f in check(root, deep=False).findings if f.code == "S020"]
    assert found.severity == "note"

    share, dim = re.search(r"q01 is the ([\d.]+)% quantile in dim (\d)", found.message).groups()
    assert int(dim) == np.argmax(np.abs(ranks - 0.01))
    assert float(share) / 100 == pytest.approx(ranks[int(dim)], abs=0.005)


def test_validate_says_of_a_dataset_what_heads_says_of_its_head(tmp_path: Path) -> None:
    from opentau_prep.config.load import mixture_from_roots

    for whose in ("episode", "dataset"):
        root = tmp_path / whose
        write_broken(root, mutation("", "", files=with_stats(episode_quantiles=whose)))
        with collect_notices() as said:
            build_mixture_heads(resolve_mixture(mixture_from_roots([root])), HeadOptions())
        told = any(notice.kind == "pooled_quantile_rank" for notice in said)
        assert told == (whose == "episode")
        assert codes_of(check(root)) == ({"S020"} if told else set())


def _shifted(stats: dict) -> dict:
    stats["action"]["q99"] = stats["action"]["q90"]
    return stats


def test_validate_whole_stats_are_judged_without_reading_frames(tmp_path: Path) -> None:
    edit = document("meta/stats.json", _shifted)
    root = _written(tmp_path / "d", "v3.0", edit)
    assert codes_of(check(root, deep=False)) == {"A004", "S020"}
    assert codes_of(check(root, deep=True)) == {"A004", "S019"}  # which the frames tell better


def test_validate_sketch_of_other_data_tells_nothing(tmp_path: Path) -> None:
    root = _written(tmp_path / "d", "v2.1", info(total_episodes=6))
    file = next((root / "data").rglob("*.parquet"))
    pq.write_table(pq.read_table(file), file, compression="none")
    codes = codes_of(check(root, deep=False))
    assert "A002" in codes
    assert "S020" not in codes
