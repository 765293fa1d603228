"""TRAIN of a model over several relations: what is read, what is held out, and the loss on that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import DataError, NotSupportedError, ProgrammingError
from ..executor.catalog import StoredVersion
from ..executor.dataset import Dataset
from ..executor.device import Array
from ..executor.run import executable, leaves
from ..executor.train import LoopPlan
from ..optimizer.stages import optimize, simplify
from ..parser.statements import CreateModel, Query, Train
from ..planner.model import Model
from ..planner.node import Node, walk
from ..planner.ops import Column, Index, Positions
from ..planner.plan import Plan
from ..planner.restrict import Restriction
from ..types import RowSet
from .core import Session
from .models import sizes_told
from .relational_predict import evaluate_over
from .relations import RelationRows, Wanted, assigned, read_relations
from .training_data import check_classes, kept_positions
from .training_plan import Settings, bound, parameter_views, read_settings


def read_training(
    session: Session, statement: Train, definition: CreateModel, warm: StoredVersion | None
) -> tuple[Model, RelationRows]:
    """The relations of a TRAIN, and the model bound to what they told."""
    refuse_groups(statement)
    model = bound(statement, definition, {})
    rows = read(session, statement, definition, model, (statement.on, *statement.others), warm)
    check_classes(model, rows.classes, statement.place)
    model = bound(statement, definition, rows.sizes)
    if model.rows.rows is None:
        message = "the select of the model gives a single row: there is nothing to go over in batches"
        raise ProgrammingError(message, place=statement.place)
    return model, rows


def read(
    session: Session,
    statement: Train,
    definition: CreateModel,
    model: Model,
    given: tuple[Query | None, ...],
    version: StoredVersion | None,
) -> RelationRows:
    """What the loss reads of the relations that a clause gives; without a version it is learned from, too."""
    sources = assigned(model, [q for q in given if q is not None], statement.place)
    wanted = Wanted(lambda sizes: bound(statement, definition, sizes), lambda m: [m.loss] if m.loss is not None else [])
    seed = read_settings(statement).seed
    return read_relations(
        session, model, sources, wanted,
        version=version, learn=version is None, kept=lambda count: kept_positions(statement, Dataset({}, count), seed),
    )  # fmt: skip


def split(statement: Train, model: Model, rows: RelationRows, settings: Settings) -> tuple[Array | None, Array | None]:
    """The rows to train on (None: all) and those that VALIDATE n PERCENT holds out, by position.

    Batches are made of rows with a known target: others have no loss. The whole at once may hold them all.
    """
    assert model.rows.rows is not None
    labelled = labelled_rows(model, rows)
    if labelled is not None and not len(labelled):
        raise DataError("no row has a target that is known", place=statement.place)
    kept = kept_positions(statement, Dataset({}, model.rows.rows), settings.seed)
    if kept is None:
        return None if settings.full_batch else labelled, None
    held = np.setdiff1d(np.arange(model.rows.rows), kept)
    if labelled is not None:
        kept, held = np.intersect1d(kept, labelled), np.intersect1d(held, labelled)
    if not len(kept) or not len(held):
        raise DataError("the rows with a known target are all on one side of VALIDATE", place=statement.place)
    return kept, held


def labelled_rows(model: Model, rows: RelationRows) -> Array | None:
    """The rows in which some target of the loss is known; None: all."""
    assert model.loss is not None
    read = set(walk([model.loss]))
    flags = [model.nulls.flag(node) for node in model.labels.values() if node in read]
    if None in flags or not flags:
        return None
    values = evaluate_over(Plan({str(i): f for i, f in enumerate(flags) if f is not None}), rows, {})
    return np.flatnonzero(np.logical_or.reduce([np.asarray(v) for v in values.values()]))


def relational_validator(
    session: Session,
    statement: Train,
    definition: CreateModel,
    model: Model,
    rows: RelationRows,
    held: Array | None,
    loop: LoopPlan,
) -> Callable[[Mapping[Node, Array]], float] | None:
    """The loss on the held-out rows as a function of the states: over whole groups, never sampled ones."""
    if statement.validate is None:
        return None
    if isinstance(statement.validate, Query):
        given = (statement.validate, *statement.validate_others)
        learned = StoredVersion(0, rows.fillings, rows.classes, "")
        fresh = bound(statement, definition, sizes_told(rows.classes))
        rows = read(session, statement, definition, fresh, given, learned)
        model, held = bound(statement, definition, rows.sizes), None
    assert model.loss is not None
    loss = simplify(Plan({"loss": model.loss}, model.names)).plan.outputs["loss"]
    arguments = []
    if held is not None:
        index = Index(RowSet("held_out", len(held)), model.rows)
        loss = Restriction(model.rows, index, fixed=model.scalars).single(loss)
        arguments = [index]
    plan = optimize(Plan({"loss": loss}).replaced(parameter_views(loop))).plan
    nodes = list(plan.outputs.values())
    run = executable(nodes, arguments=arguments, varying=leaves(nodes))
    data: dict[Node, Array] = {n: rows.arrays[n.name] for n in walk(nodes) if isinstance(n, (Column, Positions))}
    counts = {r: r.rows or 1 for r in run.program.row_counts}
    given_rows = [] if held is None else [held]
    return lambda states: float(run.bind({**data, **dict(states)}, counts)(*given_rows)[0])


def refuse_groups(statement: Train) -> None:
    """A model for every group of rows needs rows that are there before the model's joins and groups."""
    if statement.per:
        raise NotSupportedError(
            "PER is for models over one relation",
            place=statement.per[0].place,
            hint="join the relations in a query and train on that: TRAIN ... ON (SELECT ...) PER (...)",
        )


def refuse_class_weight(options: Mapping[str, Any], statement: Train) -> None:
    """Weights of classes need one label a row of one table."""
    if options["class_weight"]:
        raise NotSupportedError(
            "class_weight is for models over one relation", place=statement.place, hint="WEIGHT BY weights rows"
        )
