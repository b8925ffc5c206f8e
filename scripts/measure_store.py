"""Measure `run` on the demo in S3, on a server that takes its time for every request.

python scripts/measure_store.py --scratch DIR --delay 0.2

The server (moto's, on this machine: `pip install moto[server] s3fs`) answers only after the delay.
Printed are requests, repeated ones, those of data files, and seconds of a first run, of runs with
nothing to do, also by eight ranks and without what was remembered.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from opentau_prep.demo import write_demo

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from s3_server import S3Server, running_s3, upload_folder


def run(folder: Path, server: S3Server, ranks: int, **environ: str) -> None:
    """Run the command on each of some ranks; print what was asked of the server."""
    words = ["run", "--mixture-json", "mixture.json", "--artifact-root", "made", "--workers", "2"]
    shared = {**os.environ, **server.environ, **environ}
    server.forget()
    began = time.perf_counter()
    processes = []
    for rank in range(ranks):
        launch: Mapping[str, str] = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        sizes = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
        own = {**shared, **launch, **sizes} if ranks > 1 else shared
        command = [sys.executable, "-m", "opentau_prep", *words]
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        processes.append(subprocess.Popen(command, cwd=folder, env=own, **silent))
    for process in processes:
        _, said = process.communicate()
        if process.returncode:
            raise SystemExit(said.decode())
    wall = time.perf_counter() - began
    asked = server.requests()
    repeats = sum(count - 1 for count in Counter(asked).values())
    data = sum("/data/" in line.partition("?")[0] and "prefix=" not in line for line in asked)
    print(f"| {ranks} | {wall:.1f} | {len(asked)} | {repeats} | {data} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--delay", type=float, default=0.2)
    args = parser.parse_args()
    folder = args.scratch / "demo"
    write_demo(folder)
    for file in (folder / "mixture.json", *folder.glob("parts/*.json")):
        file.write_text(file.read_text().replace('"datasets/', '"s3://robots/'))
    cache = {"OPENTAU_PREP_CACHE_DIR": str(args.scratch / "cache")}
    with running_s3(args.scratch, delay_s=args.delay) as server:
        upload_folder(server, folder / "datasets", "robots", "")
        print("| ranks | wall s | requests | repeated | of data files |")
        print("| --- | --- | --- | --- | --- |")
        run(folder, server, 1, **cache)
        run(folder, server, 1, **cache)
        run(folder, server, 8, **cache)
        run(folder, server, 1, OPENTAU_PREP_CACHE_DIR=str(args.scratch / "empty"))


if __name__ == "__main__":
    main()
