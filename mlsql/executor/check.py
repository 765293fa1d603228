"""Do two plans compute the same? Both are run on random rows, and the largest difference is told."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..planner.node import Node, over_rows, walk
from ..planner.ops import Column, Count, Counter, Index, Parameter, Pick, Place, Positions, Regroup, State
from ..planner.plan import Plan
from ..types import UNIT, RowSet, concrete
from .device import Array
from .run import evaluate

SAMPLE_ROWS = 16


def shrunk(outputs: Sequence[Node], limit: int = SAMPLE_ROWS) -> list[Node]:
    """The same plan over at most ``limit`` rows of every row set that no other is made of."""
    # rows that are laid out as groups of slots must go on fitting together
    regrouped = [n for n in walk(outputs) if isinstance(n, Regroup)]
    fixed = {r for n in regrouped for r in (n.rows, n.x.type.rows)} | {UNIT}
    every = {r for n in walk(outputs) for r in n.row_sets()} - fixed
    new = over_rows(outputs, {r: RowSet(r.name, min(r.rows or limit, limit)) for r in every})
    return [new[n] for n in outputs]


def sample(outputs: Sequence[Node], seed: int = 0) -> dict[Node, Array]:
    """Random values for every leaf: normal numbers, and positions that are in range wherever they are used."""
    rng = np.random.default_rng(seed)
    limits: dict[Node, int] = {}
    for n in walk(outputs):
        if isinstance(n, Pick):
            limits[n.index] = concrete(n.x.type.shape)[-1]
        elif isinstance(n, Place):
            limits[n.index] = concrete((n.size,))[0]
    arrays: dict[Node, Array] = {}
    for n in walk(outputs):
        shape = (*([] if n.type.rows == UNIT else [n.type.rows.rows or 1]), *concrete(n.type.shape))
        if isinstance(n, (Index, Positions)):
            arrays[n] = rng.integers(0, n.over.rows or 1, shape)
        elif isinstance(n, (Column, Parameter, State)):
            kind = n.type.element.kind
            value = rng.normal(0, 1, shape) if kind == "float" else rng.integers(0, limits.get(n, 2), shape)
            arrays[n] = value.astype(n.type.element.storage)
        elif isinstance(n, Counter):
            arrays[n] = np.ones(())
    return arrays


def difference(before: Node, after: Node) -> float:
    """The largest difference of two nodes on random rows, relative to the larger of 1 and the values' size.

    Both must consist of operators that have kernels.
    """
    return differences([before], [after])


def differences(before: Sequence[Node], after: Sequence[Node]) -> float:
    """The largest difference of the outputs of two plans, each by its counterpart, on the same random rows."""
    outputs = shrunk([*before, *after])
    plan = Plan({str(i): n for i, n in enumerate(outputs)})
    row_sets = {n.type.rows for n in walk(outputs)} | {n.rows for n in walk(outputs) if isinstance(n, (Column, Count))}
    rows = {r: r.rows or 1 for r in row_sets}
    values = [np.asarray(v, dtype=float) for v in evaluate(plan, sample(outputs), rows).values()]
    pairs = zip(values[: len(before)], values[len(before) :], strict=True)
    return max((relative(a, b) for a, b in pairs), default=0.0)


def relative(a: Array, b: Array) -> float:
    """The largest difference of two arrays where both are finite, relative to the larger of 1 and their size."""
    both = np.isfinite(a) & np.isfinite(b)
    scale = np.maximum(1, np.maximum(np.abs(a), np.abs(b)))
    with np.errstate(invalid="ignore"):
        return float(np.max(np.where(both, np.abs(a - b) / scale, 0), initial=0))
