"""Which datasets a mixture has, and how much of each there is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from builders import tiny_dataset

from opentau_prep import load_mixture
from opentau_prep.errors import MetadataError
from opentau_prep.metadata.dataset import Extent
from opentau_prep.metadata.locate import LocateOptions
from opentau_prep.metadata.resolve import ResolvedMixture, resolve_mixture


def resolved(folder: Path, datasets: list[dict[str, object]], **options: bool) -> ResolvedMixture:
    path = folder / "mixture.json"
    path.write_text(json.dumps({"datasets": datasets}))
    locate = LocateOptions(tolerant=options.get("tolerant", False))
    return resolve_mixture(load_mixture(path), locate, keep_going=options.get("keep_going", False))


def test_two_spellings_of_one_folder_are_one_dataset(tmp_path):
    root = tiny_dataset(tmp_path, name="data/pick")
    (tmp_path / "link").symlink_to(root)
    found = resolved(
        tmp_path,
        [
            {"repo_id": "lab/pick", "root": str(root)},
            {"repo_id": "lab/again", "root": str(tmp_path / "link")},
        ],
    )
    (dataset,) = found.datasets
    assert [entry.name for entry in found.entries_of(dataset)] == ["lab/pick", "lab/again"]
    assert [entry.name for entry in found.first_entries] == ["lab/pick"]


def test_two_folders_of_one_id_are_two_datasets_with_artifacts_of_their_own(tmp_path):
    roots = [tiny_dataset(tmp_path, name=f"{name}/pick") for name in ("a", "b")]
    found = resolved(tmp_path, [{"repo_id": "lab/pick", "root": str(root)} for root in roots])
    assert [dataset.artifact_name for dataset in found.datasets] == ["lab/pick#0", "lab/pick#1"]


def test_a_folder_without_info_is_a_dataset_only_for_those_that_ask(tmp_path):
    good = tiny_dataset(tmp_path, name="good")
    (tmp_path / "bare").mkdir()
    entries = [
        {"repo_id": "lab/bare", "root": str(tmp_path / "bare")},
        {"repo_id": "lab/good", "root": str(good)},
    ]
    with pytest.raises(MetadataError):
        resolved(tmp_path, entries)
    found = resolved(tmp_path, entries, keep_going=True, tolerant=True)
    assert [entry.name for entry in found.entries] == ["lab/good"]
    bare, whole = found.located_datasets
    assert isinstance(bare.fault, MetadataError)
    assert whole.fault is None
    assert [entry.name for entry in found.entries_of(bare)] == ["lab/bare"]
    with pytest.raises(MetadataError):
        _ = bare.meta


def test_a_partial_download_is_distinguished_from_a_whole_dataset(tmp_path):
    root = tiny_dataset(tmp_path)
    (dataset,) = resolved(tmp_path, [{"repo_id": "lab/pick", "root": str(root)}]).datasets
    whole = dataset.extent
    assert dataset.present == dataset.declared == whole
    assert not dataset.is_partial
    length = int(dataset.meta.episodes.length[0])
    (root / dataset.meta.data_paths[0]).unlink()
    (dataset,) = resolved(tmp_path, [{"repo_id": "lab/pick", "root": str(root)}]).datasets
    assert dataset.present == Extent(whole.episodes - 1, whole.frames - length)
    assert dataset.is_partial


def test_what_info_promises_beyond_the_table_counts_as_declared(tmp_path):
    root = tiny_dataset(tmp_path)
    info = json.loads((root / "meta/info.json").read_text())
    info |= {"total_episodes": 105, "total_frames": 27_623}
    (root / "meta/info.json").write_text(json.dumps(info))
    (dataset,) = resolved(tmp_path, [{"repo_id": "lab/pick", "root": str(root)}]).datasets
    assert dataset.declared == Extent(105, 27_623)
    assert dataset.is_partial
