"""Episodes found faulty, left out in a copy of the mixture; findings as SARIF."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from breaking import RunContext, check_mixture, codes_of, salvage_mixture, write_broken
from mutations import MUTATIONS

from opentau_prep.config.load import load_mixture
from opentau_prep.errors import ConfigError
from opentau_prep.metadata.resolve import resolve_mixture
from opentau_prep.validate.catalogue import all_rules
from opentau_prep.validate.exclusions import write_exclusions
from opentau_prep.validate.formats import as_sarif
from opentau_prep.validate.rule import EXCLUDING

CHANGE = next(m for m in MUTATIONS if m.name == "an episode trembles")


@pytest.fixture
def mixture(tmp_path: Path) -> Path:
    write_broken(tmp_path / "data/set", CHANGE)
    file = tmp_path / "mix.json"
    entry = {"repo_id": "a/b", "root": "data/set", "excluded_episodes": [1]}
    file.write_text(json.dumps({"dataset_mixture": {"datasets": [entry]}, "seed": 7}))
    return file


def _write(mixture: Path, out: Path) -> None:
    subject = salvage_mixture(mixture)
    write_exclusions(out, check_mixture(mixture, deep=True), subject, RunContext(workers=1))


def test_write_exclusions_leaves_the_episode_out_anywhere(mixture: Path, tmp_path: Path) -> None:
    before = mixture.read_bytes()
    (tmp_path / "elsewhere").mkdir()
    out = tmp_path / "elsewhere/clean.json"

    _write(mixture, out)

    assert mixture.read_bytes() == before
    assert json.loads(out.read_text())["seed"] == 7
    entry = resolve_mixture(load_mixture(out)).entries[0]
    assert entry.config.excluded_episodes == (1, 3)
    assert 3 not in entry.episodes
    assert codes_of(check_mixture(out, deep=True)) == set()  # what was advised settles it
    assert "B002" in "".join(f.read_text() for f in out.parent.rglob("*clean*") if f != out)


def test_write_exclusions_refuses_the_mixture_itself(mixture: Path) -> None:
    with pytest.raises(ConfigError, match="never changed"):
        _write(mixture, mixture)


def test_excluding_rules_exist_and_name_episodes() -> None:
    assert set(EXCLUDING) <= {rule.code for rule in all_rules()}


def test_sarif_has_a_result_per_finding_and_its_rule(mixture: Path) -> None:
    report = check_mixture(mixture, deep=True)

    document = json.loads(as_sarif(report))

    run = document["runs"][0]
    rules = run["tool"]["driver"]["rules"]
    assert document["version"] == "2.1.0"
    assert {result["ruleId"] for result in run["results"]} == codes_of(report) == {"B002"}
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] == "warning"
        assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]


def _object(required: str = "", **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": required.split(),
        "properties": properties,
        "additionalProperties": False,
    }


_TEXT, _URI = {"type": "string"}, {"type": "string", "pattern": r"^[^\s\\\\]*$"}
_LEVEL = {"enum": ["none", "note", "warning", "error"]}
_MESSAGE = _object("text", text=_TEXT)
# The parts of sarif-schema-2.1.0.json (OASIS) that are written: what each requires, the names that
# it knows of them, and its enumerations and bounds. A property that is none of them is refused.
SARIF = _object(
    "version runs",
    **{"$schema": _URI},
    version={"enum": ["2.1.0"]},
    runs={
        "type": "array",
        "items": _object(
            "tool",
            columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
            tool=_object(
                "driver",
                driver=_object(
                    "name",
                    name=_TEXT,
                    version=_TEXT,
                    rules={
                        "type": "array",
                        "uniqueItems": True,
                        "items": _object(
                            "id",
                            id=_TEXT,
                            name=_TEXT,
                            shortDescription=_MESSAGE,
                            fullDescription=_MESSAGE,
                            help=_MESSAGE,
                            defaultConfiguration=_object(level=_LEVEL),
                        ),
                    },
                ),
            ),
            results={
                "type": "array",
                "items": _object(
                    "message",
                    ruleId=_TEXT,
                    ruleIndex={"type": "integer", "minimum": -1},
                    level=_LEVEL,
                    message=_MESSAGE,
                    partialFingerprints={"type": "object", "additionalProperties": _TEXT},
                    properties={"type": "object"},
                    locations={
                        "type": "array",
                        "items": _object(
                            physicalLocation=_object(
                                "artifactLocation", artifactLocation=_object(uri=_URI)
                            )
                        ),
                    },
                ),
            },
        ),
    },
)


def test_sarif_has_what_the_schema_of_the_standard_requires(mixture: Path) -> None:
    (mixture.parent / "data/set/meta/info.json").rename(mixture.parent / "data/set/meta/gone.json")
    (mixture.parent / "mix ed.json").write_text('{"datasets": [{"repo_id": "a"}], "wights": [1]}')
    jsonschema.Draft202012Validator.check_schema(SARIF)
    for file in (mixture, mixture.parent / "mix ed.json"):
        document = json.loads(as_sarif(check_mixture(file)))

        jsonschema.validate(document, SARIF)

        run = document["runs"][0]
        assert run["results"]
        for result in run["results"]:
            assert 0 <= result["ruleIndex"] < len(run["tool"]["driver"]["rules"])
