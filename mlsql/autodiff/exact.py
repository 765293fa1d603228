"""Training in DOUBLE, for solvers that use curvature: a Gram matrix squares the condition of its columns."""

from __future__ import annotations

from collections.abc import Mapping

from ..planner.node import Node
from ..planner.ops import Cast, Column, Constant, Parameter, cast
from ..planner.plan import Plan
from ..types import DOUBLE, FLOAT
from .training import Together


class InDouble(Together):
    """One flat vector of DOUBLE for all weights, and all arithmetic in DOUBLE."""

    element = DOUBLE

    def placed(self, plan: Plan, views: Mapping[Node, Node]) -> Plan:
        return in_double(plan.replaced(views))


def in_double(plan: Plan) -> Plan:
    """The plan with its leaves cast to DOUBLE, so that nothing is computed in FLOAT."""

    def change(node: Node) -> Node:
        match node:
            case Column() | Parameter() | Constant() if node.element == FLOAT:
                return cast(node, DOUBLE)
            case Cast(x, element) if element == FLOAT:
                return cast(x, DOUBLE)
        return node

    return plan.rewritten(change)
