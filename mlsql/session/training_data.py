"""The rows of a training run: which columns are read, what its classes are, what is held out."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ..errors import DataError, Place, ProgrammingError, listed
from ..executor.catalog import StoredVersion
from ..executor.dataset import (
    Dataset,
    HeldShare,
    Source,
    always_there,
    as_copied,
    balanced_weights,
    check_indexes,
    classes_of,
    keys_of,
    load,
    match,
    quoted,
    split_positions,
)
from ..executor.device import Array
from ..executor.learn import COPY, KEPT, copied, copied_to_disk, statistics_of
from ..executor.load import UnknownLabel
from ..executor.per_group import balanced_by_group, split_by_group
from ..executor.vocabulary import Keys, registered
from ..parser.statements import CreateModel, Query, Train
from ..planner.binder import bind_model
from ..planner.model import DataColumn, Find, Model
from ..planner.ops import Column
from ..record import record
from ..types import FLOAT
from .constraints import check, duckdb_share, why_not_streamed
from .core import Session
from .models import sizes_told
from .per_group import Groups, check_columns, groups_of_rows, label_classes
from .predict import without_predict
from .training_plan import Settings, bound

CLASS_WEIGHT = "class_weight"  # the column of weights that the option of this name adds


def used_leaves(model: Model) -> dict[str, DataColumn]:
    """The leaves that the loss reads, and the categorical targets: only these are loaded."""
    assert model.loss is not None
    labels = {name: model.leaf(model.targets[name]) for name in model.categories}
    read = {**model.leaves([model.loss]), **labels}
    return {name: leaf for name, leaf in read.items() if name != CLASS_WEIGHT or CLASS_WEIGHT in model.declared}


def used_columns(model: Model) -> dict[str, Column]:
    """The declared columns that training reads: for the loss, for statistics and for vocabularies."""
    learned = (*(s.reads for s in model.statistics.values()), *(v.reads for v in model.vocabularies.values()))
    read = {name for reads in (*(leaf.reads for leaf in used_leaves(model).values()), *learned) for name in reads}
    return {name: c for name, c in model.declared.items() if name in read}


def row_bytes(model: Model) -> int:
    """The bytes of what the loss reads of a row; what only data can tell counts as nothing."""
    types = [leaf.column.type for leaf in used_leaves(model).values()]
    return sum((t.entry_size or 0) * t.element.bytes for t in types)


@record
class TrainingRows:
    """Where training reads from, and what it learned of it before the first step."""

    source: Source
    classes: Mapping[str, Keys]
    fillings: Mapping[str, Array]  # statistics by parameter
    model: Model  # bound with the sizes that the classes tell
    groups: Groups | None  # of PER; the source has their keys then
    streamed: int | None = None  # how many rows there are, where they do not fit into MEMORY
    known: Collection[str] = ()  # vocabularies that know every row that is trained on, where rows are streamed


@contextlib.contextmanager
def training_rows(
    session: Session,
    statement: Train,
    definition: CreateModel,
    settings: Settings,
    known: StoredVersion | None,
    streamed: bool = False,
) -> Iterator[TrainingRows]:
    """The rows of TRAIN ... ON, with vocabularies and statistics: those of a known version, else learned from them.

    A model that is to learn them has its columns copied once, and everything that follows reads the copy. Where the
    columns do not fit into MEMORY, or ``streamed`` asks for it, nothing is copied into memory.
    """
    assert statement.on is not None
    model = bound(statement, definition, {})
    query = without_predict(session, statement.on)
    source = match(session.storage, query, model, used_columns(model))
    groups = groups_of_rows(session, statement.per, query)
    source = groups.keyed(source) if groups else source
    count = counted(session, statement, settings, source, model, streamed)
    if known is not None:
        classes = label_classes(known)
        fillings = {name: known.parameters[name] for name in model.statistics}
        yield TrainingRows(source, classes, fillings, bound(statement, definition, sizes_told(classes)), groups, count)
        return
    with contextlib.ExitStack() as opened:
        if count is not None and settings.memory is not None:
            opened.enter_context(session.storage.limited(duckdb_share(settings.memory)))
        learned_from = source
        if model.vocabularies or model.statistics:
            seed = settings.seed
            if count is None:
                source, learned_from = copy_of(session, statement, source, model, seed, groups, opened)
            else:
                source, learned_from = copy_on_disk(session, statement, source, model, seed, opened)
        keys = keys_of(session.storage, learned_from, model)
        check_keys(model, keys, query.place)
        classes = {**classes_of(session.storage, source, model), **keys}
        model = bound(statement, definition, sizes_told(classes))
        fillings = statistics_of(session.storage, learned_from, model)
        there = () if count is None else always_there(session.storage, learned_from, model)
        yield TrainingRows(source, classes, fillings, model, groups, count, there)


def counted(
    session: Session, statement: Train, settings: Settings, source: Source, model: Model, streamed: bool
) -> int | None:
    """How many rows there are, where they are to be streamed; None where they are read into memory.

    Raises OperationalError for rows that do not fit into MEMORY and cannot be streamed.
    """
    if settings.memory is None:
        return None
    query = source.query
    [(count,)] = session.storage.rows(f"SELECT count(*) FROM {query.text}", query.values)
    check_rows(count, query.place)
    if not streamed:
        columns = count * row_bytes(model)
        if columns <= settings.memory:
            return None
        if why_not_streamed(statement, settings) is not None:
            check(settings, columns, "its columns take", why_not_streamed(statement, settings))
    return int(count)


def copy_of(
    session: Session,
    statement: Train,
    source: Source,
    model: Model,
    seed: int,
    groups: Groups | None,
    copies: contextlib.ExitStack,
) -> tuple[Source, Source]:
    """A copy of what a model reads of its training table: all rows, and those that VALIDATE does not hold out."""
    declared = groups.declared(model) if groups else model
    table = copied(session.storage, source, declared)
    place = source.query.place
    check_rows(table.num_rows, place)
    columns = as_copied(source, declared)
    copies.enter_context(registered(session.storage, COPY, table))
    every = Source(Query(COPY, place), columns)
    if not isinstance(statement.validate, float):
        return every, every
    numbers = groups.numbers(session, every, model) if groups else Dataset({}, table.num_rows)
    kept = kept_positions(statement, numbers, seed, groups)
    copies.enter_context(registered(session.storage, KEPT, table.take(kept)))
    return every, Source(Query(KEPT, place), columns)


def copy_on_disk(
    session: Session, statement: Train, source: Source, model: Model, seed: int, copies: contextlib.ExitStack
) -> tuple[Source, Source]:
    """The same as ``copy_of``, for rows that do not fit into memory, which have no groups."""
    count = copies.enter_context(copied_to_disk(session.storage, source, model))
    place = source.query.place
    check_rows(count, place)
    columns = {name: (name, type_text) for name, (_, type_text) in source.columns.items()}
    every = Source(Query(f"temp.{COPY}", place), columns)
    if not isinstance(statement.validate, float):
        return every, every
    function = f"mlsql held {session.number}"
    session.storage.function(function, HeldShare(count, statement.validate, seed).of_arrow, ["BIGINT"], "BOOLEAN")
    kept = f"(SELECT * FROM temp.{COPY} WHERE NOT {quoted(function)}(rowid))"
    return every, Source(Query(kept, place), columns)


def kept_positions(statement: Train, rows: Dataset, seed: int, groups: Groups | None = None) -> Array | None:
    """The rows that are trained on where VALIDATE holds a share out; None: all."""
    return shares(statement, rows, seed, groups)[0] if isinstance(statement.validate, float) else None


def shares(statement: Train, rows: Dataset, seed: int, groups: Groups | None) -> tuple[Array, Array]:
    """The positions of the rows that are kept and of the share that is held out: of all rows, or of each group's."""
    assert isinstance(statement.validate, float)
    if groups is None:
        kept, held = split_positions(rows.rows, statement.validate, seed)
    else:
        kept, held = split_by_group(rows.columns[groups.name], len(groups.keys), statement.validate, seed)
    if not len(kept) or not len(held):
        raise DataError(
            f"VALIDATE {statement.validate:g} PERCENT of {rows.rows} rows leaves nothing on one of the sides",
            place=statement.place,
        )
    return kept, held


def check_classes(model: Model, classes: Mapping[str, Keys], place: Place) -> None:
    """A classifier needs at least two classes."""
    for name in model.categories:
        if len(classes[name]) == 1:
            raise DataError(f'column "{name}" has only one class, "{classes[name].texts[0]}"', place=place)


def load_rows(session: Session, statement: Train, rows: TrainingRows, known: bool) -> Dataset:
    """All rows of the training table, the leaves that the loss reads."""
    assert statement.on is not None
    model, place = rows.model, statement.on.place
    check_classes(model, rows.classes, place)
    with placed(statement, place, known):
        dataset = loaded(session, rows.source, model, rows.classes, rows.fillings, rows.groups)
    check_rows(dataset.rows, place)
    return dataset


@contextlib.contextmanager
def placed(statement: Train, place: Place, known: bool) -> Iterator[None]:
    """Inside, errors in the rows get their place, and the hint that classes which are ``known`` can be learned anew."""
    try:
        yield
    except DataError as problem:
        if known and isinstance(problem, UnknownLabel):
            problem.hint = f"TRAIN {statement.model} ... FROM SCRATCH learns the classes anew"
        problem.at(place)
        raise


def loaded(
    session: Session,
    source: Source,
    model: Model,
    classes: Mapping[str, Keys],
    fillings: Mapping[str, Array],
    groups: Groups | None,
) -> Dataset:
    """What the loss reads of the rows of a source, and the number of each row's group where there are groups."""
    dataset = load(session.storage, source, model, used_leaves(model), classes, fillings)
    if groups is None:
        return dataset
    numbers = groups.numbers(session, source, model)
    return Dataset({**dataset.columns, **numbers.columns}, numbers.rows)


def check_rows(rows: int, place: Place) -> None:
    """Nothing can be learned from nothing."""
    if rows == 0:
        raise DataError("there are no rows to train on", place=place)


def check_keys(model: Model, classes: Mapping[str, Keys], place: Place) -> None:
    """A column whose values are looked up must have one."""
    for name, vocabulary in model.vocabularies.items():
        if len(classes[name]) == 0:
            columns = listed(vocabulary.reads)
            raise DataError(f"{name} has no keys: it is NULL in every row", place=place, hint=f"leave {columns} out")


def check_labels(model: Model, dataset: Dataset, query: Query | None, first_row: int = 1) -> None:
    """Whether labels are classes of the model. The place is that of the rows: the model is declared elsewhere."""
    try:
        check_indexes(model, dataset, first_row)
    except DataError as problem:
        problem.place = query.place if query is not None else None
        raise


def with_class_weight(
    model: Model,
    dataset: Dataset,
    statement: Train,
    definition: CreateModel,
    sizes: Mapping[Any, int],
    groups: Groups | None,
) -> tuple[Model, Dataset]:
    """The model with rows weighted so that every class counts the same, and its rows with their weights."""
    weighted = class_weighted(model, statement, definition, sizes)
    return weighted, balanced(weighted, dataset, groups)


def class_weighted(model: Model, statement: Train, definition: CreateModel, sizes: Mapping[Any, int]) -> Model:
    """The model with a loss in which a row counts rows / (classes * rows of its class)."""
    labels = [n for n, c in model.targets.items() if c.type.element.kind in ("category", "integer", "boolean")]
    if len(labels) != 1 or statement.weight is not None:
        reason = "WEIGHT BY is there already" if statement.weight is not None else "there is no single class label"
        raise ProgrammingError(f"class_weight cannot be used: {reason}", place=statement.place)
    weight = Column(CLASS_WEIGHT, model.rows, FLOAT)
    return bind_model(definition, sizes, minimize=statement.minimize, weight=weight)


def balanced(model: Model, dataset: Dataset, groups: Groups | None) -> Dataset:
    """The rows with a weight each so that every class that occurs, in their group where there are groups, counts the
    same."""
    [label] = [n for n, c in model.targets.items() if c.type.element.kind in ("category", "integer", "boolean")]
    labels = dataset.columns[label]
    weights = balanced_weights(labels) if groups is None else balanced_by_group(labels, dataset.columns[groups.name])
    return Dataset({**dataset.columns, CLASS_WEIGHT: weights}, dataset.rows)


def always_known(model: Model, dataset: Dataset, rows: Array | None) -> list[Column]:
    """The leaves that say whether a key is known, where every row that is trained on has a known one."""
    flags = [leaf.column for leaf in used_leaves(model).values() if leaf.find == Find.KNOWN]
    values = {c: dataset.columns[c.name] for c in flags}
    return [c for c, known in values.items() if bool((known if rows is None else known[rows]).all())]


def split_count(statement: Train, rows: int) -> int:
    """How many of the rows are trained on: all but the share that VALIDATE holds out."""
    percent = statement.validate if isinstance(statement.validate, float) else 0
    return rows - round(rows * percent / 100)


def split_rows(
    session: Session, statement: Train, settings: Settings, model: Model, dataset: Dataset, rows: TrainingRows | None
) -> tuple[Array | None, Dataset | None]:
    """The rows to train on (None: all) and the rows that VALIDATE holds out."""
    if statement.validate is None:
        return None, None
    groups = rows.groups if rows else None
    if isinstance(statement.validate, Query):
        leaves = used_leaves(model)
        wanted = {n: model.declared[n] for leaf in leaves.values() for n in leaf.reads}
        query = without_predict(session, statement.validate)
        source = match(session.storage, query, model, wanted)
        classes, fillings = (rows.classes, rows.fillings) if rows else ({}, {})
        if groups is not None:
            check_columns(session, groups, query)
            source = groups.keyed(source)
        with placed(statement, statement.validate.place, False):
            held_out = loaded(session, source, model, classes, fillings, groups)
        if held_out.rows == 0:
            raise DataError("there are no rows to validate on", place=statement.validate.place)
        check_labels(model, held_out, statement.validate)
        return None, balanced(model, held_out, groups) if CLASS_WEIGHT in dataset.columns else held_out
    kept, held = shares(statement, dataset, settings.seed, groups)
    return kept, Dataset({n: a[held] for n, a in dataset.columns.items()}, len(held))
