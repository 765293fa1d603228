"""EXPLAIN of a statement: which view of which plan, and its rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from ...errors import NotSupportedError
from ...executor.arrow import from_list
from ...executor.results import Rows
from ...explain.formats import rendered
from ...explain.steps import (
    ALTERNATIVE_COLUMNS,
    FIGURES,
    STEP_COLUMNS,
    alternative_views,
    columns_of,
    query_step_views,
)
from ...explain.view import PlanView
from ...optimizer.cost import Machine
from ...optimizer.rule import RULES
from ...parser.statements import Explain, SelectSql, Train
from ..compiling import compilation
from ..core import Session, runs
from ..machine import run_seconds
from ..query.plan import query_plan
from ..rows import lines_rows, table_rows
from .analyze import analyze_forward, analyze_train
from .forward import (
    Applied,
    applied_models,
    duckdb_lines,
    forward_history,
    forward_lines,
    forward_view,
    logical_forward,
)
from .history import noted, with_history, worth
from .options import Options, read_options
from .train import logical_train, memory_rows, planning, train_history, train_view


@runs(Explain)
def explain(session: Session, statement: Explain) -> Rows:
    """The plan of a statement as rows; the options say which side of it to show, and how."""
    options = read_options(statement)
    inner = statement.statement
    if isinstance(inner, Train):
        views = train_rows(session, inner, options)
    else:
        models = applied_models(session, inner)
        if not models:
            raise NotSupportedError("there is no plan to explain in this statement", place=statement.place)
        views = forward_rows(session, statement, models, options)
    return views if isinstance(views, Rows) else view_rows(session, views, options)


def train_rows(session: Session, statement: Train, options: Options) -> Rows | Sequence[PlanView]:
    """The view of a training run, or the rows of what is no view."""
    if options.side == "LOGICAL":
        return [logical_train(session, statement)]
    if options.analyze:
        return [analyze_train(session, statement, options)]
    plans = planning(session, statement)
    planned = plans.plan(options.without)
    made = compilation(session, planned, plans.settings)
    if options.side == "CODE":
        source = planned.loop.generated()[0].source if made.module is None else made.module.source
        return lines_rows(session, source.rstrip().split("\n"))
    if options.side == "MEMORY":
        return memory_rows(session, planned.loop, made.module)
    view = train_view(statement, plans.model, plans.settings, planned, made)
    if options.without:
        view = noted(view, worth(options.without, view.seconds, run_seconds(plans.plan(())), "estimated"))
    return [with_history(view, train_history(plans.model, planned, plans.plan), options)]


def forward_rows(
    session: Session, statement: Explain, models: Sequence[Applied], options: Options
) -> Rows | Sequence[PlanView]:
    """The views of models that predict, or the rows of what is no view."""
    if options.side == "LOGICAL":
        return [logical_forward(m) for m in models]
    if options.analyze:
        return analyze_forward(session, statement, options)
    if options.side in ("CODE", "MEMORY"):
        lines: list[str] = []
        for m in models:
            plan = m.optimized(options.without).plan
            lines += [m.title, *forward_lines(m, plan, options.side, session.compile == "always")]
        return lines_rows(session, lines)
    views = [model_view(m, options, session.machine()) for m in models]
    if isinstance(statement.statement, SelectSql):
        text, steps, lost = query_plan(session, statement.statement, options.without)
        below = (*views[-1].below, duckdb_lines(session, statement.statement, text))
        views[-1] = replace(views[-1], below=below)
        for note in query_worth(session, statement.statement, options.without):
            views[-1] = noted(views[-1], note)
        if options.format == "text":  # the graph of a page has no place for a text
            alternatives = (*alternative_views(lost, {}), *views[0].alternatives)
            views[0] = replace(views[0], steps=(*query_step_views(steps), *views[0].steps), alternatives=alternatives)
    return views


def query_worth(session: Session, statement: SelectSql, without: Collection[str]) -> Iterator[str]:
    """What rules about the query are worth that are left out, each by itself."""
    if without:
        for step in query_plan(session, statement)[1]:
            if step.rule.name in without:
                yield worth([step.rule.name], step.cost_before, step.cost_after, "estimated")


def model_view(applied: Applied, options: Options, machine: Machine) -> PlanView:
    """The view of one model that predicts."""
    optimized = applied.optimized(options.without)
    view = forward_view(applied, optimized, machine)
    rules = [name for name in options.without if name in RULES]
    if rules:
        best = forward_view(applied, applied.optimized(), machine)
        view = noted(view, worth(rules, view.seconds, best.seconds, "estimated"))
    return with_history(view, forward_history(applied, optimized, machine), options)


def view_rows(session: Session, views: Sequence[PlanView], options: Options) -> Rows:
    """Views as rows: a table of steps or alternatives, lines of text, or one row in another format."""
    if options.format == "text" and options.side == "STEPS":
        return typed_rows(session, columns_of((s for v in views for s in v.steps), STEP_COLUMNS))
    if options.format == "text" and options.side == "ALTERNATIVES":
        return typed_rows(session, columns_of((a for v in views for a in v.alternatives), ALTERNATIVE_COLUMNS))
    text = rendered(views, options.format, options.side)
    if options.format == "text":
        return lines_rows(session, text.split("\n"))
    return table_rows(session, {options.format: [text]})


def typed_rows(session: Session, columns: Mapping[str, Sequence[Any]]) -> Rows:
    """Rows whose columns have their types even where all is unknown, or where there are no rows."""
    types = {name: pa.float64() if name in FIGURES else pa.string() for name in columns}
    return table_rows(session, {name: from_list(values, types[name]) for name, values in columns.items()})
