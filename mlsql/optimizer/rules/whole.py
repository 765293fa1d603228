"""What is done to a plan as a whole: outputs that nobody reads go, and equal parts are one part.

These are no rewritings of a node. Equal nodes are one object from the moment they are built, and what no output
reads is simply not there; the functions here find where that happened, so that it can be shown.
"""

from __future__ import annotations

from collections.abc import Collection

from ...planner.node import Node, readers
from ...planner.ops import Column, Constant, Count
from ...planner.plan import Plan
from ..rule import RULES, Step, rule


@rule(
    stage="prune",
    law="what nobody reads is not computed",
    before="SELECT used, unused",
    after="SELECT used",
    when="no output that is asked for depends on it",
    why="neither its columns are read nor its operators run",
    databases="projection pruning",
    learning="dead code elimination",
    example="CREATE MODEL m INPUT (x FLOAT, z FLOAT) PARAMETERS (w FLOAT) AS SELECT x * w AS y, EXP(z) AS unused "
    "MINIMIZE AVG(y)",
)
def dead_columns(node: Node) -> Node | None:
    return None


@rule(
    stage="share",
    law="equal expressions over equal inputs are equal",
    before="f(x) + f(x)",
    after="y + y where y = f(x)",
    when="always: equal nodes of a plan are one object",
    why="computed once, however often it is written, in the gradient too",
    databases="common subexpression elimination",
    learning="graph deduplication; reuse of activations in the backward pass",
    example="CREATE MODEL m INPUT (x FLOAT) PARAMETERS (w FLOAT) "
    "AS SELECT EXP(x * w) + EXP(x * w) AS y MINIMIZE AVG(y)",
)
def common_subexpression(node: Node) -> Node | None:
    return None


def prune(plan: Plan, wanted: Collection[str], steps: list[Step]) -> Plan:
    """The plan of the wanted outputs; what only the others need is recorded as gone."""
    kept = plan.keep(k for k in plan.outputs if k in wanted)
    alive = set(kept.nodes())
    for node in plan.nodes():
        is_shown = isinstance(node, Column) or node in plan.outputs.values()
        if node not in alive and is_shown:
            steps.append(Step("prune", RULES["dead_columns"], node, None))
    return kept


def share(plan: Plan, steps: list[Step]) -> Plan:
    """The plan as it is; every inner node that several read is recorded as computed once."""
    for node, users in readers(plan.outputs.values()).items():
        if len(users) > 1 and node.inputs and not node.is_view and not isinstance(node, (Constant, Count)):
            steps.append(Step("share", RULES["common_subexpression"], node, node))
    return plan
