"""The skeleton of a model, run by DuckDB: which row comes from which, as vectors of positions.

Each relation is read once, into Arrow, and DuckDB joins and groups over that: so positions and values are about the
same rows in the same order, whatever the order in which a query would give them next time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import singledispatch

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import Error, OperationalError
from ..planner.skeleton import Group, Join, Skeleton, Step, Union, at, table_name
from ..types import Element, RowSet
from .device import Array
from .storage import Storage

ROW = "#"


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
            table = table.append_column(ROW, pa.array(np.arange(table.num_rows)))
        self.tables[rows.name] = table
        self.storage.register(table_name(rows)[1:-1], table)

    def column(self, rows: RowSet, text: str) -> pa.ChunkedArray:
        """A column text over the table of a row set, in the order of its rows."""
        sql = f"SELECT {at(text, 'r')} AS v FROM {table_name(rows)} AS r ORDER BY r.{table_row()}"
        return self.storage.query(sql).column(0)


def table_row() -> str:
    """The number of a row, as SQL."""
    return f'"{ROW}"'


def run_skeleton(tables: Tables, skeleton: Skeleton, kept: Iterable[str] = ()) -> Rows:
    """Run the steps one after another. ``kept`` are row sets whose tables are asked for afterwards."""
    found = Rows(counts={name: t.num_rows for name, t in tables.tables.items()})
    for i, step in enumerate(skeleton.steps):
        wanted = {*kept, *(name for later in skeleton.steps[i + 1 :] for name in reads(later))}
        try:
            run_step(step, tables, found, step.rows.name in wanted)
        except Error as problem:
            problem.at(step.place)
            raise
        if not found.counts[step.rows.name]:
            raise OperationalError(
                "no row is left here", place=step.place, hint="are the keys of both sides alike, in type and spelling?"
            )
    return found


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
    raw = [numbers(result.column(i)) for i in range(len(step.sides))]
    counts = [found.counts[side.over.name] for side in step.sides]
    order = row_order(raw, counts)
    rows = found.counts[step.rows.name] = result.num_rows
    for i, side in enumerate(step.sides):
        positions = raw[i] if order is None else raw[i][order]
        if side.optional:
            matched = positions >= 0
            found.arrays[f"{side.positions.name} matched"] = matched
            if matched.all():
                found.facts.add(f"{side.positions.name} matched")
            positions = np.maximum(positions, 0)
        found.arrays[side.positions.name] = positions
        if i == 0 and rows == counts[0] and not side.optional and is_identity(positions):
            found.facts.add(f"{step.rows.name} is its first side")
    if is_read and step.exports:
        table = result.select(list(step.exports.values()))
        tables.add(step.rows, table if order is None else table.take(pa.array(order)))
    elif is_read:
        tables.add(step.rows, pa.table({ROW: np.arange(rows)}))


def numbers(column: pa.ChunkedArray) -> Array:
    """Positions as an array, -1 where a side has no row."""
    if column.null_count:
        column = pc.fill_null(column, -1)
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return np.asarray(array, dtype=np.int64)


def row_order(columns: list[Array], counts: list[int]) -> Array | None:
    """The order that sorts rows by the first column, then the second ...; None if they are sorted already."""
    first = columns[0]
    if not len(first) or np.all(first[1:] > first[:-1]):
        return None
    if len(first) <= counts[0] and first.min() >= 0:
        place = np.full(counts[0], -1)
        place[first] = np.arange(len(first))
        place = place[place >= 0]
        if len(place) == len(first):  # every row of the first side is there once at most: no need to sort
            return place
    return np.lexsort(columns[::-1])


def is_identity(positions: Array) -> bool:
    """Whether every row stands for the row of its own number."""
    return bool(np.array_equal(positions, np.arange(len(positions))))


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
        values = table.column(name)
        found.arrays[column.name] = as_numbers(values, column.element)
        found.arrays[f"{column.name} known"] = np.asarray(values.is_valid())
        if not values.null_count:
            found.facts.add(f"{column.name} known")


def as_numbers(column: pa.ChunkedArray, element: Element) -> Array:
    """A key as an array; NULL, which can be a key, as 0."""
    filled = pc.fill_null(column, False if pa.types.is_boolean(column.type) else 0) if column.null_count else column
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
