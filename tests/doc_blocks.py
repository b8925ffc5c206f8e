"""Run the blocks of a page of documentation and compare what they print with what stands there.

A `console` block holds commands after `$ ` and what they print on stdout; a line `...` stands for
any number of lines. A `python` block is executed. Blank lines and the ends of lines do not count.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Collection
from pathlib import Path

from cli_runner import command, environment

FENCE = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run_page(page: Path, cwd: Path, *, exit_1: Collection[str] = ()) -> int:
    """Run a page's blocks in `cwd`; return how many there were.

    Args:
        page: The Markdown file.
        cwd: Where to run; python blocks expect it to be the working directory.
        exit_1: Words that mark a command which ends with code 1.
    """
    blocks = FENCE.findall(page.read_text(encoding="utf-8"))
    for kind, body in blocks:
        if kind == "python":
            exec(compile(body, str(page), "exec"), {})
            continue
        for step in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
            _run_step(step, cwd, exit_1)
    return len(blocks)


def _run_step(step: str, cwd: Path, exit_1: Collection[str]) -> None:
    typed, _, shown = step.partition("\n")
    words = shlex.split(typed)
    assert words[0] == "opentau-prep", typed
    done = subprocess.run(
        command(*words[1:]),
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    expected_code = 1 if set(words) & set(exit_1) else 0
    assert done.returncode == expected_code, f"{typed}\n{done.stderr}"
    printed, wanted = _lines(done.stdout), _lines(shown)
    assert _matches(printed, wanted), _difference(typed, printed, wanted)


def _lines(text: str) -> list[str]:
    # The rule under a table's head is as long as the widest row, which may be among those left out.
    lines = [re.sub("─+", "─", line).rstrip() for line in text.splitlines()]
    return [line for line in lines if line.strip()]


def _matches(printed: list[str], wanted: list[str]) -> bool:
    """Tell whether lines are as wanted, where `...` takes as few lines as it can."""
    pattern = "\n".join(r"(?:.*\n)*?.*" if w == "..." else re.escape(w) for w in wanted)
    return re.fullmatch(pattern, "\n".join(printed)) is not None


def _difference(typed: str, printed: list[str], wanted: list[str]) -> str:
    missing = [line for line in wanted if line != "..." and line not in printed]
    return "\n".join([f"$ {typed}", "missing:", *missing, "printed:", *printed])
