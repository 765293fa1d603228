"""Values of every row, some rows at a time: what would not fit into memory for all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ..planner.node import Node, depends_on, substitute, walk
from ..planner.ops import Column, Count, Index, Parameter, Positions, State, constant
from ..planner.plan import Plan
from ..types import UNIT, RowSet
from .device import Array
from .run import CHUNK_ROWS, evaluate, executable, resized


class Chunked:
    """Evaluates some nodes over the rows of ``table``, a chunk at a time.

    What single numbers the rows read of all rows, such as an average, is computed once, and so is what no state
    reaches in a chunk. A plan over several row sets, or in which all rows together depend on a state, is one chunk.
    ``columns`` gives the array of a leaf, ``rows_of`` the rows of a row set, ``index`` the rows of a batch's index.
    """

    def __init__(
        self,
        outputs: Sequence[Node],
        table: RowSet,
        total: int,
        column: Callable[[Node], Array],
        rows_of: Callable[[Sequence[RowSet]], Mapping[RowSet, int]],
        batch: tuple[Any, ...],
        chunk: int = CHUNK_ROWS,
    ) -> None:
        self.column, self.rows_of, self.batch, self.total = column, rows_of, batch, total
        nodes = list(walk(outputs))
        data = depends_on(nodes, [n for n in nodes if isinstance(n, (Column, Positions, Index))])
        moving = depends_on(nodes, [n for n in nodes if isinstance(n, State)])
        folds = [n for n in nodes if n in data and n.type.rows == UNIT]
        by_row = any(o.type.rows == table for o in outputs)
        sets = {r for n in nodes for r in n.row_sets()} - {UNIT}
        self.table, self.part = table, table
        self.outputs = list(outputs)
        self.chunk = total
        self.folded: dict[Node, Array] = {}
        if by_row and sets == {table} and not any(f in moving for f in folds) and total > chunk:
            self.chunk = chunk
            self.fold(folds)
            self.outputs, self.part = resized(self.outputs, table, chunk)
        indexes = [n for n in walk(self.outputs) if isinstance(n, Index)]
        self.step = executable(self.outputs, arguments=indexes)

    def fold(self, folds: Sequence[Node]) -> None:
        """Compute what the rows read of all rows once, and have them read the values."""
        counts: dict[Node, Node] = {n: constant(self.total) for n in walk(self.outputs) if isinstance(n, Count)}
        read = {x for n in walk(self.outputs) if n not in folds for x in n.inputs if x in folds}
        values = evaluate(Plan({str(i): f for i, f in enumerate(read)}), self.leaves(read), self.rows_of([self.table]))
        states = {f: State(f"fold {i}", f.type.element, f.type.shape) for i, f in enumerate(read)}
        self.folded = {states[f]: values[str(i)] for i, f in enumerate(read)}
        self.outputs = substitute(self.outputs, {**counts, **states})

    def leaves(self, outputs: Sequence[Node] | set[Node]) -> dict[Node, Array]:
        """The arrays of all columns, positions and frozen parameters of a plan."""
        return {n: self.column(n) for n in walk(outputs) if isinstance(n, (Column, Positions, Parameter))}

    def parts(self, states: Mapping[Node, Array]) -> Iterator[Callable[[], tuple[Any, ...]]]:
        """For each chunk the outputs as a function of the states, whose arrays may change from call to call."""
        for start in range(0, max(1, self.total), max(1, self.chunk)):
            yield self.bound(states, start, min(start + self.chunk, self.total))

    def bound(self, states: Mapping[Node, Array], start: int, stop: int) -> Callable[[], tuple[Any, ...]]:
        """The outputs over the rows from start to stop."""
        program, known = self.step.program, {**states, **self.folded}
        arrays = {}
        for leaf in program.arrays:
            whole = known[leaf] if isinstance(leaf, State) else self.column(self.whole(leaf))
            arrays[leaf] = whole[start:stop] if leaf.type.rows == self.part != self.table else whole
        counts = dict(self.rows_of(list(program.row_counts)))
        if self.part != self.table:
            counts[self.part] = stop - start
        run = self.step.bind(arrays, counts)
        arguments = self.batch if program.arguments else ()
        return lambda: run(*arguments)

    def whole(self, leaf: Node) -> Node:
        """The column of all rows of which a chunk's column is a part."""
        if isinstance(leaf, Column) and leaf.rows == self.part:
            return Column(leaf.name, self.table, leaf.element, leaf.shape)
        return leaf
