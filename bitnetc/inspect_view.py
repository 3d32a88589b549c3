"""A report of inspect as a screen for a person."""

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bitnetc.inspect import Report

_ROLES = {
    "wq": "query",
    "wk": "key",
    "wv": "value",
    "wo": "attention output",
    "w_gate": "gate",
    "w_up": "up",
    "w_down": "down",
}


def view(report: Report) -> Iterator[RenderableType]:
    """The screen, from top to bottom."""
    seen = report.look
    head = Text()
    head.append(f"{report.path.resolve().name or report.path}", style="bold")
    head.append(f"  {seen.what}, {size(seen.size)}")
    yield head
    if report.compiles:
        yield Text("can be compiled", style="bold green")
    else:
        yield Text("cannot be compiled: " + (report.problem or "see below"), style="red")
    for warning in seen.warnings:
        if warning not in report.problem:
            yield Text(f"! {warning}", style="yellow")
    if report.family:
        yield Text()
        yield _pairs(
            {"family": report.family, "because": "; ".join(report.evidence), **_counts(report)}
        )
        yield Text()
        yield _columns(report.facts)
        yield Text()
        yield _matrices(report)
        yield Text()
        yield _pairs({"tokenizer": report.tokenizer.get("kind", ""), **_rest(report)})
    elif seen.known:
        yield Text()
        yield _columns(dict(list(seen.known.items())[:36]))
    if seen.types:
        yield Text()
        yield _types(report)
    if report.assumed:
        yield Text()
        yield Text("assumed", style="bold")
        for note in report.assumed:
            yield Text(f"  - {note}")


def size(count: int) -> str:
    """Bytes in words."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:,.1f} {name}"
    return f"{count} bytes"


def _counts(report: Report) -> dict[str, str]:
    share = report.ternary_parameters / max(1, report.parameters)
    found = {
        "parameters": f"{report.parameters:,}, of which {report.ternary_parameters:,} "
        f"({share:.1%}) ternary",
        "weights": f"{size(report.packed_bytes)} at 2 bits a trit",
    }
    if report.zeros is not None:
        found["zeros"] = (
            f"{report.zeros:.1%} of the trits (a sample of {report.counted_weights:,})"
            if report.counted_weights < report.ternary_parameters
            else f"{report.zeros:.1%} of the trits (all were counted)"
        )
    return found


def _rest(report: Report) -> dict[str, Any]:
    found = {key: value for key, value in report.tokenizer.items() if key != "kind"}
    return {**found, "chat": report.chat, "generation": report.sampling}


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if value >= 10000 else str(value)
    return f"{value:g}" if isinstance(value, float) else escape(str(value))


def _pairs(values: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in values.items():
        table.add_row(escape(key), _value(value))
    return table


def _columns(values: Any) -> Table:
    """Pairs side by side, two in a row, read down."""
    items = list(values.items())
    half = -(-len(items) // 2)
    table = Table.grid(padding=(0, 2))
    for _ in range(2):
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold", min_width=16)
    for i in range(half):
        row = [items[i], items[i + half] if i + half < len(items) else ("", "")]
        table.add_row(*(text for key, value in row for text in (escape(key), _value(value))))
    return table


def _matrices(report: Report) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("matrix", "shape", "weights", "scales", "from", "to", "zeros"):
        table.add_column(
            name, justify="left" if name in ("matrix", "weights", "scales") else "right"
        )
    for matrix in report.matrices:
        table.add_row(
            _ROLES.get(matrix.role, matrix.role),
            f"{matrix.rows} x {matrix.cols}",
            matrix.stored,
            matrix.scales,
            f"{matrix.scale_low:.4g}" if matrix.scales else "",
            f"{matrix.scale_high:.4g}" if matrix.scales else "",
            f"{matrix.zeros:.1%}" if matrix.zeros is not None else "",
        )
    return table


def _types(report: Report) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stored as")
    table.add_column("tensors", justify="right")
    table.add_column("size", justify="right")
    for kind, count, total in report.look.types[:12]:
        table.add_row(escape(kind), str(count), size(total))
    return table
