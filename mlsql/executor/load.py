"""Arrow in, arrays out: columns as one tensor a row, checked for NULLs and lengths on the way, and back again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import DataError, suggest
from ..types import Type, concrete
from .device import Array


def to_array(column: pa.Array | pa.ChunkedArray, name: str, type: Type, first_row: int | None = None) -> Array:
    """A column as an array of shape (rows, *entry).

    Raises DataError for a NULL or a list of another length than declared, naming the first such row; ``first_row`` is
    the number of the column's first row, None if rows have no number that a person could look up.
    """
    if column.null_count:
        raise null_error(name, column, first_row)
    if isinstance(column, pa.ChunkedArray):
        starts = np.cumsum([0, *(len(c) for c in column.chunks)])
        parts = [
            to_array(c, name, type, None if first_row is None else first_row + int(start))
            for start, c in zip(starts, column.chunks, strict=False)
        ]
        return np.concatenate(parts) if parts else np.empty((0, *concrete(type.shape)), type.element.storage)
    rows, per_row = len(column), 1
    for size in concrete(type.shape):
        column = _flattened(column, name, size, per_row, first_row)
        per_row *= size
        if column.null_count:
            row = _first(column.is_null()) // per_row
            raise DataError(f'column "{name}" has a NULL inside a list{_in_row(first_row, row)}')
    out = column.to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(out, dtype=type.element.storage).reshape(rows, *concrete(type.shape))


def null_error(name: str, column: pa.Array | pa.ChunkedArray, first_row: int | None) -> DataError:
    """The error for NULLs in a column that is computed with."""
    count = column.null_count
    first = "" if first_row is None else f", the first{_in_row(first_row, _first(column.is_null()))}"
    return DataError(
        f'column "{name}" has {count} {"NULL" if count == 1 else "NULLs"} in {len(column)} rows{first}',
        hint=f"leave such rows out with WHERE {name} IS NOT NULL, or fill them with COALESCE({name}, ...)",
    )


def _first(mask: Any) -> int:
    return int(pc.index(mask, True).as_py())


def _in_row(first_row: int | None, position: int) -> str:
    return "" if first_row is None else f" in row {first_row + position}"


def _flattened(column: pa.Array, name: str, size: int, per_row: int, first_row: int | None) -> pa.Array:
    """The entries of a list column end to end; every list must have ``size`` of them."""
    if pa.types.is_fixed_size_list(column.type):
        lengths_differ = column.type.list_size != size
        position, length = 0, column.type.list_size
    else:
        lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
        wrong = lengths != size
        lengths_differ = bool(wrong.any())
        position = int(wrong.argmax()) if lengths_differ else 0
        length = int(lengths[position]) if len(lengths) else size
    if lengths_differ and len(column):
        raise DataError(
            f'column "{name}" has a list of {length}{_in_row(first_row, position // per_row)}; {size} are declared',
            hint=f"rows like it: SELECT * FROM ... WHERE len({name}) <> {size}",
        )
    return column.flatten()


class UnknownLabel(DataError):
    """A label that is none of the classes."""


def class_index(
    column: pa.Array | pa.ChunkedArray, classes: pa.Array, name: str, first_row: int | None = None
) -> Array:
    """The position of each label among the classes. Raises UnknownLabel for one that is none of them."""
    if column.null_count:
        raise null_error(name, column, first_row)
    if pa.types.is_dictionary(column.type):  # an ENUM
        column = column.cast(column.type.value_type)
    found = pc.index_in(column, value_set=classes.cast(column.type))
    if found.null_count:
        position = _first(found.is_null())
        label = column[position].as_py()
        known = [str(c) for c in classes.to_pylist()]
        raise UnknownLabel(
            f'column "{name}" has the label {label!r}{_in_row(first_row, position)}, which is none of the classes',
            hint=suggest(str(label), known) or f"the classes are {', '.join(known[:10])}",
        )
    return np.ascontiguousarray(found.to_numpy(zero_copy_only=False), dtype=np.int64)


def to_arrow(values: Any, type: Type, rows: int, classes: pa.Array | None = None) -> pa.Array:
    """An output of a plan as an Arrow array of ``rows`` rows; a value of the unit row set is repeated."""
    array = np.asarray(values, dtype=type.element.storage)
    if array.shape[: array.ndim - type.rank] != (rows,):
        array = np.broadcast_to(array, (rows, *array.shape))
    if classes is not None:
        return classes.take(pa.array(np.ascontiguousarray(array)))
    out = pa.array(np.ascontiguousarray(array).reshape(-1))
    for size in reversed(concrete(type.shape)):
        out = pa.FixedSizeListArray.from_arrays(out, size)
    return out
