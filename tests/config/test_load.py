"""Loading: from files, from training configs, from plain roots, and from anything at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any
from unicodedata import category

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from opentau_prep import ConfigError, load_mixture
from opentau_prep.config.load import mixture_from_roots, mixture_sha256
from opentau_prep.config.schema import Mixture
from opentau_prep.notices import collect_notices

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def write(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def refusal_of(file: Path) -> str:
    """Return the error's text, or "" when the file loads; any other exception fails the test."""
    try:
        load_mixture(file)
    except ConfigError as error:
        return str(error)
    return ""


def assert_well_told(refusal: str) -> None:
    lines = refusal.splitlines()
    assert len(lines) == 1 or re.search(rf": {len(lines) - 1} faults$", lines[0]), refusal
    shown = (c for line in lines for c in line if category(c) != "Zs" and c not in "\u200c\u200d")
    assert all(char.isprintable() for char in shown)
    refusal.encode()


def test_load_mixture_bare_and_in_training_config_are_the_same(tmp_path: Path) -> None:
    content = {"datasets": [{"repo_id": "a"}], "weights": [2]}
    bare = load_mixture(write(tmp_path / "bare.json", content))
    whole = load_mixture(
        write(
            tmp_path / "train.json",
            {"policy": {"type": "pi05", "x": [1]}, "datasets": 3, "dataset_mixture": content},
        )
    )
    assert bare.as_dict() == whole.as_dict()
    assert bare.sha256 == whole.sha256
    assert bare.datasets[0].json_path == "datasets[0]"
    assert whole.datasets[0].json_path == "dataset_mixture.datasets[0]"


def test_load_mixture_keys_beside_it_are_not_followed(tmp_path: Path) -> None:
    broken = {"$ref": "of_another_machine.json"}
    base = write(
        tmp_path / "base.json",
        {"policy": broken, "dataset_mixture": {"datasets": [{"repo_id": "a"}], "weights": [1]}},
    )
    top = write(
        tmp_path / "top.json",
        {"$ref": "base.json", "env": broken, "dataset_mixture": {"weights": [2]}},
    )
    loaded = load_mixture(top)
    assert loaded.weights == (2.0,)
    assert loaded.datasets[0].file == base
    assert loaded.files == (top, base)
    inner = {"dataset_mixture": {"datasets": [{"repo_id": "a", "stats": broken}]}}
    assert "file not found" in refusal_of(write(tmp_path / "inner.json", inner))


def test_load_mixture_identity_is_stem_and_canonical_hash(tmp_path: Path) -> None:
    file = write(tmp_path / "my mix.v2.json", {"weights": None, "datasets": [{"repo_id": "é"}]})
    canonical = '{"datasets":[{"repo_id":"\\u00e9"}],"weights":null}'
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    loaded = load_mixture(file)
    assert loaded.sha256 == digest == mixture_sha256(json.loads(canonical))
    assert loaded.mixture_id == f"my_mix.v2-{digest[:12]}"
    assert loaded.path == file


@pytest.mark.parametrize("stem", ["..", ".hidden", "a b/../x", "é", "x" * 120, "-", "a\nb"])
def test_load_mixture_any_stem_gives_a_safe_id(tmp_path: Path, stem: str) -> None:
    file = write(tmp_path / f"{stem}.json", {"datasets": [{"repo_id": "a"}]})
    assert re.fullmatch(
        r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}-[0-9a-f]{12}", load_mixture(file).mixture_id
    )


def test_load_mixture_split_into_files_has_the_same_hash(tmp_path: Path) -> None:
    whole = write(
        tmp_path / "m.json", {"datasets": [{"repo_id": "a", "robot_type": "r", "root": "x"}]}
    )
    split = write(
        tmp_path / "s" / "m.json", {"datasets": [{"$ref": "parts/r.json", "repo_id": "a"}]}
    )
    part = write(tmp_path / "s" / "parts" / "r.json", {"robot_type": "r", "root": "x"})
    assert load_mixture(split).mixture_id == load_mixture(whole).mixture_id
    assert load_mixture(split).files == (split, part)


def test_load_mixture_entry_knows_which_file_names_what(tmp_path: Path) -> None:
    top = write(
        tmp_path / "m.json",
        {"dataset_mixture": {"datasets": [{"$ref": "parts/r.json", "repo_id": "a"}]}},
    )
    part = write(tmp_path / "parts" / "r.json", {"root": "../here", "state_index": [0, 1]})
    loaded = load_mixture(top)
    entry = loaded.datasets[0]
    assert entry.file == top
    assert entry.root_file == part
    assert entry.where() == f"{top}: dataset_mixture.datasets[0]"
    assert entry.where("state_index", 1) == f"{part}: dataset_mixture.datasets[0].state_index[1]"
    assert loaded.where("weights") == f"{top}: dataset_mixture.weights"


def test_load_mixture_fault_in_part_names_the_part(tmp_path: Path) -> None:
    top = write(tmp_path / "m.json", {"datasets": [{"$ref": "r.json", "repo_id": "a"}]})
    part = write(tmp_path / "r.json", {"state_index": [0, "1"], "robot_typ": "x"})
    lines = refusal_of(top).splitlines()
    assert lines == [
        f"{top}: 2 faults",
        f'{part}: datasets[0].state_index[1]: found "1", expected a whole number',
        f'{part}: datasets[0].robot_typ: unknown field "robot_typ"; '
        'the nearest known field is "robot_type"',
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("3", "found 3, expected a mixture"),
        ("null", "found null, expected a mixture"),
        ('"text"', "expected a mixture"),
        ("[]", "found [], expected a mixture"),
        ("{}", "found {}, expected a mixture"),
        ('{"dataset_mixtures": {}}', 'did "dataset_mixtures" mean one of them?'),
        ('{"dataset": []}', 'did "dataset" mean one of them?'),
        ('{"dataset_mixture": null}', "dataset_mixture: found null, expected an object"),
        ('{"dataset_mixture": []}', "dataset_mixture: found [], expected an object"),
        ('{"dataset_mixture": {}}', "dataset_mixture.datasets: required, but missing"),
        ('{"dataset_mixture": {"$ref": "none.json"}}', "file not found"),
        ("{", "not valid JSON"),
        ("", "the file is empty"),
    ],
)
def test_load_mixture_malformed_file_is_one_line(tmp_path: Path, content: str, words: str) -> None:
    text = refusal_of(write(tmp_path / "m.json", content))
    assert words in text
    assert "m.json" in text
    assert_well_told(text)


NAMES = st.sampled_from([*Mixture.names(), "repo_id", "stats", "vqa", "[key]", "$ref", "0"])
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=3), inner),
    max_leaves=10,
)
MIXTURES = JSON_VALUES | st.fixed_dictionaries(
    {"datasets": st.lists(st.dictionaries(NAMES, JSON_VALUES, max_size=3), max_size=2)},
    optional={"weights": st.lists(st.floats(), max_size=2), "action_freq": JSON_VALUES},
)


@settings(max_examples=150, deadline=None)
@given(value=MIXTURES, wrapped=st.booleans())
@example(value={"datasets": [{"repo_id": "a"}]}, wrapped=True)
def test_load_mixture_any_json_loads_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, value: Any, wrapped: bool
) -> None:
    content = {"dataset_mixture": value} if wrapped else value
    file = write(tmp_path_factory.mktemp("any") / "m.json", json.dumps(content))
    refusal = refusal_of(file)
    if refusal:
        assert_well_told(refusal)


VALID = json.dumps(
    {
        "datasets": [
            {"repo_id": "org/a", "state_index": [0, 1], "robot_type": "r", "tolerance_s": 1e-3},
            {"vqa": "c", "stats": {"s": {"mean": [1.5]}}},
        ],
        "weights": [0.5, 1],
    }
).encode()


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_load_mixture_any_mutation_loads_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(VALID)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.mktemp("mutated") / "m.json"
    file.write_bytes(bytes(content))
    with collect_notices():
        refusal = refusal_of(file)
    if refusal:
        assert_well_told(refusal)


@pytest.mark.parametrize("end", range(0, len(VALID), 7))
def test_load_mixture_truncated_file_is_refused(tmp_path: Path, end: int) -> None:
    (tmp_path / "m.json").write_bytes(VALID[:end])
    assert_well_told(refusal_of(tmp_path / "m.json"))
    assert refusal_of(tmp_path / "m.json")


def test_load_mixture_examples_load() -> None:
    example_mixture = load_mixture(CONFIGS / "example_mixture.json")
    training = load_mixture(CONFIGS / "training_config.json")
    assert load_mixture(CONFIGS / "minimal_mixture.json").weights is None
    assert example_mixture.dataset_names == (
        "lerobot/svla_so101_pickplace",
        "my-lab/so101_stacking#0",
        "my-lab/so101_stacking#1",
        "lerobot/droid_100",
        "clevr",
    )
    part = CONFIGS / "parts" / "so101.json"
    assert example_mixture.files == (CONFIGS / "example_mixture.json", part)
    first, second = example_mixture.datasets[:2]
    assert (first.data_features_name_mapping or {})["camera0"] == "observation.images.up"
    assert (second.data_features_name_mapping or {})["camera0"] == "observation.images.top"
    assert (second.data_features_name_mapping or {})["actions"] == "action"
    assert training.action_freq == 50
    assert training.as_dict() == {**example_mixture.as_dict(), "action_freq": 50}
    assert training.sha256 != example_mixture.sha256


def test_configs_every_json_file_is_in_their_readme() -> None:
    readme = (CONFIGS / "README.md").read_text()
    for file in CONFIGS.rglob("*mixture.json"):
        assert f"({file.relative_to(CONFIGS).as_posix()})" in readme


def test_mixture_from_roots_plain_folders_keep_order_and_name(tmp_path: Path) -> None:
    roots = [str(tmp_path / "pick"), f"{tmp_path}/place/"]
    made = mixture_from_roots(roots)
    assert made.dataset_names == ("pick", "place")
    assert [entry.root for entry in made.datasets] == roots
    assert made.path is None
    assert made.files == ()
    assert re.fullmatch("roots-[0-9a-f]{12}", made.mixture_id)
    assert made.datasets[0].where("episodes") == f"{roots[0]}: episodes"
    assert made.datasets[0].root_file is None


def test_mixture_from_roots_same_folder_name_takes_parents_with_it() -> None:
    names = mixture_from_roots(["/d/x/a/pick", "/d/x/b/pick", "/d/y/b/pick", "/d/z"]).dataset_names
    assert names == ("a/pick", "x/b/pick", "y/b/pick", "z")
    assert mixture_from_roots(["/pick", "/d/pick"]).dataset_names == ("pick", "d/pick")


def test_mixture_from_roots_same_folder_twice_counts_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with collect_notices() as notices:
        made = mixture_from_roots([tmp_path / "a", f"{tmp_path}/b/../a", tmp_path / "link"])
    assert len(made.datasets) == 1
    assert [notice.kind for notice in notices] == ["duplicate_root", "duplicate_root"]


def test_mixture_from_roots_hub_snapshot_is_named_by_its_id() -> None:
    hub = "/h/.cache/huggingface/hub/datasets--lerobot--droid_100/snapshots/0123abc"
    assert mixture_from_roots([hub]).datasets[0].repo_id == "lerobot/droid_100"


def test_mixture_from_roots_id_depends_on_folders_not_on_spelling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    relative, absolute = mixture_from_roots(["a"]), mixture_from_roots([str(tmp_path / "a")])
    assert relative.mixture_id == absolute.mixture_id
    assert relative.mixture_id != mixture_from_roots(["b"]).mixture_id


@pytest.mark.parametrize("name", ["C:", "a\\b", "..", ".", "/", "tab\there", "x" * 255])
def test_mixture_from_roots_odd_folder_names_are_told_or_taken(name: str) -> None:
    try:
        made = mixture_from_roots([f"/data/{name}"])
    except ConfigError as error:
        assert_well_told(str(error))
        assert "\t" in name
    else:
        assert "\\" not in made.datasets[0].id


@pytest.mark.parametrize("roots", [[], [""], ["a", ""], ["a\0b"], [os.fsdecode(b"/d/\xff")]])
def test_mixture_from_roots_unusable_roots_are_refused(roots: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        mixture_from_roots(roots)
    assert_well_told(str(caught.value))


def test_mixture_from_roots_urls_are_named_by_their_end() -> None:
    roots = ["s3://b/pick/", "gs://b/fold", "hf://datasets/org/name", "/data/plain"]
    mixture = mixture_from_roots(roots)
    assert [entry.repo_id for entry in mixture.datasets] == ["pick", "fold", "org/name", "plain"]
    assert mixture.roots == tuple(roots)


def test_mixture_from_roots_urls_of_one_name_are_told_apart() -> None:
    mixture = mixture_from_roots(["s3://a/ds", "s3://b/ds"])
    assert [entry.repo_id for entry in mixture.datasets] == ["a/ds", "b/ds"]


def test_mixture_from_roots_url_given_twice_counts_once() -> None:
    with collect_notices() as said:
        mixture = mixture_from_roots(["s3://b/ds", "s3://b/ds/"])
    assert len(mixture.datasets) == 1
    assert [notice.kind for notice in said] == ["duplicate_root"]


def test_mixture_from_roots_url_with_credentials_is_refused_unshown() -> None:
    with pytest.raises(ConfigError) as caught:
        mixture_from_roots(["s3://KEY:S3CRET@b/ds"])
    assert "S3CRET" not in str(caught.value)


def test_entry_where_shows_a_url_root_whole() -> None:
    assert mixture_from_roots(["s3://b/ds"]).datasets[0].where() == "s3://b/ds"


def test_mixture_identity_does_not_depend_on_where_the_data_lies(tmp_path: Path) -> None:
    entry = {"repo_id": "o/a", "episodes": [1, 2]}
    here = write(tmp_path / "a" / "m.json", {"datasets": [{**entry, "root": "data/a"}]})
    store = write(tmp_path / "b" / "m.json", {"datasets": [{**entry, "root": "s3://bucket/a"}]})
    other = write(tmp_path / "c" / "m.json", {"datasets": [{**entry, "episodes": [1, 3]}]})
    assert load_mixture(here).mixture_id == load_mixture(store).mixture_id
    assert load_mixture(other).mixture_id != load_mixture(here).mixture_id
    assert mixture_from_roots(["x/a"]).mixture_id == mixture_from_roots(["y/a"]).mixture_id
