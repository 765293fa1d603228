"""The rows that a model is trained on or evaluated on: matched by name, converted in SQL, checked, as arrays."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa

from ..errors import DataError, Error, Place, ProgrammingError, suggest
from ..planner.data import filled
from ..planner.model import DataColumn, Model
from ..planner.ops import Column
from ..record import record
from ..types import Element, Type, concrete, shape_text
from .batch import Batch, Reading
from .device import Array
from .growing import Growing
from .matrix import side_by_side
from .storage import Storage
from .vocabulary import Keys, Lookup, distinct, typed

VECTOR_ROWS = 2048  # DuckDB's unit
BATCH_ROWS = 65_536  # that are read at a time, at most
WORTH_A_BATCH = 16_384  # rows for which a batch's own costs do not matter
BATCH_BYTES = 2 << 20  # a batch that is still in the second-level cache when its rows are copied to their place
MOST_BYTES = 8 << 20  # a batch that is still in the third-level cache then
WINDOW = 1 << 20  # rows of which a share is held out at a time
REMEMBERED = 16  # such windows, a megabyte each

WHOLE = "TINYINT SMALLINT INTEGER BIGINT HUGEINT UTINYINT USMALLINT UINTEGER UBIGINT UHUGEINT".split()
ARRAY_SUFFIX = re.compile(r"\[(\d*)\]")

Classes = Mapping[str, Keys]


class FromItem(Protocol):
    """What stands after FROM, with the values of its placeholders."""

    @property
    def text(self) -> str: ...
    @property
    def values(self) -> Mapping[str, object]: ...
    @property
    def place(self) -> Place: ...


@record
class Dataset:
    """Columns as arrays by name, and how many rows they have."""

    columns: Mapping[str, Array]
    rows: int

    @property
    def bytes(self) -> int:
        """The memory of the columns."""
        return sum(a.nbytes for a in self.columns.values())

    def split(self, percent: float, seed: int) -> tuple[Array, Dataset]:
        """A random share of the rows held out: the positions of the others, in order, and the rows held out."""
        kept, held = split_positions(self.rows, percent, seed)
        return kept, Dataset({n: a[held] for n, a in self.columns.items()}, len(held))


def split_positions(rows: int, percent: float, seed: int) -> tuple[Array, Array]:
    """The positions of the rows that are kept and of a random share that is held out, each in order."""
    flags = [held_flags(i, rows, percent, seed) for i in range(-(-rows // WINDOW))]
    held = np.concatenate([np.empty(0, bool), *flags])
    return np.flatnonzero(~held), np.flatnonzero(held)


def held_flags(window: int, rows: int, percent: float, seed: int) -> Array:
    """Which of the rows of a window are held out, WINDOW rows each but the last, so that of all rows the share is."""
    first, behind = window * WINDOW, min((window + 1) * WINDOW, rows)
    order = np.random.default_rng([seed, 2, *([window] if window else [])]).permutation(behind - first)
    flags = np.zeros(behind - first, bool)
    flags[order[: round(behind * percent / 100) - round(first * percent / 100)]] = True
    return flags


class HeldShare:
    """Which rows a share holds out, asked for by position, without a flag for every row in memory.

    Some windows are remembered: who asks goes through the rows in order, in a few threads.
    """

    def __init__(self, rows: int, percent: float, seed: int) -> None:
        self.rows = rows
        self.flags = functools.lru_cache(REMEMBERED)(lambda window: held_flags(window, rows, percent, seed))

    def __call__(self, positions: Array) -> Array:
        """Whether each of the rows at these positions is held out. There is no share of rows that were not counted."""
        positions = np.minimum(positions, self.rows - 1)
        windows = positions // WINDOW
        held = np.empty(len(positions), bool)
        for window in np.unique(windows):
            here = windows == window
            held[here] = self.flags(int(window))[positions[here] % WINDOW]
        return held

    def of_arrow(self, positions: pa.ChunkedArray) -> pa.Array:
        """The same as a function of DuckDB's."""
        return pa.array(self(positions.to_numpy()))


@record
class Source:
    """A query, and which of its columns each column of a model is read from (name and SQL type)."""

    query: FromItem
    columns: Mapping[str, tuple[str, str]]


def quoted(name: str) -> str:
    """A name as SQL writes it when it may be anything."""
    return '"' + name.replace('"', '""') + '"'


def match(storage: Storage, query: FromItem, model: Model, wanted: Mapping[str, Column]) -> Source:
    """Find the columns of a model in a query, by name without regard to case, and check their types.

    Raises ProgrammingError for a column that is missing or cannot be read as declared.
    """
    try:
        described = storage.describe(query.text, query.values)
    except Error as problem:
        problem.at(query.place)
        raise
    by_lower = {name.lower(): (name, type_text) for name, type_text in described}
    found: dict[str, tuple[str, str]] = {}
    for name, column in wanted.items():
        if name.lower() not in by_lower:
            raise ProgrammingError(
                f'the model needs a column "{name}", and there is none',
                place=query.place,
                hint=suggest(name, [n for n, _ in described]) or f"columns are {', '.join(n for n, _ in described)}",
            )
        found[name] = by_lower[name.lower()]
        check_type(name, found[name][1], column, model.type_texts.get(name, ""), query.place)
    return Source(query, found)


def check_type(name: str, have: str, column: Column, declared: str, place: Place) -> None:
    """Whether a SQL type can be read as what the model declares."""
    element = column.type.element
    if element.kind in ("category", "text"):
        return  # any value has a place among the classes, and is cast to what is declared
    base, sizes = split_type(have)
    numeric = base in WHOLE or base in ("FLOAT", "DOUBLE") or base.startswith("DECIMAL")
    fits = {
        "float": numeric or base == "BOOLEAN",
        "integer": base in WHOLE or base == "BOOLEAN",
        "boolean": base == "BOOLEAN",
    }[element.kind]
    shape = tuple(column.type.shape)
    if fits and len(sizes) == len(shape) and all(s is None or s == d for s, d in zip(sizes, shape, strict=True)):
        return
    expected = declared or f"{element}{shape_text(shape)}"
    cast = f"CAST({name} AS {expected})"
    hint = (
        f"make its values class labels with CLASSES({name})"
        if base == "VARCHAR" and not shape
        else f"{cast} in a query"
    )
    raise ProgrammingError(f'column "{name}" is {have}, and the model declares {expected}', place=place, hint=hint)


def split_type(text: str) -> tuple[str, list[int | None]]:
    """``FLOAT[3][]`` as FLOAT and its sizes from the outermost: [None, 3]."""
    base = text.partition("[")[0].strip().upper()
    sizes = [int(s) if s else None for s in ARRAY_SUFFIX.findall(text)]
    return base, sizes[::-1]


def declared_type(storage: Storage, query: FromItem, name: str, text: str) -> str:
    """The type by which INPUT FROM declares a column: lists get the length that their rows have."""
    while "[]" in text:
        count = text.count("[]")
        expression = quoted(name) + "[1]" * (text.count("[") - text.index("[]") // 2 - 1 if count > 1 else 0)
        sql = f"SELECT min(len({expression})), max(len({expression})) FROM {query.text}"
        [(least, most)] = storage.rows(sql, query.values)
        if least is None or least != most:
            raise DataError(f'the lists of "{name}" do not have one length', hint="declare it in INPUT (...)")
        text = text[::-1].replace("][", f"]{str(most)[::-1]}[", 1)[::-1]
    base = text.partition("[")[0]
    return text.replace(base, "DOUBLE", 1) if base.startswith("DECIMAL") else text


def sql_type(element: Element, shape: tuple[object, ...]) -> str:
    """The DuckDB type in which a column is read: lists, so that a wrong length is ours to report."""
    return element.name + "[]" * len(shape)


def read_type(model: Model, name: str) -> str:
    """The SQL type in which a declared column is read; empty for a class label, which stays as it is."""
    column = model.declared[name]
    t = column.type
    if t.element.kind == "category":
        return ""
    return model.type_texts[name] if t.element.kind == "text" else sql_type(t.element, t.shape)


def as_declared(model: Model, name: str, text: str) -> str:
    """A value in the type in which the column is read, as an INSERT would convert it."""
    type_text = read_type(model, name)
    return f"CAST({text} AS {type_text})" if type_text else text


def as_copied(source: Source, model: Model) -> dict[str, tuple[str, str]]:
    """Name and SQL type of each column in a copy of a source that has the types a model declares."""
    return {name: (name, read_type(model, name) or text) for name, (_, text) in source.columns.items()}


def leaf_sql(leaf: DataColumn, model: Model, values: Mapping[str, str]) -> str:
    """The SQL of a leaf, given that of the declared columns; the numbers in it are of the leaf's own type."""
    t = leaf.column.type
    text = expression_sql(model, leaf.sql, leaf.reads, values)
    wanted = sql_type(t.element, t.shape)
    has_it = leaf.sql == "{0}" and read_type(model, leaf.reads[0]) == wanted
    return text if leaf.vocabulary or has_it else f"CAST({text} AS {wanted})"


def by_source(leaves: Iterable[DataColumn]) -> list[tuple[DataColumn, ...]]:
    """Leaves that are computed from one column of DuckDB's together."""
    groups: dict[object, list[DataColumn]] = {}
    for leaf in leaves:
        groups.setdefault(leaf.source, []).append(leaf)
    return [tuple(g) for g in groups.values()]


def classes_of(storage: Storage, source: Source, model: Model) -> dict[str, Keys]:
    """The sorted distinct values of every categorical target."""
    columns = {name: quoted(source.columns[name][0]) for name in model.categories}
    query = source.query
    return {name: distinct(storage, column, query.text, query.values) for name, column in columns.items()}


def keys_of(storage: Storage, source: Source, model: Model) -> dict[str, Keys]:
    """The keys of every vocabulary of a model."""
    columns = {name: quoted(column) for name, (column, _) in source.columns.items()}
    texts = {v.name: expression_sql(model, v.sql, v.reads, columns) for v in model.vocabularies.values()}
    query = source.query
    return {name: distinct(storage, text, query.text, query.values) for name, text in texts.items()}


def always_there(storage: Storage, source: Source, model: Model) -> list[str]:
    """The vocabularies whose expression is NULL in no row of a source."""
    columns = {name: quoted(column) for name, (column, _) in source.columns.items()}
    texts = {v.name: expression_sql(model, v.sql, v.reads, columns) for v in model.vocabularies.values()}
    if not texts:
        return []
    items = ", ".join(f"bool_and(({text}) IS NOT NULL)" for text in texts.values())
    [flags] = storage.rows(f"SELECT {items} FROM {source.query.text}", source.query.values)
    return [name for name, flag in zip(texts, flags, strict=True) if flag]


def expression_sql(model: Model, sql: str, reads: Sequence[str], values: Mapping[str, str]) -> str:
    """An expression over declared columns, given the SQL of each."""
    return filled(sql, lambda hole: as_declared(model, reads[int(hole)], values[reads[int(hole)]]))


def lookups(storage: Storage, leaves: Iterable[DataColumn], classes: Classes) -> dict[str, Lookup]:
    """What finds the positions of the values of leaves, by vocabulary."""
    names = dict.fromkeys(leaf.vocabulary for leaf in leaves if leaf.vocabulary is not None)
    return {name: Lookup(typed(storage, classes[name])) for name in names}


def load(
    storage: Storage,
    source: Source,
    model: Model,
    leaves: Mapping[str, DataColumn],
    classes: Classes,
    fillings: Mapping[str, Array],
) -> Dataset:
    """Read leaves of a model from a source. Raises DataError for NULLs, wrong lengths and unknown labels."""
    expected = storage.estimated_rows(f"SELECT 1 FROM {source.query.text}", source.query.values) or 0
    types = {name: leaf.column.type for name, leaf in leaves.items()}
    growing = Growing(types, expected, together(model, leaves))

    def fill() -> None:
        for batch in batches(storage, source, model, leaves, classes, fillings):
            growing.add(batch)

    storage.attend(fill)
    return Dataset(growing.columns(), growing.rows)


def reading_sql(
    source: Source, model: Model, leaves: Mapping[str, DataColumn]
) -> tuple[str, list[tuple[DataColumn, ...]]]:
    """The query that reads leaves of a model, and the leaves that each of its columns gives."""
    groups = by_source(leaves.values())
    items = [f"{source_sql(g[0], model, source)} AS c{i}" for i, g in enumerate(groups)]
    return f"SELECT {', '.join(items) or '1'} FROM {source.query.text}", groups


def batches(
    storage: Storage,
    source: Source,
    model: Model,
    leaves: Mapping[str, DataColumn],
    classes: Classes,
    fillings: Mapping[str, Array],
    most: int = BATCH_ROWS,
) -> Iterator[Batch]:
    """The rows of a source as they come, at most so many at a time."""
    sql, groups = reading_sql(source, model, leaves)
    found = lookups(storage, leaves.values(), classes)
    reading, first_row = None, 1
    count = min(most, batch_rows(leaf.column.type for leaf in leaves.values()))
    for arrow in storage.read(sql, source.query.values, count):
        reading = reading or Reading(arrow.schema, groups, found, fillings)
        yield Batch(arrow, reading, first_row)
        first_row += arrow.num_rows


def source_sql(leaf: DataColumn, model: Model, source: Source) -> str:
    """The SQL of a leaf over the rows of a source.

    An array of the declared size stays one, whose length nobody need check: to make it a list DuckDB would copy it.
    """
    values = {name: quoted(column) for name, (column, _) in source.columns.items()}
    text, t = leaf_sql(leaf, model, values), leaf.column.type
    sizes = split_type(source.columns[leaf.reads[0]][1])[1] if leaf.is_plain else []
    if not sizes or sizes != list(t.shape) or read_type(model, leaf.reads[0]) != sql_type(t.element, t.shape):
        return text
    return f"CAST({values[leaf.reads[0]]} AS {t.element.name}{''.join(f'[{s}]' for s in reversed(sizes))})"


def batch_rows(types: Iterable[Type]) -> int:
    """How many rows of some columns are read at a time: a power of two, as are the buffers that DuckDB makes."""
    row_bytes = max(1, sum(math.prod(concrete(t.shape)) * t.element.bytes for t in types))
    rows = max(BATCH_BYTES // row_bytes, min(WORTH_A_BATCH, MOST_BYTES // row_bytes))
    return min(max(1 << rows.bit_length() >> 1, VECTOR_ROWS), BATCH_ROWS)


def together(model: Model, leaves: Mapping[str, DataColumn]) -> list[tuple[str, ...]]:
    """The leaves that the loss reads as one matrix and that come from DuckDB as they are, by name."""
    groups = side_by_side([] if model.loss is None else [model.loss])
    named = [tuple(c.name for c in group) for group in groups]
    return [names for names in named if all(n in leaves and leaves[n].vocabulary is None for n in names)]


def check_indexes(model: Model, dataset: Dataset, first_row: int = 1) -> None:
    """Labels that are used as positions must be whole numbers from 0 up to the number of scores.

    ``first_row`` is the number of the first row, as a person counts them.
    """
    for check in model.index_checks:
        values = dataset.columns.get(check.column.name)
        if values is None or not len(values) or check.column.type.element.kind == "category":
            continue
        wrong = (values < 0) | (values >= check.size)
        if wrong.any():
            row = int(wrong.argmax())
            raise DataError(
                f'column "{check.column.name}" has the label {values[row]} in row {first_row + row}; '
                f"the model has scores for the classes 0 to {int(check.size) - 1}",  # type: ignore[arg-type]
                place=check.place,
                hint=f"CLASSES({check.column.name}) counts the classes of the data, whatever their values",
            )


def balanced_weights(labels: Array) -> Array:
    """A weight for each row so that all classes count the same: rows / (classes * rows of the class)."""
    values, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return (len(labels) / (len(values) * counts)).astype(np.float32)[inverse]
