"""Segment and group joins: rows folded by an index. They are GROUP BY, alone and on top of a join.

To a network a Segment is a scatter-add or a pooling, and a GroupJoin is message passing, a product with a sparse
matrix. Their gradients are joins: the gradient of a GROUP BY hands each row its group's share.
"""

from __future__ import annotations

from typing import ClassVar

from ...types import UNIT, Dim, RowSet, Type, TypeProblem, common_rows, promote
from ..node import Emitter, Node, Reach, operator, size_of
from ..work import COMPILED, Access, Work
from . import map as maps
from . import reduce as reduces
from . import shape as shapes
from . import take as takes
from .leaf import Positions


class GroupBy(Node):
    """Base of the operators with one output row a group: on the row set ``rows``, or on a first axis of ``size``."""

    kind: ClassVar[str] = "segment"
    x: Node
    rows: RowSet
    size: Dim

    def of_groups(self, type: Type) -> Type:
        """The type of one entry a group."""
        return type.with_(rows=self.rows, shape=(self.size, *type.shape) if self.rows == UNIT else type.shape)

    def groups(self, e: Emitter) -> str:
        """The text of the number of groups."""
        return e.count(self) or str(self.size)


class Segmented(GroupBy):
    """Base of the folds of rows by an index."""

    index: Node

    def infer(self) -> Type:
        takes.check_index(self.index)
        common_rows(self.x.type.rows, self.index.type.rows)
        return self.of_groups(self.x.type.with_(element=promote(self.x.type.element)))

    def flops(self) -> int:
        return size_of(self.x.type.with_(rows=common_rows(self.x.type.rows, self.index.type.rows)))

    def work(self) -> Work:
        """Every row is added to its group's, wherever that lies."""
        rows, groups = common_rows(self.x.type.rows, self.index.type.rows).rows or 1, entries(self)
        row_bytes = self.nbytes // groups
        return Work(
            (("group", self.flops()),), streamed=self.bytes(), scattered=(Access(rows, row_bytes, self.nbytes),),
            loops=(("group", groups),), calls=COMPILED, is_double=self.is_double,
        )  # fmt: skip


@operator
class Segment(Segmented):
    """The sum of the rows of x that share an index: row k of the output sums x where index = k.

    ``rows`` is the row set of the output; with the unit row set the groups are a first axis of ``size``.
    """

    x: Node
    index: Node
    rows: RowSet
    size: Dim = 0

    def vjp(self, g: Node) -> tuple[Node | None, ...]:
        return reduces.sum_to(takes.Take(g, self.index), self.x.type), None

    def emit(self, e: Emitter, out: str, *inputs: str) -> None:
        if not self.x.type.shape:  # NumPy is as fast as a compiled loop here
            e.call("fill", "0", out)
            e.call("add.at", out, inputs[1], inputs[0])
        elif e.is_fixed(self.index):
            e.call("sum_groups", inputs[0], e.once(f"group_rows({inputs[1]}, {self.groups(e)})"), out)
        else:
            e.call("add_rows", *inputs, out)

    def reaches(self) -> tuple[Reach, ...]:
        return (Reach.PLACE,) * 2


class SegmentBest(Segmented):
    """Base of the largest and the smallest value of each group."""

    is_largest: ClassVar[bool]

    def vjp(self, g: Node) -> tuple[Node | None, ...]:
        best = takes.Take(self, self.index)
        winners = maps.Cast(maps.Equal(self.x, best), promote(self.x.type.element))
        share = maps.Divide(g, Segment(winners, self.index, self.rows, self.size))
        return reduces.sum_to(maps.Multiply(winners, takes.Take(share, self.index)), self.x.type), None

    def emit(self, e: Emitter, out: str, *inputs: str) -> None:
        groups = f"group_rows({inputs[1]}, {self.groups(e)})"
        groups = e.once(groups) if e.is_fixed(self.index) else groups
        e.call("best_of_groups", inputs[0], groups, self.is_largest, out)


@operator
class SegmentMax(SegmentBest):
    """The largest value of the rows of x that share an index, number by number: GROUP BY with MAX.

    Values that share the first place share the gradient. A group without rows has the value 0; the groups that a
    GROUP BY gives always have rows.
    """

    is_largest: ClassVar[bool] = True
    x: Node
    index: Node
    rows: RowSet
    size: Dim = 0


@operator
class SegmentMin(SegmentBest):
    """The smallest value of the rows of x that share an index, number by number: GROUP BY with MIN.

    Values that share the first place share the gradient. A group without rows has the value 0; the groups that a
    GROUP BY gives always have rows.
    """

    is_largest: ClassVar[bool] = False
    x: Node
    index: Node
    rows: RowSet
    size: Dim = 0


@operator
class GroupJoin(GroupBy):
    """A join and a GROUP BY with SUM in one: row k sums weight * x[source] over the joined rows where group = k.

    ``source`` and ``group`` are positions for the joined rows, and so is ``weight``, one number each (none: 1). The
    joined rows are never written to memory. With ``rows`` the unit row set the groups are a first axis of ``size``.
    Moerkotte and Neumann, "Accelerating Queries with Group-By and Join by Groupjoin", VLDB 2011; to a network it is
    message passing, to linear algebra the product of a sparse and a dense matrix.
    """

    x: Node
    source: Node
    group: Node
    rows: RowSet
    weight: Node | None = None
    size: Dim = 0

    def infer(self) -> Type:
        entry = takes.taken(self.x, self.source)
        takes.check_index(self.group)
        if self.source.type.rows != self.group.type.rows:
            raise TypeProblem(f'rows of "{entry.rows}" and rows of "{self.group.type.rows}" do not match up')
        elements = [entry.element]
        if self.weight is not None:
            if (self.weight.type.rows, self.weight.type.shape) != (entry.rows, ()):
                raise TypeProblem(f'a weight is one number for each row of "{entry.rows}", not {self.weight.type}')
            elements.append(self.weight.type.element)
        return self.of_groups(entry.with_(element=promote(*elements)))

    def vjp(self, g: Node) -> tuple[Node | None, ...]:
        t = self.x.type
        size = t.shape[0] if t.rows == UNIT else 0
        by_x = GroupJoin(g, self.group, self.source, t.rows, self.weight, size) if t.element.kind == "float" else None
        if self.weight is None:
            return by_x, None, None
        is_float = self.weight.type.element.kind == "float"
        return by_x, None, None, PairDot(self.x, self.source, g, self.group) if is_float else None

    def simpler(self) -> Node:
        entries = takes.Take(self.x, self.source)
        return Segment(
            entries if self.weight is None else weighted(entries, self.weight), self.group, self.rows, self.size
        )

    def joined_size(self) -> int:
        """Numbers that a join would have written."""
        return size_of(takes.taken(self.x, self.source))

    def flops(self) -> int:
        return self.joined_size() * (1 if self.weight is None else 2)

    def bytes(self) -> int:
        """Every joined row reads an entry of x, but none is written."""
        positions = sum(n.nbytes for n in self.inputs[1:])
        return positions + self.joined_size() * self.x.type.element.bytes + self.nbytes

    def work(self) -> Work:
        """Every joined row reads its entry, wherever that lies, and adds it to its group's, which are in order."""
        read, weight = takes.reads(self.x, self.source), self.weight
        weights = () if weight is None else (Access(read.rows, weight.type.element.bytes, weight.nbytes),)
        return Work(
            (("group", self.flops()),), streamed=sum(n.nbytes for n in self.inputs[1:]) + self.nbytes,
            gathered=(read, *weights), scattered=(Access(read.rows, read.row_bytes, 0),),
            loops=(("group", entries(self)),), calls=COMPILED, is_double=self.is_double,
        )  # fmt: skip

    def emit(self, e: Emitter, out: str, *inputs: str) -> None:
        x, source, group, weight = (*inputs, "None")[:4]
        if e.is_fixed(self.source) and e.is_fixed(self.group):
            e.call("sum_joined", x, joined(e, self.x, source, group, self.groups(e)), weight, out)
        else:
            e.call("add_joined", x, source, group, weight, out)


@operator
class PairDot(Node):
    """The inner product of x[i] and y[j] for every row of the indexes, neither of them written to memory.

    It is the gradient of a GroupJoin by its weights, and what matrix factorization and link prediction compute; to
    linear algebra, a product of dense matrices at the places of a sparse one.
    """

    kind: ClassVar[str] = "take"
    x: Node
    i: Node
    y: Node
    j: Node

    def infer(self) -> Type:
        left, right = takes.taken(self.x, self.i), takes.taken(self.y, self.j)
        if left.rows != right.rows:
            raise TypeProblem(f'rows of "{left.rows}" and rows of "{right.rows}" do not match up')
        if left.shape != right.shape:
            raise TypeProblem("an inner product takes two entries of one shape")
        return Type(left.rows, promote(left.element, right.element))

    def vjp(self, g: Node) -> tuple[Node | None, ...]:
        return self.by(g, self.x, self.i, self.y, self.j), None, self.by(g, self.y, self.j, self.x, self.i), None

    def simpler(self) -> Node:
        products = maps.Multiply(takes.Take(self.x, self.i), takes.Take(self.y, self.j))
        return shapes.Reshape(reduces.Sum(products, False, tuple(range(products.type.rank))), ())

    def by(self, g: Node, x: Node, i: Node, y: Node, j: Node) -> Node | None:
        """The derivative by one of the tables."""
        size = x.type.shape[0] if x.type.rows == UNIT else 0
        return GroupJoin(y, j, i, x.type.rows, g, size) if x.type.element.kind == "float" else None

    def flops(self) -> int:
        return 2 * size_of(takes.taken(self.x, self.i))

    def bytes(self) -> int:
        """Every row reads an entry of each table."""
        read = takes.Take(self.x, self.i).nbytes + takes.Take(self.y, self.j).nbytes
        return read + self.i.nbytes + self.j.nbytes + self.nbytes

    def work(self) -> Work:
        """By positions that stay, the joined rows are in the order of ``j``: those of y are read one after another."""
        streamed = self.i.nbytes + self.j.nbytes + self.nbytes
        first, second = takes.reads(self.x, self.i), takes.reads(self.y, self.j)
        in_order = isinstance(self.i, Positions) and isinstance(self.j, Positions)
        return Work(
            (("group", self.flops()),), streamed=streamed + (second.bytes if in_order else 0),
            gathered=(first,) if in_order else (first, second),
            scattered=(Access(first.rows, self.type.element.bytes, self.nbytes),) if in_order else (),
            calls=COMPILED, is_double=self.is_double,
        )  # fmt: skip

    def emit(self, e: Emitter, out: str, *inputs: str) -> None:
        x, i, y, j = inputs
        if e.is_fixed(self.i) and e.is_fixed(self.j):
            e.call("joined_dots", x, joined(e, self.x, i, j, table_size(e, self.y)), y, out)
        else:
            e.call("pair_dots", x, i, y, j, out)


def weighted(entry: Node, weight: Node) -> Node:
    """Every row's entry times the row's weight."""
    return maps.Multiply(entry, shapes.Reshape(weight, (1,) * entry.type.rank))


def entries(node: GroupBy) -> int:
    """The number of groups, an unknown one counted as 1."""
    size = node.rows.rows if node.rows != UNIT else node.size
    return size if isinstance(size, int) and size else 1


def table_size(e: Emitter, x: Node) -> str:
    """The text of the number of rows that can be taken from x."""
    return e.count(x) or str(x.type.shape[0])


def joined(e: Emitter, x: Node, source: str, group: str, groups: str) -> str:
    """The name of the joined rows in the order of their groups; operators over the same positions share it."""
    return e.once(f"join_rows({source}, {group}, {table_size(e, x)}, {groups})")
