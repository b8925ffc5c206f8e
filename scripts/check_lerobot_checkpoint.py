"""Check that `forecast` reads and judges a checkpoint as LeRobot itself writes it.

python scripts/check_lerobot_checkpoint.py

LeRobot's own code makes the preprocessor of a policy from a dataset's stats, saves it, and
normalizes every frame with it; `forecast --deep` must report the same shares and the same largest
values. Needs `pip install lerobot`.
"""

from __future__ import annotations

import logging
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lerobot_import
import numpy as np

from opentau_prep.config.load import load_mixture
from opentau_prep.context import RunContext
from opentau_prep.demo.mixture import write_demo
from opentau_prep.forecast import ForecastOptions, make_forecast
from opentau_prep.frames import read_frames
from opentau_prep.metadata.resolve import ResolvedMixture, resolve_mixture

lerobot_import.prepare()
import torch  # noqa: E402
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature  # noqa: E402
from lerobot.processor import DataProcessorPipeline, NormalizerProcessorStep  # noqa: E402
from lerobot.processor.converters import batch_to_transition, transition_to_batch  # noqa: E402

COLUMNS = {"state": "observation.state", "actions": "action"}
DATASET = "demo/arm6_pose"  # its stats have quantiles


def main() -> None:
    """Print one line per normalization mode."""
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        resolved = resolve_mixture(load_mixture(write_demo(Path(folder) / "demo")))
        for mode, ours in (
            (NormalizationMode.MEAN_STD, "mean_std"),
            (NormalizationMode.MIN_MAX, "min_max"),
            (NormalizationMode.QUANTILES, "quantile"),
            (NormalizationMode.QUANTILE10, "quantile10"),
        ):
            checkpoint = Path(folder) / ours
            _compare(resolved, _save(resolved, checkpoint, mode), checkpoint, ours)


def _frames(resolved: ResolvedMixture) -> dict[str, np.ndarray]:
    (entry,) = (e for e in resolved.entries if e.name == DATASET)
    return dict(read_frames(entry.meta, list(COLUMNS.values())).columns)


def _save(resolved: ResolvedMixture, folder: Path, mode: NormalizationMode) -> Any:
    """Save what LeRobot makes of the stats; return its pipeline."""
    (entry,) = (e for e in resolved.entries if e.name == DATASET)
    stats = {
        column: {s: np.asarray(v, np.float32) for s, v in entry.meta.stats[column].items()}
        for column in COLUMNS.values()
    }
    features = {
        column: PolicyFeature(kind, (len(stats[column]["mean"]),))
        for column, kind in zip(
            COLUMNS.values(), (FeatureType.STATE, FeatureType.ACTION), strict=True
        )
    }
    norm_map = {FeatureType.STATE: mode, FeatureType.ACTION: mode}
    step = NormalizerProcessorStep(features=features, norm_map=norm_map, stats=stats)
    pipeline = DataProcessorPipeline(
        [step], name="policy_preprocessor", to_transition=batch_to_transition,
        to_output=transition_to_batch,
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    return pipeline


def _compare(resolved: ResolvedMixture, pipeline: Any, folder: Path, mode: str) -> None:
    columns = _frames(resolved)
    batch = {name: torch.from_numpy(np.array(values)) for name, values in columns.items()}
    seen = pipeline(batch)
    made = make_forecast(resolved, RunContext(), ForecastOptions(folder, deep=True))
    (member,) = (m for m in made.members if m.dataset == DATASET)
    checked = 0
    for each in member.modes:
        values = np.abs(seen[COLUMNS[each.feature]].numpy().astype(np.float64))
        for dim in each.dims:
            column = values[:, dim.dim]
            assert abs(abs(dim.largest) - column.max()) < 1e-4 * column.max(), (mode, dim)
            for bound, share in zip((1, 2, 5), dim.beyond, strict=True):
                assert abs(share - (column > bound * 1.001).mean()) < 2e-3, (mode, dim)
            checked += 1
        assert each.mode == mode
    others = {m.verdict for m in made.members if m.dataset != DATASET}
    assert member.verdict == "reuse", member.findings
    assert others == {"wrong robot"}, others
    print(
        f"LeRobot {version('lerobot')} {mode:10} {made.kind}: {checked} dims as LeRobot normalizes"
        f" them; {DATASET}: {member.verdict}; the 7 others: {', '.join(sorted(others))}"
    )


if __name__ == "__main__":
    main()
