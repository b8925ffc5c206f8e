"""Run kai0's fast script and openpi's estimator next to ours, and compare every number.

    PYTHONPATH=. python scripts/check_kai0.py --kai0 KAI0 DATASET...

KAI0 is a checkout of kai0 (tried with 9d93078); its script and `openpi/shared/normalize.py` are run
from there, with stand-ins for the config and the transforms, which need JAX. Needs NumPy < 2, which
kai0 pins, and the packages numpydantic, pandas, tqdm and tyro. Exits with 1 where a number differs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq

COLUMNS = {"state": "observation.state", "actions": "action"}


def main() -> int:
    """Compare every dataset, padded and cut; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kai0", type=Path, required=True)
    parser.add_argument("roots", nargs="+", type=Path)
    given = parser.parse_args()
    normalize, config = _openpi(given.kai0)
    equal = []
    with tempfile.TemporaryDirectory() as folder:
        for source in given.roots:
            root = Path(folder, source.name)
            shutil.copytree(source, root, copy_function=shutil.copyfile)
            names = pq.read_schema(next((root / "data").rglob("*.parquet"))).names
            columns = {key: name if name in names else key for key, name in COLUMNS.items()}
            if columns != COLUMNS:
                print(f"{root.name}, kai0: its script knows no columns {list(columns.values())}")
            for dim in (32, 6) if columns == COLUMNS else ():
                theirs = _kai0(given.kai0, config, root, dim)
                ours = _ours(root, "kai0", "--action-dim", str(dim))
                equal.append(_shown(f"{root.name}, kai0, width {dim}", ours == theirs))
            ours = _ours(root, "openpi")
            assert set(normalize.load(root / "meta")) == set(COLUMNS)
            theirs = _estimator(normalize, root, columns)
            equal.append(_shown(f"{root.name}, openpi", ours == theirs))
    return 0 if all(equal) else 1


def _openpi(kai0: Path) -> tuple[Any, Any]:
    """Return kai0's `normalize` module, and a stand-in for its config module."""
    for name in ("openpi", "openpi.shared", "openpi.training"):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = []
    path = kai0 / "src/openpi/shared/normalize.py"
    spec = importlib.util.spec_from_file_location("openpi.shared.normalize", path)
    assert spec is not None
    assert spec.loader is not None
    normalize = importlib.util.module_from_spec(spec)
    stand_ins = {
        "openpi.shared.normalize": normalize,
        "openpi.training.config": types.ModuleType("config"),
        "openpi.transforms": types.ModuleType("transforms"),
    }
    for name, module in stand_ins.items():
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        setattr(sys.modules[parent], child, module)
    spec.loader.exec_module(normalize)
    return normalize, stand_ins["openpi.training.config"]


def _kai0(kai0: Path, config: Any, root: Path, dim: int) -> Any:
    data = SimpleNamespace(repo_id=str(root))
    data.create = lambda assets_dirs, model: data
    found = SimpleNamespace(
        assets_dirs=root.parent, data=data, model=SimpleNamespace(action_dim=dim)
    )
    config.get_config = lambda name: found
    runpy.run_path(str(kai0 / "scripts/compute_norm_states_fast.py"))["main"]("any")
    file = root / "norm_stats.json"
    return json.loads(file.read_text())["norm_stats"]


def _ours(root: Path, kind: str, *options: str) -> Any:
    command = [sys.executable, "-m", "opentau_prep", "stats", str(root), "--format", kind]
    subprocess.run([*command, "--force", "--quiet", *options], check=False, env=dict(os.environ))
    return json.loads((root / "meta/norm_stats.json").read_text())["norm_stats"]


def _estimator(normalize: Any, root: Path, columns: dict[str, str]) -> Any:
    files = sorted(str(path) for path in (root / "data").rglob("*.parquet"))
    made = {}
    for key, column in columns.items():
        tables = [pq.read_table(file, columns=[column]).column(0) for file in files]
        rows = np.concatenate([np.stack(t.to_numpy(zero_copy_only=False)) for t in tables])
        stats = normalize.RunningStats()
        for start in range(0, len(rows), 32):
            stats.update(rows[start : start + 32])
        found = stats.get_statistics()
        names = ("mean", "std", "q01", "q99")
        made[key] = {name: np.asarray(getattr(found, name)).tolist() for name in names}
    return made


def _shown(what: str, equal: bool) -> bool:
    print(f"{what}: {'every number equal' if equal else 'DIFFERENT'}")
    return equal


if __name__ == "__main__":
    sys.exit(main())
