"""Members that do not belong to their head: found from their stats, against the other members'.

Each member is tested against a robust model of all others (`audit_model`) for the faults that
happen (`audit_faults`): the one that explains it best is undone, and the rest is tested again. What
no usual fault explains must also be an outlier by scikit-learn's local outlier factor, taken over
all members in the same scale-aware space. A head of few members is only tested for wrong units.
Where info.json declares the order of the dims, that is compared first (`reordered_names`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import opentau_prep
from opentau_prep.artifacts.fingerprint import remember, remembered
from opentau_prep.heads.audit_faults import (
    KINDS,
    Reordered,
    Suspicion,
    reordered_names,
    suspicions,
)
from opentau_prep.heads.audit_model import DimStats, HeadModel, fit_model
from opentau_prep.heads.members import VECTOR_FEATURES, HeadMember, dim_names, gripper_dims

__all__ = ["AuditFinding", "AuditReport", "AuditedHead", "audit_heads"]

_CACHED = "audits"
MIN_MEMBERS = 5
MANY_MEMBERS = 64
# Log odds that a finding needs: measured, with scripts/measure_audit.py, so that right members and
# honest but unusual ones stay below. What is tested against fewer others needs more.
_LEAST_GAIN = {"inverted": 2.0, "dim_order": 4.5, "flipped_sign": 6.0, "pose": 6.0, "unlike": 10.0}
_LEAST_GAIN_OTHERWISE = 8.0
_LEAST_GAIN_FEW = 20.0
_LEAST_LOF = 1.5
_BIG_UNITS = frozenset({"degrees", "ticks", "millimetres", "percent"})
_SMALL_UNITS = frozenset({"radians", "metres", "fraction"})


@dataclass(frozen=True)
class AuditFinding:
    """One thing about one member that does not fit its head.

    Attributes:
        dataset: The member.
        norm_key: The head.
        kind: What it looks like; see `opentau_prep.heads.audit_faults.KINDS`.
        dims: Feature -> the dims in question.
        message: All of it in words, with numbers.
        confidence: 0 to 1: how sure, if one member in a few hundred is faulty; 1 for what
            info.json says itself.
        gain: The log odds behind that; 0 where there was nothing to weigh.
    """

    dataset: str
    norm_key: str
    kind: str
    dims: Mapping[str, tuple[int, ...]]
    message: str
    confidence: float
    gain: float

    def as_json(self) -> dict[str, Any]:
        """Return the finding JSON-ready."""
        return {
            "dataset": self.dataset,
            "norm_key": self.norm_key,
            "kind": self.kind,
            "looks_like": KINDS[self.kind],
            "dims": {feature: list(dims) for feature, dims in self.dims.items()},
            "message": self.message,
            "confidence": round(self.confidence, 4),
            "gain": round(self.gain, 2),
        }


@dataclass(frozen=True)
class AuditedHead:
    """How far a head could be judged.

    Attributes:
        norm_key: The head.
        n_members: How many members it has.
        tests: `all`, `units` (too few members for more), or `none` (one member).
    """

    norm_key: str
    n_members: int
    tests: str

    def as_json(self) -> dict[str, Any]:
        """Return the record JSON-ready."""
        return {"norm_key": self.norm_key, "members": self.n_members, "tests": self.tests}


@dataclass(frozen=True)
class AuditReport:
    """The outcome for a mixture.

    Attributes:
        findings: In order of heads, then of members.
        heads: One per head, by row.
    """

    findings: Sequence[AuditFinding]
    heads: Sequence[AuditedHead]

    def as_json(self) -> dict[str, Any]:
        """Return the report JSON-ready."""
        return {
            "findings": [finding.as_json() for finding in self.findings],
            "heads": [head.as_json() for head in self.heads],
        }


def audit_heads(members: Sequence[HeadMember], *, remembering: bool = False) -> AuditReport:
    """Return the members that do not belong to their head, from their metadata alone.

    With fewer than five members only wrong units and declared orders are looked at; more than half
    of a head must be right for the rest to be recognized as wrong.

    Args:
        members: All members of a mixture, in order.
        remembering: Take what was found of a head of the same stats from this user's cache.
    """
    groups: dict[str, list[HeadMember]] = {}
    for member in members:
        groups.setdefault(member.norm_key, []).append(member)
    findings: list[AuditFinding] = []
    heads = []
    for key, group in groups.items():
        tests = "all" if len(group) >= MIN_MEMBERS else "units" if len(group) > 1 else "none"
        heads.append(AuditedHead(key, len(group), tests))
        if tests != "none":
            audit = _remembered_audit if remembering else _audit_head
            findings += audit(key, group, few=tests == "units")
    return AuditReport(findings, heads)


@dataclass(frozen=True)
class _Found:
    """What the tests of one feature found about one member."""

    feature: str
    suspicion: Suspicion
    stats: DimStats
    model: HeadModel


def _remembered_audit(key: str, group: Sequence[HeadMember], *, few: bool) -> list[AuditFinding]:
    names = "\n".join([key, *(member.name for member in group)])
    digest = _hash_of(group)
    try:
        known = remembered(_CACHED, names)[digest]
        return [AuditFinding(**each, dims=_tuples(dims)) for each, dims in known]
    except (KeyError, TypeError, ValueError, AttributeError):  # unknown, or damaged
        pass
    found = _audit_head(key, group, few=few)
    entries = []
    for each in found:
        fields = {name: value for name, value in vars(each).items() if name != "dims"}
        entries.append([fields, {feature: list(dims) for feature, dims in each.dims.items()}])
    remember(_CACHED, names, {digest: entries})
    return found


def _tuples(dims: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    return {feature: tuple(map(int, some)) for feature, some in dims.items()}


def _hash_of(group: Sequence[HeadMember]) -> str:
    """Return the hash of all that the audit of a head looks at."""
    digest = hashlib.sha256(f"{opentau_prep.__version__}\0".encode())
    for member in group:
        for feature in VECTOR_FEATURES:
            width = member.kept_dims(feature)
            stats = DimStats.of(member.stats[feature], width).stacked()
            names = dim_names(member.entry, feature, width)
            facts = [member.name, member.norm_key, feature, width, names]
            digest.update(json.dumps(facts).encode("ascii") + b"\n" + stats.tobytes())
    return digest.hexdigest()


def _audit_head(key: str, group: Sequence[HeadMember], *, few: bool) -> list[AuditFinding]:
    found: dict[str, list[_Found]] = {member.name: [] for member in group}
    declared = reordered_names(group)
    deviations: list[NDArray[np.float64]] = []
    for feature in VECTOR_FEATURES:
        stats = [DimStats.of(m.stats[feature], m.kept_dims(feature)) for m in group]
        models = _models(stats)
        for member, own, model in zip(group, stats, models, strict=True):
            grippers = gripper_dims(dim_names(member.entry, feature, len(own.mean)))
            for suspicion in _explain(model, own, grippers, few=few):
                found[member.name].append(_Found(feature, suspicion, own, model))
        rows = [m.z(s) for m, s in zip(models, stats, strict=True)]
        deviations.append(np.stack(rows).reshape(len(group), -1))
    suspected = any(f.suspicion.kind == "unlike" for some in found.values() for f in some)
    outlying = (
        _outlier_factors(np.concatenate(deviations, axis=1), few=few)
        if suspected
        else np.ones(len(group))
    )
    findings = []
    for member, factor in zip(group, outlying, strict=True):
        if member.name in declared:
            findings.append(_declared(member, key, declared[member.name]))
        # What info.json says itself need not be guessed.
        left_out = {"dim_order"} if member.name in declared else set()
        left_out |= {"unlike"} if factor < _LEAST_LOF else set()
        kept = [f for f in found[member.name] if f.suspicion.kind not in left_out]
        findings += _merged(member, key, kept, len(group), few=few)
    if few and any(finding.kind in _BIG_UNITS for finding in findings):
        # Of two units in a pair either may be the wrong one; the odd one is named once.
        return [finding for finding in findings if finding.kind not in _SMALL_UNITS]
    return findings


def _models(stats: list[DimStats]) -> list[HeadModel]:
    """Return the model of the others for each member; among many, one more changes nothing."""
    if len(stats) > MANY_MEMBERS:
        return [fit_model(stats)] * len(stats)
    return [fit_model([*stats[:i], *stats[i + 1 :]]) for i in range(len(stats))]


def _explain(
    model: HeadModel, stats: DimStats, grippers: Sequence[int], *, few: bool
) -> list[Suspicion]:
    """Return the faults that explain a member: the best one is undone, and so on."""
    accepted: list[Suspicion] = []
    for _ in range(len(stats.mean)):
        candidates = [s for s in suspicions(model, stats, grippers) if _margin(s, few=few) >= 0]
        if not candidates:
            break
        best = max(candidates, key=lambda s: s.gain)
        accepted.append(best)
        if best.repaired is None:
            break
        stats = best.repaired
    return accepted


def _margin(suspicion: Suspicion, *, few: bool) -> float:
    """Return by how much a suspicion is more than enough."""
    if few:
        is_unit = suspicion.kind in _BIG_UNITS | _SMALL_UNITS
        return suspicion.gain - (_LEAST_GAIN_FEW if is_unit else math.inf)
    return suspicion.gain - _LEAST_GAIN.get(suspicion.kind, _LEAST_GAIN_OTHERWISE)


def _outlier_factors(deviations: NDArray[np.float64], *, few: bool) -> NDArray[np.float64]:
    """Return (n,) local outlier factors of the members; about 1 is usual."""
    if few:
        return np.ones(len(deviations))
    from sklearn.neighbors import LocalOutlierFactor

    # Far is far: a member in other units must not stretch the space for all others.
    points = np.arcsinh(deviations)
    neighbours = max(2, min(20, (len(points) - 1) // 2))
    model = LocalOutlierFactor(n_neighbors=neighbours).fit(points)
    return np.asarray(-model.negative_outlier_factor_)


def _declared(member: HeadMember, key: str, found: Sequence[Reordered]) -> AuditFinding:
    """Return the finding for dims that are declared in another order."""
    dims = {each.feature: each.dims for each in found}
    parts = "; ".join(
        f"{each.feature} {_ranges(each.dims)}: info.json names them"
        f" {', '.join(each.own[d] for d in each.dims)}, and most members"
        f" {', '.join(each.others[d] for d in each.dims)}"
        for each in found
    )
    message = f"{member.name}: declares its dims in another order: {parts}"
    return AuditFinding(member.name, key, "dim_names", dims, message, 1.0, 0.0)


def _merged(
    member: HeadMember, key: str, found: Sequence[_Found], n_members: int, *, few: bool
) -> list[AuditFinding]:
    """Return a finding a kind, over both features."""
    by_kind: dict[str, list[_Found]] = {}
    for each in found:
        by_kind.setdefault(each.suspicion.kind, []).append(each)
    findings = []
    for kind, group in by_kind.items():
        dims: dict[str, tuple[int, ...]] = {}
        for each in group:
            both = {*dims.get(each.feature, ()), *each.suspicion.dims}
            dims[each.feature] = tuple(sorted(both))
        strongest = max(group, key=lambda each: each.suspicion.gain)
        margin = _margin(strongest.suspicion, few=few)
        confidence = 1 / (1 + math.exp(-min(margin + 1.0, 50.0)))
        parts = _words(member.name, dims, strongest, n_members)
        gain = strongest.suspicion.gain
        findings.append(AuditFinding(member.name, key, kind, dims, parts, confidence, gain))
    return findings


def _words(name: str, dims: Mapping[str, tuple[int, ...]], found: _Found, n_members: int) -> str:
    suspicion, stats, model = found.suspicion, found.stats, found.model
    places = " and ".join(
        f"{feature} {_ranges(feature_dims)}" for feature, feature_dims in dims.items()
    )
    dim = max(suspicion.dims, key=lambda d: float(np.abs(model.z(stats)[:, d]).max()))
    parts = (
        f"{name}: {places}: looks like {KINDS[suspicion.kind]}; for example {found.feature} {dim}"
        f" has mean {stats.mean[dim]:.4g} (from {stats.low[dim]:.4g} to {stats.high[dim]:.4g})"
        f" where the other {n_members - 1} have about {model.center[dim]:.4g} (from"
        f" {model.low[dim]:.4g} to {model.high[dim]:.4g})"
    )
    if suspicion.source:
        pairs = zip(suspicion.source, suspicion.dims, strict=True)
        parts += "; " + ", ".join(f"dim {source} belongs in {dim}" for source, dim in pairs)
    return parts


def _ranges(dims: Sequence[int]) -> str:
    """Return dims as text: `0-4, 7`."""
    parts: list[list[int]] = []
    for dim in dims:
        if parts and dim == parts[-1][1] + 1:
            parts[-1][1] = dim
        else:
            parts.append([dim, dim])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
