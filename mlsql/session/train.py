"""TRAIN: from the statement to a new version of the model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..autodiff.options import ALL, find_solver, read_options
from ..autodiff.schedules import learning_rate
from ..autodiff.training import STEP, training_plan, view_of
from ..autodiff.updates import Solver
from ..errors import DataError, ProgrammingError
from ..executor.catalog import LogRow, TrainingRun
from ..executor.dataset import Dataset, balanced_weights, check_indexes, classes_of, load, match
from ..executor.device import Array
from ..executor.initialize import draw
from ..executor.results import Rows
from ..executor.train import Diverged, Limits, LoopPlan, Outcome, Trainer, condition, validation
from ..optimizer.rule import Step
from ..optimizer.stages import optimize, simplify
from ..parser.statements import CreateModel, Expression, Query, Train
from ..planner.binder import bind_model
from ..planner.expressions import bind_expression
from ..planner.model import Model, classes_symbol
from ..planner.node import Node
from ..planner.ops import Column, Count, Counter, Index, State, Take
from ..planner.plan import Plan
from ..types import BOOLEAN, FLOAT, UNIT, RowSet
from .core import Session, runs
from .predict import without_predict
from .rows import one_row

DEFAULT_EPOCHS = 10
LOG_COUNTERS = ("epoch", "step", "loss", "validation_loss", "seconds")


@dataclass(frozen=True)
class Settings:
    """What WITH and the statement's other clauses ask for, defaults included."""

    solver: Solver
    options: Mapping[str, Any]
    limits: Limits

    @property
    def full_batch(self) -> bool:
        return str(self.options["batch_size"]).upper() == ALL

    @property
    def seed(self) -> int:
        return int(self.options["seed"])


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
    steps: tuple[Step, ...]


@runs(Train)
def train(session: Session, statement: Train) -> Rows:
    """Train a model and store the result as its next version; the rows are one summary."""
    prepared = prepare(session, statement)
    outcome = run(session, statement, prepared)
    name = str(statement.model)
    version = session.catalog.save_version(
        name, {**frozen_values(session, statement, prepared), **outcome.parameters}, prepared.classes,
        run_row(statement, prepared, outcome), log_rows(outcome),
    )  # fmt: skip
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
    dataset, classes = load_data(session, statement, model, warm.classes if warm else {})
    sizes = {classes_symbol(c): len(values) for c, (_, values) in classes.items()}
    model = bound(statement, definition, sizes)
    if settings.options["class_weight"]:
        model, dataset = with_class_weight(model, dataset, statement, definition, sizes)
    check_labels(model, dataset, statement.on)
    train_rows, held_out = split_rows(session, statement, settings, model, dataset, classes)
    count = dataset.rows if train_rows is None else len(train_rows)
    loop, steps = plan_training(model, settings, dataset.rows, count, subset=train_rows is not None)
    return Prepared(model, settings, dataset, classes, train_rows, held_out, loop, steps)


def bound(statement: Train, definition: CreateModel, sizes: Mapping[Any, int]) -> Model:
    """The model with what the training statement says about it. Raises ProgrammingError if nothing is minimized."""
    model = bind_model(definition, sizes, minimize=statement.minimize, weight=statement.weight)
    if model.loss is None:
        raise ProgrammingError(
            f'model "{statement.model}" has nothing to minimize',
            place=statement.model.place,
            hint="TRAIN ... MINIMIZE <aggregate expression>, or MINIMIZE in CREATE MODEL",
        )
    if statement.on is None and (model.inputs or model.targets):
        raise ProgrammingError("TRAIN needs rows", place=statement.place, hint=f"TRAIN {statement.model} ON <table>")
    if statement.on is not None and model.rows == UNIT and not model.targets:
        raise ProgrammingError("the model has no INPUT, so it reads no rows", place=statement.on.place)
    return model


def read_settings(statement: Train) -> Settings:
    """The solver, its options and the limits of a run."""
    solver = find_solver(statement.solver, statement.solver_place)
    options = read_options(solver, statement.options)
    epochs, steps = options["epochs"], options["steps"]
    until = None if statement.until is None else until_condition(statement.until)
    open_ended = until is not None or statement.within_seconds is not None
    if epochs is None and steps is None:
        epochs = None if open_ended else DEFAULT_EPOCHS
    return Settings(solver, options, Limits(epochs, steps, statement.within_seconds, options["patience"], until))


def until_condition(until: Expression) -> Callable[[Mapping[str, float]], bool]:
    """UNTIL as a function of what an epoch's row of the log holds."""
    counters = {name: Counter(name) for name in LOG_COUNTERS}
    node = bind_expression(until, counters)
    if node.type.element != BOOLEAN:
        raise ProgrammingError("UNTIL needs a condition", place=until.place, hint="for example UNTIL loss < 0.1")
    return condition(node, list(counters.values()))


def plan_training(
    model: Model, settings: Settings, table_rows: int, train_count: int, *, subset: bool
) -> tuple[LoopPlan, tuple[Step, ...]]:
    """The loop over batches: the loss simplified, differentiated, updated, and optimized as one plan."""
    assert model.loss is not None
    o = settings.options
    table = RowSet("table", table_rows) if model.rows != UNIT else UNIT
    whole = (settings.full_batch and not subset) or model.rows == UNIT
    size = train_count if settings.full_batch else min(o["batch_size"], train_count)
    batch = table if whole else RowSet("batch", size)
    index = None if whole else Index(batch, table)
    simplified = simplify(Plan({"loss": model.loss, **model.columns}, model.names), wanted=["loss"])
    plan = simplified.plan.replaced(batch_leaves(model, simplified.plan, table, batch, index))
    per_epoch = 1 if whole else -(-train_count // size)
    total = settings.limits.steps or (settings.limits.epochs or DEFAULT_EPOCHS) * per_epoch
    rate = learning_rate(o["learning_rate"], o["schedule"], o["warmup_steps"], total, STEP)
    learnable = [p.node for p in model.parameters.values() if not p.frozen]
    training = training_plan(
        plan, learnable, settings.solver.build(o), rate, solver=settings.solver.name,
        epochs=settings.limits.epochs or 0, steps=per_epoch, clip_norm=o["clip_norm"], skip_nan=o["on_nan"] == "skip",
    )  # fmt: skip
    iterate = training.iterate
    outputs = {"loss": iterate.loss, "rate": rate, **{str(i): n for i, n in enumerate(iterate.updates)}}
    optimized = optimize(Plan(outputs, training.names))
    best = list(optimized.plan.outputs.values())
    updates = {s: n for s, n in zip(iterate.states, best[2:], strict=True) if isinstance(s, State)}
    loop = LoopPlan(best[0], best[1], updates, table, batch, index, training.spans, STEP, optimized.plan.names)
    return loop, (*simplified.steps, *optimized.steps)


def batch_leaves(model: Model, plan: Plan, table: RowSet, batch: RowSet, index: Index | None) -> dict[Node, Node]:
    """The model's columns as columns of the table, taken by the batch's index where there is one."""
    moved: dict[Node, Node] = {Count(model.rows): Count(batch)}
    for node in plan.nodes():
        if isinstance(node, Column):
            column = Column(node.name, table, node.element, node.shape)
            moved[node] = column if index is None else Take(column, index)
    return moved


# -- data --------------------------------------------------------------------------------------------------------------


def used_columns(model: Model) -> dict[str, Column]:
    """The columns that the loss reads, and the categorical targets: only these are loaded."""
    assert model.loss is not None
    read = {n.name for n in Plan({"loss": model.loss}).nodes() if isinstance(n, Column)}
    every = {**model.inputs, **model.targets}
    return {name: c for name, c in every.items() if name in read or name in model.categories}


def load_data(
    session: Session, statement: Train, model: Model, known: Mapping[str, tuple[str, list[str]]]
) -> tuple[Dataset, dict[str, tuple[str, list[str]]]]:
    """The training rows and the classes of categorical targets, those of the current version if there is one."""
    if statement.on is None:
        return Dataset({}, 1), {}
    wanted = used_columns(model)
    source = match(session.storage, without_predict(session, statement.on), model, wanted)
    classes = dict(known) or classes_of(session.storage, source, model)
    try:
        dataset = load(session.storage, source, wanted, classes)
    except DataError as problem:
        if known and "none of the classes" in problem.message:
            problem.hint = f"TRAIN {statement.model} ... FROM SCRATCH learns the classes anew"
        problem.at(statement.on.place)
        raise
    if dataset.rows == 0:
        raise DataError("there are no rows to train on", place=statement.on.place)
    return dataset, classes


def check_labels(model: Model, dataset: Dataset, query: Query | None) -> None:
    """Whether labels are classes of the model. The place is that of the rows: the model is declared elsewhere."""
    try:
        check_indexes(model, dataset)
    except DataError as problem:
        problem.place = query.place if query is not None else None
        raise


def with_class_weight(
    model: Model, dataset: Dataset, statement: Train, definition: CreateModel, sizes: Mapping[Any, int]
) -> tuple[Model, Dataset]:
    """The model with rows weighted so that every class counts the same: rows / (classes * rows of the class)."""
    labels = [n for n, c in model.targets.items() if c.type.element.kind in ("category", "integer", "boolean")]
    if len(labels) != 1 or statement.weight is not None:
        reason = "WEIGHT BY is there already" if statement.weight is not None else "there is no single class label"
        raise ProgrammingError(f"class_weight cannot be used: {reason}", place=statement.place)
    weights = balanced_weights(dataset.columns[labels[0]])
    weight = Column("class_weight", model.rows, FLOAT)
    weighted = bind_model(definition, sizes, minimize=statement.minimize, weight=weight)
    return weighted, Dataset({**dataset.columns, "class_weight": weights}, dataset.rows)


def split_count(statement: Train, rows: int) -> int:
    """How many of the rows are trained on: all but the share that VALIDATE holds out."""
    percent = statement.validate if isinstance(statement.validate, float) else 0
    return rows - round(rows * percent / 100)


def split_rows(
    session: Session, statement: Train, settings: Settings, model: Model, dataset: Dataset, classes: Mapping[str, Any]
) -> tuple[Array | None, Dataset | None]:
    """The rows to train on (None: all) and the rows that VALIDATE holds out."""
    if statement.validate is None:
        return None, None
    if isinstance(statement.validate, Query):
        wanted = used_columns(model)
        source = match(session.storage, without_predict(session, statement.validate), model, wanted)
        try:
            held_out = load(session.storage, source, wanted, classes)
        except DataError as problem:
            problem.at(statement.validate.place)
            raise
        if held_out.rows == 0:
            raise DataError("there are no rows to validate on", place=statement.validate.place)
        check_labels(model, held_out, statement.validate)
        return None, held_out
    kept, held_out = dataset.split(statement.validate, settings.seed)
    if not len(kept) or not held_out.rows:
        raise DataError(
            f"VALIDATE {statement.validate:g} PERCENT of {dataset.rows} rows leaves nothing on one of the sides",
            place=statement.place,
        )
    return kept, held_out


# -- running -----------------------------------------------------------------------------------------------------------


def run(session: Session, statement: Train, prepared: Prepared) -> Outcome:
    """Run the loop. A run that diverges or is interrupted is recorded, and the current version stays."""
    settings, model = prepared.settings, prepared.model
    first = first_values(session, statement, prepared)
    constants: dict[Node, Array] = {p.node: first[n] for n, p in model.parameters.items()}
    trainer = Trainer(
        prepared.loop,
        prepared.dataset.columns,
        first,
        constants,
        rows=prepared.train_rows,
        batch_size=None if settings.full_batch else settings.options["batch_size"],
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
        session.catalog.save_failed_run(failed_row(statement, prepared, trainer, reason))
        if isinstance(stop, KeyboardInterrupt):
            stop.add_note(f"training of {statement.model} was interrupted; the version before it stays")
        raise
    finally:
        if session.progress is not None:
            session.progress.stop()


def validator(prepared: Prepared) -> Callable[[Mapping[Node, Array]], float] | None:
    """The loss on the held-out rows as a function of the states."""
    if prepared.held_out is None:
        return None
    model = prepared.model
    assert model.loss is not None
    rows = RowSet("held_out", prepared.held_out.rows)
    simplified = simplify(Plan({"loss": model.loss}, model.names)).plan
    plan = simplified.replaced(batch_leaves(model, simplified, rows, rows, None))
    plan = plan.replaced(parameter_views(prepared.loop))
    return validation(optimize(plan).plan, rows, prepared.held_out.columns)


def parameter_views(loop: LoopPlan) -> dict[Node, Node]:
    """Every learnable parameter as a view of the flat weights."""
    return {p: view_of(p, *span) for p, span in loop.spans.items()}


def first_values(session: Session, statement: Train, prepared: Prepared) -> dict[str, Array]:
    """Where training starts: at the current version, else at values drawn from the seed."""
    stored = None if statement.from_scratch else session.models.version(statement.model)
    known = stored.parameters if stored else {}
    return {
        name: known[name] if name in known else draw(p, prepared.settings.seed)
        for name, p in prepared.model.parameters.items()
    }


def frozen_values(session: Session, statement: Train, prepared: Prepared) -> dict[str, Array]:
    """The parameters that training did not touch."""
    first = first_values(session, statement, prepared)
    return {name: first[name] for name, p in prepared.model.parameters.items() if p.frozen}


# -- records -----------------------------------------------------------------------------------------------------------


def run_row(statement: Train, prepared: Prepared, outcome: Outcome) -> TrainingRun:
    """The run as the catalog keeps it."""
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


def failed_row(statement: Train, prepared: Prepared, trainer: Trainer, reason: str) -> TrainingRun:
    """A run that gave no version."""
    last = trainer.log[-1] if trainer.log else None
    return TrainingRun(
        model=str(statement.model),
        solver=prepared.settings.solver.name,
        options=json.dumps(dict(prepared.settings.options)),
        seed=prepared.settings.seed,
        statement=statement.place.source,
        seconds=last.seconds if last else 0.0,
        epochs=len(trainer.log),
        steps=trainer.step_count,
        rows=len(trainer.rows),
        loss=last.loss if last else None,
        validation_loss=last.validation_loss if last else None,
        stopped_because=reason,
    )


def log_rows(outcome: Outcome) -> list[LogRow]:
    """The log as the catalog keeps it, a row an epoch."""
    return [
        LogRow(
            epoch=e.epoch,
            step=e.step,
            loss=e.loss,
            validation_loss=e.validation_loss,
            learning_rate=e.learning_rate,
            rows_per_second=e.rows_per_second,
            seconds=e.seconds,
        )
        for e in outcome.log
    ]
