"""The artifacts that lie in a dataset's folder, and what their provenance says of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentau_prep.artifacts.catalog import CATALOG, PROVENANCE_DIR, ArtifactSpec
from opentau_prep.artifacts.jsonio import load_own, load_own_lines
from opentau_prep.artifacts.place import StoredFile, safe_folder_name
from opentau_prep.artifacts.provenance import Provenance, Recipe
from opentau_prep.artifacts.store import Inspection, State, judge
from opentau_prep.errors import PrepError
from opentau_prep.metadata.inputs import describe_inputs
from opentau_prep.storage import LocalStorage, Storage

if TYPE_CHECKING:
    from opentau_prep.validate.view import DatasetView

__all__ = ["find_artifacts", "spec_of", "why_misshapen", "why_torn"]

# Findings say nothing that training reads; a stale file of them is simply written again.
_PASSED_OVER = ("validation",)
_PUBLISHED = ("stats", "episodes_stats", "episodes")
_JSON_LINES = ".jsonl"
# A message of the schema may quote the whole value that is wrong.
_LONGEST = 160


def find_artifacts(view: DatasetView) -> dict[str, Inspection]:
    """Return every artifact of the catalog that lies in the dataset's folder, or only left traces.

    Data files are compared by their number and size; by content too when frames are read anyway.

    Returns:
        Path relative to the folder that artifacts are looked for in (the dataset's own, or its
        folder below `--artifact-root`) -> its state. An edited one has its `changes`, too; of one
        that is gone there is the provenance.
    """
    home: Storage = view.storage
    if view.artifact_root is not None:
        home = LocalStorage(view.artifact_root / safe_folder_name(view.name))
    inputs: dict[str, Any] | None = None
    found = {}
    for spec, rel, prep in _candidates(home):
        record = _read(home, prep)
        provenance = None if record is None else Provenance.from_bytes(record)
        if provenance is None and spec.name in _PUBLISHED:
            continue  # every dataset brings its own: their origin is no fault
        content = _read(home, rel)
        if content is None and provenance is None:
            continue
        if inputs is None:
            inputs = _inputs(view)
        own = _of_head(view, inputs) if spec.command == "heads" else inputs
        place = StoredFile(home, rel) if home.folder is None else home.folder / rel
        if content is None or provenance is None:
            state = State.MISSING if content is None else State.FOREIGN
            found[rel] = Inspection(state, place, content, provenance=provenance)
            continue
        made = Recipe(spec.command, own, provenance.parameters, True, provenance.mixture_id)
        judged = judge(place, content, provenance, made, schema_version=spec.schema_version)
        if judged.state is State.EDITED:
            judged = replace(judged, changes=tuple(made.changes_since(provenance)))
        found[rel] = judged
    return found


def spec_of(rel: str) -> ArtifactSpec:
    """Return the kind of an artifact in the catalog, from its path."""
    for spec in CATALOG.values():
        folder, field, _ = spec.template.partition("/{")
        if rel == spec.template or (field and rel.startswith(f"{folder}/")):
            return spec
    raise KeyError(rel)


def _of_head(view: DatasetView, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the inputs of a norm head: it is weighed by the counts of info.json, as in training.

    Where these are not those of the episodes table, the table's would make every head stale.
    """
    info = view.info or {}
    counts = {"count": info.get("total_episodes"), "frames": info.get("total_frames")}
    return {**inputs, "episodes": counts} if "episodes" in inputs else inputs


def _candidates(home: Storage) -> Iterator[tuple[ArtifactSpec, str, str]]:
    for spec in CATALOG.values():
        if spec.name in _PASSED_OVER:
            continue
        if "{" not in spec.template:
            yield spec, spec.template, spec.provenance_path().as_posix()
            continue
        folder, _, suffix = spec.template.partition("/{")
        suffix = suffix.partition("}")[2]
        below = folder.removeprefix("meta/")
        stems = set()
        if spec.readers == "own":
            names = _below(home, folder, suffix)
            stems = {name.removesuffix(suffix) for name in names if "/" not in name}
        prep = f"{PROVENANCE_DIR}/{below}"
        stems |= {name.removesuffix(".json") for name in _below(home, prep, ".json")}
        for stem in sorted(stem for stem in stems if not stem.startswith(".")):
            yield spec, f"{folder}/{stem}{suffix}", f"{PROVENANCE_DIR}/{below}/{stem}.json"


def _below(home: Storage, folder: str, suffix: str) -> list[str]:
    """Return the files below a folder, relative to it; none when it cannot be listed."""
    try:
        return [rel[len(folder) + 1 :] for rel in home.list_files(folder, suffix)]
    except PrepError:
        return []


def _read(home: Storage, rel: str) -> bytes | None:
    try:
        return home.read_bytes(rel) if home.exists(rel) else None
    except PrepError:
        return None


def why_torn(rel: str, content: bytes) -> str:
    """Return why a file is not what its name says: torn, not JSON; empty when it is whole."""
    if rel.endswith(".parquet"):
        return "" if content[:4] == content[-4:] == b"PAR1" else "is not a whole parquet file"
    try:
        if rel.endswith(_JSON_LINES):
            load_own_lines(content, where=rel)
        else:
            load_own(content, where=rel)
    except PrepError as fault:
        return fault.message
    return ""


def why_misshapen(rel: str, found: Inspection) -> str:
    """Return where an artifact that is JSON departs from its schema; empty where it does not.

    Only our own formats have one, and what this toolkit wrote follows it: only a file that was
    edited, or that another program wrote, is looked at.
    """
    spec = spec_of(rel)
    if found.state not in (State.FOREIGN, State.EDITED) or spec.readers != "own":
        return ""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    schema = json.loads(
        (Path(__file__).parents[1] / f"schemas/{spec.name}.schema.json").read_bytes()
    )
    fault = best_match(
        Draft202012Validator(schema).iter_errors(json.loads(found.content or b"null"))
    )
    if fault is None:
        return ""
    return f"does not have the layout of its schema: {fault.json_path}: {_cut(fault.message)}"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _inputs(view: DatasetView) -> dict[str, Any]:
    """Return what artifacts are made from, as it is now; parts that cannot be read are left out."""
    if view.episodes is None or view.tasks is None:
        return {}
    try:
        found = describe_inputs(view.meta, data=view.options.deep)
    except PrepError:
        return {}
    if "data" not in found and view.data_paths is not None:
        paths = list(dict.fromkeys(view.data_paths))
        sizes = [view.storage.size(rel) for rel in paths]
        found["data"] = {"files": len(paths), "bytes": sum(size or 0 for size in sizes)}
    return found
