"""Compiled loops over the rows of a table of parameters that an index names.

NumPy's own are slower: for rows of 32 numbers ``add.at`` takes forty times as long, assignment by an index twice. An
index out of range means the nearest row, as for Take: such an index is refused where it is made, and must not reach
other memory here.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .device import Array
from .kernels import compiled


@compiled()
def _clipped(k: int, size: int) -> int:
    """The nearest position within a table of ``size`` rows."""
    return min(max(k, 0), size - 1)


@compiled()
def _add_rows(x: Array, index: Array, scale: Array, out: Array) -> None:
    """out[index[r]] += scale[r] * x[r], row after row; a scale of one entry is that of every row."""
    each = len(scale) > 1
    for r in range(len(index)):
        k = _clipped(index[r], len(out))
        s = scale[r if each else 0]
        if s != 0:
            for c in range(x.shape[1]):
                out[k, c] += s * x[r, c]


@compiled()
def _put_rows(x: Array, index: Array, out: Array) -> None:
    """out[index[r]] = x[r], row after row."""
    for r in range(len(index)):
        k = _clipped(index[r], len(out))
        for c in range(x.shape[1]):
            out[k, c] = x[r, c]


@compiled()
def _is_first(f: int, rows: int, index: Array, k: int, size: int) -> bool:
    """Whether f, which may be anything, is one of the first ``rows`` rows and has the key k.

    So an array of the first row of each key need not be cleared: an entry that is left over from another batch does
    no harm (Briggs and Torczon, "An Efficient Representation for Sparse Sets", 1993).
    """
    return 0 <= f < rows and _clipped(index[f], size) == k


@compiled()
def _find_first(by: Array, first: Array, out: Array) -> None:
    """first[k] = the first row with by = k, for every key that occurs; zeros in these rows of ``out``."""
    size = len(first)
    for r in range(len(by)):
        k = _clipped(by[r], size)
        if not _is_first(first[k], r, by, k, size):
            first[k] = r
            for c in range(out.shape[1]):
                out[r, c] = 0


@compiled()
def _add_to_first(x: Array, index: Array, by: Array, first: Array, out: Array) -> None:
    """out[first[index[r]]] += x[r], row after row; a key that no row of ``by`` has is left out."""
    size = len(first)
    for r in range(len(index)):
        k = _clipped(index[r], size)
        f = first[k]
        if _is_first(f, len(by), by, k, size):
            for c in range(x.shape[1]):
                out[f, c] += x[r, c]


@compiled()
def _copy_first(by: Array, first: Array, out: Array) -> None:
    """Copy the first row of every key to its other rows."""
    for r in range(len(by)):
        f = first[_clipped(by[r], len(first))]
        if f != r:
            for c in range(out.shape[1]):
                out[r, c] = out[f, c]


# -- as generated code calls them: arrays of any shape, one row an entry -----------------------------------------------


def _matrix(x: Array) -> Array:
    """An array as plain rows of numbers; a view unless its rows do not lie one after another."""
    return np.ascontiguousarray(x).reshape(len(x), math.prod(x.shape[1:]))


def add_scaled_rows(x: Array, index: Array, scale: Any, out: Array) -> None:
    """Add row r of x, times its scale, to row index[r] of ``out``."""
    _add_rows(_matrix(x), index, np.asarray(scale, out.dtype).reshape(-1), _matrix(out))


def put_rows(x: Array, index: Array, out: Array) -> None:
    """Replace row index[r] of ``out`` by row r of x."""
    _put_rows(_matrix(x), index, _matrix(out))


def find_first(by: Array, first: Array, out: Array) -> None:
    """The first row of every key of ``by``, and zeros in these rows of ``out``."""
    _find_first(by, first, _matrix(out))


def add_to_first(x: Array, index: Array, by: Array, first: Array, out: Array) -> None:
    """Add row r of x to the first row of ``out`` that has its key."""
    _add_to_first(_matrix(x), index, by, first, _matrix(out))


def copy_first(by: Array, first: Array, out: Array) -> None:
    """Copy the first row of every key to the others."""
    _copy_first(by, first, _matrix(out))
