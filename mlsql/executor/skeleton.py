"""The skeleton of a model, run by DuckDB: which row comes from which, as vectors of positions.

Each relation is read once, into Arrow, and DuckDB joins and groups over that: so positions and values are about the
same rows in the same order, whatever the order in which a query would give them next time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import singledispatch

import numpy as np
import pyarrow as pa

from ..errors import DataError, Error
from ..planner.skeleton import Group, Join, Skeleton, Step, Union, at, table_name
from ..types import Element, RowSet
from .device import Array
from .storage import Storage

ROW = "#"
RUN = 256  # from so many rows on, on average, what follows on one another is copied as one


@dataclass
class Rows:
    """What running a skeleton gives.

    ``arrays`` are positions, flags and keys by the name of their leaf; ``counts`` the rows of every row set by name;
    ``facts`` what always holds: a join that has exactly its first side's rows, a flag that is nowhere false.
    """

    arrays: dict[str, Array] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    facts: set[str] = field(default_factory=set)


class Tables:
    """The tables that a skeleton's queries read, known to DuckDB under private names while the block lasts."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.tables: dict[str, pa.Table] = {}

    def __enter__(self) -> Tables:
        return self

    def __exit__(self, *exception: object) -> None:
        for name in self.tables:
            self.storage.unregister(table_name(RowSet(name))[1:-1])

    def add(self, rows: RowSet, table: pa.Table) -> None:
        """Give a row set its table; the rows are numbered in their order."""
        if ROW not in table.column_names:
            table = table.append_column(ROW, pa.array(np.arange(table.num_rows, dtype=row_type(table.num_rows))))
        self.tables[rows.name] = table
        self.storage.register(table_name(rows)[1:-1], table)

    def column(self, rows: RowSet, text: str) -> pa.ChunkedArray:
        """A column text over the table of a row set, in the order of its rows."""
        sql = f"SELECT {at(text, 'r')} AS v FROM {table_name(rows)} AS r ORDER BY r.{table_row()}"
        return self.storage.query(sql).column(0)


def row_type(rows: int) -> str:
    """The type of a row's number: as small as will do, since there is one for every row of every join."""
    return "int32" if rows < 2**31 else "int64"


def table_row() -> str:
    """The number of a row, as SQL."""
    return f'"{ROW}"'


def run_skeleton(tables: Tables, skeleton: Skeleton, kept: Iterable[str] = ()) -> Rows:
    """Run the steps one after another. ``kept`` are row sets whose tables are asked for afterwards.

    Raises an error with the place of the step for what DuckDB cannot compute.
    """
    found = Rows(counts={name: t.num_rows for name, t in tables.tables.items()})
    for i, step in enumerate(skeleton.steps):
        wanted = {*kept, *(name for later in skeleton.steps[i + 1 :] for name in reads(later))}
        try:
            run_step(step, tables, found, step.rows.name in wanted)
        except Error as problem:
            problem.message = problem.message.partition("\n\nLINE ")[0].rstrip()  # which draws SQL of ours
            problem.at(step.place)
            raise
    return found


def check_rows(skeleton: Skeleton, found: Rows) -> None:
    """Whether there is something to compute with. Raises DataError with the place of a step that leaves no row."""
    for step in skeleton.steps:
        if not found.counts[step.rows.name]:
            hint = "are the keys of both sides alike, in type and spelling?" if isinstance(step, Join) else None
            raise DataError("no row is left here", place=step.place, hint=hint)


@singledispatch
def reads(step: Step) -> list[str]:
    """The row sets whose tables a step reads, by name."""
    raise TypeError(step)


@singledispatch
def run_step(step: Step, tables: Tables, found: Rows, is_read: bool) -> None:
    """Run a step: its positions and leaves go to ``found``, its table to ``tables`` if a later step reads it."""
    raise TypeError(step)


@reads.register
def _(step: Join) -> list[str]:
    return [*(side.over.name for side in step.sides), *names_in(step.sql)]


def names_in(sql: str) -> list[str]:
    """The row sets that a text names, as in IN (SELECT ...)."""
    prefix = table_name(RowSet(""))[:-1]
    return [part.partition('"')[0] for part in sql.split(prefix)[1:]]


@run_step.register
def _(step: Join, tables: Tables, found: Rows, is_read: bool) -> None:
    result = tables.storage.query(step.query())
    columns = [without_nulls(result.column(i)) for i in range(len(step.sides))]
    rows = found.counts[step.rows.name] = result.num_rows
    places = places_by(columns[0], found.counts[step.sides[0].over.name])
    order = row_order([numbers(c) for c in columns]) if places is None else None
    for i, side in enumerate(step.sides):
        if i == 0 and rows and places is columns[0] and not side.optional:
            found.facts.add(f"{step.rows.name} is its first side")
            continue
        positions = gathered(columns[i], order) if places is None else scattered(columns[i], places)
        if side.optional:
            matched = positions >= 0
            found.arrays[f"{side.positions.name} matched"] = matched
            if matched.all():
                found.facts.add(f"{side.positions.name} matched")
            positions = np.maximum(positions, 0)
        found.arrays[side.positions.name] = positions
    if is_read and step.exports:
        if places is not None:
            order = scattered(pa.chunked_array([np.arange(rows)]), places)
        exports = result.select(list(step.exports.values()))
        tables.add(step.rows, exports if order is None else exports.take(pa.array(order)))
    elif is_read:
        tables.add(step.rows, pa.table({ROW: np.arange(rows, dtype=row_type(rows))}))


def without_nulls(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Positions, -1 where a side has no row."""
    return column.fill_null(-1) if column.null_count else column


def numbers(column: pa.ChunkedArray) -> Array:
    """A column without NULLs as an array."""
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return np.asarray(array)


def places_by(first: pa.ChunkedArray, count: int) -> pa.ChunkedArray | None:
    """Where each row goes that the rows stand in the order of the first side, which has so many rows.

    They are the positions themselves if every row of that side is there once. None if one is there more than once.
    """
    there = np.zeros(count + 1, np.bool_)  # the last one is for -1
    for chunk in first.chunks:
        there[np.asarray(chunk)] = True
    if there[-1] or np.count_nonzero(there) < len(first):
        return None
    if len(first) == count:
        return first
    rank = np.cumsum(there, dtype=row_type(count)) - 1
    return pa.chunked_array([rank[np.asarray(chunk)] for chunk in first.chunks], first.type)


def scattered(column: pa.ChunkedArray, to: pa.ChunkedArray) -> Array:
    """A column in another order: ``result[to] = column``. It goes by chunks, which fit a cache, and sorts nothing."""
    result = np.empty(len(column), np.int64)
    start = 0
    for chunk in to.chunks:
        place, values = np.asarray(chunk), numbers(column.slice(start, len(chunk)))
        start += len(chunk)
        ends = [*(np.flatnonzero(place[1:] != place[:-1] + 1) + 1).tolist(), len(place)]
        if len(ends) > len(place) // RUN:
            result[place] = values
            continue
        for begin, end in itertools.pairwise([0, *ends]):  # DuckDB hands on rows as they were stored, run by run
            result[place[begin] : place[begin] + end - begin] = values[begin:end]
    return result


def gathered(column: pa.ChunkedArray, order: Array | None) -> Array:
    """A column in another order: ``column[order]``; None leaves it as it is."""
    array = numbers(column)
    return (array if order is None else array[order]).astype(np.int64)


def row_order(columns: list[Array]) -> Array | None:
    """The order that sorts rows by the first column, then the second ...; None if they are sorted already."""
    first = columns[0]
    return None if np.all(first[1:] > first[:-1]) else np.lexsort(columns[::-1])


@reads.register
def _(step: Group) -> list[str]:
    return [step.over.name]


@run_step.register
def _(step: Group, tables: Tables, found: Rows, is_read: bool) -> None:
    groups = tables.storage.query(step.query())
    groups = groups.take(pa.array(np.argsort(numbers(groups.column(ROW)), kind="stable")))
    tables.add(step.rows, groups)
    found.counts[step.rows.name] = groups.num_rows
    members = tables.storage.query(step.members())
    positions = np.empty(found.counts[step.over.name], np.int64)
    positions[numbers(members.column(0))] = numbers(members.column(1))
    assert step.positions is not None
    found.arrays[step.positions.name] = positions
    read_leaves(step, groups, found)


def read_leaves(step: Step, table: pa.Table, found: Rows) -> None:
    """The keys that plans compute with."""
    for column, name in step.leaves.items():
        found.arrays[column.name] = as_numbers(table.column(name), column.element)
    for flag, name in step.flags.items():
        known = np.asarray(table.column(name).is_valid().combine_chunks().to_numpy(zero_copy_only=False))
        found.arrays[flag.name] = known
        if known.all():
            found.facts.add(flag.name)


def as_numbers(column: pa.ChunkedArray, element: Element) -> Array:
    """A key as an array; NULL, which can be a key, as 0."""
    filled = column.fill_null(False if pa.types.is_boolean(column.type) else 0) if column.null_count else column
    return np.ascontiguousarray(filled.to_numpy(), dtype=element.storage)


@reads.register
def _(step: Union) -> list[str]:
    return [part.name for part in step.parts]


@run_step.register
def _(step: Union, tables: Tables, found: Rows, is_read: bool) -> None:
    counts = [found.counts[part.name] for part in step.parts]
    starts = tuple(int(n) for n in np.cumsum([0, *counts])[:-1])
    found.counts[step.rows.name] = sum(counts)
    for positions, start, count in zip(step.positions, starts, counts, strict=True):
        found.arrays[positions.name] = np.arange(start, start + count)
    if is_read or step.exports:
        table = tables.storage.query(step.query(starts))
        table = table.take(pa.array(np.argsort(numbers(table.column(ROW)), kind="stable")))
        tables.add(step.rows, table)
        read_leaves(step, table, found)


def facts_of(found: Rows) -> Mapping[str, int]:
    """The facts and counts as sizes for the binder: a number a fact."""
    return {f"rows of {name}": count for name, count in found.counts.items()} | dict.fromkeys(found.facts, 1)
