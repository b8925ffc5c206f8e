"""`data_path` of info.json: path templates of other people, filled without trusting them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from opentau_prep.errors import MetadataError, PrepError
from opentau_prep.metadata.info import FIELD, FIELD_BODY, INFO, shown, template_fields
from opentau_prep.notices import warn
from opentau_prep.storage.base import check_relative

if TYPE_CHECKING:
    from opentau_prep.storage import Storage

__all__ = ["EPISODES_DIR", "V3_TASKS", "check_template", "choose_template", "fill_template"]

EPISODES_DIR = "meta/episodes"
V3_TASKS = "meta/tasks.parquet"


def choose_template(
    storage: Storage,
    info: Mapping[str, Any],
    *,
    default: str,
    known: Collection[str],
    foreign: Collection[str],
    example: Callable[[str], str] | None,
) -> str:
    """Return the template of the data files: info.json's, or LeRobot's own where that one is wrong.

    Wrong is one that has fields of another version, or that leads to no file where the default
    leads to one: the default is taken with a notice (`data_path_mismatch`).

    Args:
        storage: The dataset.
        info: info.json.
        default: LeRobot's own template.
        known: The fields that this version fills.
        foreign: The fields of other versions.
        example: Fills a template for some episode; None when there is no episode.

    Raises:
        MetadataError: `data_path` is not a string, or not usable; see `check_template`.
    """
    where = f"{storage.url}/{INFO}"
    template = info.get("data_path")
    if template is None or template == default:
        return default
    if not isinstance(template, str):
        raise MetadataError(
            f"field `data_path` is {shown(template)}; expected a string",
            where=where,
            hint=f"LeRobot's own is {default!r}.",
        )
    if not template_fields(template) & set(foreign):
        check_template(template, known, where)
        if example is None or storage.exists(example(template)):
            return template
        if not storage.exists(example(default)):
            return template
    warn(
        "data_path_mismatch",
        f"{where}: data_path {shown(template)} does not lead to the data files; using LeRobot's"
        f" {default!r}",
        dataset=storage.url,
    )
    return default


def check_template(template: str, known: Collection[str], where: str) -> str:
    """Return a path template when it is safe to fill with `str.format` and numbers of 0 or more.

    The template is untrusted: only plain names of `known` fields with an integer width pass, so
    that nothing like `{x.__class__}` is ever looked up, and the path must stay below the root.
    Digits cannot lead out of it: what holds for one filling holds for all.

    Raises:
        MetadataError: A field is unknown or malformed, or the path leaves the dataset.
    """
    names = sorted(known)
    for field in FIELD.findall(template):
        body = FIELD_BODY.fullmatch(field)
        if body is None or body.group(1) not in names:
            raise MetadataError(
                f"path template {shown(template)} has the unknown field {shown(f'{{{field}}}')}",
                where=where,
                hint=f"Known fields here: {', '.join(names)}; with a width such as :03d.",
            )
    bare = FIELD.sub("0", template)
    if "{" in bare or "}" in bare:
        raise MetadataError(f"path template {shown(template)} has an unpaired brace", where=where)
    try:
        check_relative(bare)
    except PrepError as error:
        raise MetadataError(
            f"path template {shown(template)} leads outside the dataset or is no path",
            where=where,
            hint="It must be relative, without `..`.",
        ) from error
    return template


def fill_template(template: str, fields: Mapping[str, int], where: str) -> str:
    """Fill a path template such as `data/chunk-{episode_chunk:03d}/...` from integers.

    Raises:
        MetadataError: See `check_template`.
    """
    return check_template(template, fields, where).format(**fields)
