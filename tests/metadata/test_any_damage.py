"""No byte of any file of a dataset can cause more than one of our errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import tiny_dataset
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from opentau_prep.errors import PrepError
from opentau_prep.frames import read_frames
from opentau_prep.metadata import load_dataset_metadata
from opentau_prep.metadata.features import name_map_of
from opentau_prep.metadata.inputs import describe_inputs
from opentau_prep.metadata.select import select_episodes, selected_stats
from opentau_prep.notices import collect_notices

QUICK = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
V2_DATA = "data/chunk-000/episode_000001.parquet"
V3_DATA = "data/chunk-000/file-000.parquet"
FILES = [
    ("v2.1", "meta/info.json"),
    ("v2.1", "meta/episodes.jsonl"),
    ("v2.1", "meta/tasks.jsonl"),
    ("v2.1", "meta/episodes_stats.jsonl"),
    ("v2.0", "meta/stats.json"),
    ("v2.1", V2_DATA),
    ("v3.0", "meta/info.json"),
    ("v3.0", "meta/stats.json"),
    ("v3.0", "meta/tasks.parquet"),
    ("v3.0", "meta/episodes/chunk-000/file-000.parquet"),
    ("v3.0", V3_DATA),
]

# A place in the file, and what stands there instead.
spots = st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=4))
tokens = st.tuples(
    st.floats(0, 1, exclude_max=True),
    st.sampled_from(
        [b"NaN", b"null", b"-1", b"1e999", b"[]", b"{}", b'"\\ud800"', b"9" * 30, b"\xff", b"[[["]
    ),
)


def use_everything(root: Path) -> list[str]:
    """Ask for all there is, each on its own; return what was refused."""
    refused: list[str] = []

    def ask(what: str, question: Callable[[], Any]) -> None:
        try:
            question()
        except PrepError as error:
            check_error(error)
            refused.append(what)

    with collect_notices() as notices:
        try:
            meta = load_dataset_metadata(root)
        except PrepError as error:
            check_error(error)
            return ["load"]
        for name in ("fps", "features", "tasks", "stats", "episodes_stats", "data_paths"):
            ask(name, lambda name=name: getattr(meta, name))
        ask("episodes", lambda: (len(meta.episodes), meta.episodes.total_frames))
        ask("map", lambda: name_map_of(meta, None))
        ask("inputs", lambda: describe_inputs(meta))
        ask("selected", lambda: selected_stats(meta, np.array([0, 2])))
        ask("select", lambda: select_episodes(meta.episodes, episodes=[2, 0], where="x"))
        for column in ("observation.state", "timestamp", "task_index"):
            ask(column, lambda column=column: check_block(read_frames(meta, [column]), column))
    for notice in notices:
        notice.message.encode("utf-8")
    return refused


def check_error(error: PrepError) -> None:
    text = str(error)
    text.encode("utf-8")  # a terminal and a JSON document can hold it
    assert error.exit_code in (2, 3)
    assert text
    assert "\n" not in text


def check_block(block: Any, column: str) -> None:
    assert len(block.columns[column]) == block.n_frames
    assert len(block.spans) == len(block.episode_index) == len(block.lengths)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    parent = tmp_path_factory.mktemp("damage")
    versions = ("v2.0", "v2.1", "v3.0")
    return {v: tiny_dataset(parent, v, name=v, quantiles=True, cameras=("cam",)) for v in versions}


def test_use_everything_untouched_refuses_nothing(pristine: dict[str, Path]) -> None:
    assert [use_everything(root) for root in pristine.values()] == [[], [], []]


@pytest.mark.parametrize(("version", "rel"), FILES)
@QUICK
@example(kept=0.0, changes=[])
@example(kept=0.5, changes=[])
@given(
    kept=st.one_of(st.just(1.0), st.floats(0, 1)),
    changes=st.lists(st.one_of(spots, tokens), max_size=3),
)
def test_read_mutated_file_loads_or_names_it(
    pristine: dict[str, Path],
    version: str,
    rel: str,
    kept: float,
    changes: list[tuple[float, bytes]],
) -> None:
    path = pristine[version] / rel
    original = path.read_bytes()
    content = bytearray(original)
    for place, new in changes:
        start = int(place * len(content))
        content[start : start + len(new)] = new
    del content[int(kept * len(content)) :]
    path.write_bytes(content)
    try:
        use_everything(pristine[version])
    finally:
        path.write_bytes(original)


@pytest.mark.parametrize(
    "rel", [f for v, f in FILES if v == "v3.0" and f.endswith("parquet")] + [V2_DATA]
)
def test_read_parquet_cut_anywhere_near_its_ends_is_an_error(
    pristine: dict[str, Path], rel: str
) -> None:
    root = pristine["v2.1" if rel == V2_DATA else "v3.0"]
    path = root / rel
    original = path.read_bytes()
    try:
        for size in [
            *range(16),
            100,
            len(original) // 2,
            *range(len(original) - 12, len(original)),
        ]:
            path.write_bytes(original[:size])
            assert use_everything(root), size
    finally:
        path.write_bytes(original)
