"""Compiled loops over the rows of a table of parameters that an index names.

NumPy's own are slower: for rows of 32 numbers ``add.at`` takes forty times as long, assignment by an index twice. An
index out of range means the nearest row, as for Take: such an index is refused where it is made, and must not reach
other memory here.
"""

from __future__ import annotations

from typing import Any

from numba import njit

Array = Any


@njit(cache=True, nogil=True)
def clipped(k: int, size: int) -> int:
    """The nearest position within a table of ``size`` rows."""
    return min(max(k, 0), size - 1)


@njit(cache=True, nogil=True)
def add_rows(x: Array, index: Array, scale: Array, out: Array) -> None:
    """out[index[r]] += scale[r] * x[r], row after row; a scale of one entry is that of every row."""
    each = len(scale) > 1
    for r in range(len(index)):
        k = clipped(index[r], len(out))
        s = scale[r if each else 0]
        if s != 0:
            for c in range(x.shape[1]):
                out[k, c] += s * x[r, c]


@njit(cache=True, nogil=True)
def put_rows(x: Array, index: Array, out: Array) -> None:
    """out[index[r]] = x[r], row after row."""
    for r in range(len(index)):
        k = clipped(index[r], len(out))
        for c in range(x.shape[1]):
            out[k, c] = x[r, c]


@njit(cache=True, nogil=True)
def is_first(f: int, rows: int, index: Array, k: int, size: int) -> bool:
    """Whether f, which may be anything, is one of the first ``rows`` rows and has the key k.

    So an array of the first row of each key need not be cleared: an entry that is left over from another batch does
    no harm (Briggs and Torczon, "An Efficient Representation for Sparse Sets", 1993).
    """
    return 0 <= f < rows and clipped(index[f], size) == k


@njit(cache=True, nogil=True)
def find_first(by: Array, first: Array, out: Array) -> None:
    """first[k] = the first row with by = k, for every key that occurs; zeros in these rows of ``out``."""
    size = len(first)
    for r in range(len(by)):
        k = clipped(by[r], size)
        if not is_first(first[k], r, by, k, size):
            first[k] = r
            for c in range(out.shape[1]):
                out[r, c] = 0


@njit(cache=True, nogil=True)
def add_to_first(x: Array, index: Array, by: Array, first: Array, out: Array) -> None:
    """out[first[index[r]]] += x[r], row after row; a key that no row of ``by`` has is left out."""
    size = len(first)
    for r in range(len(index)):
        k = clipped(index[r], size)
        f = first[k]
        if is_first(f, len(by), by, k, size):
            for c in range(x.shape[1]):
                out[f, c] += x[r, c]


@njit(cache=True, nogil=True)
def copy_first(by: Array, first: Array, out: Array) -> None:
    """Copy the first row of every key to its other rows."""
    for r in range(len(by)):
        f = first[clipped(by[r], len(first))]
        if f != r:
            for c in range(out.shape[1]):
                out[r, c] = out[f, c]
