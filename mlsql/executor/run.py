"""Running generated code: a plan, its leaves' arrays, and out come arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..planner.node import Node, depends_on, over_rows, substitute, walk
from ..planner.ops import (
    Column,
    Contraction,
    Count,
    Counter,
    Index,
    Max,
    Min,
    Parameter,
    Positions,
    Segment,
    State,
    Sum,
    constant,
)
from ..planner.plan import Plan
from ..types import UNIT, RowSet
from .clock import Clock
from .codegen import Program, generate
from .device import Array, namespace

CHUNK_ROWS = 8192  # rows that are evaluated at a time where a plan allows it


@dataclass
class Executable:
    """A program with its arena, ready to be bound to arrays; timed code tells its times to ``clock``."""

    program: Program
    clock: Clock | None = None
    arena: list[Array] = field(default_factory=list)
    prepare: Any = None

    def __post_init__(self) -> None:
        names = namespace()
        if self.clock is not None:
            names |= self.clock.functions(self.program.timed)
        exec(compile(self.program.source, "<plan>", "exec"), names)
        self.prepare = names["prepare"]

    def bind(self, arrays: Mapping[Node, Array], rows: Mapping[RowSet, int]) -> Any:
        """step() over the given arrays; the arena is that of the largest row counts it was planned for."""
        if not self.arena:
            self.arena = self.program.allocate(np.empty)
        counts = [rows[r] for r in self.program.row_counts]
        return self.prepare(self.arena, *counts, *(arrays[leaf] for leaf in self.program.arrays))


def executable(outputs: Sequence[Node], clock: Clock | None = None, **options: Any) -> Executable:
    """Generate and load the code for some outputs. Options are those of ``generate``."""
    return Executable(generate(outputs, timed=clock is not None, **options), clock)


def evaluate(
    plan: Plan, arrays: Mapping[Node, Array], rows: Mapping[RowSet, int], clock: Clock | None = None
) -> dict[str, Any]:
    """The outputs of a plan for given leaves: numbers for single values, arrays for the rest."""
    nodes = list(plan.outputs.values())
    with np.errstate(all="ignore"):
        step = executable(nodes, clock, names=plan.names, varying=leaves(nodes)).bind(arrays, rows)
        values = step(*(arrays[n] for n in walk(nodes) if isinstance(n, (Index, Counter))))
    return dict(zip(plan.outputs, values, strict=True))


def leaves(nodes: Sequence[Node]) -> list[Node]:
    """The columns, positions, parameters and states that a plan reads."""
    return [n for n in walk(nodes) if isinstance(n, (Column, Positions, Parameter, State))]


def arena_bytes(outputs: Sequence[Node]) -> int:
    """The bytes of what is computed on the way to some outputs, over as many rows as their row sets are expected to
    have."""
    return generate(outputs, varying=leaves(outputs)).arena_bytes


def resized(outputs: Sequence[Node], rows: RowSet, count: int) -> tuple[list[Node], RowSet]:
    """A plan over a row set, made for ``count`` rows of it at a time."""
    part = RowSet(rows.name, count)
    moved = over_rows(outputs, {rows: part})
    return [moved[n] for n in outputs], part


class Folding:
    """Evaluates single numbers over many rows, a chunk at a time, so that memory does not grow with the rows.

    What folds rows (SUM, MIN, MAX, sums of products) is computed chunk by chunk and combined; what stands above is
    computed once. A fold that reads another fold needs all rows at once and is given them.
    """

    COMBINE = ((Sum, np.add), (Contraction, np.add), (Segment, np.add), (Max, np.maximum), (Min, np.minimum))

    def __init__(self, plan: Plan, rows: RowSet, chunk: int = CHUNK_ROWS) -> None:
        nodes = list(plan.outputs.values())
        folds = [n for n in walk(nodes) if n.type.rows == UNIT and any(i.type.rows == rows for i in n.inputs)]
        nested = any(f in depends_on([f], [other]) for f in folds for other in folds if other is not f)
        total = rows.rows or 0
        self.chunk = total if nested else min(chunk, total)
        self.total, self.rows = total, rows
        results = [State(f"fold_{i}", f.type.element, f.type.shape) for i, f in enumerate(folds)]
        self.folded: dict[Node, Node] = dict(zip(folds, results, strict=True))
        chunked = self.chunked(folds)
        self.columns = {n.name: n for n in leaves(chunked) if isinstance(n, Column)}
        self.part = next(iter(self.columns.values())).rows if self.columns else rows
        self.per_chunk = executable(chunked, varying=leaves(chunked))
        above = substitute(nodes, self.folded)
        self.above = executable(above, varying=leaves(above))
        self.names = list(plan.outputs)
        self.combine = [next(f for kind, f in self.COMBINE if isinstance(n, kind)) for n in folds]

    def chunked(self, folds: Sequence[Node]) -> list[Node]:
        """The folds of a chunk of rows. A count that a row reads is that of all rows, not of the chunk."""
        whole = substitute(folds, {Count(self.rows): constant(self.total)})
        part, _ = resized(whole, self.rows, self.chunk)
        return part

    def __call__(self, columns: Mapping[str, Array], constants: Mapping[Node, Array]) -> dict[str, float]:
        """The outputs, given the full columns by name and the parameters or states by node."""
        return self.over(self.chunks(columns), constants)

    def chunks(self, columns: Mapping[str, Array]) -> Iterator[tuple[Mapping[str, Array], int]]:
        """Full columns chunk by chunk, each with its rows."""
        for start in range(0, self.total, max(1, self.chunk)):
            stop = min(start + self.chunk, self.total)
            yield {name: columns[name][start:stop] for name in self.columns}, stop - start

    def over(
        self, chunks: Iterable[tuple[Mapping[str, Array], int]], constants: Mapping[Node, Array]
    ) -> dict[str, float]:
        """The outputs, given the rows in chunks of at most ``chunk`` that come one after the other."""
        totals: list[Any] = []
        for columns, rows in chunks:
            arrays = dict(constants) | {n: columns[name] for name, n in self.columns.items()}
            values = self.per_chunk.bind(arrays, {self.part: rows})()
            values = [np.array(v) for v in values]
            totals = [f(t, v) for f, t, v in zip(self.combine, totals, values, strict=True)] if totals else values
        arrays = dict(constants) | dict(zip(self.folded.values(), totals, strict=True))
        return dict(zip(self.names, self.above.bind(arrays, {self.rows: self.total})(), strict=True))
