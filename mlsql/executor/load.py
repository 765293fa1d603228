"""Arrow in, arrays out: columns as one tensor a row, checked for NULLs and lengths on the way, and back again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa

from ..errors import DataError, suggest
from ..planner.model import DataColumn, Find
from ..types import Type, concrete
from .arrow import entries, from_numpy, list_sizes, to_numpy
from .device import Array
from .vocabulary import Lookup


def to_array(column: pa.Array | pa.ChunkedArray, name: str, type: Type, first_row: int | None = None) -> Array:
    """A column as an array of shape (rows, *entry).

    Raises DataError for a NULL or a list of another length than declared, naming the first such row; ``first_row`` is
    the number of the column's first row, None if rows have no number that a person could look up.
    """
    if column.null_count:
        raise null_error(name, column, first_row)
    if isinstance(column, pa.ChunkedArray) and column.num_chunks == 1:
        column = column.chunk(0)  # whose numbers stay where they are
    if isinstance(column, pa.ChunkedArray):
        starts = np.cumsum([0, *(len(c) for c in column.chunks)])
        parts = [
            to_array(c, name, type, None if first_row is None else first_row + int(start))
            for start, c in zip(starts, column.chunks, strict=False)
        ]
        return np.concatenate(parts) if parts else np.empty((0, *concrete(type.shape)), type.element.storage)
    rows, per_row, sizes = len(column), 1, concrete(type.shape)
    for size in sizes:
        column = _flattened(column, name, size, per_row, first_row)
        per_row *= size
        if column.null_count:
            row = _first(column.is_null()) // per_row
            raise DataError(f'column "{name}" has a NULL inside a list{_in_row(first_row, row)}')
    out = np.ascontiguousarray(to_numpy(column), dtype=type.element.storage)
    return out.reshape(rows, *sizes) if sizes else out


def null_error(name: str, column: pa.Array | pa.ChunkedArray, first_row: int | None) -> DataError:
    """The error for NULLs in a column that is computed with. How many there are in all is not known: others may follow
    these rows."""
    where = _in_row(first_row, _first(column.is_null()))
    return DataError(
        f'column "{name}" has a NULL{where}',
        hint=f"leave such rows out with WHERE {name} IS NOT NULL, or fill them with COALESCE({name}, ...)",
    )


def _first(mask: Any) -> int:
    return int(mask.index(True).as_py())


def _in_row(first_row: int | None, position: int) -> str:
    return "" if first_row is None else f" in row {first_row + position}"


def _flattened(column: pa.Array, name: str, size: int, per_row: int, first_row: int | None) -> pa.Array:
    """The entries of a list column end to end; every list must have ``size`` of them."""
    if pa.types.is_fixed_size_list(column.type):
        lengths_differ = column.type.list_size != size
        position, length = 0, column.type.list_size
    else:
        lengths = list_sizes(column)
        wrong = lengths != size
        lengths_differ = bool(wrong.any())
        position = int(wrong.argmax()) if lengths_differ else 0
        length = int(lengths[position]) if len(lengths) else size
    if lengths_differ and len(column):
        raise DataError(
            f'column "{name}" has a list of {length}{_in_row(first_row, position // per_row)}; {size} are declared',
            hint=f"rows like it: SELECT * FROM ... WHERE len({name}) <> {size}",
        )
    return entries(column)


class UnknownLabel(DataError):
    """A label that is none of the classes."""


def leaf_arrays(
    arrow: pa.Array | pa.ChunkedArray,
    leaves: Sequence[DataColumn],
    lookups: Mapping[str, Lookup],
    fillings: Mapping[str, Array],
    first_row: int | None = None,
) -> dict[str, Array]:
    """The leaves that one column of Arrow gives, by name. A value is looked up once for all of them."""
    vocabulary = leaves[0].vocabulary
    if vocabulary is None:
        by_name = {leaf.column.name: leaf for leaf in leaves}
        return {n: to_array(_filled(arrow, c, fillings), n, c.column.type, first_row) for n, c in by_name.items()}
    lookup = lookups[vocabulary]
    places = lookup(arrow)
    return {leaf.column.name: found(places, leaf, arrow, lookup, first_row) for leaf in leaves}


def _filled(arrow: Any, leaf: DataColumn, fillings: Mapping[str, Array]) -> Any:
    if leaf.fill is None or not arrow.null_count:
        return arrow
    return arrow.fill_null(pa.scalar(float(fillings[leaf.fill]), arrow.type))


def found(places: Array, leaf: DataColumn, arrow: Any, lookup: Lookup, first_row: int | None = None) -> Array:
    """What a leaf holds of positions that are -1 for unknown values.

    Raises UnknownLabel or DataError for one where there must be none.
    """
    known = places >= 0
    match leaf.find:
        case Find.KNOWN:
            return known.astype(leaf.column.type.element.storage)
        case Find.INSIDE:
            return np.where(known, places, 0)
        case Find.ROW:
            return np.where(known, places, len(lookup.values))
        case Find.LABEL_OR_NULL if arrow.null_count:
            missing = to_numpy(arrow.is_null())
            if not (known | missing).all():
                _refuse(int((known | missing).argmin()), leaf, arrow.fill_null(arrow.drop_null()[0]), lookup, first_row)
            return np.where(known, places, 0)
    if not known.all():
        _refuse(int(known.argmin()), leaf, arrow, lookup, first_row)
    return places


def _refuse(position: int, leaf: DataColumn, arrow: Any, lookup: Lookup, first_row: int | None) -> NoReturn:
    name = leaf.reads[0] if leaf.sql == "{0}" else leaf.column.name
    if arrow.null_count:
        raise null_error(name, arrow, first_row)
    value, where = arrow[position].as_py(), _in_row(first_row, position)
    if leaf.find == Find.KEY:
        raise DataError(
            f'column "{name}" has the key {value!r}{where}, which training has not seen',
            hint="UNKNOWN ZEROS or UNKNOWN MEAN in EMBED gives such keys a vector",
        )
    known = [str(c) for c in lookup.values.to_pylist()]
    raise UnknownLabel(
        f'column "{name}" has the label {value!r}{where}, which is none of the classes',
        hint=suggest(str(value), known) or f"the classes are {', '.join(known[:10])}",
    )


def to_arrow(values: Any, type: Type, rows: int, classes: pa.Array | None = None) -> pa.Array:
    """An output of a plan as an Arrow array of ``rows`` rows; a value of the unit row set is repeated.

    It is a copy: DuckDB keeps what a function gives it, and the next rows are computed in the same memory.
    """
    array = np.array(values, dtype=type.element.storage)
    if array.shape[: array.ndim - type.rank] != (rows,):
        array = np.broadcast_to(array, (rows, *array.shape))
    if classes is not None:
        return classes.take(from_numpy(array))
    out = from_numpy(np.ascontiguousarray(array).reshape(-1))
    for size in reversed(concrete(type.shape)):
        out = pa.FixedSizeListArray.from_arrays(out, size)
    return out
