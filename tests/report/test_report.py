"""`report`: it says what is there, with the command that fixes it, and touches nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from builders import tiny_dataset, tiny_episodes
from page_reader import read_page
from report_mixtures import (
    facts_of,
    hashes,
    obey,
    relative,
    run,
    state_of,
    states,
    working_in,
)

from opentau_prep import load_mixture, mixture_norm_heads
from opentau_prep.artifacts.jsonio import dump_own
from opentau_prep.demo.append import append_episode
from opentau_prep.demo.mixture import write_demo
from opentau_prep.verdict.facts import Verdict


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A demo on which the commands of its first report were run; with the two reports."""
    folder = tmp_path_factory.mktemp("prepared")
    with working_in(folder):
        write_demo(Path("demo"))
        first = facts_of()
        done = obey(first)
        return folder, first, done, facts_of()


@pytest.fixture
def demo(prepared, tmp_path):
    """A copy of that, to be spoilt, as working directory."""
    shutil.copytree(prepared[0] / "demo", tmp_path / "demo")
    with working_in(tmp_path):
        yield tmp_path / "demo"


def to_do(facts: Verdict, level: str = "do") -> dict[str, list[str]]:
    chosen = [each for each in facts.to_do if each.level == level]
    return {relative(each.command): list(each.details) for each in chosen}


def test_report_of_nothing_done_names_the_command_that_does_all_steps(prepared):
    _, first, done, _ = prepared
    assert not first.ready
    assert done == [["run", "--mixture-json", "demo/mixture.json"]]
    assert states(first) == {"missing", "published", "optional"}


def test_report_after_its_commands_is_ready_and_everything_fresh(prepared):
    ready = prepared[3]
    assert ready.ready
    others = [(a.kind, a.state, a.detail) for a in ready.artifacts if a.state != "fresh"]
    assert others == [
        ("validation plan", "optional", ""),
        ("loss report", "optional", ""),
    ]
    assert ready.by_size == []
    assert ready.validation.checked == 7


def test_report_mixture_adds_up(prepared):
    mixture = prepared[3].mixture
    written = json.loads((prepared[0] / "demo/mixture.json").read_text())
    assert [d.weight for d in mixture.datasets] == written["weights"]
    assert sum(d.share for d in mixture.datasets) == pytest.approx(1)
    subset = next(d for d in mixture.datasets if d.name == "demo/arm6_stack")
    assert (subset.episodes, subset.episodes_all) == (13, 14)
    assert mixture.frames == sum(d.frames for d in mixture.datasets) == 9967
    assert subset.seconds == pytest.approx(subset.frames / 20)


def test_report_heads_are_those_of_training(prepared):
    with working_in(prepared[0]):
        mixture = load_mixture("demo/mixture.json")
        heads = mixture_norm_heads(mixture, max_state_dim=32, max_action_dim=32)
    for facts, key, stats in zip(
        prepared[3].heads.heads, heads.norm_keys, heads.per_norm_key_stats, strict=True
    ):
        assert facts.key == key
        for dims, feature in ((facts.state, "state"), (facts.actions, "actions")):
            for name in ("min", "max", "mean", "std"):
                shown = [getattr(dim, name) for dim in dims]
                assert shown == stats[feature][name][: len(dims)].tolist()
            assert not np.any(stats[feature]["max"][len(dims) :])
    assert prepared[3].heads.heads[0].state[5].name == "gripper"


def test_report_speed_counts_every_selected_episode_once(prepared):
    facts = prepared[3]
    counted = sum(sum(task.buckets) for each in facts.speed for task in each.tasks)
    assert counted == facts.mixture.episodes
    pick = facts.speed[0]
    assert (pick.n_tasks, pick.n_sparse) == (2, 1)
    sparse = next(task for task in pick.tasks if task.percentiles is None)
    assert sparse.buckets == [0] * 5 + [5] + [0] * 5


def test_report_forecast_counts_the_chunks_that_are_too_long(prepared):
    with working_in(prepared[0]):
        facts = facts_of(max_length=60)
    document = json.loads((prepared[0] / "demo/mixture.prep/tokenizer/fit_report.json").read_text())
    counts = document["token_lengths"]["total"]["counts"]
    cut = sum(n for length, n in counts.items() if int(length) > 60) / sum(counts.values())
    assert facts.tokenizer.groups[0].truncated == pytest.approx(cut)
    assert cut > 0.01
    assert any("longer than 60 tokens" in each.what for each in facts.to_do)
    assert facts.ready


def test_page_is_whole_self_contained_and_the_same_twice(demo):
    before = hashes(demo.parent)
    assert run("report", "--mixture-json", "demo/mixture.json").exit_code == 0
    page = read_page(Path("demo/mixture.prep/report.html"))
    first = Path("demo/mixture.prep/report.html").read_bytes()
    after = hashes(demo.parent)
    # What the audit of heads found is remembered for this user.
    assert {name for name in set(after) - set(before) if not name.startswith("cache")} == {
        "demo/mixture.prep/report.html",
        "demo/mixture.prep/report.html-prep.json",
    }
    assert {name: after[name] for name in before} == before
    again = run("report", "--mixture-json", "demo/mixture.json")
    assert "report.html: up to date" in again.stdout
    assert Path("demo/mixture.prep/report.html").read_bytes() == first
    (policy,) = [a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert page.text.count("Ready to train") == 1
    tables = sum(tag == "table" for tag, _ in page.tags)
    regions = [attrs for _, attrs in page.tags if attrs.get("role") == "region"]
    assert all(attrs["aria-label"] for attrs in regions)
    assert len(regions) >= tables > 5
    pictures = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert len(pictures) > 150
    assert all(attrs["aria-label"] for attrs in pictures)
    assert all("scope" in attrs for tag, attrs in page.tags if tag == "th")


def test_json_document_is_the_facts_and_the_page_shows_them(demo):
    result = run("report", "--mixture-json", "demo/mixture.json", "--json")
    document = json.loads(result.stdout)
    facts = facts_of()
    added = ("schema_version", "command", "warnings", "out")
    own = {k: v for k, v in document.items() if k not in added}
    assert own == json.loads(dump_own(facts.as_json()))
    assert document["out"]["status"] == "written"
    # What the report holds is not repeated on the terminal.
    assert len(document["notices"]) > 2
    assert not [w for w in document["warnings"] if w["message"] in str(document["notices"])]
    shown = read_page(Path("demo/mixture.prep/report.html")).text
    texts = [text for each in facts.to_do for text in (each.what, each.command, *each.details)]
    texts += [text for head in facts.heads.heads for text in (head.key, *head.members)]
    texts += [task.task for each in facts.speed for task in each.tasks]
    texts += [a.path for a in facts.artifacts if not a.datasets]
    texts += [n["message"] for n in facts.notices]
    texts += [facts.mixture.sha256, *(group.name for group in facts.tokenizer.groups)]
    assert not [text for text in texts if " ".join(text.split()) not in shown]


def test_report_of_a_dataset_that_grew_says_what_is_stale_and_how_to_fix_it(demo):
    root = demo / "datasets/demo/arm6_pose"
    (episode,) = tiny_episodes(lengths=[55], state_dim=7, action_dim=7)
    append_episode(root, episode)
    facts = facts_of()
    changed = "episodes 12 -> 13; frames 767 -> 822; data files"
    for kind in ("sketches", "speed"):
        state, detail = state_of(facts, kind, "demo/arm6_pose")
        assert (state, detail[: len(changed)]) == ("stale", changed)
    assert state_of(facts, "sketches", "demo/arm6_pick") == ("fresh", "")
    commands = to_do(facts)
    speed = "opentau-prep speed-percentiles demo/datasets/demo/arm6_pose --force"
    assert "speed stale (episodes 12 -> 13; frames" in commands[speed][0]
    stale = commands["opentau-prep run --mixture-json demo/mixture.json"]
    assert any(each.startswith("tokenizer stale (episodes 101 -> 102") for each in stale)
    obey(facts)
    assert facts_of().ready
    # The run refits with the options that the tokenizer was fitted with.
    fit = json.loads((demo / "mixture.prep/tokenizer/fit_report.json").read_text())
    options = ("chunk_size", "total_chunks_requested", "vocab_size", "scale")
    assert [fit[name] for name in options] == [50, 300, 300, 5.0]


def test_report_of_changed_data_files_needs_no_hashes_to_see_other_sizes(demo):
    # Copied: this cache remembers nothing, so numbers and sizes are compared.
    assert len(facts_of().by_size) == 7
    assert facts_of().ready
    file = sorted((demo / "datasets/demo/old_push/data").rglob("*.parquet"))[0]
    file.write_bytes(file.read_bytes() + b"PAR1")
    facts = facts_of()
    assert state_of(facts, "sketches", "demo/old_push") == ("stale", "data changed")
    assert not (demo.parent / "cache/fingerprints").exists()


def test_report_of_damaged_and_edited_artifacts_says_so_and_goes_on(demo):
    root = demo / "datasets/demo/arm6_pick/meta"
    heads = demo / "mixture.prep/norm_heads.json"
    heads.write_bytes(heads.read_bytes()[:100])
    (root / "speed_percentiles.jsonl").write_text("no json\n")
    (root / "validation.json").write_text('{"findings": 7}')
    (demo / "mixture.prep/tokenizer/fit_report.json").write_text('{"fit": {}}')
    edited = demo / "datasets/demo/old_push/meta/speed_percentiles.jsonl"
    edited.write_text(edited.read_text().replace("push", "Push"))
    (demo / "mixture.prep/val_plan.json").write_text("[]")
    (demo / "mixture.prep/val_report.json").mkdir()
    facts = facts_of()
    assert state_of(facts, "norm heads")[0] == "damaged"
    assert state_of(facts, "speed", "demo/arm6_pick")[0] == "damaged"
    assert state_of(facts, "tokenizer")[0] == "damaged"
    assert state_of(facts, "speed", "demo/old_push")[0] == "edited"
    assert state_of(facts, "findings", "demo/arm6_pick")[0] == "damaged"
    assert state_of(facts, "validation plan")[0] == "damaged"
    assert state_of(facts, "loss report")[0] == "damaged"
    assert "demo/arm6_pick" in facts.validation.unchecked
    forced = [command for command in to_do(facts) if command.endswith("--force")]
    assert [command.split()[1] for command in forced][:3] == [
        "heads", "speed-percentiles", "fit-tokenizer",
    ]  # fmt: skip
    result = run("report", "--mixture-json", "demo/mixture.json")
    assert result.exit_code == 1
    read_page(Path("demo/mixture.prep/report.html"))


@pytest.mark.parametrize(
    ("file", "kind", "state"),
    [
        ("mixture.prep/norm_heads.json", "norm heads", "damaged"),
        ("mixture.prep/tokenizer/tokenizer.json", "tokenizer", "damaged"),
        ("mixture.prep/tokenizer/README.md", "tokenizer", "edited"),
        ("mixture.prep/tokenizer/tokenizer_config.json", "tokenizer", "edited"),
        ("datasets/demo/old_push/meta/action_tokens", "tokens", "damaged"),
        ("datasets/demo/old_push/meta/norm_heads", "norm head", "missing"),
    ],
)
def test_report_of_json_that_is_something_else_is_damage_or_an_edit(demo, file, kind, state):
    path = demo / file
    if path.is_dir():
        (found,) = path.iterdir()
        found.unlink()
        if state == "damaged":
            found.mkdir()
    else:
        path.write_text("[]")
    facts = facts_of()
    assert state in {a.state for a in facts.artifacts if a.kind == kind}
    assert facts.ready is (state == "edited")
    assert len(facts.heads.heads) == 6


def test_report_of_a_mixture_with_a_lost_dataset_begins_with_it(demo):
    shutil.rmtree(demo / "datasets/demo/old_push")
    (demo / "datasets/demo/arm6_pick/meta/tasks.parquet").write_bytes(b"torn")
    facts = facts_of()
    assert not facts.ready
    first = facts.to_do[0]
    assert first.command == ""  # a person must act
    assert first.details[0].startswith("demo/old_push: ")
    assert state_of(facts, "norm heads")[0] == "unknown"
    assert state_of(facts, "stats", "demo/arm6_pick")[0] == "damaged"
    assert state_of(facts, "speed", "demo/arm6_pose") == ("fresh", "")


def test_report_of_percentiles_of_a_selection_wants_those_of_all(demo):
    file = demo / "datasets/demo/arm6_stack/meta/speed_percentiles.jsonl"
    file.unlink()
    persist = ("--mixture-json", "demo/mixture.json", "--persist-subset")
    result = run("speed-percentiles", *persist)
    assert result.exit_code == 2  # two selections of bimanual_fold
    mixture = json.loads((demo / "mixture.json").read_text())
    whole = {**mixture, "weights": None, "datasets": mixture["datasets"][1:2]}
    (demo / "one.json").write_text(json.dumps(whole))
    assert run("speed-percentiles", "--mixture-json", "demo/one.json", persist[2]).exit_code == 0
    assert state_of(facts_of("demo/one.json"), "speed") == ("fresh", "")
    del whole["datasets"][0]["excluded_episodes"]
    (demo / "one.json").write_text(json.dumps(whole))
    facts = facts_of("demo/one.json")
    assert state_of(facts, "speed") == ("other options", "made of 13 selected episodes alone")
    assert "opentau-prep speed-percentiles demo/datasets/demo/arm6_stack --force" in to_do(facts)


def test_report_finds_plan_and_losses_beside_the_mixture(demo):
    mixture = ("--mixture-json", "demo/mixture.json")
    sizes = ("--world-size", 4, "--batch-size", 8)
    assert (
        run("val-plan", *mixture, *sizes, "--out", "demo/mixture.prep/val_plan.json").exit_code == 0
    )
    row = {"dataset": "demo/old_push", "dataset_index": 4, "control_mode": None}
    row |= {"MSE_sum": 3.0, "MSE_count": 2}
    Path("losses.jsonl").write_text(json.dumps(row) + "\n")
    out = ("--out", "demo/mixture.prep/val_report.json")
    assert run("val-report", "losses.jsonl", *mixture, *out).exit_code == 0
    facts = facts_of()
    assert state_of(facts, "validation plan") == ("fresh", "")
    assert state_of(facts, "loss report") == ("fresh", "")
    assert facts.losses.plan["total_samples"] == 992
    assert [r["value"] for r in facts.losses.rows if r["scope"] == "group"] == [1.5]
    named = facts_of(val_plan=Path("nowhere.json"))
    assert state_of(named, "validation plan")[0] == "missing"
    assert not named.ready
    document = json.loads((demo / "mixture.json").read_text())
    document["datasets"][1]["excluded_episodes"] = []
    (demo / "mixture.json").write_text(json.dumps(document))
    changed = facts_of()
    assert state_of(changed, "validation plan")[0] == "stale"
    again = "opentau-prep val-plan --mixture-json demo/mixture.json --world-size=4 --batch-size=8"
    assert f"{again} --split=training --seed=1000 --out demo/mixture.prep/val_plan.json" in to_do(
        changed
    )


def test_report_below_artifact_root_looks_there_and_says_so(tmp_path):
    tiny_dataset(tmp_path, "v2.1", name="a", lengths=list(range(20, 32)))
    (tmp_path / "m.json").write_text(json.dumps({"datasets": [{"repo_id": "o/a", "root": "a"}]}))
    with working_in(tmp_path):
        elsewhere = ("--mixture-json", "m.json", "--artifact-root", "else where")
        assert run("speed-percentiles", *elsewhere).exit_code == 0
        facts = facts_of("m.json", artifact_root=Path("else where"))
        assert state_of(facts, "speed") == ("fresh", "")
        assert state_of(facts_of("m.json"), "speed")[0] == "missing"
        everything = "opentau-prep run --mixture-json m.json --artifact-root 'else where'"
        assert everything in to_do(facts)


def test_report_names_pooled_quantiles_only_where_sketches_are_of_the_selected_frames(demo):
    # Two tasks of one arm: the weighted mean of their q01 and q99 is no quantile of all frames.
    arms = json.loads((demo / "mixture.json").read_text())["datasets"][:2]
    for excluded, named in ((arms[1].pop("excluded_episodes"), False), ([], True)):
        arms[1]["excluded_episodes"] = excluded
        (demo / "arms.json").write_text(json.dumps({"datasets": arms, "weights": None}))
        facts = facts_of("demo/arms.json")
        (head,) = facts.heads.heads
        assert head.selected is not named
        noted = sum(bool(dim.notes) for dim in (*head.state, *head.actions))
        (found,) = [e.details for e in facts.to_do if e.what.startswith("Pooled")] or [None]
        assert found == ([f"demo_arm6::joint: {noted} dims"] if named else None)
        assert (noted > 6) is named
    # Alone, each dataset of the demo has true quantiles.
    assert not any(dim.notes for h in facts_of().heads.heads for dim in (*h.state, *h.actions))
