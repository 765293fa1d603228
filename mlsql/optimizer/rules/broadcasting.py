"""Repetition that need not be written out."""

from __future__ import annotations

from ...planner.node import Node
from ...planner.ops import Broadcast, Constant, Count, Divide, Multiply, Place, Reshape, Sum, broadcast, like
from ...types import UNIT
from ..rule import rule
from .algebra import MAPS


def is_number(node: Node) -> bool:
    """Whether the node is a single number that was only given axes of size 1."""
    return isinstance(node, Reshape) and node.x.type.rows == UNIT and not node.x.type.shape


@rule(
    *MAPS,
    law="f(repeat(x), y) = f(x, y)",
    before="broadcast(x) * y",
    after="x * y",
    when="y alone already has the rows and the shape of the result",
    why="the repeated value is never written to memory",
    databases="constant vectors: execution on compressed data",
    learning="broadcast fusion: implicit broadcasting",
    example="CREATE MODEL m INPUT (x FLOAT) PARAMETERS (w FLOAT) AS SELECT x * w AS y MINIMIZE AVG(EXP(y))",
)
def broadcast_into_map(node: Node) -> Node | None:
    inputs = tuple(
        n.x if isinstance(n, Broadcast) or (isinstance(n, Reshape) and is_number(n)) else n for n in node.inputs
    )
    if inputs == node.inputs:
        return None
    new = node.with_inputs(inputs)
    if new.type == node.type:
        return new
    return broadcast(new, node.type) if new.type.element == node.type.element else None


@rule(
    Sum,
    law="the sum of n equal values is n times the value",
    before="sum(broadcast(x))",
    after="n * x",
    when="the value was repeated along just the rows that are summed",
    why="nothing is read",
    databases="aggregate of a constant: SUM(c) = c * COUNT(*)",
    learning="reduction of a broadcast",
    example="CREATE MODEL m INPUT (x FLOAT) PARAMETERS (w FLOAT) AS SELECT x + w AS y MINIMIZE SUM(y)",
)
def sum_of_broadcast(node: Node) -> Node | None:
    match node:
        case Sum(Broadcast(x, target), True, ()) if x.type.rows == UNIT and x.type.shape == target.shape:
            return Multiply(x, Count(target.rows))
    return None


@rule(
    Reshape,
    Place,
    law="reading one repeated number is reading the number",
    before="reshape(broadcast(x)), place(broadcast(x), k)",
    after="broadcast(x), place(x, k)",
    when="x is a single number",
    why="the repeated value is never written to memory",
    databases="constant vectors: execution on compressed data",
    learning="broadcast sinking",
    example="CREATE MODEL m INPUT (x FLOAT[3]) TARGET (k INTEGER) AS SELECT LINEAR(x, 4) AS z "
    "MINIMIZE AVG(CROSS_ENTROPY(z, k))",
)
def broadcast_into_reader(node: Node) -> Node | None:
    match node:
        case Reshape(Broadcast(x, _), _) if x.type.rows == UNIT and not x.type.shape:
            return Broadcast(x, node.type)
        case Place(Broadcast(x, _), k, size, base) if x.type.rows == UNIT:
            new = Place(x, k, size, base)
            return new if new.type == node.type else None
    return None


@rule(
    Multiply,
    law="(x / s) * c = x * (c / s)",
    before="(e / sum(e)) * (1 / n)",
    after="e * ((1 / n) / sum(e))",
    when="s has fewer numbers than x, and c no more than s",
    why="one pass over the large operand instead of two",
    databases="reassociation",
    learning="scale folding: the softmax gradient divided once a row",
    example="CREATE MODEL m INPUT (x FLOAT[3]) TARGET (k INTEGER) AS SELECT LINEAR(x, 4) AS z "
    "MINIMIZE AVG(CROSS_ENTROPY(z, k))",
)
def scale_the_smaller(node: Node) -> Node | None:
    match node:
        case Multiply(Divide(x, s), c) if x.type == node.type and c.nbytes <= s.nbytes < x.nbytes:
            return Multiply(x, Divide(c, s))
        case Multiply(c, Divide(x, s)) if x.type == node.type and c.nbytes <= s.nbytes < x.nbytes:
            return Multiply(x, Divide(c, s))
    return None


@rule(
    Broadcast,
    law="repeat(repeat(x)) = repeat(x)",
    before="broadcast(broadcast(x))",
    after="broadcast(x)",
    why="one copy less",
    databases="redundant operator removal",
    learning="broadcast merging",
    example="CREATE MODEL m INPUT (x FLOAT[3]) PARAMETERS (w FLOAT) AS SELECT SUM_OF(x + w) AS y MINIMIZE SUM(y)",
)
def broadcast_once(node: Node) -> Node | None:
    match node:
        case Broadcast(Broadcast(x, _), target):
            return broadcast(x, target)
        case Broadcast(x, target) if (x.type.rows, x.type.shape) == (target.rows, target.shape):
            return x
    return None


@rule(
    Sum,
    law="sum(c * x) = c * sum(x)",
    before="sum(2 * x)",
    after="2 * sum(x)",
    when="c is a known number",
    why="the product is with one number instead of with all",
    databases="aggregate simplification: SUM(c * x) = c * SUM(x)",
    learning="linearity of the reduction; loss scaling",
    example="CREATE MODEL m INPUT (x FLOAT) PARAMETERS (w FLOAT) AS SELECT 2 * (x * w) AS y MINIMIZE AVG(y)",
)
def factor_out_of_sum(node: Node) -> Node | None:
    match node:
        case Sum(Multiply(Constant() as c, x), rows, axes) | Sum(Multiply(x, Constant() as c), rows, axes):
            if not c.type.shape and c.value is not None and x.type.shape == node.x.type.shape:
                return Multiply(like(c.value, node), Sum(x, rows, axes))
    return None
