"""Dims in another order, on stats drawn here: found where stats can tell, and only there."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from opentau_prep.heads.audit import audit_heads

# Six joints: 1 and 2 overlap, but rest elsewhere and swing by other amounts; 3 and 4 are alike.
CENTER = np.array([0.0, -0.4, 0.2, 0.1, 0.1, 2.0])
SCALE = np.array([0.5, 0.35, 0.5, 0.4, 0.4, 0.6])


def drawn(rng, *, center=CENTER, scale=SCALE):
    """Return mean, std, min and max of a dataset: rows of (4, 6)."""
    mean = center + scale * rng.normal(size=6) * 0.3
    std = scale * np.exp(rng.normal(size=6) * 0.15)
    low = mean - std * (2.0 + 0.2 * rng.normal(size=6))
    high = mean + std * (2.0 + 0.2 * rng.normal(size=6))
    return np.stack([mean, std, low, high])


def head(rng, n):
    return [drawn(rng) for _ in range(n)]


NAMES = ("waist", "shoulder", "elbow", "wrist_a", "wrist_b", "gripper")


def found(stats, names=None, index=None):
    members = []
    for number, rows in enumerate(stats):
        vector = dict(zip(("mean", "std", "min", "max"), rows, strict=True))
        entry = SimpleNamespace(
            name=str(number),
            meta=SimpleNamespace(features=declared((names or {}).get(number))),
            name_map=SimpleNamespace(columns={"state": "s", "actions": "a"}),
            config=SimpleNamespace(state_index=(index or {}).get(number), action_index=None),
        )
        members.append(
            SimpleNamespace(
                name=str(number),
                norm_key="made_up::joint",
                entry=entry,
                stats={"state": vector, "actions": vector},
                kept_dims=lambda _feature: 6,
            )
        )
    report = audit_heads(members)
    return [(f.dataset, f.kind, f.dims["state"]) for f in report.findings]


def declared(names):
    return {} if names is None else {"s": SimpleNamespace(names=names)}


def ordered(rows, order):
    return rows[:, list(order)]


@pytest.mark.parametrize("seed", range(6))
def test_audit_swap_of_overlapping_dims_is_found_among_many(seed):
    stats = head(np.random.default_rng(seed), 24)
    assert found(stats) == []
    stats[5] = ordered(stats[5], (0, 2, 1, 3, 4, 5))
    assert found(stats) == [("5", "dim_order", (1, 2))]


@pytest.mark.parametrize("n_members", [5, 9, 24])
def test_audit_swap_of_alike_dims_is_not_guessed_at(n_members):
    for seed in range(6):
        stats = head(np.random.default_rng(100 + seed), n_members)
        stats[0] = ordered(stats[0], (0, 1, 2, 4, 3, 5))
        assert found(stats) == []


@pytest.mark.parametrize("n_members", [5, 12])
def test_audit_three_dims_in_a_ring_are_found_with_few_members(n_members):
    rng = np.random.default_rng(3)
    center, scale = CENTER + np.array([0, 0, 0, 4, 8, 12]), SCALE
    stats = [drawn(rng, center=center, scale=scale) for _ in range(n_members)]
    stats[2] = ordered(stats[2], (0, 1, 2, 4, 5, 3))
    assert found(stats) == [("2", "dim_order", (3, 4, 5))]


@pytest.mark.parametrize("n_members", [5, 10, 24])
@pytest.mark.parametrize("how", ["calm", "wide", "elsewhere"])
def test_audit_unusual_but_right_members_are_left_alone(n_members, how):
    for seed in range(5):
        rng = np.random.default_rng((seed, n_members))
        stats = head(rng, n_members)
        center, scale = CENTER.copy(), SCALE.copy()
        if how == "elsewhere":
            center[:3] += rng.choice([-1.0, 1.0], 3) * 0.7 * SCALE[:3]
        else:
            scale *= 0.4 if how == "calm" else 1.6
        stats[0] = drawn(rng, center=center, scale=scale)
        assert found(stats) == []


def test_audit_order_is_told_alike_in_every_unit():
    stats = head(np.random.default_rng(1), 24)
    stats[5] = ordered(stats[5], (0, 2, 1, 3, 4, 5))
    ticks = [rows * 4096 / (2 * np.pi) for rows in stats]
    assert found(ticks) == found(stats) != []


@pytest.mark.filterwarnings("error")
def test_audit_order_is_told_beside_broken_stats():
    stats = head(np.random.default_rng(2), 24)
    stats[5] = ordered(stats[5], (0, 2, 1, 3, 4, 5))
    for number, broken in ((8, np.nan), (9, np.inf), (10, -np.inf)):
        stats[number][:, number - 8] = broken
    stats[11][:, 3] = 0.0
    assert ("5", "dim_order", (1, 2)) in found(stats)
    stats[12][2:, 0] = -1e300, 1e300
    assert ("5", "dim_order", (1, 2)) in found(stats)


def named(n_members, **orders):
    everyone = dict.fromkeys(range(n_members), NAMES)
    return everyone | {
        int(key[1:]): tuple(NAMES[i] for i in order) for key, order in orders.items()
    }


@pytest.mark.parametrize("n_members", [2, 3, 9])
def test_audit_names_in_another_order_are_found_whatever_the_stats(n_members):
    stats = head(np.random.default_rng(4), n_members)
    assert found(stats, named(n_members)) == []
    swapped = named(n_members, n1=(0, 1, 2, 4, 3, 5))
    assert found(stats, swapped) == [("1", "dim_names", (3, 4))]


def test_audit_names_in_another_order_are_told_once_where_stats_tell_it_too():
    stats = head(np.random.default_rng(0), 24)
    order = (0, 2, 1, 3, 4, 5)
    stats[5] = ordered(stats[5], order)
    assert found(stats, named(24, n5=order)) == [("5", "dim_names", (1, 2))]


def test_audit_other_names_or_a_selected_order_are_no_finding():
    stats = head(np.random.default_rng(5), 6)
    names = named(6, n1=(0, 1, 2, 4, 3, 5))
    names[2] = tuple(name.upper() for name in NAMES)
    names[3] = NAMES[:4]
    names[4] = ("dim",) * 6
    del names[5]
    assert found(stats, names, {1: [0, 1, 2, 4, 3, 5]}) == []
    assert found(stats, names) == [("1", "dim_names", (3, 4))]


def test_audit_names_of_most_members_are_the_right_ones():
    stats = head(np.random.default_rng(6), 5)
    order = (1, 0, 2, 3, 4, 5)
    names = named(5, n0=order, n2=order, n4=order)
    assert found(stats, names) == [("1", "dim_names", (0, 1)), ("3", "dim_names", (0, 1))]
