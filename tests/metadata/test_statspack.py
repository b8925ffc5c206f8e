"""The quick reader of episodes' stats against plain NumPy, and what it leaves to the other."""

import gc
import json

import numpy as np
import pytest

from opentau_prep.errors import MetadataError
from opentau_prep.metadata.jsonread import paused_collection
from opentau_prep.metadata.statspack import pack_lines, pack_vectors
from opentau_prep.metadata.v2 import read_episodes_stats
from opentau_prep.storage import LocalStorage


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


def lines(content):
    return b"".join(json.dumps(row).encode() + b"\n" for row in content)


def test_pack_lines_usual_file_gives_each_stat_as_written():
    content = rows()
    packed = pack_lines(lines(content), ["state", "action"])
    assert packed.episode_index.tolist() == [0, 1, 2]
    for feature in ("state", "action"):
        assert list(packed.blocks[feature]) == ["min", "max", "mean", "std", "count"]
        for stat, block in packed.blocks[feature].items():
            expected = np.array([row["stats"][feature][stat] for row in content])
            assert block.rows is None
            assert block.values.dtype == expected.dtype
            assert block.values.tobytes() == expected.tobytes()
            assert not block.values.flags.writeable


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


ODD = ["ints first", "ragged", "extra stat", "text", "null", "nested", "float count", "two counts"]
ODD += ["no feature", "order", "twice", "index", "huge", "list"]


@pytest.mark.parametrize("what", ODD)
def test_pack_lines_unusual_file_is_left_to_the_general_reader(what):
    content = rows()
    _change(content, what)
    assert pack_lines(lines(content), ["state", "action"]) is None


@pytest.mark.parametrize("data", [b"", b"\n \n", b"{", b'{"episode_index": NaN}'])
def test_pack_lines_no_json_is_left_to_the_general_reader(data):
    assert pack_lines(data, ["state"]) is None


def _told(storage, columns):
    try:
        read_episodes_stats(storage, columns)
    except MetadataError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("what", ["", *ODD])
def test_read_episodes_stats_some_columns_are_those_of_all_columns(tmp_path, what):
    content = rows()
    _change(content, what)
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/episodes_stats.jsonl").write_bytes(lines(content))
    storage = LocalStorage(tmp_path)
    told = [_told(storage, None), _told(storage, ["state", "action"])]
    assert told[0] == told[1]
    if told[0]:
        return
    everything = read_episodes_stats(storage)
    some = read_episodes_stats(storage, ["state", "action"])
    assert some.episode_index.tolist() == everything.episode_index.tolist()
    for feature, stats in some.blocks.items():
        for stat, block in stats.items():
            other = everything.blocks[feature][stat]
            assert block.values.dtype == other.values.dtype
            assert block.values.tobytes() == other.values.tobytes()


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


@pytest.mark.parametrize("was_on", [True, False])
def test_paused_collection_error_leaves_the_collector_as_it_was(was_on):
    before = gc.isenabled()
    try:
        (gc.enable if was_on else gc.disable)()
        with pytest.raises(KeyError), paused_collection():
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() == was_on
    finally:
        (gc.enable if before else gc.disable)()
