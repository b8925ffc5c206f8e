from __future__ import annotations

import numpy as np
import pytest
from builders import tiny_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_mixtures import mixture, native_chunks

from opentau_prep.context import RunContext
from opentau_prep.tokenizer import evaluate as module
from opentau_prep.tokenizer.bpe import encode_points, train_bpe
from opentau_prep.tokenizer.evaluate import token_shares
from opentau_prep.tokenizer.options import FitOptions
from opentau_prep.tokenizer.prepare import prepare_tokenizer, sample_mixture
from opentau_prep.tokenizer.quantize import code_points, quantize

ZERO = 200  # two bytes in UTF-8, as with headroom


def slow_shares(tokenizer, points, zero):
    """Token by token in Python: equal parts for the bytes of numbers that are not 0."""
    total = np.zeros(points.shape[1])
    for row in points:
        places = [i for i, point in enumerate(row) for _ in chr(point).encode()]
        at = 0
        for token in tokenizer.encode("".join(map(chr, row))).tokens:
            mine = places[at : at + len(token)]
            at += len(token)
            counted = [i for i in mine if row[i] != zero] or mine
            for i in counted:
                total[i] += 1 / len(counted)
    return total


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_token_shares_equal_a_count_token_by_token(data):
    steps = st.sampled_from([0, 0, 0, 0, 1, -1, 5, -150, 3000])
    rows = st.lists(st.lists(steps, min_size=6, max_size=6), min_size=1, max_size=9)
    points = (np.array(data.draw(rows)) + ZERO).astype(np.uint32)
    groups = np.array([data.draw(st.integers(0, 1)) for _ in points])
    tokenizer = train_bpe(points, vocab_size=data.draw(st.sampled_from([256, 262, 290])))
    vocabulary = tokenizer.get_vocab()
    sizes = np.array([len(t) for t in sorted(vocabulary, key=vocabulary.__getitem__)])
    encoded = encode_points(tokenizer, points)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", 2)
        found = token_shares(points, encoded, sizes, groups, n_groups=2, zero=ZERO)
    for group in (0, 1):
        expected = slow_shares(tokenizer, points[groups == group], ZERO)
        assert np.allclose(found[group], expected, rtol=0, atol=1e-9)
    assert found.sum() == pytest.approx(encoded.lengths.sum())


def test_the_report_explains_lengths_and_measures_half_the_scale_and_rate(tmp_path):
    resolved = mixture(tmp_path, tiny_dataset(tmp_path, lengths=[14] * 12))
    options = FitOptions(8, 4, 120, vocab_size=300, scale=20.0)
    context = RunContext(workers=1)
    document = prepare_tokenizer(resolved, context, options, tmp_path / "out").document
    found, lengths = document["explained"], document["token_lengths"]["total"]
    assert found["total"]["mean"] == pytest.approx(lengths["mean"])
    assert sum(found["total"]["per_dim"]) == pytest.approx(lengths["mean"])
    assert len(found["total"]["per_frequency"]) == 8
    (head,) = found["heads"].values()
    assert head["per_dim"] == pytest.approx(found["total"]["per_dim"])
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json"))
    min_token = document["quantized"]["min_token"]
    fine = sample_mixture(resolved, context, options, scales=(4000.0,))
    native = native_chunks(fine, {"chunk_size": 8}, scale=4000.0)[fine.corpus.in_share]
    normal = options.convention.normalize(native, *fine.heads.stats_of(0))
    for name, chunks, scale in (
        ("half_scale", normal, 10.0),
        ("half_rate", np.ascontiguousarray(normal[:, ::2]), 20.0),
    ):
        points = code_points(quantize(chunks, scale), min_token)
        mean = encode_points(tokenizer, points).lengths.mean()
        assert found[name]["mean"] == pytest.approx(mean, rel=0.02)
        assert found[name]["mean"] < lengths["mean"]
    assert (found["half_scale"]["scale"], found["half_rate"]["chunk_size"]) == (10.0, 4)
