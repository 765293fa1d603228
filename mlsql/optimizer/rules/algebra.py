"""Arithmetic that is known, does nothing, or can be said more cheaply."""

from __future__ import annotations

from ...planner import ops, scalar
from ...planner.node import OPERATORS, Node
from ...planner.ops import (
    Add,
    Broadcast,
    Cast,
    Constant,
    Divide,
    Exp,
    Log,
    Map,
    Multiply,
    Negate,
    Power,
    Sqrt,
    Subtract,
    like,
)
from ...types import DOUBLE, FLOAT, INTEGER, UNIT
from ..rule import rule

MAPS = tuple(o for o in OPERATORS.values() if issubclass(o, Map) and o is not Cast)


@rule(
    *MAPS,
    law="an expression of constants is a constant",
    before="f(2, 3)",
    after="the number f(2, 3)",
    when="every operand is a known number and f is defined there",
    why="computed once while planning instead of at every step",
    databases="constant folding",
    learning="constant folding",
    example="CREATE MODEL m INPUT (x FLOAT) AS SELECT x * (2 + 3) AS y MINIMIZE AVG(y)",
)
def fold_constants(node: Node) -> Node | None:
    assert isinstance(node, Map)
    numbers = [n.value for n in node.inputs if isinstance(n, Constant)]
    if len(numbers) != len(node.inputs) or node.type.shape or any(v is None for v in numbers):
        return None
    try:
        arguments = {name: v for name, v in zip(node.names(), numbers, strict=True) if v is not None}
        value = scalar.evaluate(node.expression, arguments)
    except (ArithmeticError, ValueError):
        return None  # the run will give the infinity or NaN that the expression stands for
    return None if isinstance(value, complex) else ops.constant(value, node.type.element)


def is_number(node: Node, value: float) -> bool:
    """Whether the node is the scalar constant ``value``."""
    return isinstance(node, Constant) and node.value == value and not node.type.shape


@rule(
    Add,
    Subtract,
    Multiply,
    Divide,
    Power,
    law="the neutral element changes nothing",
    before="x * 1, x / 1, x + 0, x - 0, x ** 1",
    after="x",
    why="one pass over memory less",
    databases="expression simplification",
    learning="algebraic simplification; identity elimination",
    example="CREATE MODEL m INPUT (x FLOAT) AS SELECT x * 1 + 0 AS y MINIMIZE AVG(y)",
)
def drop_neutral(node: Node) -> Node | None:
    match node:
        case Multiply(x, y) | Divide(x, y) | Power(x, y) if is_number(y, 1):
            kept = x
        case Add(x, y) | Subtract(x, y) if is_number(y, 0):
            kept = x
        case Multiply(x, y) if is_number(x, 1):
            kept = y
        case Add(x, y) if is_number(x, 0):
            kept = y
        case Subtract(x, y) if is_number(x, 0):
            kept = Negate(y)
        case _:
            return None
    return kept if kept.type == node.type else None


@rule(
    Negate,
    Add,
    Subtract,
    Multiply,
    Divide,
    law="-(-x) = x, x + (-y) = x - y, (-x) * y = -(x * y)",
    before="x + (-y)",
    after="x - y",
    why="the negation costs nothing inside the subtraction; further out it meets another one and goes away",
    databases="expression canonicalization",
    learning="algebraic simplification",
    example="CREATE MODEL m INPUT (x FLOAT) PARAMETERS (w FLOAT) AS SELECT x - (-w) AS y MINIMIZE AVG(-(-y))",
)
def absorb_negation(node: Node) -> Node | None:
    match node:
        case Negate(Negate(x)):
            return x
        case Negate(Subtract(x, y)):
            return Subtract(y, x)
        case Add(x, Negate(y)):
            return Subtract(x, y)
        case Add(Negate(x), y):
            return Subtract(y, x)
        case Subtract(x, Negate(y)):
            return Add(x, y)
        case Multiply(Negate(x), Negate(y)) | Divide(Negate(x), Negate(y)):
            return type(node)(x, y)
        case Multiply(Negate(x), y) | Divide(Negate(x), y) if not isinstance(y, Constant):
            return Negate(type(node)(x, y))
        case Multiply(x, Negate(y)) | Divide(x, Negate(y)) if not isinstance(x, Constant):
            return Negate(type(node)(x, y))
        case Multiply(Negate(x), Constant() as c) | Multiply(Constant() as c, Negate(x)):
            return Multiply(x, Constant(tuple(-v for v in c.values), c.element, c.shape))
        case Divide(Negate(x), Constant() as c):
            return Divide(x, Constant(tuple(-v for v in c.values), c.element, c.shape))
    return None


@rule(
    Power,
    law="x ** 2 = x * x, x ** 0.5 = sqrt(x), x ** -1 = 1 / x",
    before="x ** 2",
    after="x * x",
    why="a product costs one operation, a general power about a hundred",
    databases="strength reduction",
    learning="strength reduction; square in place of pow",
    example="CREATE MODEL m INPUT (x FLOAT) PARAMETERS (w FLOAT) AS SELECT (x - w) ** 2 AS y MINIMIZE AVG(y)",
)
def power_to_product(node: Node) -> Node | None:
    match node:
        case Power(x, y) if is_number(y, 2):
            new: Node = Multiply(x, x)
        case Power(x, y) if is_number(y, 3):
            new = Multiply(x, Multiply(x, x))
        case Power(x, y) if is_number(y, 0.5):
            new = Sqrt(x)
        case Power(x, y) if is_number(y, -1):
            new = Divide(like(1, x), x)
        case _:
            return None
    return new if new.type == node.type else None


@rule(
    Multiply,
    law="a * (b * x) = (a * b) * x",
    before="2 * (3 * x)",
    after="6 * x",
    when="a and b are known numbers",
    why="one product with the large operand instead of two",
    databases="reassociation; constant folding",
    learning="reassociation; scale folding",
    example="CREATE MODEL m INPUT (x FLOAT) PARAMETERS (w FLOAT) AS SELECT 2 * (3 * (x * w)) AS y MINIMIZE AVG(y)",
)
def gather_factors(node: Node) -> Node | None:
    match node:
        case Multiply(Constant() as a, Multiply(Constant() as b, x)) | Multiply(
            Constant() as a, Multiply(x, Constant() as b)
        ):
            pass
        case Multiply(Multiply(Constant() as b, x), Constant() as a) | Multiply(
            Multiply(x, Constant() as b), Constant() as a
        ):
            pass
        case _:
            return None
    if a.value is None or b.value is None or isinstance(x, Constant):
        return None  # three numbers could be gathered for ever
    return Multiply(Multiply(a, b), x)


@rule(
    Add,
    Subtract,
    law="c * x + c * y = c * (x + y) for one number c",
    before="c * x - c * y",
    after="c * (x - y)",
    when="x and y are as large as the result",
    why="one product less; and what is small is subtracted before it is summed, not after",
    databases="common factor",
    learning="fusing the loss's 1/n into one product",
    example="CREATE MODEL m INPUT (x FLOAT[2]) TARGET (y BOOLEAN) AS SELECT LINEAR(x, 1) AS z "
    "MINIMIZE AVG(BINARY_CROSS_ENTROPY(z, y))",
)
def factor_out_number(node: Node) -> Node | None:
    if node.type.rows == UNIT:
        return None
    (c, x), (d, y) = map(number_and_rest, node.inputs)
    if c is None or c is not d or not x.type == y.type == node.type:
        return None
    return Multiply(c, node.with_inputs([x, y]))


def number_and_rest(node: Node) -> tuple[Node | None, Node]:
    """A product as a single number and what it multiplies; None if it is no such product."""
    match node:
        case Multiply(c, x) if is_single(c):
            return c, x
        case Multiply(x, c) if is_single(c):
            return c, x
    return None, node


def is_single(node: Node) -> bool:
    """Whether a value is a single number for all rows."""
    return node.type.rows == UNIT and node.type.entry_size == 1


@rule(
    Add,
    law="x + x = 2 * x",
    before="x + x",
    after="2 * x",
    why="the factor meets others and folds into one number",
    databases="expression canonicalization",
    learning="algebraic simplification of accumulated gradients",
    example="CREATE MODEL m INPUT (x FLOAT) PARAMETERS (w FLOAT[3]) AS SELECT SUM_OF(x * w) AS y "
    "MINIMIZE AVG(y) + 0.1 * L2(w)",
)
def add_to_itself(node: Node) -> Node | None:
    match node:
        case Add(x, y) if x is y:
            return Multiply(x, like(2, x))
    return None


@rule(
    Log,
    Exp,
    law="log(exp(x)) = x",
    before="log(exp(x))",
    after="x",
    why="two passes less, and no overflow of exp",
    databases="expression simplification: inverse functions",
    learning="numerical stability: log-domain computation",
    example="CREATE MODEL m INPUT (x FLOAT) PARAMETERS (w FLOAT) AS SELECT LN(EXP(x * w)) AS y MINIMIZE AVG(y)",
)
def log_of_exp(node: Node) -> Node | None:
    match node:
        case Log(Exp(x)):
            return x
    return None


@rule(
    Cast,
    law="converting to the type that is there changes nothing; a known number converts while planning",
    before="cast(x as FLOAT), x FLOAT",
    after="x",
    why="one copy less",
    databases="redundant cast removal",
    learning="cast elimination; dtype propagation",
    example="CREATE MODEL m INPUT (x FLOAT) PARAMETERS (w FLOAT) "
    "AS SELECT CAST(CAST(x AS DOUBLE) AS FLOAT) * w AS y MINIMIZE AVG(y)",
)
def cast_once(node: Node) -> Node | None:
    match node:
        case Cast(Broadcast(x, target), element):
            return Broadcast(ops.cast(x, element), target)
        case Cast(x, element) if x.type.element == element or isinstance(x, Constant):
            return ops.cast(x, element)
        case Cast(Cast(x, inner), element) if inner == DOUBLE and x.type.element in (FLOAT, INTEGER):
            return ops.cast(x, element)
    return None
