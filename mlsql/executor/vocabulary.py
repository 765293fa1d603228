"""Vocabularies: the sorted distinct values of an SQL expression, and the position that a value has among them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import Error
from ..record import by_identity
from .arrow import to_numpy
from .device import Array
from .storage import Storage


@by_identity
class Keys:
    """Values in their order, as text, and the SQL type that they have."""

    type_text: str
    texts: pa.Array

    def __len__(self) -> int:
        return len(self.texts)

    def shown(self, most: int = 10) -> str:
        """How many values there are, and the first of them."""
        first = ", ".join(self.texts[:most].to_pylist())
        return f"{len(self)}: {first}{', ...' if len(self) > most else ''}"


def distinct(storage: Storage, expression: str, source: str, values: Any = None) -> Keys:
    """The sorted distinct values of an expression over the rows of what stands after FROM; NULL is none."""
    sql = f"SELECT DISTINCT {expression} AS v FROM {source}"
    [(_, type_text)] = storage.describe(f"({sql})", values)
    texts = storage.query(f"SELECT CAST(v AS VARCHAR) AS text FROM ({sql}) WHERE v IS NOT NULL ORDER BY v", values)
    return Keys(type_text, texts.column(0).combine_chunks())


def typed(storage: Storage, keys: Keys) -> pa.Array:
    """The values in their own type."""
    with registered(storage, "mlsql_keys", pa.table({"v": keys.texts})):
        return storage.query(f"SELECT CAST(v AS {keys.type_text}) AS v FROM mlsql_keys").column(0).combine_chunks()


@contextlib.contextmanager
def registered(storage: Storage, name: str, table: pa.Table) -> Iterator[None]:
    """Inside, statements can read the table under a name."""
    storage.register(name, table)
    try:
        yield
    except BaseException:
        with contextlib.suppress(Error):  # the first error is the one to tell
            storage.unregister(name)
        raise
    storage.unregister(name)


@dataclass
class Lookup:
    """Finds the positions of values among keys."""

    values: pa.Array
    by_value: dict[Any, int] = field(default_factory=dict)

    def __call__(self, column: pa.Array | pa.ChunkedArray) -> Array:
        """For each value its position, -1 for NULL and for what is none of the keys."""
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        if pa.types.is_dictionary(column.type):  # an ENUM
            column = column.cast(column.type.value_type)
        if len(self.values) <= len(column):
            from pyarrow import compute

            found = compute.index_in(column, value_set=self.values_as(column.type), skip_nulls=True)
        else:  # a table of the keys is made once, not for every vector of DuckDB's
            entries = column.dictionary_encode()
            places = self.places()
            known = pa.array([places.get(v) for v in entries.dictionary.to_pylist()], pa.int32())
            found = known.take(entries.indices)
        positions = to_numpy(found).astype(np.int64)
        if found.null_count:
            positions[to_numpy(found.is_null())] = -1
        return positions

    def values_as(self, type: pa.DataType) -> pa.Array:
        values = self.values
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        return values if values.type == type else values.cast(type)

    def places(self) -> dict[Any, int]:
        if not self.by_value:
            self.by_value = {v: i for i, v in enumerate(self.values.to_pylist())}
        return self.by_value
