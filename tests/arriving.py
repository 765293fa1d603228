"""Rows as DuckDB hands them over, made of arrays."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from mlsql.executor.arrow import from_numpy
from mlsql.executor.batch import Batch, Reading
from mlsql.executor.device import Array
from mlsql.planner.model import DataColumn
from mlsql.planner.ops import Column
from mlsql.types import ELEMENTS, RowSet

TABLE = RowSet("table")
KINDS = {e.storage: e for e in ELEMENTS.values()}


def arrived(arrays: Mapping[str, Array]) -> Batch:
    """A batch whose leaves are these arrays, of shape (rows,) or (rows, size)."""
    columns = {name: _column(a) for name, a in arrays.items()}
    leaves = [Column(name, TABLE, KINDS[a.dtype.name], a.shape[1:]) for name, a in arrays.items()]
    arrow = pa.RecordBatch.from_arrays(list(columns.values()), list(columns))
    return Batch(arrow, Reading(arrow.schema, [(DataColumn(c, "{0}", (c.name,)),) for c in leaves], {}, {}), 1)


def _column(array: Array) -> pa.Array:
    flat = from_numpy(array.reshape(-1))
    return flat if array.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, array.shape[1])
