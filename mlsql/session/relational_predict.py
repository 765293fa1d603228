"""PREDICT of a model over several relations: the rows of its select as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ..errors import Place, ProgrammingError
from ..executor.catalog import StoredVersion
from ..executor.clock import Clock
from ..executor.device import Array
from ..executor.load import to_arrow
from ..executor.positions import no_rows, null_where_not
from ..executor.run import evaluate
from ..executor.vocabulary import typed
from ..optimizer.stages import optimize
from ..parser.statements import Evaluate, Name, PredictCall, Query
from ..planner.binder import bind_model
from ..planner.model import Model
from ..planner.node import Node, walk
from ..planner.ops import Column, Parameter, Positions
from ..planner.plan import Plan
from .core import Session
from .models import parameter_arrays, sizes_of
from .relations import RelationRows, Wanted, assigned, read_relations

FLAG = "\0there "  # the flag of an output, among the outputs


def predict_relations(
    session: Session, call: PredictCall, model: Model, version: StoredVersion | None, given: Sequence[Query]
) -> pa.Table:
    """All rows of the model's select, with its columns in their order."""

    def wanted(fitted: Model) -> dict[str, Node]:
        return {name: node for name, node in fitted.columns.items() if name not in model.keys}

    found = computed(session, call.model, model, version, given, call.place, wanted, keys=True)
    return pa.table({name: found.keys[name] if name in found.keys else found.column(name) for name in model.outputs})


def evaluated_relations(
    session: Session,
    statement: Evaluate,
    model: Model,
    version: StoredVersion | None,
    outputs: Callable[[Model], Mapping[str, Node]],
) -> pa.Table:
    """The rows with a target and a prediction: ``actual``, ``predicted``, ``probability`` (NULL if there is none)."""
    [target] = model.targets

    def wanted(fitted: Model) -> dict[str, Node]:
        if target not in fitted.labels:
            raise ProgrammingError(
                f'the rows of the select do not come from one row of "{fitted.targets[target].rows}" each',
                place=statement.model.place,
            )
        return {"actual": fitted.labels[target], **outputs(fitted)}

    from pyarrow import compute

    given = (statement.on, *statement.others)
    found = computed(session, statement.model, model, version, given, statement.place, wanted)
    names = ("actual", "predicted", "probability")
    columns = {name: found.column(name) for name in names if name in found.values}
    columns.setdefault("probability", pa.nulls(found.rows))
    predicted = found.nodes["predicted"].type.element
    if model.targets[target].element.kind == "boolean" and predicted.kind == "float":
        columns["predicted"] = compute.greater_equal(columns["predicted"], 0.5)
    table = pa.table(columns)
    return table.filter(compute.and_(table["actual"].is_valid(), table["predicted"].is_valid()))


@dataclass
class Predicted:
    """Values computed over relations: by name their nodes, their numbers and where they are not NULL.

    ``keys`` are the outputs of the model that are no numbers; ``classes`` the values of class labels.
    """

    rows: int
    nodes: Mapping[str, Node]
    values: Mapping[str, Any]
    there: Mapping[str, Any]
    keys: Mapping[str, pa.ChunkedArray]
    classes: Mapping[str, pa.Array]

    def column(self, name: str) -> pa.Array:
        """A value as a column of Arrow."""
        node = self.nodes[name]
        column = to_arrow(self.values[name], node.type, self.rows, self.classes.get(node.type.element.column or ""))
        return null_where_not(column, self.there[name]) if name in self.there else column


def computed(
    session: Session,
    name: Name,
    model: Model,
    version: StoredVersion | None,
    given: Sequence[Query],
    place: Place,
    wanted: Callable[[Model], Mapping[str, Node]],
    *,
    keys: bool = False,
) -> Predicted:
    """Some values of a model over its relations. ``wanted`` picks them, once for what has to be read and once more for
    the model as it is bound to the rows that were read."""
    definition = session.models.definition(name)
    sources = assigned(model, given, place)
    told = sizes_of(version) if version else {}
    picked = Wanted(
        lambda sizes: bind_model(definition, {**sizes, **told}), lambda m: list(with_flags(m, wanted(m)).values())
    )
    read = read_relations(session, model, sources, picked, version=version, keys=keys, may_be_empty=True)
    fitted = bind_model(definition, read.facts | told)
    nodes = wanted(fitted)
    labels = {n.type.element.column for n in nodes.values()} & read.classes.keys()
    classes = {c: typed(session.storage, read.classes[c]) for c in labels if c}
    if fitted.rows.rows == 0:
        empty = {n: no_rows(node.type) for n, node in nodes.items()}
        return Predicted(0, nodes, empty, {}, read.keys, classes)
    plan = optimize(Plan(with_flags(fitted, nodes), fitted.names), session.without).plan
    if session.clock is not None:
        session.clock.plans.append((f"model {model.name}: all rows at once", plan))
    values = evaluate_over(plan, read, parameter_arrays(fitted, version), session.clock)
    there = {n: values[FLAG + n] for n in nodes if FLAG + n in values}
    return Predicted(fitted.rows.rows or 1, nodes, values, there, read.keys, classes)


def with_flags(model: Model, nodes: Mapping[str, Node]) -> dict[str, Node]:
    """The nodes, and the flags of those that may be NULL."""
    flags = {FLAG + n: f for n, node in nodes.items() if (f := model.nulls.flag(node)) is not None}
    return dict(nodes) | flags


def evaluate_over(
    plan: Plan, read: RelationRows, parameters: Mapping[Node, Array], clock: Clock | None = None
) -> dict[str, Any]:
    """The outputs of a plan, given what was read."""
    nodes = list(walk(plan.outputs.values()))
    arrays: dict[Node, Array] = {n: read.arrays[n.name] for n in nodes if isinstance(n, (Column, Positions))}
    arrays |= {n: parameters[n] for n in nodes if isinstance(n, Parameter)}
    return evaluate(plan, arrays, {r: r.rows or 1 for n in nodes for r in n.row_sets()}, clock)
