from __future__ import annotations

import json

import numpy as np
import pytest
from builders import tiny_dataset
from tokenizer_mixtures import mixture, sample
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from opentau_prep.context import RunContext
from opentau_prep.errors import DataError
from opentau_prep.tokenizer.measure import measure_tokenizer
from opentau_prep.tokenizer.options import FitOptions
from opentau_prep.tokenizer.prepare import prepare_tokenizer

OPTIONS = FitOptions(8, 4, 120, vocab_size=300)


def test_measure_of_a_fitted_folder_gives_the_lengths_of_its_report(tmp_path):
    resolved = mixture(tmp_path, tiny_dataset(tmp_path, lengths=[12] * 10))
    context = RunContext(workers=1)
    fitted = prepare_tokenizer(resolved, context, OPTIONS, tmp_path / "out", max_length=20)
    found = measure_tokenizer(resolved, context, OPTIONS, tmp_path / "out", max_length=20)
    assert found.document["token_lengths"] == fitted.document["token_lengths"]
    assert (found.document["lossy_chunks"], found.document["clipped_chunks"]) == (0, 0)


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
    assert found["clipped_chunks"] == (held < 0).any(axis=1).sum() > 0
    assert found["lossy_chunks"] == found["chunks"] == len(held)
    assert found["wrong_length_chunks"] == found["chunks"]
    assert found["token_lengths"]["total"]["max"] < 8 * 4
    assert np.sum(list(found["lossy_by_dataset"].values())) == found["chunks"]


def test_measure_of_another_folder_raises(tmp_path):
    resolved = mixture(tmp_path, tiny_dataset(tmp_path))
    with pytest.raises(DataError, match="processor_config"):
        measure_tokenizer(resolved, RunContext(workers=1), OPTIONS, tmp_path)
