"""M: the mixture's file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from opentau_prep.errors import ConfigError
from opentau_prep.validate.checks.trainers import BUCKETS
from opentau_prep.validate.findings import Hit, hit, listed
from opentau_prep.validate.mixture_view import tags_of
from opentau_prep.validate.rule import Rule

if TYPE_CHECKING:
    from opentau_prep.validate.mixture_view import MixtureView

__all__ = ["RULES"]


def _is_weights(path: str) -> bool:
    return path.rpartition(".")[2].startswith("weights")


def file_faults(view: MixtureView) -> Iterator[Hit]:
    for path, message in view.subject.faults:
        if not _is_weights(path):
            yield hit(message, file=path or None)


def weights_faults(view: MixtureView) -> Iterator[Hit]:
    for path, message in view.subject.faults:
        if _is_weights(path):
            yield hit(message, file=path)


def dataset_lost(view: MixtureView) -> Iterator[Hit]:
    for name, fault in view.lost:
        message, hint = f"{name}: {' '.join(fault.message.split())}", fault.hint or ""
        if (fault.where or "").startswith(BUCKETS):
            message += "; OpenTau, LeRobot 0.4.4 and openpi read no storage bucket of the hub"
            hint += " Or copy the bucket to a folder."
        yield hit(message, hint)


def listed_twice(view: MixtureView) -> Iterator[Hit]:
    times = Counter(member.entry.dataset.root for member in view.members)
    for root, count in times.items():
        mine = [member for member in view.members if member.entry.dataset.root == root]
        names = [member.name for member in mine if not all(tags_of(member))]
        if count > 1 and names:
            yield hit(
                f"{root} is listed {count} times without robot_type and control_mode: a head of"
                f" its own for each of {listed(names)}"
            )


def zero_weight(view: MixtureView) -> Iterator[Hit]:
    weights = view.mixture.weights if view.mixture else None
    names = view.mixture.dataset_names if view.mixture else ()
    never = [n for n, w in zip(names, weights or (), strict=False) if w == 0]
    if never:
        yield hit(f"weight 0: {listed(never)} are never drawn", file="weights")


def required_tag_missing(view: MixtureView) -> Iterator[Hit]:
    for field in ("robot_type", "control_mode"):
        if not view.mixture or not getattr(view.mixture, f"require_non_empty_{field}"):
            continue
        lacking = [m.name for m in view.members if not str(m.info.get(field) or "").strip()]
        named = zip(view.mixture.dataset_names, view.mixture.datasets, strict=True)
        lacking += [n for n, e in named if e.is_vqa and not (getattr(e, field) or "").strip()]
        if lacking:
            yield hit(f"{listed(lacking)} have no {field}", file=f"require_non_empty_{field}")


def delta_maps_differ(view: MixtureView) -> Iterator[Hit]:
    from opentau_prep.frames.delta import mixture_delta_map

    try:
        mixture_delta_map((member.name, member.entry.config) for member in view.members)
    except ConfigError as fault:
        yield hit(fault.message, fault.hint or "")


RULES = (
    Rule(
        "M001",
        "mixture-fault",
        "error",
        "The mixture file has a field that is unknown, missing or of the wrong type.",
        "Every command refuses the file; the datasets of sound entries are checked all the same.",
        "Correct the field.",
        file_faults,
        "mixture",
    ),
    Rule(
        "M002",
        "weights",
        "error",
        "`weights` are not one per dataset, negative, all zero, or not finite.",
        "Sampling probabilities cannot be made of them.",
        "Give one weight of 0 or more per dataset, or null.",
        weights_faults,
        "mixture",
    ),
    Rule(
        "M003",
        "dataset-not-found",
        "error",
        "A dataset is in none of the places where it is looked for.",
        "The run stops.",
        "Correct `root`, download the dataset, or pass --download.",
        dataset_lost,
        "mixture",
    ),
    Rule(
        "M004",
        "listed-twice",
        "warning",
        "A dataset is listed more than once and has no tags: each entry falls back to a head of"
        " its own.",
        "The same robot is normalized in two ways, each from a part of its data.",
        "Set robot_type and control_mode on both entries.",
        listed_twice,
        "mixture",
    ),
    Rule(
        "M014",
        "zero-weight",
        "warning",
        "A dataset has the weight 0.",
        "It is never drawn, yet counts in its norm head.",
        "Remove the entry, or give it a weight.",
        zero_weight,
        "mixture",
    ),
    Rule(
        "M015",
        "required-tag-missing",
        "error",
        "The mixture requires robot_type or control_mode, and a dataset has none.",
        "The run stops before any work.",
        "Set the tag in the entry or in info.json.",
        required_tag_missing,
        "mixture",
    ),
    Rule(
        "M016",
        "delta-maps-differ",
        "error",
        "Some robot datasets use delta actions and others do not, or their"
        " `delta_action_state_map` differ once columns are selected.",
        "`heads`, `fit-tokenizer` and training stop: a policy undoes one map for all that it"
        " emits.",
        "Set use_delta_joint_actions on all of them or none, and select columns so that the maps"
        " are the same.",
        delta_maps_differ,
        "mixture",
    ),
)
