"""Tables of parameters of which a step reads some rows: ScatterAdd, Put and KeySum.

A table is a value of the unit row set whose first axis counts its rows. A batch reads it with Take; these operators
write to the rows that were read. They run in the table's own array, so a step costs what its batch costs.
"""

from __future__ import annotations

from typing import ClassVar

from ...types import INTEGER, UNIT, Dim, Type, TypeProblem, common_rows, promote
from ..node import Emitter, Node, Reach, operator, size_of
from ..work import Access, Work
from . import map as maps
from .leaf import Constant
from .reduce import broadcast, sum_to
from .take import Take, reads


def check_rows(base: Type, x: Type, index: Type) -> None:
    """Whether the rows of x fit into the rows of a table that an index names."""
    if base.rows != UNIT or not base.shape:
        raise TypeProblem(f"{base} has no rows to write to")
    if index.element.kind not in ("integer", "category") or index.shape:
        raise TypeProblem(f"an index must be one integer or class label a row, not {index}")
    if x != Type(index.rows, base.element, base.shape[1:]):
        raise TypeProblem(f"{x} is no row of {base}")


@operator
class ScatterAdd(Node):
    """A table with multiples of rows added to it: row k is row k of base plus scale * x of all rows with index = k.

    There may be several ``x``, each with its index and its scale: those of a table that is read in several places. A
    scale is one number, or one a row. A row whose scale is 0 is not read, so it may be NaN, as in BLAS.
    """

    kind: ClassVar[str] = "update"
    in_place: ClassVar[bool] = True
    base: Node
    x: tuple[Node, ...]
    index: tuple[Node, ...]
    scale: tuple[Node, ...]

    def infer(self) -> Type:
        for x, index, scale in self.parts():
            check_rows(self.base.type, x.type, index.type)
            common_rows(scale.type.rows, index.type.rows)
            if scale.type.shape or scale.type.element.kind != "float":
                raise TypeProblem(f"a scale must be one number a row, not {scale.type}")
        return self.base.type

    def parts(self) -> list[tuple[Node, Node, Node]]:
        """Every x with its index and its scale."""
        return list(zip(self.x, self.index, self.scale, strict=True))

    def vjp(self, g: Node) -> tuple[Node | None, ...]:
        taken = [Take(g, index) for index in self.index]
        by_x = [maps.Multiply(t, scale) for t, scale in zip(taken, self.scale, strict=True)]
        inner = [maps.Multiply(t, x) for t, x in zip(taken, self.x, strict=True)]
        by_scale = [sum_to(p, s.type) for p, s in zip(inner, self.scale, strict=True)]
        return (g, *by_x, *(None for _ in self.index), *by_scale)

    def flops(self) -> int:
        return sum(2 * size_of(x.type) for x in self.x)

    def bytes(self) -> int:
        """Only the rows that the indexes name are touched: they are read and written."""
        return sum(3 * x.nbytes + index.nbytes + scale.nbytes for x, index, scale in self.parts())

    def work(self) -> Work:
        streamed = sum(x.nbytes + index.nbytes + scale.nbytes for x, index, scale in self.parts())
        return written(self, streamed)

    def emit(self, e: Emitter, out: str, *inputs: str) -> None:
        e.copy(inputs[0], out)
        count = len(self.x)
        for i in range(1, count + 1):
            e.call("add_scaled_rows", inputs[i], inputs[i + count], inputs[i + 2 * count], out)

    def simpler(self) -> Node:
        """One after another, each with one ``x``."""
        if len(self.x) == 1:
            return self
        done = self.base
        for x, index, scale in self.parts():
            done = ScatterAdd(done, (x,), (index,), (scale,))
        return done

    def reaches(self) -> tuple[Reach, ...]:
        return (Reach.ALL, *(Reach.PLACE,) * (len(self.inputs) - 1))


def written(node: ScatterAdd | Put, streamed: int) -> Work:
    """The rows of a table that several indexes name, written wherever they lie: a step has read them just before."""
    read = [reads(node.base, index) for index in node.index]
    rows = tuple(Access(a.rows, a.row_bytes, min(a.bytes, a.table_bytes)) for a in read)
    return Work(
        (("group", node.flops()),), streamed=streamed, scattered=rows, calls=(("compiled", len(node.x)),),
        is_double=node.is_double,
    )  # fmt: skip


@operator
class Put(Node):
    """A table with some rows replaced: where an index is k, row k is that row of x; every other row is that of base.

    There may be several ``x``, each with its index. Rows with the same index must hold the same values: only then does
    their order not matter.
    """

    kind: ClassVar[str] = "update"
    in_place: ClassVar[bool] = True
    base: Node
    x: tuple[Node, ...]
    index: tuple[Node, ...]

    def infer(self) -> Type:
        for x, index in zip(self.x, self.index, strict=True):
            check_rows(self.base.type, x.type, index.type)
        return self.base.type

    def vjp(self, g: Node) -> tuple[Node | None, ...]:
        nothing = tuple(broadcast(Constant((0.0,), g.type.element), x.type) for x in self.x)
        return (Put(g, nothing, self.index), *(Take(g, index) for index in self.index), *(None for _ in self.index))

    def bytes(self) -> int:
        """Only the rows that the indexes name are written."""
        return sum(2 * x.nbytes + index.nbytes for x, index in zip(self.x, self.index, strict=True))

    def work(self) -> Work:
        return written(self, sum(n.nbytes for n in (*self.x, *self.index)))

    def emit(self, e: Emitter, out: str, *inputs: str) -> None:
        e.copy(inputs[0], out)
        count = len(self.x)
        for x, index in zip(inputs[1 : 1 + count], inputs[1 + count :], strict=True):
            e.call("put_rows", x, index, out)

    def simpler(self) -> Node:
        """One after another, each with one ``x``."""
        if len(self.x) == 1:
            return self
        done = self.base
        for x, index in zip(self.x, self.index, strict=True):
            done = Put(done, (x,), (index,))
        return done

    def reaches(self) -> tuple[Reach, ...]:
        return (Reach.ALL, *(Reach.PLACE,) * (len(self.inputs) - 1))


@operator
class KeySum(Node):
    """For every row of ``by``, the sum of x over all rows whose index is the same: SUM(x) OVER (PARTITION BY index).

    It is Take(Segment(x, index), by) without the table of all ``size`` groups. There may be several ``x``, each with
    its index; their rows are added in this order.
    """

    kind: ClassVar[str] = "segment"
    x: tuple[Node, ...]
    index: tuple[Node, ...]
    by: Node
    size: Dim

    def infer(self) -> Type:
        t = self.x[0].type
        table = Type(UNIT, promote(t.element), (self.size, *t.shape))
        for x, index in zip(self.x, self.index, strict=True):
            check_rows(table, x.type, index.type)
        out = table.with_(rows=self.by.type.rows, shape=t.shape)
        check_rows(table, out, self.by.type)
        return out

    def vjp(self, g: Node) -> tuple[Node | None, ...]:
        by_x = (KeySum((g,), (self.by,), index, self.size) for index in self.index)
        return (*by_x, *(None for _ in self.index), None)

    def flops(self) -> int:
        return sum(size_of(x.type) for x in self.x)

    def bytes(self) -> int:
        """x is read once and its sums are read and written; the scratch array is touched for every key twice."""
        keys = (self.by, *self.index)
        return sum(3 * x.nbytes for x in self.x) + 2 * self.nbytes + sum(2 * k.nbytes for k in keys)

    def work(self) -> Work:
        """A look at the scratch array of keys for every row, three times, and the sums between them."""
        keys = (self.by, *self.index, self.by)
        scratch = self.size * INTEGER.bytes if isinstance(self.size, int) else INTEGER.bytes
        looks = tuple(Access(size_of(k.type), INTEGER.bytes, scratch) for k in keys)
        row_bytes = self.nbytes // size_of(self.by.type)
        sums = tuple(Access(size_of(k.type), row_bytes, self.nbytes) for k in self.index)
        return Work(
            (("group", self.flops()),), streamed=sum(n.nbytes for n in (*self.x, *keys)) + 2 * self.nbytes,
            scattered=(*looks, *sums), calls=(("compiled", 2 + len(self.x)),), is_double=self.is_double,
        )  # fmt: skip

    def emit(self, e: Emitter, out: str, *inputs: str) -> None:
        count = len(self.x)
        by = inputs[-1]
        first = e.temporary(Type(UNIT, INTEGER, (self.size,)))
        e.call("find_first", by, first, out)
        for x, index in zip(inputs[:count], inputs[count:-1], strict=True):
            e.call("add_to_first", x, index, by, first, out)
        e.call("copy_first", by, first, out)
