"""From a plan of operators with kernels to one whose operators fused loops can compute, number by number."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ...planner.node import Node, rewrite, walk
from ...planner.ops import (
    Argmax,
    Broadcast,
    Column,
    Concat,
    Constant,
    Contract,
    Contraction,
    Count,
    Counter,
    Index,
    KeySum,
    Map,
    Pad,
    Parameter,
    Pick,
    Place,
    Positions,
    Put,
    Reduce,
    Regroup,
    ScatterAdd,
    Segment,
    State,
    Take,
    cast,
)
from ...planner.ops.contract import as_matrix_product
from ...planner.ops.segment import SegmentBest
from ...types import BOOLEAN, DOUBLE, FLOAT

LEAVES = (Column, Positions, Parameter, State, Index, Counter, Count, Constant)
IN_SEVERAL_LOOPS = (KeySum, SegmentBest)  # what reads whole arrays again and again: see ``alone.py``
IN_LOOPS = (
    *(Map, Reduce, Argmax, Broadcast, Take, Pick, Place, Pad, Concat, Segment, ScatterAdd, Put, Regroup),
    *IN_SEVERAL_LOOPS,
)
SMALL_PRODUCT = 1 << 10  # flops from which on a matrix product is worth a call of BLAS


def lowered(outputs: Sequence[Node]) -> dict[Node, Node]:
    """Every node of a plan, and what it becomes: operators that loops can compute, and matrix products."""
    return rewrite(outputs, _lower)


def _lower(node: Node) -> Node:
    if isinstance(node, Contract):
        return as_product(node) if is_product(node) else node.summed()
    return node.simpler()


def as_product(node: Contract) -> Node:
    """The product with both operands in its own element type."""
    element = node.type.element
    return node.with_inputs([cast(n, element) for n in node.inputs])


def is_product(node: Contract) -> bool:
    """Whether BLAS computes a contraction, and not a loop that is fused with what is around it.

    A matrix times a vector and the outer product of two vectors wait for memory: fused, they read and write it once.
    """
    if as_matrix_product(node.spec) is None:
        return False
    a, b, out = node.letters()
    if len(a) != 2 or len(b) != 2 or len(out) != 2:
        return False
    return min(node.size(c) for c in {*a, *b}) > 1 and node.flops() >= SMALL_PRODUCT


def unsupported(outputs: Sequence[Node], moving: Collection[Node]) -> str | None:
    """Why what moves of a lowered plan cannot be compiled, or None if it can."""
    for node in walk(outputs):
        if node not in moving:
            continue
        if not (isinstance(node, (*LEAVES, *IN_LOOPS, Contract)) or node.is_view):
            return f"{node.operator_name()} has no form for loops"
        if node.type.size is None:
            return "the number of rows is not known"
        if isinstance(node, Contraction) and node.type.element not in (FLOAT, DOUBLE):
            return "a matrix product of whole numbers"
        if isinstance(node, (Reduce, Argmax, SegmentBest)) and node.x.type.element == BOOLEAN:
            return f"{node.operator_name()} of BOOLEAN"
    return None
