"""Arrow arrays as NumPy's and NumPy's as Arrow's, over the same memory.

pyarrow's own conversions, ``to_numpy`` and ``pa.array``, import pandas wherever it is installed, and many methods of
its arrays import ``pyarrow.compute``: more than a short TRAIN takes. What is here needs neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from .device import Array


def to_numpy(column: pa.Array | pa.ChunkedArray) -> Array:
    """The values of an array, of shape (rows,); where it is NULL, a number or boolean may be any.

    Numbers are seen in Arrow's memory, and are read-only.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    kind = column.type
    data = column.buffers()[-1]
    if pa.types.is_boolean(kind) and data is not None:
        bits = np.unpackbits(np.frombuffer(data, np.uint8), count=column.offset + len(column), bitorder="little")
        return bits[column.offset :].view(np.bool_)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return np.asarray(column.to_numpy(zero_copy_only=False))
    dtype = np.dtype(kind.to_pandas_dtype())
    if data is None or not len(column):
        return np.empty(0, dtype)
    return np.frombuffer(data, dtype, len(column), column.offset * dtype.itemsize)


def from_numpy(array: Array) -> pa.Array:
    """Numbers or booleans of shape (rows,) as an Arrow array, over the same memory where that is dense."""
    if array.dtype == np.bool_:
        bits = pa.py_buffer(np.packbits(array, bitorder="little"))
        return pa.Array.from_buffers(pa.bool_(), len(array), [None, bits])
    buffer = pa.py_buffer(np.ascontiguousarray(array))
    return pa.Array.from_buffers(pa.from_numpy_dtype(array.dtype), len(array), [None, buffer])


def from_list(values: Sequence[Any], kind: pa.DataType | None = None) -> pa.Array:
    """Python values as an Arrow array; without a type it is the one that Arrow infers. None is NULL.

    Text, integers of 64 bits and doubles are built here; the rest, which our own small tables seldom hold, by Arrow.
    """
    kinds = {type(v) for v in values if v is not None}
    present = pa.py_buffer(np.packbits(np.array([v is not None for v in values], bool), bitorder="little"))
    if kinds == {str} and kind in (None, pa.string()):
        return pa.Array.from_buffers(pa.string(), len(values), [present, *_texts(values)])
    for python, arrow in ((int, pa.int64()), (float, pa.float64())):
        if kinds == {python} and kind in (None, arrow):
            numbers = np.array([python(0) if v is None else v for v in values])
            if numbers.dtype == arrow.to_pandas_dtype():  # else an integer needs more than 64 bits
                return pa.Array.from_buffers(arrow, len(values), [present, pa.py_buffer(numbers)])
    return pa.array(values, kind)


def _texts(values: Sequence[str | None]) -> tuple[pa.Buffer, pa.Buffer]:
    """Text as Arrow keeps it: where each begins, and all of them end to end."""
    encoded = [b"" if v is None else v.encode() for v in values]
    ends = np.cumsum([0, *map(len, encoded)]).astype(np.int32)
    return pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))


def list_sizes(column: pa.Array) -> Array:
    """How many entries each list of a list array has."""
    return np.diff(to_numpy(column.offsets))


def entries(column: pa.Array) -> pa.Array:
    """The entries of a list array without NULLs, end to end."""
    if pa.types.is_fixed_size_list(column.type):
        size = column.type.list_size
        return column.values.slice(column.offset * size, len(column) * size)
    offsets = to_numpy(column.offsets)
    return column.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0])) if len(column) else column.values[:0]
