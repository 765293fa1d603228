"""Every operator, whatever is registered: its type, its gradient, its value, its cost, its precision.

An elementwise operator is tried on every way its operands can fit together; any other operator has its samples in
SAMPLES. Each has a reference of somebody else's making in REFERENCES. An operator that lacks either fails here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import scipy.special
from support import differences, expanded, measure, random_leaves, run, value_of, weighted_sum

from mlsql.autodiff.gradient import gradients
from mlsql.autodiff.per_group import LAID_OUT, Blocks, per_group
from mlsql.errors import NotSupportedError
from mlsql.optimizer.rule import RULES
from mlsql.optimizer.rules.joins import ROW_WISE
from mlsql.planner.node import OPERATORS, Node, substitute, walk
from mlsql.planner.ops import (
    And,
    Argmax,
    Broadcast,
    Cast,
    Column,
    Concat,
    Constant,
    Contract,
    Count,
    Counter,
    GroupJoin,
    GroupSample,
    Index,
    Iterate,
    KeySum,
    LogSumExp,
    Map,
    Max,
    Min,
    Moment,
    Multiply,
    Not,
    Or,
    Pad,
    PairDot,
    Parameter,
    Pick,
    Place,
    Positions,
    Put,
    Regroup,
    Reshape,
    SampleSlot,
    SampleThere,
    ScatterAdd,
    Segment,
    SegmentMax,
    SegmentMin,
    Slice,
    Softmax,
    State,
    Sum,
    Take,
    Transpose,
    Where,
    constant,
)
from mlsql.planner.plan import Plan
from mlsql.types import BIGINT, BOOLEAN, DOUBLE, FLOAT, INTEGER, UNIT, Element, RowSet, Type

R = RowSet("r", 5)
S = RowSet("s", 3)
ONE = RowSet("one", 1)
TEN = RowSet("ten", 10)
LEAVES = (Column, Parameter, Positions, State, Counter, Index, Count)


def col(name: str, *shape: int, element: Element = DOUBLE, rows: RowSet = R) -> Column:
    return Column(name, rows, element, shape)


def par(name: str, *shape: int, element: Element = DOUBLE) -> Parameter:
    return Parameter(name, element, shape)


# -- samples: an operator over leaves, for every way in which it is used ---------------------------------------------

Leaf = Callable[[str, Element], Node]


def row(*shape: int) -> Leaf:
    return lambda name, element: Column(name, R, element, shape)


def unit(*shape: int) -> Leaf:
    return lambda name, element: Parameter(name, element, shape)


FITS: dict[int, list[tuple[Leaf, ...]]] = {
    1: [(row(),), (row(3),), (row(2, 3),), (unit(4),), (unit(),)],
    2: [
        (row(), row()),
        (row(3), row(3)),
        (row(3), unit(3)),
        (unit(), row(3)),
        (row(3), row()),  # one number a row, stretched over the row's entry
        (row(2, 3), row(3)),
        (row(2, 1), unit(1, 3)),
        (unit(2, 3), unit(3)),
        (unit(), unit()),
    ],
    3: [
        (row(), row(), row()),
        (row(3), row(3), unit()),
        (row(), row(3), unit(3)),
        (unit(), row(2, 3), row(3)),
        (unit(3), unit(3), unit()),
        (unit(), unit(), unit()),
    ],
}
LOGICAL = (And, Or, Not)


def map_samples(cls: type[Map], element: Element) -> Iterator[Node]:
    """An elementwise operator over operands of every fit; what is no operand is an element type."""
    fields = dataclasses.fields(cls)
    operands = [f.name for f in fields if f.type == "Node"]
    for fit in FITS[len(operands)]:
        kinds = [BOOLEAN if cls in LOGICAL or n == "condition" else element for n in operands]
        values: dict[str, Any] = {n: leaf(n, k) for n, leaf, k in zip(operands, fit, kinds, strict=True)}
        for f in fields:
            if f.name not in values:
                assert f.type == "Element", f"no sample for the field {f.name} of {cls.__name__}"
                values[f.name] = DOUBLE if element != DOUBLE else FLOAT
        yield cls(**values)


K = col("k", element=BIGINT)
HERE, THERE = Positions("here", R, S), Positions("there", R, S)  # positions that a join found: they stay as they are

SOME, SLOTS = Index(RowSet("some", 2), S), RowSet("slots", 10)  # some of the groups, and places for 5 members of each

L = col("l", element=INTEGER, rows=S)
ANY_TYPE = (
    lambda e: col("x", 2, 3, element=e),
    lambda e: col("x", 4, element=e),
    lambda e: par("p", 2, 3, element=e),
)

SAMPLES: dict[type[Node], Callable[[Element], list[Node]]] = {
    Column: lambda e: [col("x", element=e), col("x", 2, 3, element=e)],
    Parameter: lambda e: [par("p", element=e), par("p", 3, element=e)],
    State: lambda e: [State("s", e, (3,)), State("s", e, (3,), R)],
    Counter: lambda e: [Counter("step")],
    Count: lambda e: [Count(R)],
    Index: lambda e: [Index(S, R)],
    Positions: lambda e: [Positions("match", R, S)],
    Constant: lambda e: [
        Constant((1.5,), e),
        Constant((-math.inf,), e),
        Constant((1.0, 2.0, 3.0), e, (3,)),
        Constant((1.0, 2.0, 3.0, math.nan), e, (2, 2)),
    ],
    Sum: lambda e: reductions(Sum, e),
    Max: lambda e: reductions(Max, e),
    Min: lambda e: reductions(Min, e),
    Argmax: lambda e: [Argmax(col("x", 4, element=e)), Argmax(col("x", 2, 4, element=e)), Argmax(par("p", 4))],
    LogSumExp: lambda e: [LogSumExp(make(e)) for make in ANY_TYPE],
    Softmax: lambda e: [Softmax(make(e)) for make in ANY_TYPE],
    Broadcast: lambda e: [
        Broadcast(par("p", element=e), Type(R, e)),
        Broadcast(par("p", 3, element=e), Type(R, e, (2, 3))),
        Broadcast(col("x", 2, 1, element=e), Type(R, e, (2, 3))),
        Broadcast(col("x", element=e), Type(R, e, (3,))),
        Broadcast(par("p", 1, element=e), Type(UNIT, e, (3,))),
    ],
    Reshape: lambda e: [
        Reshape(col("x", 2, 3, element=e), (6,)),
        Reshape(col("x", element=e), (1, 1)),
        Reshape(par("p", 6, element=e), (3, 2)),
        Reshape(Transpose(col("x", 2, 3, element=e), (1, 0)), (6,)),  # its numbers are not in row-major order
        Reshape(Slice(col("x", 2, 3, element=e), 1, 0, 2), (4,)),
        Reshape(par("p", 1, element=e), ()),
    ],
    Regroup: lambda e: [
        Regroup(col("x", 4, element=e), TEN, (2,)),
        Regroup(col("x", 2, element=e, rows=TEN), R, (2, 2)),
        Regroup(Transpose(col("x", 2, 3, element=e), (1, 0)), RowSet("thirty", 30), ()),
    ],
    Transpose: lambda e: [
        Transpose(col("x", 2, 3, element=e), (1, 0)),
        Transpose(par("p", 2, 3, 4, element=e), (2, 0, 1)),
    ],
    Slice: lambda e: [
        Slice(col("x", 4, element=e), 0, 1, 3),
        Slice(col("x", 2, 3, element=e), 1, 0, 2),
        Slice(par("p", 4, element=e), 0, 3, 4),
    ],
    Pad: lambda e: [
        Pad(col("x", 2, element=e), 0, 1, 4),
        Pad(par("p", 2, 2, element=e), 1, 0, 3),
    ],
    Concat: lambda e: [
        Concat((col("x", 2, element=e), col("y", 3, element=e)), 0),
        Concat((col("x", 2, element=e), par("p", 1, element=e)), 0),
        Concat((par("p", 2, element=e), par("q", 2, element=e), par("p", 2, element=e)), 0),
        Concat((col("x", 2, 2, element=e), col("y", 2, 1, element=e)), 1),
    ],
    Contract: lambda e: [
        Contract(spec, leaf_of(left, "x", e), leaf_of(right, "y", e))
        for spec in (
            *("k,k->", "rk,k->r", "k,rk->r", "rk,rk->r", "rk,ko->ro", "ko,rk->ro", "ro,ko->rk", "rk,ro->ko"),
            *("ro,rk->ko", "rik,ko->rio", "rik,rko->rio", "rki,rko->rio", "i,o->io", "ri,ro->rio", "r,rk->k"),
            *("io,io->", "rk,k->rk", "k,ko->o", "r,r->", "abk,ko->abo", "rabk,kab->r"),
        )
        for left, right in [spec.partition("->")[0].split(",")]
    ],
    Moment: lambda e: [
        Moment(spec, leaf_of(left, "x", e), leaf_of(right, "y", e))
        for spec in ("ri,rk->ik", "ri,r->i", "r,r->", "ri,->i", ",rk->k", "rio,rko->ik", "rk,k->")
        for left, right in [spec.partition("->")[0].split(",")]
    ],
    GroupSample: lambda e: [GroupSample(SOME, HERE, constant(2.0, FLOAT), 5, SLOTS, 7)],  # no group is larger than 5
    SampleThere: lambda e: [SampleThere(SOME, HERE, 5, SLOTS), SampleThere(SOME, HERE, 2, RowSet("slots", 4))],
    SampleSlot: lambda e: [SampleSlot(5, SLOTS, SOME.rows)],
    Take: lambda e: [
        Take(col("x", element=e), Index(S, R)),
        Take(col("x", 2, 3, element=e), Index(S, R)),
        Take(par("p", 4, element=e), K),
        Take(par("p", 4, 2, element=e), K),
    ],
    Segment: lambda e: [
        Segment(col("x", element=e), K, S),
        Segment(col("x", 2, element=e), K, UNIT, 4),
        Segment(col("x", element=e), K, UNIT, 3),
        Segment(par("p", 2, element=e), K, UNIT, 3),
        Segment(col("x", 2, 2, element=e), HERE, S),
        Segment(par("p", 2, element=e), HERE, S),
        Segment(Slice(col("x", 4, element=e), 0, 1, 3), K, S),  # rows that do not lie end to end
    ],
    SegmentMax: lambda e: folds(SegmentMax, e),
    SegmentMin: lambda e: folds(SegmentMin, e),
    GroupJoin: lambda e: [
        GroupJoin(col("x", 2, rows=S, element=e), HERE, THERE, S),
        GroupJoin(col("x", 2, rows=S, element=e), HERE, THERE, S, col("w", element=e)),
        GroupJoin(col("x", rows=S, element=e), HERE, THERE, UNIT, col("w", element=e), 4),
        GroupJoin(par("p", 4, 2, 2, element=e), HERE, THERE, S, col("w", element=e)),
        GroupJoin(col("x", 2, rows=S, element=e), K, THERE, S),
        GroupJoin(par("p", 3, 2, element=e), HERE, K, UNIT, col("w", element=e), 4),
        GroupJoin(col("x", rows=S, element=e), HERE, THERE, S, col("w", element=e)),
    ],
    PairDot: lambda e: [
        PairDot(col("x", 2, rows=S, element=e), HERE, col("y", 2, rows=S, element=e), THERE),
        PairDot(col("x", 2, 2, rows=S, element=e), HERE, par("p", 4, 2, 2, element=e), THERE),
        PairDot(par("p", 4, 2, element=e), K, par("q", 3, 2, element=e), THERE),
        PairDot(col("x", rows=S, element=e), HERE, col("x", rows=S, element=e), THERE),
    ],
    Pick: lambda e: [
        Pick(col("x", 4, element=e), K),
        Pick(par("p", 4, element=e), K),  # one number a row out of a table that all rows share
        Pick(col("x", 4, element=e), par("i", element=BIGINT)),
        Pick(par("p", 4, element=e), par("i", element=BIGINT)),
    ],
    Place: lambda e: [
        Place(col("x", element=e), K, 4),
        Place(par("p", element=e), K, 4),
        Place(col("x", element=e), par("i", element=BIGINT), 4),
        Place(par("p", element=e), par("i", element=BIGINT), 4),
        Place(col("x", element=e), K, 4, col("base", 4, element=e)),
    ],
    ScatterAdd: lambda e: [
        ScatterAdd(par("p", 4, element=e), (col("x", element=e),), (K,), (col("s", element=e),)),
        ScatterAdd(par("p", 4, 2, element=e), (col("x", 2, element=e),), (K,), (Constant((-0.5,), e),)),
        ScatterAdd(par("p", 4, 2, 3, element=e), (col("x", 2, 3, element=e),), (K,), (par("s", element=e),)),
        ScatterAdd(
            par("p", 4, 2, element=e),
            (col("x", 2, element=e), col("y", 2, element=e, rows=S)),
            (K, L),
            (col("s", element=e), Constant((2.0,), e)),
        ),
    ],
    Put: lambda e: [  # rows with one index must be equal, so that its slope is tried on a single one
        Put(par("p", 4, element=e), (col("x", element=e, rows=ONE),), (col("k", element=BIGINT, rows=ONE),)),
        Put(par("p", 4, 2, element=e), (col("x", 2, element=e, rows=ONE),), (col("k", element=INTEGER, rows=ONE),)),
    ],
    KeySum: lambda e: [
        KeySum((col("x", element=e),), (K,), K, 3),
        KeySum((col("x", 2, 3, element=e),), (K,), col("l", element=INTEGER, rows=S), 4),
        KeySum((col("x", 2, element=e), col("y", 2, element=e, rows=S)), (K, L), K, 3),
        KeySum((col("x", 2, element=e), col("y", 2, element=e, rows=S)), (K, L), L, 3),
    ],
    Iterate: lambda e: [],  # a loop is run by the trainer: tests/test_updates.py
}


def folds(cls: type[SegmentMax] | type[SegmentMin], e: Element) -> list[Node]:
    """By positions that stay and by ones that do not, with and without groups that have no rows."""
    return [
        cls(col("x", element=e), K, S),
        cls(col("x", 2, element=e), HERE, S),
        cls(col("x", 2, 2, element=e), K, UNIT, 4),
        cls(par("p", 2, element=e), HERE, S),
    ]


def leaf_of(letters: str, name: str, element: Element) -> Node:
    """A leaf with the axes that a contraction's letters name."""
    sizes = {"i": 2, "o": 4, "k": 3, "a": 2, "b": 3}
    shape = tuple(sizes[c] for c in letters.removeprefix("r"))
    return col(name, *shape, element=element) if letters.startswith("r") else par(name, *shape, element=element)


def reductions(cls: type[Node], e: Element) -> list[Node]:
    """Over rows, over axes, over both, and of one parameter."""
    x, p = col("x", 2, 3, element=e), par("p", 2, 3, element=e)
    cases: list[tuple[Node, bool, tuple[int, ...]]] = [
        (col("x", element=e), True, ()), (x, True, ()), (x, True, (0, 1)), (x, False, (1,)), (x, False, (0, 1)),
        (p, False, (0,)), (p, False, (0, 1)),
    ]  # fmt: skip
    return [cls(n, rows, axes) for n, rows, axes in cases]  # type: ignore[call-arg]


def samples(cls: type[Node], element: Element = DOUBLE) -> list[Node]:
    """Instances of an operator over leaves."""
    if issubclass(cls, Map):
        return list(map_samples(cls, element))
    assert cls in SAMPLES, f"the operator {cls.__name__} has no samples: add them to SAMPLES"
    return SAMPLES[cls](element)


# -- references: what NumPy and SciPy make of the same arrays --------------------------------------------------------

REFERENCES: dict[str, Callable[..., Any]] = {
    "absolute": np.abs,
    "add": np.add,
    "and": np.logical_and,
    "cast": lambda x: x,
    "cos": np.cos,
    "divide": np.divide,
    "equal": np.equal,
    "erf": scipy.special.erf,
    "exp": np.exp,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "log": np.log,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "multiply": np.multiply,
    "negate": np.negative,
    "not": np.logical_not,
    "not_equal": np.not_equal,
    "or": np.logical_or,
    "power": np.power,
    "sigmoid": scipy.special.expit,
    "sign": np.sign,
    "sin": np.sin,
    "softplus": lambda x: np.logaddexp(0, x),
    "sqrt": np.sqrt,
    "subtract": np.subtract,
    "tanh": np.tanh,
    "where": np.where,
}
POSITIVE = ("log", "sqrt", "power")  # operators that have a value for positive numbers only


def entries(node: Node, value: Any, rank: int) -> Any:
    """An array whose entry has ``rank`` axes, so that NumPy broadcasts rows against rows."""
    lead = 0 if node.type.rows == UNIT else 1
    shape = value.shape
    return value.reshape(*shape[:lead], *[1] * (rank - node.type.rank), *shape[lead:]) if lead else value


def axes_of(n: Any) -> tuple[int, ...]:
    lead = 0 if n.x.type.rows == UNIT else 1
    return (*((0,) if n.rows and lead else ()), *(a + lead for a in n.axes))


def reduced(function: Any) -> Callable[..., Any]:
    def reference(n: Any, x: Any) -> Any:
        out = function(x, axis=axes_of(n), keepdims=True)
        return out[0] if n.rows else out

    return reference


def axis_of(n: Any, x: Any) -> int:
    return n.axis + (0 if n.type.rows == UNIT else 1)


def placed(n: Any, x: Any, index: Any, base: Any = 0.0) -> Any:
    one_hot = np.eye(n.size)[index]
    return base + one_hot * (x[..., None] if np.ndim(x) else x)


def concatenated(n: Any, *parts: Any) -> Any:
    lead = 0 if n.type.rows == UNIT else 1
    full = [np.broadcast_to(a, (5, *p.type.shape)) if lead else a for a, p in zip(parts, n.parts, strict=True)]
    return np.concatenate(full, n.axis + lead)


def segmented(n: Any, x: Any, index: Any) -> Any:
    count = n.type.shape[0] if n.rows == UNIT else n.rows.rows
    return np.stack([sum((np.broadcast_to(x, (5, *n.x.type.shape))[i] for i in range(5) if index[i] == k),
                         np.zeros(n.x.type.shape)) for k in range(count)])  # fmt: skip


def best(function: Any) -> Callable[..., Any]:
    def reference(n: Any, x: Any, index: Any) -> Any:
        rows = np.broadcast_to(x, (5, *n.x.type.shape))
        count = n.type.shape[0] if n.rows == UNIT else n.rows.rows
        return np.stack([function(rows[index == k], 0) if k in index else np.zeros(rows.shape[1:])
                         for k in range(count)])  # fmt: skip

    return reference


def members_of(n: Any, index: Any, groups: Any) -> list[Any]:
    """The members of the groups of a batch, in the order of their rows."""
    return [np.flatnonzero(groups == g) for g in index]


def sampled(n: Any, index: Any, groups: Any, step: Any) -> Any:
    return np.concatenate([np.pad(m, (0, n.count - len(m))) for m in members_of(n, index, groups)])


def filled(n: Any, index: Any, groups: Any) -> Any:
    return np.concatenate([np.arange(n.count) < len(m) for m in members_of(n, index, groups)])


def sparse_product(n: Any, x: Any, source: Any, group: Any, weight: Any = 1.0) -> Any:
    """SciPy's product of the matrix that has the weights at (group, source)."""
    count = n.type.shape[0] if n.rows == UNIT else n.rows.rows
    matrix = scipy.sparse.coo_array((np.broadcast_to(weight, 5), (group, source)), (count, len(x))).tocsr()
    return (matrix @ x.reshape(len(x), -1)).reshape(count, *x.shape[1:])


def scattered(n: Any, base: Any, *parts: Any) -> Any:
    out, count = base.copy(), len(n.x)
    for x, index, scale in zip(parts[:count], parts[count : 2 * count], parts[2 * count :], strict=True):
        np.add.at(out, index, x * np.asarray(scale).reshape(-1, *(1,) * (x.ndim - 1)))
    return out


def written(n: Any, base: Any, *parts: Any) -> Any:
    out, count = base.copy(), len(n.x)
    for x, index in zip(parts[:count], parts[count:], strict=True):
        out[index] = x
    return out


def joined(n: Any, *parts: Any) -> Any:
    count = len(n.x)
    groups = np.zeros((n.size, *n.type.shape))
    for x, index in zip(parts[:count], parts[count:-1], strict=True):
        np.add.at(groups, index, x)
    return groups[parts[-1]]


def repeated(n: Any, x: Any) -> Any:
    shape = (*(() if n.type.rows == UNIT else (5,)), *n.type.shape)
    return np.broadcast_to(entries(n.x, x, n.type.rank), shape)


OF_NODE: dict[type[Node], Callable[..., Any]] = {
    Constant: lambda n: np.array(n.values).reshape(n.shape),
    Count: lambda n: 5,
    Sum: reduced(np.sum),
    Max: reduced(np.max),
    Min: reduced(np.min),
    Argmax: lambda n, x: np.argmax(x, -1),
    LogSumExp: lambda n, x: scipy.special.logsumexp(x, axis=-1, keepdims=True),
    Softmax: lambda n, x: scipy.special.softmax(x, axis=-1),
    Broadcast: repeated,
    Reshape: lambda n, x: x.reshape((*x.shape[: x.ndim - n.x.type.rank], *n.target)),
    Regroup: lambda n, x: x.reshape(n.rows.rows, *n.target),
    Transpose: lambda n, x: np.moveaxis(
        x, [i + x.ndim - len(n.order) for i in n.order], range(x.ndim - len(n.order), x.ndim)
    ),
    Slice: lambda n, x: np.take(x, range(n.start, n.stop), axis_of(n, x)),
    Pad: lambda n, x: np.pad(
        x, [(n.start, n.size - n.start - s) if i == axis_of(n, x) else (0, 0) for i, s in enumerate(x.shape)]
    ),
    Concat: concatenated,
    Contract: lambda n, x, y: np.einsum(n.spec, x, y),
    Moment: lambda n, x, y: np.einsum(n.spec, x.astype(np.float64), y.astype(np.float64)),
    Take: lambda n, x, index: x[index],
    Segment: segmented,
    SegmentMax: best(np.max),
    SegmentMin: best(np.min),
    GroupJoin: sparse_product,
    PairDot: lambda n, x, i, y, j: np.sum((x[i] * y[j]).reshape(5, -1), 1),
    GroupSample: sampled,
    SampleThere: filled,
    SampleSlot: lambda n: np.repeat(np.arange(n.over.rows), n.count),
    Pick: lambda n, x, index: x[(np.arange(5), index) if n.x.type.rows != UNIT else index],
    Place: placed,
    ScatterAdd: scattered,
    Put: written,
    KeySum: joined,
}


def reference(node: Node, arrays: dict[Node, Any]) -> Any:
    """What a node's value must be."""
    if isinstance(node, LEAVES) and node in arrays:
        return arrays[node]
    inputs = [plain_value(n, arrays) for n in node.inputs]
    if isinstance(node, Map):
        name = node.operator_name()
        assert name in REFERENCES, f"the operator {name} has no reference: add one to REFERENCES"
        rank = node.type.rank
        return REFERENCES[name](*(entries(n, v, rank) for n, v in zip(node.inputs, inputs, strict=True)))
    assert type(node) in OF_NODE, f"the operator {node.operator_name()} has no reference: add one to OF_NODE"
    return OF_NODE[type(node)](node, *inputs)


def plain_value(node: Node, arrays: dict[Node, Any]) -> Any:
    return arrays[node] if node in arrays else reference(node, arrays)


# -- the sweeps ------------------------------------------------------------------------------------------------------


def all_samples(cls: type[Node], element: Element) -> list[Node]:
    """The samples, none for an operator without: test_an_operator_says_what_it_is names it."""
    return samples(cls, element) if issubclass(cls, Map) or cls in SAMPLES else []


def each(wanted: Callable[[Node], bool], element: Element = DOUBLE) -> Any:
    """One test for each sample of each operator that has the property."""
    cases = [(name, i) for name, cls in OPERATORS.items() for i, n in enumerate(all_samples(cls, element)) if wanted(n)]
    return pytest.mark.parametrize(("name", "number"), cases, ids=[f"{n}-{i}" for n, i in cases])


def has_value(node: Node) -> bool:
    """Counters and indexes are arguments of the step, not values of a plan."""
    return not isinstance(node, (Counter, Index))


def learns(node: Node) -> bool:
    """Whether a gradient goes through it."""
    return node.type.element.kind == "float" and bool(float_leaves(node))


def float_leaves(node: Node) -> list[Node]:
    return [n for n in random_leaves([node]) if n.type.element == DOUBLE]


def runs_on_arrays(node: Node) -> bool:
    """A leaf does nothing, and a single number is a plain number of Python's."""
    return not isinstance(node, (*LEAVES, Constant)) and bool(node.type.shape or node.type.rows != UNIT)


def computes_in_float(node: Node) -> bool:
    return runs_on_arrays(node) and not isinstance(node, Cast) and node.type.element == FLOAT


def may_be_mixed(node: Node) -> bool:
    return isinstance(node, Map) and computes_in_float(node) and len(node.inputs) > 1 and bool(to_mix(node))


def to_mix(node: Node) -> list[Node]:
    return [n for n in node.inputs if n.type.element == FLOAT and isinstance(n, Column)][-1:]


def arrays_for(node: Node, name: str) -> dict[Node, Any]:
    made = random_leaves([node], seed=3, positive=name in POSITIVE)
    return {**made, **{n: np.asarray(v % 3) for n, v in made.items() if isinstance(n, Index)}}


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_says_what_it_is(name: str) -> None:
    cls = OPERATORS[name]
    assert (cls.__dict__.get("__doc__") or "").strip().endswith("."), f"{name} has no docstring of its own"
    assert cls.kind != "node", f"{name} has no kind"
    assert cls is Iterate or samples(cls), f"{name} has no samples"


@each(has_value)
@pytest.mark.parametrize("element", [DOUBLE, FLOAT], ids=str)
def test_the_inferred_type_is_the_type_of_the_value(name: str, number: int, element: Element) -> None:
    node = samples(OPERATORS[name], element)[number]
    value = value_of(node, arrays_for(node, name))
    lead = () if node.type.rows == UNIT else (node.type.rows.rows,)
    assert value.shape == (*lead, *node.type.shape)
    if lead or node.type.shape:  # a single number comes as a Python number
        assert str(value.dtype) == node.type.element.storage


@each(has_value)
def test_the_value_is_the_reference_s(name: str, number: int) -> None:
    node = samples(OPERATORS[name])[number]
    arrays = arrays_for(node, name)
    rtol = 1e-6 if isinstance(node, Cast) else 1e-12
    np.testing.assert_allclose(value_of(node, arrays), reference(node, arrays), rtol=rtol, atol=1e-14)


@each(learns)
def test_the_gradient_is_the_slope(name: str, number: int) -> None:
    node = samples(OPERATORS[name])[number]
    node = Cast(node, DOUBLE) if isinstance(node, Cast) else node
    sources = float_leaves(node)
    loss = weighted_sum(node)
    arrays = {**random_leaves([loss], seed=5), **arrays_for(node, name)}
    through_float = isinstance(node, Cast)  # FLOAT in between has no small differences
    step, tolerance = (1e-2, 1e-4) if through_float else (1e-6, 1e-6)
    plan = Plan({str(i): g for i, g in enumerate(gradients(loss, sources))})
    assert [g.type for g in plan.outputs.values()] == [s.type for s in sources]
    found = run(expanded(plan), arrays)
    for source, g, expected in zip(sources, found.values(), differences(loss, sources, arrays, step), strict=True):
        np.testing.assert_allclose(g, expected, rtol=tolerance, atol=tolerance / 100, err_msg=repr(source))


def row_wise_on_columns(node: Node) -> bool:
    return isinstance(node, ROW_WISE) and node.type.rows == R and bool(learned(node))


def learned(node: Node) -> dict[Node, Node]:
    """The columns that a parameter could reach, each times one."""
    columns = [n for n in walk([node]) if isinstance(n, Column) and n.type.element == DOUBLE]
    return {n: Multiply(n, par("scale")) for n in columns}


@each(row_wise_on_columns)
def test_an_operator_on_taken_rows_is_the_taken_rows_of_it(name: str, number: int) -> None:
    (node,) = substitute([samples(OPERATORS[name])[number]], learned(samples(OPERATORS[name])[number]))
    taken = Take(node, Positions("some", S, R))
    first = RULES["take_first"].apply(taken, {node: [taken]})
    assert first is not None and first.type == taken.type
    arrays = arrays_for(taken, name)
    np.testing.assert_allclose(value_of(first, arrays), value_of(taken, arrays), rtol=1e-12)


@each(runs_on_arrays)
def test_the_cost_is_what_the_code_does(name: str, number: int) -> None:
    """One operation for each number that an elementwise function gives or a fold reads, two for each of a product."""
    node = samples(OPERATORS[name])[number]
    assert not any(n.flops() for n in node.inputs), "a sample should stand on leaves and views"
    assert node.flops() == measure(node, arrays_for(node, name)).flops


@each(computes_in_float, FLOAT)
def test_float_stays_float(name: str, number: int) -> None:
    """FLOAT is computed in 32 bits all the way: no step of it quietly runs in 64."""
    node = samples(OPERATORS[name], FLOAT)[number]
    assert "float64" not in measure(node, arrays_for(node, name)).types


@each(may_be_mixed, FLOAT)
def test_float_stays_float_beside_whole_numbers(name: str, number: int) -> None:
    node = samples(OPERATORS[name], FLOAT)[number]
    (mixed,) = to_mix(node)
    whole = Column("whole", R, INTEGER, mixed.type.shape)
    node = node.with_inputs([whole if n is mixed else n for n in node.inputs])
    arrays = arrays_for(node, name)
    assert node.type.element == FLOAT
    assert "float64" not in measure(node, arrays).types
    assert value_of(node, arrays).dtype == np.float32


@pytest.mark.parametrize("name", [n for n, c in OPERATORS.items() if issubclass(c, Map) and c not in (Cast, Where)])
def test_whole_numbers_and_conditions_count_as_numbers(name: str) -> None:
    """TRUE is 1 wherever a number is asked for: TRUE + TRUE is 2."""
    cls = OPERATORS[name]
    fields = [f.name for f in dataclasses.fields(cls)]
    for element in (BOOLEAN, INTEGER, BIGINT):
        if cls in LOGICAL and element != BOOLEAN:
            continue
        node = cls(*(col(f, element=element) for f in fields))
        arrays = {n: np.ones(5, n.type.element.storage) for n in node.inputs}
        expected = reference(node, {n: v if cls in LOGICAL else v.astype(float) for n, v in arrays.items()})
        np.testing.assert_allclose(value_of(node, arrays), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "name", [n for n, c in OPERATORS.items() if not issubclass(c, (*LAID_OUT, Iterate)) and c in SAMPLES]
)
def test_what_cannot_be_laid_out_by_groups_is_named(name: str) -> None:
    """TRAIN ... PER lays out the operators that work inside a row or read another one, and refuses any other."""
    blocks = Blocks(S, R, 2, None, Positions("numbers", S, S))
    direct = [n for n in samples(OPERATORS[name]) if not any(x.inputs for x in n.inputs)]
    assert direct
    for node in direct:
        with pytest.raises(NotSupportedError, match=f"the operator {name} by groups"):
            per_group(Plan({"x": node}), {}, blocks)
