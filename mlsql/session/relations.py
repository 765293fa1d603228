"""The rows of a model over several relations: each read once, joined and grouped by DuckDB, its leaves as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import DataError, Error, Place, ProgrammingError, listed, suggest
from ..executor.dataset import check_type, class_values, quoted, sql_type
from ..executor.device import Array
from ..executor.load import class_index, to_array
from ..executor.skeleton import Tables, run_skeleton
from ..parser.statements import Query
from ..planner.model import DataColumn, Model, classes_symbol
from ..planner.node import Node, walk
from ..planner.ops import Column
from ..planner.skeleton import Skeleton, rows_symbol, table_name
from ..types import RowSet, Symbol
from .core import Session
from .predict import without_predict

Classes = Mapping[str, tuple[str, list[str]]]


@dataclass
class RelationRows:
    """What was read: arrays by the name of their leaf, what data told, and outputs that are keys."""

    arrays: dict[str, Array]
    counts: Mapping[str, int]
    facts: dict[Symbol, int]
    classes: Classes
    keys: dict[str, pa.ChunkedArray] = field(default_factory=dict)

    @property
    def sizes(self) -> dict[Symbol, int]:
        """All that the binder has to know of the data."""
        return self.facts | {classes_symbol(c): len(values) for c, (_, values) in self.classes.items()}


def assigned(model: Model, skeleton: Skeleton, given: Sequence[Query], place: Place) -> dict[str, Query]:
    """Which table or query each relation of the model is. Raises ProgrammingError for one that is missing."""
    names = list(skeleton.relations)
    if len(names) == len(given) == 1:
        return {names[0]: given[0]}
    by_lower = {name.lower(): name for name in names}
    found: dict[str, Query] = {}
    for query in given:
        name = by_lower.get((query.name or "").lower())
        if name is None:
            raise unknown_relation(model, query, names)
        if name in found:
            raise ProgrammingError(f'the relation "{name}" is given twice', place=query.place)
        found[name] = query
    missing = [name for name in names if name not in found]
    if missing:
        raise ProgrammingError(
            f'model "{model.name}" reads {listed(names)}; {listed(missing)} is missing',
            place=place,
            hint=f"ON ..., <table or (query)> AS {missing[0]}",
        )
    return found


def unknown_relation(model: Model, query: Query, names: list[str]) -> ProgrammingError:
    """The error for a table that is none of the model's relations."""
    hint = f"write {query.place.source.strip()} AS {names[0]}; the relations are {listed(names)}"
    if query.name is None:
        return ProgrammingError("which relation of the model is this?", place=query.place, hint=hint)
    message = f'model "{model.name}" has no relation "{query.name}"'
    return ProgrammingError(message, place=query.place, hint=suggest(query.name, names) or hint)


def read_relations(
    session: Session,
    model: Model,
    sources: Mapping[str, Query],
    roots: Iterable[Node],
    *,
    known: Classes | None = None,
    keys: bool = False,
) -> RelationRows:
    """Read what the plans of ``roots`` need of each relation, run the skeleton, and make arrays of the leaves.

    ``known`` are the classes of a version; without them they are learned from these rows. With ``keys`` outputs that
    are no numbers are read too.
    """
    assert model.skeleton is not None
    leaves = [n for n in walk(roots) if isinstance(n, Column) and n in model.data]
    if known is None:
        leaves += [c for c in model.targets.values() if c.element.kind == "category" and c not in leaves]
    with Tables(session.storage) as tables:
        for name, query in sources.items():
            tables.add(RowSet(name), read_relation(session, model, name, query, leaves))
        kept = {model.rows.name} if keys and model.keys else set()
        found = run_skeleton(tables, model.skeleton, kept)
        classes = learned_classes(tables, model, leaves) if known is None else known
        arrays = dict(found.arrays)
        for leaf in leaves:
            arrays[leaf.name] = leaf_array(session, tables, model, leaf, classes, sources)
        facts = {rows_symbol(name): count for name, count in found.counts.items()}
        flags = [n.name for n in leaves if model.data[n].sql.endswith("IS NOT NULL") and arrays[n.name].all()]
        facts |= {Symbol(fact): 1 for fact in (*found.facts, *flags)}
        wanted = model.keys if keys else {}
        outputs = {name: tables.column(RowSet(model.rows.name), text) for name, text in wanted.items()}
    return RelationRows(arrays, found.counts, facts, classes, outputs)


def read_relation(session: Session, model: Model, name: str, query: Query, leaves: Sequence[Column]) -> pa.Table:
    """The columns of a relation that its leaves and keys read, under the names of their declaration."""
    assert model.skeleton is not None
    of_leaves = {r: leaf for leaf in leaves if leaf.rows.name == name for r in model.data[leaf].reads}
    wanted = dict.fromkeys([*model.skeleton.keys.get(name, ()), *of_leaves])
    query = without_predict(session, query)
    try:
        described = session.storage.describe(query.text, query.values)
    except Error as problem:
        problem.at(query.place)
        raise
    by_lower = {n.lower(): (n, t) for n, t in described}
    items = []
    for column in wanted:
        if column.lower() not in by_lower:
            raise ProgrammingError(
                f'the relation "{name}" needs a column "{column}", and there is none',
                place=query.place,
                hint=suggest(column, [n for n, _ in described]) or f"columns are {', '.join(n for n, _ in described)}",
            )
        have, type_text = by_lower[column.lower()]
        items.append(f"{read_as(model, name, column, have, type_text, query.place)} AS {quoted(column)}")
    table = session.storage.query(f"SELECT {', '.join(items) or '1 AS one'} FROM {query.text}", query.values)
    if not table.num_rows:
        raise DataError(f'the relation "{name}" has no rows', place=query.place)
    return table


def read_as(model: Model, relation: str, column: str, have: str, type_text: str, place: Place) -> str:
    """The SQL that reads a declared column: a number in the type that is declared, anything else as it is."""
    key = f"{relation}.{column}" if f"{relation}.{column}" in model.inputs else column
    leaf = model.inputs.get(key) or model.targets.get(column)
    if leaf is None or leaf.element.kind == "category":
        return quoted(have)
    check_type(column, type_text, leaf, model.type_texts.get(key, ""), place)
    return f"CAST({quoted(have)} AS {sql_type(leaf.element, leaf.shape)})"


def learned_classes(tables: Tables, model: Model, leaves: Iterable[Column]) -> dict[str, tuple[str, list[str]]]:
    """The sorted distinct values of every categorical target, as text, with their SQL type."""
    found: dict[str, tuple[str, list[str]]] = {}
    for name in model.categories:
        leaf = model.targets[name]
        rows = table_name(leaf.rows)
        column = quoted(model.data[leaf].reads[0])
        [(type_text,)] = tables.storage.rows(f"SELECT any_value(typeof({column})) FROM {rows}")
        inner = f"SELECT DISTINCT {column} AS v FROM {rows}"
        sql = f"SELECT CAST(v AS VARCHAR) FROM ({inner}) WHERE v IS NOT NULL ORDER BY v"
        found[name] = (str(type_text), [str(v) for (v,) in tables.storage.rows(sql)])
    return found


def leaf_array(
    session: Session, tables: Tables, model: Model, leaf: Column, classes: Classes, sources: Mapping[str, Query]
) -> Array:
    """A leaf as an array, checked for NULLs and lengths."""
    data: DataColumn = model.data[leaf]
    table = tables.tables[leaf.rows.name]
    try:
        if data.sql == "{0}" and leaf.element.kind != "category":
            return to_array(table.column(data.reads[0]).combine_chunks(), data.reads[0], leaf.type, 1)
        if leaf.element.column is not None:
            values = class_values(session.storage, classes[leaf.element.column])
            column = table.column(data.reads[0]).combine_chunks()
            if column.null_count:  # not known: a flag says where
                column = pc.coalesce(column, values.cast(column.type)[0])
            return class_index(column, values, data.reads[0], 1)
        text = data.sql.format(*(f"\0.{quoted(r)}" for r in data.reads))
        return to_array(tables.column(leaf.rows, text), leaf.name, leaf.type, 1)
    except DataError as problem:
        problem.at(sources[leaf.rows.name].place)
        raise
