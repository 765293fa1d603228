"""The order of products, which like that of joins changes the work and not the value; and what can be done after a sum
of products instead of before it."""

from __future__ import annotations

import math

from ...planner.node import Node
from ...planner.ops import Contract, Multiply, Reshape, contract
from ...planner.ops.contract import ROW
from ...types import UNIT
from ..frequency import is_learned
from ..rule import rule
from .algebra import number_and_rest
from .letters import LETTERS, reshaped, without_ones

LOGISTIC = (
    "CREATE MODEL m INPUT (x FLOAT[2]) TARGET (y BOOLEAN) AS SELECT LINEAR(x, 1) AS z "
    "MINIMIZE AVG(BINARY_CROSS_ENTROPY(z, y))"
)


@rule(
    Contract,
    stage="explore",
    law="(A B) C = A (B C)",
    before="contract(contract(A, B), C)",
    after="contract(A, contract(B, C))",
    when="C shares an axis with B that is summed",
    why="the order decides how large the intermediate result is, and what of it never changes",
    databases="join order",
    learning="matmul chain order",
    example="CREATE MODEL m INPUT (x FLOAT[8]) PARAMETERS (a FLOAT[2][8], b FLOAT[8][2]) "
    "AS SELECT MATMUL(MATMUL(x, a), b) AS z MINIMIZE AVG(SUM_OF(z * z))",
)
def order_of_products(node: Node) -> Node | None:
    assert isinstance(node, Contract)
    for position, inner in enumerate(node.inputs):
        if isinstance(inner, Contract):
            other = node.inputs[1 - position]
            letters = named_as(inner, node, position)
            for first, second in ((1, 0), (0, 1)):
                new = reassociated(node, position, inner.inputs[first], inner.inputs[second], letters, first, other)
                if new is not None:
                    return new
    return None


def named_as(inner: Contract, outer: Contract, position: int) -> tuple[str, str]:
    """The letters of the inner product's operands, named as in the outer one; those summed inside get new names."""
    a, b, out = inner.letters()
    names = dict(zip(out, outer.letters()[position], strict=True))
    free = (c for c in LETTERS if c not in outer.spec)
    for letter in a + b:
        if letter not in names:
            names[letter] = letter if letter == ROW else next(free)
    return "".join(names[c] for c in a), "".join(names[c] for c in b)


def reassociated(
    node: Contract, position: int, near: Node, far: Node, letters: tuple[str, str], first: int, other: Node
) -> Node | None:
    """``far`` times (``near`` times ``other``), if near and other share an axis that nothing else needs."""
    here, there = letters[first], letters[1 - first]
    beside, out = node.letters()[1 - position], node.letters()[2]
    summed = [c for c in here if c in beside and c not in there + out]
    if not summed or (ROW in summed and not is_learned(near, other)):
        return None  # fixed rows have moments
    kept = "".join(c for c in dict.fromkeys(here + beside) if c in there + out)
    if ROW in kept and not kept.startswith(ROW):
        kept = ROW + kept.replace(ROW, "")
    if ROW in out and ROW not in there + kept:
        return None
    product = contract(f"{here},{beside}->{kept}", near, other)
    if (product.type.rows != UNIT) != (ROW in kept):
        return None
    new = contract(f"{there},{kept}->{out}", far, product)
    return new if new.type == node.type else None


@rule(
    Contract,
    stage="explore",
    law="axes of size 1 may be named or not",
    before="contract(X, reshape(g)) over rows",
    after="reshape(contract(X, g))",
    when="the reshape adds or drops axes of size 1",
    why="the contraction reads what is reshaped, and other laws see it",
    databases="none: a projection that changes no value",
    learning="squeeze",
    example=LOGISTIC,
)
def contract_of_reshape(node: Node) -> Node | None:
    assert isinstance(node, Contract)
    if node.type.rows != UNIT or ROW not in node.spec:
        return None
    a, b, out = node.letters()
    match node.x, node.y:
        case Reshape(x, target), y if (named := without_ones(a, b, out, x, target)) is not None:
            return reshaped(contract(f"{named[0]},{b}->{named[1]}", x, y), node)
        case x, Reshape(y, target) if (named := without_ones(b, a, out, y, target)) is not None:
            return reshaped(contract(f"{a},{named[0]}->{named[1]}", x, y), node)
    return None


@rule(
    Contract,
    stage="explore",
    law="⟨x, c * a⟩ = c * ⟨x, a⟩ for one number c",
    before="contract(X, c * g) over rows",
    after="c * contract(X, g)",
    when="c is the same for all rows, and the result is smaller than g",
    why="the product is with the sum instead of with every row",
    databases="constants move out of aggregates",
    learning="scaling the gradient, not the activations",
    example=LOGISTIC,
)
def contract_of_multiple(node: Node) -> Node | None:
    assert isinstance(node, Contract)
    if node.type.rows != UNIT or ROW not in node.spec:
        return None
    for position, operand in enumerate(node.inputs):
        c, x = number_and_rest(operand)
        if c is None or x.type != operand.type or operand.type.rows == UNIT:
            continue
        whole = node.with_inputs(x if i == position else n for i, n in enumerate(node.inputs))
        if whole.type == node.type and (node.type.size or 1) < (x.type.rows.rows or math.inf):
            return Multiply(Reshape(c, ()) if c.type.shape else c, whole)
    return None
