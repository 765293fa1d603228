"""Arithmetic in generated code: on arrays as calls of array functions, on plain numbers as Python arithmetic.

Both forms come from the one scalar expression that an elementwise operator declares.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Collection, Mapping, Sequence

from ..planner import scalar
from ..planner.node import Emitter, Node
from ..planner.ops import (
    Broadcast,
    Concat,
    Count,
    Counter,
    Map,
    Max,
    Min,
    Place,
    Reshape,
    ScatterAdd,
    Sum,
)
from ..types import Element, Type

FOLDS = (Sum, Max, Min)


class Elementwise:
    """Turns one scalar expression into calls of array functions, inner results in scratch arrays."""

    def __init__(self, e: Emitter, arguments: Mapping[str, str], type: Type, operands: Collection[Node]) -> None:
        self.e, self.arguments, self.type = e, arguments, type
        self.scratch: set[str] = set()
        kinds = {n.type.element.kind for n in operands}
        # left to itself NumPy computes with whole numbers in 64 bits, and TRUE + TRUE is TRUE
        mixed = "integer" in kinds or kinds == {"boolean"}
        self.is_converted = mixed and type.element.kind == "float"

    def evaluate(self, tree: ast.expr, out: str | None) -> str:
        """Emit the calls that compute ``tree``; returns the name or number that holds the result."""
        op = scalar.operation(tree)
        if op is None:
            if isinstance(tree, ast.Name):
                return self.arguments[tree.id]
            assert isinstance(tree, ast.Constant)
            return repr(tree.value)
        function, operands = op
        values = [self.evaluate(o, None) for o in operands]
        mine = [v for v in values if v in self.scratch]
        if out is None:
            out = mine[0] if mine else self.e.temporary(self.type)
            self.scratch.add(out)
        # NumPy takes the output of these two by keyword only
        last = f"out={out}" if function in ("maximum", "minimum") else out
        dtype = [f"dtype={self.type.element.storage!r}"] if self.is_converted and function != "where" else []
        self.e.call(function, *values, last, *dtype)
        return out


def numbers_of(nodes: Sequence[Node], arrays: Collection[Node]) -> set[Node]:
    """Nodes that are plain numbers: constants, counts, the loop's counters, folds of arrays, and arithmetic on these.

    A number whose reader needs an array (a matrix product, a slice) stays an array, and so do those in ``arrays``.
    """
    numbers = {n for n in nodes if n.is_number}
    changed = True
    while changed:
        readers = [n for n in nodes if not (isinstance(n, (Map, Broadcast, Concat, Place, ScatterAdd)) or n in numbers)]
        needed = {*arrays, *(i for n in readers for i in n.inputs)}
        on_arrays = {n for n in numbers if isinstance(n, (Map, Reshape)) and not numbers.issuperset(n.inputs)}
        mistaken = {n for n in numbers & needed if not isinstance(n, (Count, Counter))} | on_arrays
        changed = bool(mistaken)
        numbers -= mistaken
    return numbers


class _OnNumbers(ast.NodeTransformer):
    """Calls, quotients and powers as calls of the functions on plain numbers, which follow NumPy where math raises."""

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        assert isinstance(node.func, ast.Name)
        return ast.Call(ast.Name(f"number_{node.func.id}"), node.args, [])

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.op, (ast.Div, ast.Pow)):
            return ast.Call(ast.Name(f"number_{scalar.OPERATORS[type(node.op)]}"), [node.left, node.right], [])
        return node


def on_numbers(expression: str) -> str:
    """The expression with the names of the functions on plain numbers."""
    return ast.unparse(_OnNumbers().visit(ast.parse(expression, mode="eval")))


def literal(value: float, element: Element) -> str:
    """A number as Python source, infinities and NaN included; in brackets where it has a sign."""
    if element.kind == "boolean":
        return repr(bool(value))
    text = repr(value) if math.isfinite(value) else f"float('{value}')"
    return f"({text})" if text.startswith("-") else text
