"""A model applied to rows: Arrow in, the forward plan over chunks of rows, Arrow out."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import Error
from ..planner.model import DataColumn
from ..planner.node import Node
from ..planner.ops import Parameter
from ..planner.plan import Plan
from ..types import UNIT, RowSet
from . import blas
from .arrow import to_numpy
from .clock import Clock
from .compiled.switch import Switch
from .device import Array
from .load import leaf_arrays, to_arrow
from .run import Executable, executable, leaves
from .vocabulary import Lookup

CHUNK_ROWS = 2048  # the rows of one of DuckDB's vectors
FEW_CHUNKS = 8  # so many may well come from one thread of DuckDB's


class Predictor:
    """The outputs of an optimized forward plan for columns of Arrow.

    ``inputs`` are, in the order in which columns are passed, the leaves that are computed from each; ``lookups`` and
    ``fillings`` are what this needs. ``classes`` has the values of outputs that are class labels. With ``nulls`` a row
    with a NULL gives NULL, without it it raises DataError, but for columns whose readers take NULL. Calls may come from
    several threads: each has an arena of its own. A ``clock`` takes the time of every operator. ``switch`` says from
    when on chunks are compiled.
    """

    def __init__(
        self,
        plan: Plan,
        rows: RowSet,
        inputs: Sequence[Sequence[DataColumn]],
        parameters: Mapping[Node, Array],
        classes: Mapping[str, pa.Array],
        lookups: Mapping[str, Lookup],
        nulls: bool = False,
        clock: Clock | None = None,
        switch: Switch | None = None,
    ) -> None:
        self.names = list(plan.outputs)
        self.inputs, self.parameters, self.classes, self.nulls = inputs, parameters, classes, nulls
        self.lookups = lookups
        self.fillings = {n.name: a for n, a in parameters.items() if isinstance(n, Parameter)}
        self.may_be_null = [all(leaf.takes_null for leaf in group) for group in inputs]
        self.types = [n.type for n in plan.outputs.values()]
        self.part = RowSet(rows.name, CHUNK_ROWS) if rows != UNIT else UNIT
        self.plan = plan.over({} if rows == UNIT else {rows: self.part}, {})
        self.outputs, self.clock, self.switch = list(self.plan.outputs.values()), clock, switch
        self.chunks = 0  # that have gone by
        self.local = threading.local()

    def executable(self) -> Executable:
        """This thread's code and arena."""
        if not hasattr(self.local, "executable"):
            varying = leaves(self.outputs)
            self.local.executable = executable(self.outputs, self.clock, names=self.plan.names, varying=varying)
        return self.local.executable  # type: ignore[no-any-return]

    def __call__(self, *columns: pa.Array | pa.ChunkedArray) -> dict[str, pa.Array]:
        """The outputs by name, one row for each row of the columns."""
        if self.nulls and any(c.null_count for c in self.checked(columns)):
            return self.with_nulls(columns)
        rows = len(columns[0]) if columns else 1
        arrays: dict[str, Array] = {}
        for column, group in zip(columns, self.inputs, strict=True):
            arrays |= leaf_arrays(column, group, self.lookups, self.fillings)
        parts = [
            self.chunk({n: a[s : s + CHUNK_ROWS] for n, a in arrays.items()}, rows, s)
            for s in range(0, rows, CHUNK_ROWS)
        ]
        parts = parts or [[to_arrow(np.zeros((0, *t.shape)), t, 0, self.classes.get(n)) for n, t in self.named()]]
        return {
            n: p[0] if len(p) == 1 else pa.concat_arrays(p)
            for n, p in zip(self.names, zip(*parts, strict=True), strict=True)
        }

    def named(self) -> list[tuple[str, Any]]:
        return list(zip(self.names, self.types, strict=True))

    def checked(self, columns: Sequence[pa.Array | pa.ChunkedArray]) -> list[pa.Array | pa.ChunkedArray]:
        """The columns in which NULL has no meaning."""
        return [c for c, may_be_null in zip(columns, self.may_be_null, strict=True) if not may_be_null]

    def chunk(self, arrays: Mapping[str, Array], rows: int, start: int) -> list[pa.Array]:
        """The outputs for at most CHUNK_ROWS rows."""
        count = min(CHUNK_ROWS, rows - start)
        values = self.values(arrays, self.parameters, count)
        return [to_arrow(v, t, count, self.classes.get(n)) for v, (n, t) in zip(values, self.named(), strict=True)]

    def values(self, columns: Mapping[str, Array], parameters: Mapping[Node, Array], count: int) -> Sequence[Any]:
        """The outputs as arrays and numbers, for at most CHUNK_ROWS rows and the given parameters."""
        self.chunks += 1
        # DuckDB predicts on several threads at once: would each wake up BLAS's, there were more threads than cores
        with blas.threads(1, look=False) if self.chunks > FEW_CHUNKS else nullcontext():
            if self.switch is None or parameters is not self.parameters:
                return self.interpreted(columns, parameters, count)
            if self.switch.is_compiled():
                found: Sequence[Any] = self.compiled()(count, columns)
                return found
            with self.switch.interpreted():
                return self.interpreted(columns, parameters, count)

    def interpreted(self, columns: Mapping[str, Array], parameters: Mapping[Node, Array], count: int) -> Sequence[Any]:
        """The outputs by code for NumPy."""
        run = self.executable()
        bound = {n: parameters[n] if isinstance(n, Parameter) else columns[n.name] for n in run.program.arrays}  # type: ignore[attr-defined]
        with np.errstate(all="ignore"):
            return run.bind(bound, {self.part: count})()  # type: ignore[no-any-return]

    def compiled(self) -> Any:
        """This thread's compiled function."""
        if not hasattr(self.local, "compiled"):
            assert self.switch is not None
            self.local.compiled = self.switch.bound(self.parameters)
        return self.local.compiled

    def with_nulls(self, columns: Sequence[pa.Array | pa.ChunkedArray]) -> dict[str, pa.Array]:
        """Rows without NULL are predicted; the others are NULL."""
        whole = np.logical_and.reduce([to_numpy(c.is_valid()) for c in self.checked(columns)])
        kept = self(*(c.filter(pa.array(whole)) for c in columns))
        place = pa.array(np.where(whole, np.cumsum(whole) - 1, 0), mask=~whole)
        return {name: values.take(place) for name, values in kept.items()}


class LenientPredictor(Predictor):
    """A Predictor that gives NULL where a row cannot be predicted: who reads it predicts such rows once more."""

    def __call__(self, *columns: pa.Array | pa.ChunkedArray) -> dict[str, pa.Array]:
        try:
            return super().__call__(*columns)
        except Error:
            rows = len(columns[0])
            parts = [to_arrow(np.zeros((0, *t.shape)), t, 0, self.classes.get(n)).type for n, t in self.named()]
            return {n: pa.nulls(rows, part) for n, part in zip(self.names, parts, strict=True)}
