from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opentau_prep.notices import collect_notices
from opentau_prep.tokenizer import choose
from opentau_prep.tokenizer.bpe import encode_points, train_bpe, trainer_bytes, utf8_bytes
from opentau_prep.tokenizer.choose import BpePlan, Candidate, fit_bpe, proportional_order


def _points(n: int, seed: int, length: int = 120) -> np.ndarray:
    """Rows of 20 repeated motifs and a long padded tail."""
    rng = np.random.default_rng(seed)
    motifs = np.random.default_rng(99).integers(100, 160, (20, 10))
    rows = np.full((n, length), 127, dtype=np.uint32)
    rows[:, :20] = motifs[rng.integers(0, 20, (n, 2))].reshape(n, 20)
    return rows


def _fit(n=64, plan=None, **kwargs):
    points = _points(n, 0)
    return fit_bpe(points, np.arange(n), _points(40, 1), plan or BpePlan(vocab_size=330), **kwargs)


@settings(max_examples=60, deadline=None)
@given(counts=st.lists(st.integers(0, 30), min_size=1, max_size=8), data=st.data())
def test_proportional_order_every_prefix_is_proportional(counts, data):
    order = proportional_order(counts)
    assert sorted(order.tolist()) == list(range(sum(counts)))
    group = np.repeat(np.arange(len(counts)), counts)
    n = data.draw(st.integers(0, sum(counts)))
    taken = np.bincount(group[order[:n]], minlength=len(counts))
    for i, count in enumerate(counts):
        own = order[group[order] == i]
        assert (np.diff(own) > 0).all()
        assert abs(taken[i] - n * count / max(1, sum(counts))) <= len(counts) / 2 + 1


def test_fit_bpe_chooses_the_cap_with_shortest_held_out(monkeypatch):
    monkeypatch.setattr(choose, "_PILOT_CHUNKS", 32)
    fit = _fit()
    by_cap = {c.max_token_length: c.mean for c in fit.candidates if c.n_chunks == 32}
    assert set(by_cap) == {64, 256, 1024, None}
    assert by_cap[64] > min(by_cap.values())
    assert fit.chosen.max_token_length == 256  # as short as without a cap: the smallest such wins
    assert by_cap[256] == by_cap[None]


def test_fit_bpe_reported_length_is_that_of_its_tokenizer():
    fit = _fit()
    assert fit.chosen.mean == encode_points(fit.tokenizer, _points(40, 1)).lengths.mean()


def test_fit_bpe_stops_when_more_chunks_no_longer_help(monkeypatch):
    monkeypatch.setattr(choose, "_PILOT_CHUNKS", 64)
    fit = _fit(n=1024)
    assert fit.stopped_by == "converged"
    assert max(c.n_chunks for c in fit.candidates) < 1024


def test_fit_bpe_grows_while_more_chunks_help(monkeypatch):
    monkeypatch.setattr(choose, "_PILOT_CHUNKS", 2)
    fit = _fit(n=64, plan=BpePlan(vocab_size=700))
    sizes = [c.n_chunks for c in fit.candidates if c.max_token_length is None]
    assert len(fit.candidates) > 5
    assert fit.chosen.mean == min(c.mean for c in fit.candidates)
    assert fit.chosen.n_chunks > sizes[0]


def test_fit_bpe_without_growth_uses_all_chunks_once():
    fit = _fit(plan=BpePlan(vocab_size=330, caps=(16,), grow=False))
    assert [(c.n_chunks, c.max_token_length) for c in fit.candidates] == [(64, 16)]
    expected = train_bpe(_points(64, 0), vocab_size=330, max_token_length=16)
    assert fit.tokenizer.to_str() == expected.to_str()
    assert fit.stopped_by == "corpus"


def test_fit_bpe_corpus_beyond_memory_is_cut_and_said():
    size = utf8_bytes(_points(64, 0))
    memory = trainer_bytes(int(size * 20.5 / 64), 330)
    plan = BpePlan(vocab_size=330, caps=(None,), grow=False, memory_bytes=memory)
    with collect_notices() as notices:
        fit = _fit(plan=plan)
    assert fit.chosen.n_chunks == 20
    assert fit.stopped_by == "memory"
    (notice,) = notices
    assert notice.kind == "corpus_cut"
    assert (notice.details["asked"], notice.details["limit"]) == (64, 20)


def test_fit_bpe_progress_sees_every_candidate():
    seen: list[Candidate] = []
    fit = _fit(progress=seen.append)
    assert tuple(seen) == fit.candidates


@pytest.mark.parametrize("seed", [0, 1])
def test_fit_bpe_order_of_corpus_rows_decides_only_what_prefix_is_used(seed):
    points = _points(64, 0)
    order = np.random.default_rng(seed).permutation(64)
    plan = BpePlan(vocab_size=330, caps=(None,), grow=False)
    fit = fit_bpe(points, order, _points(40, 1), plan)
    assert fit.tokenizer.to_str() == _fit(plan=plan).tokenizer.to_str()


def test_fit_bpe_fewer_chunks_than_asked_for_another_reason_is_not_memory():
    plan = BpePlan(vocab_size=330, caps=(16,), grow=False, asked=80)
    with collect_notices() as notices:
        fit = _fit(plan=plan)
    assert (fit.chosen.n_chunks, fit.stopped_by, notices) == (64, "corpus", [])


def test_fit_bpe_corpus_that_was_cut_beforehand_is_said_and_stops_early(monkeypatch):
    monkeypatch.setattr(choose, "_PILOT_CHUNKS", 16)
    memory = trainer_bytes(utf8_bytes(_points(70, 0)), 330)
    plan = BpePlan(330, caps=(None,), grow=False, memory_bytes=memory, asked=5_000)
    with collect_notices() as notices:
        fit = _fit(plan=plan)
    assert notices[0].details == {"asked": 5_000, "limit": 64}
    assert fit.candidates[0].n_chunks == 16
    assert fit.stopped_by in ("converged", "memory")
