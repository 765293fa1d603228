"""Compiled loops over the rows of joins and groups. Importing this loads Numba: only a plan that runs one does.

Every sum is taken in one fixed order by one thread, so that results have the same bits at any number of threads. Large
work is split by blocks of groups over a few threads of our own; the compiled loops hold no lock while they run.
A position outside its table counts as the nearest one inside, as in Take: no index can reach outside an array.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numba import njit

from .device import Array, cores
from .threads import pool

PARALLEL_WORK = 1 << 18  # numbers that are worth waking other threads for: about a tenth of a millisecond
BLOCKS_PER_THREAD = 4  # more blocks than threads: one that is held up does not hold up all


Loop = TypeVar("Loop", bound=Callable[..., Any])


def compiled(**options: Any) -> Callable[[Loop], Loop]:
    """Compile at the first call and keep the result on disk, where there is a place to keep it."""

    def compile(function: Loop) -> Loop:
        try:
            return njit(cache=True, nogil=True, **options)(function)  # type: ignore[no-any-return]
        except RuntimeError:  # neither this folder nor the user's cache can be written
            return njit(nogil=True, **options)(function)  # type: ignore[no-any-return]

    return compile


# -- what is prepared once for positions that do not change ------------------------------------------------------------


class Groups(NamedTuple):
    """Rows by group (compressed sparse rows): those of group g are ``order[starts[g]:starts[g + 1]]``, ascending."""

    starts: Array
    order: Array


class Joined(NamedTuple):
    """Joined rows by group; ``sources`` holds the row of the table that each of them reads."""

    starts: Array
    order: Array
    sources: Array


@compiled()
def _count_and_place(index: Array, count: int, starts: Array, order: Array) -> None:
    last = count - 1
    for j in range(index.shape[0]):
        starts[min(max(index[j], 0), last) + 1] += 1
    for g in range(count):
        starts[g + 1] += starts[g]
    place = starts[:-1].copy()
    for j in range(index.shape[0]):
        g = min(max(index[j], 0), last)
        order[place[g]] = j
        place[g] += 1


def group_rows(index: Array, count: int) -> Groups:
    """The rows that share each of ``count`` values of an index, by counting sort."""
    starts, order = np.zeros(count + 1, np.int64), np.zeros(len(index), np.int64)
    if count:
        _count_and_place(_positions(index), count, starts, order)
    return Groups(starts, order)


def join_rows(source: Array, group: Array, size: int, count: int) -> Joined:
    """Joined rows by ``count`` groups, for a table of ``size`` rows."""
    starts, order = group_rows(group, count)
    return Joined(starts, order, np.clip(_positions(source)[order], 0, max(0, size - 1)))


# -- loops -------------------------------------------------------------------------------------------------------------


@compiled()
def _add_rows(x: Array, index: Array, out: Array) -> None:
    last = out.shape[0] - 1
    for j in range(index.shape[0]):
        g = min(max(index[j], 0), last)
        for k in range(x.shape[1]):
            out[g, k] += x[j, k]


@compiled()
def _add_joined(x: Array, source: Array, group: Array, out: Array) -> None:
    last_source, last_group = x.shape[0] - 1, out.shape[0] - 1
    for j in range(group.shape[0]):
        s, g = min(max(source[j], 0), last_source), min(max(group[j], 0), last_group)
        for k in range(x.shape[1]):
            out[g, k] += x[s, k]


@compiled()
def _add_weighted(x: Array, source: Array, group: Array, weight: Array, out: Array) -> None:
    last_source, last_group = x.shape[0] - 1, out.shape[0] - 1
    for j in range(group.shape[0]):
        s, g = min(max(source[j], 0), last_source), min(max(group[j], 0), last_group)
        for k in range(x.shape[1]):
            out[g, k] += weight[j] * x[s, k]


@compiled()
def _sum_groups(first: int, last: int, x: Array, starts: Array, sources: Array, out: Array) -> None:
    for g in range(first, last):
        for k in range(x.shape[1]):
            out[g, k] = 0
        for p in range(starts[g], starts[g + 1]):
            s = sources[p]
            for k in range(x.shape[1]):
                out[g, k] += x[s, k]


@compiled()
def _sum_weighted(
    first: int, last: int, x: Array, starts: Array, sources: Array, order: Array, weight: Array, out: Array
) -> None:
    for g in range(first, last):
        for k in range(x.shape[1]):
            out[g, k] = 0
        for p in range(starts[g], starts[g + 1]):
            s, w = sources[p], weight[order[p]]
            for k in range(x.shape[1]):
                out[g, k] += w * x[s, k]


@compiled()
def _best_of_groups(first: int, last: int, x: Array, starts: Array, order: Array, largest: bool, out: Array) -> None:
    for g in range(first, last):
        begin, end = starts[g], starts[g + 1]
        for k in range(x.shape[1]):
            out[g, k] = x[order[begin], k] if begin < end else 0
        for p in range(begin + 1, end):
            s = order[p]
            for k in range(x.shape[1]):
                value, best = x[s, k], out[g, k]
                better = value > best if largest else value < best
                if better or value != value:  # NaN wins and stays, as in NumPy
                    out[g, k] = value


# lets a sum run in vector registers, in an order that is fixed when the loop is compiled
IN_REGISTERS = {"reassoc", "contract"}


@compiled(fastmath=IN_REGISTERS)
def _pair_dots(x: Array, i: Array, y: Array, j: Array, out: Array) -> None:
    last_x, last_y = x.shape[0] - 1, y.shape[0] - 1
    for row in range(out.shape[0]):
        a, b = min(max(i[row], 0), last_x), min(max(j[row], 0), last_y)
        total = out.dtype.type(0)
        for k in range(x.shape[1]):
            total += x[a, k] * y[b, k]
        out[row] = total


@compiled(fastmath=IN_REGISTERS)
def _joined_dots(
    first: int, last: int, x: Array, starts: Array, sources: Array, order: Array, y: Array, out: Array
) -> None:
    for g in range(first, last):
        for p in range(starts[g], starts[g + 1]):
            s = sources[p]
            total = out.dtype.type(0)
            for k in range(x.shape[1]):
                total += x[s, k] * y[g, k]
            out[order[p]] = total


# -- what generated code calls -----------------------------------------------------------------------------------------


def add_rows(x: Array, index: Array, out: Array) -> None:
    """out[index[j]] += x[j] from zero, row after row; an x without rows of its own is the same for every row."""
    out.fill(0)
    if out.size and len(index):
        _add_rows(_rows(x, len(index), out), _positions(index), _table(out, out))


def sum_groups(x: Array, groups: Groups, out: Array) -> None:
    """Row g of out is the sum of the rows of x in group g; an x without rows of its own is the same for every row."""
    x = _rows(x, len(groups.order), out)
    _by_groups(_sum_groups, groups.starts, x, groups.starts, groups.order, _table(out, out))


def best_of_groups(x: Array, groups: Groups, largest: bool, out: Array) -> None:
    """Row g of out is the largest (else the smallest) of each number of the rows of x in group g; 0 for no rows."""
    x = _rows(x, len(groups.order), out)
    _by_groups(_best_of_groups, groups.starts, x, groups.starts, groups.order, largest, _table(out, out))


def add_joined(x: Array, source: Array, group: Array, weight: Array | None, out: Array) -> None:
    """out[group[j]] += weight[j] * x[source[j]] from zero, row after row."""
    out.fill(0)
    if not (out.size and x.size):
        return
    positions = _positions(source), _positions(group)
    if weight is None:
        _add_joined(_table(x, out), *positions, _table(out, out))
    else:
        _add_weighted(_table(x, out), *positions, _vector(weight, out), _table(out, out))


def sum_joined(x: Array, joined: Joined, weight: Array | None, out: Array) -> None:
    """Row g of out is the sum of weight * x[source] over the joined rows of group g."""
    if not x.size:
        out.fill(0)
        return
    table, result = _table(x, out), _table(out, out)
    starts, order, sources = joined
    if weight is None:
        _by_groups(_sum_groups, starts, table, starts, sources, result)
    else:
        _by_groups(_sum_weighted, starts, table, starts, sources, order, _vector(weight, out), result)


def pair_dots(x: Array, i: Array, y: Array, j: Array, out: Array) -> None:
    """out[row] is the inner product of x[i[row]] and y[j[row]]."""
    if not (x.size and y.size):
        out.fill(0)
        return
    _pair_dots(_table(x, out), _positions(i), _table(y, out), _positions(j), out)


def joined_dots(x: Array, joined: Joined, y: Array, out: Array) -> None:
    """out[row] is the inner product of x[source[row]] and y[group[row]]: by group, so that y is read once."""
    if not (x.size and y.size):
        out.fill(0)
        return
    starts, order, sources = joined
    _by_groups(_joined_dots, starts, _table(x, out), starts, sources, order, _table(y, out), out)


def _positions(index: Array) -> Array:
    return np.ascontiguousarray(index, np.int64)


def _rows(x: Array, count: int, out: Array) -> Array:
    """``count`` rows of flat entries; an x without rows of its own is repeated."""
    return _table(x if x.ndim == out.ndim else np.broadcast_to(x, (count, *out.shape[1:])), out)


def _table(x: Array, out: Array) -> Array:
    """Rows of flat entries, of the element type of ``out``."""
    return np.ascontiguousarray(x, out.dtype).reshape(len(x), math.prod(x.shape[1:]))


def _vector(x: Array, out: Array) -> Array:
    return np.ascontiguousarray(x, out.dtype)


# -- threads -----------------------------------------------------------------------------------------------------------


def _by_groups(kernel: Any, starts: Array, x: Array, *arguments: Any) -> None:
    """Run a loop over all groups, a large one in blocks of groups that have about equally many rows."""
    count, rows = len(starts) - 1, int(starts[-1])
    if (rows + count) * x.shape[1] < PARALLEL_WORK or cores() < 2:
        kernel(0, count, x, *arguments)
        return
    work = starts + np.arange(count + 1)  # a group costs something even where it has no rows
    cuts = np.searchsorted(work, np.linspace(0, rows + count, cores() * BLOCKS_PER_THREAD + 1)).tolist()
    submit = pool("kernel", cores()).submit
    for done in [submit(kernel, a, b, x, *arguments) for a, b in itertools.pairwise(cuts)]:
        done.result()
