"""References: against the recorded vectors, and against everything a file system can hold."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opentau_prep import ConfigError, resolve_refs
from opentau_prep.config import refs
from opentau_prep.config.refs import load_document
from opentau_prep.notices import collect_notices

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "refs"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
ERRORS = json.loads((GOLDEN / "errors.json").read_text())
ERROR_WORDS = {
    "cycle": "forms a cycle",
    "missing file": "file not found",
    "invalid JSON": "not valid JSON",
    "non-string $ref": "must be a file name",
    "siblings on a non-object target": 'are next to "$ref"',
}


def write(folder: Path, **files: object) -> Path:
    """Write `name=content` as name.json; return the first."""
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    return folder / f"{next(iter(files))}.json"


def error_of(path: str | Path) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve_refs(path)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", EXPECTED)
def test_resolve_refs_golden_file_equals_recorded_result(name: str) -> None:
    resolved = resolve_refs(GOLDEN / name)
    assert resolved == EXPECTED[name]["resolved"]
    digest = hashlib.sha256(json.dumps(resolved, indent=4).encode()).hexdigest()
    assert digest == EXPECTED[name]["sha256_json_indent4"]


@pytest.mark.parametrize("case", ERRORS, ids=lambda case: case["file"])
def test_resolve_refs_golden_error_names_file_and_kind(case: dict[str, str]) -> None:
    text = error_of(GOLDEN / case["file"])
    assert ERROR_WORDS[case["kind"]] in text
    assert Path(case["file"]).name in text


def test_resolve_refs_cycle_shows_whole_chain(tmp_path: Path) -> None:
    top = write(tmp_path, a={"$ref": "b.json"}, b=[{"$ref": "c.json"}], c={"x": {"$ref": "b.json"}})
    text = error_of(top)
    assert " -> ".join(str(tmp_path / f"{n}.json") for n in "abcb") in text


def test_resolve_refs_cycle_through_symlink_is_found(tmp_path: Path) -> None:
    top = write(tmp_path, a={"$ref": "link.json"})
    (tmp_path / "link.json").symlink_to(top)
    assert "forms a cycle" in error_of(top)


def test_resolve_refs_symlinked_file_refers_from_its_link(tmp_path: Path) -> None:
    # As in the hub's cache, where every file is a link to a blob with another name elsewhere.
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    write(tmp_path / "blobs", a={"$ref": "other.json"}, b={"k": 1})
    (tmp_path / "snapshot" / "top.json").symlink_to(tmp_path / "blobs" / "a.json")
    (tmp_path / "snapshot" / "other.json").symlink_to(tmp_path / "blobs" / "b.json")
    assert resolve_refs(tmp_path / "snapshot" / "top.json") == {"k": 1}


def test_resolve_refs_absolute_target_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    target = write(tmp_path, t={"k": 1})
    assert resolve_refs(write(tmp_path / "sub", a={"$ref": str(target)})) == {"k": 1}


def test_resolve_refs_tilde_target_is_not_expanded(tmp_path: Path) -> None:
    top = write(tmp_path, a={"$ref": "~/t.json"})
    assert '"~" is not expanded' in error_of(top)
    (tmp_path / "~").mkdir()
    write(tmp_path / "~", t={"k": 1})
    assert resolve_refs(top) == {"k": 1}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_resolve_refs_any_unicode_encoding_is_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.json").write_bytes('{"k": "caf\u00e9"}'.encode(encoding))
    assert resolve_refs(tmp_path / "a.json") == {"k": "caf\u00e9"}


def test_resolve_refs_nan_literal_is_read_as_python_does(tmp_path: Path) -> None:
    resolved = resolve_refs(write(tmp_path, a='{"k": [NaN, -Infinity, 1e999]}'))
    assert json.dumps(resolved) == '{"k": [NaN, -Infinity, Infinity]}'


def test_resolve_refs_duplicate_key_warns_once_and_last_wins(tmp_path: Path) -> None:
    top = write(tmp_path, a='[{"$ref": "b.json"}, {"$ref": "b.json"}]', b='{"k": 1, "k": 2}')
    with collect_notices() as notices:
        assert resolve_refs(top) == [{"k": 2}, {"k": 2}]
    assert [notice.kind for notice in notices] == ["duplicate_json_key"]
    assert "b.json" in notices[0].message
    assert '"k"' in notices[0].message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b" \n ", "the file is empty"),
        (b"{", "not valid JSON"),
        (b"{'a': 1}", "line 1, column 2"),
        (b'{"a": 1} x', "Extra data"),
        (b'{"a": "\xff"}', "byte 7 is not UTF-8 text"),
        (b"\x80\x04\x95", "is not UTF-8 text"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not usable JSON"),
        (b"[" * 100_000, "levels deep"),
        (b"[" * 150 + b"]" * 150, "nested more than 100 levels deep"),
        (b'{"k":' * 150 + b"1" + b"}" * 150, "nested more than 100 levels deep"),
        (b'{"a": "\\ud800"}', "not valid Unicode text"),
        (b'{"\\udfff": 1}', "not valid Unicode text"),
        (b'{"$ref": "\\ud800.json"}', "not valid Unicode text"),
        (b'{"$ref": "a\\u0000.json"}', "cannot be read"),
        (b'{"$ref": "' + b"x" * 5000 + b'.json"}', "cannot be read"),
        (b'{"$ref": ""}', "cannot be read"),
        (b'{"$ref": "."}', "cannot be read"),
        (b'{"$ref": "folder/top.json/x"}', "file not found"),
        (b'{"$ref": "top.json/x"}', "cannot be read"),
        (b'{"$ref": "/dev/zero"}', "not a regular file"),
        (b'{"$ref": null}', "must be a file name"),
        (b'{"$ref": true}', "must be a file name"),
        (b'{"$ref": {"$ref": "a.json"}}', "must be a file name"),
    ],
)
def test_resolve_refs_malformed_file_is_one_line(
    tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "top.json").write_bytes(content)
    text = error_of(tmp_path / "top.json")
    assert words in text
    assert "top.json" in text


@pytest.mark.parametrize("name", ["", ".", "no/such", "a\0b", "x" * 5000, "new\nline"])
def test_resolve_refs_unusable_path_is_one_line(name: str) -> None:
    error_of(name)


def test_resolve_refs_fault_in_target_names_both_files(tmp_path: Path) -> None:
    text = error_of(write(tmp_path, top={"x": {"$ref": "bad.json"}}, bad="{"))
    assert "bad.json" in text
    assert "top.json" in text


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_resolve_refs_forbidden_file_is_one_line(tmp_path: Path) -> None:
    top = write(tmp_path, a={})
    top.chmod(0)
    assert "Permission denied" in error_of(top)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop privileges")
def test_resolve_refs_forbidden_file_without_privileges_is_one_line(tmp_path: Path) -> None:
    top = write(tmp_path, a={})
    top.chmod(0)
    code = (
        "import os, sys; import opentau_prep.config.refs as r; os.setuid(65534)\n"
        "try: r.resolve_refs(sys.argv[1])\nexcept Exception as e: print(type(e).__name__, e)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(top)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.stdout.startswith("ConfigError")
    assert "Permission denied" in done.stdout


def test_resolve_refs_pipe_as_named_file_is_read(tmp_path: Path) -> None:
    code = "from opentau_prep import resolve_refs; print(resolve_refs('/dev/stdin'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        input='{"k": 1}',
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.stdout == "{'k': 1}\n"


def test_resolve_refs_exponential_expansion_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refs, "_MAX_VALUES", 1000)
    files: dict[str, object] = {
        f"f{i}": [{"$ref": f"f{i + 1}.json"}, {"$ref": f"f{i + 1}.json"}] for i in range(30)
    }
    assert "expands to more than" in error_of(write(tmp_path, **files, f30=1))


def test_resolve_refs_long_chain_of_files_is_one_line(tmp_path: Path) -> None:
    files: dict[str, object] = {f"f{i}": {"$ref": f"f{i + 1}.json"} for i in range(200)}
    assert "levels deep" in error_of(write(tmp_path, **files, f200={}))


def test_resolve_refs_same_target_twice_shares_no_objects(tmp_path: Path) -> None:
    resolved = resolve_refs(
        write(tmp_path, a=[{"$ref": "b.json"}, {"$ref": "b.json"}], b={"k": [1]})
    )
    assert isinstance(resolved, list)
    resolved[0]["k"].append(2)
    assert resolved[1] == {"k": [1]}


def test_load_document_origin_names_the_file_of_each_value(tmp_path: Path) -> None:
    top = write(
        tmp_path,
        top={"m": [{"$ref": "part.json", "own": {"in_top": 1}}, {"$ref": "part.json"}]},
        part={"p": [1, 2], "own": {"in_part": {"$ref": "leaf.json"}, "in_top": 0}},
        leaf={"v": 1},
    )
    document = load_document(top)
    part, leaf = tmp_path / "part.json", tmp_path / "leaf.json"
    for path, file in [
        (("m",), top),
        (("m", 0), top),
        (("m", 0, "p", 1), part),
        (("m", 0, "own", "in_top"), top),
        (("m", 0, "own", "in_part", "v"), leaf),
        (("m", 0, "missing"), top),
        (("m", 1), part),
        (("m", 1, "own", "in_top"), part),
        (("m", 1, "missing"), part),
    ]:
        assert document.origin.at(path).file == file, path
    assert document.files == (top, part, leaf)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "$ref"]) | st.text(max_size=3), inner)
    ),
    max_leaves=12,
)


@settings(max_examples=80, deadline=None)
@given(value=JSON_VALUES)
def test_resolve_refs_any_json_resolves_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, value: object
) -> None:
    top = write(tmp_path_factory.mktemp("refs"), a=json.dumps(value))
    refusal = ""
    try:
        resolved = resolve_refs(top)
    except ConfigError as error:
        refusal = str(error)
    assert "\n" not in refusal
    if not refusal:  # then nothing was there to be replaced: no target exists
        assert json.dumps(resolved) == json.dumps(value)


def test_import_config_loads_no_pydantic_and_no_numpy() -> None:
    code = (
        "import sys, opentau_prep.config.load, opentau_prep.config.names, "
        "opentau_prep.config.norm_stats; "
        "print('pydantic' in sys.modules, 'numpy' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout == "False False\n"
