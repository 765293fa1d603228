"""Sums over all rows of what is linear in the parameters: the rows go, their moments stay.

A loss of squares and its gradient read the rows at every step, but only through sums of products of columns, such as
XᵀX and Xᵀy. These are computed once. Each law here is a line of linear algebra; that together they turn descent over a
million rows into descent over a matrix is for the search to find out, and that it pays is for the costs to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ...planner.node import Node
from ...planner.ops import (
    Add,
    Contract,
    Count,
    Divide,
    Moment,
    Multiply,
    Negate,
    Reshape,
    Subtract,
    Sum,
    broadcast,
    cast,
    contract,
    one,
)
from ...planner.ops.contract import ROW
from ...record import record
from ...types import DOUBLE, UNIT
from ..frequency import is_learned
from ..rule import rule
from .algebra import is_single, number_and_rest
from .letters import LETTERS, renamed, reshaped, with_rows, without_ones

LEAST_SQUARES = (
    "CREATE MODEL m INPUT (x FLOAT[3]) TARGET (y FLOAT) AS SELECT LINEAR(x, 1) AS z "
    "MINIMIZE AVG((z - y) ** 2) + 0.1 * L2(z.weight)"
)


def is_affine(node: Node) -> bool:
    """Whether a value a row is a sum of fixed columns, each times something that all rows share."""
    if node.type.rows == UNIT or not is_learned(node):
        return True
    match node:
        case Add(x, y) | Subtract(x, y):
            return is_affine(x) and is_affine(y)
        case Negate(x) | Reshape(x):
            return is_affine(x)
        case Multiply(x, y):
            return (is_single(x) and is_affine(y)) or (is_single(y) and is_affine(x))
        case Divide(x, y):
            return is_single(y) and is_affine(x)
        case Contract(_, x, y):
            return is_product(x, y) or is_product(y, x)
    return False


def is_product(x: Node, w: Node) -> bool:
    """Whether fixed rows meet something that all rows share."""
    return x.type.rows != UNIT and not is_learned(x) and w.type.rows == UNIT


def has_product(node: Node) -> bool:
    """Whether there is a product with the rows in an affine value: without one there is nothing to save."""
    match node:
        case Contract():
            return True
        case Add(x, y) | Subtract(x, y) | Multiply(x, y) | Divide(x, y):
            return any(n.type.rows != UNIT and is_learned(n) and has_product(n) for n in (x, y))
        case Negate(x) | Reshape(x):
            return has_product(x)
    return False


def is_linear_model(node: Node) -> bool:
    """Whether a value a row is affine in what is learned, through at least one product."""
    return node.type.rows != UNIT and is_learned(node) and is_affine(node) and has_product(node)


@rule(
    Contract,
    stage="explore",
    law="a sum over rows of a fixed column times an affine value is a sum of moments",
    before="contract(X, Xw - y) over rows",
    after="moment(X, Xw - y), which the laws of moments take apart",
    when="X is fixed, and the other operand is affine in what is learned",
    why="the rows are read once, for moments in 64 bits, instead of in every step",
    databases="pre-aggregation: sums of products of columns",
    learning="sufficient statistics of a linear model",
    example=LEAST_SQUARES,
)
def contract_is_moment(node: Node) -> Node | None:
    assert isinstance(node, Contract)
    a, b, out = node.letters()
    if ROW in out or ROW not in a or ROW not in b:
        return None
    x, y = node.x, node.y
    if (is_linear_model(y) and not is_learned(x)) or (is_linear_model(x) and not is_learned(y)):
        return cast(Moment(node.spec, x, y), node.type.element)
    return None


@rule(
    Sum,
    stage="explore",
    law="SUM(a * b) = ⟨a, b⟩, SUM(a) = ⟨a, 1⟩",
    before="sum((Xw - y) * (Xw - y)) over rows",
    after="moment(Xw - y, Xw - y)",
    when="what is summed is a product of affine values, or an affine value",
    why="the loss of least squares needs no rows either, once their moments are known",
    databases="aggregate rewriting: SUM(a * b) as an aggregate of its own",
    learning="sum of squares as an inner product",
    example=LEAST_SQUARES,
)
def sum_is_moment(node: Node) -> Node | None:
    assert isinstance(node, Sum)
    if not node.rows or node.x.type.rows == UNIT or not is_learned(node.x):
        return None
    entry = LETTERS[: node.x.type.rank]
    kept = "".join(c for i, c in enumerate(entry) if i not in node.axes)
    match node.x:
        case Multiply(p, q) if p.type == q.type == node.x.type and is_affine(p) and is_affine(q):
            if not (is_linear_model(p) or is_linear_model(q)):
                return None
            total: Node = Moment(f"r{entry},r{entry}->{kept}", p, q)
        case x if is_linear_model(x):
            total = Moment(f"r{entry},->{kept}", x, one())
        case _:
            return None
    return cast(reshaped(total, node), node.type.element)


# -- the laws of moments -----------------------------------------------------------------------------------------------


@record
class Side:
    """One operand of a moment seen from the other: their letters, and the moment with this operand replaced."""

    letters: str
    node: Node
    other_letters: str
    other: Node
    out: str
    build: Callable[[str, Node, str], Node]  # of letters, operand, output


def sides(node: Moment) -> Iterator[Side]:
    """Both operands that a parameter reaches: only these are worth being taken apart."""
    a, b, out = node.letters()
    x, y = node.x, node.y
    if x.type.rows != UNIT and is_learned(x):
        yield Side(a, x, b, y, out, lambda letters, new, out: moment(letters, new, b, y, out))
    if y.type.rows != UNIT and is_learned(y):
        yield Side(b, y, a, x, out, lambda letters, new, out: moment(a, x, letters, new, out))


def moment(a: str, x: Node, b: str, y: Node, out: str) -> Node:
    """A moment of two operands. One without rows goes with the sum of the other's; without any it is their product."""
    a, b = with_rows(a, x), with_rows(b, y)
    if ROW in a and ROW in b:
        if len(a) < len(b):  # so that ⟨y, X⟩ is no other moment than ⟨X, y⟩
            a, x, b, y = b, y, a, x
        return Moment(renamed(f"{a},{b}->{out}"), x, y)
    if ROW in a + b and one() not in (x, y):
        letters, rows = (a, x) if ROW in a else (b, y)
        inner = letters.removeprefix(ROW)
        total = Moment(renamed(f"{letters},->{inner}"), rows, one())
        return moment(inner, total, b, y, out) if ROW in a else moment(a, x, inner, total, out)
    if ROW in a + b:
        return Moment(renamed(f"{a},{b}->{out}"), x, y)
    return contract(renamed(f"{a},{b}->{out}"), cast(x, DOUBLE), cast(y, DOUBLE))


@rule(
    Moment,
    stage="explore",
    law="⟨x, a ± b⟩ = ⟨x, a⟩ ± ⟨x, b⟩",
    before="moment(X, Xw - y)",
    after="moment(X, Xw) - moment(X, y)",
    when="a parameter reaches a or b",
    why="alone it costs more; the moment of what is fixed is computed once, and the other one can go on to a product",
    databases="aggregates distribute over sums",
    learning="linearity of the inner product; half of the normal equations",
    example=LEAST_SQUARES,
)
def moment_of_sum(node: Node) -> Node | None:
    assert isinstance(node, Moment)
    for side in sides(node):
        match side.node:
            case Add(x, y) | Subtract(x, y):
                parts = [fitted(n, side.node) for n in (x, y)]
                if None in parts:
                    continue
                terms = [side.build(side.letters, p, side.out) for p in parts if p is not None]
                terms = [counted(t, n, side) for t, n in zip(terms, (x, y), strict=True)]
                return type(side.node)(*terms)
    return None


def counted(term: Node, part: Node, side: Side) -> Node:
    """A sum over rows in which neither operand has any: every row adds the same."""
    rows = part.type.rows == UNIT and side.other.type.rows == UNIT
    return Multiply(term, cast(Count(side.node.type.rows), DOUBLE)) if rows else term


def fitted(part: Node, whole: Node) -> Node | None:
    """A term in the shape of the sum; None where rows would have to be stretched."""
    if part.type.shape == whole.type.shape:
        return part
    return broadcast(part, part.type.with_(shape=whole.type.shape)) if part.type.rows == UNIT else None


@rule(
    Moment,
    stage="explore",
    law="⟨x, c * a⟩ = c * ⟨x, a⟩ for one number c",
    before="moment(X, 2 * (Xw - y))",
    after="2 * moment(X, Xw - y)",
    when="c is the same for all rows",
    why="the product is with the sum instead of with every row",
    databases="constants move out of aggregates",
    learning="scaling after the reduction",
    example=LEAST_SQUARES,
)
def moment_of_multiple(node: Node) -> Node | None:
    assert isinstance(node, Moment)
    for side in sides(node):
        c, x = number_and_rest(side.node)
        if c is not None and x.type.shape == side.node.type.shape:
            return Multiply(number(c), side.build(side.letters, x, side.out))
        match side.node:
            case Divide(x, c) if is_single(c) and x.type.shape == side.node.type.shape:
                return Divide(side.build(side.letters, x, side.out), number(c))
            case Negate(x):
                return Negate(side.build(side.letters, x, side.out))
    return None


def number(node: Node) -> Node:
    """A single number without axes, in 64 bits."""
    return cast(Reshape(node, ()) if node.type.shape else node, DOUBLE)


@rule(
    Moment,
    stage="explore",
    law="axes of size 1 may be named or not",
    before="moment(X, reshape(Xw))",
    after="moment(X, Xw)",
    when="the reshape adds or drops axes of size 1",
    why="the moment reads the product itself, to which it can be associated",
    databases="none: a projection that changes no value",
    learning="squeeze",
    example=LEAST_SQUARES,
)
def moment_of_reshape(node: Node) -> Node | None:
    assert isinstance(node, Moment)
    for side in sides(node):
        match side.node:
            case Reshape(x, target):
                named = without_ones(side.letters, side.other_letters, side.out, x, target)
                if named is not None:
                    return reshaped(side.build(named[0], x, named[1]), node)
    return None


@rule(
    Moment,
    stage="explore",
    law="⟨x, y W⟩ = ⟨x, y⟩ W",
    before="moment(X, Xw)",
    after="moment(X, X) w",
    when="the rows of y are fixed and W is the same for all of them",
    why="XᵀX is computed once; each step multiplies a small matrix instead of all rows",
    databases="materialized view: the aggregate is kept, the rows are not",
    learning="Gram matrix: Xᵀ(Xw) = (XᵀX)w",
    example=LEAST_SQUARES,
)
def moment_of_product(node: Node) -> Node | None:
    assert isinstance(node, Moment)
    for side in sides(node):
        match side.node:
            case Contract(_, x, y) if is_product(x, y) or is_product(y, x):
                return associated(side, side.node)
    return None


def associated(side: Side, product: Contract) -> Node:
    """The moment with the fixed rows of a product, times what all rows share."""
    renaming = rename_to(product, side)
    (c, d, _), (rows, shared) = product.letters(), (product.x, product.y)
    if rows.type.rows == UNIT:
        c, d, rows, shared = d, c, shared, rows
    c, d = (letters.translate(renaming) for letters in (c, d))
    entries = dict.fromkeys(side.other_letters.removeprefix(ROW) + c.removeprefix(ROW))
    inner = "".join(letter for letter in entries if letter in d or letter in side.out)
    return contract(f"{inner},{d}->{side.out}", side.build(c, rows, inner), cast(shared, DOUBLE))


def rename_to(product: Contract, side: Side) -> dict[int, str]:
    """What a product's letters are called in the moment: those of its output as there, the others by new names."""
    a, b, out = product.letters()
    names = dict(zip(out, side.letters, strict=True))
    free = (c for c in LETTERS if c not in side.letters + side.other_letters + side.out)
    for letter in a + b:
        if letter not in names:
            names[letter] = next(free)
    return {ord(k): v for k, v in names.items()}
