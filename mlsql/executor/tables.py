"""The compiled loops over rows of tables as generated code calls them: arrays of any shape, one row an entry.

Each loads its loop when a plan first needs it, since loading Numba takes longer than planning a network.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def matrix(x: Array) -> Array:
    """An array as plain rows of numbers; a view unless its rows do not lie one after another."""
    return np.ascontiguousarray(x).reshape(len(x), math.prod(x.shape[1:]))


def add_rows(x: Array, index: Array, scale: Any, out: Array) -> None:
    """Add row r of x, times its scale, to row index[r] of ``out``."""
    from .table_kernels import add_rows as compiled

    compiled(matrix(x), index, np.asarray(scale, out.dtype).reshape(-1), matrix(out))


def put_rows(x: Array, index: Array, out: Array) -> None:
    """Replace row index[r] of ``out`` by row r of x."""
    from .table_kernels import put_rows as compiled

    compiled(matrix(x), index, matrix(out))


def find_first(by: Array, first: Array, out: Array) -> None:
    """The first row of every key of ``by``, and zeros in these rows of ``out``."""
    from .table_kernels import find_first as compiled

    compiled(by, first, matrix(out))


def add_to_first(x: Array, index: Array, by: Array, first: Array, out: Array) -> None:
    """Add row r of x to the first row of ``out`` that has its key."""
    from .table_kernels import add_to_first as compiled

    compiled(matrix(x), index, by, first, matrix(out))


def copy_first(by: Array, first: Array, out: Array) -> None:
    """Copy the first row of every key to the others."""
    from .table_kernels import copy_first as compiled

    compiled(by, first, matrix(out))


ROW_LOOPS = (add_rows, put_rows, find_first, add_to_first, copy_first)
