"""What a loss is in its parameters: the degree of every node of a plan as a polynomial, and where it has kinks.

A loss of degree 2 has an affine gradient, so that its minimum is the solution of linear equations. A loss of scores of
degree 1 has a Hessian that is a weighted Gram matrix of the data.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ..planner.node import Node, depends_on, walk
from ..planner.ops import (
    Absolute,
    Add,
    Argmax,
    Broadcast,
    Cast,
    Concat,
    Constant,
    Contract,
    Divide,
    GroupJoin,
    KeySum,
    Max,
    Maximum,
    Min,
    Minimum,
    Moment,
    Multiply,
    Negate,
    Pad,
    PairDot,
    Pick,
    Place,
    Power,
    Regroup,
    Reshape,
    Segment,
    SegmentMax,
    SegmentMin,
    Sign,
    Slice,
    Subtract,
    Sum,
    Take,
    Transpose,
    Where,
)
from ..types import UNIT

Degree = int | None  # None: not a polynomial

# The degree of the output is the largest of the inputs', all of which are added, moved or repeated ...
LINEAR = (
    *(Add, Subtract, Negate, Sum, Reshape, Regroup, Transpose, Slice, Pad, Concat, Broadcast),
    *(Take, Pick, Place, Segment, KeySum, Where),
)
PRODUCTS = (Multiply, Contract, Moment, PairDot, GroupJoin)  # ... or their sum.
KINKS = (Absolute, Sign, Max, Min, Maximum, Minimum, SegmentMax, SegmentMin, Argmax)


def degrees(outputs: Iterable[Node], variables: Collection[Node]) -> dict[Node, Degree]:
    """The degree of each node as a polynomial in the numbers of ``variables``; None where it is none."""
    found: dict[Node, Degree] = {}
    for node in walk(outputs):
        found[node] = 1 if node in variables else degree(node, [found[n] for n in node.inputs])
    return found


def degree(node: Node, inputs: list[Degree]) -> Degree:
    """The degree of a node, given those of its inputs."""
    if not any(d != 0 for d in inputs):
        return 0
    known = [d for d in inputs if d is not None]
    if len(known) < len(inputs):
        return None
    match node:
        case Where() if inputs[0] != 0:
            return None
        case Cast(element=element):
            return inputs[0] if element.kind == "float" else None
        case Divide():
            return inputs[0] if inputs[1] == 0 else None
        case Power(y=Constant(value=float() as power)):
            return round(power) * known[0] if power >= 0 and power == round(power) else None
    if isinstance(node, LINEAR):
        return max(known)
    return sum(known) if isinstance(node, PRODUCTS) else None


def kinks(outputs: Iterable[Node], variables: Collection[Node]) -> list[Node]:
    """The nodes at which a value that depends on ``variables`` has no slope somewhere, or one that jumps."""
    nodes = list(walk(outputs))
    learned = depends_on(nodes, variables)
    return [
        n for n in nodes if (isinstance(n, KINKS) and n in learned) or (isinstance(n, Where) and n.condition in learned)
    ]


def bent(loss: Node, variables: Collection[Node]) -> Node | None:
    """A node that keeps ``loss`` from being a function of scores that are affine in ``variables``; None: it is one.

    That is an operator over two learned values that are not the same (such a loss has saddles), or one that bends what
    it reads of a parameter directly, beside rows, rather than of a score of each row.
    """
    found = degrees([loss], variables)
    for node in walk([loss]):
        if found[node] in (0, 1) or isinstance(node, LINEAR):
            continue
        learned = list(dict.fromkeys(n for n in node.inputs if found[n] != 0))
        if len(learned) > 1 or (node.type.rows != UNIT and learned[0].type.rows == UNIT):
            return node
    return None


def square_terms(loss: Node, variables: Collection[Node]) -> list[Node] | None:
    """The nodes ``r * r`` or ``r ** 2`` of affine values r from which a quadratic loss is made; None where it also has
    products of different values."""
    found = degrees([loss], variables)
    terms: list[Node] = []
    for node in walk([loss]):
        if found[node] == 2 and all(found[n] in (0, 1) for n in node.inputs):
            if root(node) is None:
                return None
            terms.append(node)
    return terms


def root(square: Node) -> Node | None:
    """The value that a node squares, number by number."""
    match square:
        case Multiply(x, y) if x is y:
            return x
        case Power(x, Constant(value=2.0)):
            return x
    return None
