"""EXPLAIN of what predicts: CREATE MODEL, EVALUATE, queries with PREDICT."""

from __future__ import annotations

from collections.abc import Collection

from ...executor.codegen import Program, generate
from ...executor.compiled.forward import Forward, forward
from ...executor.predict import CHUNK_ROWS
from ...executor.run import leaves
from ...explain.build import Described
from ...explain.machine import facts
from ...explain.steps import alternative_views
from ...explain.view import Lines, PlanView
from ...figures import number
from ...optimizer.cost import Machine, total
from ...optimizer.stages import Optimized, optimize
from ...parser.statements import CreateModel, Evaluate, SelectSql, Statement
from ...planner.binder import bind_model
from ...planner.model import Model
from ...planner.node import Node
from ...planner.plan import Plan
from ...record import record
from ...types import UNIT, RowSet
from ..core import Session
from ..create import with_declared_inputs
from ..query.functions import ALL_OUTPUTS
from ..query.lowering import asked_for
from .data import data_lines, keys_lines
from .history import History


@record
class Applied:
    """A model that a statement applies: its logical plan, under a title. A model that is only created has no rows."""

    title: str
    logical: Plan
    model: Model
    has_rows: bool = True

    def optimized(self, without: Collection[str] = ()) -> Optimized:
        """The plan that runs, and how it came about."""
        return optimize(self.logical, without)

    def by_chunk(self, plan: Plan) -> tuple[Plan, str]:
        """The plan over as many rows as it is run on at a time, and how many that is in words."""
        if self.model.rows == UNIT or self.model.skeleton is not None:
            return plan, "all rows at once" if self.model.skeleton else "once"
        if not self.has_rows:
            return plan, "a row"
        part = RowSet(self.model.rows.name, CHUNK_ROWS)
        return plan.over({self.model.rows: part}, {}), f"{CHUNK_ROWS} rows at a time"


def applied_models(session: Session, statement: Statement) -> list[Applied]:
    """Every model that a statement applies."""
    if isinstance(statement, CreateModel):
        model = bind_model(with_declared_inputs(session, statement))
        outputs = dict(model.columns) | ({"loss": model.loss} if model.loss is not None else {})
        return [Applied(f"model {statement.model}", Plan(outputs, model.names), model, has_rows=False)]
    if isinstance(statement, Evaluate):
        model, _ = session.models.trained(statement.model, statement.version)
        plan = Plan(model.columns, model.names).keep([model.prediction])
        return [Applied(f"EVALUATE {statement.model}", plan, model)]
    found = []
    for call in statement.predicts if isinstance(statement, SelectSql) else ():
        model, _ = session.models.trained(call.model, call.version)
        output = asked_for(call, model)
        wanted = list(model.columns) if output == ALL_OUTPUTS else [output]
        plan = Plan(model.columns, model.names).keep(wanted)
        found.append(Applied(f"PREDICT {call.model}", plan, model))
    return found


def forward_view(applied: Applied, optimized: Optimized, machine: Machine) -> PlanView:
    """The view of a forward plan, for as many rows as are computed at a time."""
    plan = optimized.plan
    sized, pace = applied.by_chunk(plan)
    described = Described(sized.names, machine)
    roots = described.roots(sized.outputs)
    operators = tuple(described.operators.values())
    outputs = list(sized.outputs.values())
    known = all(o.seconds is not None for o in operators)
    return PlanView(
        title=f"{applied.title}: {pace}",
        top="",
        roots=roots,
        operators=operators,
        seconds=total(outputs, machine) if known else None,
        machine=facts(machine) if known else (),
        above=keys_lines(applied.model),
        below=data_lines(applied.model, list(plan.outputs.values())),
        alternatives=alternative_views(optimized.alternatives, plan.names),
        notes=optimized.notes,
    )


def forward_history(applied: Applied, optimized: Optimized, machine: Machine) -> History:
    """How a forward plan came about."""
    return History(
        [(applied.logical, optimized.steps, optimized.plan)],
        {**optimized.plan.names, **applied.logical.names},
        machine,
        list(optimized.plan.outputs.values()),
        lambda rule: list(applied.optimized([rule]).plan.outputs.values()),
    )


def logical_forward(applied: Applied) -> PlanView:
    """The plan as it was written."""
    described = Described(applied.logical.names)
    roots = described.roots(applied.logical.outputs)
    return PlanView(applied.title, "", roots, tuple(described.operators.values()), None)


def forward_program(applied: Applied, plan: Plan, compiles: bool) -> tuple[Program | Forward, str]:
    """The code of a forward plan, and for how many rows it is; compiled code if it may be and can be."""
    if compiles and applied.has_rows and applied.model.rows != UNIT and applied.model.skeleton is None:
        module = forward(plan, applied.model.rows)
        if isinstance(module, Forward):
            return module, f"{module.tile} rows at a time"
    sized, pace = applied.by_chunk(plan)
    nodes: list[Node] = list(sized.outputs.values())
    return generate(nodes, names=sized.names, varying=leaves(nodes)), pace


def forward_lines(applied: Applied, plan: Plan, side: str, compiles: bool) -> list[str]:
    """The code of a forward plan, or its arena."""
    program, pace = forward_program(applied, plan, compiles)
    if side == "CODE":
        return program.source.rstrip().split("\n")
    rows = pace if applied.model.skeleton is None else "a row of each row set"
    return [f"arena of {number(program.arena_bytes)} bytes for {rows}"]


def duckdb_lines(session: Session, statement: SelectSql, text: str) -> Lines:
    """DuckDB's own EXPLAIN of the statement, given its text with the models as functions."""
    rows = session.storage.rows(f"EXPLAIN {text}", statement.values)
    lines = [line for row in rows for line in str(row[-1]).rstrip().split("\n")]
    return Lines("DuckDB's plan, in which each model is a function", tuple(lines))
