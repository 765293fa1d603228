"""Take, pick and their gradients."""

from __future__ import annotations

from ...planner.node import Node, walk
from ...planner.ops import (
    Add,
    Cast,
    Concat,
    Constant,
    Counter,
    Index,
    Negate,
    Parameter,
    Place,
    Reshape,
    State,
    Subtract,
    Take,
)
from ...types import UNIT
from ..rule import rule
from .algebra import MAPS

CROSS_ENTROPY = (
    "CREATE MODEL m INPUT (x FLOAT[3]) TARGET (k INTEGER) AS SELECT LINEAR(x, 4) AS z MINIMIZE AVG(CROSS_ENTROPY(z, k))"
)


@rule(
    Add,
    Subtract,
    law="x + place(g, k) changes x at k alone",
    before="x - place(g, k)",
    after="x with g taken off at k",
    why="one number a row is touched instead of a row of zeros being filled and added",
    example=CROSS_ENTROPY,
)
def place_into(node: Node) -> Node | None:
    match node:
        case Add(x, Place(g, k, size, None) as placed) | Add(Place(g, k, size, None) as placed, x):
            added = g
        case Subtract(x, Place(g, k, size, None) as placed):
            added = Negate(g)
        case _:
            return None
    return Place(added, k, size, x) if x.type == placed.type else None


@rule(
    *MAPS,
    Cast,
    Reshape,
    Concat,
    law="f(take(x, i)) = take(f(x), i) for an f of one row",
    before="f(take(x, i), take(y, i))",
    after="take(f(x, y), i)",
    when="no parameter reaches x and y, and f makes a row no larger",
    why="f runs once over the table instead of in every epoch, and a batch is one gather: columns joined into a "
    "vector become one matrix",
    example="CREATE MODEL m INPUT (x FLOAT, y FLOAT) PARAMETERS (w FLOAT[2]) AS SELECT DOT([x / 10, y], w) AS z "
    "MINIMIZE AVG(z * z)",
)
def take_last(node: Node) -> Node | None:
    taken = [n for n in node.inputs if isinstance(n, Take) and n.x.type.rows != UNIT]
    others = [n for n in node.inputs if not isinstance(n, Take)]
    if not taken or any(t.index is not taken[0].index for t in taken):
        return None
    if not all(isinstance(n, Constant) for n in others) or len(taken) + len(others) != len(node.inputs):
        return None
    if any(isinstance(n, (Parameter, State, Counter, Index)) for n in walk(t.x for t in taken)):
        return None
    if node.nbytes > sum(t.nbytes for t in taken) and not isinstance(node, Cast):
        return None
    return Take(node.with_inputs(n.x if isinstance(n, Take) else n for n in node.inputs), taken[0].index)
