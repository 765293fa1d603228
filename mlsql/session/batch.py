"""The columns of a model over the rows that a step reads."""

from __future__ import annotations

from ..planner.model import Model
from ..planner.node import Node
from ..planner.ops import Column, Take
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
    return {node: Take(column, index) for node, column in moved.items()}
