"""What a mixture says about its samples: rows and members are those of its norm heads."""

import json
from types import SimpleNamespace

import pytest
from builders import tiny_dataset

from opentau_prep import DataError, build_norm_heads, load_mixture
from opentau_prep.context import RunContext
from opentau_prep.demo.mixture import write_demo
from opentau_prep.metadata.resolve import resolve_mixture
from opentau_prep.notices import collect_notices
from opentau_prep.val_loss.mixture import validation_sets
from opentau_prep.val_loss.prepare_plan import prepare_plan
from opentau_prep.val_loss.samples import Cell
from opentau_prep.val_loss.sources import mixture_sources


def mixture(tmp_path, entries, **fields):
    path = tmp_path / "mixture.json"
    path.write_text(json.dumps({"datasets": entries, **fields}))
    return resolve_mixture(load_mixture(path))


@pytest.fixture
def entries(tmp_path):
    tiny_dataset(tmp_path, "v2.1", name="a", lengths=[10, 20, 31], data=False)
    tiny_dataset(tmp_path, "v3.0", name="b", lengths=[40, 9], data=False)
    return [
        {"repo_id": "o/a", "root": "a", "robot_type": "arm", "control_mode": "joint"},
        {"vqa": "clevr"},
        {"repo_id": "o/b", "root": "b", "robot_type": " arm", "control_mode": "joint "},
        {"repo_id": "o/a", "root": "a", "episodes": [0, 2], "excluded_episodes": [0],
         "robot_type": "arm", "control_mode": "Unknown", "val_split_ratio": 0.5},
    ]  # fmt: skip


def test_validation_sets_count_selected_frames_with_each_entrys_ratio(tmp_path, entries):
    sets = validation_sets(mixture(tmp_path, entries, val_split_ratio=0.1))
    found = [(s.name, s.n_frames, s.val_split_ratio, s.n_samples) for s in sets]
    assert found == [
        ("o/a#0", 61, 0.1, 6), ("clevr", 0, 0.1, 0), ("o/b", 49, 0.1, 4), ("o/a#1", 31, 0.5, 15)
    ]  # fmt: skip


def test_validation_sets_silent_ratio_is_the_mixtures_default(tmp_path, entries):
    sets = validation_sets(mixture(tmp_path, entries))
    assert [s.val_split_ratio for s in sets] == [0.05, 0.05, 0.05, 0.5]


def test_validation_sets_ratio_zero_of_an_entry_is_not_silence(tmp_path, entries):
    entries[0]["val_split_ratio"] = 0.0
    assert validation_sets(mixture(tmp_path, entries))[0].n_samples == 0


def test_mixture_sources_null_weights_are_held_out_frames(tmp_path, entries):
    sources = mixture_sources(mixture(tmp_path, entries))
    # OpenTau infers the weights of validation from the lengths of the validation sets.
    assert sources.weights == {"o/a#0": 3.0, "clevr": 0.0, "o/b": 2.0, "o/a#1": 15.0}
    assert sources.weights_from == "held_out_frames"


def test_mixture_sources_weights_are_parallel_to_all_entries_vqa_too(tmp_path, entries):
    sources = mixture_sources(mixture(tmp_path, entries, weights=[1, 2, 3, 4]))
    assert sources.weights == {"o/a#0": 1.0, "clevr": 2.0, "o/b": 3.0, "o/a#1": 4.0}


def test_mixture_sources_vqa_entry_has_a_head_row_of_its_own(tmp_path, entries):
    sources = mixture_sources(mixture(tmp_path, [entries[1], *entries[:1], *entries[2:]]))
    assert sources.norm_keys == ("clevr", "arm::joint", "o/a#1")
    assert sources.dataset_to_norm_index == {"clevr": 0, "o/a#0": 1, "o/b": 1, "o/a#1": 2}


def test_mixture_sources_rows_are_those_of_the_norm_heads(tmp_path):
    resolved = resolve_mixture(load_mixture(write_demo(tmp_path / "demo")))
    metas = [
        SimpleNamespace(info={"robot_type": e.robot_type, "control_mode": e.control_mode})
        for e in resolved.entries
    ]
    heads = build_norm_heads(
        dataset_names=[e.name for e in resolved.entries],
        per_dataset_stats=[{} for _ in metas],
        metadatas=metas,
        raw_dims=[(1, 1)] * len(metas),
    )
    sources = mixture_sources(resolved)
    assert list(sources.norm_keys) == heads.norm_keys
    assert sources.dataset_to_norm_index == heads.dataset_to_norm_index


def test_check_refuses_other_datasets_and_other_rows(tmp_path, entries):
    sources = mixture_sources(mixture(tmp_path, entries))
    for cell in (Cell("o/a#0", 0, None), Cell("o/a#1", 2, "joint"), Cell("clevr", 1, None)):
        sources.check_member(cell)
    with pytest.raises(
        DataError, match=r"'o/a' is not in the mixture, which has o/a#0, clevr, o/b"
    ):
        sources.check_member(Cell("o/a", 0, None))
    for cell in (Cell("o/a#1", 0, None), Cell("o/b", -1, None), Cell("clevr", 0, None)):
        with pytest.raises(DataError, match="norm-head row"):
            sources.check_member(cell)


def test_prepare_plan_says_once_what_has_no_part_in_it(tmp_path, entries):
    resolved = mixture(tmp_path, [*entries, {"vqa": "coco"}], val_split_ratio=0.2)
    with collect_notices() as said:
        prepare_plan(resolved, RunContext(), world_size=2, batch_size=4)
    assert [n.kind for n in said] == ["vqa_left_out"]
    assert "are left out: " in said[0].message
    assert "clevr, coco" in said[0].message
