"""C: the features that info.json declares, and the columns that are there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from opentau_prep.metadata.info import INFO
from opentau_prep.validate.findings import Hit, hit, listed
from opentau_prep.validate.footers import list_width, value_type
from opentau_prep.validate.rule import Rule

if TYPE_CHECKING:
    from opentau_prep.validate.footers import Footer
    from opentau_prep.validate.view import DatasetView

__all__ = ["RULES", "STANDARD_COLUMNS", "first_footer"]

STANDARD_COLUMNS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
_USUAL = {"state": "observation.state", "actions": "action"}
_IMAGE_CHANNELS = (1, 3, 4)
_MAX_FPS = 1e6
# Arrow's names where they are not NumPy's.
_FLOATS = {"halffloat": "float16", "float": "float32", "double": "float64"}
_NUMBER = re.compile(r"bool|u?int\d+|float\d+")


def _raw(view: DatasetView) -> Mapping[str, Mapping[str, Any]]:
    features = (view.info or {}).get("features")
    if not isinstance(features, Mapping):
        return {}
    return {str(k): v for k, v in features.items() if isinstance(v, Mapping)}


def first_footer(view: DatasetView) -> tuple[str, Footer] | None:
    good = view.footers.good if view.footers else {}
    return next(iter(good.items()), None)


def features_unusable(view: DatasetView) -> Iterator[Hit]:
    if view.info is None:
        return
    raw = view.info.get("features")
    if (fault := view.fault("features")) is not None:
        yield hit(fault.message, file=INFO)
    elif not raw:
        yield hit("has no features", file=INFO)
    else:
        bad = [str(k) for k, v in raw.items() if not isinstance(v, Mapping)]
        if bad:
            yield hit(f"features that are not objects: {listed(bad)}", file=INFO)


def state_or_action_missing(view: DatasetView) -> Iterator[Hit]:
    if not view.features:
        return
    for entry in view.entries:
        columns = entry.name_map.columns
        for name in _USUAL:
            column = columns.get(name)
            if column is None and entry.name_map.source == "inferred":
                yield hit(
                    f"no feature looks like the {name} (features: {listed(list(view.features))})",
                    file=INFO,
                )
            elif column is not None and column not in view.features:
                yield hit(
                    f"{name} is mapped to {column!r}, which is not among the features"
                    f" ({listed(list(view.features))})",
                    file=INFO,
                    column=column,
                )


def unusual_names(view: DatasetView) -> Iterator[Hit]:
    sources = {entry.name_map.source for entry in view.entries} if view.features else set()
    if sources != {"inferred"}:
        return
    odd = [f"{col} for {n}" for n, col in view.vectors.items() if col != _USUAL[n]]
    if odd:
        yield hit(f"columns have unusual names and are inferred: {listed(odd)}", file=INFO)


def column_missing(view: DatasetView) -> Iterator[Hit]:
    first = first_footer(view)
    for name, feature in (view.features or {}).items() if first else ():
        if (
            first
            and not feature.is_camera
            and name not in first[1].types
            and name not in STANDARD_COLUMNS
        ):
            yield hit("is declared, but no column of the data", file=first[0], column=name)


def standard_column_missing(view: DatasetView) -> Iterator[Hit]:
    first = first_footer(view)
    missing = [name for name in STANDARD_COLUMNS if first and name not in first[1].types]
    if "task_index" in missing and view.options.trainers:
        missing.remove("task_index")  # which no trainer does without: O003
    if first and missing:
        yield hit(f"the data has no column {', '.join(missing)}", file=first[0])


def column_undeclared(view: DatasetView) -> Iterator[Hit]:
    first = first_footer(view)
    if first is None or not view.features:
        return
    extra = [c for c in first[1].types if c not in view.features and c not in STANDARD_COLUMNS]
    if extra:
        yield hit(f"columns that info.json does not declare: {listed(extra)}", file=first[0])


def dtype_differs(view: DatasetView) -> Iterator[Hit]:
    first = first_footer(view)
    for name, feature in (view.features or {}).items() if first else ():
        kind = first[1].types.get(name) if first else None
        if kind is None or feature.is_camera:
            continue
        found = _dtype_name(value_type(kind))
        if found is not None and found != feature.dtype:
            yield hit(
                f"info.json says {feature.dtype}, the data holds {found}",
                file=first[0] if first else None,
                column=name,
            )


def _dtype_name(kind: Any) -> str | None:
    name = _FLOATS.get(str(kind), str(kind))
    return name if _NUMBER.fullmatch(name) else None


def width_differs(view: DatasetView) -> Iterator[Hit]:
    first = first_footer(view)
    for name, feature in (view.features or {}).items() if first else ():
        kind = first[1].types.get(name) if first else None
        if kind is None or feature.is_camera or not feature.shape:
            continue
        declared = int(np.prod(feature.shape))
        found = list_width(kind)
        if found is None and view.frames is not None:
            found = view.frames.width(name)
        if found is not None and found != declared and declared > 0:
            yield hit(
                f"info.json says {declared} dims, the data holds {found}",
                file=first[0] if first else None,
                column=name,
            )


def shape_invalid(view: DatasetView) -> Iterator[Hit]:
    for name, raw in _raw(view).items():
        feature = (view.features or {}).get(name)
        if feature is None:
            continue
        good = bool(feature.shape) and all(d > 0 for d in feature.shape)
        if good and feature.is_camera:
            good = len(feature.shape) == 3 and bool(
                {feature.shape[0], feature.shape[2]} & {*_IMAGE_CHANNELS}
            )
        if not good and feature.dtype not in ("string", "language"):
            yield hit(f"has the shape {raw.get('shape')!r}"[:120], file=INFO, column=name)


def names_nested(view: DatasetView) -> Iterator[Hit]:
    for name, raw in _raw(view).items():
        names = raw.get("names")
        if isinstance(names, Mapping):
            yield hit("its names are an object, not a list", file=INFO, column=name)
        elif isinstance(names, list) and any(isinstance(n, list) for n in names):
            yield hit("its names are a list of lists, not a list", file=INFO, column=name)


def names_count(view: DatasetView) -> Iterator[Hit]:
    for name, feature in (view.features or {}).items():
        if feature.is_camera or not feature.shape:
            continue
        names = list(feature.names)
        width = int(np.prod(feature.shape))
        if names and width > 1 and len(names) != width:
            yield hit(f"has {width} dims and {len(names)} names", file=INFO, column=name)
        elif len(set(map(str, names))) < len(names) and not feature.is_camera:
            twice = sorted({str(n) for n in names if names.count(n) > 1})
            yield hit(f"dims share names: {listed(twice)}", file=INFO, column=name)


def widths_unlike(view: DatasetView) -> Iterator[Hit]:
    features = view.features or {}
    widths = {n: int(np.prod(features[c].shape)) for n, c in view.vectors.items()}
    if len(widths) == 2 and widths["state"] != widths["actions"] and all(widths.values()):
        yield hit(
            f"the state has {widths['state']} dims, the actions {widths['actions']}", file=INFO
        )


def files_differ(view: DatasetView) -> Iterator[Hit]:
    good = view.footers.good if view.footers else {}
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for rel, footer in good.items():
        key = tuple(sorted((name, str(kind)) for name, kind in footer.types.items()))
        groups.setdefault(key, []).append(rel)
    if len(groups) < 2:
        return
    usual, *others = sorted(groups.items(), key=lambda pair: -len(pair[1]))
    for key, files in others:
        differs = sorted({name for name, _ in set(key) ^ set(usual[0])})
        yield hit(
            f"{len(files):,} files have other columns or types than the rest: {listed(differs)}",
            file=files[0],
        )


def camera_fps(view: DatasetView) -> Iterator[Hit]:
    for name, raw in _raw(view).items():
        details = raw.get("info") or raw.get("video_info")
        fps = details.get("video.fps") if isinstance(details, Mapping) else None
        if not isinstance(fps, (int, float)) or view.fps is None or not 0 < fps < _MAX_FPS:
            continue
        if abs(fps - view.fps) > 1e-3 * fps:
            yield hit(
                f"its video has {fps:g} frames per second, the dataset {view.fps:g}",
                file=INFO,
                column=name,
            )


RULES = (
    Rule(
        "C001",
        "features-unusable",
        "error",
        "`features` is missing or empty, or holds something else than objects.",
        "No reader knows which columns there are.",
        "Write name, dtype, shape and names of each column.",
        features_unusable,
    ),
    Rule(
        "C002",
        "vector-missing",
        "error",
        "No feature can be taken for the state or the actions, or the mapping names one that is"
        " not there.",
        "Stats, heads and the tokenizer need both.",
        "Declare the columns in info.json, or name those that are there in"
        " data_features_name_mapping.",
        state_or_action_missing,
    ),
    Rule(
        "C003",
        "unusual-names",
        "warning",
        "State or actions have other names than `observation.state` and `action`, and nothing maps"
        " them.",
        "Code that looks for the usual names finds no state or no action; OpenTau needs the"
        " mapping.",
        "Set data_features_name_mapping in the mixture.",
        unusual_names,
    ),
    Rule(
        "C004",
        "column-missing",
        "error",
        "A declared feature is no column of the data files.",
        "OpenTau stops at the first sample that needs the column; LeRobot fills it with nulls.",
        "Remove the feature from info.json, or write the column.",
        column_missing,
    ),
    Rule(
        "C005",
        "standard-column-missing",
        "warning",
        "The data lacks one of timestamp, frame_index, episode_index, index and task_index.",
        "This toolkit does without. OpenTau, LeRobot and openpi need some of them (O003, O007,"
        " O010).",
        "Write the columns, or load the data with tools that do without.",
        standard_column_missing,
    ),
    Rule(
        "C006",
        "column-undeclared",
        "warning",
        "The data has columns that `features` does not declare.",
        "LeRobot casts the data to the declared features and stops; OpenTau goes by the files.",
        "Declare them in info.json, or drop the columns.",
        column_undeclared,
    ),
    Rule(
        "C007",
        "dtype-differs",
        "warning",
        "A column's type is not the declared dtype, such as float64 where info.json says float32.",
        "LeRobot casts to the declared type, and digits are lost; OpenTau goes by the files,"
        " and fails to batch them with those of other datasets.",
        "Correct the dtype in info.json, or write the column again.",
        dtype_differs,
    ),
    Rule(
        "C008",
        "width-differs",
        "error",
        "A column's rows are wider or narrower than the declared shape.",
        "Batches of different widths cannot be stacked, and stats are those of other dims.",
        "Correct the shape in info.json, or write the column again.",
        width_differs,
    ),
    Rule(
        "C009",
        "shape-invalid",
        "error",
        "A feature has no usable shape: whole numbers above 0, and for cameras height, width and"
        " channels.",
        "Model inputs cannot be laid out.",
        "Write the shape of one frame.",
        shape_invalid,
    ),
    Rule(
        "C010",
        "names-nested",
        "note",
        "A feature's `names` are a list of lists, or an object of lists, where LeRobot writes a"
        " list.",
        "Tools that pick dims by name do not find them; this toolkit goes by number.",
        "Write one flat list of as many names as dims.",
        names_nested,
    ),
    Rule(
        "C011",
        "names-count",
        "warning",
        "There are more or fewer names than dims, or two dims have one name.",
        "Whoever picks dims by name picks the wrong ones.",
        "Write one name per dim.",
        names_count,
    ),
    Rule(
        "C012",
        "widths-unlike",
        "note",
        "State and actions have different widths.",
        "Often right (a base without encoders), but delta actions and anything else that pairs"
        " dims by number then pairs the wrong ones.",
        "Check that the dims line up; select them with state_index and action_index if not.",
        widths_unlike,
    ),
    Rule(
        "C013",
        "files-differ",
        "error",
        "Data files of one dataset have different columns or types.",
        "Loading them as one table fails, or silently fills nulls.",
        "Write the files with one schema.",
        files_differ,
    ),
    Rule(
        "C014",
        "camera-fps",
        "warning",
        "A video's frame rate is not the dataset's.",
        "Pictures and joint values are paired by time: they drift apart within an episode.",
        "Correct fps, or encode the video again.",
        camera_fps,
    ),
)
