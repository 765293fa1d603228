"""The example of a rule as plans: its model over tables of made-up sizes, over all rows and over batches of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..autodiff.gradient import gradients
from ..errors import InternalError
from ..optimizer.rewriter import Rewriter
from ..optimizer.rule import Rule, Step
from ..optimizer.search import considered
from ..optimizer.stages import STAGES, optimize, simplify
from ..parser import parse
from ..parser.statements import CreateModel
from ..planner.binder import bind_model
from ..planner.model import Model
from ..planner.node import Node
from ..planner.ops import Column, Index, Parameter, Take, constant
from ..planner.plan import Plan
from ..planner.restrict import Restriction
from ..planner.skeleton import Join, Union, rows_symbol
from ..types import RowSet, Symbol

TABLE, BATCH = RowSet("table", 7), RowSet("batch", 4)
# How many rows the relations of the examples have: a flight has one plane, and few nodes are labelled.
COUNTS = {"nodes": 6, "edges": 8, "labels": 4, "links": 8, "flights": 8, "planes": 5}


def bound(text: str, sizes: Mapping[Symbol, int] | None = None) -> Model:
    """The model of one CREATE MODEL."""
    (statement,) = parse(text)
    if not isinstance(statement, CreateModel):
        raise InternalError(f"the example of a rule is a CREATE MODEL, not {text}")
    return bind_model(statement, sizes)


def bind_rows(text: str, counts: Mapping[str, int], sizes: Mapping[Symbol, int] | None = None) -> Model:
    """A model over relations of so many rows: a join has as many as its first side, a GROUP BY three groups."""
    skeleton = bound(text).skeleton
    if skeleton is None:
        return bound(text, sizes)
    rows = {name: counts.get(name, 5) for name in skeleton.relations}
    for step in skeleton.steps:
        match step:
            case Join(sides=(first, *_)):
                rows[step.rows.name] = rows[first.over.name]
            case Union(parts=parts):
                rows[step.rows.name] = sum(rows[p.name] for p in parts)
            case _:
                rows[step.rows.name] = 3
    return bound(text, {**(sizes or {}), **{rows_symbol(name): count for name, count in rows.items()}})


def moved(model: Model, plan: Plan, rows: RowSet, index: Index | None = None) -> Plan:
    """A plan of the model's columns as one of those of a table, taken by the index of a batch where there is one."""
    if index is None:
        return plan.over({model.rows: rows}, {})
    columns = [n for n in plan.nodes() if isinstance(n, Column)]
    return plan.over(
        {model.rows: index.rows}, {n: Take(Column(n.name, rows, n.element, n.shape), index) for n in columns}
    )


def batched(loss: Node, model: Model, count: int, fan_out: Sequence[int] = ()) -> Node:
    """The loss of a model over relations for a batch of so many rows of its select."""
    index = Index(RowSet("batch", count), model.rows)
    step = constant(1.0) if fan_out else None
    return Restriction(model.rows, index, fixed=model.scalars, fan_out=fan_out, step=step).single(loss)


def plans(text: str) -> Iterator[Plan]:
    """The loss of a model and the columns of its select: over all rows, and over a batch of them (the loss alone, where
    there are several relations)."""
    model = bind_rows(text, COUNTS)
    if model.loss is None:
        raise InternalError(f"the example of a rule minimizes something, unlike {text}")
    plan = Plan({**model.columns, "loss": model.loss}, model.names)
    if model.skeleton is None:
        for index in (None, Index(BATCH, TABLE)):
            yield moved(model, plan, TABLE, index)
    else:
        yield plan
        yield Plan({"loss": batched(model.loss, model, 4)}, model.names)


def firing(rule: Rule) -> tuple[Step, Mapping[Node, str]] | None:
    """What the rule first does on its example, and the names of the nodes there; None if it does nothing, or is no rule
    over plans.

    The example goes the whole way: simplified, differentiated by every parameter, searched, optimized.
    """
    if rule.stage not in dict(STAGES):
        return None
    for plan in plans(rule.example):
        simple = simplify(plan, wanted=["loss"])
        loss = simple.plan.outputs["loss"]
        sources = [n for n in simple.plan.nodes() if isinstance(n, Parameter)]
        slopes = {f"d {p.name}": g for p, g in zip(sources, gradients(loss, sources), strict=True)}
        names = {**simple.plan.names, **plan.names}
        best = simplify(Plan({"loss": loss, **slopes}, names))
        search = considered(best.plan, Rewriter("explore"), Rewriter("simplify"))
        every = (*best.steps, *search, *optimize(best.plan).steps)
        for steps, known in ((simple.steps, plan.names), (every, names)):
            step = next((s for s in steps if s.rule is rule), None)
            if step is not None:
                return step, known
    return None
