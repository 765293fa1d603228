"""Views of views, and transposes that a contraction can read as they are."""

from __future__ import annotations

from ...planner.node import Node
from ...planner.ops import Add, Concat, Contract, Pad, Reshape, Slice, Transpose, int_size
from ...planner.ops.contract import ROW
from ...types import UNIT
from ..rule import rule


@rule(
    Reshape,
    law="reshape(reshape(x)) = reshape(x)",
    before="reshape(reshape(x))",
    after="reshape(x), or x itself",
    why="one view less to follow",
    databases="redundant operator removal",
    learning="reshape merging",
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
    databases="redundant operator removal",
    learning="transpose elimination",
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
    databases="projection pushdown",
    learning="slice of concat elimination",
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
    Add,
    Pad,
    law="pads that lie side by side are one pad of the parts end to end",
    before="pad(x) + pad(y)",
    after="concat(x, y)",
    when="y starts where x ends",
    why="the gradient of slices is put together from its parts: no zeros are written and added",
    databases="reassembly of vertical partitions",
    learning="pad fusion: the gradient of slices as one concat",
    example="CREATE MODEL m INPUT (x FLOAT, y FLOAT[2]) PARAMETERS (w FLOAT[3]) "
    "AS SELECT x * w[1] + DOT(y, w[2:3]) AS z MINIMIZE AVG(z * z)",
)
def pads_side_by_side(node: Node) -> Node | None:
    match node:
        case Pad(x, axis, 0, size) if x.type.shape[axis] == size:
            return x
        case Add(Pad() as p, Pad() as q):
            return joined_pads(p, q)
        case (
            Add(Add(x, Pad() as p), Pad() as q)
            | Add(Pad() as q, Add(x, Pad() as p))
            | Add(Add(Pad() as p, x), Pad() as q)
            | Add(Pad() as q, Add(Pad() as p, x))
        ):
            both = joined_pads(p, q)
            return both and Add(x, both)
    return None


def joined_pads(p: Pad, q: Pad) -> Node | None:
    """Two pads as one, if one of them starts where the other ends."""
    if p.start > q.start:
        p, q = q, p
    if p.type != q.type or p.axis != q.axis or p.start + int_size(p.x, p.axis) != q.start:
        return None
    return Pad(Concat((p.x, q.x), p.axis), p.axis, p.start, p.size)


@rule(
    Concat,
    law="concat(concat(x, y), z) = concat(x, y, z)",
    before="concat(concat(x, y), z)",
    after="concat(x, y, z)",
    when="they are no columns and lie along their first axis; a matrix written out flat is its rows end to end",
    why="every part is computed where the whole wants it: the gradient of a weight comes in parts and is never copied",
    databases="flattening of nested UNION ALL",
    learning="concat flattening: flat gradient buffer",
    example="CREATE MODEL m INPUT (x FLOAT[3]) PARAMETERS (u FLOAT[1], v FLOAT[1]) "
    "AS SELECT DOT(x, CONCAT(CONCAT(u, v), u)) AS z MINIMIZE AVG(z)",
)
def concat_once(node: Node) -> Node | None:
    assert isinstance(node, Concat)
    if node.type.rows != UNIT or node.axis != 0:
        return None
    parts = tuple(p for part in node.parts for p in parts_of(part))
    new = Concat(parts, 0)
    return new if parts != node.parts and new.type == node.type else None


def parts_of(part: Node) -> tuple[Node, ...]:
    """What stands end to end in a part of a concatenation."""
    match part:
        case Concat(parts, 0):
            inner = parts
        case Reshape(Concat(parts, 0), (_,)):
            inner = tuple(Reshape(p, (p.type.entry_size,)) for p in parts if p.type.entry_size is not None)
        case _:
            return (part,)
    whole = Concat(inner, 0).type if inner else None
    return inner if whole == part.type and all(p.type.element == part.type.element for p in inner) else (part,)


@rule(
    Contract,
    law="AᵀB reads A by its other index",
    before="contract(transpose(x), y)",
    after="contract(x, y) with x's indexes named in another order",
    why="BLAS reads a matrix either way; nothing is transposed in memory",
    databases="interesting orders: no sort before an operator that reads either order",
    learning="transpose folding into GEMM flags",
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
