"""The arithmetic of elementwise operators, as one scalar expression that every backend's form is derived from.

The expression is a small part of Python: ``+ - * / **``, comparisons, ``& | ~`` and the functions below. This module
reads it, counts it and runs it on plain numbers; the executor derives array code from the same tree.
"""

from __future__ import annotations

import ast
import math
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
    ast.Pow: "power",
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
    ast.BitAnd: "logical_and",
    ast.BitOr: "logical_or",
    ast.Invert: "logical_not",
    ast.USub: "negative",
}

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "cos": math.cos,
    "erf": math.erf,
    "exp": math.exp,
    "log": math.log,
    "log1p": math.log1p,
    "maximum": max,
    "minimum": min,
    "sign": lambda x: float((x > 0) - (x < 0)),
    "sin": math.sin,
    "sqrt": math.sqrt,
    "tanh": math.tanh,
    "where": lambda condition, a, b: a if condition else b,
}


@cache
def parse(expression: str) -> ast.expr:
    """The tree of a scalar expression."""
    return ast.parse(expression, mode="eval").body


def operation(node: ast.expr) -> tuple[str, list[ast.expr]] | None:
    """The name and operands of an inner node of the tree, or None for a name or a number."""
    match node:
        case ast.BinOp(left, op, right):
            return OPERATORS[type(op)], [left, right]
        case ast.UnaryOp(op, operand):
            return OPERATORS[type(op)], [operand]
        case ast.Compare(left, [op], [right]):
            return OPERATORS[type(op)], [left, right]
        case ast.Call(ast.Name(name), arguments) if name in FUNCTIONS:
            return name, arguments
        case ast.Name() | ast.Constant():
            return None
    raise ValueError(f"not a scalar expression: {ast.unparse(node)}")


@cache
def flops(expression: str) -> int:
    """Operations a single evaluation takes."""
    return sum(1 for n in ast.walk(parse(expression)) if isinstance(n, ast.expr) and operation(n) is not None)


@cache
def passes(expression: str) -> tuple[tuple[str, int], ...]:
    """The operations of the expression by name, and how often each occurs: on arrays, each is a pass over memory."""
    inner = [operation(n) for n in ast.walk(parse(expression)) if isinstance(n, ast.expr)]
    return tuple(sorted(Counter(op[0] for op in inner if op is not None).items()))


@cache
def with_numbers(expression: str, numbers: frozenset[str]) -> int:
    """How many operations of the expression have a plain number beside an array; ``numbers`` are names of such."""
    inner = [operation(n) for n in ast.walk(parse(expression)) if isinstance(n, ast.expr)]
    operands = [op[1] for op in inner if op is not None]
    return sum(any(isinstance(n, ast.Constant) or (isinstance(n, ast.Name) and n.id in numbers) for n in ns)
               for ns in operands)  # fmt: skip


ON_NUMBERS = frozenset(["add", "subtract", "multiply", "negative", "abs"])  # what Python itself does on plain numbers


def source(expression: str, arguments: Mapping[str, str]) -> str:
    """The expression as Python source, with its names replaced by the given source texts."""

    class Rename(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            return parse(arguments[node.id]) if node.id in arguments else node

        def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
            self.generic_visit(node)
            logical = isinstance(node.op, ast.Invert)
            return ast.UnaryOp(ast.Not(), node.operand) if logical else node

        def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
            self.generic_visit(node)
            words = {ast.BitAnd: ast.And, ast.BitOr: ast.Or}
            word = words.get(type(node.op))
            return ast.BoolOp(word(), [node.left, node.right]) if word else node

    return ast.unparse(Rename().visit(ast.parse(expression, mode="eval").body))


def evaluate(expression: str, arguments: Mapping[str, float]) -> float | bool:
    """The expression's value on plain numbers. Raises ArithmeticError or ValueError where it has none."""
    tree = source(expression, {})
    return eval(tree, {"__builtins__": {}, **FUNCTIONS}, dict(arguments))  # type: ignore[no-any-return]
