"""Measure the page of many datasets: CPU seconds, bytes, and seconds until a browser can use it.

python scripts/measure_report.py [--datasets 300] [--robots 300] [--scratch DIR]

The mixture is prepared first (stats, heads, speed; not counted). In the browser: until the page is
loaded and laid out, then until a filter over everything, and opening every fold, have been drawn.
"""

from __future__ import annotations

import argparse
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from opentau_prep.demo.many import write_many
from opentau_prep.report.png import find_browser

PROBE = """<script>
addEventListener("load", () => {
  const seconds = (since) => ((performance.now() - since) / 1000).toFixed(2);
  const drawn = () => document.body.getBoundingClientRect().height;
  drawn();
  const times = {loaded: seconds(0)};
  let began = performance.now();
  const field = document.getElementById("filter");
  field.value = "1";
  field.dispatchEvent(new Event("input"));
  drawn();
  times.filtered = seconds(began);
  field.value = "";
  field.dispatchEvent(new Event("input"));
  began = performance.now();
  document.querySelectorAll("details").forEach((fold) => { fold.open = true; });
  drawn();
  times.opened = seconds(began);
  document.documentElement.dataset.times = JSON.stringify(times);
});
</script>"""


def main() -> None:
    """Print one line per measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", type=int, default=300)
    parser.add_argument("--robots", type=int, default=300)
    parser.add_argument("--scratch", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.scratch) as folder:
        mixture = write_many(
            Path(folder) / "many", given.datasets, n_robots=given.robots, dim=14, data=True
        )
        for step in ("stats", "heads", "speed-percentiles"):
            _run(step, mixture)
        wall, cpu = _run("report", mixture)
        page = mixture.with_suffix(".prep") / "report.html"
        size = page.stat().st_size
        print(f"{given.datasets} datasets of {given.robots} robots, 14 + 14 dims")
        print(f"report: {cpu:.1f} s of CPU, {wall:.1f} s; page: {size / 1e6:.2f} MB")
        print(f"browser: {_in_browser(page)}")


def _run(step: str, mixture: Path) -> tuple[float, float]:
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    words = [sys.executable, "-m", "opentau_prep", step, "--mixture-json", str(mixture), "--quiet"]
    code = subprocess.run(words, capture_output=True, check=False).returncode
    if code > 1:
        raise SystemExit(f"{words} ended with {code}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, cpu


def _in_browser(page: Path) -> str:
    browser = find_browser()
    if browser is None:
        return "there is none"
    probed = page.with_name("probed.html")
    lines = [
        line for line in page.read_text("utf-8").splitlines()
        if "Content-Security-Policy" not in line
    ]  # fmt: skip
    probed.write_text("\n".join(lines).replace("</body>", f"{PROBE}</body>"), "utf-8")
    with tempfile.TemporaryDirectory() as profile:
        words = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom",
                 f"--user-data-dir={profile}", "--timeout=20000", probed.as_uri()]  # fmt: skip
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'data-times="([^"]*)"', done.stdout)
    return "no answer" if found is None else found[1].replace("&quot;", '"') + " seconds"


if __name__ == "__main__":
    main()
