"""PREDICT of a model over several relations: the rows of its select as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ..executor.catalog import StoredVersion
from ..executor.dataset import class_values
from ..executor.device import Array
from ..executor.load import to_arrow
from ..executor.run import evaluate
from ..optimizer.stages import optimize
from ..parser.statements import Name, PredictCall, Query
from ..planner.binder import bind_model
from ..planner.model import Model
from ..planner.node import Node, walk
from ..planner.ops import Column, Parameter, Positions
from ..planner.plan import Plan
from .core import Session
from .models import parameter_arrays, sizes_of
from .relations import assigned, read_relations

FLAG = "\0there "  # the flag of an output, among the outputs


def predict_relations(
    session: Session, call: PredictCall, model: Model, version: StoredVersion | None, given: Sequence[Query]
) -> pa.Table:
    """All rows of the model's select, with its columns in their order."""
    assert model.skeleton is not None
    sources = assigned(model, model.skeleton, given, call.place)
    found = computed(session, call.model, model, version, sources)
    columns: dict[str, Any] = {}
    for name in found.model.outputs:
        columns[name] = found.keys[name] if name in found.keys else as_column(session, found, version, name)
    return pa.table(columns)


@dataclass
class Predicted:
    """The model bound to what was read, the values of its outputs and flags by name, and the outputs that are keys."""

    model: Model
    values: Mapping[str, Any]
    keys: Mapping[str, pa.ChunkedArray]


def computed(
    session: Session,
    name: Name,
    model: Model,
    version: StoredVersion | None,
    sources: Mapping[str, Query],
) -> Predicted:
    """The model's outputs over its relations, by name, and their flags."""
    roots = [*model.columns.values(), *model.flags.values()]
    read = read_relations(
        session, model, sources, roots, known=version.classes if version else None, with_targets=False, keys=True
    )
    sizes = read.facts | (sizes_of(version) if version else {})
    fitted = bind_model(session.models.definition(name), sizes)
    outputs = dict(fitted.columns) | {FLAG + n: f for n, f in fitted.flags.items()}
    plan = optimize(Plan(outputs, fitted.names)).plan
    nodes = list(walk(plan.outputs.values()))
    parameters = parameter_arrays(fitted, version)
    arrays: dict[Node, Array] = {n: read.arrays[n.name] for n in nodes if isinstance(n, (Column, Positions))}
    arrays |= {n: parameters[n] for n in nodes if isinstance(n, Parameter)}
    counts = {r: r.rows or 1 for n in nodes for r in n.row_sets()}
    return Predicted(fitted, evaluate(plan, arrays, counts), read.keys)


def as_column(session: Session, found: Predicted, version: StoredVersion | None, name: str) -> pa.Array:
    """An output as a column of Arrow, NULL where its flag is false."""
    model = found.model
    node = model.columns[name]
    classes = None
    if node.type.element.column and version:
        classes = class_values(session.storage, version.classes[node.type.element.column])
    count = model.rows.rows or 1
    column = to_arrow(found.values[name], node.type, count, classes)
    if name not in model.flags:
        return column
    there = np.broadcast_to(np.asarray(found.values[FLAG + name], bool), (count,))
    return column.take(pa.array(np.arange(count), mask=~there))
