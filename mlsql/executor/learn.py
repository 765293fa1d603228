"""Statistics: what aggregates of the training rows come to."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from ..planner.data import filled
from ..planner.model import Model, Statistic
from ..types import concrete
from .dataset import Source, as_declared, expression_sql, quoted
from .device import Array
from .storage import Storage

COPY, KEPT = "mlsql_training_rows", "mlsql_kept_rows"  # the rows of a run, and those of them that are not held out


def copied(storage: Storage, source: Source, model: Model) -> pa.Table:
    """The columns of a source that a model reads, in the types that it declares."""
    items = [f"{as_declared(model, n, quoted(c))} AS {quoted(n)}" for n, (c, _) in source.columns.items()]
    return storage.query(f"SELECT {', '.join(items)} FROM {source.query.text}", source.query.values)


def statistics_of(storage: Storage, source: Source, model: Model) -> dict[str, Array]:
    """The value of every statistic over the rows of a source, by parameter."""
    found: dict[str, Array] = {}
    waiting = dict(model.statistics)
    while waiting:  # those that fill NULLs for others come first
        ready = {name: s for name, s in waiting.items() if s.fill is None or s.fill in found}
        items = {name: statistic_sql(s, source, model, found, name) for name, s in ready.items()}
        sql = "".join(f", ({text})" for text in items.values())
        [(_, *values)] = storage.rows(f"SELECT count(*){sql} FROM {source.query.text}", source.query.values)
        for name, value in zip(items, values, strict=True):
            shape = concrete(model.parameters[name].node.shape)
            found[name] = np.array(value, np.float64).reshape(shape)
            del waiting[name]
    return found


def statistic_sql(statistic: Statistic, source: Source, model: Model, fillings: Mapping[str, Array], name: str) -> str:
    """The SQL of a statistic, for a single number or position by position."""
    columns = {n: quoted(c) for n, (c, _) in source.columns.items()}
    text = expression_sql(model, statistic.sql, statistic.reads, columns)
    if statistic.fill is not None:
        text = f"coalesce({text}, {float(fillings[statistic.fill])!r})"
    shape = model.parameters[name].node.shape
    if not shape or not is_tensor(model, statistic):
        return filled(statistic.aggregate, lambda _: f"CAST({text} AS DOUBLE)")
    for _ in shape[1:]:
        text = f"flatten({text})"
    aggregate = filled(statistic.aggregate, lambda _: "v")
    entries = f"CAST(unnest({text}) AS DOUBLE) AS v, generate_subscripts({text}, 1) AS i"
    by_position = f"SELECT i, {aggregate} AS a FROM (SELECT {entries} FROM {source.query.text}) GROUP BY i"
    return f"SELECT list(a ORDER BY i) FROM ({by_position})"


def is_tensor(model: Model, statistic: Statistic) -> bool:
    """Whether the expression is a tensor a row, whose positions have a statistic each."""
    return statistic.sql == "{0}" and bool(model.declared[statistic.reads[0]].type.shape)
