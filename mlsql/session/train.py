"""TRAIN: from the statement to a new version of the model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..executor.catalog import TrainingRun
from ..executor.dataset import Dataset
from ..executor.device import Array
from ..executor.initialize import draw
from ..executor.per_group import GroupTrainer
from ..executor.results import Rows
from ..executor.train import Diverged, LoopPlan, Outcome, Trainer, validation
from ..optimizer.stages import optimize, simplify
from ..parser.statements import Train
from ..planner.model import Model, classes_symbol
from ..planner.node import Node
from ..planner.plan import Plan
from ..types import RowSet
from .core import Session, runs
from .per_group import (
    ByGroup,
    check_same,
    first_by_group,
    group_rows,
    groups_of_version,
    known_before,
    label_classes,
    validator_of_groups,
)
from .rows import one_row
from .training_data import check_labels, load_data, split_rows, with_class_weight
from .training_plan import Settings, batch_leaves, bound, parameter_views, plan_training, read_settings


@dataclass(frozen=True)
class Prepared:
    """A training run that is ready to start."""

    model: Model
    settings: Settings
    dataset: Dataset
    classes: Mapping[str, tuple[str, list[str]]]
    train_rows: Array | None  # None: all
    held_out: Dataset | None
    loop: LoopPlan
    first: Mapping[str, Array]  # where the parameters start
    by_group: ByGroup | None = None  # what PER adds


@runs(Train)
def train(session: Session, statement: Train) -> Rows:
    """Train a model and store the result as its next version; the rows are one summary."""
    prepared = prepare(session, statement)
    outcome = run(session, statement, prepared)
    name = str(statement.model)
    parameters = {**prepared.first, **outcome.parameters}  # frozen ones stay as they were
    run_facts = run_row(statement, prepared, outcome)
    version = session.catalog.save_version(name, parameters, prepared.classes, run_facts, outcome.log)
    return one_row(
        session,
        {
            "model": name,
            "version": version,
            "solver": prepared.settings.solver.name,
            "epochs": outcome.epochs,
            "steps": outcome.steps,
            "rows": outcome.rows,
            "loss": outcome.loss,
            "validation_loss": outcome.validation_loss,
            "seconds": round(outcome.seconds, 3),
            "stopped_because": outcome.stopped_because,
        },
    )


# -- planning ----------------------------------------------------------------------------------------------------------


def prepare(session: Session, statement: Train) -> Prepared:
    """Everything up to the first step: bind, read the options, load the data, plan."""
    definition = session.models.definition(statement.model)
    settings = read_settings(statement)
    model = bound(statement, definition, {})
    warm = None if statement.from_scratch else session.models.version(statement.model)
    before = groups_of_version(session, warm)
    check_same(statement, warm, before)
    dataset, classes, groups = load_data(session, statement, model, label_classes(warm))
    sizes = {classes_symbol(c): len(values) for c, (_, values) in classes.items()}
    model = bound(statement, definition, sizes)
    if settings.options["class_weight"]:
        model, dataset = with_class_weight(model, dataset, statement, definition, sizes, groups)
    check_labels(model, dataset, statement.on)
    train_rows, held_out = split_rows(session, statement, settings, model, dataset, classes, groups)
    count = dataset.rows if train_rows is None else len(train_rows)
    by_group = group_rows(statement, dataset, train_rows, groups)
    sizes_of_groups = by_group.sizes if by_group else None
    subset = train_rows is not None
    loop, _ = plan_training(model, settings, dataset.rows, count, subset=subset, group_sizes=sizes_of_groups)
    first = first_values(model, known_before(model, warm, before), settings.seed)
    if groups is not None:
        first = first_by_group(first, model, groups, warm, before)
        classes |= groups.classes
    return Prepared(model, settings, dataset, classes, train_rows, held_out, loop, first, by_group)


def first_values(model: Model, known: Mapping[str, Array], seed: int) -> dict[str, Array]:
    """Where training starts: at the values that are known, else at values drawn from the seed."""
    return {name: known[name] if name in known else draw(p, seed) for name, p in model.parameters.items()}


# -- running -----------------------------------------------------------------------------------------------------------


def run(session: Session, statement: Train, prepared: Prepared) -> Outcome:
    """Run the loop. A run that diverges or is interrupted is recorded, and the current version stays."""
    settings, model = prepared.settings, prepared.model
    constants: dict[Node, Array] = {p.node: prepared.first[n] for n, p in model.parameters.items()}
    kind, its_rows = trainer_of(prepared)
    trainer = kind(
        prepared.loop,
        prepared.dataset.columns,
        prepared.first,
        constants,
        **its_rows,
        shuffle=settings.options["shuffle"],
        seed=settings.seed,
        stop_on_nan=settings.options["on_nan"] == "stop",
        validate=validator(prepared),
        progress=session.progress,
        table_rows=prepared.dataset.rows,
    )
    if session.progress is not None:
        session.progress.start(model=str(statement.model), epochs=settings.limits.epochs, rows=len(trainer.rows))
    try:
        return trainer.run(settings.limits)
    except (Diverged, KeyboardInterrupt) as stop:
        reason = "interrupted" if isinstance(stop, KeyboardInterrupt) else "diverged"
        session.catalog.save_failed_run(run_row(statement, prepared, trainer.outcome({}, reason)))
        if isinstance(stop, KeyboardInterrupt):
            stop.add_note(f"training of {statement.model} was interrupted; the version before it stays")
        raise
    finally:
        if session.progress is not None:
            session.progress.stop()


def trainer_of(prepared: Prepared) -> tuple[Callable[..., Trainer], dict[str, Any]]:
    """What runs the loop, and the options that tell it which rows a step reads."""
    settings, by_group = prepared.settings, prepared.by_group
    if by_group is not None:
        return GroupTrainer, {"groups": by_group.rows, "width": settings.width(by_group.sizes)}
    batch_size = None if settings.full_batch else settings.options["batch_size"]
    return Trainer, {"rows": prepared.train_rows, "batch_size": batch_size}


def validator(prepared: Prepared) -> Callable[[Mapping[Node, Array]], float] | None:
    """The loss on the held-out rows as a function of the states."""
    if prepared.held_out is None:
        return None
    model = prepared.model
    assert model.loss is not None
    rows = RowSet("held_out", prepared.held_out.rows)
    simplified = simplify(Plan({"loss": model.loss}, model.names)).plan
    if prepared.by_group is not None:
        groups, place = prepared.by_group.groups, prepared.settings.place
        return validator_of_groups(model, simplified, prepared.loop, prepared.held_out, groups, place)
    plan = simplified.replaced(batch_leaves(model, simplified, rows, rows, None))
    plan = plan.replaced(parameter_views(prepared.loop))
    return validation(optimize(plan).plan, rows, prepared.held_out.columns)


# -- records -----------------------------------------------------------------------------------------------------------


def run_row(statement: Train, prepared: Prepared, outcome: Outcome) -> TrainingRun:
    """A run as the catalog keeps it, whether it gave a version or not."""
    return TrainingRun(
        model=str(statement.model),
        solver=prepared.settings.solver.name,
        options=json.dumps(dict(prepared.settings.options)),
        seed=prepared.settings.seed,
        statement=statement.place.source,
        seconds=outcome.seconds,
        epochs=outcome.epochs,
        steps=outcome.steps,
        rows=outcome.rows,
        loss=outcome.loss,
        validation_loss=outcome.validation_loss,
        stopped_because=outcome.stopped_because,
    )
