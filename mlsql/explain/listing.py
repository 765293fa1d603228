"""A plan as a listing in the order of execution: one line an operator, with rows, type, work and memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..planner.node import Node
from ..types import UNIT, shape_text
from .formula import TIGHTEST, applied, leaf_text

Section = tuple[str, Sequence[Node]]


def listing(sections: Iterable[Section], names: Mapping[Node, str]) -> list[str]:
    """Lines of text. Every operator has a name, by which the lines after it refer to it."""
    labels: dict[Node, str] = {}
    table: list[tuple[str, ...]] = [("", "rows", "type", "flops", "bytes")]
    for title, nodes in sections:
        lines = [line for node in nodes if (line := _line(node, names, labels)) is not None]
        if lines:
            table += [(title, "", "", "", ""), *lines]
    return _aligned(table)


def _line(node: Node, names: Mapping[Node, str], labels: dict[Node, str]) -> tuple[str, ...] | None:
    """The cells of one operator; a constant has no line, it stands where it is read."""
    leaf = leaf_text(node)
    if leaf is not None:
        labels[node] = leaf
        is_data = node.kind in ("scan", "parameter", "state")
        return ("  " + f"{node.kind} {leaf}", *_size(node)) if is_data else None
    if node.is_view and node not in names:
        labels[node] = labels[node.inputs[0]]  # the same numbers: no line of its own
        return None
    text, _ = applied(node, [(labels[n], TIGHTEST) for n in node.inputs])
    label = labels[node] = _fresh(names.get(node, node.operator_name()), labels)
    return (f"  {label} = {text}", *_size(node))


def _fresh(name: str, labels: Mapping[Node, str]) -> str:
    taken = set(labels.values())
    label, count = name, 2
    while label in taken:
        label, count = f"{name}_{count}", count + 1
    return label


def _size(node: Node) -> tuple[str, str, str, str]:
    """Rows, type, floating-point operations and bytes of an operator."""
    rows = "" if node.type.rows == UNIT else number(node.type.rows.rows) if node.type.rows.rows else "?"
    flops = node.flops()
    return (
        rows,
        f"{node.type.element}{shape_text(node.type.shape)}",
        number(flops) if flops else "",
        number(node.bytes()),
    )


def number(value: int | None) -> str:
    """A count for people: 1437, 24.6k, 1.2M."""
    if value is None:
        return "?"
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= limit:
            scale = 1e3 if unit == "k" else limit
            return f"{value / scale:.3g}{unit}"
    return str(value)


def _aligned(table: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns one under another, numbers to the right."""
    widths = [max(len(row[i]) for row in table) for i in range(5)]
    right = (1, 3, 4)
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
