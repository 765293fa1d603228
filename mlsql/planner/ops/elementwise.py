"""What all elementwise operators share: their type, their gradient, their work, derived from one scalar expression.

Inside a row NumPy's broadcasting holds; a value of the unit row set goes with every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ...types import BOOLEAN, UNIT, Element, Type, broadcast_shapes, common_rows, promote
from .. import scalar
from ..node import At, Elements, Emitter, Node, Operand, Reach, size_of
from ..work import Work
from . import reduce as reduces
from .leaf import Constant, constant


class Map(Node):
    """Base of the elementwise operators. ``expression`` is the arithmetic of one element."""

    kind: ClassVar[str] = "map"
    in_place: ClassVar[bool] = True
    expression: ClassVar[str]

    def infer(self) -> Type:
        types = [n.type for n in self.inputs]
        return Type(
            common_rows(*(t.rows for t in types)), self.element_type(), broadcast_shapes(*(t.shape for t in types))
        )

    def element_type(self) -> Element:
        return promote(*(n.type.element for n in self.inputs))

    def vjp(self, g: Node) -> tuple[Node | None, ...]:
        """Each partial derivative, summed over the axes and rows along which its input was stretched."""
        return tuple(
            None if d is None or n.type.element.kind != "float" else reduces.sum_to(d, n.type)
            for n, d in zip(self.inputs, self.partials(g), strict=True)
        )

    def partials(self, g: Node) -> tuple[Node | None, ...]:
        """The derivative by each input before stretching is undone: the chain rule of one element."""
        return (None,) * len(self.inputs)

    def names(self) -> tuple[str, ...]:
        """The fields that are inputs, in order."""
        return tuple(f for f in self.__dataclass_fields__ if isinstance(getattr(self, f), Node))

    def flops(self) -> int:
        return scalar.flops(self.expression) * size_of(self.type)

    def counts(self) -> bool:
        return all(n.is_number for n in self.inputs)

    def work(self) -> Work:
        """Each operation of the expression is a call, and a pass over memory; plain numbers cost next to nothing."""
        passes, size = scalar.passes(self.expression), size_of(self.type)
        count = sum(n for _, n in passes)
        if self.is_number:
            plain = sum(n for name, n in passes if name in scalar.ON_NUMBERS)
            return Work(passes, calls=(("number", plain), ("number_function", count - plain)))
        arrays = [n for n in self.inputs if not n.is_number]
        names = frozenset(f for f, n in zip(self.names(), self.inputs, strict=True) if n.is_number)
        is_float = self.type.element.kind == "float"
        converted = sum(size_of(n.type) for n in arrays if n.type.element != self.type.element) if is_float else 0
        loops, beside = inner_loops(self.type, arrays), scalar.with_numbers(self.expression, names)
        stretched = 1 if loops > 1 or converted else 0
        return Work(
            tuple((name, n * size) for name, n in passes),
            streamed=sum(n.nbytes for n in (*arrays, self)) + 2 * (count - 1) * self.nbytes,
            converted=converted,
            loops=(("loop", loops),),
            calls=(("call", max(0, count - beside - stretched)), ("number_call", beside), ("stretched", stretched)),
            is_double=any(n.is_double for n in (*arrays, self)),
        )

    def emit(self, e: Emitter, out: str, *inputs: str) -> None:
        e.scalar(self.expression, dict(zip(self.names(), self.inputs, strict=True)), out, self.type)

    def number(self, e: Elements, at: At) -> str:
        arguments: dict[str, Operand] = {
            f: (n, stretched(n, at)) for f, n in zip(self.names(), self.inputs, strict=True)
        }
        return e.arithmetic(self.expression, arguments, self.type.element)

    def reaches(self) -> tuple[Reach, ...]:
        return (Reach.PLACE,) * len(self.inputs)


def stretched(node: Node, at: At) -> At:
    """Where a number of ``node`` stands that is stretched to ``at`` by NumPy's broadcasting."""
    entry = at.entry[len(at.entry) - node.type.rank :]
    places = tuple("0" if d == 1 else p for d, p in zip(node.type.shape, entry, strict=True))
    return At("" if node.type.rows == UNIT else at.row, places)


def inner_loops(target: Type, operands: Sequence[Node]) -> int:
    """How many loops NumPy starts: one where all operands run through memory alike, else one for each outer position.

    The axes at the end along which every operand is either there or stretched belong to one loop.
    """
    if all(n.type.rows == target.rows and n.type.shape == target.shape for n in operands):
        return 1
    sizes = sizes_of(target)
    fits = [fit(target, n.type) for n in operands]
    loops, run = 1, None
    for size, *there in reversed(list(zip(sizes, *fits, strict=True))):
        if size == 1:
            continue
        run = there if run is None else run
        if loops > 1 or there != run:
            loops *= size
    return loops


def sizes_of(type: Type) -> list[int]:
    """The sizes of an array's axes, unknown ones counted as 1."""
    return [type.rows.rows or 1, *(d if isinstance(d, int) else 1 for d in type.shape)]


def fit(target: Type, operand: Type) -> list[bool]:
    """For each axis of the target's array, whether the operand has it; it is stretched along the others."""
    shape = (*[1] * (target.rank - operand.rank), *operand.shape)
    return [operand.rows == target.rows, *(a == b for a, b in zip(target.shape, shape, strict=True))]


class Predicate(Map):
    """Base of the elementwise operators whose value is true or false; they have no gradient."""

    def element_type(self) -> Element:
        return BOOLEAN


def like(value: float, node: Node) -> Constant:
    """A scalar constant of the element type that ``node`` has."""
    element = node.type.element
    return constant(value, element if element.kind == "float" else promote(element))
