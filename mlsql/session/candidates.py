"""TRAIN without WITH: what each solver that fits the loss would take, and the best of them under WITHIN and MEMORY."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from ..autodiff.degree import degrees
from ..autodiff.features import MOST_SCORES, numbers, scores_of
from ..autodiff.options import DEFAULT_SOLVER
from ..autodiff.updates import SOLVERS, Needs, Solver
from ..optimizer.cost import Machine, seconds
from ..optimizer.frequency import Frequency, frequencies
from ..optimizer.rule import Alternative
from ..optimizer.solver import DOUBLE_BYTES, Candidate, factor_seconds, gram_seconds, rank
from ..optimizer.stages import simplify
from ..parser.statements import Train
from ..planner.model import Model
from ..planner.node import walk
from ..planner.ops import Column, Parameter, Positions
from ..planner.plan import Plan
from ..record import record
from ..types import UNIT
from .choosing import is_free
from .curvature import MOST_WEIGHTS, unfit
from .training_plan import Settings, read_settings, rows_of_step

BACKWARD = 2  # the gradient costs about as much again, twice (Baur and Strassen, 1983)
BENT = "the loss is not convex, or has kinks"
RATE = "its learning rate would have to suit the data"
RISKS = {Needs.QUADRATIC: 1.0, Needs.CONVEX: 3.0, Needs.SMOOTH: 10.0, None: 10.0}  # of a longer way than expected
EVALUATIONS = {Needs.QUADRATIC: 4, Needs.CONVEX: 1.5}  # of loss and gradient in an iteration
ALL_AT_ONCE = "it reads all rows at every step, and they do not fit into MEMORY"
NEAREST = "over all rows it stops in the nearest minimum, while noisy steps over batches find better ones"


def chosen(
    statement: Train,
    settings: Settings,
    model: Model,
    learnable: Collection[Parameter],
    table_rows: int,
    train_count: int,
    machine: Callable[[], Machine],
) -> Settings:
    """The settings with the solver that the planner chooses for the loss of a model, and why it is that one."""
    assert model.loss is not None
    simple = simplify(Plan({"loss": model.loss}, model.names)).plan
    whys = {needs: unfit(simple.outputs["loss"], learnable, needs) for needs in Needs}
    solvers = sorted((s for s in SOLVERS.values() if s.expected is not None), key=lambda s: s.expected or 0)
    if whys[Needs.QUADRATIC] is not None and whys[Needs.CONVEX] is not None:
        return replace(settings, considered=rejected(solvers, whys), note=f"{DEFAULT_SOLVER} was chosen: {BENT}")
    facts = facts_of(model, simple, learnable, settings, table_rows, train_count, whys, machine())
    ranking = rank([candidate(s, facts) for s in solvers], settings.limits.seconds, settings.memory)
    named = read_settings(replace(statement, solver=ranking.chosen.name))
    note = f"{named.solver.name} was chosen: {ranking.reason}"
    return replace(named, considered=ranking.others, note=note)


def decided_for_blocks(statement: Train, settings: Settings) -> Settings:
    """The settings of a run whose rows do not all lie in memory: a solver that reads all of them is none for it."""
    if not is_free(statement):
        return settings
    others = [s.name for s in SOLVERS.values() if s.expected is not None and s.name != DEFAULT_SOLVER]
    considered = tuple(Alternative("solver", name, f"WITH {name}", None, None, ALL_AT_ONCE) for name in others)
    note = f"{DEFAULT_SOLVER} was chosen: the others read all rows at once"
    return replace(settings, considered=considered, note=note)


def rejected(solvers: Sequence[Solver], whys: Mapping[Needs, str | None]) -> tuple[Alternative, ...]:
    """The solvers that are not chosen for a loss that is not convex, none of which is worth an estimate."""
    found = []
    for s in solvers:
        if s.name != DEFAULT_SOLVER:
            why = whys[s.needs] if s.needs is not None else None
            reason = f"it needs {s.needs.value}: {why}" if s.needs is not None and why else NEAREST
            reason = reason if s.full_batch else RATE
            found.append(Alternative("solver", s.name, f"WITH {s.name}", None, None, reason))
    return tuple(found)


@record
class Facts:
    """What the choice stands on.

    ``whole`` are the seconds of the loss and its gradient over all rows, ``batch`` over a batch of ``batch_rows``.
    ``data`` are the bytes that are read, ``beside`` the bytes of what a step computes of all rows, ``beside_batch`` of
    a batch. ``unfit`` says why a loss is none for what a solver needs.
    """

    rows: int
    weights: int
    scores: int | None  # None: the Hessian has no closed form
    quadratic: bool
    whole: float
    batch: float
    batch_rows: int
    data: int
    beside: int
    beside_batch: int
    unfit: Mapping[Needs, str | None]
    machine: Machine


def facts_of(
    model: Model,
    simple: Plan,
    learnable: Collection[Parameter],
    settings: Settings,
    table_rows: int,
    count: int,
    whys: Mapping[Needs, str | None],
    machine: Machine,
) -> Facts:
    """The facts of a loss over so many rows."""
    loss = simple.outputs["loss"]
    full = replace(settings, options={**settings.options, "batch_size": "ALL"})
    whole = rows_of_step(model, full, simple, table_rows, count, False)
    batch = rows_of_step(model, settings, simple, table_rows, count, True)
    leaves = [n for n in walk([whole.plan.outputs["loss"]]) if isinstance(n, (Column, Positions))]
    scores = scores_of(loss, learnable)
    width = sum(numbers(s) for s in scores)
    closed = model.skeleton is None and 0 < width <= MOST_SCORES
    return Facts(
        rows=count,
        weights=sum(p.type.entry_size or 0 for p in learnable),
        scores=width if closed else None,
        quadratic=degrees([loss], learnable)[loss] == 2,
        whole=step_seconds(whole.plan, learnable, machine),
        batch=step_seconds(batch.plan, learnable, machine),
        batch_rows=batch.batch.rows or count,
        data=sum(n.nbytes for n in leaves),
        beside=bytes_beside(whole.plan),
        beside_batch=bytes_beside(batch.plan),
        unfit=whys,
        machine=machine,
    )


def step_seconds(plan: Plan, learnable: Collection[Parameter], machine: Machine) -> float:
    """The time of a loss and its gradient: what no parameter reaches runs once, and counts as nothing."""
    nodes = list(walk([plan.outputs["loss"]]))
    learned = degrees(nodes, learnable)
    moving = frequencies(nodes)
    forward = sum(seconds(n, machine) for n in nodes if learned[n] != 0 or moving[n] != Frequency.ONCE)
    backward = BACKWARD * sum(seconds(n, machine) for n in nodes if learned[n] != 0)
    return forward + backward


def bytes_beside(plan: Plan) -> int:
    """The bytes of the values of a step, of which no more than a few are there at a time, and of what is kept."""
    nodes = [n for n in walk([plan.outputs["loss"]]) if n.type.rows != UNIT and not isinstance(n, (Column, Positions))]
    kept = [n for n in nodes if not n.is_view]
    return sum(n.nbytes for n in kept)


def candidate(solver: Solver, facts: Facts) -> Candidate:
    """What a solver would take for a loss."""
    assert solver.expected is not None
    why, risk = misfit(solver, facts), RISKS[solver.needs]
    if not solver.full_batch:
        epochs = solver.epochs * facts.rows / facts.batch_rows
        memory = facts.data + facts.beside_batch + 4 * facts.weights * DOUBLE_BYTES
        return Candidate(solver.name, why, 0.0, facts.batch, max(solver.expected, epochs), memory, risk)
    once, step = 0.0, facts.whole
    memory = facts.data + facts.beside + 4 * facts.weights * DOUBLE_BYTES
    if why is not None and why != RATE:
        return Candidate(solver.name, why, 0.0, 0.0, 0, memory)
    if solver.needs is not None:
        once, step = 3 * facts.data / facts.machine.bandwidth, 2 * step  # all in DOUBLE
        memory += 2 * facts.data + facts.beside
    if solver.needs in (Needs.QUADRATIC, Needs.CONVEX):
        hessian = facts.weights * step
        if facts.scores is not None:
            hessian = min(hessian, gram_seconds(facts.rows, facts.weights, facts.scores, facts.machine))
        step = EVALUATIONS[solver.needs] * step + hessian + factor_seconds(facts.weights, facts.machine)
        memory += 3 * facts.weights**2 * DOUBLE_BYTES
    elif facts.quadratic:
        gram = gram_seconds(facts.rows, facts.weights, 1, facts.machine)
        small = facts.machine.call * 20 + facts.weights**2 * DOUBLE_BYTES / facts.machine.gemv
        if gram + small * solver.expected < step * solver.expected:
            once, step = once + gram, small
    return Candidate(solver.name, why, once, step, solver.expected, memory, risk)


def misfit(solver: Solver, facts: Facts) -> str | None:
    """Why a solver is not for a loss; None: it is."""
    if solver.needs is not None and facts.unfit[solver.needs] is not None:
        return f"it needs {solver.needs.value}: {facts.unfit[solver.needs]}"
    if solver.needs in (Needs.QUADRATIC, Needs.CONVEX) and facts.weights > MOST_WEIGHTS:
        return f"it keeps a matrix of second derivatives, and {facts.weights:,} parameters are too many for one"
    return None if solver.needs is not None or solver.name == DEFAULT_SOLVER else RATE
