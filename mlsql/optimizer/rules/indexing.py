"""Take, pick and their gradients."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

from ...planner.node import Node
from ...planner.ops import (
    Add,
    Cast,
    Concat,
    Constant,
    Contract,
    Negate,
    Place,
    Reshape,
    Slice,
    Subtract,
    Take,
    Transpose,
    broadcast,
    int_size,
)
from ...planner.ops.contract import ROW
from ...types import UNIT
from ..frequency import is_learned
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
    databases="in-place update",
    learning="scatter update; softmax minus one-hot",
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
    stage="hoist",
    law="f(take(x, i)) = take(f(x), i) for an f of one row",
    before="f(take(x, i), take(y, i))",
    after="take(f(x, y), i)",
    when="no parameter reaches x and y, and f makes a row no larger",
    why="f runs once over the table instead of in every epoch, and a batch is one gather: columns joined into a "
    "vector become one matrix",
    databases="late materialization; projection below a join, kept as a materialized view",
    learning="preprocessing once per data set in place of once per batch",
    example="CREATE MODEL m INPUT (x FLOAT, y FLOAT) PARAMETERS (w FLOAT[2]) AS SELECT DOT([x / 10, y], w) AS z "
    "MINIMIZE AVG(z * z)",
)
def take_last(node: Node) -> Node | None:
    taken = [n for n in node.inputs if isinstance(n, Take) and n.x.type.rows != UNIT]
    others = [n for n in node.inputs if n not in taken]  # rows of a table of parameters among them
    if not taken or any(t.index is not taken[0].index for t in taken):
        return None
    if any(n.inputs or n.type.rows != UNIT for n in others) or is_learned(*others, *(t.x for t in taken)):
        return None
    if node.nbytes > sum(t.nbytes for t in taken) and not isinstance(node, Cast):
        return None
    return Take(node.with_inputs(n.x if isinstance(n, Take) else n for n in node.inputs), taken[0].index)


def operands(node: Contract) -> list[tuple[str, Node, str, Node]]:
    """The letters and the node of one operand and of the other, both ways round."""
    a, b, _ = node.letters()
    return [(a, node.x, b, node.y), (b, node.y, a, node.x)]


def is_one_hot(node: Node) -> bool:
    """Whether each row is zeros with one known number among them."""
    return isinstance(node, Place) and isinstance(node.x, Constant) and node.base is None and node.type.rows != UNIT


@rule(
    Contract,
    law="contract(onehot(k), W) = take(W, k)",
    before="contract(onehot(k), W)",
    after="take(W, k)",
    when="W has no rows of its own",
    why="a product with a vector that is 1 in one place is a look-up: neither the vector nor the product is computed, "
    "and the gradient touches the rows that were looked up",
    databases="join in place of a wide column",
    learning="embedding lookup",
    example="CREATE MODEL m INPUT (k INTEGER) AS SELECT LINEAR(ONE_HOT(k, 4), 3) AS z MINIMIZE AVG(SUM_OF(z * z))",
)
def one_hot_is_take(node: Node) -> Node | None:
    assert isinstance(node, Contract)
    for a, x, b, w in operands(node):
        rest = b.replace(a[1:], "")
        if not is_one_hot(x) or w.type.rows != UNIT or a[1:] not in b or node.letters()[2] != a[0] + rest:
            continue
        assert isinstance(x, Place) and isinstance(x.x, Constant)
        first = b.index(a[1:])
        order = (first, *(i for i in range(len(b)) if i != first))
        new = Take(w if not first else Transpose(w, order), x.index)
        return new if x.x.value == 1 and new.type == node.type else None
    return None


@rule(
    Contract,
    law="contract(concat(x, y), W) = contract(x, W above) + contract(y, W below)",
    before="contract(concat(x, onehot(k)), W)",
    after="contract(x, W[:n]) + contract(onehot(k), W[n:])",
    when="a part is a one-hot vector",
    why="the one-hot part becomes a look-up; the dense parts beside each other stay one matrix",
    databases="factorised join: a sum of products split by its columns",
    learning="a layer over a concatenation as a sum of layers; wide and embedding parts apart",
    example="CREATE MODEL m INPUT (x FLOAT[2], k INTEGER) AS SELECT LINEAR(CONCAT(x, ONE_HOT(k, 4)), 3) AS z "
    "MINIMIZE AVG(SUM_OF(z * z))",
)
def split_at_one_hot(node: Node) -> Node | None:
    assert isinstance(node, Contract)
    return split_product(node, is_one_hot)


def split_product(node: Contract, is_apart: Callable[[Node], bool]) -> Node | None:
    """A product with a concatenation as a sum of products with its parts, if some part is to stand apart."""
    out = node.letters()[2]
    for a, x, b, w in operands(node):
        if not (isinstance(x, Concat) and any(is_apart(p) for p in x.parts)):
            continue
        letter = a.removeprefix(ROW)[x.axis]
        if letter in out or letter not in b or not isinstance(x.type.shape[x.axis], int):
            continue
        axis = b.removeprefix(ROW).index(letter)
        spec, start, terms = f"{a},{b}->{out}", 0, list[Node]()
        for part in apart(x, is_apart):
            stop = start + int_size(part, x.axis)
            terms.append(Contract(spec, part, Slice(w, axis, start, stop)))
            start = stop
        new = functools.reduce(Add, terms)
        return new if new.type == node.type else None
    return None


def apart(whole: Concat, is_apart: Callable[[Node], bool]) -> list[Node]:
    """The parts of a concatenation; those side by side that need not stand apart in one."""
    found: list[Node] = []
    parts = [broadcast(p, p.type.with_(rows=whole.type.rows)) for p in whole.parts]
    for alone, group in itertools.groupby(parts, is_apart):
        together = tuple(group)
        found += together if alone or len(together) == 1 else (Concat(together, whole.axis),)
    return found
