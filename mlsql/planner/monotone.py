"""Outputs that are a rising function of something simpler: their order and their comparisons can be had without it."""

from __future__ import annotations

from collections.abc import Sequence

from .node import Node
from .ops import Constant, Exp, Multiply, Sigmoid, Tanh

RISING = (Sigmoid, Tanh, Exp)


def inside(node: Node) -> tuple[Node, Sequence[Node]]:
    """The argument of the rising functions that a node is, and these functions, the outermost first.

    A node that is no such function is its own argument.
    """
    functions: list[Node] = []
    while True:
        argument = _argument(node)
        if argument is None:
            return node, functions
        functions.append(node)
        node = argument


def _argument(node: Node) -> Node | None:
    match node:
        case Sigmoid(x) | Tanh(x) | Exp(x) if x.type == node.type and not x.type.shape:
            return x
        case Multiply(x, Constant(values=(c,), shape=())) if c > 0 and x.type == node.type and not x.type.shape:
            return x
        case Multiply(Constant(values=(c,), shape=()), x) if c > 0 and x.type == node.type and not x.type.shape:
            return x
    return None
