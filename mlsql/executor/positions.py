"""Sets of rows, by position, and where values are NULL."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from ..types import Type, concrete
from .device import Array


def others(rows: int, positions: Array) -> Array:
    """All of so many rows but these."""
    return np.setdiff1d(np.arange(rows), positions)


def common(left: Array, right: Array) -> Array:
    """The rows that are in both."""
    return np.intersect1d(left, right)


def distinct(positions: Array) -> Array:
    """Each row once, in order."""
    return np.unique(positions)


def every(rows: int) -> Array:
    """All of so many rows."""
    return np.arange(rows)


def where_any(flags: Iterable[Array]) -> Array:
    """The rows in which some flag is true."""
    return np.flatnonzero(np.logical_or.reduce([np.asarray(f) for f in flags]))


def no_rows(type: Type) -> Array:
    """The values of no rows."""
    return np.zeros((0, *concrete(type.shape)))


def null_where_not(column: pa.Array, there: Array) -> pa.Array:
    """The column, NULL in every row that is not there; ``there`` is a BOOLEAN a row, or one for all of them."""
    mask = ~np.broadcast_to(np.asarray(there, bool), (len(column),))
    return column.take(pa.array(np.arange(len(column)), mask=mask))
