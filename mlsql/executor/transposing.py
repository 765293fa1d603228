"""A compiled loop that lays columns side by side. Importing this loads Numba."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from .device import Array
from .kernels import compiled

TILE = 16  # rows at a time: a cache line of each column of four bytes


def pointer(typing_context: Any, address: Any, like: Any) -> Any:
    """A pointer to numbers of an array's type at an address, for compiled code."""
    kind: Any = types.CPointer(like.dtype)  # type: ignore[no-untyped-call]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(kind))

    return kind(address, like), generate


at: Any = intrinsic(pointer)


@compiled()
def place_columns(addresses: Array, window: Array) -> None:
    """Copy the columns that start at some addresses into the columns of a row-major matrix.

    The columns have the matrix's element type and its number of rows. Four of them are copied at a time, so that
    each row gets a run of numbers, and a few rows at a time, so that a cache line is full before it leaves the cache.
    """
    rows, count = window.shape
    fours = count - count % 4
    for start in range(0, rows, TILE):
        stop = min(start + TILE, rows)
        for k in range(0, fours, 4):
            a, b = at(addresses[k], window), at(addresses[k + 1], window)
            c, d = at(addresses[k + 2], window), at(addresses[k + 3], window)
            for i in range(np.uintp(start), np.uintp(stop)):  # unsigned, else each index is checked for its sign
                row = window[i]
                row[np.uintp(k)], row[np.uintp(k + 1)] = a[i], b[i]
                row[np.uintp(k + 2)], row[np.uintp(k + 3)] = c[i], d[i]
        for k in range(fours, count):
            a = at(addresses[k], window)
            for i in range(np.uintp(start), np.uintp(stop)):
                window[i, np.uintp(k)] = a[i]
