"""`--download` against a small server that speaks the hub's endpoints."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from builders import tiny_dataset

sys.path.insert(0, str(Path(__file__).parent))
from hub_server import COMMIT, serve_hub

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("huggingface_hub") is None,
    reason="huggingface_hub is not installed (pip install 'opentau-prep[hub]')",
)
REPO = "someone/pick"


@pytest.fixture
def published(tmp_path: Path) -> Path:
    root = tiny_dataset(tmp_path, "v3.0", name="published")
    (root / "videos").mkdir()
    (root / "videos/big.mp4").write_bytes(b"x" * 1000)
    (root / "README.md").write_text("card")
    return root


def locate(
    home: Path, endpoint: str, repo_id: str = REPO, revision: str | None = None, **extra: str
) -> tuple[int, str]:
    """Locate in a process of its own, as the package reads its settings when imported."""
    code = f"""
    import sys
    from pathlib import Path
    from opentau_prep.errors import PrepError
    from opentau_prep.frames import read_frames
    from opentau_prep.metadata import load_dataset_metadata
    from opentau_prep.metadata.locate import LocateOptions, locate_dataset

    try:
        for frames in {extra.pop("steps", "(False,)")}:
            options = LocateOptions(download=True, frames=frames)
            root = locate_dataset(
                repo_id={repo_id!r}, root=None, revision={revision!r}, options=options
            )
        meta = load_dataset_metadata(root)
        rows = read_frames(meta, ["action"]).n_frames if frames else len(meta.episodes)
        print(Path(root).name, rows, sep="|")
    except PrepError as error:
        print(error)
        sys.exit(error.exit_code)
    """
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        **extra,
    }
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in run.stderr, run.stderr
    assert "%|" not in run.stderr  # no progress bars where there is no terminal
    return run.returncode, run.stdout.strip()


def test_download_metadata_only_fetches_no_frames(published: Path, tmp_path: Path) -> None:
    with serve_hub(published, REPO) as (endpoint, asked):
        assert locate(tmp_path, endpoint) == (0, f"{COMMIT}|3")
    assert asked
    assert all(path.startswith("meta/") for path in asked)


def test_download_frames_completes_a_snapshot_of_metadata(published: Path, tmp_path: Path) -> None:
    with serve_hub(published, REPO) as (endpoint, asked):
        code, out = locate(tmp_path, endpoint, steps="(False, True)")
    assert (code, out) == (0, f"{COMMIT}|24")
    assert {path.split("/")[0] for path in asked} == {"meta", "data"}
    assert len(asked) == len(set(asked))


def test_download_again_without_a_network_uses_the_cache(published: Path, tmp_path: Path) -> None:
    with serve_hub(published, REPO) as (endpoint, asked):
        locate(tmp_path, endpoint, steps="(True,)")
        asked.clear()
    assert locate(tmp_path, endpoint, steps="(False,)") == (0, f"{COMMIT}|3")
    assert locate(tmp_path, endpoint, steps="(True,)") == (0, f"{COMMIT}|24")


@pytest.mark.parametrize(
    ("repo_id", "revision", "said"),
    [
        ("someone/none", None, "someone/none: the hub has no such dataset, or it is private"),
        ("gated/it", None, "gated/it: access to it is restricted"),
        (REPO, "v9", f"{REPO}: the hub has no revision 'v9' of it"),
    ],
)
def test_download_refused_is_one_line(
    published: Path, tmp_path: Path, repo_id: str, revision: str | None, said: str
) -> None:
    with serve_hub(published, REPO) as (endpoint, _):
        code, out = locate(tmp_path, endpoint, repo_id, revision)
    assert code == 3
    assert out.startswith(said)
    assert "\n" not in out


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({}, f"{REPO}: the hub cannot be reached"),
        ({"HF_HUB_OFFLINE": "1"}, f"{REPO}: the hub is switched off"),
    ],
)
def test_download_offline_is_one_line(tmp_path: Path, extra: dict[str, str], said: str) -> None:
    code, out = locate(tmp_path, "http://127.0.0.1:9", **extra)
    assert code == 3
    assert out.startswith(said)
    assert "\n" not in out


def test_download_of_something_else_says_that_it_is_no_dataset(tmp_path: Path) -> None:
    root = tmp_path / "other"
    (root / "meta").mkdir(parents=True)
    (root / "meta/notes.txt").write_text("hello")
    with serve_hub(root, REPO) as (endpoint, _):
        code, out = locate(tmp_path, endpoint)
    assert code == 3
    assert "no meta/info.json" in out


def test_download_without_the_package_names_the_extra(tmp_path: Path) -> None:
    (tmp_path / "huggingface_hub.py").write_text("raise ImportError('not here')")
    path = os.pathsep.join([str(tmp_path), *(p for p in sys.path if p)])
    code, out = locate(tmp_path, "http://127.0.0.1:9", PYTHONPATH=path)
    assert code == 4
    assert "pip install 'opentau-prep[hub]'" in out
