"""What the training loop need not compute again: data that no parameter reaches is computed once, before the loop."""

from __future__ import annotations

from collections.abc import Sequence

from ..planner.node import Node, depends_on, substitute, walk
from ..planner.ops import Column, Count, Counter, Index, Positions, State


def hoist(outputs: Sequence[Node]) -> tuple[list[Node], dict[Column, Node]]:
    """The outputs with their constant parts as columns, and the plan of each such column."""
    moving = [n for n in walk(outputs) if isinstance(n, (Index, Counter, State))]
    in_loop = depends_on(outputs, moving)
    data = depends_on(outputs, [n for n in walk(outputs) if isinstance(n, (Column, Positions))])
    hoisted: dict[Node, Column] = {}
    for node in walk(outputs):
        for n in node.inputs if node in in_loop else ():
            fixed = n in data and n not in in_loop and n not in hoisted
            if fixed and not isinstance(n, (Column, Positions, Count)):
                # no name that a column of the table could have: a leaf is known by name, rows and type
                hoisted[n] = Column(f"\0fixed_{len(hoisted) + 1}", n.type.rows, n.type.element, n.type.shape)
    return substitute(outputs, dict(hoisted)), {column: node for node, column in hoisted.items()}
