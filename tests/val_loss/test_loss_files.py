"""Per-sample loss files: both formats read alike, and malformed ones named to the line."""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from opentau_prep import DataError, GroupedLosses
from opentau_prep.val_loss import files

NAMES = ("dataset_index", "dataset", "control_mode", "MSE_sum", "MSE_count")
ROWS = [
    dict(zip(NAMES, values, strict=True))
    for values in (
        (0, "org/a", "joint", 1e16, 2),
        (0, "org/b", None, 0.1, 3),
        (None, "vqa", None, 5, 1.5),
        (0, "org/a", "joint", -1e16, 0),
    )
]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path, rows, **columns):
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = {name: [row.get(name) for row in rows] for name in names}
    pq.write_table(pa.table({**table, **columns}), path)
    return path


def expected():
    losses = GroupedLosses()
    for row in ROWS:
        index = -1 if row["dataset_index"] is None else row["dataset_index"]
        losses.update(
            dataset_index=[index], dataset=[row["dataset"]], control_mode=[row["control_mode"]],
            losses={"MSE": ([row["MSE_sum"]], [row["MSE_count"]])},
        )  # fmt: skip
    return losses.state()


@pytest.mark.parametrize("writer", [write_jsonl, write_parquet])
@pytest.mark.parametrize("block", [1, 3, 65_536])
def test_read_losses_either_format_equals_updates(tmp_path, monkeypatch, writer, block):
    monkeypatch.setattr(files, "_BLOCK_ROWS", block)
    suffix = writer.__name__.removeprefix("write_")
    first = writer(tmp_path / f"rank-0.{suffix}", ROWS[:3])
    second = writer(tmp_path / f"rank-1.{suffix}", ROWS[3:])
    assert files.read_losses([second, str(first)]).state() == expected()


def test_read_losses_mixed_formats_and_an_idle_rank(tmp_path):
    paths = [
        write_jsonl(tmp_path / "0.jsonl", ROWS[:2]),
        write_parquet(tmp_path / "1.parquet", ROWS[2:]),
        write_jsonl(tmp_path / "2.jsonl", []),
        write_parquet(
            tmp_path / "3.parquet", ROWS[:0], **{n: pa.array([], pa.null()) for n in ROWS[0]}
        ),
    ]
    assert files.read_losses(paths).state() == expected()


@pytest.mark.parametrize("writer", [write_jsonl, write_parquet])
def test_read_losses_null_loss_is_not_brought(tmp_path, writer):
    rows = [
        {**ROWS[0], "CE_sum": 4.0, "CE_count": 2},
        {**ROWS[1], "CE_sum": None, "CE_count": None},
    ]
    path = writer(tmp_path / f"r.{writer.__name__.removeprefix('write_')}", rows)
    groups = files.read_losses([path]).result()["groups"]
    assert [sorted(g["losses"]) for g in groups] == [["CE", "MSE"], ["MSE"]]


def test_read_losses_large_parquet_equals_math_fsum(tmp_path):
    rng = np.random.default_rng(3)
    n = 150_000
    dataset = rng.integers(0, 40, n)
    sums = rng.standard_normal(n) * 10.0 ** rng.integers(-20, 20, n)
    table = pa.table(
        {
            "dataset": pa.array([f"d{i}" for i in dataset]).dictionary_encode(),
            "dataset_index": pa.array(dataset % 5, pa.int32()),
            "control_mode": pa.nulls(n),
            "step": pa.array(np.arange(n)),
            "MSE_sum": sums,
            "MSE_count": pa.array(np.ones(n), pa.float32()),
        }
    )
    pq.write_table(table, tmp_path / "r.parquet")
    found = files.read_losses([tmp_path / "r.parquet"]).result()["metrics"]
    for i in (0, 17, 39):
        mine = sums[dataset == i]
        # fsum rounds the sum once and the division once more: within one unit in the last place.
        exact = math.fsum(mine.tolist()) / len(mine)
        assert found[f"Validation/by_dataset/d{i}/MSE Loss"] == pytest.approx(exact, rel=2.3e-16)


@pytest.mark.parametrize("text", ["NaN", '"NaN"', "Infinity", '"-Infinity"'])
def test_read_losses_non_finite_in_jsonl_is_counted(tmp_path, text):
    line = json.dumps(ROWS[1]).replace("0.1", text)
    (tmp_path / "r.jsonl").write_text(line + "\n\n" + json.dumps(ROWS[1]))
    loss = files.read_losses([tmp_path / "r.jsonl"]).state()["cells"][0]["losses"]["MSE"]
    assert (loss["samples"], loss["non_finite"]) == (2, 1)


GOOD = json.dumps(ROWS[0])


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (GOOD + "\n{oops\n", "line 2.*not JSON"),
        (GOOD + "\n\n[1]\n", "line 3.*list"),
        (
            '{"dataset": "a", "control_mode": null, "MSE_sum": 1, "MSE_count": 1}',
            "line 1.*dataset_index",
        ),
        (GOOD.replace('"MSE_count"', '"MSE_n"'), "MSE_sum unpaired"),
        ('{"dataset_index": 0, "dataset": "a", "control_mode": "j"}', "no loss"),
        (GOOD + "\n" + GOOD.replace("1e+16", '"high"'), "line 2.*MSE_sum is 'high'"),
        (GOOD.replace("1e+16", "true"), "line 1.*MSE_sum is True"),
        (GOOD.replace(": 2", ": -2"), "line 1.*negative"),
        (GOOD.replace(": 2", ": null"), "line 1.*null"),
        (GOOD.replace('"org/a"', "null"), "line 1.*dataset None"),
        (GOOD.replace('"org/a"', "7"), "line 1.*dataset is 7"),
        (GOOD.replace('"joint"', "[]"), r"line 1.*control_mode is \[\]"),
        (
            GOOD.replace('"dataset_index": 0', '"dataset_index": 0.5'),
            "line 1.*dataset_index is 0.5",
        ),
        (GOOD.replace('"dataset_index": 0', '"dataset_index": -4'), "line 1.*-4"),
        (GOOD.replace('"dataset_index": 0', f'"dataset_index": {10**30}'), "line 1.*dataset_index"),
        (GOOD.replace("MSE", "M/SE"), "M/SE"),
        (GOOD.replace("org/a", "\\ud800"), "r.jsonl.*dataset"),
        ("", "no samples"),
        (b"\xff\xfe", "line 1.*not JSON"),
    ],
)
def test_read_losses_malformed_jsonl_names_file_and_line(tmp_path, content, named):
    path = tmp_path / "r.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=named) as caught:
        files.read_losses([path])
    assert "r.jsonl" in str(caught.value)


def test_read_losses_malformed_row_in_later_parquet_block_names_its_row(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_BLOCK_ROWS", 2)
    rows = [*ROWS, {**ROWS[0], "MSE_count": -1.0}]
    with pytest.raises(DataError, match="row 4"):
        files.read_losses([write_parquet(tmp_path / "r.parquet", rows)])


@pytest.mark.parametrize(
    ("column", "values", "named"),
    [
        ("MSE_sum", ["a", "b"], "column MSE_sum"),
        ("dataset_index", [0.5, 1.0], "column dataset_index"),
        ("dataset", [1, 2], "column dataset"),
        ("dataset", ["a", None], "row 1.*dataset None"),
        ("control_mode", [[1], [2]], "column control_mode"),
    ],
)
def test_read_losses_malformed_parquet_names_file_and_column(tmp_path, column, values, named):
    path = write_parquet(tmp_path / "r.parquet", ROWS[:2], **{column: values})
    with pytest.raises(DataError, match=named) as caught:
        files.read_losses([path])
    assert "r.parquet" in str(caught.value)


def test_read_losses_truncated_parquet_is_data_error(tmp_path):
    path = write_parquet(tmp_path / "r.parquet", ROWS)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"r\.parquet"):
        files.read_losses([path])


def test_read_losses_file_given_twice_is_data_error(tmp_path):
    path = write_jsonl(tmp_path / "r.jsonl", ROWS)
    with pytest.raises(DataError, match="twice"):
        files.read_losses([path, tmp_path / "." / "r.jsonl"])


@pytest.mark.parametrize("name", ["gone.jsonl", "gone.parquet", "losses.csv", "folder.jsonl"])
def test_read_losses_unreadable_path_is_data_error(tmp_path, name):
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(DataError, match=name):
        files.read_losses([tmp_path / name])


def test_read_losses_no_files_is_data_error():
    with pytest.raises(DataError, match="no samples"):
        files.read_losses([])
