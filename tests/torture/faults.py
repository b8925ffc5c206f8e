"""A signal and each errno at every call that changes a file, of every writing command."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from opentau_prep.artifacts.marker import MARKER
from torture.scenarios import Scenario, prepared
from torture.server import Fault, Ran, Server

__all__ = ["Bench", "Result", "every_fault"]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
ERRNOS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS, errno.EDQUOT)
_BACKUP = re.compile(r"(?:\.bak-[0-9a-f]+(?:-\d+)?|-[0-9a-f]{8})(?=/|$|\.)")
_TEMP = re.compile(r"\.prep-tmp|\.partial(?:/|$)")
Tree = dict[str, bytes]


@dataclass
class Result:
    """What trials of one kind gave.

    Attributes:
        trials: How many there were.
        problems: What was wrong, each with how to repeat it.
        peak_kb: The most memory a trial held.
    """

    trials: int = 0
    problems: list[str] = field(default_factory=list)
    peak_kb: int = 0


def tree_of(folder: Path) -> Tree:
    """Return relative path -> content of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


class Bench:
    """One scenario: the state before, the state after a clean run, and trials in between."""

    def __init__(
        self, scenario: Scenario, server: Server, home: Path, env: dict[str, str] | None = None
    ) -> None:
        self.scenario, self.server, self.env = scenario, server, env or {}
        self.next = scenario.args
        self.base, self.work = home / "base", home / "work"
        prepared(scenario, self.work, lambda args, cwd: server.run(args, cwd).code)
        shutil.rmtree(self.base, ignore_errors=True)
        os.rename(self.work, self.base)
        self.before = tree_of(self.base)
        clean = self.run(log=True)
        self.code, self.calls, self.log = clean.code, clean.calls, clean.log
        self.after = tree_of(self.work)
        if clean.code not in (0, 1):
            raise RuntimeError(f"{scenario.name}: clean run ended with {clean.code}: {clean.err}")
        self.seconds = clean.seconds
        self.also: list[Tree] = []
        for commands in scenario.also:
            shutil.rmtree(self.work)
            shutil.copytree(self.base, self.work)
            for args in commands:
                server.run(args, self.work)
            self.also.append(tree_of(self.work))
        # What a user would miss: all that was there and that we did not write.
        self.theirs = (
            {k: v for k, v in self.before.items() if not k.startswith(scenario.ours)}
            if (scenario.ours)
            else dict(self.before)
        )

    def run(self, fault: Fault | None = None, *, log: bool = False) -> Ran:
        """Run the command in a fresh copy of the state before."""
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.base, self.work)
        return self.server.run(self.scenario.args, self.work, fault, log=log, env=self.env)

    def habits(self) -> list[str]:
        """Return what is wrong with the calls of clean runs, whatever happens in between."""
        first, second = self.run(log=True).log, self.run(log=True).log
        return [*_log_problems(first), *_same_temps(first, second)]

    def trial(self, fault: Fault) -> tuple[list[str], Ran]:
        """Let a fault happen; returns what is wrong afterwards, and after the next run."""
        ran = self.run(fault)
        problems = [*self._told(ran, fault), *self._files(ran, fault)]
        again = self.server.run(self.next, self.work)
        found = tree_of(self.work)
        if again.code != self.code:
            problems.append(f"the next run ended with {again.code}: {again.err[-300:]}")
        problems += [f"lost after the next run: {name}" for name in self._lost(found)]
        for name, content in found.items():
            if _TEMP.search(name):
                problems.append(f"left after the next run: {name}")
            elif name not in self.after and not self._is_backup(name, content):
                problems.append(f"there after the next run: {name}")
        for name, content in self.after.items():
            right = [content, *(tree.get(name) for tree in self.also)]
            if found.get(name) not in right and not _BACKUP.search(name):
                problems.append(f"after the next run {name} is not as after a clean run")
        return problems, ran

    def _told(self, ran: Ran, fault: Fault) -> Iterator[str]:
        if "Traceback" in ran.err or "Internal error" in ran.err or "Exception ignored" in ran.err:
            yield f"traceback: {ran.err[-600:]}"
        expected = {self.code}
        if fault.action > 0:
            expected.add(-9 if fault.action == signal.SIGKILL else 128 + fault.action)
            if fault.delay_s is not None:
                expected.add(-fault.action)  # before the command line's first line
        else:
            expected.add(4)
        if ran.code not in expected:
            yield f"exit {ran.code}: {ran.err[-300:]}"
        if ran.code in (130, 143) and "Interrupted" not in ran.err:
            yield f"exit {ran.code} without a word: {ran.err[-300:]!r}"

    def _files(self, ran: Ran, fault: Fault) -> Iterator[str]:
        found = tree_of(self.work)
        yield from (f"lost: {name}" for name in self._lost(found))
        for name, content in found.items():
            if _TEMP.search(name):
                # What a disk that failed for good left half done is the next run's to finish.
                if fault.action != signal.SIGKILL and not fault.sticky:
                    yield f"left: {name}"
            elif not self._is_known(name, content):
                yield f"torn or unknown: {name} ({len(content)} bytes)"
        yield from self._mixed(found)
        if "unchanged" in ran.err:
            for name in _named(ran.err, self.before):
                if found.get(name) != self.before[name]:
                    yield f"said to be unchanged: {name}"
        if ran.code == self.code and fault.action != signal.SIGKILL:
            for name, content in self.after.items():
                if found.get(name) != content and not _BACKUP.search(name):
                    yield f"exit {ran.code}, but {name} is not written: {ran.err[-300:]}"
                    break

    def _is_known(self, name: str, content: bytes) -> bool:
        known = content in (self.before.get(name), self.after.get(name))
        return known or name.endswith(MARKER) or self._is_backup(name, content)

    def _mixed(self, found: Tree) -> Iterator[str]:
        """New files of a dataset next to old ones, and no marker."""
        changed = [
            name
            for name, content in self.after.items()
            if re.match(r"d/meta/(stats|episodes_stats|episodes/)", name)
            and not _BACKUP.search(name)
            and self.before.get(name) != content
        ]
        new = [found.get(name) == self.after[name] for name in changed]
        if any(new) and not all(new) and not any(name.endswith(MARKER) for name in found):
            yield f"new next to old without a marker: {dict(zip(changed, new, strict=True))}"

    def _lost(self, found: Tree) -> Iterator[str]:
        for name, content in self.theirs.items():
            if found.get(name) == content:
                continue
            if self.after.get(name) == content or name not in self.after or self._kept(name):
                kept = (k for k, v in found.items() if v == content and _BACKUP.sub("", k) == name)
                if next(kept, None) is None:
                    yield name

    def _kept(self, name: str) -> bool:
        """Whether a clean run keeps the old file when it replaces it."""
        old = self.before[name]
        return any(v == old and _BACKUP.sub("", k) == name for k, v in self.after.items())

    def _is_backup(self, name: str, content: bytes) -> bool:
        plain = _BACKUP.sub("", name)
        return plain != name and content in (self.before.get(plain), self.after.get(plain))


def _log_problems(log: tuple[str, ...]) -> Iterator[str]:
    """What is written but not synced before it takes its place, or written in place."""
    dirty: set[str] = set()
    replaced: list[str] = []
    for line in log:
        _, call, path, to = line.split("\t")
        if call == "open" and not _TEMP.search(path):
            yield f"written in place: {path}"
        elif call.startswith(("write", "pwrite")):
            dirty.add(path)
        elif call in ("fsync", "fdatasync"):
            dirty.discard(path)
        elif call.startswith("rename"):
            # The command names its files as it likes; the kernel names them from the root.
            bare = path.lstrip("/")
            if any(each.endswith(f"/{bare}") or f"/{bare}/" in each for each in dirty):
                yield f"not synced before its rename: {path}"
            replaced.append(to)
        elif call in ("link", "linkat") and _BACKUP.sub("", to) in replaced:
            yield f"backup after replace: {to}"


def _same_temps(first: tuple[str, ...], second: tuple[str, ...]) -> Iterator[str]:
    """Temporary names that two runs share, and so would overwrite each other's."""
    names = [
        {path for _, call, path, _ in (line.split("\t") for line in log) if call == "open"}
        for log in (first, second)
    ]
    yield from (
        f"fixed temporary name: {name}" for name in names[0] & names[1] if _TEMP.search(name)
    )


def _named(text: str, names: Tree) -> Iterator[str]:
    yield from (name for name in names if f"/{name}:" in text)


def every_fault(bench: Bench, limit: int | None, seed: int = 0) -> Iterator[Fault]:
    """Yield every fault of a scenario in random order: calls x (signals before and after, errnos).

    Args:
        bench: The scenario.
        limit: How many at most.
        seed: Of the order.
    """
    calls = range(1, bench.calls + 1)
    faults = [Fault(call, each, after=a) for call in calls for each in SIGNALS for a in (0, 1)]
    faults += [Fault(call, -each, sticky=s) for call in calls for each in ERRNOS for s in (0, 1)]
    rng = random.Random(seed)
    spread = [
        Fault(action=rng.choice(SIGNALS), delay_s=rng.uniform(0, 1.1 * bench.seconds))
        for _ in range(max(20, bench.calls))
    ]
    faults += spread
    rng.shuffle(faults)
    yield from faults[:limit]


def repeat(fault: Fault) -> str:
    """Return a fault on one line, as JSON."""
    return json.dumps(fault.__dict__)
