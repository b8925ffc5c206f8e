"""Hostile bytes for every parser: a PrepError or a value, nothing else, in bounded memory."""

from __future__ import annotations

import contextlib
import io
import json
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
from builders import tiny_dataset

from opentau_prep.errors import PrepError
from torture.faults import Result

__all__ = ["PARSERS", "fuzz"]

Parser = Callable[[bytes], object]
_VALUES = (
    "NaN", "Infinity", "-Infinity", "1e999", "-1", "0", "1e300", "9223372036854775808", "null",
    "true", "[]", "{}", '""', '"\\ud800"', '"\\u0000"', '"../../x"', "[[[[[[]]]]]]", '"\\u202e"',
    "1" * 5000, '"a' + "b" * 300 + '"', "[1, [2]]", '{"a": {"b": 1}}',
)  # fmt: skip


_READ = ("fps", "features", "episodes", "tasks", "stats", "episodes_stats", "data_paths")


def _metadata(folder: Path, version: str, rel: str) -> tuple[bytes, Parser]:
    """A parser of one metadata file of a dataset: opens it and reads all that it says."""
    from opentau_prep import load_dataset_metadata

    root = tiny_dataset(folder, version, name=f"{version}-{rel.replace('/', '-')}")  # type: ignore[arg-type]
    path = root / rel
    seed = path.read_bytes()

    def parse(data: bytes) -> object:
        path.write_bytes(data)
        meta = load_dataset_metadata(root)
        for name in (
            "fps",
            "features",
            "episodes",
            "tasks",
            "stats",
            "episodes_stats",
            "data_paths",
        ):
            with contextlib.suppress(PrepError):
                getattr(meta, name)
        return meta

    return seed, parse


def _parsers(folder: Path) -> Iterator[tuple[str, bytes, Parser]]:
    from opentau_prep import load_mixture
    from opentau_prep.artifacts.jsonio import load_own, load_own_lines
    from opentau_prep.artifacts.leftovers import sweep
    from opentau_prep.artifacts.provenance import Provenance
    from opentau_prep.artifacts.tempfiles import create_temp
    from opentau_prep.stats.state import StatsState
    from opentau_prep.text import json_safe, printable, without_secrets

    for version, rel in (
        ("v2.1", "meta/info.json"),
        ("v2.1", "meta/episodes.jsonl"),
        ("v2.1", "meta/tasks.jsonl"),
        ("v2.1", "meta/episodes_stats.jsonl"),
        ("v3.0", "meta/info.json"),
        ("v3.0", "meta/stats.json"),
        ("v3.0", "meta/tasks.parquet"),
        ("v3.0", "meta/episodes/chunk-000/file-000.parquet"),
    ):
        yield f"{version} {Path(rel).name}", *_metadata(folder, version, rel)
    mixture = folder / "m.json"
    entries = [{"repo_id": "lab/d", "root": "d", "episodes": [0, 1], "control_mode": "joint"}]
    seed = json.dumps({"datasets": entries, "weights": [1.0], "action_freq": 30.0}).encode()

    def read_mixture(data: bytes) -> object:
        mixture.write_bytes(data)
        return load_mixture(mixture)

    yield "mixture JSON", seed, read_mixture
    yield "own JSON", b'{"a": ["NaN", 1.5, "\\\\NaN"]}', lambda data: load_own(data, where="x")
    yield "own JSON lines", b'{"a": 1}\n["NaN"]\n', lambda data: load_own_lines(data, where="x")
    record = {"tool": "opentau-prep", "artifact": "stats", "schema_version": 1, "sha256": "00"}
    record |= {"tool_version": "0", "command": "stats", "parameters": {}, "inputs": {"e": 1}}
    yield "provenance", json.dumps(record).encode(), Provenance.from_bytes

    def read_leftover(data: bytes) -> object:
        fd, temp = create_temp(folder / "out")
        temp.write_bytes(data)
        import os

        os.close(fd)
        return sweep(folder)

    journal = json.dumps({"backup": "out.bak-0a1b2c3d", "unwanted": [[1, 2]]}).encode()
    yield "leftover", journal, read_leftover
    yield "sketch", b'{"layout": [], "frames": 1}', lambda data: StatsState.from_bytes(data, "x")

    def show(data: bytes) -> object:
        text = data.decode("utf-8", "surrogateescape")
        shown = printable(text)
        assert printable(shown) == shown
        json.loads(json_safe(json.dumps(text, ensure_ascii=False)))
        return json.loads(without_secrets(json.dumps([text, "s3://k:s@b?x"])))

    yield "text", "a\u202eb s3://k:s@b/x?y=1 \x1b[31m".encode(), show


def mutated(seed: bytes, rng: random.Random) -> bytes:
    """Return a seed with some damage: bytes flipped, cut, doubled, or JSON values replaced."""
    data = bytearray(seed)
    for _ in range(rng.randint(1, 4)):
        kind = rng.randrange(7)
        at = rng.randrange(len(data) + 1)
        if kind == 0 and data:
            data[at % len(data)] = rng.randrange(256)
        elif kind == 1:
            del data[at : at + rng.randint(1, 20)]
        elif kind == 2:
            data[at:at] = data[at : at + rng.randint(1, 40)]
        elif kind == 3:
            data[at:at] = rng.choice(_VALUES).encode()
        elif kind == 4:
            data[at:at] = bytes(rng.choices(b'{}[]",:\\\x00\xff\xed\x1b0e-', k=rng.randint(1, 5)))
        elif kind == 5:
            data = _value_replaced(data, rng)
        elif rng.random() < 0.1:
            del data[at:]
    return bytes(data)


def _value_replaced(data: bytearray, rng: random.Random) -> bytearray:
    """Replace the value after some colon, so that most of the document stays valid."""
    colons = [i for i, byte in enumerate(data) if byte == ord(":")]
    if not colons:
        return data
    start = rng.choice(colons) + 1
    ends = [i for i in (data.find(b",", start), data.find(b"}", start)) if i > 0]
    end = min(ends, default=len(data))
    return data[:start] + rng.choice(_VALUES).encode() + data[end:]


def _seeds(seed: bytes) -> list[bytes]:
    if seed[:4] != b"PAR1":
        return [seed]
    # As the reader of a parquet file sees other columns, not only other bytes.
    table = pq.read_table(io.BytesIO(seed))
    found = [seed]
    for name in table.column_names:
        for other in (table.drop([name]), table.rename_columns(
            [f"{c}x" if c == name else c for c in table.column_names])):  # fmt: skip
            sink = io.BytesIO()
            pq.write_table(other, sink)
            found.append(sink.getvalue())
    return found


PARSERS = (
    "v2.1 info.json", "v2.1 episodes.jsonl", "v2.1 tasks.jsonl", "v2.1 episodes_stats.jsonl",
    "v3.0 info.json", "v3.0 stats.json", "v3.0 tasks.parquet", "v3.0 file-000.parquet",
    "mixture JSON", "own JSON", "own JSON lines", "provenance", "leftover", "sketch", "text",
)  # fmt: skip


def _weight(name: str) -> int:
    """Return a share of the time: what a download or a mixture brings has most code behind it."""
    return 3 if name.startswith(("v", "mixture")) else 1


def fuzz(seconds: float, seed: int, only: str = "") -> dict[str, Result]:
    """Feed every parser for its share of the time."""
    import resource
    import warnings

    from opentau_prep.notices import collect_notices

    results: dict[str, Result] = {}
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as home, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parsers = [each for each in _parsers(Path(home)) if re.search(only, each[0])]
        assert only or {name for name, *_ in parsers} == set(PARSERS)
        whole = sum(_weight(name) for name, *_ in parsers)
        for name, first, parse in parsers:
            result = results[name] = Result()
            seeds = _seeds(first)
            until = time.monotonic() + seconds * _weight(name) / whole
            while time.monotonic() < until or result.trials < 20:
                data = mutated(rng.choice(seeds), rng)
                result.trials += 1
                try:
                    with collect_notices():
                        parse(data)
                except PrepError:
                    pass
                except Exception as error:  # noqa: BLE001 - that is what is looked for
                    problem = f"{name}: {type(error).__name__}: {error}"[:300]
                    if len(result.problems) < 20:
                        result.problems.append(f"{problem}  <- {data[:2000]!r}")
            result.peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return results
