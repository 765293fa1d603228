"""Operators that are made of others, taken apart for the executor."""

from __future__ import annotations

from ...planner.node import Node
from ...planner.ops import LogSumExp, Softmax
from ..rule import rule


@rule(
    LogSumExp,
    Softmax,
    stage="expand",
    law="softmax(x) = e / sum(e) and log_sum_exp(x) = max(x) + log(sum(e)) with e = exp(x - max(x))",
    before="log_sum_exp(x), softmax(x)",
    after="max(x) + log(s), e / s",
    why="the loss and its gradient share the largest value, the powers and their sum",
    databases="view expansion",
    learning="operator decomposition; the log-sum-exp trick",
    example="CREATE MODEL m INPUT (x FLOAT[3]) TARGET (k INTEGER) AS SELECT LINEAR(x, 4) AS z "
    "MINIMIZE AVG(CROSS_ENTROPY(z, k))",
)
def expand_composite(node: Node) -> Node | None:
    return node.expand()
