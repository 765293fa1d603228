"""The plan of a training run: settings read, model bound, and the loop over batches as one optimized plan."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import field
from typing import Any

from ..autodiff.exact import InDouble
from ..autodiff.options import ALL, find_solver, read_options
from ..autodiff.per_group import PerGroup
from ..autodiff.schedules import learning_rate
from ..autodiff.training import STEP, Training, training_plan, view_of
from ..autodiff.updates import Solver
from ..errors import NotSupportedError, Place, ProgrammingError
from ..executor.train import Limits, LoopPlan, condition
from ..optimizer.cost import Machine
from ..optimizer.frequency import Frequency, Runs, is_learned
from ..optimizer.rule import Alternative, Step
from ..optimizer.search import Goal
from ..optimizer.stages import optimize, optional_rules, simplify
from ..parser.statements import CreateModel, Expression, Train
from ..planner.binder import bind_model
from ..planner.expressions import bind_expression
from ..planner.model import Model
from ..planner.node import Node, walk
from ..planner.ops import Column, Counter, Index, Positions, State, one
from ..planner.plan import Plan
from ..planner.restrict import Restriction
from ..record import record
from ..types import BOOLEAN, UNIT, RowSet, TypeProblem
from .batch import batch_leaves
from .per_group import group_layout

CONSTANTS = 1 << 16  # bytes of values from before the loop where none are kept for rows
MAX_EPOCHS = 10_000  # of a run that only UNTIL would end
BF16 = "bf16"  # of precision
LOG_COUNTERS = ("epoch", "step", "loss", "validation_loss", "seconds")


@record
class Settings:
    """What WITH and the statement's other clauses ask for, defaults included."""

    solver: Solver
    options: Mapping[str, Any]
    limits: Limits
    place: Place  # of the model in the statement
    fan_out: tuple[int, ...] = ()  # how many members of a group are sampled, a number a GROUP BY
    sample_place: Place | None = None
    memory: int | None = None  # the most bytes that the run may take
    memory_place: Place | None = None
    considered: tuple[Alternative, ...] = ()  # solvers that were not chosen
    note: str | None = None  # which solver was chosen, and why
    in_tiles: bool = False  # whether steps must be compiled from the first one on, so that the run fits into MEMORY

    @property
    def full_batch(self) -> bool:
        return str(self.options["batch_size"]).upper() == ALL

    def width(self, group_sizes: Sequence[int]) -> int:
        """The slots that each group of PER has in a step: a batch, or as many as the largest group has rows."""
        largest = max(group_sizes)
        return largest if self.full_batch else min(int(self.options["batch_size"]), largest)

    @property
    def seed(self) -> int:
        return int(self.options["seed"])


def bound(statement: Train, definition: CreateModel, sizes: Mapping[Any, int]) -> Model:
    """The model with what the training statement says about it. Raises ProgrammingError if nothing is minimized."""
    model = bind_model(definition, sizes, minimize=statement.minimize, weight=statement.weight)
    if model.loss is None:
        raise ProgrammingError(
            f'model "{statement.model}" has nothing to minimize',
            place=statement.model.place,
            hint="TRAIN ... MINIMIZE <aggregate expression>, or MINIMIZE in CREATE MODEL",
        )
    check_learnable(model, model.loss, statement.model.place)
    if statement.per and statement.on is None:
        place = statement.per[0].place
        raise ProgrammingError("PER needs rows", place=place, hint=f"TRAIN {statement.model} ON <table>")
    if statement.on is None and (model.inputs or model.targets):
        raise ProgrammingError("TRAIN needs rows", place=statement.place, hint=f"TRAIN {statement.model} ON <table>")
    if statement.on is not None and model.rows == UNIT and not (model.targets or model.skeleton):
        raise ProgrammingError("the model has no INPUT, so it reads no rows", place=statement.on.place)
    return model


def read_settings(statement: Train) -> Settings:
    """The solver, its options and the limits of a run."""
    solver = find_solver(statement.solver, statement.solver_place)
    options = read_options(solver, statement.options)
    if options["precision"] == BF16:
        from .blas import check_bf16

        check_bf16(next(o.value_place for o in statement.options if o.name.lower() == "precision"))
    epochs, steps = options["epochs"], options["steps"]
    until = None if statement.until is None else until_condition(statement.until, statement.validate is not None)
    open_ended = until is not None or statement.within_seconds is not None
    if epochs is None and steps is None and statement.within_seconds is None:
        epochs = solver.epochs if solver.needs or not open_ended else MAX_EPOCHS
    limits = Limits(epochs, steps, statement.within_seconds, options["patience"], until)
    if statement.sample and options["batch_size"] == ALL:
        hint = f"WITH {solver.name} (batch_size = 512)"
        raise ProgrammingError("SAMPLE is for batches of some of the rows", place=statement.sample_place, hint=hint)
    return Settings(
        solver, options, limits, statement.model.place, statement.sample, statement.sample_place,
        statement.memory, statement.memory_place,
    )  # fmt: skip


def until_condition(until: Expression, validates: bool) -> Callable[[Mapping[str, float]], bool]:
    """UNTIL as a function of what an epoch's row of the log holds."""
    counters = {name: Counter(name) for name in LOG_COUNTERS}
    node = bind_expression(until, counters)
    if not validates and counters["validation_loss"] in walk([node]):
        hint = "VALIDATE ON <table>, or VALIDATE 20 PERCENT"
        raise ProgrammingError("there is no validation_loss without VALIDATE", place=until.place, hint=hint)
    if node.type.element != BOOLEAN or node.type.shape:
        raise ProgrammingError("UNTIL needs a condition", place=until.place, hint="for example UNTIL loss < 0.1")
    return condition(node, list(counters.values()))


@record
class Planned:
    """The plan of a training run and how it came about: what EXPLAIN shows.

    ``runs`` says how many steps the run is expected to take, ``machine`` what the estimates were made for. ``phases``
    are the plans that were optimized, each with its steps and what it became: the loss as bound, and the loop.
    """

    loop: LoopPlan
    steps: tuple[Step, ...]
    runs: Runs
    machine: Machine
    training: Training
    alternatives: tuple[Alternative, ...] = ()
    notes: tuple[str, ...] = ()
    phases: tuple[tuple[Plan, tuple[Step, ...], Plan], ...] = ()


def plan_training(
    model: Model,
    settings: Settings,
    table_rows: int,
    train_count: int,
    *,
    subset: bool,
    known: Sequence[Column] = (),
    group_sizes: Sequence[int] | None = None,
    without: Collection[str] = (),
    streamed: bool = False,
    machine: Machine,
    optimizer: bool = True,
) -> Planned:
    """The loop over batches: the loss simplified, differentiated, updated, and optimized as one plan.

    The columns in ``known`` are 1 in every row that is trained on. With ``group_sizes``, the rows of every group of
    PER, there is a model for each group. The rules in ``without`` stay off; without ``optimizer`` all do that are not
    needed to run. With ``streamed`` the table is a block of rows, each of which is read once: nothing is kept for them.
    The plan is made for a ``machine``.
    """
    without = without if optimizer else optional_rules()
    assert model.loss is not None
    bound_plan = Plan({**model.columns, "loss": model.loss}, model.names).replaced(dict.fromkeys(known, one()))
    simplified = simplify(bound_plan, without, wanted=["loss"])
    if group_sizes is None:
        rows = rows_of_step(model, settings, simplified.plan, table_rows, train_count, subset)
    else:
        rows = rows_of_groups(model, settings, simplified.plan, table_rows, group_sizes)
    total = settings.limits.steps or (settings.limits.epochs or settings.solver.epochs) * rows.per_epoch
    o = settings.options
    rate = learning_rate(o.get("learning_rate", 1.0), o["schedule"], o["warmup_steps"], total, STEP)
    training = differentiated(model, settings, rows, rate)
    iterate = training.iterate
    outputs = {"loss": iterate.loss, "rate": rate, **{str(i): n for i, n in enumerate(iterate.updates)}}
    loop_plan = Plan(outputs, training.names)
    kept = CONSTANTS if streamed else room(settings, loop_plan)
    goal = Goal(machine, {Frequency.ONCE: 1, Frequency.STEP: total}, kept)
    optimized = optimize(loop_plan, without, goal=goal)
    best = list(optimized.plan.outputs.values())
    updates = {s: n for s, n in zip(iterate.states, best[2:], strict=True) if isinstance(s, State)}
    index, *beside = rows.indexes or (None,)
    loop = LoopPlan(
        best[0], best[1], updates, rows.table, rows.batch, index, training.spans, STEP, optimized.plan.names,
        tuple(beside), rows.per_epoch, rows.multiples,
    )  # fmt: skip
    if o["precision"] == BF16:
        from .blas import in_bf16

        loop = in_bf16(loop, settings.place)
    return Planned(
        loop, (*simplified.steps, *optimized.steps), goal.runs, goal.machine, training,
        (*settings.considered, *optimized.alternatives), optimized.notes,
        (
            (bound_plan, simplified.steps, simplified.plan),
            (loop_plan, optimized.steps, optimized.plan),
        ),
    )  # fmt: skip


def differentiated(model: Model, settings: Settings, rows: StepRows, rate: Node) -> Training:
    """The loop over the rows of a step: loss, gradient and update. Raises the planner's errors at the model's place."""
    o, solver = settings.options, settings.solver
    learnable = [p.node for p in model.parameters.values() if not p.frozen]
    try:
        return training_plan(
            rows.plan, learnable, solver.build(o), rate,
            solver=solver.name, epochs=settings.limits.epochs or 0, steps=rows.per_epoch,
            clip_norm=o["clip_norm"], skip_nan=o["on_nan"] == "skip",
            layout=rows.layout or (InDouble() if solver.needs else None),
        )  # fmt: skip
    except (TypeProblem, NotSupportedError) as problem:
        problem.at(settings.place)
        raise


def room(settings: Settings, plan: Plan) -> int | None:
    """The bytes that MEMORY leaves for values from before the loop, beside the columns, the states and what a step
    computes; None without MEMORY."""
    if settings.memory is None:
        return None
    nodes = list(plan.nodes())
    lasting = sum(n.nbytes for n in nodes if isinstance(n, (Column, Positions, State)))
    passing = max((n.nbytes for n in nodes if n.inputs and is_learned(n)), default=0)
    return max(0, settings.memory - lasting - 2 * passing)


@record
class StepRows:
    """The rows that a step reads, and the plan of the loss over them.

    ``indexes`` pick them from ``table`` anew at every step; none where every step reads the same. ``multiples`` are the
    row sets that grow with the batch. With ``layout`` the plan is still to be laid out by groups.
    """

    plan: Plan
    table: RowSet
    batch: RowSet
    indexes: tuple[Index, ...]
    per_epoch: int
    multiples: Mapping[RowSet, int] = field(default_factory=dict)
    layout: PerGroup | None = None


def rows_of_step(
    model: Model, settings: Settings, plan: Plan, table_rows: int, train_count: int, subset: bool
) -> StepRows:
    """Batches of the table, or the whole table at every step."""
    table = model.rows if model.skeleton or model.rows == UNIT else RowSet("table", table_rows)
    if (settings.full_batch and not subset) or model.rows == UNIT:
        plan, _ = over_batches(model, plan, table, None, settings)
        return StepRows(plan, table, table, (), 1)
    size = train_count if settings.full_batch else min(settings.options["batch_size"], train_count)
    index = Index(RowSet("batch", size), table)
    plan, multiples = over_batches(model, plan, table, index, settings)
    return StepRows(plan, table, index.rows, (index,), -(-train_count // size), multiples)


def over_batches(
    model: Model, plan: Plan, table: RowSet, index: Index | None, settings: Settings
) -> tuple[Plan, dict[RowSet, int]]:
    """The plan of the loss over the rows of a batch, and the row sets that grow with it."""
    if model.skeleton is None:
        batch = table if index is None else index.rows
        return plan.over({model.rows: batch}, batch_leaves(model, plan, table, index)), {}
    if index is None:
        return plan, {}
    seed = settings.seed
    part = Restriction(table, index, fixed=model.scalars, fan_out=settings.fan_out, step=STEP, seed=seed)
    loss = part.single(plan.outputs["loss"])
    if part.levels < len(settings.fan_out):
        found = f"{part.levels} GROUP BY{'s' if part.levels != 1 else ''} on the way to its rows"
        message = f"SAMPLE says how to sample {len(settings.fan_out)} GROUP BYs, and the model has {found}"
        raise ProgrammingError(message, place=settings.sample_place)
    return Plan({"loss": loss}, plan.renamed(part.done)), part.multiples


def rows_of_groups(
    model: Model, settings: Settings, plan: Plan, table_rows: int, group_sizes: Sequence[int]
) -> StepRows:
    """As many rows of every group, or all of them at every step."""
    table, width = RowSet("table", table_rows), settings.width(group_sizes)
    layout, indexes = group_layout(
        model, plan, table, group_sizes, width, in_batches=not settings.full_batch, place=settings.place
    )
    per_epoch = -(-max(group_sizes) // width)
    return StepRows(plan, table, layout.blocks.slots, indexes, per_epoch, layout=layout)


def check_learnable(model: Model, loss: Node, place: Place) -> None:
    """Training must be able to change the loss."""
    learnable = {p.node for p in model.parameters.values() if not p.frozen}
    if not learnable:
        declared = [p for p in model.parameters.values() if p.statistic is None]
        why = "all its parameters are FROZEN" if declared else "it has no parameters"
        raise ProgrammingError(f'there is nothing to train in model "{model.name}": {why}', place=place)
    if learnable.isdisjoint(walk([loss])):
        raise ProgrammingError(f'no parameter of model "{model.name}" reaches what is minimized', place=place)


def parameter_views(loop: LoopPlan) -> dict[Node, Node]:
    """Every learnable parameter as a view of the state in which it lies."""
    return {p: view_of(p, *span) for p, span in loop.spans.items()}
