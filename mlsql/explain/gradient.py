"""EXPLAIN GRADIENT: the forward pass and the derivatives side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..planner.node import Node, walk
from ..planner.ops import Constant, Count
from ..record import record
from .formula import formula, leaf_text


@record
class GradientRow:
    """One node of the forward pass: what it is, the loss's derivative by it, and who reads it again."""

    name: str
    forward: str
    derivative: str
    gradient: str
    reused: str
    node: Node
    adjoint: Node


def gradient_rows(
    loss: Node, adjoints: Mapping[Node, Node], names: Mapping[Node, str], loss_name: str
) -> list[GradientRow]:
    """A row for every node between the parameters and the loss, in the order of the forward pass.

    ``adjoints`` are the simplified derivatives by node. A node is reused when the gradient of another reads it.
    """
    forward = [n for n in walk([loss]) if n in adjoints and not isinstance(n, (Constant, Count))]
    readers = reused_by(forward, adjoints)
    rows = []
    for node in forward:
        name = names.get(node) or leaf_text(node) or formula(node, names)
        rows.append(
            GradientRow(
                name,
                formula(node, names),
                f"d{loss_name}/d({name})" if " " in name else f"d{loss_name}/d{name}",
                formula(adjoints[node], names),
                ", ".join(dict.fromkeys(names.get(r) or leaf_text(r) or formula(r, names) for r in readers[node])),
                node,
                adjoints[node],
            )
        )
    return rows


def reused_by(forward: Sequence[Node], adjoints: Mapping[Node, Node]) -> dict[Node, list[Node]]:
    """For each forward node, the nodes whose derivative reads its value again.

    A derivative is made from those of the node's readers; what it only hands on from them is not counted.
    """
    again: dict[Node, list[Node]] = {n: [] for n in forward}
    for node in forward:
        handed_on = set(walk(adjoints[r] for r in forward if node in r.inputs))
        for n in walk([adjoints[node]]):
            if n in again and n.inputs and n not in handed_on:
                again[n].append(node)
    return again
