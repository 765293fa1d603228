"""Forms that say the same and do not overflow."""

from __future__ import annotations

from ...planner.node import Node
from ...planner.ops import Constant, Log, LogSumExp, Negate, Pick, Reshape, Sigmoid, Softmax, Softplus, Subtract
from ..rule import rule

CROSS_ENTROPY_BY_HAND = (
    "CREATE MODEL m INPUT (x FLOAT[3]) TARGET (k INTEGER) AS SELECT SOFTMAX(LINEAR(x, 4)) AS p "
    "MINIMIZE AVG(-PICK(LN(p), k))"
)


@rule(
    Log,
    law="log(softmax(x)) = x - log_sum_exp(x)",
    before="log(softmax(x))",
    after="x - log_sum_exp(x)",
    why="a probability that rounds to 0 has no logarithm; the difference is right for any score",
    databases="no counterpart in common use",
    learning="numerical stability: log-softmax, the log-sum-exp trick",
    example=CROSS_ENTROPY_BY_HAND,
)
def log_of_softmax(node: Node) -> Node | None:
    match node:
        case Log(Softmax(x)):
            return Subtract(x, LogSumExp(x))
    return None


@rule(
    Log,
    law="log(pick(p, k)) = pick(log(p), k)",
    before="log(pick(softmax(x), k))",
    after="pick(log(softmax(x)), k)",
    when="p is a softmax, whose logarithm has a stable form",
    why="the logarithm meets the softmax, and both become the cross entropy",
    databases="operator reordering",
    learning="numerical stability: negative log-likelihood to cross entropy",
    example="CREATE MODEL m INPUT (x FLOAT[3]) TARGET (k INTEGER) AS SELECT SOFTMAX(LINEAR(x, 4)) AS p "
    "MINIMIZE AVG(-LN(PICK(p, k)))",
)
def log_of_pick(node: Node) -> Node | None:
    match node:
        case Log(Pick(Softmax() as p, k)):
            return Pick(Log(p), k)
    return None


@rule(
    Log,
    law="log(sigmoid(x)) = -softplus(-x) and log(1 - sigmoid(x)) = -softplus(x)",
    before="log(sigmoid(x))",
    after="-softplus(-x)",
    why="exact far from 0, where the sigmoid rounds to 0 or 1",
    databases="no counterpart in common use",
    learning="numerical stability: log-sigmoid, BCE with logits",
    example="CREATE MODEL m INPUT (x FLOAT) TARGET (t FLOAT) PARAMETERS (w FLOAT) AS SELECT SIGMOID(x * w) AS p "
    "MINIMIZE -AVG(t * LN(p) + (1 - t) * LN(1 - p))",
)
def log_of_sigmoid(node: Node) -> Node | None:
    match node:
        case Log(Sigmoid(x)):
            return Negate(Softplus(Negate(x)))
        case Log(Subtract(Constant() as c, Sigmoid(x))) if c.value == 1:
            return Negate(Softplus(x))
    return None


@rule(
    Pick,
    law="pick(x - c, k) = pick(x, k) - c",
    before="pick(x - log_sum_exp(x), k)",
    after="pick(x, k) - log_sum_exp(x)",
    when="c is one number a row",
    why="softmax and cross entropy become one: the log-probabilities of the other classes are never computed, "
    "and the gradient is softmax(x) with 1 taken off at k",
    databases="projection pushdown",
    learning="fused softmax and cross entropy",
    example=CROSS_ENTROPY_BY_HAND,
)
def fuse_cross_entropy(node: Node) -> Node | None:
    match node:
        case Pick(Subtract(x, c), k) if c.type.shape == (1,) and x.type == node.x.type:
            return Subtract(Pick(x, k), Reshape(c, ()))
    return None
