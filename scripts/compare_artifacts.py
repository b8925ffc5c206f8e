"""Compare what two checkouts of this tool write: every artifact of every command, byte for byte.

    python scripts/compare_artifacts.py BEFORE AFTER [--data FOLDER]

BEFORE and AFTER are checkouts (folders that hold `opentau_prep/`). Both prepare the same copies, at
the same path: the demo mixture as BEFORE writes it, and with `--data` every dataset in that folder.
Prints each file that differs, and the exit codes that do; exits 1 if there are any.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

MIXTURE = "--mixture-json demo/mixture.json"
COMMANDS = (
    f"stats {MIXTURE} --published-stats keep",
    f"heads {MIXTURE}",
    f"speed-percentiles {MIXTURE}",
    f"fit-tokenizer {MIXTURE} --total-chunks 500 --workers 1",
    f"val-plan {MIXTURE} --world-size 2 --batch-size 8 --out plan.json",
    f"forecast {MIXTURE} --out forecast.json",
    f"validate {MIXTURE} --deep --write",
    f"run {MIXTURE} --published-stats keep",
    f"report {MIXTURE}",
)
PER_DATASET = (
    "stats {root} --published-stats keep",
    "stats {root} --format openpi --out {name}.openpi.json",
    "stats {root} --format kai0 --out {name}.kai0.json",
    "speed-percentiles {root}",
    "heads {root} --out {name}.heads.json --max-state-dim 64 --max-action-dim 64",
    "validate {root} --write",
    "run {root} --published-stats replace",
    "stats {root} --format lerobot-relative",
)


def main() -> int:
    """Run both checkouts, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--data", type=Path, help="A folder of LeRobot datasets, which is copied.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source, work = Path(folder, "source"), Path(folder, "work")
        source.mkdir()
        prep(args.before, source, ["demo", "--out", "demo"])
        names = [
            info.parents[1].name for info in sorted((args.data or source).glob("*/meta/info.json"))
        ]
        for name in names:
            shutil.copytree(args.data / name, source / name)
        results = []
        for checkout in (args.before, args.after):
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(source, work)
            codes = {words: prep(checkout, work, words.split()) for words in commands_for(names)}
            results.append((codes, {rel: digest(work / rel) for rel in files_below(work)}))
    (codes, before), (codes_after, after) = results
    lines = [
        f"exit {codes[words]} -> {codes_after[words]}  {words}"
        for words in codes
        if codes[words] != codes_after[words]
    ]
    for rel in sorted({*before, *after}):
        if before.get(rel) != after.get(rel):
            what = (
                "differs"
                if rel in before and rel in after
                else "is new"
                if rel in after
                else "is gone"
            )
            lines.append(f"{what:9}{rel}")
    print("\n".join(lines))
    print(f"{len(codes)} commands, {len(after)} files, {len(lines)} differences")
    return int(bool(lines))


def commands_for(names: Sequence[str]) -> list[str]:
    """Return the command lines, in order."""
    single = [words.format(root=name, name=name) for name in names for words in PER_DATASET]
    return [*COMMANDS, *single]


def prep(
    checkout: Path, folder: Path, words: Sequence[str], variables: Mapping[str, str] | None = None
) -> int:
    """Run a command of a checkout in a folder; return its exit code."""
    environ = {**os.environ, "PYTHONPATH": str(checkout.resolve()), "NO_COLOR": "1"}
    environ.update(variables or {})
    call = [sys.executable, "-m", "opentau_prep", *words]
    done = subprocess.run(
        call, cwd=folder, env=environ, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 1):
        print(f"exit {done.returncode} of {checkout}: {' '.join(words)}\n{done.stderr[-400:]}")
    return done.returncode


def files_below(folder: Path) -> Iterator[str]:
    """Yield every file, relative to a folder."""
    for path in folder.rglob("*"):
        if path.is_file():
            yield str(path.relative_to(folder))


def digest(path: Path) -> str:
    """Return a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
