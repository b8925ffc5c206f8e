"""Every command on a dataset and a mixture whose every name is hostile: shown, never obeyed."""

from __future__ import annotations

import json
import re
import unicodedata
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from builders import tiny_dataset
from stats_files import lerobot_checkpoint
from typer.testing import CliRunner

from opentau_prep.cli.app import app

# Clipboard (OSC 52), C1 CSI, bidi override, a line that GitHub would obey, markup, half a pair.
EVIL = "a\x1b]52;c;cHduZWQ=\x07b\x9b31mc\u202ed\n::error::pwned\n<b>[bold]é"
_BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def _is_obeyed(char: str) -> bool:
    if char in "\n\t":
        return False
    return unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} or (
        unicodedata.bidirectional(char) in _BIDI
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A mixture of two datasets; each name that a file can hold is hostile."""
    folder = tmp_path_factory.mktemp("hostile")
    for version in ("v2.1", "v3.0"):
        root = tiny_dataset(
            folder,
            version,  # type: ignore[arg-type]
            name=f"d{version[1]}",
            lengths=[6, 9, 7, 8, 6, 7, 9, 6, 8, 7, 6, 9],
            tasks=(EVIL,),
            robot_type=EVIL,
            control_mode=EVIL,
            state_names=(EVIL, f"{EVIL}2", "x"),
        )
        info_path = root / "meta/info.json"
        info = json.loads(info_path.read_text())
        info["features"][EVIL] = {"dtype": EVIL, "shape": [1], "names": [EVIL]}
        info["splits"] = {EVIL: EVIL}
        info["data_files_size_in_mb"] = EVIL
        info["total_tasks"] = 7
        info[EVIL] = EVIL
        info_path.write_text(json.dumps(info))
    entries = [
        {"repo_id": f"lab/d{v}", "root": f"d{v}", "control_mode": EVIL, "robot_type": EVIL}
        for v in (2, 3)
    ]
    (folder / "m.json").write_text(json.dumps({"datasets": entries, "weights": None}))
    (folder / "wrong.json").write_text(json.dumps({"datasets": [{EVIL: EVIL}], EVIL: EVIL}))
    gone = [{"repo_id": EVIL, "root": f"gone{EVIL}"}]
    (folder / "gone.json").write_text(json.dumps({"datasets": gone, "weights": None}))
    # Stats of another unit, sets and checkpoints with such names, another mixture to compare with.
    far = {"mean": [90.0] * 3, "std": [9.0] * 3, "min": [50.0] * 3, "max": [120.0] * 3}
    sets = {EVIL: {"action": {s: v[:2] for s, v in far.items()}, "proprio": far}}
    (folder / "far.json").write_text(json.dumps(sets))
    (folder / "sets.json").write_text(json.dumps({**sets, f"{EVIL}2": sets[EVIL]}))
    lerobot_checkpoint(
        folder / f"ckpt{EVIL}",
        {"state": np.ones((3, 3)), "actions": np.ones((3, 2))},
        prefix=f"{EVIL}.buffer.",
    )
    other = [{**entries[0], "robot_type": f"{EVIL}3"}, {"repo_id": f"lab/{EVIL}", "root": "d3"}]
    (folder / "other.json").write_text(json.dumps({"datasets": other, "weights": None}))
    row = {"dataset_index": 0, "dataset": EVIL, "control_mode": EVIL, "MSE_sum": 1, "MSE_count": 2}
    (folder / "loss.jsonl").write_text(json.dumps(row) + "\n")
    return folder


M = ("--mixture-json", "m.json")
FIT = ("fit-tokenizer", *M, "--chunk-size", "4", "--vocab-size", "300", "--total-chunks", "40")
COMMANDS = [
    ("stats", "d2", "d3"),
    ("stats", "d2", "--force"),
    ("stats", *M, "--format", "openpi"),
    ("heads", *M),
    ("heads", *M, "--explain", EVIL),
    ("heads", *M, "--audit"),
    ("speed-percentiles", "d2", "d3"),
    FIT,
    ("validate", "d2", "d3"),
    ("validate", *M, "--deep"),
    ("validate", "d2", "--format", "github"),
    ("validate", "d2", "--format", "junit"),
    ("validate", "d2", "--format", "sarif"),
    ("validate", "d2", "--fix", "--dry-run"),
    ("val-plan", *M, "--world-size", "2", "--batch-size", "4"),
    ("val-report", "loss.jsonl"),
    ("val-report", "loss.jsonl", *M),
    ("forecast", *M),
    ("forecast", *M, "--stats", "far.json"),
    ("forecast", *M, "--stats", "far.json", "--deep"),
    ("forecast", *M, "--stats", "sets.json"),
    ("forecast", *M, "--stats", f"ckpt{EVIL}"),
    ("forecast", *M, "--stats", f"nowhere{EVIL}", "--stats-key", EVIL),
    ("validate", *M, "--select", "P"),
    ("diff", "m.json", "other.json"),
    ("diff", "far.json", "sets.json"),
    ("diff", "far.json", f"ckpt{EVIL}"),
    ("diff", "m.json", f"nowhere{EVIL}"),
    ("report", "d2", "d3"),
    ("report", *M),
    ("run", *M, "--chunk-size", "4", "--dry-run"),
    ("stats", f"nowhere{EVIL}"),
    ("validate", f"nowhere{EVIL}"),
    ("heads", "--mixture-json", "wrong.json"),
    ("heads", "--mixture-json", "gone.json"),
    ("report", "--mixture-json", "gone.json"),
]


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
@pytest.mark.parametrize("args", COMMANDS, ids=lambda a: " ".join(a)[:40].split("\x1b")[0])
def test_command_shows_hostile_names_and_obeys_none(home, monkeypatch, args, as_json):
    monkeypatch.chdir(home)
    options = [*args, "--workers", "1", *(["--json"] if as_json else [])]
    result = CliRunner().invoke(app, options)
    assert result.exit_code in (0, 1, 2, 3, 4), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    for stream in (result.stdout, result.stderr):
        obeyed = {hex(ord(char)) for char in stream if _is_obeyed(char)}
        assert not obeyed, stream[:2000]
        # GitHub obeys what begins a line; only its own format may.
        if "github" not in args or as_json:
            assert not re.search(r"(?m)^::", stream), stream[:2000]
    if as_json and "--format" not in args:
        json.loads(result.stdout)


def test_report_page_and_files_hold_hostile_names_as_text(home, monkeypatch):
    monkeypatch.chdir(home)
    CliRunner().invoke(app, ["report", *M])
    page = Path("m.prep/report.html").read_text(encoding="utf-8")
    assert not [hex(ord(char)) for char in page if _is_obeyed(char)]

    class Tags(HTMLParser):
        bold = 0

        def handle_starttag(self, tag, attrs):
            Tags.bold += tag == "b"

    Tags().feed(page)
    assert Tags.bold == 0
    for path in Path("m.prep").rglob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert not [hex(ord(char)) for char in text if _is_obeyed(char)], path
