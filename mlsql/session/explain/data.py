"""What DuckDB does for a plan before it runs: keys of joins and groups, columns that are computed."""

from __future__ import annotations

from collections.abc import Sequence

from ...explain.view import Lines
from ...planner.data import filled
from ...planner.model import DataColumn, Model
from ...planner.node import Node


def keys_lines(model: Model) -> tuple[Lines, ...]:
    """What DuckDB finds out before anything is learned: a line a join, filter, group-by and union."""
    if model.skeleton is None or not model.skeleton.steps:
        return ()
    counts = {s.rows.name: "?" if s.rows.rows is None else str(s.rows.rows) for s in model.skeleton.steps}
    width = max(map(len, counts.values()))
    lines = (f"{s.rows.name}  {counts[s.rows.name].rjust(width)} rows: {s.shown()}" for s in model.skeleton.steps)
    return (Lines("keys, by DuckDB, once", tuple(lines)),)


def data_lines(model: Model, outputs: Sequence[Node]) -> tuple[Lines, ...]:
    """How DuckDB computes the leaves that are no plain columns."""
    leaves = {n: leaf for n, leaf in model.leaves(outputs).items() if n in model.data and not leaf.is_plain}
    lines = tuple(f"{name} = {leaf_text(leaf)}" for name, leaf in leaves.items())
    return (Lines("columns that DuckDB computes", lines),) if lines else ()


def leaf_text(leaf: DataColumn) -> str:
    """The SQL of a leaf, and what is done with its value."""
    sql = filled(leaf.sql, lambda hole: leaf.reads[int(hole)])
    if leaf.vocabulary is not None and leaf.find is not None:
        return f"{sql}, looked up in {leaf.vocabulary}: {leaf.find.value}"
    return sql if leaf.fill is None else f"{sql}, or {leaf.fill} where it is NULL"
