"""Episodes' stats as they are read and pooled, whole or some columns, against plain NumPy."""

import json

import numpy as np
import pytest

from opentau_prep.errors import MetadataError
from opentau_prep.metadata.dataset import load_dataset_metadata
from opentau_prep.metadata.statsread import pack_vectors
from opentau_prep.pooling import aggregate_stats


def rows(n=3, dims=2):
    values = np.random.default_rng(5).normal(size=(n, 2, 4, dims))
    names = ("min", "max", "mean", "std")
    return [
        {
            "episode_index": i,
            "stats": {
                feature: dict(zip(names, values[i, f].tolist(), strict=True)) | {"count": [9 + i]}
                for f, feature in enumerate(("state", "action"))
            },
        }
        for i in range(n)
    ]


def write(root, content):
    (root / "meta").mkdir()
    (root / "meta/info.json").write_text('{"codebase_version": "v2.1"}')
    (root / "meta/episodes.jsonl").write_text("")
    lines = "".join(json.dumps(row) + "\n" for row in content)
    (root / "meta/episodes_stats.jsonl").write_text(lines)


def arrays(stats):
    return {f: {s: np.array(v) for s, v in entry.items()} for f, entry in stats.items()}


def assert_same_stats(found, expected):
    assert list(found) == list(expected)
    for stat, values in expected.items():
        assert found[stat].dtype == values.dtype
        assert found[stat].shape == values.shape
        assert found[stat].tobytes() == values.tobytes()


@pytest.mark.parametrize("n", [1, 3, 8, 40])
@pytest.mark.parametrize("quantiles", [(), ("q99", "q01")])
def test_stats_of_usual_file_are_the_aggregate_of_its_rows(tmp_path, n, quantiles):
    content = rows(n, dims=3)
    for row in content:
        row["stats"]["action"]["count"] = [1 + row["episode_index"] ** 2]
        for entry in row["stats"].values():
            entry |= {name: [float(i), -0.0, 1e300] for i, name in enumerate(quantiles)}
    write(tmp_path, content)
    expected = aggregate_stats([arrays(row["stats"]) for row in content])
    for columns in (None, ["state", "action"]):
        pooled = _stats(tmp_path, columns)
        for feature in ("state", "action"):
            assert_same_stats(pooled[feature], expected[feature])


def _change(content, what):
    state = content[1]["stats"]["state"]
    if what == "ints first":
        content[0]["stats"]["state"]["min"] = [0, 1]
    elif what == "ragged":
        state["min"], state["max"] = state["min"][:1], [*state["max"], 1.0]
    elif what == "extra stat":
        state["q01"] = [0.0, 0.0]
    elif what == "text":
        state["mean"] = "ab"
    elif what == "null":
        state["mean"] = [None, 1.0]
    elif what == "nested":
        state["mean"] = [[1.0], [2.0]]
    elif what == "float count":
        state["count"] = [1.5]
    elif what == "two counts":
        state["count"] = [1, 2]
    elif what == "no feature":
        del content[1]["stats"]["state"]
    elif what == "order":
        content.reverse()
    elif what == "twice":
        content[1]["episode_index"] = 0
    elif what == "index":
        content[1]["episode_index"] = True
    elif what == "huge":
        state["mean"] = [10**400, 1.0]
    elif what == "list":
        content[1] = [1]
    elif what == "median":
        for row in content:
            row["stats"]["state"]["median"] = [0.0, 0.0]
    elif what == "negative count":
        state["count"] = [-1]
    elif what == "one column":
        for row in content:
            entry = row["stats"]["state"]
            row["stats"]["state"] = {stat: values[:1] for stat, values in entry.items()}


ODD = ["ints first", "ragged", "extra stat", "text", "null", "nested", "float count", "two counts"]
ODD += ["no feature", "order", "twice", "index", "huge", "list", "median", "negative count"]
ODD += ["one column"]


def _stats(root, columns=None):
    """Return the stats of a fresh look at a dataset, or what is told about it."""
    meta = load_dataset_metadata(root)
    try:
        return meta.stats if columns is None else meta.stats_of(columns)
    except MetadataError as error:
        return str(error)


@pytest.mark.parametrize("what", ["", *ODD])
def test_stats_of_some_columns_are_those_of_all_columns(tmp_path, what):
    content = rows()
    _change(content, what)
    write(tmp_path, content)
    everything, some = _stats(tmp_path), _stats(tmp_path, ["state", "action"])
    if isinstance(everything, str):
        assert some == everything
        return
    for feature, stats in some.items():
        assert_same_stats(stats, everything[feature])


@pytest.mark.parametrize(
    ("vectors", "same"),
    [
        ([[1.5, 2], [0.5, True]], True),
        ([[1, 2], [3, 4]], False),
        ([[1.0], [1.0, 2.0]], False),
        ([[1.0, None]], False),
        ([[[1.0]]], False),
        ([], False),
        ([1.0], False),
    ],
)
def test_pack_vectors_packs_only_what_numpy_makes_floats(vectors, same):
    packed = pack_vectors(vectors)
    assert (packed is not None) == same
    if packed is not None:
        np.testing.assert_array_equal(packed, np.array(vectors))
        assert np.array(vectors).dtype == packed.dtype
