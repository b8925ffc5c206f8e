from __future__ import annotations

import json

import numpy as np
import pytest
from builders import tiny_dataset
from tokenizer_mixtures import mixture, sample
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from opentau_prep.context import RunContext
from opentau_prep.errors import DataError
from opentau_prep.tokenizer.compare import measure_tokenizer
from opentau_prep.tokenizer.options import FitOptions
from opentau_prep.tokenizer.prepare import prepare_tokenizer

OPTIONS = FitOptions(8, 4, 120, vocab_size=300)


def test_measure_of_a_fitted_folder_gives_the_lengths_of_its_report(tmp_path):
    resolved = mixture(tmp_path, tiny_dataset(tmp_path, lengths=[12] * 10))
    context = RunContext(workers=1)
    fitted = prepare_tokenizer(resolved, context, OPTIONS, tmp_path / "out", max_length=20)
    found = measure_tokenizer(resolved, context, OPTIONS, tmp_path / "out", max_length=20)
    assert found.document["token_lengths"] == fitted.document["token_lengths"]
    lost = found.document["losses"]["total"]
    assert lost.pop("chunks") == found.document["token_lengths"]["datasets"]["t/tiny"]["n_chunks"]
    assert set(lost.values()) == {0}


def test_measure_counts_chunks_that_lose_bytes_and_numbers(tmp_path):
    """A model that knows the byte of 0 alone, as published fits lack bytes that they never saw."""
    characters = {
        byte: pre_tokenizers.ByteLevel(False).pre_tokenize_str(chr(byte))[0][0] for byte in range(1)
    }
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(characters.values())}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_str())
    config = {"scale": 10, "min_token": 0, "vocab_size": 1, "time_horizon": None}
    (tmp_path / "processor_config.json").write_text(json.dumps(config))
    resolved = mixture(tmp_path, tiny_dataset(tmp_path, lengths=[12] * 10))
    found = measure_tokenizer(resolved, RunContext(workers=1), OPTIONS, tmp_path).document
    corpus = sample(resolved, chunk_size=8, action_dim=4, total_chunks=120).corpus
    held = corpus.values[0][corpus.is_held]
    losses = found["losses"]
    lost = losses["total"]
    assert lost["clipped_chunks"] == (held < 0).any(axis=1).sum() > 0
    assert lost["lossy_chunks"] == lost["chunks"] == len(held)
    assert lost["wrong_length_chunks"] == lost["chunks"]
    assert found["token_lengths"]["total"]["max"] < 8 * 4
    text = b"".join("".join(map(chr, row.clip(0))).encode() for row in held)
    assert lost["out_of_vocabulary"] == pytest.approx(np.mean([byte != 0 for byte in text]))
    assert list(losses["datasets"].values()) == list(losses["heads"].values()) == [lost]


def test_measure_finds_a_hub_id_in_the_local_cache(tmp_path, monkeypatch):
    """A folder that transformers 5 saved, without a setting for the shape of chunks."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    resolved = mixture(tmp_path, tiny_dataset(tmp_path, lengths=[12] * 10))
    context = RunContext(workers=1)
    with pytest.raises(DataError, match="hf download lab/fast") as error:
        measure_tokenizer(resolved, context, OPTIONS, "lab/fast")
    assert "local hub cache" in str(error.value)
    fitted = prepare_tokenizer(resolved, context, OPTIONS, tmp_path / "out")
    snapshot = tmp_path / "hub/models--lab--fast/snapshots/abc"
    (snapshot / "bpe_tokenizer").mkdir(parents=True)
    ref = tmp_path / "hub/models--lab--fast/refs/main"
    ref.parent.mkdir()
    ref.write_text("abc")
    config = json.loads((tmp_path / "out/processor_config.json").read_text())
    config |= {"time_horizon": None, "action_dim": None}
    (snapshot / "processor_config.json").write_text(json.dumps(config))
    (tmp_path / "out/tokenizer.json").rename(snapshot / "bpe_tokenizer/tokenizer.json")
    found = measure_tokenizer(resolved, context, OPTIONS, "lab/fast")
    assert found.folder == snapshot
    assert found.document["token_lengths"] == fitted.document["token_lengths"]


def test_measure_of_another_folder_raises(tmp_path):
    resolved = mixture(tmp_path, tiny_dataset(tmp_path))
    with pytest.raises(DataError, match="processor_config"):
        measure_tokenizer(resolved, RunContext(workers=1), OPTIONS, tmp_path)
