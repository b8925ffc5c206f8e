from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tokenizers import pre_tokenizers

from opentau_prep.errors import ConfigError
from opentau_prep.tokenizer.bpe import (
    affordable_words,
    decode_points,
    encode_points,
    strings_of_points,
    train_bpe,
    trainer_bytes,
    utf8_bytes,
)
from opentau_prep.tokenizer.quantize import code_points, quantize, values_of_code_points

VALID = st.one_of(
    st.integers(0, 0xD7FF), st.integers(0xE000, 0xFFFC), st.integers(0xFFFE, 0x10FFFF)
)


def smooth_chunks(n: int = 200, horizon: int = 16, dim: int = 6, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 6, (n, 1, dim)) + np.linspace(0, 2, horizon)[None, :, None]
    chunks = np.sin(phase * rng.uniform(0.2, 1, (n, 1, dim)))
    chunks[..., dim // 2 :] = 0  # padded dims
    return chunks.astype(np.float32)


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    return code_points(quantize(smooth_chunks(), 10), -127)


@pytest.fixture(scope="module")
def tokenizer(points):
    return train_bpe(points, vocab_size=512)


def test_strings_of_points_keep_nul_at_the_end():
    assert strings_of_points(np.array([[65, 0], [0, 0]], dtype=np.uint32)) == ["A\0", "\0\0"]


def test_utf8_bytes_equals_real_encoding():
    points = np.array([[0, 127, 128, 2047], [2048, 65535, 65536, 0x10FFFF]], dtype=np.uint32)
    assert utf8_bytes(points) == len("".join(strings_of_points(points)).encode())


@pytest.mark.parametrize("vocab_size", [2048, 32_000])
def test_affordable_words_is_the_inverse_of_trainer_bytes(vocab_size):
    memory = trainer_bytes(1600 * 5000, vocab_size)
    assert affordable_words(1600, vocab_size, memory) in (4999, 5000)
    assert affordable_words(1600, vocab_size, 1000) == 1


def test_train_bpe_vocabulary_holds_every_byte(tokenizer):
    assert set(pre_tokenizers.ByteLevel.alphabet()) <= set(tokenizer.get_vocab())
    assert tokenizer.get_vocab_size() == 512


@settings(max_examples=100, deadline=None)
@given(rows=hnp.arrays(np.uint32, st.tuples(st.integers(1, 4), st.integers(1, 30)), elements=VALID))
def test_encode_points_any_row_decodes_exactly(tokenizer, rows):
    flat, lengths = decode_points(tokenizer, encode_points(tokenizer, rows).rows())
    assert lengths.tolist() == [rows.shape[1]] * len(rows)
    assert np.array_equal(flat.reshape(rows.shape), rows)


@pytest.mark.parametrize("factor", [1.0, 2.5, 40.0])
def test_encode_points_out_of_range_chunks_decode_exactly(tokenizer, factor):
    values = quantize(smooth_chunks(50, seed=1) * np.float32(factor), 10).clip(-127)
    ids = encode_points(tokenizer, code_points(values, -127))
    flat, _ = decode_points(tokenizer, ids.rows())
    assert np.array_equal(values_of_code_points(flat, -127).reshape(values.shape), values)


def test_encode_points_learned_chunks_are_short(tokenizer, points):
    assert encode_points(tokenizer, points).lengths.mean() < points.shape[1] / 4


def test_decode_points_broken_utf8_is_marked(tokenizer):
    lead = tokenizer.token_to_id("Ã")  # byte 0xC3, which must be followed by another
    flat, lengths = decode_points(tokenizer, [[lead], []])
    assert flat.tolist() == [0xFFFD]
    assert lengths.tolist() == [1, 0]


def test_train_bpe_token_cap_holds(points):
    capped = train_bpe(points, vocab_size=512, max_token_length=8)
    assert max(map(len, capped.get_vocab())) <= 8
    free = train_bpe(points, vocab_size=512)
    assert max(map(len, free.get_vocab())) > 8
    longer = encode_points(capped, points).lengths.mean()
    assert encode_points(free, points).lengths.mean() < longer


def test_train_bpe_order_of_chunks_does_not_matter(points):
    shuffled = points[np.random.default_rng(0).permutation(len(points))]
    assert (
        train_bpe(shuffled, vocab_size=400).to_str() == train_bpe(points, vocab_size=400).to_str()
    )


def test_train_bpe_repeated_chunks_weigh_more():
    often, seldom = [65, 66, 67], [70, 71, 72]
    rows = np.array([often] * 9 + [seldom] * 2, dtype=np.uint32)
    merges = json.loads(train_bpe(rows, vocab_size=258).to_str())["model"]["merges"]
    assert merges == [["A", "B"], ["AB", "C"]]


def test_train_bpe_pair_seen_once_is_not_merged():
    rows = np.array([[65, 66, 67], [68, 69, 70]], dtype=np.uint32)
    assert train_bpe(rows, vocab_size=300).get_vocab_size() == 256


@pytest.mark.parametrize(
    ("wrong", "where"),
    [({"vocab_size": 255}, "vocab_size"), ({"max_token_length": 0}, "max_token_length")],
)
def test_train_bpe_impossible_setting_raises(points, wrong, where):
    with pytest.raises(ConfigError, match=where):
        train_bpe(points, **{"vocab_size": 300, **wrong})


def test_train_bpe_no_chunks_raises():
    with pytest.raises(ConfigError, match="no chunks"):
        train_bpe(np.empty((0, 5), dtype=np.uint32), vocab_size=300)
