"""Shape: the same numbers seen differently. Reshape, transpose and slice are views; concat and pad place parts."""

from __future__ import annotations

from typing import ClassVar

from ...types import (
    UNIT,
    Dim,
    RowSet,
    Shape,
    Type,
    TypeProblem,
    broadcast_shapes,
    common_rows,
    concrete,
    promote,
    shape_text,
    total,
)
from ..node import At, Elements, Emitter, Node, Operand, Reach, operator
from ..work import CALL, NOTHING, Access, Work
from . import reduce as reduces


@operator
class Reshape(Node):
    """The numbers of each row's entry, in row-major order, in another shape."""

    kind: ClassVar[str] = "shape"
    is_view: ClassVar[bool] = True
    x: Node
    target: Shape

    def infer(self) -> Type:
        out = self.x.type.with_(shape=self.target)
        if out.entry_size != self.x.type.entry_size:
            raise TypeProblem(f"cannot reshape {shape_text(self.x.type.shape)} to {shape_text(self.target)}")
        return out

    def vjp(self, g: Node) -> tuple[Node | None, ...]:
        return (Reshape(g, self.x.type.shape),)

    def counts(self) -> bool:
        return self.x.is_number

    def seen(self, e: Emitter) -> str:
        return f".reshape({e.shape(self.type)})"

    def emit(self, e: Emitter, out: str, *inputs: str) -> None:
        """A copy, for an input whose numbers do not lie in row-major order."""
        e.call("copyto", e.view(out, f".reshape({e.shape(self.x.type)})"), inputs[0])

    def number(self, e: Elements, at: At) -> str:
        return e.value(self.x, At(at.row, reshaped(at.entry, concrete(self.target), concrete(self.x.type.shape))))

    def reaches(self) -> tuple[Reach, ...]:
        same = [d for d in self.target if d != 1] == [d for d in self.x.type.shape if d != 1]
        return (Reach.PLACE if same else Reach.ROW,)

    def work(self) -> Work:
        return NOTHING if is_contiguous(self.x) else copied(self)


@operator
class Regroup(Node):
    """The same numbers, in row-major order, under other rows: n * b rows as n rows with b slots each, or back."""

    kind: ClassVar[str] = "shape"
    is_view: ClassVar[bool] = True
    x: Node
    rows: RowSet
    target: Shape

    def infer(self) -> Type:
        out = self.x.type.with_(rows=self.rows, shape=self.target)
        if out.size is None or out.size != self.x.type.size:
            raise TypeProblem(f"{self.x.type} cannot be laid out as {out}")
        return out

    def vjp(self, g: Node) -> tuple[Node | None, ...]:
        return (regroup(g, self.x.type.rows, self.x.type.shape),)

    def seen(self, e: Emitter) -> str:
        return f".reshape({e.shape(self.type)})"

    def emit(self, e: Emitter, out: str, *inputs: str) -> None:
        """A copy, for an input whose numbers do not lie in row-major order."""
        e.call("copyto", e.view(out, f".reshape({e.shape(self.x.type)})"), inputs[0])

    def work(self) -> Work:
        return NOTHING if is_contiguous(self.x) else copied(self)


def regroup(x: Node, rows: RowSet, target: Shape) -> Node:
    """``x`` under other rows; what was regrouped before is regrouped from where it came."""
    if isinstance(x, Regroup):
        x = x.x
    return x if (x.type.rows, x.type.shape) == (rows, target) else Regroup(x, rows, target)


@operator
class Transpose(Node):
    """The axes of each row's entry in another order: axis i of the output is axis ``order[i]`` of the input."""

    kind: ClassVar[str] = "shape"
    is_view: ClassVar[bool] = True
    x: Node
    order: tuple[int, ...]

    def infer(self) -> Type:
        shape = self.x.type.shape
        if sorted(self.order) != list(range(len(shape))):
            raise TypeProblem(f"{self.order} does not order the {len(shape)} axes of the tensor")
        return self.x.type.with_(shape=tuple(shape[i] for i in self.order))

    def vjp(self, g: Node) -> tuple[Node | None, ...]:
        return (Transpose(g, tuple(self.order.index(i) for i in range(len(self.order)))),)

    def seen(self, e: Emitter) -> str:
        lead = 1 if e.count(self) else 0
        return f".transpose({(*range(lead), *(i + lead for i in self.order))})"

    def number(self, e: Elements, at: At) -> str:
        return e.value(self.x, At(at.row, tuple(at.entry[self.order.index(i)] for i in range(len(self.order)))))

    def reaches(self) -> tuple[Reach, ...]:
        return (Reach.ROW,)


@operator
class Slice(Node):
    """Positions ``start`` up to but not including ``stop``, from 0, of one axis of each row's entry."""

    kind: ClassVar[str] = "shape"
    is_view: ClassVar[bool] = True
    x: Node
    axis: int
    start: int
    stop: int

    def infer(self) -> Type:
        shape = self.x.type.shape
        size = shape[self.axis] if self.axis < len(shape) else 0
        if isinstance(size, int) and not 0 <= self.start < self.stop <= size:
            raise TypeProblem(f"positions {self.start + 1} to {self.stop} are not all inside an axis of {size}")
        return self.x.type.with_(
            shape=(*shape[: self.axis], self.stop - self.start, *shape[self.axis + 1 :]),
        )

    def vjp(self, g: Node) -> tuple[Node | None, ...]:
        return (Pad(g, self.axis, self.start, self.x.type.shape[self.axis]),)

    def seen(self, e: Emitter) -> str:
        return window(e, self, self.axis, self.start, self.stop)

    def number(self, e: Elements, at: At) -> str:
        return e.value(self.x, moved(at, self.axis, self.start))

    def reaches(self) -> tuple[Reach, ...]:
        return (Reach.ROW,)


@operator
class Pad(Node):
    """The input at ``start`` of an axis of ``size``, zeros elsewhere: the gradient of a slice."""

    kind: ClassVar[str] = "shape"
    x: Node
    axis: int
    start: int
    size: Dim

    def infer(self) -> Type:
        shape = self.x.type.shape
        if isinstance(self.size, int) and self.start + int_size(self.x, self.axis) > self.size:
            raise TypeProblem(f"{shape_text(shape)} does not fit into {self.size} positions from {self.start + 1} on")
        return self.x.type.with_(shape=(*shape[: self.axis], self.size, *shape[self.axis + 1 :]))

    def vjp(self, g: Node) -> tuple[Node | None, ...]:
        return (Slice(g, self.axis, self.start, self.start + int_size(self.x, self.axis)),)

    def work(self) -> Work:
        return Work(streamed=self.bytes(), calls=(("call", 3),))

    def emit(self, e: Emitter, out: str, *inputs: str) -> None:
        e.call("fill", "0", out)
        stop = self.start + int_size(self.x, self.axis)
        e.call("copyto", e.view(out, window(e, self, self.axis, self.start, stop)), inputs[0])

    def number(self, e: Elements, at: At) -> str:
        place, size = at.entry[self.axis], int_size(self.x, self.axis)
        inside = f"{place} >= {self.start} and {place} < {self.start + size}"
        entry = list(at.entry)
        entry[self.axis] = f"nearest({place} - {self.start}, {size})"
        arguments: dict[str, Operand] = {"inside": inside, "x": (self.x, At(at.row, tuple(entry)))}
        return e.arithmetic("where(inside, x, 0)", arguments, self.type.element)

    def reaches(self) -> tuple[Reach, ...]:
        return (Reach.ROW,)


@operator
class Concat(Node):
    """The inputs one after another along an axis of each row's entry."""

    kind: ClassVar[str] = "shape"
    parts: tuple[Node, ...]
    axis: int

    def infer(self) -> Type:
        first = self.parts[0].type.shape
        for p in self.parts:
            shape = p.type.shape
            if len(shape) != len(first) or self.axis >= len(shape):
                raise TypeProblem("tensors to be joined end to end must have the same number of axes, at least one")
            if shape[: self.axis] + shape[self.axis + 1 :] != first[: self.axis] + first[self.axis + 1 :]:
                raise TypeProblem(
                    f"{shape_text(first)} and {shape_text(shape)} differ in more than the axis along which they join"
                )
        size = total(*(p.type.shape[self.axis] for p in self.parts))
        return Type(
            common_rows(*(p.type.rows for p in self.parts)),
            promote(*(p.type.element for p in self.parts)),
            (*first[: self.axis], size, *first[self.axis + 1 :]),
        )

    def offsets(self) -> list[tuple[int, int]]:
        """Where each part starts and stops."""
        out, start = [], 0
        for p in self.parts:
            stop = start + int_size(p, self.axis)
            out.append((start, stop))
            start = stop
        return out

    def vjp(self, g: Node) -> tuple[Node | None, ...]:
        return tuple(
            reduces.sum_to(Slice(g, self.axis, start, stop), p.type)
            for p, (start, stop) in zip(self.parts, self.offsets(), strict=True)
        )

    def reaches(self) -> tuple[Reach, ...]:
        """Each part is copied by a loop of its own."""
        return (Reach.PLACE,) * len(self.parts)

    def work(self) -> Work:
        """A part of a flat concatenation that is computed for it is computed in its place; any other is copied."""
        if self.type.rows == UNIT:
            copies = [p for p in self.parts if not (self.axis == 0 and is_contiguous(p) and is_computed(p))]
            return Work(streamed=2 * sum(p.nbytes for p in copies), calls=(("call", len(copies)),))
        rows = self.type.rows.rows or 1
        pieces = tuple(Access(rows, p.nbytes // (p.type.rows.rows or 1), 0) for p in self.parts)
        return Work(streamed=self.bytes(), gathered=pieces, calls=(("call", 2 + 2 * len(self.parts)),))

    def emit(self, e: Emitter, out: str, *inputs: str) -> None:
        """Copies the parts into place, a block of rows at a time; a part that was computed in place is left alone."""
        parts = [
            (span, array)
            for span, part, array in zip(self.offsets(), self.parts, inputs, strict=True)
            if not e.is_placed(part, self, span[0])
        ]
        windows = [e.view(out, window(e, self, self.axis, *span)) for span, _ in parts]
        if self.type.rows == UNIT:
            for seen, (_, part) in zip(windows, parts, strict=True):
                e.call("copyto", seen, part)
        elif parts:
            e.call("place_parts", f"[{', '.join(p for _, p in parts)}]", f"[{', '.join(windows)}]")


def reshaped(entry: tuple[str, ...], target: tuple[int, ...], source: tuple[int, ...]) -> tuple[str, ...]:
    """A position in an entry of one shape as a position in an entry of another one with the same numbers."""
    places = [p for p, d in zip(entry, target, strict=True) if d != 1]
    sizes = [d for d in target if d != 1]
    if sizes == [d for d in source if d != 1]:
        rest = iter(places)
        return tuple("0" if d == 1 else next(rest) for d in source)
    flat = "0"
    for place, size in zip(places, sizes, strict=True):
        flat = place if flat == "0" else f"({flat} * {size} + {place})"
    found, below = [], 1
    for d in reversed(source):
        found.append("0" if d == 1 else f"({flat} // {below} % {d})" if below > 1 else f"({flat} % {d})")
        below *= d
    if len(source) == 1:
        return (flat,)
    return tuple(reversed(found))


def moved(at: At, axis: int, by: int) -> At:
    """A place so many positions further along an axis of the entry."""
    entry = list(at.entry)
    entry[axis] = (
        str(int(entry[axis]) + by) if entry[axis].isdigit() else f"{entry[axis]} + {by}" if by else entry[axis]
    )
    return At(at.row, tuple(entry))


def is_contiguous(node: Node) -> bool:
    """Whether the node's numbers lie in row-major order without gaps."""
    if isinstance(node, Transpose):
        return False
    if isinstance(node, Slice):
        return node.type.rows == UNIT and node.axis == 0 and is_contiguous(node.x)
    return is_contiguous(node.inputs[0]) if node.is_view else True


def is_computed(node: Node) -> bool:
    """Whether a kernel fills the array that the node looks into, and not a concatenation of other parts."""
    while node.is_view:
        node = node.inputs[0]
    return bool(node.inputs) and not isinstance(node, Concat)


def copied(node: Node) -> Work:
    """One copy of an input's numbers to the output."""
    return Work(streamed=node.nbytes + node.inputs[0].nbytes, calls=CALL)


def window(e: Emitter, node: Node, axis: int, start: int, stop: int) -> str:
    """The text of an index that selects start:stop of an entry's axis."""
    lead = 1 if e.count(node) else 0
    return f"[{':, ' * (axis + lead)}{start}:{stop}]"


def int_size(node: Node, axis: int) -> int:
    """A size that is known; symbolic sizes are gone once training has seen its data."""
    size = node.type.shape[axis]
    if not isinstance(size, int):
        raise TypeProblem(f"the size {size} is known only once the model is trained")
    return size


def drop_axis(node: Node, axis: int) -> Node:
    """``node`` without an axis of size 1."""
    shape = node.type.shape
    return Reshape(node, shape[:axis] + shape[axis + 1 :])


def stack(nodes: tuple[Node, ...]) -> Node:
    """The inputs as the entries of a new first axis: an array literal."""
    if not nodes:
        raise TypeProblem("an array needs at least one entry")
    shape = broadcast_shapes(*(n.type.shape for n in nodes))
    for n in nodes:
        if n.type.shape != shape:
            raise TypeProblem("the entries of an array must have one shape")
    return Concat(tuple(Reshape(n, (1, *shape)) for n in nodes), 0)
