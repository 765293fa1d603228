"""Statistics: what aggregates of the training rows come to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from ..errors import Error
from ..planner.data import filled
from ..planner.model import Model, Statistic
from ..types import concrete
from .dataset import Source, as_declared, expression_sql, quoted
from .device import Array
from .storage import Storage

COPY, KEPT = "mlsql_training_rows", "mlsql_kept_rows"  # the rows of a run, and those of them that are not held out

Statistics = Mapping[str, Statistic]  # by parameter


def copied(storage: Storage, source: Source, model: Model) -> pa.Table:
    """The columns of a source that a model reads, in the types that it declares; of none, its rows all the same."""
    return storage.query(copying(source, model), source.query.values)


@contextlib.contextmanager
def copied_to_disk(storage: Storage, source: Source, model: Model) -> Iterator[int]:
    """Inside, the same is a temporary table of DuckDB's, which goes to the disk as memory runs out; its rows."""
    drop = f"DROP TABLE IF EXISTS temp.{COPY}"
    storage.rows(drop)
    storage.rows(f"CREATE TEMP TABLE {COPY} AS {copying(source, model)}", source.query.values)
    try:
        [(rows,)] = storage.rows(f"SELECT count(*) FROM temp.{COPY}")
        yield rows
    except BaseException:
        with contextlib.suppress(Error):  # the first error is the one to tell
            storage.rows(drop)
        raise
    storage.rows(drop)


def copying(source: Source, model: Model) -> str:
    """The query of what is copied."""
    items = [f"{as_declared(model, n, quoted(c))} AS {quoted(n)}" for n, (c, _) in source.columns.items()]
    columns = ", ".join(items) or "NULL AS nothing"
    return f"SELECT {columns} FROM {source.query.text}"


def statistics_of(storage: Storage, source: Source, model: Model) -> dict[str, Array]:
    """The value of every statistic over the rows of a source, by parameter."""
    found: dict[str, Array] = {}
    waiting = dict(model.statistics)
    while waiting:  # those that fill NULLs for others come first
        ready = {name: s for name, s in waiting.items() if s.fill is None or s.fill in found}
        for sql, names in queries(ready, source, model, found):
            [values] = storage.rows(sql, source.query.values)
            for name, value in zip(names, values, strict=True):
                found[name] = np.array(value, np.float64).reshape(concrete(model.parameters[name].node.shape))
        waiting = {name: s for name, s in waiting.items() if name not in found}
    return found


def queries(
    statistics: Statistics, source: Source, model: Model, fillings: Mapping[str, Array]
) -> list[tuple[str, list[str]]]:
    """Queries of one row, each with the statistics that it gives: one for all numbers, one for each tensor."""
    tensors: dict[str, dict[str, Statistic]] = {}
    numbers: dict[str, str] = {}
    for name, s in statistics.items():
        text = value_sql(s, source, model, fillings)
        if is_tensor(model, s):
            tensors.setdefault(text, {})[name] = s
        else:
            numbers[name] = filled(s.aggregate, {"v": f"CAST({text} AS DOUBLE)"}.__getitem__)
    found = [(f"SELECT {', '.join(numbers.values())} FROM {source.query.text}", list(numbers))] if numbers else []
    return found + [(tensor_query(text, group, source), list(group)) for text, group in tensors.items()]


def value_sql(statistic: Statistic, source: Source, model: Model, fillings: Mapping[str, Array]) -> str:
    """The SQL of the value that is aggregated; of a tensor, all its numbers in one list."""
    columns = {n: quoted(c) for n, (c, _) in source.columns.items()}
    text = expression_sql(model, statistic.sql, statistic.reads, columns)
    if statistic.fill is not None:
        return f"coalesce({text}, {float(fillings[statistic.fill])!r})"
    rank = model.declared[statistic.reads[0]].type.rank if is_tensor(model, statistic) else 0
    return "flatten(" * (rank - 1) + text + ")" * (rank - 1)


def is_tensor(model: Model, statistic: Statistic) -> bool:
    """Whether the expression is a tensor a row, whose positions have a statistic each."""
    return statistic.sql == "{0}" and bool(model.declared[statistic.reads[0]].type.shape)


def tensor_query(text: str, statistics: Statistics, source: Source) -> str:
    """Lists of statistics, an entry a position of a list of numbers."""
    items = {f"a{i}": filled(s.aggregate, lambda _: "v") for i, s in enumerate(statistics.values())}
    entries = (
        f"SELECT CAST(unnest({text}) AS DOUBLE) AS v, generate_subscripts({text}, 1) AS i FROM {source.query.text}"
    )
    aggregates = ", ".join(f"{aggregate} AS {name}" for name, aggregate in items.items())
    lists = ", ".join(f"list({name} ORDER BY i)" for name in items)
    return f"SELECT {lists} FROM (SELECT i, {aggregates} FROM ({entries}) GROUP BY i)"
