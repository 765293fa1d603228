"""EXPLAIN ANALYZE: the statement is run with a clock behind every operator.

As in PostgreSQL it really runs: TRAIN stores its version. A step is run before the clock starts, since the time of
compiling kernels is not that of running them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace

from ...errors import NotSupportedError
from ...executor.clock import Clock
from ...executor.train import Diverged, Limits
from ...explain.build import Described
from ...explain.machine import facts
from ...explain.view import Lines, PlanView
from ...optimizer.cost import Machine
from ...parser.statements import CreateModel, Evaluate, Explain, SelectSql, Train
from ..compiling import Compilation
from ..core import Session
from ..evaluate import evaluation_sql
from ..query.plan import rewritten
from ..train import Prepared, prepare, run, stored, trainer_of
from .history import noted, with_history, worth
from .options import Options
from .train import train_history, train_view

INTERPRETED = Compilation(None, False, "interpreted, so that every operator can be timed")


def analyze_train(session: Session, statement: Train, options: Options) -> PlanView:
    """Train, and store the version. Rules that are left out are left out of a second run, of which nothing is kept."""
    prepared = prepare(session, statement)
    if not options.without:
        return trained_view(session, statement, prepared, options, keep=True)
    other = prepare(session, statement, options.without)
    view = trained_view(session, statement, other, options, keep=False)
    best = trained_view(session, statement, prepared, options, keep=True)
    view = noted(view, worth(options.without, view.seconds, best.seconds, "estimated"))
    return noted(view, worth(options.without, view.actual_seconds, best.actual_seconds, "measured"))


def trained_view(session: Session, statement: Train, prepared: Prepared, options: Options, *, keep: bool) -> PlanView:
    """Run a prepared training and show what each operator took; with ``keep`` the result becomes a version."""
    with contextlib.suppress(Diverged):  # if the first step does, the run itself tells
        trainer_of(session, prepared, clock=Clock()).run(Limits(steps=1))
    clock = Clock()
    if keep:
        outcome = run(session, statement, prepared, clock)
        stored(session, statement, prepared, outcome)
    else:
        outcome = trainer_of(session, prepared, clock=clock).run(prepared.settings.limits)
    measured = clock.measured()
    view = train_view(statement, prepared.model, prepared.settings, prepared.planned, INTERPRETED, measured)
    history = train_history(prepared.model, prepared.planned, lambda without: prepared.plan(without=without))
    view = replace(view, actual_seconds=outcome.seconds)
    ended = f"{outcome.steps} steps over {outcome.rows} rows; stopped because of {outcome.stopped_because}"
    view = noted(view, ended)
    return with_history(view, history, options, measured)


def analyze_forward(session: Session, statement: Explain, options: Options) -> Sequence[PlanView]:
    """Run a query or EVALUATE; a view for every model that it ran, and what DuckDB says it took."""
    inner = statement.statement
    if isinstance(inner, CreateModel):
        hint = "EXPLAIN CREATE MODEL shows its plan"
        raise NotSupportedError("CREATE MODEL runs nothing that could be measured", place=statement.place, hint=hint)
    assert isinstance(inner, (SelectSql, Evaluate))
    views, seconds = measured_views(session, inner, options.without)
    if options.without:
        _, best = measured_views(session, inner, ())
        views[-1] = noted(views[-1], worth(options.without, seconds, best, "measured"))
    return views


def measured_views(
    session: Session, statement: SelectSql | Evaluate, without: Sequence[str]
) -> tuple[list[PlanView], float]:
    """The views of all models that a statement ran, and how long all of it took."""
    clock = Clock()
    with session.observed(clock, without):
        if isinstance(statement, Evaluate):
            text, values = evaluation_sql(session, statement)
        else:
            text, values = rewritten(session, statement), statement.values
        start = time.perf_counter()
        rows = session.storage.rows(f"EXPLAIN ANALYZE {text}", values)
        seconds = time.perf_counter() - start
    lines = tuple(line for row in rows for line in str(row[-1]).rstrip().split("\n"))
    views = clock_views(clock, seconds, session.machine())
    if isinstance(statement, SelectSql):  # the plan of EVALUATE is that of its metrics
        views[-1] = replace(views[-1], below=(Lines("DuckDB's plan, in which each model is a function", lines),))
    return views, seconds


def clock_views(clock: Clock, seconds: float, machine: Machine) -> list[PlanView]:
    """A view a plan that ran, each operator with what was measured of it."""
    measured = clock.measured()
    views = []
    for title, plan in clock.plans:
        described = Described(plan.names, machine, measured=measured)
        roots = described.roots(plan.outputs)
        operators = tuple(
            o if o.actual is None else replace(o, runs=o.actual.runs) for o in described.operators.values()
        )
        if any(o.actual for o in operators):
            estimate = sum(o.total_seconds or 0.0 for o in operators)
            views.append(
                PlanView(title, "", roots, operators, estimate, machine=facts(machine), actual_seconds=seconds)
            )
    return views or [PlanView("no model was run", "", (), (), None, actual_seconds=seconds)]
