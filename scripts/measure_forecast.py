"""How often `forecast` names a planted fault, and how often it raises a false alarm.

python scripts/measure_forecast.py [--datasets N]

Datasets of one robot with different tasks are compared in all ordered pairs: one gives the stats,
the other the data, as they are and with each fault. `same` pairs are of one recording.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from opentau_prep.config.load import load_mixture
from opentau_prep.demo.audit import write_audit_demo
from opentau_prep.forecast.distribution import Distribution
from opentau_prep.forecast.members import read_members
from opentau_prep.forecast.mismatch import find_mismatches
from opentau_prep.metadata.resolve import resolve_mixture

FRACTIONS = {"min": 0.0, "q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99, "max": 1.0}


def main() -> None:
    """Print one line per kind of pair, fault and outcome."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--datasets", type=int, default=8)
    wanted = parser.parse_args().datasets
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        path = write_audit_demo(Path(folder) / "audit", n_datasets=wanted, faults={})
        members = read_members(resolve_mixture(load_mixture(path)))
    counts: Counter[tuple[str, str, str]] = Counter()
    for a, b in itertools.product(range(len(members)), repeat=2):
        for feature in ("state", "actions"):
            own = members[a].features[feature]
            grippers = own.grippers
            stats = _stats(members[b].features[feature].distribution)
            for fault, data in _faults(own.distribution, grippers):
                found = find_mismatches(data, stats, grippers)
                kinds = ", ".join(sorted({each.kind for each in found})) or "-"
                counts["same" if a == b else "other", fault, kinds] += 1
    totals: Counter[tuple[str, str]] = Counter()
    for (pair, fault, _), n in counts.items():
        totals[pair, fault] += n
    for (pair, fault, kinds), n in sorted(counts.items()):
        share = n / totals[pair, fault]
        print(f"{pair:6} {fault:18} {kinds:40} {n:6} {share:7.1%}")


def _stats(data: Distribution) -> dict[str, np.ndarray]:
    values = {name: data.quantile(q) for name, q in FRACTIONS.items()}
    known = {name: v for name, v in values.items() if np.isfinite(v).all()}
    return {"mean": data.mean, "std": data.std, **known}


def _faults(data: Distribution, grippers: tuple[int, ...]) -> Iterator[tuple[str, Distribution]]:
    joints = np.array([d not in grippers for d in range(data.dims)])
    yield "right", data
    yield "degrees", _moved(data, np.where(joints, 180 / np.pi, 1.0))
    for dim in (0, 1, 2):
        yield "flipped_sign", _moved(data, np.where(np.arange(data.dims) == dim, -1.0, 1.0))
    order = np.arange(data.dims)
    order[[1, 2]] = order[[2, 1]]
    yield "dim_order", data.select(order)
    yield "inverted", _moved(data, np.where(joints, 1.0, -1.0), np.where(joints, 0.0, -1.0))
    yield "offset", _moved(data, 1.0, np.where(np.arange(data.dims) == 1, 1.5, 0.0))


def _moved(data: Distribution, factor: object, shift: object = 0.0) -> Distribution:
    scale = np.broadcast_to(np.asarray(factor, dtype=np.float64), (data.dims,))
    values = scale * (data.values + np.asarray(shift))
    values = np.where(scale < 0, values[::-1], values)
    mean = scale * (data.mean + np.asarray(shift))
    return replace(data, values=values, mean=mean, std=np.abs(scale) * data.std)


if __name__ == "__main__":
    main()
