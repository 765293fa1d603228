"""The rows that a model is trained on or evaluated on: matched by name, converted in SQL, checked, as arrays."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from ..errors import DataError, Error, Place, ProgrammingError, suggest
from ..planner.model import Model
from ..planner.ops import Column
from ..types import Element, Type, shape_text
from .device import Array
from .load import class_index, to_array
from .storage import Storage

BATCH_ROWS = 122_880  # one of DuckDB's row groups

WHOLE = "TINYINT SMALLINT INTEGER BIGINT HUGEINT UTINYINT USMALLINT UINTEGER UBIGINT UHUGEINT".split()
ARRAY_SUFFIX = re.compile(r"\[(\d*)\]")

Classes = Mapping[str, tuple[str, list[str]]]


class FromItem(Protocol):
    """What stands after FROM, with the values of its placeholders."""

    @property
    def text(self) -> str: ...
    @property
    def values(self) -> Mapping[str, object]: ...
    @property
    def place(self) -> Place: ...


@dataclass(frozen=True)
class Dataset:
    """Columns as arrays by name, and how many rows they have."""

    columns: Mapping[str, Array]
    rows: int

    def split(self, percent: float, seed: int) -> tuple[Array, Dataset]:
        """A random share of the rows held out: the positions of the others, in order, and the rows held out."""
        order = np.random.default_rng([seed, 2]).permutation(self.rows)
        count = round(self.rows * percent / 100)
        held, kept = np.sort(order[:count]), np.sort(order[count:])
        return kept, Dataset({n: a[held] for n, a in self.columns.items()}, count)


@dataclass(frozen=True)
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
    if element.kind == "category":
        return
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


def classes_of(storage: Storage, source: Source, model: Model) -> dict[str, tuple[str, list[str]]]:
    """The sorted distinct values of every categorical target, as text, with their SQL type."""
    found: dict[str, tuple[str, list[str]]] = {}
    for name in model.categories:
        column, type_text = source.columns[name]
        sql = (
            f"SELECT CAST(v AS VARCHAR) FROM (SELECT DISTINCT {quoted(column)} AS v FROM {source.query.text}) "
            "WHERE v IS NOT NULL ORDER BY v"
        )
        found[name] = (type_text, [str(v) for (v,) in storage.rows(sql, source.query.values)])
    return found


def class_values(storage: Storage, classes: tuple[str, list[str]]) -> pa.Array:
    """Classes as an Arrow array of their own SQL type, in their order."""
    type_text, values = classes
    sql = f"SELECT CAST(unnest($v) AS {type_text}) AS v"
    return storage.query(sql, {"v": list(values)}).column(0).combine_chunks()


def load(storage: Storage, source: Source, wanted: Mapping[str, Column], classes: Classes | None = None) -> Dataset:
    """Read the wanted columns of a source. Raises DataError for NULLs, wrong lengths and unknown labels."""
    items = []
    for name, column in wanted.items():
        plain = quoted(source.columns[name][0])
        t = column.type
        text = plain if t.element.kind == "category" else f"CAST({plain} AS {sql_type(t.element, t.shape)})"
        items.append(f"{text} AS {quoted(name)}")
    sql = f"SELECT {', '.join(items) or '1'} FROM {source.query.text}"
    values = {n: class_values(storage, classes[n]) for n in wanted if classes and n in classes}
    parts: dict[str, list[Array]] = {name: [] for name in wanted}
    rows = 0
    for batch in storage.read(sql, source.query.values, BATCH_ROWS):
        for name, column in wanted.items():
            arrow = batch.column(batch.schema.get_field_index(name))
            parts[name].append(as_array(arrow, name, column.type, rows + 1, values.get(name)))
        rows += batch.num_rows
    return Dataset({name: joined(p, wanted[name].type) for name, p in parts.items()}, rows)


def as_array(arrow: pa.Array, name: str, type: Type, first_row: int | None, classes: pa.Array | None) -> Array:
    """One column of a batch; labels become class indexes."""
    if classes is not None:
        return class_index(arrow, classes, name, first_row)
    return to_array(arrow, name, type, first_row)


def joined(parts: list[Array], type: Type) -> Array:
    """The parts of a column as one array."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty((0, *type.shape), type.element.storage)  # type: ignore[arg-type]


def check_indexes(model: Model, dataset: Dataset) -> None:
    """Labels that are used as positions must be whole numbers from 0 up to the number of scores."""
    for check in model.index_checks:
        values = dataset.columns.get(check.column.name)
        if values is None or not len(values) or check.column.type.element.kind == "category":
            continue
        wrong = (values < 0) | (values >= check.size)
        if wrong.any():
            row = int(wrong.argmax())
            raise DataError(
                f'column "{check.column.name}" has the label {values[row]} in row {row + 1}; '
                f"the model has scores for the classes 0 to {int(check.size) - 1}",  # type: ignore[arg-type]
                place=check.place,
                hint=f"CLASSES({check.column.name}) counts the classes of the data, whatever their values",
            )


def balanced_weights(labels: Array) -> Array:
    """A weight for each row so that all classes count the same: rows / (classes * rows of the class)."""
    values, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return (len(labels) / (len(values) * counts)).astype(np.float32)[inverse]
