"""Every command that the verdict prints settles its item, pasted into a shell in another folder."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from builders import tiny_dataset, tiny_episodes
from cli_runner import paste, run_cli

from opentau_prep.demo.append import append_episode

pytestmark = pytest.mark.slow

FIT = ("--chunk-size", 4, "--total-chunks", 20, "--vocab-size", 300, "--max-token-length", 8)


def items(mixture: Path) -> list[dict[str, object]]:
    found = run_cli("report", "--mixture-json", mixture, "--json").json
    return [each for each in found["to_do"] if each["level"] == "do"]


@pytest.fixture
def mixture(tmp_path):
    tags = {"robot_type": "arm", "control_mode": "joint", "action_dim": 3}
    tiny_dataset(tmp_path, "v2.1", name="it's a/one", lengths=[20, 30, 25, 28], **tags)
    tiny_dataset(tmp_path, "v3.0", name="it's a/two", lengths=[22, 24, 26], seed=1, **tags)
    path = tmp_path / "it's a" / "my mixture.json"
    entries = [{"repo_id": f"o/{name}", "root": name} for name in ("one", "two")]
    path.write_text(json.dumps({"datasets": [{**entries[0], "episodes": [0, 1, 2]}, entries[1]]}))
    return path


def settle_all(mixture: Path, elsewhere: Path) -> list[str]:
    """Paste the first command until nothing is left; each must settle its own item."""
    elsewhere.mkdir(exist_ok=True)
    done = []
    for _ in range(12):
        left = items(mixture)
        if not left:
            return done
        first = left[0]
        assert first["command"], f"no command for {first}"
        ran = paste(str(first["command"]), elsewhere)
        assert ran.returncode in (0, 1), ran.stderr
        done.append(shlex.split(str(first["command"]))[1])
        now = [(each["what"], each["details"]) for each in items(mixture)]
        assert (first["what"], first["details"]) not in now, ran.stderr + ran.stdout
    raise AssertionError(f"still to do after {done}: {items(mixture)}")


def test_commands_prepare_a_mixture_from_nothing(mixture, tmp_path):
    done = settle_all(mixture, tmp_path / "elsewhere")
    assert done == ["run"]
    assert not list((tmp_path / "elsewhere").iterdir())
    ran = run_cli("run", "--mixture-json", mixture)
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "Ready to train.")


def test_commands_repair_what_is_damaged_or_stale(mixture, tmp_path):
    assert run_cli("run", "--mixture-json", mixture, *FIT, "-q").code == 0
    prep = mixture.with_suffix(".prep")
    (prep / "norm_heads.json").write_text("{")
    (prep / "tokenizer/tokenizer.json").write_text("{")
    (mixture.parent / "one/meta/speed_percentiles.jsonl").write_text("no json\n")
    (mixture.parent / "two/meta/validation.json").write_text("[]")
    (episode,) = tiny_episodes(lengths=[33], seed=7, action_dim=3)
    append_episode(mixture.parent / "two", episode)
    assert items(mixture)
    settle_all(mixture, tmp_path / "elsewhere")


@pytest.mark.parametrize("choice", ["keep", "replace"])
def test_published_stats_that_differ_wait_for_a_choice_and_both_go_on(mixture, tmp_path, choice):
    stats = mixture.parent / "two/meta/stats.json"
    document = json.loads(stats.read_text())
    document["action"]["max"][0] += 1
    stats.write_text(json.dumps(document))
    ran = run_cli("run", "--mixture-json", mixture, *FIT)
    assert ran.code == 1
    assert len(ran.out.splitlines()) + len(ran.err.splitlines()) < 30
    assert not (mixture.with_suffix(".prep") / "norm_heads.json").exists()
    printed = [line.strip(" $") for line in ran.out.splitlines() if "--published-stats" in line]
    (command,) = [line for line in printed if line.endswith(choice)]
    (item,) = [each for each in items(mixture) if "published" in str(each["what"])]
    assert command in (item["command"], item["instead"])
    pasted = paste(command, tmp_path)
    assert (pasted.returncode, pasted.stdout.splitlines()[-1]) == (0, "Ready to train.")
    again = run_cli("run", "--mixture-json", mixture)
    assert (again.code, again.out.splitlines()[-1]) == (0, "Ready to train.")
    assert (json.loads(stats.read_text()) == document) == (choice == "keep")
    assert run_cli("report", "--mixture-json", mixture).out.splitlines()[-1] == "Ready to train."
