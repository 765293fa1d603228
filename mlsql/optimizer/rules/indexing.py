"""Take, pick and their gradients."""

from __future__ import annotations

from ...planner.node import Node
from ...planner.ops import Add, Concat, Negate, Place, Reshape, Subtract, Take
from ...types import UNIT
from ..rule import rule

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
        case Add(x, Place(g, k, size, None)) | Add(Place(g, k, size, None), x):
            new = Place(g, k, size, x)
        case Subtract(x, Place(g, k, size, None)):
            new = Place(Negate(g), k, size, x)
        case _:
            return None
    return new if x.type == node.type else None


@rule(
    Concat,
    law="concat(take(x, i), take(y, i)) = take(concat(x, y), i)",
    before="concat(take(x, i), take(y, i))",
    after="take(concat(x, y), i)",
    when="all parts are taken by one index from one row set",
    why="the columns become one matrix once, and a batch is a single gather of its rows",
    example="CREATE MODEL m INPUT (x FLOAT, y FLOAT) PARAMETERS (w FLOAT[2]) AS SELECT DOT([x, y], w) AS z "
    "MINIMIZE AVG(z * z)",
)
def take_once(node: Node) -> Node | None:
    assert isinstance(node, Concat)
    taken = [p.x if isinstance(p, Reshape) else p for p in node.parts]
    if not all(isinstance(t, Take) and t.x.type.rows != UNIT for t in taken):
        return None
    first = taken[0]
    assert isinstance(first, Take)
    if any(t.index is not first.index for t in taken if isinstance(t, Take)):
        return None
    sources = tuple(
        Reshape(t.x, p.target) if isinstance(p, Reshape) else t.x
        for t, p in zip(taken, node.parts, strict=True)
        if isinstance(t, Take)
    )
    return Take(Concat(sources, node.axis), first.index)
