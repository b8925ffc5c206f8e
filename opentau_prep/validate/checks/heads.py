"""H: the norm heads that the mixture's datasets share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from opentau_prep.errors import PrepError
from opentau_prep.metadata import load_dataset_metadata
from opentau_prep.metadata.dataset import Dataset
from opentau_prep.metadata.resolve import ResolvedEntry
from opentau_prep.notices import collect_notices
from opentau_prep.validate.facts import MAX_DIM
from opentau_prep.validate.findings import Hit, hit, listed
from opentau_prep.validate.rule import Rule

if TYPE_CHECKING:
    from opentau_prep.heads.members import HeadMember
    from opentau_prep.validate.facts import EntryFacts
    from opentau_prep.validate.mixture_view import MixtureView

__all__ = ["RULES"]

_TAGS = ("robot_type", "control_mode")


def _lacking(facts: EntryFacts) -> list[str]:
    return [name for name, tag in zip(_TAGS, facts.tags, strict=True) if not tag]


def tag_missing(view: MixtureView) -> Iterator[Hit]:
    """Compare every two datasets whose heads differ by a missing tag and by nothing else."""
    for names, tags in _kept_apart(view).items():
        yield hit(
            f"{listed(names)} look like one robot, but without {' and '.join(tags)} each has a head"
            " of its own"
        )


def untagged(view: MixtureView) -> Iterator[Hit]:
    apart = {name for names in _kept_apart(view) for name in names}
    names = [f.name for f in view.facts if len(_lacking(f)) == 2 and f.name not in apart]
    if names:
        yield hit(f"neither robot_type nor control_mode: {listed(names)}; a head of its own each")


def _kept_apart(view: MixtureView) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Return groups of datasets that would share a head -> the tags that they lack."""
    groups: list[list[EntryFacts]] = []
    for facts in sorted(view.facts, key=lambda f: len(_lacking(f))):
        home = next((g for g in groups if all(_alike(facts, other) for other in g)), None)
        if home is None:
            groups.append([facts])
        else:
            home.append(facts)
    found: dict[tuple[str, ...], tuple[str, ...]] = {}
    for group in groups:
        lacking = [tag for tag in _TAGS if any(tag in _lacking(facts) for facts in group)]
        if len(group) > 1 and lacking:
            members = sorted(group, key=lambda facts: facts.index)
            found[tuple(f.name for f in members)] = tuple(lacking)
    return found


def _alike(a: EntryFacts, b: EntryFacts) -> bool:
    """Tell whether nothing but missing tags keeps two datasets from sharing a head."""
    if a.dims is None or a.dims != b.dims or a.layout != b.layout:
        return False
    same = [one == other for one, other in zip(a.tags, b.tags, strict=True) if one and other]
    # Without a robot_type in common, the names of the dims must say that it is one robot.
    return all(same) and bool(a.layout or (a.tags[0] and a.tags[0] == b.tags[0]))


def _groups(view: MixtureView) -> dict[str, list[EntryFacts]]:
    from opentau_prep.heads.keys import compute_norm_key

    groups: dict[str, list[EntryFacts]] = {}
    for facts in view.facts:
        key, _ = compute_norm_key(facts.info["robot_type"], facts.info["control_mode"], facts.name)
        groups.setdefault(key, []).append(facts)
    return groups


def width_conflict(view: MixtureView) -> Iterator[Hit]:
    for key, members in _groups(view).items():
        known = [m for m in members if m.dims is not None]
        if len({m.dims for m in known}) > 1:
            words = [f"{m.name} (state {m.dims[0]}, actions {m.dims[1]})" for m in known if m.dims]
            yield hit(f"head {key!r} has members of different widths: {listed(words)}")


def name_collision(view: MixtureView) -> Iterator[Hit]:
    names = [facts.name for facts in view.facts]
    twice = sorted({name for name in names if names.count(name) > 1})
    keys = {"::".join(f.tags) for f in view.facts if all(f.tags)}
    own = sorted({f.name for f in view.facts if not all(f.tags)} & keys)
    if twice:
        yield hit(f"names occur twice after numbering: {listed(twice)}")
    if own:
        yield hit(f"datasets without tags are called like another head's key: {listed(own)}")


def too_wide(view: MixtureView) -> Iterator[Hit]:
    wide = [f"{f.name} {max(f.dims)}" for f in view.facts if f.dims and max(f.dims) > MAX_DIM]
    if wide:
        yield hit(f"over {MAX_DIM} dims: {listed(wide)}")


def not_buildable(view: MixtureView) -> Iterator[Hit]:
    """Build each head alone, so that one that cannot be built hides no other."""
    for key, members in _groups(view).items():
        usable = [m for m in members if m.dims is not None and m.stats is not None]
        names = {m.name for m in usable}
        mixed = len({all(m.tags) for m in usable}) > 1
        if len({m.dims for m in usable}) > 1 or len(names) < len(usable) or mixed:
            continue  # told by H003 and H004
        if usable and (fault := _build_fault(usable)) is not None:
            yield hit(f"head {key!r} cannot be built: {fault.message}", fault.hint or "")


def misfits(view: MixtureView) -> Iterator[Hit]:
    """Leave out heads that cannot be built: other rules tell them."""
    members: list[HeadMember] = []
    for key, group in _groups(view).items():
        usable = [m for m in group if m.stats is not None and all(m.tags)]
        if len(usable) > 1 and len({m.dims for m in usable}) == 1 and not _build_fault(usable):
            members += [_member(facts, key) for facts in usable]
    if not members:
        return
    from opentau_prep.heads.audit import audit_heads

    for found in audit_heads(members).findings:
        dims = sorted({d for some in found.dims.values() for d in some})
        yield hit(found.message, column=" and ".join(found.dims), dims=dims)


def _member(facts: EntryFacts, key: str) -> HeadMember:
    from opentau_prep.heads.build import head_weight
    from opentau_prep.heads.members import HeadMember

    with collect_notices():
        meta = load_dataset_metadata(facts.root)
    dataset = Dataset(facts.root, meta.repo_id, facts.name, meta)
    entry = ResolvedEntry(facts.index, facts.name, facts.config, dataset)
    stats = {name: dict(entry) for name, entry in (facts.stats or {}).items()}
    weight = head_weight(facts.info, facts.name)
    return HeadMember(entry, facts.info, key, False, weight, stats, facts.dims or (0, 0))


def _build_fault(members: Sequence[EntryFacts]) -> PrepError | None:
    from opentau_prep.heads.build import build_norm_heads

    try:
        with collect_notices():
            build_norm_heads(
                dataset_names=[m.name for m in members],
                per_dataset_stats=[dict(m.stats or {}) for m in members],
                metadatas=members,
                raw_dims=[m.dims or (0, 0) for m in members],
            )
    except PrepError as fault:
        return fault
    return None


RULES = (
    Rule(
        "H001",
        "tag-missing",
        "warning",
        "Datasets with the same widths and names of dims (and the same robot_type, where they have"
        " one) would share a norm head, but robot_type or control_mode is missing. A dataset that"
        " has nobody to share a head with is left alone: LeRobot has no control_mode.",
        "Each falls back to a head of its own: one robot is normalized in several ways, and what is"
        " learned from one dataset does not carry over.",
        "Set both tags in the mixture's entries or in info.json.",
        tag_missing,
        "mixture",
    ),
    Rule(
        "H002",
        "untagged",
        "note",
        "A dataset has neither robot_type nor control_mode, and no other dataset looks like the"
        " same robot.",
        "It gets a norm head of its own, which is all it could have; a robot at run time must ask"
        " for it by the dataset's name.",
        "Set both tags to give the head a name that lasts.",
        untagged,
        "mixture",
    ),
    Rule(
        "H003",
        "head-width-conflict",
        "error",
        "Datasets with the same robot_type and control_mode have different widths of state or"
        " actions (after state_index and action_index).",
        "They cannot share a head: `heads` and training stop.",
        "Override a tag of some, or select columns.",
        width_conflict,
        "mixture",
    ),
    Rule(
        "H004",
        "name-collision",
        "error",
        "Two entries end up with one name, or a dataset without tags is called like another's"
        " head.",
        "Stats of one are applied to the other.",
        "Rename one of them.",
        name_collision,
        "mixture",
    ),
    Rule(
        "H005",
        "too-wide",
        "warning",
        f"State or actions are wider than {MAX_DIM} dims, the default maximum.",
        "`heads` and training refuse the dataset unless the maximum is raised; the tokenizer"
        " drops the dims beyond it.",
        "Select dims with state_index and action_index, or raise the maximum.",
        too_wide,
        "mixture",
    ),
    Rule(
        "H006",
        "head-not-buildable",
        "error",
        "The stats of a head's members cannot be pooled.",
        "`heads` and training stop.",
        "Correct the stats that the message names.",
        not_buildable,
        "mixture",
    ),
    Rule(
        "H007",
        "misfit",
        "warning",
        "A dataset does not look like the other members of its head: another unit, dims in another"
        " order, an inverted gripper, poses labelled as joints (the audit of `heads --audit`).",
        "Its numbers are pooled with those of the others: all of them are normalized wrongly.",
        "Convert the dataset, or give it a control_mode of its own.",
        misfits,
        "mixture",
    ),
)
