"""Check that a tokenizer folder works under the supported transformers versions, offline.

    python scripts/check_transformers.py                        # fits a small one itself
    python scripts/check_transformers.py --folder DIR --versions 4.57.6 5.23.0

Makes one virtual environment a version (kept under --envs for the next run; only this step needs a
package index), then, in a fresh process without network, loads the folder with AutoProcessor,
encodes and decodes chunks in and far out of range, compares every value with what was quantized,
and fits, saves and loads a processor.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import numpy as np

VERSIONS = ("4.57.*", "5.*")

CHECK = """
import socket, sys
def refuse(*args, **kwargs): raise OSError("no network in this check")
socket.socket.connect = refuse
import numpy as np, scipy.fft, transformers
from transformers import AutoProcessor
processor = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
horizon, dim, scale = processor.time_horizon, processor.action_dim, processor.scale
rng = np.random.default_rng(0)
chunks = np.cumsum(rng.normal(size=(64, horizon, dim)), axis=1).astype(np.float32)
chunks /= np.abs(chunks).max()
for factor in (1.0, 2.5, 1000.0):
    scaled = chunks * np.float32(factor)
    wanted = np.rint(scipy.fft.dct(scaled, axis=1, norm="ortho") * scale).astype(np.int64)
    wanted = np.maximum(wanted, processor.min_token)
    wanted = scipy.fft.idct(wanted / scale, axis=1, norm="ortho")
    ids = processor(scaled)
    assert all(isinstance(token, int) for row in ids for token in row)
    got = processor.decode(ids, time_horizon=horizon, action_dim=dim)
    assert np.array_equal(got, wanted), f"factor {factor}: decoded chunks differ"
processor.save_pretrained(sys.argv[2])
again = AutoProcessor.from_pretrained(sys.argv[2], trust_remote_code=True)
assert again(chunks) == processor(chunks), "saved and loaded again, it encodes differently"
assert processor.decode([[], ids[0][:-1]]).shape == (2, horizon, dim)
assert processor.malformed_chunks == 2
shape = {"time_horizon": horizon, "action_dim": dim}
fitted = processor.fit(list(chunks), scale=scale, vocab_size=400, **shape)
assert np.abs(fitted.decode(fitted(chunks)) - chunks).max() < 0.5 / scale * horizon ** 0.5
fitted.save_pretrained(sys.argv[2] + "-fitted")
again = AutoProcessor.from_pretrained(sys.argv[2] + "-fitted", trust_remote_code=True)
assert again(chunks) == fitted(chunks) and again.min_token == fitted.min_token
print("transformers", transformers.__version__, "ok")
"""


def environment(version: str, envs: Path) -> Path:
    """Return the Python of a virtual environment with that transformers version, made once."""
    folder = envs / ("transformers-" + version.replace("*", "x"))
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        packages = [f"transformers=={version}", "numpy", "scipy"]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def fit_small(folder: Path) -> None:
    """Write the folder of a tokenizer fitted on a few random walks."""
    from opentau_prep.tokenizer import ProcessorSettings, processor_files, train_bpe
    from opentau_prep.tokenizer.quantize import code_points, min_token_of, quantize

    walks = np.cumsum(np.random.default_rng(1).normal(size=(300, 20, 5)), axis=1)
    values = quantize((walks / np.abs(walks).max()).astype(np.float32), 10.0)
    min_token = min_token_of(int(values.min()), chunk_size=20, scale=10.0, headroom=10.0)
    tokenizer = train_bpe(code_points(values, min_token), vocab_size=512)
    settings = ProcessorSettings(10.0, 512, min_token, action_dim=5, time_horizon=20)
    for name, content in processor_files(tokenizer, settings).items():
        (folder / name).write_bytes(content)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--versions", nargs="+", default=list(VERSIONS))
    parser.add_argument("--envs", type=Path, default=Path(tempfile.gettempdir()) / "prep-envs")
    args = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or Path(scratch)
        if args.folder is None:
            fit_small(folder)
        for number, version in enumerate(args.versions):
            python = environment(version, args.envs)
            home = str(Path(scratch) / f"home-{number}")
            env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": home}
            env.pop("PYTHONPATH", None)
            saved = str(Path(scratch) / f"saved-{number}")
            failed += bool(subprocess.run([python, "-c", CHECK, folder, saved], env=env).returncode)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
