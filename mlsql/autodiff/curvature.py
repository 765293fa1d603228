"""Second derivatives of a loss, as plans: the gradient of the slope along a direction; the squares it is made of."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ..planner.node import Node, rebuilt, walk
from ..planner.ops import Add, Concat, Contract, Place, State, Subtract, Where, broadcast, like
from ..record import record
from ..types import DOUBLE, UNIT
from .degree import degrees, root, square_terms
from .features import Feature, features_of
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


@record
class Square:
    """The square of an affine ``residual``, number by number, and how much each counts.

    ``product`` is the residual's Jacobian times the direction; ``features`` are the slopes of each of its numbers,
    where they are known in closed form.
    """

    residual: Node
    weight: Node
    product: Node
    features: tuple[Feature, ...]


def sum_of_squares(loss: Node, weights: State, spans: Spans) -> list[Square] | None:
    """The squares of which a quadratic loss is the weighted sum; None where it is none.

    The weight of a square is the derivative of the loss by it. What is left without the squares must not depend on the
    weights.
    """
    squares = square_terms(loss, {weights})
    if not squares:
        return None
    rest = rebuilt([loss], {s: broadcast(like(0, s), s.type) for s in squares})[loss]
    if degrees([rest], {weights})[rest] != 0:
        return None
    by_square = adjoints(loss, squares)
    found = []
    for s in squares:
        r, weight = root(s), by_square[s]
        assert r is not None
        if degrees([weight], {weights})[weight] != 0:
            return None
        features = features_of(r, spans) if r.type.rows != UNIT else None
        found.append(Square(r, broadcast(weight, r.type), linear_part(r, weights), tuple(features or ())))
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
