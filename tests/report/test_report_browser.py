"""The page as Chromium shows it: whole, quiet, alone, and usable."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from browser import Browser
from builders import copy_real, tiny_dataset, tiny_episodes
from report_mixtures import run, working_in

from opentau_prep.demo.audit import write_audit_demo
from opentau_prep.demo.many import write_many
from opentau_prep.demo.mixture import write_demo
from opentau_prep.report.png import find_browser

pytestmark = pytest.mark.skipif(find_browser() is None, reason="there is no Chromium or Chrome")

HOSTILE = "<img src=x onerror=alert(1)>\"'</script></svg>"
SMALL_FIT = ["--total-chunks", "200", "--vocab-size", "300", "--chunk-size", "10"]
DRAWN = """
  document.querySelectorAll('details').forEach(d => d.open = true);
  Array.from(document.querySelectorAll('svg')).filter(s => {
    const box = s.getBBox();
    return !(box.width > 0 && box.height > 0 && s.querySelector('path,rect,line,text'));
  }).map(s => s.getAttribute('aria-label'))
"""


@pytest.fixture(scope="module")
def browser():
    with_pipe = Browser()
    yield with_pipe
    with_pipe.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a mixture of one robot's datasets and one whose every name is hostile."""
    folder = tmp_path_factory.mktemp("page")
    with working_in(folder):
        path = write_audit_demo(folder / "audit", n_datasets=3, faults={}, episodes_per_dataset=3)
        names = (HOSTILE, "</table>", "x")
        tiny_dataset(
            folder / "audit",
            "v3.0",
            name="bad",
            episodes=tiny_episodes(lengths=[20, 30, 25]),
            robot_type=HOSTILE,
            control_mode="joint",
            tasks=(HOSTILE,),
            state_names=names,
            action_names=names[:2],
        )
        document = json.loads(path.read_text())
        document["datasets"].append({"repo_id": "o/bad", "root": "bad"})
        path.write_text(json.dumps(document))
        for words in (["stats"], ["heads"], ["speed-percentiles"], ["fit-tokenizer", *SMALL_FIT]):
            made = run(*words, "--mixture-json", path, "--workers", 1)
            assert made.exit_code == 0, made.output
        run("report", "--mixture-json", path, "--discrete-action-max-length", 20)
        return path.with_suffix(".prep") / "report.html"


def check_quiet(browser: Browser, page: Path) -> None:
    """Make sure that a page says nothing, asks for nothing and has every picture drawn."""
    browser.open(page)
    assert browser.ask(DRAWN) == []
    assert browser.messages == []
    assert browser.requests == [page.as_uri()]
    assert browser.ask("document.querySelectorAll('svg').length") > 5
    # No sideways scrolling of the page as a whole.
    assert browser.ask("document.documentElement.scrollWidth <= innerWidth")


def test_page_is_quiet_alone_and_every_picture_is_drawn(browser, page):
    check_quiet(browser, page)
    kinds = ("flows", "heat", "dim-plot", "episodes", "bars", "chunk")
    for kind in kinds:
        assert browser.ask(f"document.querySelectorAll('svg.{kind}').length"), kind
    # A curve per member, and bars as high as there is something to show.
    first = "document.querySelectorAll('#head-0 .dim-plot')[0]"
    assert browser.ask(f"{first}.querySelectorAll('path.curve').length") == 3
    heights = (
        "Array.from(document.querySelectorAll('#tokenizer rect.bar'))"
        ".map(r => +r.getAttribute('height'))"
    )
    assert min(browser.ask(heights)) > 0


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1240])
def test_page_fits_phones_and_follows_the_theme(browser, page, width, dark):
    browser.open(page, width=width, dark=dark)
    assert browser.ask("document.documentElement.scrollWidth") <= width
    paper = browser.ask("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") is not dark


def test_hostile_names_stay_text(browser, page):
    browser.open(page)
    assert browser.ask("document.querySelectorAll('img, b, i').length") == 0
    assert browser.ask("document.querySelectorAll('script').length") == 1
    shown = browser.ask("document.body.textContent")
    assert shown.count(HOSTILE) > 3


def test_filter_leaves_what_matches(browser, page):
    browser.open(page)
    set_filter = "(t => {{const f = document.getElementById('filter'); f.value = {!r};" \
                 " f.dispatchEvent(new Event('input'))}})()"  # fmt: skip
    count = "document.querySelectorAll('#mixture tr.item:not(.off)').length"
    assert browser.ask(count) == 4
    browser.ask(set_filter.format("AUDIT_01"))
    assert browser.ask(count) == 1
    assert browser.ask("document.querySelectorAll('details.head:not(.off)').length") == 1
    browser.ask(set_filter.format(""))
    assert browser.ask(count) == 4
    assert browser.messages == []


def test_dim_picker_shows_one_dim_of_every_head(browser, page):
    browser.open(page)
    assert not browser.ask("document.getElementById('picker').hidden")
    visible = (
        "Array.from(document.querySelectorAll('figure.dim:not(.off)')).map(f => f.dataset.dim)"
    )
    assert len(browser.ask(visible)) == 17
    browser.ask(
        "(() => {const s = document.getElementById('dim'); s.value = 'state 5 gripper';"
        " s.dispatchEvent(new Event('change'))})()"
    )
    assert browser.ask(visible) == ["state 5 gripper"]
    assert browser.messages == []


def test_heat_map_opens_the_head_of_a_row(browser, page):
    browser.open(page)
    browser.ask("document.querySelectorAll('details').forEach(d => d.open = false)")
    browser.ask(
        "(() => {const m = document.querySelector('.heat'); const b = m.getBoundingClientRect();"
        " m.dispatchEvent(new MouseEvent('click', {clientX: b.left + 250,"
        " clientY: b.bottom - 12}))})()"
    )
    assert browser.ask(
        "Array.from(document.querySelectorAll('details.head')).map(d => d.open)"
    ) == [
        False,
        True,
    ]


def test_tables_sort_by_a_heading(browser, page):
    browser.open(page)
    column = (
        "Array.from(document.querySelectorAll('#mixture tbody tr'))"
        ".map(r => +r.cells[6].textContent.replace(',', ''))"
    )
    browser.ask("document.querySelectorAll('#mixture thead th')[6].click()")
    assert browser.ask(column) == sorted(browser.ask(column))
    browser.ask("document.querySelectorAll('#mixture thead th')[6].click()")
    assert browser.ask(column) == sorted(browser.ask(column), reverse=True)


def test_page_without_its_script_is_whole(browser, page, tmp_path):
    content = page.read_text()
    start = content.index("<script>")
    bare = tmp_path / "bare.html"
    bare.write_text(content[:start] + content[content.index("</script>") + 9 :])
    browser.open(bare)
    assert browser.ask(DRAWN) == []
    assert browser.ask("document.getElementById('tools').hidden")
    assert browser.ask("document.querySelectorAll('figure.dim').length") == 17


@pytest.mark.slow
def test_png_of_a_section_is_a_picture_with_something_on_it(page):
    path = page.parent.with_suffix(".json")
    with working_in(path.parent.parent):
        made = run("report", "--mixture-json", path, "--png", "speed", "--json")
    (picture,) = json.loads(made.stdout)["out"]["pictures"]
    data = Path(picture).read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = np.frombuffer(data[16:24], ">u4").tolist()
    assert width == 1240
    assert 150 < height < 2500
    assert len(data) > 5000
    refused = run("report", "--mixture-json", path, "--png", "nonsense")
    assert refused.exit_code == 2


@pytest.mark.slow
def test_page_of_the_demo_is_quiet(browser, tmp_path):
    with working_in(tmp_path):
        path = write_demo(tmp_path / "demo")
        for words in (["stats"], ["heads"], ["speed-percentiles"], ["fit-tokenizer", *SMALL_FIT]):
            run(*words, "--mixture-json", path, "--workers", 1)
        run("report", "--mixture-json", path)
    check_quiet(browser, path.with_suffix(".prep") / "report.html")


@pytest.mark.slow
def test_page_of_published_datasets_is_quiet(browser, tmp_path):
    roots = [copy_real(name, tmp_path) for name in ("g1_pick_bottle", "so101_record_test")]
    with working_in(tmp_path):
        entries = [{"repo_id": f"o/{root.name}", "root": str(root)} for root in roots]
        path = tmp_path / "mix.json"
        path.write_text(json.dumps({"datasets": entries}))
        run("stats", "--mixture-json", path, "--published-stats", "replace", "--workers", 1)
        run("report", "--mixture-json", path)
    check_quiet(browser, path.with_suffix(".prep") / "report.html")


@pytest.mark.slow
def test_page_of_300_datasets_is_small_and_quiet(browser, tmp_path):
    with working_in(tmp_path):
        path = write_many(tmp_path / "many", 300, n_robots=300, dim=14, data=True)
        run("stats", "--mixture-json", path, "--workers", 1)
        run("report", "--mixture-json", path)
    page = path.with_suffix(".prep") / "report.html"
    assert page.stat().st_size < 8_000_000
    check_quiet(browser, page)
    assert browser.ask("document.querySelectorAll('details.head').length") == 300
