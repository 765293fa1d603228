"""Leaves: columns that a scan brings, parameters, constants, and what the training loop hands to its body."""

from __future__ import annotations

import math
from typing import ClassVar

from ...types import BIGINT, FLOAT, UNIT, Element, RowSet, Shape, Type, TypeProblem
from ..node import Emitter, Node, operator


@operator
class Column(Node):
    """A column that a scan reads from DuckDB: one tensor a row."""

    kind: ClassVar[str] = "scan"
    name: str
    rows: RowSet
    element: Element
    shape: Shape = ()

    def infer(self) -> Type:
        return Type(self.rows, self.element, self.shape)


@operator
class Parameter(Node):
    """A tensor that training may change, unless it is ``frozen``."""

    kind: ClassVar[str] = "parameter"
    name: str
    element: Element
    shape: Shape = ()
    frozen: bool = False

    def infer(self) -> Type:
        return Type(UNIT, self.element, self.shape)


@operator
class State(Node):
    """A tensor that one step of the training loop hands to the next: the weights, a velocity, a moment.

    With ``rows`` there is one for every row: the weights of every group that is trained by itself.
    """

    kind: ClassVar[str] = "state"
    name: str
    element: Element
    shape: Shape = ()
    rows: RowSet = UNIT

    def infer(self) -> Type:
        return Type(self.rows, self.element, self.shape)


@operator
class Counter(Node):
    """A plain number that the training loop counts: the step, the epoch, the epoch's loss."""

    kind: ClassVar[str] = "counter"
    name: str

    def infer(self) -> Type:
        return Type(UNIT, FLOAT)

    def counts(self) -> bool:
        return True


@operator
class Index(Node):
    """A vector of row positions: for every row of ``rows``, the row of ``over`` that it stands for."""

    kind: ClassVar[str] = "index"
    rows: RowSet
    over: RowSet

    def infer(self) -> Type:
        return Type(self.rows, BIGINT)


@operator
class Positions(Node):
    """For every row of ``rows``, the row of ``over`` that it comes from, as a join, a filter or a GROUP BY found it.

    Keys never depend on a parameter, so DuckDB computes these vectors once, before anything is learned.
    """

    kind: ClassVar[str] = "positions"
    name: str
    rows: RowSet
    over: RowSet

    def infer(self) -> Type:
        return Type(self.rows, BIGINT)


@operator
class Count(Node):
    """The number of rows of a row set."""

    kind: ClassVar[str] = "count"
    rows: RowSet

    def infer(self) -> Type:
        return Type(UNIT, FLOAT)

    def counts(self) -> bool:
        return True


@operator
class Constant(Node):
    """A number, or a tensor of numbers in row-major order, known when the plan is made."""

    kind: ClassVar[str] = "constant"
    values: tuple[float, ...]
    element: Element = FLOAT
    shape: Shape = ()

    def infer(self) -> Type:
        size = 1
        for d in self.shape:
            size *= d if isinstance(d, int) else 1
        if size != len(self.values):
            raise TypeProblem(f"{len(self.values)} values do not fill a tensor of {size}")
        return Type(UNIT, self.element, self.shape)

    @property
    def value(self) -> float | None:
        """The number, if there is only one."""
        return self.values[0] if len(self.values) == 1 else None

    def counts(self) -> bool:
        return True

    def emit(self, e: Emitter, out: str, *inputs: str) -> None:
        numbers = ", ".join(repr(v) if math.isfinite(v) else f"float('{v}')" for v in self.values)
        e.call("fill", f"[{numbers}]", e.view(out, ".reshape(-1)"))


def constant(value: float, element: Element = FLOAT) -> Constant:
    """A scalar constant."""
    return Constant((float(value),), element)
