"""TRAIN: from the statement to a new version of the model."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from ..autodiff.options import known_options
from ..errors import Place, ProgrammingError
from ..executor.catalog import StoredVersion, TrainingRun
from ..executor.clock import Clock
from ..executor.dataset import Dataset
from ..executor.device import Array
from ..executor.initialize import draw, settled
from ..executor.per_group import GroupTrainer
from ..executor.results import Rows
from ..executor.train import Diverged, LoopPlan, Outcome, Trainer, validation
from ..executor.vocabulary import Keys
from ..optimizer.stages import optimize, simplify
from ..parser.statements import CreateModel, Train
from ..planner.binder import is_relational
from ..planner.model import Model
from ..planner.node import Node
from ..planner.plan import Plan
from ..record import record
from ..types import RowSet
from .choosing import decided
from .compiling import compilation
from .constraints import Watch, check_run, fitted, overflows, why_not_streamed
from .core import Session, runs
from .machine import plan_for
from .models import sizes_told
from .per_group import (
    ByGroup,
    check_same,
    first_by_group,
    group_rows,
    groups_of_version,
    known_before,
    validator_of_groups,
)
from .rows import one_row
from .solving import check_clauses, drive_of, problem_of
from .training_data import (
    TrainingRows,
    always_known,
    check_labels,
    load_rows,
    split_rows,
    training_rows,
    with_class_weight,
)
from .training_plan import Planned, Settings, bound, parameter_views, read_settings

if TYPE_CHECKING:
    from ..executor.solve import Problem
    from .streaming import StreamedRows


@record
class Prepared:
    """A training run that is ready to start."""

    model: Model
    settings: Settings
    dataset: Dataset
    classes: Mapping[str, Keys]
    train_rows: Array | None  # None: all
    validate: Callable[[Mapping[Node, Array]], float] | None
    plan: Callable[..., Planned]  # anew, its rules being left out as ``without`` says
    planned: Planned
    first: Mapping[str, Array]  # where the parameters start
    by_group: ByGroup | None = None  # what PER adds
    problem: Problem | None = None  # of a solver that uses curvature
    bytes: int | None = None  # estimated, where MEMORY asks for it
    streamed: StreamedRows | None = None  # rows that are not in the dataset, since they do not fit into memory
    streaming: str | None = None  # how they go through it

    def close(self) -> None:
        """Give the disk space of streamed rows back."""
        if self.streamed is not None:
            self.streamed.close()

    @property
    def loop(self) -> LoopPlan:
        return self.planned.loop


@runs(Train)
def train(session: Session, statement: Train) -> Rows:
    """Train a model and store the result as its next version; the rows are one summary."""
    watch = Watch()
    with contextlib.closing(prepare(session, statement)) as prepared:
        if prepared.settings.note is not None:
            session.notice(prepared.settings.note)
        outcome = run(session, statement, prepared)
    watch.report(session, prepared.settings, prepared.bytes, outcome, prepared.streaming)
    return stored(session, statement, prepared, outcome)


def stored(session: Session, statement: Train, prepared: Prepared, outcome: Outcome) -> Rows:
    """Store what a run gave as the model's next version; one row about it."""
    name = str(statement.model)
    parameters = {**prepared.first, **outcome.parameters}  # frozen ones stay as they were
    parameters = {n: settled(prepared.model.parameters[n], value) for n, value in parameters.items()}
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


def prepare(session: Session, statement: Train, without: Collection[str] = (), *, streamed: bool = False) -> Prepared:
    """Everything up to the first step: bind, read the options, load the data, plan, some rules left out.

    Rows that do not fit into MEMORY are ``streamed``.
    """
    definition = session.models.definition(statement.model)
    settings = read_settings(statement)
    check_clauses(statement, settings)
    warm = None if statement.from_scratch else session.models.version(statement.model)
    if is_relational(definition):
        return prepare_relations(session, statement, definition, settings, warm, without)
    check_single(statement)
    before = groups_of_version(session, warm)
    if statement.on is None:
        rows, model, dataset = None, bound(statement, definition, {}), Dataset({}, 1)
    else:
        check_same(statement, warm, before)
        with training_rows(session, statement, definition, settings, warm, streamed) as rows:
            if rows.streamed is not None:
                return prepare_streamed(session, statement, settings, rows, warm, without)
            model, dataset = rows.model, load_rows(session, statement, rows, warm is not None)
    classes, fillings, groups = (rows.classes, rows.fillings, rows.groups) if rows else ({}, {}, None)
    if settings.options["class_weight"]:
        model, dataset = with_class_weight(model, dataset, statement, definition, sizes_told(classes), groups)
    check_labels(model, dataset, statement.on)
    train_rows, held_out = split_rows(session, statement, settings, model, dataset, rows)
    count = dataset.rows if train_rows is None else len(train_rows)
    settings = decided(statement, settings, model, dataset.rows, count, session.machine)
    if settings.solver.needs is not None and train_rows is not None:
        dataset, train_rows = Dataset({n: a[train_rows] for n, a in dataset.columns.items()}, len(train_rows)), None
    by_group = group_rows(statement, dataset, train_rows, groups)
    plan = functools.partial(
        plan_for, session, model, settings, dataset.rows, dataset.rows if train_rows is None else len(train_rows),
        subset=train_rows is not None, known=always_known(model, dataset, train_rows),
        group_sizes=by_group.sizes if by_group else None,
    )  # fmt: skip
    planned = plan(without=without)
    problem = problem_of(planned, settings)
    settings, estimate = fitted(session, settings, planned, dataset.bytes, problem)
    if statement.on is not None and overflows(statement, settings, estimate):
        return prepare(session, statement, without, streamed=True)
    check_run(settings, estimate, why_not_streamed(statement, settings))
    first = first_values(model, {**fillings, **known_before(model, warm, before)}, settings.seed)
    if groups is not None:
        first = first_by_group(first, model, groups, warm, before)
        classes = {**classes, **groups.classes}
    validate = validator(model, held_out, planned.loop, by_group, settings.place)
    return Prepared(
        model, settings, dataset, classes, train_rows, validate, plan, planned, first, by_group, problem, estimate
    )


def prepare_streamed(
    session: Session,
    statement: Train,
    settings: Settings,
    rows: TrainingRows,
    warm: StoredVersion | None,
    without: Collection[str],
) -> Prepared:
    """The same for rows that do not fit into memory."""
    from .streaming import plan_streamed, spilled, streamed_validator

    assert rows.streamed is not None
    model = rows.model
    run = plan_streamed(session, statement, settings, rows, without)
    first = first_values(model, {**rows.fillings, **known_before(model, warm, None)}, run.settings.seed)
    with spilled(session, statement, rows, run, warm is not None) as on_disk:
        validate = streamed_validator(model, on_disk, run.planned.loop, run.settings)
        return Prepared(
            model, run.settings, Dataset({}, 0), rows.classes, None, validate, run.plan, run.planned, first,
            bytes=run.streaming.estimate, streamed=on_disk, streaming=run.streaming.line(),
        )  # fmt: skip


def prepare_relations(
    session: Session,
    statement: Train,
    definition: CreateModel,
    settings: Settings,
    warm: StoredVersion | None,
    without: Collection[str],
) -> Prepared:
    """The same for a model over several relations."""
    from .relational_training import read_training, refuse_class_weight, relational_validator, split

    refuse_class_weight(settings.options, statement)
    model, rows = read_training(session, statement, definition, warm)
    assert model.rows.rows is not None
    dataset = Dataset(rows.arrays, model.rows.rows)
    check_labels(model, dataset, statement.on)
    kept, held = split(statement, model, rows, settings)
    count = dataset.rows if kept is None else len(kept)
    settings = decided(statement, settings, model, dataset.rows, count, session.machine)
    plan = functools.partial(plan_for, session, model, settings, dataset.rows, count, subset=kept is not None)
    planned = plan(without=without)
    problem = problem_of(planned, settings)
    settings, estimate = fitted(session, settings, planned, dataset.bytes, problem)
    check_run(settings, estimate, "a model over one relation can stream its rows")
    validate = relational_validator(session, statement, definition, model, rows, held, planned.loop)
    first = first_values(model, {**rows.fillings, **known_before(model, warm, None)}, settings.seed)
    return Prepared(
        model, settings, dataset, rows.classes, kept, validate, plan, planned, first, None, problem, estimate
    )


def check_single(statement: Train) -> None:
    """A model over one relation is given one, and has no groups to sample."""
    if statement.others:
        raise ProgrammingError("the model reads one relation", place=statement.others[0].place)
    if statement.sample:
        hint = "SAMPLE is for models with GROUP BY"
        raise ProgrammingError("there is nothing to sample", place=statement.sample_place, hint=hint)


def first_values(model: Model, known: Mapping[str, Array], seed: int) -> dict[str, Array]:
    """Where training starts: at the values that are known, else at values drawn from the seed."""
    return {name: known[name] if name in known else draw(p, seed) for name, p in model.parameters.items()}


# -- running -----------------------------------------------------------------------------------------------------------


def run(session: Session, statement: Train, prepared: Prepared, clock: Clock | None = None) -> Outcome:
    """Run the loop. A run that diverges or is interrupted is recorded, and the current version stays."""
    settings = prepared.settings
    trainer = trainer_of(session, prepared, progress=session.progress, clock=clock)
    if session.progress is not None:
        session.progress.start(model=str(statement.model), epochs=settings.limits.epochs, rows=trainer.feed.rows)
    try:
        with one_thread() if settings.options["deterministic"] else contextlib.nullcontext():
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


def one_thread() -> contextlib.AbstractContextManager[None]:
    """Matrix products in one thread: how many there are decides in which order sums are made."""
    from ..executor.blas import threads

    return threads(1)


def trainer_of(session: Session, prepared: Prepared, **options: Any) -> Trainer:
    """What runs the loop over the rows of the run; ``options`` are the Trainer's own."""
    settings, by_group, model = prepared.settings, prepared.by_group, prepared.model
    constants: dict[Node, Array] = {p.node: prepared.first[n] for n, p in model.parameters.items()}
    kind: type[Trainer] = Trainer
    its_rows: dict[str, Any]
    if prepared.problem is not None:
        from ..executor.solve import SolverTrainer

        kind, its_rows = SolverTrainer, drive_of(session, settings, prepared.problem) | {"rows": prepared.train_rows}
    elif by_group is not None:
        kind, its_rows = GroupTrainer, {"groups": by_group.rows, "width": settings.width(by_group.sizes)}
    else:
        batch_size = None if settings.full_batch else settings.options["batch_size"]
        its_rows = {"rows": prepared.train_rows, "batch_size": batch_size}
        made = compilation(session, prepared.planned, settings)
        if made.module is not None and options.get("clock") is None:
            from ..executor.compiled.trainer import CompiledTrainer

            kind = CompiledTrainer
            its_rows |= {"module": made.module, "wait": made.wait, "notice": session.notice}
        if prepared.streamed is not None:
            its_rows["feed"] = prepared.streamed.feed()
    return kind(
        prepared.loop,
        prepared.dataset.columns,
        prepared.first,
        constants,
        **its_rows,
        shuffle=settings.options["shuffle"],
        seed=settings.seed,
        stop_on_nan=settings.options["on_nan"] == "stop",
        validate=prepared.validate,
        table_rows=prepared.dataset.rows,
        **options,
    )


def validator(
    model: Model, held_out: Dataset | None, loop: LoopPlan, by_group: ByGroup | None, place: Place
) -> Callable[[Mapping[Node, Array]], float] | None:
    """The loss on the held-out rows as a function of the states."""
    if held_out is None:
        return None
    assert model.loss is not None
    rows = RowSet("held_out", held_out.rows)
    simplified = simplify(Plan({"loss": model.loss}, model.names)).plan
    if by_group is not None:
        return validator_of_groups(model, simplified, loop, held_out, by_group.groups, place)
    plan = simplified.over({model.rows: rows}, {}).replaced(parameter_views(loop))
    return validation(optimize(plan).plan, rows, held_out.columns)


# -- records -----------------------------------------------------------------------------------------------------------


def run_row(statement: Train, prepared: Prepared, outcome: Outcome) -> TrainingRun:
    """A run as the catalog keeps it, whether it gave a version or not."""
    settings = prepared.settings
    return TrainingRun(
        model=str(statement.model),
        solver=settings.solver.name,
        options=json.dumps({n: v for n, v in settings.options.items() if n in known_options(settings.solver)}),
        seed=settings.seed,
        statement=statement.place.source,
        seconds=outcome.seconds,
        epochs=outcome.epochs,
        steps=outcome.steps,
        rows=outcome.rows,
        loss=outcome.loss,
        validation_loss=outcome.validation_loss,
        stopped_because=outcome.stopped_because,
    )
