"""EXPLAIN GRADIENT: the forward pass and the derivatives side by side, with their values where no data is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...autodiff.gradient import adjoints
from ...errors import ProgrammingError
from ...executor.results import Rows
from ...executor.run import evaluate
from ...explain.gradient import gradient_rows
from ...optimizer.stages import optimize, simplify
from ...parser.statements import ExplainGradient
from ...planner.binder import bind_model
from ...planner.model import Model
from ...planner.node import walk
from ...planner.ops import Column, Parameter
from ...planner.plan import Plan
from ...types import UNIT, shape_text
from ..core import Session, runs
from ..models import parameter_arrays
from ..rows import table_rows


@runs(ExplainGradient)
def explain_gradient(session: Session, statement: ExplainGradient) -> Rows:
    """The forward pass and the derivative by every node side by side, with values where no data is needed."""
    definition = session.models.definition(statement.model)
    version = session.models.version(statement.model)
    model = session.models.trained(statement.model)[0] if version else bind_model(definition)
    if model.loss is None:
        raise ProgrammingError(f'model "{statement.model}" has nothing to minimize', place=statement.model.place)
    names = {node: name for node, name in model.names.items() if node.inputs}
    loss_name = names.setdefault(model.loss, "loss")
    simplified = simplify(Plan({"loss": model.loss}, names))
    loss = simplified.plan.outputs["loss"]
    sources = [p.node for p in model.parameters.values() if not p.frozen]
    found = adjoints(loss, sources)
    plan = simplify(Plan({str(i): g for i, g in enumerate(found.values())}, simplified.plan.names)).plan
    derivatives = dict(zip(found, plan.outputs.values(), strict=True))
    rows = gradient_rows(loss, derivatives, simplified.plan.names, loss_name)
    forward, backward = shown_values(model, version, rows)
    return table_rows(
        session,
        {
            "node": [r.name for r in rows],
            "forward": [r.forward for r in rows],
            "value": forward,
            "derivative": [r.derivative for r in rows],
            "gradient": [r.gradient for r in rows],
            "gradient_value": backward,
            "read_again_by_gradient_of": [r.reused for r in rows],
        },
    )


def shown_values(model: Model, version: Any, rows: Sequence[Any]) -> tuple[list[str], list[str]]:
    """The values of the forward pass and of the derivatives; types where they depend on data that is not there."""
    has_data = any(isinstance(n, Column) for r in rows for n in walk([r.node, r.adjoint]))
    if has_data or not (model.has_values or version):
        types = [r.node.type for r in rows]
        texts = [f"{t.element}{shape_text(t.shape)}{'' if t.rows == UNIT else ' a row'}" for t in types]
        return texts, texts
    outputs = {f"f{i}": r.node for i, r in enumerate(rows)} | {f"g{i}": r.adjoint for i, r in enumerate(rows)}
    plan = optimize(Plan(outputs)).plan
    arrays = parameter_arrays(model, version)
    values = evaluate(plan, {n: arrays[n] for n in walk(plan.outputs.values()) if isinstance(n, Parameter)}, {})
    return [shown(values[f"f{i}"]) for i in range(len(rows))], [shown(values[f"g{i}"]) for i in range(len(rows))]


def shown(value: Any) -> str:
    """A number, or a tensor as a list."""
    return f"{value:g}" if isinstance(value, float) else str(value.tolist())
