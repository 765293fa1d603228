"""The rows of a training run: which columns are read, what its classes are, what is held out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import DataError, ProgrammingError
from ..executor.dataset import Dataset, Source, balanced_weights, check_indexes, classes_of, load, match
from ..executor.device import Array
from ..executor.load import UnknownLabel
from ..executor.per_group import balanced_by_group, split_by_group
from ..parser.statements import CreateModel, Query, Train
from ..planner.binder import bind_model
from ..planner.model import Model
from ..planner.ops import Column
from ..planner.plan import Plan
from ..types import FLOAT
from .core import Session
from .per_group import Groups, groups_of_rows
from .predict import without_predict
from .training_plan import Settings

CLASS_WEIGHT = "class_weight"  # the column of weights that the option of this name adds


def used_columns(model: Model) -> dict[str, Column]:
    """The columns that the loss reads, and the categorical targets: only these are loaded."""
    assert model.loss is not None
    read = {n.name for n in Plan({"loss": model.loss}).nodes() if isinstance(n, Column)}
    every = {**model.inputs, **model.targets, **model.weight_columns}
    return {name: c for name, c in every.items() if name in read or name in model.categories}


def load_data(
    session: Session, statement: Train, model: Model, known: Mapping[str, tuple[str, list[str]]]
) -> tuple[Dataset, dict[str, tuple[str, list[str]]], Groups | None]:
    """The training rows, the classes of categorical targets (those of the current version if there is one), and the
    groups of PER if it is there."""
    if statement.on is None:
        return Dataset({}, 1), {}, None
    wanted = used_columns(model)
    query = without_predict(session, statement.on)
    source = match(session.storage, query, model, wanted)
    groups = groups_of_rows(session, statement.per, query)
    classes = dict(known) or classes_of(session.storage, source, model)
    for name, (_, values) in classes.items():
        if len(values) == 1:
            raise DataError(f'column "{name}" has only one class, "{values[0]}"', place=statement.on.place)
    try:
        dataset = load_rows(session, source, wanted, classes, groups)
    except DataError as problem:
        if known and isinstance(problem, UnknownLabel):
            problem.hint = f"TRAIN {statement.model} ... FROM SCRATCH learns the classes anew"
        problem.at(statement.on.place)
        raise
    if dataset.rows == 0:
        raise DataError("there are no rows to train on", place=statement.on.place)
    return dataset, classes, groups


def load_rows(
    session: Session,
    source: Source,
    wanted: Mapping[str, Column],
    classes: Mapping[str, tuple[str, list[str]]],
    groups: Groups | None,
) -> Dataset:
    """The wanted columns of the rows, and the number of each row's group where there are groups."""
    if groups is not None:
        source, wanted, classes = groups.read(source, wanted, classes)
    return load(session.storage, source, wanted, classes)


def check_labels(model: Model, dataset: Dataset, query: Query | None) -> None:
    """Whether labels are classes of the model. The place is that of the rows: the model is declared elsewhere."""
    try:
        check_indexes(model, dataset)
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


def split_count(statement: Train, rows: int) -> int:
    """How many of the rows are trained on: all but the share that VALIDATE holds out."""
    percent = statement.validate if isinstance(statement.validate, float) else 0
    return rows - round(rows * percent / 100)


def split_rows(
    session: Session,
    statement: Train,
    settings: Settings,
    model: Model,
    dataset: Dataset,
    classes: Mapping[str, Any],
    groups: Groups | None,
) -> tuple[Array | None, Dataset | None]:
    """The rows to train on (None: all) and the rows that VALIDATE holds out."""
    if statement.validate is None:
        return None, None
    if isinstance(statement.validate, Query):
        wanted = used_columns(model)
        source = match(session.storage, without_predict(session, statement.validate), model, wanted)
        try:
            held_out = load_rows(session, source, wanted, classes, groups)
        except DataError as problem:
            problem.at(statement.validate.place)
            raise
        if held_out.rows == 0:
            raise DataError("there are no rows to validate on", place=statement.validate.place)
        check_labels(model, held_out, statement.validate)
        return None, balanced(model, held_out, groups) if CLASS_WEIGHT in dataset.columns else held_out
    if groups is None:
        kept, held_out = dataset.split(statement.validate, settings.seed)
    else:
        numbers = dataset.columns[groups.name]
        kept, held_out = split_by_group(dataset, numbers, len(groups.keys), statement.validate, settings.seed)
    if not len(kept) or not held_out.rows:
        raise DataError(
            f"VALIDATE {statement.validate:g} PERCENT of {dataset.rows} rows leaves nothing on one of the sides",
            place=statement.place,
        )
    return kept, held_out
