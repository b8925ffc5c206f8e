"""`opentau-prep demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from opentau_prep.cli.command import Result

if TYPE_CHECKING:
    from opentau_prep.cli.session import Session

__all__ = ["demo"]


def demo(
    session: Session,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write; a new one.")],
) -> Result:
    """Write a small mixture of several robots, to try everything on.

    \b
    opentau-prep demo --out demo
    opentau-prep run --mixture-json demo/mixture.json
    """
    import tempfile

    from opentau_prep.cli.tables import demo_table
    from opentau_prep.demo.mixture import check_demo_folder, write_demo

    if not session.context.dry_run:
        path = write_demo(out)
        datasets = _described(path)
        return Result({"mixture": str(path), "datasets": datasets}, demo_table(path, datasets))
    path = check_demo_folder(out)
    with tempfile.TemporaryDirectory() as elsewhere:
        datasets = _described(write_demo(Path(elsewhere, "demo")))
    shown = demo_table(path, datasets, dry_run=True)
    return Result({"mixture": str(path), "datasets": datasets}, shown)


def _described(path: Path) -> list[dict[str, Any]]:
    from opentau_prep.config.load import load_mixture
    from opentau_prep.metadata.resolve import resolve_mixture

    resolved = resolve_mixture(load_mixture(path))
    return [
        {
            "dataset": entry.name,
            "version": entry.meta.version,
            "robot_type": entry.robot_type,
            "control_mode": entry.control_mode,
            "fps": entry.meta.fps,
            "episodes": len(entry.episodes),
        }
        for entry in resolved.entries
    ]
