"""Whole mixtures against OpenTau's results on the same files (scripts/parity_opentau.py)."""

from __future__ import annotations

import json

import pytest
from golden_io import assert_same_bits, decode, golden_cases

from opentau_prep import load_mixture, mixture_norm_heads
from opentau_prep.metadata.resolve import resolve_mixture
from opentau_prep.metadata.split import train_val_split
from opentau_prep.notices import collect_notices


@pytest.mark.parametrize("case", golden_cases("trainer_heads"))
def test_mixture_equals_opentau_in_rows_heads_and_held_out_frames(tmp_path, case):
    for name, text in case["files"].items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "mixture.json").write_text(json.dumps(case["mixture"]))
    with collect_notices():
        mixture = load_mixture(tmp_path / "mixture.json")
        resolved = resolve_mixture(mixture)
        heads = mixture_norm_heads(resolved, **case["widths"])
    expected = case["expected"]
    assert heads.norm_keys == expected["norm_keys"]
    assert heads.dataset_to_norm_index == expected["dataset_to_norm_index"]
    assert heads.norm_key_to_dataset_names == expected["norm_key_to_dataset_names"]
    assert_same_bits(heads.per_norm_key_stats, decode(expected["stats"]))
    rows = dict(zip(mixture.dataset_names, expected["held_out"], strict=True))
    for entry in resolved.entries:
        table, own = entry.meta.episodes, entry.config.val_split_ratio
        n = int(table.length[table.positions(entry.episodes)].sum())
        ratio = mixture.val_split_ratio if own is None else own
        assert train_val_split(n, ratio, case["seed"])[1].tolist() == rows[entry.name]
