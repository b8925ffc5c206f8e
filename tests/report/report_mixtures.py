"""Mixtures in the states that a report has to tell apart."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
from pathlib import Path

from typer.testing import CliRunner

from opentau_prep.cli.app import app
from opentau_prep.config.load import load_mixture
from opentau_prep.context import RunContext
from opentau_prep.metadata.resolve import resolve_mixture
from opentau_prep.verdict import OutputPaths, judge_mixture
from opentau_prep.verdict.facts import Verdict

QUICK = {"run": ["--total-chunks", "300", "--vocab-size", "300", "--scale", "5"]}


@contextlib.contextmanager
def working_in(folder: Path):
    """Work in a folder, with a cache of its own."""
    before = Path.cwd(), os.environ.get("OPENTAU_PREP_CACHE_DIR")
    os.chdir(folder)
    os.environ["OPENTAU_PREP_CACHE_DIR"] = str(folder / "cache")
    try:
        yield
    finally:
        os.chdir(before[0])
        os.environ.pop("OPENTAU_PREP_CACHE_DIR")
        if before[1] is not None:
            os.environ["OPENTAU_PREP_CACHE_DIR"] = before[1]


def run(*words: object):
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(word) for word in words])


def facts_of(path: str | Path = "demo/mixture.json", **options) -> Verdict:
    """Return the report of a mixture file."""
    context = RunContext(artifact_root=options.pop("artifact_root", None))
    resolved = resolve_mixture(load_mixture(Path(path)), keep_going=True)
    facts = judge_mixture(resolved, context, OutputPaths(**options))
    opened = {rel for entry in resolved.entries for rel in entry.meta.storage.opened}
    assert not [rel for rel in opened if rel.startswith("data/")], "data files were opened"
    return facts


def relative(text: str) -> str:
    """Return a command with paths as a person in the working directory would type them."""
    return text.replace(f"{Path.cwd()}/", "")


def obey(facts: Verdict) -> list[list[str]]:
    """Run the commands of what is to be done, as they stand there; the fit is a small one."""
    done = []
    for each in facts.to_do:
        if each.level == "do":
            words = shlex.split(each.command)
            assert words[0] == "opentau-prep"
            result = run(*words[1:], *QUICK.get(words[1], ()), "--workers", 1)
            assert result.exit_code == 0, result.output
            done.append([relative(word) for word in words[1:]])
    return done


def hashes(folder: Path) -> dict[str, str]:
    """Return the content of every file below a folder, and every folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in folder.rglob("*")
    }


def states(facts: Verdict) -> set[str]:
    """Return the states that artifacts are in."""
    return {each.state for each in facts.artifacts}


def state_of(facts: Verdict, kind: str, dataset: str = "") -> tuple[str, str]:
    """Return state and detail of the one artifact of a kind (and dataset)."""
    (found,) = {
        (a.state, a.detail)
        for a in facts.artifacts
        if a.kind == kind and (not dataset or dataset in a.datasets)
    }
    return found
