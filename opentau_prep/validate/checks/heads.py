"""H: the norm heads that the mixture's datasets share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opentau_prep.errors import PrepError
from opentau_prep.notices import collect_notices
from opentau_prep.validate.findings import Hit, hit, listed
from opentau_prep.validate.mixture_view import MAX_DIM, tags_of
from opentau_prep.validate.rule import Rule

if TYPE_CHECKING:
    from opentau_prep.heads.members import HeadMember
    from opentau_prep.validate.mixture_view import MixtureView

__all__ = ["RULES"]

_TAGS = ("robot_type", "control_mode")


def _lacking(member: HeadMember) -> list[str]:
    return [name for name, tag in zip(_TAGS, tags_of(member), strict=True) if not tag]


def tag_missing(view: MixtureView) -> Iterator[Hit]:
    """Compare every two datasets whose heads differ by a missing tag and by nothing else."""
    for names, tags in _kept_apart(view).items():
        yield hit(
            f"{listed(names)} look like one robot, but without {' and '.join(tags)} each has a head"
            " of its own"
        )


def untagged(view: MixtureView) -> Iterator[Hit]:
    apart = {name for names in _kept_apart(view) for name in names}
    names = [m.name for m in view.members if len(_lacking(m)) == 2 and m.name not in apart]
    if names:
        yield hit(f"neither robot_type nor control_mode: {listed(names)}; a head of its own each")


def _kept_apart(view: MixtureView) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Return groups of datasets that would share a head -> the tags that they lack."""
    # Groups of one kind, each as its members and their different tags: thousands are alike.
    kinds: dict[object, list[tuple[list[HeadMember], set[tuple[str, str]]]]] = {}
    for member in sorted(view.members, key=lambda m: len(_lacking(m))):
        if member.raw_dims == (0, 0):
            continue
        tags, layout = tags_of(member), _layout(member)
        groups = kinds.setdefault((member.raw_dims, layout), [])
        fits = (g for g in groups if all(_alike(tags, known, bool(layout)) for known in g[1]))
        home = next(fits, None)
        if home is None:
            groups.append(([member], {tags}))
        else:
            home[0].append(member)
            home[1].add(tags)
    found: dict[tuple[str, ...], tuple[str, ...]] = {}
    for members, _ in (group for groups in kinds.values() for group in groups):
        lacking = [tag for tag in _TAGS if any(tag in _lacking(m) for m in members)]
        if len(members) > 1 and lacking:
            members.sort(key=lambda m: m.index)
            found[tuple(m.name for m in members)] = tuple(lacking)
    return found


def _layout(member: HeadMember) -> tuple[tuple[str, ...], ...]:
    """Return the names of the dims of state and actions; empty where some have none."""
    try:
        features, columns = member.entry.meta.features, member.entry.name_map.columns
    except PrepError:
        return ()
    names = [columns.get(name) for name in ("state", "actions")]
    found = [features[column].names for column in names if column in features and column]
    return tuple(found) if len(found) == 2 and all(found) else ()


def _alike(mine: tuple[str, str], theirs: tuple[str, str], named: bool) -> bool:
    """Tell whether nothing but missing tags keeps two datasets of one layout apart."""
    same = [one == other for one, other in zip(mine, theirs, strict=True) if one and other]
    # Without a robot_type in common, the names of the dims must say that it is one robot.
    return all(same) and (named or bool(mine[0] and mine[0] == theirs[0]))


def _groups(view: MixtureView) -> dict[str, list[HeadMember]]:
    groups: dict[str, list[HeadMember]] = {}
    for member in view.members:
        groups.setdefault(member.norm_key, []).append(member)
    return groups


def width_conflict(view: MixtureView) -> Iterator[Hit]:
    for key, members in _groups(view).items():
        known = {m.name: m.raw_dims for m in members if m.raw_dims != (0, 0)}
        if len(set(known.values())) > 1:
            words = [f"{n} (state {dims[0]}, actions {dims[1]})" for n, dims in known.items()]
            yield hit(f"head {key!r} has members of different widths: {listed(words)}")


def name_collision(view: MixtureView) -> Iterator[Hit]:
    names = [member.name for member in view.members]
    twice = sorted({name for name in names if names.count(name) > 1})
    tags = {member.name: tags_of(member) for member in view.members}
    keys = {"::".join(both) for both in tags.values() if all(both)}
    own = sorted({name for name, both in tags.items() if not all(both)} & keys)
    if twice:
        yield hit(f"names occur twice after numbering: {listed(twice)}")
    if own:
        yield hit(f"datasets without tags are called like another head's key: {listed(own)}")


def too_wide(view: MixtureView) -> Iterator[Hit]:
    most = _max_dims(view)
    wide = [
        f"{member.name} {max(member.raw_dims)}"
        for member in view.members
        if any(width > limit for width, limit in zip(member.raw_dims, most, strict=True))
    ]
    if wide:
        yield hit(f"over {max(most)} dims: {listed(wide)}")


def _max_dims(view: MixtureView) -> tuple[int, int]:
    """Return the policy's widths: the training config's, else those that `run` chose."""
    training: Mapping[str, Any] = {} if view.mixture is None else view.mixture.training
    file, chosen = view.output("norm_heads"), None
    if file is not None and file.is_file():
        from opentau_prep.heads.compute import recorded_options

        chosen = recorded_options(file)
    names = ("max_state_dim", "max_action_dim")
    state, action = (training.get(n) or getattr(chosen, n, None) or MAX_DIM for n in names)
    return state, action


def not_buildable(view: MixtureView) -> Iterator[Hit]:
    """Build each head alone, so that one that cannot be built hides no other."""
    for key, members in _groups(view).items():
        usable = [m for m in members if m.stats]
        names = {m.name for m in usable}
        mixed = len({m.is_fallback for m in usable}) > 1
        if len({m.raw_dims for m in usable}) > 1 or len(names) < len(usable) or mixed:
            continue  # reported by H003 and H004
        if usable and (fault := _build_fault(usable)) is not None:
            yield hit(f"head {key!r} cannot be built: {fault.message}", fault.hint or "")


def misfits(view: MixtureView) -> Iterator[Hit]:
    """Leave out heads that cannot be built: other rules report them."""
    members: list[HeadMember] = []
    for group in _groups(view).values():
        usable = [m for m in group if m.stats and not m.is_fallback]
        if len(usable) > 1 and len({m.raw_dims for m in usable}) == 1 and not _build_fault(usable):
            members += usable
    if not members:
        return
    from opentau_prep.heads.audit import audit_heads

    for found in audit_heads(members, remembering=True).findings:
        dims = sorted({d for some in found.dims.values() for d in some})
        yield hit(found.message, column=" and ".join(found.dims), dims=dims)


def _build_fault(members: Sequence[HeadMember]) -> PrepError | None:
    from opentau_prep.heads.build import build_norm_heads

    try:
        with collect_notices():
            build_norm_heads(
                dataset_names=[m.name for m in members],
                per_dataset_stats=[m.stats for m in members],
                metadatas=members,
                raw_dims=[m.raw_dims for m in members],
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
