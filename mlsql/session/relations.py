"""The rows of a model over several relations: each read once, joined and grouped by DuckDB, its leaves as arrays."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from ..errors import DataError, Place, ProgrammingError, listed, suggest
from ..executor.catalog import StoredVersion
from ..executor.dataset import Source, as_copied, classes_of, keys_of, load, match, quoted, read_type
from ..executor.device import Array
from ..executor.learn import copied, statistics_of
from ..executor.load import leaf_arrays
from ..executor.positions import distinct, every
from ..executor.skeleton import Rows, Tables, check_rows, run_skeleton
from ..executor.vocabulary import Keys, registered
from ..parser.statements import Query
from ..planner.model import DataColumn, Find, Model
from ..planner.node import Node, walk
from ..planner.ops import Column, Positions, Take
from ..planner.skeleton import Skeleton, rows_symbol, table_name
from ..record import record
from ..types import RowSet, Symbol
from .core import Session
from .models import sizes_told
from .predict import without_predict
from .training_data import check_keys

LEARNED = "mlsql_learned_rows"  # the rows of a relation that are learned from


@dataclass
class RelationRows:
    """What was read: arrays by the name of their leaf, what data told, and outputs that are keys.

    ``classes`` are vocabularies and classes, ``fillings`` statistics: those of a version, or learned from these rows.
    """

    arrays: dict[str, Array]
    facts: dict[Symbol, int]
    classes: Mapping[str, Keys]
    fillings: Mapping[str, Array]
    keys: dict[str, pa.ChunkedArray] = field(default_factory=dict)

    @property
    def sizes(self) -> dict[Symbol, int]:
        """All that the binder has to know of the data."""
        return self.facts | sizes_told(self.classes)


def assigned(model: Model, given: Sequence[Query], place: Place) -> dict[str, Query]:
    """Which table or query each relation of the model is. Raises ProgrammingError for one that is missing."""
    names = list(model.parts)
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
    hint = f"its relations are {listed(names)}"
    if query.name is None:
        hint = f"{query.place.source.strip()} AS {names[0]}, for example; {hint}"
        return ProgrammingError("which relation of the model is this?", place=query.place, hint=hint)
    message = f'model "{model.name}" has no relation "{query.name}"'
    return ProgrammingError(message, place=query.place, hint=suggest(query.name, names) or hint)


@record
class Wanted:
    """What is to be computed of a model: ``bind`` binds it with what data told, ``pick`` picks plans of it."""

    bind: Callable[[Mapping[Symbol, int]], Model]
    pick: Callable[[Model], Collection[Node]]


def check_skeleton(session: Session, model: Model) -> None:
    """Whether DuckDB can compute the keys of a model, tried on tables without rows."""
    assert model.skeleton is not None
    with Tables(session.storage) as tables:
        for part in model.parts.values():
            columns = [f"CAST(NULL AS {read_type(part, n)}) AS {quoted(n)}" for n in part.inputs]
            tables.add(part.rows, session.storage.query(f"SELECT {', '.join(columns)} WHERE FALSE"))
        texts = {name: text() for name, text in model.keys.items()}
        run_skeleton(tables, model.skeleton, [model.rows.name])
        for text in texts.values():
            tables.column(model.rows, text)


class RelationReader:
    """Reads the relations of a model while its tables are known to DuckDB."""

    def __init__(self, session: Session, tables: Tables, sources: Mapping[str, Query]) -> None:
        self.session, self.tables, self.sources = session, tables, sources

    def copy(self, model: Model, roots: Collection[Node], with_labels: bool) -> dict[str, Source]:
        """Each relation copied once: the columns that leaves, keys, statistics and vocabularies read."""
        assert model.skeleton is not None
        found: dict[str, Source] = {}
        for name, part in model.parts.items():
            leaves = used_leaves(model, part, roots, with_labels)
            read = {r for leaf in leaves.values() for r in leaf.reads}
            read |= {r for s in part.statistics.values() for r in s.reads}
            read |= {r for v in part.vocabularies.values() for r in v.reads}
            read |= model.skeleton.keys.get(name, {}).keys()
            wanted = {n: c for n, c in part.declared.items() if n in read}
            query = without_predict(self.session, self.sources[name])
            source = match(self.session.storage, query, part, wanted)
            table = copied(self.session.storage, source, part)
            self.tables.add(part.rows, table)
            found[name] = Source(Query(table_name(part.rows), query.place), as_copied(source, part))
        return found

    def check_rows(self, skeleton: Skeleton, found: Rows) -> None:
        """Whether there is something to compute with. Raises DataError about a relation or a step without rows."""
        for name, query in self.sources.items():
            if not self.tables.tables[name].num_rows:
                raise DataError(f'the relation "{name}" has no rows', place=query.place)
        check_rows(skeleton, found)

    def learn(
        self, model: Model, copies: Mapping[str, Source], found: Rows, kept: Array | None
    ) -> tuple[dict[str, Keys], dict[str, Array]]:
        """The classes of all rows; the vocabularies and statistics of those that the kept rows of the select stem from.

        A relation that the select's rows do not stem from one by one, such as a table that is joined, is learned whole.
        """
        storage = self.session.storage
        classes: dict[str, Keys] = {}
        fillings: dict[str, Array] = {}
        for name, part in model.parts.items():
            classes |= classes_of(storage, copies[name], part)
            table = self.tables.tables[name]
            if kept is not None and name in model.origins:
                path = model.origins[name]
                positions = kept if path is None else positions_of(path, found)[kept]
                table = table.take(distinct(positions))
            with registered(storage, LEARNED, table):
                source = Source(Query(LEARNED, copies[name].query.place), copies[name].columns)
                classes |= keys_of(storage, source, part)
                fillings |= statistics_of(storage, source, part)
            check_keys(part, classes, self.sources[name].place)
        return classes, fillings

    def arrays(
        self,
        model: Model,
        copies: Mapping[str, Source],
        roots: Collection[Node],
        classes: Mapping[str, Keys],
        fillings: Mapping[str, Array],
    ) -> tuple[dict[str, Array], dict[str, DataColumn]]:
        """The leaves of the roots as arrays, and how they are computed."""
        found: dict[str, Array] = {}
        every: dict[str, DataColumn] = {}
        for name, part in model.parts.items():
            leaves = used_leaves(model, part, roots, False)
            plain = {n: leaf for n, leaf in leaves.items() if leaf.is_plain}
            rest = {n: leaf for n, leaf in leaves.items() if not leaf.is_plain}
            try:
                for leaf in plain.values():  # they are there as they are
                    found |= leaf_arrays(self.tables.tables[name].column(leaf.reads[0]), [leaf], {}, {}, 1)
                found |= load(self.session.storage, copies[name], part, rest, classes, fillings).columns if rest else {}
            except DataError as problem:
                problem.at(self.sources[name].place)
                raise
            every |= leaves
        return found, every


def positions_of(path: Node, found: Rows) -> Array:
    """The positions that a path of Takes leads to."""
    if isinstance(path, Take):
        return positions_of(path.x, found)[positions_of(path.index, found)]
    assert isinstance(path, Positions)
    if path.name not in found.arrays:  # every row stands for the row of its own number
        return every(found.counts[path.rows.name])
    return found.arrays[path.name]


def used_leaves(model: Model, part: Model, roots: Collection[Node], with_labels: bool) -> dict[str, DataColumn]:
    """The leaves of a relation that some plans read; with the categorical targets, whose classes are to be learned."""
    leaves = {n: leaf for n, leaf in model.leaves(roots).items() if n in part.data}
    labels = {c.name: part.data[c.name] for n, c in part.targets.items() if n in part.categories}
    return leaves | labels if with_labels else leaves


def read_relations(
    session: Session,
    model: Model,
    sources: Mapping[str, Query],
    wanted: Wanted,
    *,
    version: StoredVersion | None = None,
    learn: bool = False,
    kept: Callable[[int], Array | None] = lambda rows: None,
    keys: bool = False,
    may_be_empty: bool = False,
) -> RelationRows:
    """Read what some plans need of each relation, run the skeleton, and make arrays of the leaves.

    The model is bound again on the way, since what it reads may depend on what its data has told. With ``learn``
    classes, vocabularies and statistics are learned from these rows, those of them that are ``kept`` of so many, else
    they are those of ``version``. With ``keys`` outputs that are no numbers are read too.
    """
    assert model.skeleton is not None
    with Tables(session.storage) as tables:
        texts = {name: text() for name, text in model.keys.items()} if keys else {}  # asked for before all is read
        reader = RelationReader(session, tables, sources)
        copies = reader.copy(model, wanted.pick(model), learn)
        asked = {model.rows.name} if texts else set()
        found = run_skeleton(tables, model.skeleton, asked)
        if not may_be_empty or found.counts.get(model.rows.name, 1):
            reader.check_rows(model.skeleton, found)
        facts = {rows_symbol(name): count for name, count in found.counts.items()}
        facts |= {Symbol(fact): 1 for fact in found.facts}
        classes: Mapping[str, Keys] = version.classes if version else {}
        fillings: Mapping[str, Array] = version.parameters if version else {}
        if learn:
            classes, fillings = reader.learn(model, copies, found, kept(found.counts.get(model.rows.name, 1)))
        fitted = wanted.bind(facts | sizes_told(classes))
        roots = wanted.pick(fitted)
        arrays, leaves = reader.arrays(fitted, copies, roots, classes, fillings)
        read = {n.name for n in walk(roots) if isinstance(n, (Column, Positions))}
        arrays |= {name: array for name, array in found.arrays.items() if name in read}
        always = [n for n, leaf in leaves.items() if is_flag(leaf) and arrays[n].all()]
        facts |= {Symbol(n): 1 for n in always}
        outputs = {name: tables.column(RowSet(model.rows.name), text) for name, text in texts.items()}
    statistics = {n: fillings[n] for part in model.parts.values() for n in part.statistics}
    return RelationRows(arrays, facts, classes, statistics, outputs)


def is_flag(leaf: DataColumn) -> bool:
    """Whether a leaf says where something is known."""
    return leaf.find == Find.KNOWN or leaf.sql.endswith("IS NOT NULL")
