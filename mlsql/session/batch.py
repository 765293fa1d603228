"""The columns of a model over the rows that a step reads."""

from __future__ import annotations

from ..planner.model import Model
from ..planner.node import Node, depends_on, rebuilt
from ..planner.ops import Column, Concat, Take
from ..planner.plan import Plan
from ..types import RowSet


def batch_leaves(model: Model, plan: Plan, table: RowSet, index: Node | None) -> dict[Node, Node]:
    """The model's columns as columns of the table, taken by the batch's index where there is one."""
    moved: dict[Node, Node] = {}
    for node in plan.nodes():
        if isinstance(node, Column):
            moved[node] = Column(node.name, table, node.element, node.shape)
    if index is None:
        return moved
    taken = {node: Take(column, index) for node, column in moved.items()}
    prepared = learned_from_data(model, plan)
    over_table = rebuilt(prepared, moved)
    return moved | taken | {node: Take(over_table[node], index) for node in prepared}


def learned_from_data(model: Model, plan: Plan) -> list[Node]:
    """What columns become by statistics alone: it is the same in every step, so it is computed over the table."""
    frozen = [p.node for p in model.parameters.values() if p.statistic is not None]
    learnable = [p.node for p in model.parameters.values() if not p.frozen]
    nodes = list(plan.nodes())
    by_statistic = depends_on(nodes, frozen) - depends_on(nodes, learnable)
    return [n for n in nodes if n in by_statistic and n.type.rows == model.rows and n.kind in ("map", "reduce", "shape")
            and not isinstance(n, Concat)]  # fmt: skip
