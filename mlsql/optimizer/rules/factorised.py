"""Learning over joins without the joined rows: what belongs to one table is computed over that table.

A dimension's row is read by many facts. What is computed of it can be computed once and looked up, and what its facts
have to say about it can be added up first. Whether that is cheaper is a matter of widths and counts, so these laws are
searched with, in both directions where both can pay.

Kumar, Naughton and Patel, "Learning Generalized Linear Models Over Normalized Data", SIGMOD 2015; Chen, Kumar, Naughton
and Patel, "Towards Linear Algebra over Normalized Data", VLDB 2017; Olteanu and Schleich, "Factorized Databases", 2016.
"""

from __future__ import annotations

import math

from ...planner.node import Node, is_unit
from ...planner.ops import (
    Add,
    Argmax,
    Broadcast,
    Concat,
    Contract,
    Contraction,
    GroupJoin,
    Moment,
    Multiply,
    Reshape,
    Segment,
    Subtract,
    Sum,
    Take,
    broadcast,
    cast,
    contract,
    like,
)
from ...planner.ops.contract import ROW
from ...types import DOUBLE, UNIT
from ..frequency import is_learned
from ..rule import rule
from .indexing import apart, split_product
from .joins import ROW_WISE
from .letters import LETTERS

STAR = (
    "CREATE MODEL m INPUT flights (plane BIGINT, late FLOAT), planes (id BIGINT, x FLOAT[4]) "
    "AS SELECT LINEAR(CONCAT([late], p.x), 1) AS z FROM flights f JOIN planes p ON p.id = f.plane "
    "MINIMIZE AVG(LN(1 + EXP(z)))"
)
LAYERS = (
    "CREATE MODEL m INPUT nodes (id BIGINT, x FLOAT[3]), edges (src BIGINT, dst BIGINT, w FLOAT) "
    "AS WITH h AS (SELECT id, TANH(LINEAR(x, 4)) AS h FROM nodes), "
    "s AS (SELECT e.dst AS id, SUM(e.w * h.h) AS h FROM edges e JOIN h ON h.id = e.src GROUP BY e.dst) "
    "SELECT id, LINEAR(h, 1) AS y FROM s MINIMIZE AVG(y * y)"
)
PROJECTED = LAYERS.replace("LINEAR(x, 4)) AS h", "LINEAR(x, 4)) AS t, LINEAR(t, 2) AS h")
BELOW = tuple(o for o in ROW_WISE if o not in (Broadcast, Argmax))


def count(node: Node) -> float:
    """How many rows a value has; without an estimate, many."""
    return math.inf if node.type.rows.rows is None else node.type.rows.rows


def paired(position: int, operand: Node, other: Node) -> tuple[Node, Node]:
    """Two operands, one of them at a position."""
    return (operand, other) if position == 0 else (other, operand)


def is_looked_up(node: Node) -> bool:
    """Whether rows are taken of a table that has fewer: each of its rows is read more than once."""
    return isinstance(node, Take) and node.x.type.rows != UNIT and count(node.x) < count(node)


@rule(
    Contract,
    stage="explore",
    law="contract(concat(x, y), W) = contract(x, W above) + contract(y, W below)",
    before="contract(concat(x, take(y, i)), W)",
    after="contract(x, W[:n]) + contract(take(y, i), W[n:])",
    when="a part is looked up in a table with fewer rows",
    why="a linear layer over joined columns is a sum of layers, one a table; alone it costs more",
    databases="join of wide columns split by table",
    learning="factorised learning: a layer split per source table",
    example=STAR,
)
def layer_by_table(node: Node) -> Node | None:
    assert isinstance(node, Contract)
    return split_product(node, is_looked_up) if ROW in node.letters()[2] else None


@rule(
    *BELOW,
    stage="explore",
    law="f(take(x, i)) = take(f(x), i) for an f of one row",
    before="contract(take(x, i), W)",
    after="take(contract(x, W), i)",
    when="x has fewer rows than are taken of it; or nothing that learns reaches f(x), and i changes in each step",
    why="f runs once a row of the table and is looked up; of what is frozen it runs once in all, not once an epoch",
    databases="projection below a join; expensive expressions run once a distinct row",
    learning="caching frozen features; factorised forward pass",
    example=STAR,
)
def apply_before_join(node: Node) -> Node | None:
    taken = [n for n in node.inputs if isinstance(n, Take) and n.x.type.rows != UNIT]
    if not taken or any(t.index is not taken[0].index for t in taken):
        return None
    index = taken[0].index
    if node.type.rows != index.type.rows or any(n.type.rows != UNIT for n in node.inputs if n not in taken):
        return None
    below = node.with_inputs(n.x if n in taken else n for n in node.inputs)
    if count(below) < count(node) or (not is_learned(below) and is_learned(index)):
        return Take(below, index)
    return None


@rule(
    Take,
    stage="explore",
    law="take(f(x), i) = f(take(x, i)) for an f of one row",
    before="take(f(x), i)",
    after="f(take(x, i))",
    when="nothing that learns reaches f(x), and i, of fewer rows, changes in each step",
    why="f(x) need not be kept: recomputing it for the rows of a step takes no memory, and less time if few are read",
    databases="selection pushdown; buffer or re-read",
    learning="rematerialization: recomputing instead of storing",
    example="CREATE MODEL m INPUT (x FLOAT) PARAMETERS (w FLOAT) AS SELECT EXP(x) * w AS z MINIMIZE AVG(z * z)",
)
def recompute_taken(node: Node) -> Node | None:
    assert isinstance(node, Take)
    f, index = node.x, node.index
    if not isinstance(f, BELOW) or not f.inputs or f.type.rows == UNIT or count(index) >= count(f):
        return None
    if is_learned(f) or not is_learned(index):
        return None
    new = f.with_inputs(n if n.type.rows == UNIT else Take(n, index) for n in f.inputs)
    return new if new.type == node.type else None


@rule(
    Contract,
    Moment,
    stage="explore",
    law="⟨take(x, i), g⟩ = ⟨x, segment(g, i)⟩",
    before="contract(take(x, i), g) over rows",
    after="contract(x, segment(g, i))",
    when="x has fewer rows than are taken of it",
    why="the gradient is grouped by the key first: then the product runs over the rows of the table",
    databases="eager aggregation: GROUP BY below a join",
    learning="factorised gradient: scatter-add, then the product",
    example=STAR,
)
def group_before_product(node: Node) -> Node | None:
    assert isinstance(node, Contraction)
    a, b, out = node.letters()
    if ROW in out or ROW not in a or ROW not in b:
        return None
    for position, operand in enumerate(node.inputs):
        if isinstance(operand, Take) and is_looked_up(operand):
            other = node.inputs[1 - position]
            other = cast(other, DOUBLE) if isinstance(node, Moment) else other
            grouped = Segment(other, operand.index, operand.x.type.rows)
            new = node.with_inputs(paired(position, operand.x, grouped))
            return new if new.type == node.type else None
    return None


@rule(
    Contract,
    Moment,
    stage="explore",
    law="⟨concat(x, y), g⟩ = concat(⟨x, g⟩, ⟨y, g⟩)",
    before="contract(concat(x, take(y, i)), g) over rows",
    after="concat(contract(x, g), contract(take(y, i), g))",
    when="a part is looked up in a table with fewer rows",
    why="the gradient of a layer over joined columns comes from each table by itself",
    databases="aggregate pushed to each side of a join",
    learning="gradient of a concatenation, one part at a time",
    example=STAR,
)
def gradient_by_table(node: Node) -> Node | None:
    assert isinstance(node, Contraction)
    a, b, out = node.letters()
    if ROW in out:
        return None
    for position, (letters, operand) in enumerate(((a, node.x), (b, node.y))):
        if not isinstance(operand, Concat) or not any(map(is_looked_up, operand.parts)):
            continue
        letter = letters.removeprefix(ROW)[operand.axis]
        if letter not in out or letter in (b, a)[position]:
            continue
        other = node.inputs[1 - position]
        pairs = [paired(position, p, other) for p in apart(operand, is_looked_up)]
        new = Concat(tuple(node.with_inputs(pair) for pair in pairs), out.index(letter))
        return new if new.type == node.type else None
    return None


# -- group-bys ---------------------------------------------------------------------------------------------------------


def over(node: Node, x: Node) -> Node:
    """A group-by of another value."""
    return node.with_inputs([x, *node.inputs[1:]])


@rule(
    GroupJoin,
    Segment,
    stage="explore",
    law="segment(x W) = segment(x) W",
    before="group_join(x W, i, j, w)",
    after="group_join(x, i, j, w) W",
    when="all rows share W",
    why="A (X W) = (A X) W: what is narrower goes along the edges",
    databases="eager aggregation",
    learning="A(XW) as (AX)W in a graph network",
    example=LAYERS,
)
def aggregate_before_product(node: Node) -> Node | None:
    if node.type.rows == UNIT:
        return None
    match node.inputs[0]:
        case Contract(spec, x, w) if is_unit(w) and not is_unit(x):
            new: Node = Contract(spec, over(node, x), w)
        case Contract(spec, w, x) if is_unit(w) and not is_unit(x):
            new = Contract(spec, w, over(node, x))
        case _:
            return None
    return new if new.type == node.type else None


@rule(
    Contract,
    stage="explore",
    law="segment(x) W = segment(x W)",
    before="group_join(x, i, j, w) W",
    after="group_join(x W, i, j, w)",
    when="all rows share W",
    why="(A X) W = A (X W): what is narrower goes along the edges",
    databases="lazy aggregation: projection below GROUP BY",
    learning="(AX)W as A(XW) in a graph network",
    example=LAYERS,
)
def aggregate_after_product(node: Node) -> Node | None:
    assert isinstance(node, Contract)
    if node.type.rows == UNIT:
        return None
    for position, operand in enumerate(node.inputs):
        other = node.inputs[1 - position]
        if isinstance(operand, (GroupJoin, Segment)) and is_unit(other) and not is_unit(operand.inputs[0]):
            x = operand.inputs[0]
            new = over(operand, Contract(node.spec, *paired(position, x, other)))
            return new if new.type == node.type else None
    return None


@rule(
    GroupJoin,
    Segment,
    stage="explore",
    law="segment(x + y) = segment(x) + segment(y), segment(x + b) = segment(x) + segment(1) b",
    before="group_join(x W + b, i, j, w)",
    after="group_join(x W, i, j, w) + group_join(1, i, j, w) b",
    when="one of the terms is a product or the same for all rows",
    why="the product goes on to the other side of the group-by; the sums of the weights are computed once",
    databases="aggregates distribute over sums",
    learning="message passing of a layer with a bias",
    example=PROJECTED,
)
def aggregate_of_sum(node: Node) -> Node | None:
    if node.type.rows == UNIT:
        return None
    match node.inputs[0]:
        case Add(x, y) | Subtract(x, y) as both if isinstance(x, Contract) or isinstance(y, Contract):
            terms = [aggregated(node, n, both) for n in (x, y)]
            new = type(both)(*terms)
            return new if new.type == node.type else None
    return None


def aggregated(node: Node, term: Node, whole: Node) -> Node:
    """The group-by of one term of a sum; of one that all rows share, it is the group-by of 1 times the term."""
    if not is_unit(term):
        return over(node, term)
    ones = broadcast(like(1, whole), whole.type.with_(shape=()))
    total = over(node, ones)
    return Multiply(of_rank(total, whole.type.rank), term)


def of_rank(node: Node, rank: int) -> Node:
    """A single number a row, with axes of size 1."""
    return Reshape(node, (1,) * rank) if rank else node


@rule(
    Contract,
    stage="explore",
    law="⟨segment(take(x, i), j), g⟩ = ⟨x, segment(take(g, j), i)⟩",
    before="contract(group_join(x, i, j, w), g) over rows",
    after="contract(x, group_join(g, j, i, w))",
    when="always: a group-by over a join is a sparse matrix, and (A X)ᵀ G = Xᵀ (Aᵀ G)",
    why="the gradient of the weights reads what is narrower, and need not keep what went along the edges",
    databases="join order: the same join from its other side",
    learning="(AX)ᵀG = Xᵀ(AᵀG)",
    example=LAYERS,
)
def transpose_aggregate(node: Node) -> Node | None:
    assert isinstance(node, Contract)
    a, b, out = node.letters()
    if ROW in out or ROW not in a or ROW not in b:
        return None
    for position, operand in enumerate(node.inputs):
        other = node.inputs[1 - position]
        if isinstance(operand, GroupJoin) and operand.x.type.rows != UNIT and operand.rows != UNIT:
            back = GroupJoin(other, operand.group, operand.source, operand.x.type.rows, operand.weight)
            new = node.with_inputs(paired(position, operand.x, back))
            return new if new.type == node.type else None
    return None


@rule(
    Sum,
    stage="explore",
    law="SUM(segment(take(x, i), j)) = ⟨segment(take(1, j), i), x⟩",
    before="sum(group_join(x, i, j, w)) over rows",
    after="contract(group_join(1, j, i, w), x)",
    when="only rows are summed, and the weights are fixed",
    why="how often each row is read is known: nothing goes along the edges",
    databases="COUNT in place of a join",
    learning="bias gradient by node degrees",
    example=PROJECTED,
)
def sum_of_aggregate(node: Node) -> Node | None:
    match node:
        case Sum(GroupJoin() as joined, True, ()) if joined.x.type.rows != UNIT and joined.rows != UNIT:
            if joined.weight is not None and is_learned(joined.weight):
                return None
            ones = broadcast(like(1, joined), joined.type.with_(shape=()))
            times = GroupJoin(ones, joined.group, joined.source, joined.x.type.rows, joined.weight)
            entry = LETTERS[: joined.type.rank]
            new = contract(f"r,r{entry}->{entry}", times, joined.x)
            return new if new.type == node.type else None
    return None
