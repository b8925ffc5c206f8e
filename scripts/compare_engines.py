"""Compare what every command writes with one worker, with two, on Dask, on Ray and from S3.

    PYTHONPATH=.:tests python scripts/compare_engines.py [--data FOLDER] [--ways two dask ray s3]

The demo mixture, and with `--data` every dataset in that folder, are prepared once per way, always
at the same relative paths; the two workers of a cluster are in another folder. Of files that differ
the JSON keys that do are printed, with numbers in place of positions in lists. From S3 (moto's
server) the roots are other text, so they are read as the folders' in what is compared; what may
differ there is what the store says of the content of its files, and the report's trajectories,
which need frames on this machine. Exits 1 if anything else does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clusters import running_cluster
from compare_artifacts import commands_for, files_below, prep
from s3_server import running_s3, upload_folder

HERE = Path(__file__).parents[1]
BUCKET = "s3://robots"
# The report shows trajectories only of datasets on this machine.
TRAJECTORIES = re.compile(r'"trajectories-title">.*?</section>', re.DOTALL)
# Fingerprints of files of which a store says another digest than SHA-256, and what follows from it.
OF_STORES = re.compile(r"inputs\..*data\.|files\.data/|(^|\.)sha256$")

Way = tuple[dict[str, int], dict[str, bytes]]


def main() -> int:
    """Prepare everything in each way, and print what differs from one worker in folders."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="A folder of LeRobot datasets, which is copied.")
    parser.add_argument("--ways", nargs="+", default=["two", "dask", "ray", "s3"])
    args = parser.parse_args()
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        source, work = Path(folder, "source"), Path(folder, "work")
        source.mkdir()
        prep(HERE, source, ["demo", "--out", "demo"])
        infos = sorted((args.data or source).glob("*/meta/info.json"))
        names = [info.parents[1].name for info in infos]
        for name in names:
            shutil.copytree(args.data / name, source / name)
        one = prepared(source, work, names, ["--workers", "1"])
        for way in args.ways:
            base = one
            if way == "s3":
                base = prepared(source, work, names, ["--workers", "1", "--artifact-root", "out"])
            with options_of(way, source, Path(folder)) as (options, variables):
                found = prepared(source, work, names, options, variables, in_store=way == "s3")
            bad += print_differences(way, base, found)
    return int(bool(bad))


def prepared(
    source: Path,
    work: Path,
    names: Sequence[str],
    options: Sequence[str],
    variables: dict[str, str] | None = None,
    *,
    in_store: bool = False,
) -> Way:
    """Run every command on a new copy; return the exit codes and the content of each file."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(source, work)
    if in_store:
        for name in ("demo/datasets", *names):
            shutil.rmtree(work / name)
        for file in [work / "demo/mixture.json", *(work / "demo/parts").glob("*.json")]:
            text = file.read_text(encoding="utf-8")
            file.write_text(text.replace('"datasets/', f'"{BUCKET}/demo/datasets/'), "utf-8")
    codes = {}
    for words in commands_for(names):
        line = words
        for name in names if in_store else ():
            line = line.replace(f" {name} ", f" {BUCKET}/{name} ")
            line = re.sub(f" {name}$", f" {BUCKET}/{name}", line)
        codes[words] = prep(HERE, work, [*line.split(), *options], variables)
    made = {rel: (work / rel).read_bytes() for rel in sorted(files_below(work))}
    given = {rel: (source / rel).read_bytes() for rel in files_below(source)}
    return codes, {rel: content for rel, content in made.items() if content != given.get(rel)}


@contextlib.contextmanager
def options_of(
    way: str, source: Path, folder: Path
) -> Iterator[tuple[list[str], dict[str, str] | None]]:
    """Yield the options and the variables of a way."""
    if way == "two":
        yield ["--workers", "2"], None
    elif way == "s3":
        with running_s3(folder) as server:
            upload_folder(server, source, BUCKET.removeprefix("s3://"), "")
            yield ["--workers", "1", "--artifact-root", "out"], server.environ
    else:
        before = os.getcwd()
        os.chdir("/")  # where the workers are
        with running_cluster(way) as address:
            os.chdir(before)
            tokens = {k: v for k, v in os.environ.items() if k.startswith("RAY_AUTH")}
            yield ["--engine", way, "--engine-address", address], tokens


def print_differences(way: str, base: Way, found: Way) -> int:
    """Print what differs between two ways; return how much of it should not."""
    (codes, before), (codes_after, after) = base, found
    lines = [
        f"exit {codes[words]} -> {codes_after[words]}  {words}"
        for words in codes
        if codes[words] != codes_after[words]
    ]
    allowed: dict[str, int] = {}
    for rel in sorted({*before, *after}):
        if rel.endswith("mixture.json") or "/parts/" in rel:
            continue
        if rel not in before or rel not in after:
            lines.append(f"{'is gone' if rel in before else 'is new'}  {rel}")
        elif before[rel] != after[rel]:
            keys = sorted(different_keys(read(before[rel]), read(after[rel]), ""))
            for key in keys or ["bytes"]:
                if way == "s3" and OF_STORES.search(key):
                    allowed[key] = allowed.get(key, 0) + 1
                else:
                    lines.append(f"differs  {rel}: {key}")
    print(f"{way}: {len(codes)} commands, {len(after)} files, {len(lines)} differences")
    print("".join(f"  {line}\n" for line in lines), end="")
    for key, times in sorted(allowed.items()):
        print(f"  fingerprints of a store: {key} ({times} times)")
    sys.stdout.flush()
    return len(lines)


def read(content: bytes) -> Any:
    """Return what JSON or JSON lines hold, with S3's roots as folders; None of other content."""
    text = content.decode("utf-8", "replace").replace(f"{BUCKET}/", "")
    text = TRAJECTORIES.sub("", text)
    with contextlib.suppress(ValueError):
        return json.loads(text)
    with contextlib.suppress(ValueError):
        return [json.loads(line) for line in text.splitlines()]
    return text


def different_keys(one: Any, other: Any, path: str) -> set[str]:
    """Return the paths at which two JSON values differ, with `#` for positions in lists."""
    if isinstance(one, dict) and isinstance(other, dict):
        found = set[str]()
        for key in {*one, *other}:
            below = f"{path}.{re.sub('.*[.]parquet', 'data/#', key)}".lstrip(".")
            if key not in one or key not in other:
                found.add(below)
            else:
                found |= different_keys(one[key], other[key], below)
        return found
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = zip(one, other, strict=True)
        return {key for a, b in pairs for key in different_keys(a, b, f"{path}.#")}
    if one == other or (one != one and other != other):
        return set()
    return {path or "text"}


if __name__ == "__main__":
    sys.exit(main())
