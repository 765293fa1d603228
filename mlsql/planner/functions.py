"""What the model language can call, beside the layers of ``layers.sql``.

An operator that is a function by itself says so in its class. The functions here need more: sizes, names of columns,
parameters of their own, or a choice between operators. A signature's annotations say how an argument is read:
``Node`` is bound, ``Size`` is a whole number or CLASSES(column), ``int`` and ``str`` are literals, ``ColumnName`` a
column that is not read but named. ``features.py`` has the functions that learn from data, and more kinds.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, NewType, Protocol

from ..record import record
from ..types import FLOAT, UNIT, Dim, RowSet, Shape, Type, TypeProblem, category
from . import ops
from .data import Data, Leaves, Value
from .node import OPERATORS, Node
from .nulls import Nulls, both, filled
from .ops import (
    Argmax,
    Cast,
    Concat,
    Contract,
    Count,
    LogSumExp,
    Max,
    Maximum,
    Min,
    Minimum,
    Parameter,
    Positions,
    Reshape,
    Segment,
    Slice,
    Sum,
    Transpose,
    contract,
)
from .ops.contract import ROW

Size = NewType("Size", object)
ColumnName = NewType("ColumnName", str)
Known = NewType("Known", Node)  # where an argument is not NULL; no argument: everywhere


@record
class Fold:
    """Where aggregates fold rows to: one number for all of ``rows``, or one a group where ``groups`` says which."""

    rows: RowSet
    groups: Positions | None = None

    def sum(self, x: Node) -> Node:
        """The sum of a value a row."""
        return Sum(x, True) if self.groups is None else Segment(x, self.groups, self.groups.over)

    def max(self, x: Node) -> Node:
        """The largest of a value a row."""
        return Max(x, True) if self.groups is None else ops.SegmentMax(x, self.groups, self.groups.over)

    def min(self, x: Node) -> Node:
        """The smallest of a value a row."""
        return Min(x, True) if self.groups is None else ops.SegmentMin(x, self.groups, self.groups.over)

    def count(self) -> Node:
        """The number of rows."""
        if self.groups is None:
            return Count(self.rows)
        return self.sum(ops.broadcast(ops.one(), Type(self.rows, FLOAT)))

    def mean(self, x: Node) -> Node:
        """The average of a value a row."""
        if self.groups is None:
            return ops.mean(x)
        count = self.sum(ops.broadcast(ops.like(1, x), Type(self.rows, x.type.element)))
        return ops.Divide(self.sum(x), Reshape(count, (1,) * x.type.rank) if x.type.rank else count)


class Context(Protocol):
    """What a function may ask of the binder."""

    weight: Node | None  # the weight of a row, if the training statement gives one

    def parameter(
        self, role: str, shape: Shape, initializer: str, arguments: tuple[float, ...] = (), unknown: str | None = None
    ) -> Parameter:
        """A parameter of the layer's own, named after the alias it stands under."""

    def statistic(self, x: Data, label: str, aggregate: str, shape: Shape | None = None) -> Parameter:
        """What an aggregate of the training rows gives, position by position of a tensor unless it has a ``shape``."""

    @property
    def leaves(self) -> Leaves:
        """What can be read of the rows of INPUT."""

    def number(self, *nodes: Node) -> tuple[Node, ...]:
        """The nodes as numbers of one element type, ready for arithmetic."""

    def classes(self, column: str) -> Dim:
        """The number of classes of a column."""

    @property
    def activation(self) -> str:
        """The initializer that suits the function around the call: HE or XAVIER."""

    fold: Fold | None  # where aggregates fold rows to; None where rows may not be aggregated
    nulls: Nulls  # which values may be NULL

    def there(self, *nodes: Node) -> Node | None:
        """Where all of the nodes have a value and FILTER holds, as a flag a row; None: in every row."""


@record
class Function:
    """A function of the model language: how it is called, what it does, how it becomes a plan."""

    name: str
    doc: str
    parameters: tuple[inspect.Parameter, ...]
    build: Callable[..., Value]
    gives: str = "Node"  # or Data, or Category
    is_aggregate: bool = False
    is_sql: bool = False  # DuckDB has a function of this name, too

    @property
    def usage(self) -> str:
        """``LINEAR(x, size)``."""
        words = [
            p.name
            + (", ..." if p.kind is p.VAR_POSITIONAL else "")
            + (" or *" if p.default is None else f" = {p.default}" if p.default is not p.empty else "")
            for p in self.parameters
        ]
        return f"{self.name}({', '.join(words) or '*'})"


FUNCTIONS: dict[str, Function] = {}


def function(
    *names: str, aggregate: bool = False, sql: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare a function of the model language; its first parameter is the binder's context.

    An aggregate's arguments are bound over the rows that it folds.
    """

    def declare(build: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(build)
        parameters = tuple(signature.parameters.values())[1:]
        for name in names:
            doc = inspect.cleandoc(build.__doc__ or "")
            FUNCTIONS[name] = Function(name, doc, parameters, build, str(signature.return_annotation), aggregate, sql)
        return build

    return declare


def _declare_operators() -> None:
    """Operators that are functions by themselves."""
    for cls in OPERATORS.values():
        for name in cls.functions:
            parameters = tuple(inspect.signature(cls.__init__).parameters.values())[1:]
            build = functools.partial(_apply, cls)
            FUNCTIONS[name] = Function(name, inspect.cleandoc(cls.__doc__ or ""), parameters, build, is_sql=True)


def _apply(cls: type[Node], c: Context, *arguments: Node) -> Node:
    return cls(*(c.number(*arguments) if issubclass(cls, ops.Map) else arguments))


_declare_operators()


@function("GREATEST", sql=True)
def greatest(c: Context, *x: Node) -> Node:
    """The largest of its arguments."""
    return functools.reduce(lambda a, b: c.nulls.best(Maximum, a, b), c.number(*x))


@function("LEAST", sql=True)
def least(c: Context, *x: Node) -> Node:
    """The smallest of its arguments."""
    return functools.reduce(lambda a, b: c.nulls.best(Minimum, a, b), c.number(*x))


@function("LOG_SUM_EXP")
def log_sum_exp(c: Context, x: Node) -> Node:
    """log(sum(exp(x))) along the last axis of a row's tensor, without overflow."""
    return ops.drop_axis(LogSumExp(*c.number(x)), x.type.rank - 1)


@function("LOG_SOFTMAX")
def log_softmax(c: Context, x: Node) -> Node:
    """The logarithm of the softmax, exact where the softmax rounds to 0."""
    (x,) = c.number(x)
    return ops.Subtract(x, LogSumExp(x))


@function("MATMUL")
def matmul(c: Context, x: Node, y: Node) -> Node:
    """The matrix product inside a row, also written x @ y; a vector is a row on the left, a column on the right."""
    return ops.matmul(*c.number(x, y))


@function("DOT")
def dot(c: Context, x: Node, y: Node) -> Node:
    """The sum of the products of two tensors of one shape."""
    return ops.dot(*c.number(x, y))


@function("EINSUM")
def einsum(c: Context, spec: str, x: Node, y: Node) -> Node:
    """Einstein summation inside a row, with NumPy's notation: EINSUM('ij,jk->ik', a, b)."""
    operands, arrow, out = spec.replace(" ", "").partition("->")
    letters = operands.split(",")
    if not arrow or len(letters) != 2 or not all((w.isalpha() and w.isascii()) or not w for w in (*letters, out)):
        raise TypeProblem("EINSUM takes a specification such as 'ij,jk->ik' and two tensors")
    if any(len(set(w)) != len(w) for w in (*letters, out)) or set(out) - set(letters[0] + letters[1]):
        raise TypeProblem("each letter of EINSUM may stand once in an operand, and the output's must stand in one")
    plain = str.maketrans({ROW: ROW.upper()})
    a, b, out = (w.translate(plain) for w in (*letters, out))
    x, y = c.number(x, y)
    rows = [ROW if n.type.rows != UNIT else "" for n in (x, y)]
    return contract(f"{rows[0]}{a},{rows[1]}{b}->{max(rows)}{out}", x, y)


@function("TRANSPOSE")
def transpose(c: Context, x: Node) -> Node:
    """The axes of a row's tensor in reverse order."""
    return Transpose(x, tuple(reversed(range(x.type.rank))))


@function("RESHAPE")
def reshape(c: Context, x: Node, *sizes: int) -> Node:
    """The numbers of a row's tensor in another shape, outermost size first."""
    return Reshape(x, tuple(sizes))


@function("CONCAT")
def concat(c: Context, *x: Node) -> Node:
    """Numbers and vectors one after another in one vector."""
    return Concat(tuple(Reshape(n, (1,)) if n.type.rank == 0 else n for n in c.number(*x)), 0)


@function("SLICE")
def slice_(c: Context, x: Node, start: int, stop: int) -> Node:
    """Positions start to stop, both included and counted from 1, of the first axis; also written x[start:stop]."""
    if x.type.rank == 0:
        raise TypeProblem("a single number has no positions")
    return Slice(x, 0, start - 1, stop)


@function("SUM_OF")
def sum_of(c: Context, x: Node, axis: int = 0) -> Node:
    """The sum of the numbers of one row's tensor, or along one axis (counted from 1)."""
    return _fold(Sum, c.number(x)[0], axis)


@function("MAX_OF")
def max_of(c: Context, x: Node, axis: int = 0) -> Node:
    """The largest number of one row's tensor, or along one axis (counted from 1)."""
    return _fold(Max, c.number(x)[0], axis)


@function("MIN_OF")
def min_of(c: Context, x: Node, axis: int = 0) -> Node:
    """The smallest number of one row's tensor, or along one axis (counted from 1)."""
    return _fold(Min, c.number(x)[0], axis)


@function("MEAN_OF")
def mean_of(c: Context, x: Node) -> Node:
    """The average of the numbers of one row's tensor."""
    (x,) = c.number(x)
    count = 1
    for axis in range(x.type.rank):
        count *= ops.int_size(x, axis)
    return ops.Divide(_fold(Sum, x, 0), ops.like(count, x))


def _fold(operator: Callable[..., Node], x: Node, axis: int) -> Node:
    if x.type.rank == 0:
        return x
    if axis < 0 or axis > x.type.rank:
        raise TypeProblem(f"there is no axis {axis} in a tensor of {x.type.rank} axes")
    axes = (axis - 1,) if axis else tuple(range(x.type.rank))
    kept = tuple(d for i, d in enumerate(x.type.shape) if i not in axes)
    return Reshape(operator(x, False, axes), kept)


@function("LINEAR")
def linear(c: Context, x: Node, size: Size) -> Node:
    """A learned linear map of the last axis: x @ weight + bias. LINEAR(x, 1) gives one number, not FLOAT[1]."""
    (x,) = c.number(x)
    if x.type.rank == 0:
        x = Reshape(x, (1,))
    if x.type.rank > 2:
        raise TypeProblem("LINEAR takes a vector or a matrix")
    width: Any = size
    weight = c.parameter("weight", (x.type.shape[-1], width), c.activation)
    bias = c.parameter("bias", (width,), "ZEROS")
    x, weight_, bias_ = c.number(x, weight, bias)
    lead = (ROW if x.type.rows != UNIT else "") + "t" * (x.type.rank - 1)
    out: Node = ops.Add(Contract(f"{lead}k,ko->{lead}o", x, weight_), bias_)
    return ops.drop_axis(out, x.type.rank - 1) if width == 1 else out


@function("LABEL")
def label(c: Context, scores: Node, column: ColumnName) -> Node:
    """The class of the column that has the highest score."""
    size = c.classes(column)
    if scores.type.shape != (size,):
        raise TypeProblem(
            f"LABEL needs one score for each of the {size} classes of {column}", hint=f"LINEAR(…, CLASSES({column}))"
        )
    return Cast(Argmax(scores), category(column))


# -- aggregates over rows ----------------------------------------------------------------------------------------------


@function("SUM", aggregate=True)
def sum_(c: Context, x: Node) -> Node:
    """The sum over all rows."""
    fold, x, there = _aggregated(c, "SUM", x)
    x = x if c.weight is None else ops.Multiply(x, c.weight)
    return _known(c, fold.sum(_where(there, x, 0.0)), there)


@function("AVG", aggregate=True)
def avg(c: Context, x: Node) -> Node:
    """The average over all rows."""
    fold, x, there = _aggregated(c, "AVG", x)
    if c.weight is None and there is None:
        return fold.mean(x)
    weight = c.weight if c.weight is not None else ops.broadcast(ops.like(1, x), x.type.with_(shape=()))
    weight = _where(there, weight, 0.0)
    total, weights = fold.sum(ops.Multiply(_where(there, x, 0.0), weight)), fold.sum(weight)
    if there is not None:  # of no rows it is NULL, which stands as 0: they teach nothing
        weights = ops.Where(ops.Equal(weights, ops.like(0, weights)), ops.like(1, weights), weights)
    return _known(c, ops.Divide(total, weights), there)


@function("MAX", aggregate=True)
def max_(c: Context, x: Node) -> Node:
    """The largest value of all rows."""
    fold, x, there = _aggregated(c, "MAX", x)
    return _known(c, fold.max(_where(there, x, -math.inf)), there)


@function("MIN", aggregate=True)
def min_(c: Context, x: Node) -> Node:
    """The smallest value of all rows."""
    fold, x, there = _aggregated(c, "MIN", x)
    return _known(c, fold.min(_where(there, x, math.inf)), there)


@function("COUNT", aggregate=True)
def count(c: Context, x: Known | None = None) -> Node:
    """The number of rows: COUNT(*). COUNT(x) counts those where x is not NULL."""
    if c.fold is None:
        raise _unfolded("COUNT")
    there = c.there() if x is None else both([x, c.there(x)])
    if there is None:
        return c.fold.count()
    return c.fold.sum(ops.cast(there, FLOAT))


def _aggregated(c: Context, name: str, x: Node) -> tuple[Fold, Node, Node | None]:
    """Where an aggregate folds, its argument with a value a row, and where there is one (None: in every row)."""
    if c.fold is None:
        raise _unfolded(name, f"; {'MEAN' if name == 'AVG' else name}_OF folds the numbers of one row")
    there = c.there(x)
    if x.type.rows == UNIT and c.fold.rows != UNIT:
        x = ops.broadcast(x, x.type.with_(rows=c.fold.rows))  # every row has the same value, as in SQL
    if x.type.rows == UNIT:
        raise TypeProblem(f"{name} needs a value that has rows")
    (x,) = c.number(x)
    return c.fold, x, there


def _unfolded(name: str, hint: str = "") -> TypeProblem:
    where = "it may stand in MINIMIZE and in a select with FROM, outside of other aggregates"
    return TypeProblem(f"{name} over rows cannot stand here", hint=where + hint)


def _where(there: Node | None, x: Node, other: float) -> Node:
    """x where it is there, else a number that does not count."""
    if there is None:
        return x
    if x.type.rank:
        there = Reshape(there, (1,) * x.type.rank)
    return ops.Where(there, x, ops.like(other, x))


def _known(c: Context, result: Node, there: Node | None) -> Node:
    """The result of an aggregate; that of a group in which no row has a value is NULL."""
    if there is None or c.fold is None or c.fold.groups is None:
        return result
    some = ops.Greater(c.fold.sum(ops.cast(there, FLOAT)), ops.constant(0))
    return c.nulls.declare(filled(some, result), some)


@function("COALESCE", "IFNULL", sql=True)
def coalesce(c: Context, *x: Node) -> Node:
    """The first of its arguments that is not NULL."""
    *first, out = c.number(*x)
    flag = c.nulls.flag(out)
    for value in reversed(first):
        there = c.nulls.flag(value)
        if there is None:
            out, flag = value, None
            continue
        shaped = Reshape(there, (1,) * value.type.rank) if value.type.rank else there
        out = ops.Where(shaped, value, out)
        flag = None if flag is None else ops.Or(there, flag)
        c.nulls.declare(out, flag)
    return out


AGGREGATES = frozenset(name for name, f in FUNCTIONS.items() if f.is_aggregate)
