"""Rows as they arrive from DuckDB: a batch of Arrow, and the leaves of a model that it holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from ..planner.model import DataColumn
from ..types import BOOLEAN
from .device import Array
from .load import leaf_arrays
from .matrix import address
from .vocabulary import Lookup


class Reading:
    """What is made of the columns of a query: of each some leaves of a model, with what is needed for that.

    ``plain`` are the leaves whose numbers lie in Arrow's memory as they are declared, each with its column.
    """

    def __init__(
        self,
        schema: pa.Schema,
        groups: Sequence[tuple[DataColumn, ...]],
        lookups: Mapping[str, Lookup],
        fillings: Mapping[str, Array],
    ) -> None:
        self.groups, self.lookups, self.fillings = groups, lookups, fillings
        self.places = {leaf.column.name: i for i, group in enumerate(groups) for leaf in group}
        self.plain = {
            leaf.column.name: i
            for i, group in enumerate(groups)
            for leaf in group
            if is_plain(leaf, schema.field(i).type)
        }


def is_plain(leaf: DataColumn, kind: pa.DataType) -> bool:
    """Whether a leaf's array is the memory of its column, which Arrow holds as this type."""
    declared = leaf.column.type
    if leaf.vocabulary is not None or declared.shape or declared.element == BOOLEAN:  # which Arrow keeps as bits
        return False
    return bool(kind == pa.from_numpy_dtype(declared.element.storage))


class Batch(Mapping[str, Array]):
    """Some rows, each leaf of which becomes an array when it is first asked for.

    That raises DataError for NULLs, wrong lengths and unknown labels; ``first_row`` is the number of the first row.
    """

    def __init__(self, arrow: pa.RecordBatch, reading: Reading, first_row: int) -> None:
        self.arrow, self.reading, self.first_row = arrow, reading, first_row
        self.rows = arrow.num_rows
        self.arrays: dict[str, Array] = {}

    def __getitem__(self, name: str) -> Array:
        if name not in self.arrays:
            i, how = self.reading.places[name], self.reading
            column = self.arrow.column(i)
            self.arrays |= leaf_arrays(column, how.groups[i], how.lookups, how.fillings, self.first_row)
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.reading.places)

    def __len__(self) -> int:
        return len(self.reading.places)

    def starts(self, names: Sequence[str]) -> Array:
        """Where in memory the numbers of each leaf begin, which are one a row and lie there without gaps.

        They stay there as long as the batch does. Plain columns are not made arrays for that.
        """
        plain = self.reading.plain
        if all(name in plain for name in names):
            columns = [self.arrow.column(plain[name]) for name in names]
            if not any(c.null_count or c.offset for c in columns):
                return np.array([c.buffers()[1].address for c in columns], np.uintp)
        self.arrays |= {name: np.ascontiguousarray(self[name]) for name in names}
        return np.array([address(self.arrays[name]) for name in names], np.uintp)
