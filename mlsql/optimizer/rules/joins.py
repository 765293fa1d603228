"""Joins and group-bys: rows are taken as late as possible where data is fixed, and as early where a model learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...planner.node import Node
from ...planner.ops import (
    Add,
    Argmax,
    Broadcast,
    Cast,
    Concat,
    Contract,
    GroupJoin,
    LogSumExp,
    Max,
    Min,
    Multiply,
    Pad,
    PairDot,
    Parameter,
    Pick,
    Place,
    Reshape,
    Segment,
    Slice,
    Softmax,
    Sum,
    Take,
    Transpose,
    broadcast,
    like,
)
from ...planner.ops.contract import ROW
from ...types import UNIT
from ..frequency import is_learned
from ..rule import rule
from .algebra import MAPS

ROW_WISE: tuple[type[Node], ...] = (
    *MAPS,
    *(Cast, Reshape, Transpose, Slice, Pad, Concat, Sum, Max, Min, LogSumExp, Softmax, Argmax, Pick, Place),
    *(Broadcast, Contract),
)

MESSAGES = (
    "CREATE MODEL m INPUT nodes (id BIGINT, x FLOAT[3]), edges (src BIGINT, dst BIGINT, w FLOAT) "
    "AS WITH h AS (SELECT id, LINEAR(x, 2) AS h FROM nodes), "
    "s AS (SELECT e.dst AS id, SUM(e.w * h.h) AS h FROM edges e JOIN h ON h.id = e.src GROUP BY e.dst) "
    "SELECT id, LINEAR(h, 1) AS y FROM s MINIMIZE AVG(y * y)"
)


@rule(
    Take,
    law="take(take(x, i), j) = take(x, take(i, j))",
    before="take(take(x, i), j)",
    after="take(x, take(i, j))",
    why="a batch of a join is an index into the table: the joined rows are never all there",
    databases="join composition; late materialization",
    learning="index composition: batching a join without building it",
    example="CREATE MODEL m INPUT flights (plane BIGINT, delay FLOAT), planes (id BIGINT, maker BIGINT), "
    "makers (id BIGINT, since FLOAT) "
    "AS WITH p AS (SELECT planes.id, since FROM planes JOIN makers ON makers.id = maker) "
    "SELECT LINEAR(since, 1) AS y, delay FROM flights JOIN p ON p.id = plane MINIMIZE AVG((y - delay) ** 2)",
)
def take_of_take(node: Node) -> Node | None:
    match node:
        case Take(Take(x, i), j) if i.type.rows != UNIT:
            return Take(x, Take(i, j))
    return None


@rule(
    Take,
    law="take(f(x), i) = f(take(x, i)) for an f of one row",
    before="take(f(x), i)",
    after="f(take(x, i))",
    when="a parameter reaches x, and all that is taken of f(x) is fewer rows than x has",
    why="f runs on the rows that are read only; where no parameter reaches x the law is used the other way round",
    databases="selection pushdown: rows are dropped before expressions run",
    learning="computing only the rows that are read, as in neighbour sampling",
    example="CREATE MODEL m INPUT nodes (id BIGINT, x FLOAT[3]), labels (id BIGINT, y FLOAT) "
    "AS WITH h AS (SELECT id, TANH(LINEAR(x, 2)) AS h FROM nodes) "
    "SELECT SUM_OF(h.h) AS z, y FROM labels JOIN h USING (id) MINIMIZE AVG((z - y) ** 2)",
    with_readers=True,
)
def take_first(node: Node, readers: Mapping[Node, Sequence[Node]]) -> Node | None:
    assert isinstance(node, Take)
    x, index = node.x, node.index
    if not isinstance(x, ROW_WISE) or UNIT in (x.type.rows, index.type.rows) or not is_learned(x):
        return None
    takes = readers.get(x, [x])  # without readers it was made in this pass: the next one knows them
    if not all(isinstance(n, Take) and n.x is x for n in takes):
        return None
    counts = [n.type.rows.rows for n in takes]
    rows = x.type.rows.rows
    if rows is None or None in counts or sum(c or 0 for c in counts) >= rows:
        return None
    inputs = [n if n.type.rows == UNIT else Take(n, index) for n in x.inputs]
    if isinstance(x, Broadcast):
        return broadcast(inputs[0], x.target.with_(rows=index.type.rows))
    return x.with_inputs(inputs)


def pays(x: Node, *indexes: Node) -> bool:
    """Whether taken rows should stay unwritten: not the few that a batch looks up in a table of parameters.

    Before the gradient is taken a table is a parameter, and its update is to see which rows of it are read.
    """
    return x.type.rows != UNIT or not (isinstance(x, Parameter) or is_learned(*indexes))


@rule(
    Segment,
    law="segment(w * take(x, i), j) = group_join(x, i, j, w)",
    before="segment(w * take(x, i), j)",
    after="group_join(x, i, j, w)",
    when="w is one number a row, or absent; x is no table of parameters that a batch looks up",
    why="a join and the GROUP BY above it become one pass: the joined rows are never written to memory",
    databases="groupjoin: join and aggregation in one operator",
    learning="fused message passing: gather and scatter as one sparse product",
    example=MESSAGES,
)
def join_and_group(node: Node) -> Node | None:
    assert isinstance(node, Segment)
    match node.x:
        case Take() as taken:
            weight = None
        case Multiply(Take() as taken, w) if is_weight(w, taken):
            weight = w
        case Multiply(w, Take() as taken) if is_weight(w, taken):
            weight = w
        case _:
            return None
    if taken.index.type.rows != node.index.type.rows or not pays(taken.x, taken.index, node.index):
        return None
    weight = Reshape(weight, ()) if weight is not None and weight.type.shape else weight
    new = GroupJoin(taken.x, taken.index, node.index, node.rows, weight, node.size)
    return new if new.type == node.type else None


def is_weight(w: Node, taken: Node) -> bool:
    """Whether ``w`` is one number for each of the taken rows."""
    return w.type.rows == taken.type.rows and w.type.rank <= taken.type.rank and all(d == 1 for d in w.type.shape)


@rule(
    Contract,
    law="dot(take(x, i), take(y, j)) = pair_dot(x, i, y, j)",
    before="contract(take(x, i), take(y, j))",
    after="pair_dot(x, i, y, j)",
    when="whole entries are multiplied and summed; x and y are no tables of parameters that a batch looks up",
    why="the products are summed as the rows are read: neither side of the join is written to memory",
    databases="late materialization: aggregate pushed into the join",
    learning="sampled dense-dense product (SDDMM)",
    example="CREATE MODEL m INPUT nodes (id BIGINT, x FLOAT[3]), links (a BIGINT, b BIGINT, y FLOAT) "
    "AS WITH h AS (SELECT id, LINEAR(x, 2) AS h FROM nodes) "
    "SELECT DOT(p.h, q.h) AS z, y FROM links JOIN h p ON p.id = a JOIN h q ON q.id = b MINIMIZE AVG((z - y) ** 2)",
)
def dot_of_takes(node: Node) -> Node | None:
    match node:
        case Contract(_, Take(x, i), Take(y, j)) if UNIT not in (i.type.rows, j.type.rows):
            a, b, out = node.letters()
            new = PairDot(x, i, y, j) if a == b and out == ROW and pays(x, i, j) and pays(y, i, j) else None
            return new if new is not None and new.type == node.type else None
    return None


@rule(
    GroupJoin,
    law="group_join(x W + b, i, j, w) = group_join(x, i, j, w) W + group_join(1, i, j, w) b",
    before="group_join(x W, i, j, w)",
    after="group_join(x, i, j, w) W",
    when="no parameter reaches x and w, and there are no more groups than rows of x",
    why="A (X W) = (A X) W: what is gathered along the join never changes, so it is gathered once instead of in every "
    "step, and its gradient goes with it",
    databases="eager aggregation",
    learning="A(XW) = (AX)W; precomputed propagation",
    example=MESSAGES,
)
def aggregate_first(node: Node) -> Node | None:
    assert isinstance(node, GroupJoin)
    x, weight = node.x, node.weight
    groups, rows = node.rows.rows, x.type.rows.rows
    if node.rows == UNIT or groups is None or rows is None or groups > rows:
        return None
    if weight is not None and is_learned(weight):
        return None
    match x:
        case Contract(spec, y, w) if is_product_of_data(y, w):
            return Contract(spec, node.with_inputs([y, *node.inputs[1:]]), w)
        case Add(Contract(_, y, w) as product, b) if is_product_of_data(y, w) and b.type.rows == UNIT:
            ones = broadcast(like(1, x), x.type.with_(shape=()))
            total = Reshape(node.with_inputs([ones, *node.inputs[1:]]), (1,) * x.type.rank)
            return Add(node.with_inputs([product, *node.inputs[1:]]), Multiply(total, b))
    return None


def is_product_of_data(x: Node, w: Node) -> bool:
    """Whether fixed rows are multiplied by something of the unit row set that learns."""
    return x.type.rows != UNIT and w.type.rows == UNIT and is_learned(w) and not is_learned(x)


@rule(
    Concat,
    law="concat(take(x, i), take(y, i)) = take(concat(x, y), i)",
    before="concat(take(x, i), take(y, i), take(z, j))",
    after="concat(take(concat(x, y), i), take(z, j))",
    when="no parameter reaches x and y",
    why="the columns of a table are laid side by side once, and a batch is one gather a table instead of one a column",
    databases="column groups: one look-up for all columns of a table",
    learning="one gather per table; horizontal fusion",
    example="CREATE MODEL m INPUT flights (plane BIGINT, delay FLOAT), planes (id BIGINT, seats FLOAT, age FLOAT) "
    "AS SELECT LINEAR([delay, p.seats, p.age], 1) AS y FROM flights f JOIN planes p ON p.id = f.plane "
    "MINIMIZE AVG(y ** 2)",
)
def takes_side_by_side(node: Node) -> Node | None:
    assert isinstance(node, Concat)
    runs: list[list[Node]] = []
    for part in node.parts:
        if runs and (index := fixed_index(part)) is not None and fixed_index(runs[-1][0]) is index:
            runs[-1].append(part)
        else:
            runs.append([part])
    if len(runs) in (1, len(node.parts)):
        return None  # nothing to gain, or all of one index: take_last
    return Concat(tuple(joined(run, node.axis) for run in runs), node.axis)


def fixed_index(node: Node) -> Node | None:
    """The index of rows that are taken of fixed data."""
    if isinstance(node, Take) and node.x.type.rows != UNIT and not is_learned(node.x):
        return node.index
    return None


def joined(run: Sequence[Node], axis: int) -> Node:
    """Takes of one index as one take."""
    if len(run) == 1:
        return run[0]
    takes = [n for n in run if isinstance(n, Take)]
    return Take(Concat(tuple(t.x for t in takes), axis), takes[0].index)
