"""Second derivatives of a loss, as plans: the gradient of the slope along a direction; the squares it is made of."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ..planner.node import Node, rebuilt, walk
from ..planner.ops import Add, Concat, Contract, Place, State, Subtract, Where, broadcast, like
from ..types import DOUBLE
from .degree import degrees, root, square_terms
from .gradient import adjoints
from .training import Spans, gradients_of

DIRECTION = "direction"


def direction_of(weights: State) -> State:
    """The flat vector that a Hessian is multiplied with."""
    return State(DIRECTION, DOUBLE, weights.shape)


def hessian_product(gradient: Node, weights: State, spans: Spans) -> Node:
    """The Hessian times a direction: the gradient of the slope along it (Pearlmutter, "Fast Exact Multiplication by the
    Hessian", 1994)."""
    slope = Contract("a,a->", gradient, direction_of(weights))
    flat, _, _ = gradients_of(slope, spans)
    return flat[weights]


def sum_of_squares(loss: Node, weights: State) -> list[tuple[Node, Node, Node]] | None:
    """The squares of which a quadratic loss is the weighted sum; None where it is none.

    Of each square: the Jacobian of what is squared times the direction, what is squared, and its weight, which is the
    derivative of the loss by the square. What is left without the squares must not depend on the weights.
    """
    squares = square_terms(loss, {weights})
    if not squares:
        return None
    rest = rebuilt([loss], {s: broadcast(like(0, s), s.type) for s in squares})[loss]
    if degrees([rest], {weights})[rest] != 0:
        return None
    by_square = adjoints(loss, squares)
    if degrees(by_square.values(), {weights}) and any(
        d != 0 for s, d in degrees(by_square.values(), {weights}).items() if s in [by_square[q] for q in squares]
    ):
        return None
    found = []
    for s in squares:
        r = root(s)
        assert r is not None
        found.append((linear_part(r, weights), r, broadcast(by_square[s], r.type)))
    return found


def linear_part(node: Node, weights: State) -> Node:
    """An affine function of the weights without its constant, at the direction in their place."""
    found = degrees([node], {weights})
    new: dict[Node, Node] = {weights: direction_of(weights)}
    for n in walk([node]):
        if n not in new and found[n] == 1:
            new[n] = moved(n, new, {x for x in n.inputs if found[x] == 0})
    return new[node]


def moved(node: Node, new: Mapping[Node, Node], fixed: Collection[Node]) -> Node:
    """An operator over the linear parts of its inputs; a fixed one counts as 0 where it is added."""
    adds = isinstance(node, (Add, Subtract, Concat, Where, Place))

    def part(n: Node) -> Node:
        if n not in fixed:
            return new[n]
        keeps = not adds or n.type.element.kind != "float"
        return n if keeps else broadcast(like(0, n), n.type)

    return node.with_inputs(part(n) for n in node.inputs)
