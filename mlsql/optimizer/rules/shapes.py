"""Views of views, and transposes that a contraction can read as they are."""

from __future__ import annotations

from ...planner.node import Node
from ...planner.ops import Concat, Contract, Reshape, Slice, Transpose
from ...planner.ops.contract import ROW
from ...types import UNIT
from ..rule import rule


@rule(
    Reshape,
    law="reshape(reshape(x)) = reshape(x)",
    before="reshape(reshape(x))",
    after="reshape(x), or x itself",
    why="one view less to follow",
    example="CREATE MODEL m INPUT (x FLOAT[4]) PARAMETERS (w FLOAT[4]) "
    "AS SELECT SUM_OF(RESHAPE(RESHAPE(x, 2, 2), 4) * w) AS y MINIMIZE AVG(y)",
)
def reshape_once(node: Node) -> Node | None:
    match node:
        case Reshape(x, target) if x.type.shape == target:
            return x
        case Reshape(Reshape(x, _), target):
            return Reshape(x, target)
    return None


@rule(
    Transpose,
    law="(Aᵀ)ᵀ = A",
    before="transpose(transpose(x))",
    after="x",
    why="one view less to follow",
    example="CREATE MODEL m INPUT (x FLOAT[2][2]) PARAMETERS (w FLOAT[2][2]) "
    "AS SELECT SUM_OF(TRANSPOSE(TRANSPOSE(x)) * w) AS y MINIMIZE AVG(y)",
)
def transpose_once(node: Node) -> Node | None:
    match node:
        case Transpose(x, order) if order == tuple(range(len(order))):
            return x
        case Transpose(Transpose(x, inner), order):
            return Transpose(x, tuple(inner[i] for i in order))
    return None


@rule(
    Slice,
    law="a slice of a concatenation is a slice of a part",
    before="slice(concat(x, y))",
    after="x",
    when="the slice lies inside one part, or is the whole",
    why="the rest of the concatenation need not be there",
    example="CREATE MODEL m INPUT (x FLOAT[2], y FLOAT[2]) PARAMETERS (w FLOAT[2]) "
    "AS SELECT SUM_OF(CONCAT(x, y)[1:2] * w) AS z MINIMIZE AVG(z)",
)
def slice_of_concat(node: Node) -> Node | None:
    match node:
        case Slice(x, axis, 0, stop) if x.type.shape[axis] == stop:
            return x
        case Slice(Concat(parts, along) as whole, axis, start, stop) if along == axis:
            for part, (first, last) in zip(parts, whole.offsets(), strict=True):
                same = (part.type.rows, part.type.element) == (whole.type.rows, whole.type.element)
                if first <= start and stop <= last and same:
                    return Slice(part, axis, start - first, stop - first)
    return None


@rule(
    Contract,
    law="AᵀB reads A by its other index",
    before="contract(transpose(x), y)",
    after="contract(x, y) with x's indexes named in another order",
    why="BLAS reads a matrix either way; nothing is transposed in memory",
    example="CREATE MODEL m INPUT (x FLOAT[3]) PARAMETERS (w FLOAT[3][2]) "
    "AS SELECT MATMUL(x, TRANSPOSE(w)) AS y MINIMIZE AVG(SUM_OF(y * y))",
)
def contract_transposed(node: Node) -> Node | None:
    assert isinstance(node, Contract)
    a, b, out = node.letters()
    x, y = node.x, node.y
    if isinstance(x, Transpose):
        a, x = _before(a, x), x.x
    elif isinstance(y, Transpose):
        b, y = _before(b, y), y.x
    else:
        return None
    return Contract(f"{a},{b}->{out}", x, y)


def _before(letters: str, transposed: Transpose) -> str:
    """The letters of a transpose's input, given those of its output."""
    lead = "" if transposed.type.rows == UNIT else ROW
    entry = letters.removeprefix(lead)
    return lead + "".join(entry[transposed.order.index(i)] for i in range(len(entry)))
