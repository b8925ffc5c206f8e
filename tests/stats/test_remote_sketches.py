"""What reads or writes beside a dataset, for a dataset in a store."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import tiny_dataset
from fake_stores import fake_store, upload

from opentau_prep.config.load import mixture_from_roots
from opentau_prep.config.norm_stats import NormStatsConfig
from opentau_prep.context import RunContext
from opentau_prep.errors import ArtifactError, ConfigError
from opentau_prep.metadata import load_dataset_metadata
from opentau_prep.metadata.resolve import resolve_mixture
from opentau_prep.speed import load_or_compute_speed_percentiles, prepare_speed
from opentau_prep.stats.compute import prepare_stats
from opentau_prep.stats.load import load_sketches
from opentau_prep.stats.openpi_run import OpenpiJob, prepare_openpi

ROOT = "fake://bucket/tiny"


@pytest.fixture
def store(tmp_path: Path):
    with fake_store("fake", concurrent=True) as found:
        upload(found, tiny_dataset(tmp_path), "bucket/tiny")
        yield found


def test_load_sketches_from_artifact_root_or_store(store, tmp_path: Path) -> None:
    context = RunContext(workers=1, artifact_root=tmp_path / "made")
    prepare_stats(resolve_mixture(mixture_from_roots([ROOT])), context)
    made = load_sketches(ROOT, artifact_root=tmp_path / "made")
    assert made is not None
    assert load_sketches(ROOT) is None
    upload(store, tmp_path / "made/tiny", "bucket/tiny")
    for dataset in (ROOT, load_dataset_metadata(ROOT)):
        found = load_sketches(dataset)
        assert found is not None
        assert {k: v.to_bytes() for k, v in found.items()} == {
            k: v.to_bytes() for k, v in made.items()
        }


@pytest.mark.parametrize("verb", [prepare_stats, prepare_speed])
def test_verbs_without_artifact_root_read_no_frames(store, verb) -> None:
    resolved = resolve_mixture(mixture_from_roots([ROOT]))
    with pytest.raises(ArtifactError, match="--artifact-root DIR"):
        verb(resolved, RunContext(workers=1))
    assert not [path for path, *_ in store.asked if "/data/" in path]


def test_finished_stats_in_a_store_read_no_frames(store, tmp_path: Path) -> None:
    context = RunContext(workers=1, artifact_root=tmp_path / "made")
    prepare_stats(resolve_mixture(mixture_from_roots([ROOT])), context)
    store.asked.clear()
    again = prepare_stats(resolve_mixture(mixture_from_roots([ROOT])), context)
    assert [result.files_read for result in again.results] == [0]
    assert not [path for path, *_ in store.asked if "/data/" in path]


def test_what_needs_a_folder_says_so() -> None:
    for call in (
        lambda: load_or_compute_speed_percentiles("s3://b/x", {}, {}, {}),
        lambda: prepare_openpi([OpenpiJob("x", "s3://b/x")], RunContext()),
        lambda: NormStatsConfig(base_dir="s3://b/x").folder(),
        lambda: RunContext(artifact_root=Path("s3://b/x")),
    ):
        with pytest.raises(ConfigError):
            call()
