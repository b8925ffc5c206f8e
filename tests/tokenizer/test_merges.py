"""`learn_merges` against the trainer of the `tokenizers` library, merge by merge."""

from __future__ import annotations

import json

import numpy as np
import pytest
from builders import copy_real
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_mixtures import mixture, sample
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from opentau_prep.tokenizer import bpe
from opentau_prep.tokenizer import words as words_module
from opentau_prep.tokenizer.bpe import strings_of_points, train_bpe
from opentau_prep.tokenizer.merges import learn_merges
from opentau_prep.tokenizer.quantize import code_points
from opentau_prep.tokenizer.words import apply_merges, byte_symbols

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())


def reference(words: list[str], vocab_size: int, cap: int | None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[],
        initial_alphabet=ALPHABET,
        max_token_length=cap,
    )
    tokenizer.train_from_iterator(words, trainer=trainer)
    return tokenizer


def learned(words: list[str], vocab_size: int, cap: int | None) -> dict:
    """The vocabulary and merges in the form of `tokenizer.json`, where a pair has its last rank."""
    text = [word.encode() for word in words]
    (found,) = learn_merges(
        np.frombuffer(b"".join(text), dtype=np.uint8),
        np.array([len(word) for word in text]),
        vocab_size=vocab_size,
        caps=[cap],
    )
    characters = dict(zip(byte_symbols(), ALPHABET, strict=True))
    tokens = ["".join(characters[byte] for byte in token) for token in found.tokens]
    last = {pair: rank for rank, pair in enumerate(found.pairs)}
    pairs = sorted(last, key=last.__getitem__)
    return {
        "vocab": {token: i for i, token in enumerate(tokens)},
        "merges": [[tokens[left], tokens[right]] for left, right in pairs],
    }


@st.composite
def corpora(draw) -> list[str]:
    """Words of few or many symbols, with runs of one symbol and repeated words."""
    first = draw(st.sampled_from([0, 65, 0x7C, 0x7FD]))
    symbol = st.integers(0, draw(st.sampled_from([0, 1, 2, 8, 60])))
    run = st.tuples(symbol, st.sampled_from([1, 1, 1, 2, 3, 8, 21]))
    word = st.lists(run, min_size=1, max_size=draw(st.sampled_from([1, 4, 25])))
    distinct = draw(st.lists(word, min_size=1, max_size=12))
    repeats = draw(st.lists(st.sampled_from(distinct), max_size=6))
    return ["".join(chr(first + s) * n for s, n in runs) for runs in distinct + repeats]


CASES = {
    "words": corpora(),
    "vocab_size": st.sampled_from([256, 258, 270, 330]),
    "cap": st.sampled_from([None, None, 1, 2, 3, 5, 9, 40]),
    "block": st.sampled_from([1 << 20, 16]),
    "flat": st.sampled_from([0, 0, 4, 200]),  # 0: on a linked list from the second merge on
}


def _assert_equals_reference(words, vocab_size, cap, block, flat):
    expected = json.loads(reference(words, vocab_size, cap).to_str())["model"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words_module, "_BLOCK", block)
        patch.setattr(words_module, "_FLAT_ABOVE", flat)
        assert learned(words, vocab_size, cap) == {k: expected[k] for k in ("vocab", "merges")}


@settings(max_examples=40, deadline=None)
@given(**CASES)
def test_learn_merges_equal_those_of_the_reference(words, vocab_size, cap, block, flat):
    _assert_equals_reference(words, vocab_size, cap, block, flat)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(**CASES)
def test_learn_merges_equal_those_of_the_reference_on_many(words, vocab_size, cap, block, flat):
    _assert_equals_reference(words, vocab_size, cap, block, flat)


@settings(max_examples=30, deadline=None)
@given(
    words=corpora(),
    measured=corpora(),
    caps=st.lists(st.sampled_from([None, 1, 2, 3, 5, 9, 40]), min_size=1, max_size=4),
    block=CASES["block"],
    flat=CASES["flat"],
)
def test_train_and_measure_equals_single_fits_and_the_library_s_encoding(
    words, measured, caps, block, flat
):
    text = [word.encode() for word in words + measured]
    caps = sorted(set(caps), key=lambda cap: -(cap or 1 << 30))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words_module, "_BLOCK", block)
        patch.setattr(words_module, "_FLAT_ABOVE", flat)
        found = list(
            learn_merges(
                np.frombuffer(b"".join(text), dtype=np.uint8),
                np.array([len(word) for word in text]),
                vocab_size=290,
                caps=caps,
                n_measured=len(measured),
            )
        )
    for cap, each in zip(caps, found, strict=True):
        expected = reference(words, 290, cap)
        tokenizer = bpe._of_merges(each)
        assert tokenizer.to_str() == expected.to_str()
        encoded = expected.encode_batch(measured)
        rows = [code.ids for code in encoded]
        assert bpe.Encoded(each.ids, each.lengths).rows() == rows
        text = [word.encode() for word in measured]
        encoded = apply_merges(
            np.frombuffer(b"".join(text), dtype=np.uint8),
            np.array([len(word) for word in text]),
            each.pairs,
            vocab_size=290,
        )
        assert bpe.Encoded(*encoded).rows() == rows


def test_byte_symbols_follow_the_alphabet_of_byte_level_models():
    tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    symbols = byte_symbols()
    assert sorted(symbols) == list(range(256))
    for symbol, byte in enumerate(symbols):
        if byte < 0x80:
            assert tokenizer.pre_tokenize_str(chr(byte))[0][0] == ALPHABET[symbol]


@pytest.mark.parametrize("first", [0, 100, 3000])
def test_train_bpe_folder_equals_that_of_the_reference(first):
    steps = np.random.default_rng(0).integers(-1, 2, size=(40, 12, 30))
    points = (np.cumsum(steps, axis=1) + 15).clip(0).reshape(40, -1).astype(np.uint32) + first
    for cap in (None, 16):
        expected = reference(strings_of_points(points), 600, cap)
        assert train_bpe(points, vocab_size=600, max_token_length=cap).to_str() == expected.to_str()


def test_train_bpe_of_a_large_vocabulary_is_left_to_the_library(monkeypatch):
    points = np.random.default_rng(0).integers(0, 5, size=(20, 40)).astype(np.uint32)
    expected = train_bpe(points, vocab_size=300).to_str()
    monkeypatch.setattr(bpe, "MAX_VOCAB", 299)
    monkeypatch.setattr(bpe, "learn_merges", None)
    assert train_bpe(points, vocab_size=300).to_str() == expected


@pytest.mark.slow
@pytest.mark.parametrize("min_token", [None, -128])
@pytest.mark.parametrize("cap", [None, 64])
def test_train_bpe_chunks_of_published_data_equal_reference(tmp_path, min_token, cap):
    for name in ("g1_pick_bottle", "so101_record_test"):
        resolved = mixture(tmp_path, copy_real(name, tmp_path))
        sampling = sample(resolved, chunk_size=50, action_dim=32, total_chunks=400, holdout=0.1)
        values = sampling.corpus.values[0]
        points = code_points(values, int(values.min()) if min_token is None else min_token)
        expected = reference(strings_of_points(points), 2048, cap).to_str()
        assert train_bpe(points, vocab_size=2048, max_token_length=cap).to_str() == expected
