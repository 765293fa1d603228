"""Tables of parameters: a step changes only the rows that its batch reads.

A parameter of shape (K, ...) that the loss reads only by an index is a table, such as the factors of the users and of
the items in a factorization. It has a state of its own, and so has everything that the update rule carries for it.
The update is *lazy*: a row that the batch does not read keeps its weights, its velocity and its moments, and weight
decay works on the rows that are read; Adam corrects its moments by the number of the step. So does SparseAdam in
PyTorch. Under SGD without momentum and weight decay this is what an update of the whole table would do.

Three plans compute it, and the first that fits is taken:

- *scatter*, where the direction is the gradient itself: the rows are added to the table as they are.
- *rows*, where fewer rows are read than the table has: the gradients of rows with the same key are added up, the update
  rule runs on the rows that were read, and the new rows replace the old ones.
- *masked*, else: the update rule runs on the whole table, and rows that were not read keep what they had.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence

from ..planner.node import Node, depends_on, readers
from ..planner.ops import (
    Add,
    And,
    Contract,
    Greater,
    KeySum,
    Multiply,
    Parameter,
    Pick,
    Put,
    Reshape,
    ScatterAdd,
    Segment,
    State,
    Sum,
    Take,
    Where,
    broadcast,
    cast,
    constant,
    like,
)
from ..planner.ops.contract import ROW
from ..record import record
from ..types import FLOAT, UNIT
from .updates import Transform, descend


@record
class TableGradient:
    """The gradient of a table: the nodes that read it by an index, and the gradient of the rows that each gave."""

    table: State
    reads: tuple[Take | Pick, ...]
    rows: tuple[Node, ...]

    @property
    def index(self) -> tuple[Node, ...]:
        """The index of each read."""
        return tuple(n.index for n in self.reads)

    @property
    def size(self) -> int:
        """The number of rows of the table."""
        size = self.table.shape[0]
        assert isinstance(size, int)
        return size

    @property
    def reads_few(self) -> bool:
        """Whether a step reads fewer rows than the table has; of an unknown number of rows it is expected."""
        return sum(i.type.rows.rows or 1 for i in self.index) < self.size

    def of_keys(self) -> list[Node]:
        """For every read, the gradient of the key of each of its rows: what all rows of the key add up to."""
        return [KeySum(self.rows, self.index, by, self.size) for by in self.index]

    def of_table(self) -> Node:
        """The gradient of every row of the table."""
        parts: list[Node] = [Segment(g, i, UNIT, self.size) for g, i in zip(self.rows, self.index, strict=True)]
        return functools.reduce(Add, parts)

    def square(self) -> Node:
        """The squared length of the gradient, every key counted once: the sum of g * (the gradient of its key)."""
        if not self.reads_few:
            return total(self.of_table(), self.of_table())
        return functools.reduce(Add, map(total, self.rows, self.of_keys()))


def total(x: Node, y: Node) -> Node:
    """The sum of x * y over all rows and axes."""
    t = x.type
    return Reshape(Sum(Multiply(x, y), t.rows != UNIT, tuple(range(t.rank))), ())


def table_reads(loss: Node, parameters: Collection[Node]) -> dict[Node, list[Node]]:
    """The parameters that the loss reads only by indexes that no parameter can change, and the nodes that read them."""
    learned = depends_on([loss], parameters)
    users = readers([loss])

    def takes_rows(node: Node, p: Node) -> bool:
        if not isinstance(node, (Take, Pick)) or node.x is not p:
            return False
        t = node.index.type
        return node.index not in learned and t.rows != UNIT and not t.shape

    return {
        p: users[p] for p in parameters if users.get(p) and p is not loss and all(takes_rows(n, p) for n in users[p])
    }


def table_state(parameter: Parameter) -> State:
    """The state that holds a table. No flat vector has such a name."""
    return State(f"table {parameter.name}", parameter.element, parameter.shape)


def table_gradient(table: State, reads: Sequence[Node], found: Mapping[Node, Node]) -> TableGradient:
    """The gradient of a table from those of the nodes that read it; reads that cannot change the loss are left out."""
    used = tuple(n for n in reads if isinstance(n, (Take, Pick)) and n in found)
    return TableGradient(table, used, tuple(cast(broadcast(found[n], n.type), table.element) for n in used))


def is_gradient_itself(transform: Transform, step: Node) -> bool:
    """Whether the direction of an update rule is the gradient as it is."""
    g, w = State("any gradient", FLOAT), State("any weight", FLOAT)
    return not transform.slots and transform.update(g, w, {}, step)[0] is g


def update_table(
    gradient: TableGradient, transform: Transform, rate: Node, step: Node, factor: Node | None, keep: Node | None
) -> dict[State, Node]:
    """The new values of what the update rule carries for a table, and of the table.

    ``factor`` scales the gradient (None: 1). Where ``keep`` does not hold, the step changes nothing (None: it does).
    """
    table = gradient.table
    if not gradient.rows:
        return {table: table}
    if is_gradient_itself(transform, step):
        return {table: scattered(gradient, rate if factor is None else Multiply(rate, factor), keep)}
    slots = {name: State(f"{name} of {table.name}", table.element, table.shape) for name in transform.slots}
    rule = descend(transform, rate)

    def updated(g: Node, made: Node | None, old: Callable[[State], Node]) -> dict[State, Node]:
        """The update rule on rows of the table; where ``made`` does not hold, they stay."""
        g = g if factor is None else times(g, factor)
        weights, kept = rule.update(g, old(table), {name: old(s) for name, s in slots.items()}, step)
        new = {**{s: kept[name] for name, s in slots.items()}, table: weights}
        return new if made is None else {s: Where(made, n, old(s)) for s, n in new.items()}

    if not gradient.reads_few:
        read = is_read(gradient)
        return updated(gradient.of_table(), read if keep is None else And(read, keep), lambda s: s)
    new = [
        updated(g, keep, functools.partial(old_rows, read))
        for g, read in zip(gradient.of_keys(), gradient.reads, strict=True)
    ]
    return {s: Put(s, tuple(n[s] for n in new), gradient.index) for s in (*slots.values(), table)}


def old_rows(read: Take | Pick, state: State) -> Node:
    """The rows of a state where the table is read: what was read, for the table itself."""
    return read if state is read.x else Take(state, read.index)


def scattered(gradient: TableGradient, rate: Node, keep: Node | None) -> Node:
    """The table moved against its gradient, row by row."""
    against = Multiply(rate, like(-1, rate))
    rows, scales = [], []
    for g in gradient.rows:
        row, scale = factored(g)
        scale = against if scale is None else Multiply(scale, against)
        rows.append(row)
        scales.append(scale if keep is None else Where(keep, scale, like(0, scale)))
    return ScatterAdd(gradient.table, tuple(rows), gradient.index, tuple(scales))


def factored(g: Node) -> tuple[Node, Node | None]:
    """A gradient as rows and a number a row that they are to be multiplied by: the product need not be made."""
    match g:
        case Contract(_, x, y) if g.letters()[0] == ROW and g.letters()[1] == g.letters()[2]:
            return y, x
        case Contract(_, x, y) if g.letters()[1] == ROW and g.letters()[0] == g.letters()[2]:
            return x, y
        case Multiply(x, y) if y.type == g.type and x.type.entry_size == 1:
            return y, Reshape(x, ())
        case Multiply(x, y) if x.type == g.type and y.type.entry_size == 1:
            return x, Reshape(y, ())
    return g, None


def times(g: Node, factor: Node) -> Node:
    """A gradient times a number, in its own element type."""
    return cast(Multiply(g, factor), g.type.element)


def is_read(gradient: TableGradient) -> Node:
    """For every row of a table whether it is read, in a shape that fits its rows."""
    element = gradient.table.element
    counts: list[Node] = [Segment(constant(1, element), i, UNIT, gradient.size) for i in gradient.index]
    count = functools.reduce(Add, counts)
    rank = len(gradient.table.shape)
    return Reshape(Greater(count, like(0, count)), (gradient.size, *(1,) * (rank - 1)))
