"""The outcome of `fit-tokenizer` as tables for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from opentau_prep.cli.tables import Render, failures_text, table

if TYPE_CHECKING:
    from rich.console import Console

    from opentau_prep.tokenizer.compare import MeasureReport, SweepReport
    from opentau_prep.tokenizer.report import TokenizerReport

__all__ = ["measure_tables", "sweep_table", "tokenizer_tables"]

_MAX_ROWS = 20
_BINS = 12
_BAR = 40
_DIMS = 3


def tokenizer_tables(report: TokenizerReport) -> Render:
    """Return what draws the outcome of `fit-tokenizer`."""

    def render(console: Console) -> None:
        document = report.document
        _draw_summary(console, report)
        if "token_lengths" in document:
            _draw_candidates(console, document)
            _draw_lengths(console, document)
            _draw_histogram(console, document["token_lengths"])
        if "explained" in document:
            _draw_explained(console, document)
        failures_text(console, report.failures)

    return render


def measure_tables(report: MeasureReport) -> Render:
    """Return what draws the measurement of a tokenizer that exists."""

    def render(console: Console) -> None:
        found = report.document
        lines = (
            f"{report.folder}: {found['tokens']:,} tokens, scale {found['scale']:g}, min_token"
            f" {found['min_token']}; {found['vocabulary_used']:.0%} of the vocabulary used",
            f"chunks of {found['chunk_size']} x {found['action_dim']},"
            f" {found['normalization_mode']}; nothing was written",
        )
        for line in lines:
            console.print(line, markup=False, soft_wrap=True)
        _draw_losses(console, found["losses"])
        _draw_lengths(console, found)
        _draw_histogram(console, found["token_lengths"])

    return render


def _draw_losses(console: Console, losses: Mapping[str, Any]) -> None:
    heads = [(f"head {name}", group) for name, group in losses["heads"].items()]
    worst = sorted(losses["datasets"].items(), key=lambda item: -item[1]["lossy_chunks"])
    rows = [
        (
            name,
            group["chunks"],
            group["clipped_chunks"],
            f"{group['out_of_vocabulary']:.2%}",
            group["lossy_chunks"],
            group["wrong_length_chunks"],
        )
        for name, group in (("total", losses["total"]), *heads, *worst[:_MAX_ROWS])
    ]
    columns = ("", "#chunks", "#clipped", "#out of vocabulary", "#decode wrongly", "#to zeros")
    title = "chunks that lose numbers; the published class decodes a wrong length to zeros"
    console.print(table(columns, rows, title=title))


def sweep_table(report: SweepReport) -> Render:
    """Return what draws a sweep."""

    def render(console: Console) -> None:
        columns = ("#scale", "#vocab-size", "#MSE", "#native MSE", "#mean tokens", "#p99", "#used")
        rows = [
            (
                f"{row.scale:g}",
                row.vocab_size,
                _small(row.mse),
                _small(row.native_mse),
                f"{row.mean:.1f}",
                f"{row.p99:.0f}",
                f"{row.vocabulary_share:.0%}",
            )
            for row in report.rows
        ]
        title = f"fitted on {report.n_chunks:,} chunks; nothing was written"
        console.print(table(columns, rows, title=title))
        failures_text(console, report.failures)

    return render


def _draw_summary(console: Console, report: TokenizerReport) -> None:
    document = report.document
    lines = [f"{report.out_dir}: {report.status}"]
    fit = document.get("fit")
    n_robot = sum(key is not None for key in document["per_dataset_norm_keys"])
    chunks = f"{document['total_chunks_actual']:,} chunks of {document['chunk_size']} x"
    lines.append(
        f"{chunks} {document['action_dim']} from {n_robot:,} datasets,"
        f" {document['n_norm_heads']} norm heads ({_NORMALIZED[document['normalization']]},"
        f" {document['normalization_mode']})"
    )
    if fit is not None:
        cap = fit["max_token_length"]
        lines.append(
            f"{fit['tokens']:,} tokens of"
            f" {'any length' if cap is None else f'up to {cap:,} numbers'};"
            f" more chunks: {_STOPPED[fit['stopped_by']]};"
            f" {fit['vocabulary']['share']:.0%} of the vocabulary used"
        )
    error = document["roundtrip"]
    if error["roundtrip_mse"] is not None:
        lines.append(
            f"round trip: MSE {_small(error['roundtrip_mse'])} normalized,"
            f" {_small(error['native_mse'])} in native units"
        )
    if report.seconds:
        lines.append(", ".join(f"{name} {took:.1f} s" for name, took in report.seconds.items()))
    clipped = document["quantized"].get("clipped")
    if clipped is not None and clipped["values"]:
        lines.append(
            f"beyond the headroom of {document['headroom']:g}: {clipped['values']:,} numbers in"
            f" {clipped['chunks']:,} chunks, clipped; error up to {clipped['max_abs_error']:.2g}"
        )
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


_NORMALIZED = {"per_robot_type_control_mode": "each dataset with its own", "global": "one range"}
_STOPPED = {
    "converged": "shorten held-out sequences by less than 0.5 %",
    "corpus": "none were asked for, or there are none",
    "memory": "do not fit into the memory budget",
}


def _draw_candidates(console: Console, document: Mapping[str, Any]) -> None:
    columns = ("#chunks", "#longest token", "#mean tokens", "#p99")
    rows = [
        (
            c["n_chunks"],
            "any" if c["max_token_length"] is None else c["max_token_length"],
            f"{c['mean']:.1f}",
            f"{c['p99']:.0f}",
        )
        for c in document["fit"]["candidates"]
    ]
    console.print(table(columns, rows, title="fits that were tried"))


def _draw_lengths(console: Console, document: Mapping[str, Any]) -> None:
    limit = document.get("discrete_action_max_length")
    lengths = document["token_lengths"]
    last = () if limit is None else (f"#over {limit}",)
    keep = ("#keep 99%", "#keep 99.9%")
    columns = ("", "#chunks", "#mean", "#p50", "#p95", *keep, "#max", *last)
    groups = [("total", lengths["total"])]
    groups += [(f"head {name}", group) for name, group in lengths["heads"].items()]
    hidden = 0
    datasets = list(lengths["datasets"].items())
    if len(datasets) > 1:
        worst = sorted(datasets, key=lambda item: -item[1]["p99"])
        shown = worst if len(worst) <= _MAX_ROWS else worst[:_MAX_ROWS]
        hidden = len(worst) - len(shown)
        groups += [(name, group) for name, group in datasets if (name, group) in shown]
    title = f"tokens per chunk, measured on {lengths['measured_on']}"
    console.print(table(columns, [_length_row(n, g) for n, g in groups], title=title))
    if hidden:
        console.print(f"and {hidden:,} datasets with shorter sequences; see fit_report.json")


def _length_row(name: str, group: Mapping[str, Any]) -> tuple[object, ...]:
    cells: tuple[object, ...] = (name, group["n_chunks"], f"{group['mean']:.1f}")
    cells += tuple(f"{group[key]:.0f}" for key in ("p50", "p95"))
    cells += (group["keeps"]["0.99"], group["keeps"]["0.999"], group["max"])
    return (*cells, f"{group['truncated_share']:.2%}") if "truncated_share" in group else cells


def _draw_histogram(console: Console, lengths: Mapping[str, Any]) -> None:
    from rich.bar import Bar
    from rich.table import Table

    counts = {int(length): n for length, n in lengths["total"]["counts"].items()}
    low, high = min(counts), max(counts)
    width = max(1, -(-(high - low + 1) // _BINS))
    bins = [0] * (-(-(high - low + 1) // width))
    for length, n in counts.items():
        bins[(length - low) // width] += n
    grid = Table.grid(padding=(0, 1))
    grid.add_column(justify="right")
    grid.add_column(justify="right")
    grid.add_column()
    for i, n in enumerate(bins):
        first = low + i * width
        label = f"{first}-{first + width - 1}" if width > 1 else str(first)
        grid.add_row(label, f"{n:,}", Bar(max(bins), 0, n, width=_BAR, color="cyan"))
    console.print("[bold]tokens per chunk[/bold], chunks")
    console.print(grid)


def _draw_explained(console: Console, document: Mapping[str, Any]) -> None:
    """Draw which dims and frequencies the tokens of each head go to, and what halves give."""
    found = document["explained"]
    heads = sorted(found["heads"].items(), key=lambda item: -item[1]["mean"])
    rows = [
        (f"head {name}", f"{head['mean']:.1f}", _longest_dims(head), _low_frequencies(head))
        for name, head in heads[:_MAX_ROWS]
    ]
    columns = ("", "#tokens", "most of them in dims", "90% in frequencies")
    console.print(table(columns, rows, title="where the tokens come from"))
    whole = found["total"]["mean"]
    for name, what in (
        ("half_scale", "scale {scale:g}, half of this one"),
        ("half_rate", "{chunk_size} steps over the same time, half of this rate"),
    ):
        if name in found:
            half = found[name]
            console.print(
                f"{what.format(**half)}: {half['mean']:.1f} tokens per chunk"
                f" ({half['mean'] / whole - 1:+.0%}), 99% up to {half['p99']:.0f},"
                f" MSE {_small(half['mse'])}",
                markup=False,
                soft_wrap=True,
            )


def _longest_dims(head: Mapping[str, Any]) -> str:
    dims = sorted(enumerate(head["per_dim"]), key=lambda item: -item[1])[:_DIMS]
    return ", ".join(f"{dim} ({tokens / head['mean']:.0%})" for dim, tokens in dims if tokens)


def _low_frequencies(head: Mapping[str, Any]) -> str:
    """Return the first frequencies that take 90 % of the tokens."""
    reached, last = 0.0, -1
    while reached < 0.9 * head["mean"] and last + 1 < len(head["per_frequency"]):
        last += 1
        reached += head["per_frequency"][last]
    return f"0-{last} of {len(head['per_frequency'])}"


def _small(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
