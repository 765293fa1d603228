"""Losses of affine scores: what each row adds to the Hessian, in closed form.

Where a loss is a sum over rows of a function of scores s = F w + s0, its Hessian is the sum over pairs of scores of
F' diag(h) F, with h the second derivatives by the scores. F is found by reading the gradient backwards: the gradient of
sum(g * s) is F' g, and what its sum over the rows adds up are the rows of F.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence

from ..planner.node import Node, depends_on, rebuilt, walk
from ..planner.ops import (
    Add,
    Broadcast,
    Cast,
    Column,
    Concat,
    Constant,
    Contract,
    Divide,
    KeySum,
    Multiply,
    Negate,
    Pad,
    Place,
    Regroup,
    Reshape,
    Segment,
    Slice,
    State,
    Subtract,
    Sum,
    Take,
    Transpose,
    broadcast,
)
from ..planner.ops.segment import GroupBy
from ..record import record
from ..types import DOUBLE, UNIT, RowSet, Type, concrete
from .degree import LINEAR, PRODUCTS, degrees
from .gradient import adjoints
from .training import Spans, view_of

MOST_SCORES = 24  # numbers a row: their pairs have a matrix product each
UNARY = (Negate, Reshape, Transpose, Slice, Pad, Cast)
MIXING = (Take, GroupBy, KeySum, Regroup)  # rows of the output read other rows than their own


@record
class Feature:
    """The slopes of one score, one row of numbers a row: entry i is that by the weight at ``positions[i]``."""

    slopes: Node
    positions: tuple[int, ...]


@record
class Gram:
    """A Hessian as a sum over rows.

    ``features`` has the slopes of each score; ``curvature[i]`` the second derivatives by score i and all scores, one
    row of numbers a row. ``rest`` is the Hessian of what reads no row, times the direction; None: there is none.
    """

    features: tuple[Feature, ...]
    curvature: tuple[Node, ...]
    rest: Node | None


class NotApart(Exception):
    """What one row adds to the loss depends on other rows, or scores and weights meet outside of them."""


def scores_of(loss: Node, variables: Collection[Node]) -> list[Node]:
    """The affine values of each row that something bends; one that is only added up adds nothing to the Hessian."""
    found = degrees([loss], variables)
    bends: dict[Node, bool] = {loss: False}  # whether what becomes of a value on the way to the loss is not linear
    for node in reversed(list(walk([loss]))):
        if node not in bends or found[node] in (0, 1):
            continue
        learned = {n for n in node.inputs if found[n] != 0}
        linear = isinstance(node, LINEAR) or (isinstance(node, (*PRODUCTS, Divide, Cast)) and len(learned) == 1)
        linear = linear and not (isinstance(node, PRODUCTS) and node.inputs.count(next(iter(learned))) > 1)
        for n in learned:
            bends[n] = bends.get(n, False) or bends[node] or not linear
    return [n for n in walk([loss]) if bends.get(n) and found[n] == 1 and n.type.rows != UNIT]


def gram(loss: Node, weights: State, spans: Spans, direction: State) -> Gram | None:
    """The Hessian of a loss in closed form; None where the loss is no sum over the rows of one row set, or has no such
    scores."""
    scores = scores_of(loss, {weights})
    if len({s.type.rows for s in scores}) != 1 or sum(numbers(s) for s in scores) > MOST_SCORES:
        return None
    columns = [Column(f"\0score_{i}", s.type.rows, DOUBLE, s.type.shape) for i, s in enumerate(scores)]
    values: dict[Node, Node] = dict(zip(scores, columns, strict=True))
    apart = rebuilt([loss], values)[loss]
    features = [f for s in scores for f in features_of(s, spans) or ()]
    if len(features) != sum(numbers(s) for s in scores):
        return None
    try:
        curvature = second_derivatives(apart, columns)
        rest = rest_of(apart, weights, columns, direction)
    except NotApart:
        return None
    back: dict[Node, Node] = dict(zip(columns, scores, strict=True))
    new = rebuilt(curvature, back)
    return Gram(tuple(features), tuple(new[n] for n in curvature), rest)


def numbers(node: Node) -> int:
    """The numbers of a row."""
    return math.prod(concrete(node.type.shape))


def flat(node: Node) -> Node:
    """Each row's numbers as a vector."""
    return Reshape(node, (numbers(node),))


# -- second derivatives by the scores ----------------------------------------------------------------------------------


def second_derivatives(loss: Node, scores: Sequence[Column]) -> list[Node]:
    """For each score the second derivatives by it and by every score. Raises NotApart where rows depend on others."""
    rows = scores[0].type.rows
    first = adjoints(loss, scores)
    every = Type(rows, DOUBLE, (sum(numbers(s) for s in scores),))
    out: list[Node] = []
    for s in scores:
        if s not in first:
            raise NotApart
        slopes = flat(broadcast(first[s], s.type))
        learned = depends_on([slopes], scores)
        if any(n.type.rows != rows or isinstance(n, MIXING) for n in walk([slopes]) if n in learned):
            raise NotApart
        for i in range(numbers(s)):
            second = adjoints(Reshape(Sum(Slice(slopes, 0, i, i + 1), True), ()), scores)
            parts = [flat(broadcast(second[t], t.type)) if t in second else nothing(t) for t in scores]
            out.append(broadcast(parts[0] if len(parts) == 1 else Concat(tuple(parts), 0), every))
    return out


def nothing(score: Node) -> Node:
    """Zeros, as many as a score has numbers."""
    return Broadcast(Constant((0.0,), DOUBLE), score.type.with_(shape=(numbers(score),)))


def rest_of(loss: Node, weights: State, scores: Sequence[Node], direction: State) -> Node | None:
    """The Hessian of what no score reaches, times the direction; None if that is 0. Raises NotApart if one does."""
    slope = adjoints(loss, [weights]).get(weights)
    if slope is None:
        return None
    if not depends_on([slope], scores).isdisjoint(walk([slope])):
        raise NotApart
    return adjoints(Contract("a,a->", slope, direction), [weights]).get(weights)


# -- the slopes of a score ---------------------------------------------------------------------------------------------


def features_of(score: Node, spans: Spans) -> list[Feature] | None:
    """The slopes of each number of a score; None where they are not found in closed form."""
    g = Column("\0slope", score.type.rows, DOUBLE, score.type.shape)
    views = {p: view_of(p, *span) for p, span in spans.items()}
    found = adjoints(score, views.values(), seed=g)
    out = []
    for i in range(numbers(score)):
        parts: list[Node] = []
        positions: list[int] = []
        for p, (_, start, _) in spans.items():
            if views[p] not in found:
                continue
            slopes = factor(found[views[p]], g, i) or spread_out(found[views[p]], g, i)
            if slopes is None:
                return None
            parts.append(flat(slopes.slopes))
            positions += [start + k for k in slopes.positions]
        out.append(Feature(parts[0] if len(parts) == 1 else Concat(tuple(parts), 0), tuple(positions)))
    return out


def factor(gradient: Node, g: Column, i: int) -> Feature | None:
    """The slopes of number i where the gradient is a sum over rows of products of g with something else, each number
    with each; None where it is not written so."""
    inner = seen_through(gradient)
    match inner:
        case Sum(x, True, ()) if seen_through(x) is g:
            return Feature(Broadcast(Constant((1.0,), DOUBLE), g.type.with_(shape=(1,))), (i,))
        case Contract(_, x, y) if seen_through(x) is g and g not in walk([y]):
            letters, others, out = inner.letters()
            slopes = y
        case Contract(_, x, y) if seen_through(y) is g and g not in walk([x]):
            others, letters, out = inner.letters()
            slopes = x
        case _:
            return None
    mine, theirs = letters.replace("r", ""), others.replace("r", "")
    if "r" not in letters or "r" not in others or sorted(out) != sorted(mine + theirs):
        return None
    sizes = {c: n for c, n in inner.sizes().items() if isinstance(n, int)}
    held = dict(zip(mine, unraveled(i, [sizes[c] for c in mine]), strict=True))
    positions = []
    for place in itertools.product(*(range(sizes[c]) for c in theirs)):
        at = {**held, **dict(zip(theirs, place, strict=True))}
        position = 0
        for c in out:
            position = position * sizes[c] + at[c]
        positions.append(position)
    return Feature(slopes, tuple(positions))


def seen_through(node: Node) -> Node:
    """What a reshaped value is made of."""
    while isinstance(node, Reshape):
        node = node.x
    return node


def unraveled(i: int, sizes: Sequence[int]) -> list[int]:
    """The position along each axis of number i in row-major order."""
    out = []
    for size in reversed(sizes):
        i, at = divmod(i, size)
        out.append(at)
    return out[::-1]


def spread_out(gradient: Node, g: Column, i: int) -> Feature | None:
    """The slopes of number i as what each row adds to the gradient; None where that is not known."""
    learned = depends_on([gradient], [g])
    rows = spread(gradient, learned, g.type.rows)
    if rows is None:
        return None
    count = numbers(g)
    unit = Constant(tuple(float(k == i) for k in range(count)), DOUBLE, g.type.shape)
    return Feature(rebuilt([rows], {g: broadcast(unit, g.type)})[rows], tuple(range(numbers(rows))))


def spread(node: Node, learned: Collection[Node], rows: RowSet) -> Node | None:
    """What each row adds to a value that is linear in ``learned`` and a sum over ``rows``."""

    def of(n: Node) -> Node | None:
        return spread(n, learned, rows)

    def over(*inputs: Node | None) -> Node | None:
        known = [n for n in inputs if n is not None]
        return node.with_inputs(known) if len(known) == len(inputs) else None

    match node:
        case Sum(x, True, axes) if x.type.rows == rows:
            return Sum(x, False, axes) if axes else x
        case Contract(_, x, y) if x.type.rows == rows == y.type.rows:
            a, b, out = node.letters()
            return Contract(f"{a},{b}->r{out}", x, y)
        case Segment(x, index, target, size) if target == UNIT and index.type.rows == rows and not x.type.shape:
            return Place(broadcast(x, index.type.with_(shape=())), index, size)
        case Segment(x, index, target, size) if target == UNIT and index.type.rows == rows and x.type.rank == 1:
            place = Place(Constant((1.0,), DOUBLE), index, size)
            return Contract("ra,rb->rab", place, x) if x.type.rows == rows else None
        case Broadcast(x, target):
            wide = of(x)
            return None if wide is None else Broadcast(wide, target.with_(rows=rows))
        case Sum(x, False, _):
            return over(of(x))
        case Add(x, y) | Subtract(x, y) if x in learned and y in learned:
            return over(of(x), of(y))
        case Multiply(x, y) if (x in learned) != (y in learned):
            return over(of(x), y) if x in learned else over(x, of(y))
        case Divide(x, y) if y not in learned:
            return over(of(x), y)
        case Concat(parts) if all(p in learned for p in parts):
            return over(*map(of, parts))
    return over(*map(of, node.inputs)) if isinstance(node, UNARY) else None
