"""The sections on the mixture, and on what has been prepared of it."""

from __future__ import annotations

from collections.abc import Sequence

from opentau_prep.notices import some_names
from opentau_prep.report.markup import Element, Node, el
from opentau_prep.report.tables import badge, count, number, percent, table
from opentau_prep.verdict.facts import ArtifactFacts, DatasetFacts, Verdict

__all__ = ["mixture_section", "steps_section"]

_KINDS = ("stats", "sketches", "norm head", "speed", "tokens", "findings")
_RANK = {"do": 0, "look": 1, "ok": 2}


def mixture_section(facts: Verdict) -> Node:
    """Return the entries with sizes and expected shares."""
    mixture = facts.mixture
    rate = (
        "each dataset's own rate" if mixture.action_freq is None else f"{mixture.action_freq:g} Hz"
    )
    weights = (
        "Weights are those of the mixture."
        if mixture.weights_from == "mixture"
        else "The mixture has no weights: datasets are sampled in proportion to selected frames."
    )
    columns = (
        "dataset", "version", "robot type", "control mode", "#fps", "#episodes", "#frames",
        "#hours", "#weight", "#expected share",
    )  # fmt: skip
    total = (
        f"{len(mixture.datasets)} entries", "", "", "", "", count(mixture.episodes),
        count(mixture.frames), _hours(mixture.seconds), "", "",
    )  # fmt: skip
    return [
        el(
            "p",
            f"{weights} Action steps: {rate}, resampled by {mixture.resampling}."
            f" Held out for validation: {mixture.val_split_ratio:g} of the frames.",
        ),
        table("Entries in mixture order", columns, map(_entry, mixture.datasets), foot=total),
    ]


def _entry(each: DatasetFacts) -> Sequence[Node]:
    name: Node = each.name
    if each.fault is not None:
        name = [each.name, " ", badge("cannot be read", "do")]
    elif each.kind == "vqa":
        name = [each.name, " ", badge("vqa: no robot data", "none")]
    all_of = "" if each.episodes == each.episodes_all else f" of {count(each.episodes_all)}"
    return (
        name,
        each.version or "-",
        each.robot_type or el("span", "none", class_="dim"),
        each.control_mode or el("span", "none", class_="dim"),
        "-" if each.fps is None else f"{each.fps:g}",
        count(each.episodes) + all_of,
        count(each.frames),
        "-" if each.seconds is None else _hours(each.seconds),
        number(each.weight, 6),
        percent(each.share),
    )


def steps_section(facts: Verdict) -> Node:
    """Return which artifacts are there, and whether they are still true."""
    own = [each for each in facts.artifacts if not each.datasets]
    by_size = None
    if facts.by_size:
        by_size = el(
            "p",
            "Data files of these datasets were compared by number and size only, since their"
            f" hashes are not known on this machine: {some_names(facts.by_size)}."
            " The steps themselves compare contents.",
        )
    return [
        by_size,
        table(
            "Artifacts of the whole mixture",
            ("artifact", "state", "command", "~path", "~detail"),
            (
                (a.kind, badge(a.state, _colour(a)), a.step, el("code", a.path), a.detail)
                for a in own
            ),
        ),
        _matrix([each for each in facts.artifacts if each.datasets]),
        _details(facts.artifacts),
    ]


def _matrix(artifacts: Sequence[ArtifactFacts]) -> Element:
    rows: dict[str, dict[str, list[ArtifactFacts]]] = {}
    for each in artifacts:
        row = rows.setdefault(each.root or "", {})
        row.setdefault(each.kind, []).append(each)
    kinds = [kind for kind in _KINDS if any(kind in row for row in rows.values())]
    names: dict[str, str] = {}
    for each in artifacts:
        names.setdefault(each.root or "", ", ".join(each.datasets))
    cells = (
        (names[root], *(_cell(row.get(kind, ())) for kind in kinds)) for root, row in rows.items()
    )
    return table("Artifacts of each dataset", ("dataset", *kinds), cells)


def _cell(artifacts: Sequence[ArtifactFacts]) -> Node:
    if not artifacts:
        return el("span", "-", class_="dim")
    worst = min(artifacts, key=lambda each: _RANK[each.level])
    return badge(worst.state, _colour(worst))


def _details(artifacts: Sequence[ArtifactFacts]) -> Node:
    told = [each for each in artifacts if each.datasets and (each.detail or each.level != "ok")]
    if not told:
        return None
    columns = ("dataset", "artifact", "state", "~path", "~detail")
    rows = (
        (", ".join(a.datasets), a.kind, badge(a.state, _colour(a)), el("code", a.path), a.detail)
        for a in told
    )
    return el(
        "details",
        el("summary", f"{len(told):,} that are not simply fresh"),
        table("Artifacts with their paths", columns, rows),
    )


def _colour(each: ArtifactFacts) -> str:
    return "none" if each.state in ("optional", "published", "unknown") else each.level


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.1f}" if hours >= 10 else f"{hours:.3f}"
