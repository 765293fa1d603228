"""Take: rows picked by an index. It is a join, a filter, a sort, a mini-batch; to a network, an embedding lookup.

Its gradient is Segment, a GROUP BY. Pick and Place do the same along the last axis inside a row.
"""

from __future__ import annotations

from typing import ClassVar

from ...types import UNIT, Dim, Type, TypeProblem, common_rows, promote
from ..node import At, Elements, Emitter, Node, Operand, Reach, operator, size_of
from ..work import CALL, Access, Work
from . import reduce as reduces
from . import segment as segments
from .leaf import Index


def check_index(index: Node) -> None:
    """Raise TypeProblem unless the values of ``index`` are positions."""
    if index.type.element.kind not in ("integer", "category"):
        raise TypeProblem(f"an index must be an integer or a class label, not {index.type.element}")


def taken(x: Node, index: Node) -> Type:
    """The type of the rows of x that an index picks: a value of the unit row set has its rows along its first axis."""
    check_index(index)
    t = x.type
    if t.rows == UNIT and not t.shape:
        raise TypeProblem("there are no rows to take")
    return Type(index.type.rows, t.element, t.shape[1:] if t.rows == UNIT else t.shape)


def reads(x: Node, index: Node) -> Access:
    """The rows of x that an index picks, as memory sees them."""
    t = taken(x, index)
    row_bytes = size_of(t.with_(rows=UNIT)) * t.element.bytes
    return Access(t.rows.rows or 1, row_bytes, x.nbytes, is_of_batch(index))


def is_of_batch(index: Node) -> bool:
    """Whether an index comes from the rows of a batch, so that every step has another."""
    return isinstance(index, Index) or any(is_of_batch(n) for n in index.inputs)


@operator
class Take(Node):
    """Row ``index`` of x, for every row of the index. A value of the unit row set is taken along its first axis."""

    kind: ClassVar[str] = "take"
    x: Node
    index: Node

    def infer(self) -> Type:
        return taken(self.x, self.index)

    def vjp(self, g: Node) -> tuple[Node | None, ...]:
        if self.x.type.element.kind != "float":
            return None, None
        t = self.x.type
        return segments.Segment(g, self.index, t.rows, t.shape[0] if t.rows == UNIT else 0), None

    def bytes(self) -> int:
        """Only the rows that are taken are read."""
        return self.index.nbytes + 2 * self.nbytes

    def work(self) -> Work:
        return Work(streamed=self.index.nbytes + self.nbytes, gathered=(reads(self.x, self.index),), calls=CALL)

    def emit(self, e: Emitter, out: str, *inputs: str) -> None:
        # "clip" lets NumPy write into the output directly; indexes are checked when they are made
        e.call(f"{inputs[0]}.take", inputs[1], "0", out, "'clip'")

    def number(self, e: Elements, at: At) -> str:
        t = self.x.type
        place = e.position(self.index, At(at.row), t.shape[0] if t.rows == UNIT else t.rows)
        return e.value(self.x, At("", (place, *at.entry)) if t.rows == UNIT else At(place, at.entry))

    def reaches(self) -> tuple[Reach, ...]:
        return Reach.ALL, Reach.PLACE


@operator
class Pick(Node):
    """The value at position ``index`` (from 0) of a vector: each row's own, or one that all rows share."""

    kind: ClassVar[str] = "take"
    functions: ClassVar[tuple[str, ...]] = ("PICK",)
    x: Node
    index: Node

    def infer(self) -> Type:
        check_index(self.index)
        t = self.x.type
        if t.rank != 1:
            raise TypeProblem("PICK takes a vector a row")
        return Type(common_rows(t.rows, self.index.type.rows), t.element)

    def vjp(self, g: Node) -> tuple[Node | None, ...]:
        if self.x.type.element.kind != "float":
            return None, None
        size = self.x.type.shape[0]
        if self.x.type.rows == UNIT and self.index.type.rows != UNIT:
            return segments.Segment(g, self.index, UNIT, size), None
        return Place(g, self.index, size), None

    def work(self) -> Work:
        """Out of a table that all rows share it is a Take; out of each row, NumPy's indexing by two arrays."""
        element, size = self.x.type.element.bytes, size_of(self.type)
        own = self.x.type.rows != UNIT
        access = Access(size, element, 0 if own else self.x.nbytes)
        streamed = self.index.nbytes + self.nbytes
        return Work(streamed=streamed, gathered=(access,) * (4 if own else 1), calls=(("call", 4 if own else 1),))

    def emit(self, e: Emitter, out: str, *inputs: str) -> None:
        if self.x.type.rows == UNIT:
            e.call(f"{inputs[0]}.take", inputs[1], "0", out, "'clip'")
        else:
            rows = e.once(f"arange({e.count(self)})")
            e.line(f"copyto({out}, {inputs[0]}[{rows}, {inputs[1]}])")

    def number(self, e: Elements, at: At) -> str:
        own = self.index.type.rows != UNIT
        place = e.position(self.index, At(at.row if own else ""), self.x.type.shape[0])
        return e.value(self.x, At("" if self.x.type.rows == UNIT else at.row, (place,)))

    def reaches(self) -> tuple[Reach, ...]:
        return Reach.ROW, Reach.PLACE


@operator
class Place(Node):
    """A vector a row that holds x at position ``index`` (from 0) and zeros elsewhere; with ``base``, added to it."""

    kind: ClassVar[str] = "segment"
    in_place: ClassVar[bool] = True
    x: Node
    index: Node
    size: Dim
    base: Node | None = None

    def infer(self) -> Type:
        check_index(self.index)
        t = self.x.type
        if t.rank:
            raise TypeProblem("PLACE takes one number a row")
        out = Type(common_rows(t.rows, self.index.type.rows), promote(t.element), (self.size,))
        if self.base is not None and self.base.type != out:
            raise TypeProblem(f"a number of {out} cannot be added to {self.base.type}")
        return out

    def vjp(self, g: Node) -> tuple[Node | None, ...]:
        t = self.x.type
        by_x = reduces.sum_to(Pick(g, self.index), t) if t.element.kind == "float" else None
        return (by_x, None) if self.base is None else (by_x, None, g)

    def flops(self) -> int:
        return 0 if self.base is None else self.type.rows.rows or 1

    def work(self) -> Work:
        """The zeros or the base, the places, and an assignment by an index, which reads a base first."""
        access, times = Access(self.type.rows.rows or 1, self.type.element.bytes, 0), 3 if self.base is None else 6
        streamed = self.nbytes * (1 if self.base is None else 2) + self.index.nbytes
        return Work((("add", self.flops()),), streamed=streamed, gathered=(access,) * times, calls=(("call", 6),))

    def emit(self, e: Emitter, out: str, *inputs: str) -> None:
        if self.base is None:
            e.call("fill", "0", out)
        else:
            e.copy(inputs[2], out)
        flat, place = out, inputs[1]
        if e.count(self):
            starts = e.once(f"arange(0, {e.count(self)} * {self.size}, {self.size})")
            place = e.temporary(self.index.type.with_(rows=self.type.rows))
            e.call("add", starts, inputs[1], place)
            flat = e.view(out, ".reshape(-1)")
        e.line(f"{flat}[{place}] {'=' if self.base is None else '+='} {inputs[0]}")

    def number(self, e: Elements, at: At) -> str:
        own = At("" if self.index.type.rows == UNIT else at.row)
        here = f"{at.entry[0]} == {e.position(self.index, own, self.size)}"
        x = self.x, At("" if self.x.type.rows == UNIT else at.row)
        if self.base is None:
            return e.arithmetic("where(here, x, 0)", {"here": here, "x": x}, self.type.element)
        arguments: dict[str, Operand] = {"here": here, "x": x, "base": (self.base, at)}
        return e.arithmetic("base + where(here, x, 0)", arguments, self.type.element)

    def reaches(self) -> tuple[Reach, ...]:
        return (Reach.PLACE,) * len(self.inputs)
