"""Reduce: an aggregate over all rows, over axes inside a row, or both. Its gradient is a broadcast.

``rows`` says whether the rows are folded too (the result then belongs to the unit row set); ``axes`` are axes of one
row's entry. Folded axes stay with size 1, so that the result broadcasts against the input; reshape drops them.
"""

from __future__ import annotations

import math
from typing import ClassVar

from ...types import BIGINT, UNIT, Type, TypeProblem, broadcast_shapes, common_rows, promote
from ..node import At, Elements, Emitter, Node, Reach, operator, size_of
from ..work import CALL, Work
from . import elementwise
from . import map as maps
from . import shape as shapes
from .leaf import Count, constant


class Reduce(Node):
    """Base of the reductions; ``ufunc`` is the function that folds two values into one, ``start`` leaves any value as
    it is."""

    kind: ClassVar[str] = "reduce"
    ufunc: ClassVar[str]
    start: ClassVar[float]
    x: Node
    rows: bool
    axes: tuple[int, ...]

    def infer(self) -> Type:
        t = self.x.type
        if any(a >= t.rank for a in self.axes):
            raise TypeProblem(f"there is no axis {max(self.axes) + 1} in a tensor of {t.rank} axes")
        shape = tuple(1 if i in self.axes else d for i, d in enumerate(t.shape))
        return Type(UNIT if self.rows else t.rows, promote(t.element), shape)

    def flops(self) -> int:
        return size_of(self.x.type)

    def counts(self) -> bool:
        return not self.x.is_number

    def work(self) -> Work:
        """A fold starts a loop for each run of axes that are all folded, or all kept."""
        t = self.x.type
        folded = [self.rows, *(i in self.axes for i in range(t.rank))]
        loops, run = 1, None
        for size, is_folded in reversed(list(zip(elementwise.sizes_of(t), folded, strict=True))):
            if size > 1:
                run = is_folded if run is None else run
                loops *= size if loops > 1 or is_folded != run else 1
        flops, kind = (("fold", self.flops()),), "fold" if self.ufunc == "add" else "best"
        return Work(flops, (), self.bytes(), loops=((kind, loops),), calls=(("fold", 1),), is_double=self.x.is_double)

    def emit(self, e: Emitter, out: str, *inputs: str) -> None:
        lead = 0 if self.x.type.rows == UNIT else 1
        axes = tuple(a + lead for a in self.axes)
        if lead and self.rows:
            out = e.view(out, "[None]")
            axes = (0, *axes)
        folded = str(axes[0]) if len(axes) == 1 else str(axes)
        e.call(f"{self.ufunc}.reduce", inputs[0], folded, "None", out, "True")

    def reaches(self) -> tuple[Reach, ...]:
        return (Reach.PLACE,)


@operator
class Sum(Reduce):
    """The sum; over rows it is SUM without GROUP BY."""

    ufunc: ClassVar[str] = "add"
    start: ClassVar[float] = 0.0
    x: Node
    rows: bool = False
    axes: tuple[int, ...] = ()

    def vjp(self, g: Node) -> tuple[Node | None, ...]:
        return (broadcast(g, self.x.type) if self.x.type.element.kind == "float" else None,)


@operator
class Max(Reduce):
    """The largest value; values that share the first place share the gradient."""

    ufunc: ClassVar[str] = "maximum"
    start: ClassVar[float] = -math.inf
    x: Node
    rows: bool = False
    axes: tuple[int, ...] = ()

    def vjp(self, g: Node) -> tuple[Node | None, ...]:
        return (_to_winners(self, self.x, self.rows, self.axes, g),)


@operator
class Min(Reduce):
    """The smallest value; values that share the first place share the gradient."""

    ufunc: ClassVar[str] = "minimum"
    start: ClassVar[float] = math.inf
    x: Node
    rows: bool = False
    axes: tuple[int, ...] = ()

    def vjp(self, g: Node) -> tuple[Node | None, ...]:
        return (_to_winners(self, self.x, self.rows, self.axes, g),)


def _to_winners(value: Node, x: Node, rows: bool, axes: tuple[int, ...], g: Node) -> Node:
    """The gradient of Max and Min: shared equally among the inputs that equal the result."""
    winners = maps.Cast(maps.Equal(x, value), promote(x.type.element))
    return maps.Multiply(winners, maps.Divide(g, Sum(winners, rows, axes)))


@operator
class Argmax(Node):
    """The position, from 0, of the largest value along the last axis of a row's entry; the first if several are."""

    kind: ClassVar[str] = "reduce"
    functions: ClassVar[tuple[str, ...]] = ("ARGMAX",)
    x: Node

    def infer(self) -> Type:
        if not self.x.type.shape:
            raise TypeProblem("ARGMAX needs a tensor, not a single number")
        return self.x.type.with_(element=BIGINT, shape=self.x.type.shape[:-1])

    def flops(self) -> int:
        return size_of(self.x.type)

    def work(self) -> Work:
        return Work(
            (("fold", self.flops()),), (), self.bytes(), loops=(("fold", size_of(self.type)),), calls=CALL,
            is_double=self.x.is_double,
        )  # fmt: skip

    def emit(self, e: Emitter, out: str, *inputs: str) -> None:
        e.call(f"{inputs[0]}.argmax", "-1", out)

    def reaches(self) -> tuple[Reach, ...]:
        return (Reach.PLACE,)


@operator
class LogSumExp(Node):
    """log(sum(exp(x))) along the last axis (kept with size 1), shifted by the largest value so that nothing overflows.

    Blanchard, Higham and Higham, "Accurately computing the log-sum-exp and softmax functions", 2021.
    """

    kind: ClassVar[str] = "reduce"
    x: Node

    def infer(self) -> Type:
        if not self.x.type.shape:
            raise TypeProblem("LOG_SUM_EXP needs a tensor, not a single number")
        return self.x.type.with_(element=promote(self.x.type.element), shape=(*self.x.type.shape[:-1], 1))

    def vjp(self, g: Node) -> tuple[Node | None, ...]:
        return (maps.Multiply(g, Softmax(self.x)),)

    def expand(self) -> Node:
        shift, _, total = _shifted(self.x)
        return maps.Add(shift, maps.Log(total))


@operator
class Softmax(Node):
    """exp(x) / sum(exp(x)) along the last axis: scores as probabilities that sum to 1."""

    kind: ClassVar[str] = "reduce"
    functions: ClassVar[tuple[str, ...]] = ("SOFTMAX",)
    x: Node

    def infer(self) -> Type:
        if not self.x.type.shape:
            raise TypeProblem(
                "SOFTMAX needs a tensor, not a single number", hint="SIGMOID turns one score into a probability"
            )
        return self.x.type.with_(element=promote(self.x.type.element))

    def vjp(self, g: Node) -> tuple[Node | None, ...]:
        inner = Sum(maps.Multiply(g, self), False, (self.x.type.rank - 1,))
        return (maps.Multiply(self, maps.Subtract(g, inner)),)

    def expand(self) -> Node:
        _, powers, total = _shifted(self.x)
        return maps.Divide(powers, total)


def _shifted(x: Node) -> tuple[Node, Node, Node]:
    """The largest value, exp(x - largest) and its sum: what log-sum-exp and softmax share."""
    last = (x.type.rank - 1,)
    shift = Max(x, False, last)
    powers = maps.Exp(maps.Subtract(x, shift))
    return shift, powers, Sum(powers, False, last)


@operator
class Broadcast(Node):
    """A value repeated along new rows and stretched axes, up to the given type."""

    kind: ClassVar[str] = "map"
    x: Node
    target: Type

    def infer(self) -> Type:
        t, target = self.x.type, self.target
        if broadcast_shapes(t.shape, target.shape) != target.shape or common_rows(t.rows, target.rows) != target.rows:
            raise TypeProblem(f"{t} cannot be repeated up to {target}")
        return target.with_(element=t.element)

    def vjp(self, g: Node) -> tuple[Node | None, ...]:
        return (sum_to(g, self.x.type),)

    def work(self) -> Work:
        loops = elementwise.inner_loops(self.type, [self.x])
        return Work(streamed=self.bytes(), loops=(("loop", loops),), calls=(("stretched", 1),))

    def emit(self, e: Emitter, out: str, *inputs: str) -> None:
        e.call("copyto", out, e.aligned(self.x, self.type.rank))

    def number(self, e: Elements, at: At) -> str:
        return e.value(self.x, elementwise.stretched(self.x, at))

    def reaches(self) -> tuple[Reach, ...]:
        return (Reach.PLACE,)


def broadcast(x: Node, target: Type) -> Node:
    """``x`` repeated up to ``target``'s rows and shape; ``x`` itself if it has them."""
    return x if (x.type.rows, x.type.shape) == (target.rows, target.shape) else Broadcast(x, target)


def sum_to(x: Node, target: Type) -> Node:
    """``x`` summed over the rows and axes along which ``target`` was stretched: the gradient of broadcasting."""
    t = x.type
    rows = t.rows != UNIT and target.rows == UNIT
    if not rows and t.shape == target.shape:
        return x if t.rows == target.rows else broadcast(x, target)
    padded = (1,) * (t.rank - len(target.shape)) + target.shape
    axes = tuple(i for i, (have, want) in enumerate(zip(t.shape, padded, strict=True)) if have != want)
    out = Sum(x, rows, axes) if rows or axes else x
    if out.type.shape != target.shape:
        out = shapes.Reshape(out, target.shape)
    return broadcast(out, target)


def mean(x: Node) -> Node:
    """The average over the rows of x: AVG."""
    return maps.Divide(Sum(x, True), Count(x.type.rows)) if x.type.rows != UNIT else x


def one() -> Node:
    """The gradient of a value by itself."""
    return constant(1.0)
