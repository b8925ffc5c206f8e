"""Every writing command, on datasets whose files are somebody's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from builders import tiny_dataset

__all__ = ["SCENARIOS", "Scenario", "prepared", "real_scenarios"]

VERSIONS = ("v2.1", "v3.0")


@dataclass(frozen=True)
class Scenario:
    """A command and what it finds.

    Attributes:
        name: What the table of results calls it.
        setup: Fills a folder.
        args: The command line, run in that folder.
        ours: Beginnings of relative paths of files in it that this toolkit wrote and may replace.
        first: Command lines that are run before, so that there is something to replace.
        also: Sequences of command lines after which each file is right, too: where a run was killed
            between two files, the next takes the numbers of the frames for both.
    """

    name: str
    setup: Callable[[Path], None]
    args: tuple[str, ...]
    ours: tuple[str, ...] = ()
    first: tuple[tuple[str, ...], ...] = ()
    also: tuple[tuple[tuple[str, ...], ...], ...] = ()


def _dataset(folder: Path, version: str, name: str = "d", **options: object) -> Path:
    lengths = [6, 9, 7, 8, 6, 7, 9, 6, 8, 7, 6, 9]
    return tiny_dataset(
        folder,
        version,  # type: ignore[arg-type]
        name=name,
        lengths=lengths,
        robot_type="arm",
        control_mode="joint",
        **options,  # type: ignore[arg-type]
    )


def _mixture(folder: Path, *names: str) -> None:
    entries = [{"repo_id": f"lab/{name}", "root": name} for name in names]
    (folder / "m.json").write_text(json.dumps({"datasets": entries, "weights": None}))


def _plain(version: str) -> Callable[[Path], None]:
    def setup(folder: Path) -> None:
        root = _dataset(folder, version)
        # What only looks like somebody's leftover.
        (root / "meta/.notes.tmp").write_bytes(b"mine")
        _mixture(folder, "d")

    return setup


def _with_modality(version: str) -> Callable[[Path], None]:
    def setup(folder: Path) -> None:
        _plain(version)(folder)
        parts = {"arm": {"start": 0, "end": 2}}
        modality = {"state": parts, "action": parts}
        (folder / "d/meta/modality.json").write_text(json.dumps(modality))

    return setup


def _edited_stats(version: str) -> Callable[[Path], None]:
    def setup(folder: Path) -> None:
        _plain(version)(folder)
        path = folder / "d/meta/stats.json"
        wrong = {"min": [-9.0, -9.0], "max": [9.0, 9.0], "mean": [0.0, 0.0], "std": [1.0, 1.0]}
        path.write_text(json.dumps({"action": {**wrong, "count": [88]}}))

    return setup


def _wrong_counts(version: str) -> Callable[[Path], None]:
    def setup(folder: Path) -> None:
        _plain(version)(folder)
        path = folder / "d/meta/info.json"
        info = json.loads(path.read_text())
        path.write_text(json.dumps({**info, "total_frames": 7}))

    return setup


def _folder_of_theirs(version: str) -> Callable[[Path], None]:
    def setup(folder: Path) -> None:
        _plain(version)(folder)
        mine = folder / "mine"
        mine.mkdir()
        (mine / "notes.txt").write_bytes(b"years of notes")
        (mine / "tokenizer.json").write_bytes(b"{}")

    return setup


def _losses(version: str) -> Callable[[Path], None]:
    def setup(folder: Path) -> None:
        _plain(version)(folder)
        row = {"dataset_index": 0, "dataset": "lab/d", "control_mode": "joint"}
        rows = [{**row, "MSE_sum": float(i), "MSE_count": 2} for i in range(9)]
        (folder / "loss.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))

    return setup


_FIT = ("fit-tokenizer", "--mixture-json", "m.json", "--chunk-size", "4", "--vocab-size", "300")
_FIT = (*_FIT, "--total-chunks", "60")
_M = ("--mixture-json", "m.json")


def _scenarios(version: str) -> Iterator[Scenario]:
    plain, edited = _plain(version), _edited_stats(version)
    stats = ("stats", "d")
    prep = "m.prep/"
    forced = (*stats, "--force")
    yield Scenario("stats", plain, stats, also=((forced,), (stats, forced)))
    yield Scenario("stats --force", edited, forced, also=((forced, forced),))
    yield Scenario("heads", plain, ("heads", *_M), first=(stats,))
    yield Scenario("heads --force", plain, ("heads", *_M, "--out", "d/README", "--force"))
    yield Scenario("speed-percentiles", plain, ("speed-percentiles", "d"))
    yield Scenario("fit-tokenizer", plain, _FIT, first=(stats,))
    mine = (*_FIT, "--out-dir", "mine", "--force")
    yield Scenario("fit-tokenizer --force", _folder_of_theirs(version), mine, first=(stats,))
    again = (*_FIT, "--seed", "3")
    yield Scenario("fit-tokenizer again", plain, again, (prep,), first=(stats, _FIT))
    yield Scenario("validate --write", plain, ("validate", "d", "--write"))
    yield Scenario("validate --fix", _wrong_counts(version), ("validate", "d", "--fix"))
    baseline = ("validate", "d", "--baseline", "b.json", "--write-baseline")
    yield Scenario("validate --write-baseline", plain, baseline)
    plan = ("val-plan", *_M, "--world-size", "2", "--batch-size", "4")
    yield Scenario("val-plan", plain, plan)
    report = ("val-report", "loss.jsonl", *_M)
    yield Scenario("val-report", _losses(version), report, first=(stats,))
    yield Scenario("report", plain, ("report", *_M), first=(stats,))
    openpi = ("stats", "--format", "openpi", "d", "--out", "norm_stats.json")
    yield Scenario("stats --format openpi", plain, openpi)
    for kind in ("groot", "lerobot-relative"):
        relative = ("stats", "--format", kind, "d", "--chunk-size", "4")
        yield Scenario(f"stats --format {kind}", _with_modality(version), relative, first=(stats,))
    heads = (stats, ("heads", *_M))
    yield Scenario("forecast", plain, ("forecast", *_M), first=heads)
    exclude = ("validate", *_M, "--write-exclusions", "ex.json")
    yield Scenario("validate --write-exclusions", plain, exclude)
    run = ("run", *_M, "--chunk-size", "4", "--vocab-size", "300", "--total-chunks", "60")
    yield Scenario("run", plain, run, also=((forced, run), (stats, forced, run)))


def _nothing(folder: Path) -> None:
    del folder


SCENARIOS = {
    f"{scenario.name} ({version})": scenario
    for version in VERSIONS
    for scenario in _scenarios(version)
}
SCENARIOS["demo"] = Scenario("demo", _nothing, ("demo", "--out", "demo"))


def prepared(scenario: Scenario, folder: Path, run: Callable[[tuple[str, ...], Path], int]) -> None:
    """Fill a folder for a scenario; `run` runs a command line in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    scenario.setup(folder)
    for args in scenario.first:
        code = run(args, folder)
        if code not in (0, 1):
            raise RuntimeError(f"{scenario.name}: {args} ended with {code}")


def real_scenarios(data: Path) -> dict[str, Scenario]:
    """Return the commands that fit published datasets, on copies of them."""

    def copied(name: str) -> Callable[[Path], None]:
        def setup(folder: Path) -> None:
            shutil.copytree(data / name, folder / "d", copy_function=shutil.copyfile)
            for each in (folder / "d", *(p for p in (folder / "d").rglob("*") if p.is_dir())):
                each.chmod(0o755)
            _mixture(folder, "d")

        return setup

    found = {}
    for name in ("so101_record_test", "g1_pick_bottle"):
        if (data / name).is_dir():
            for args in (
                ("stats", "d", "--force"),
                ("speed-percentiles", "d"),
                ("heads", *_M),
                ("validate", "d", "--write"),
            ):
                title = f"{' '.join(args[:1])} on {name}"
                found[title] = Scenario(title, copied(name), (*args, "--workers", "1"))
    return found
