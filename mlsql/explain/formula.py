"""A node as a formula, in the names that the statement gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..planner.node import Node
from ..planner.ops import (
    Add,
    And,
    Column,
    Constant,
    Count,
    Counter,
    Divide,
    Equal,
    Greater,
    GreaterEqual,
    Index,
    Less,
    LessEqual,
    Multiply,
    Negate,
    NotEqual,
    Or,
    Parameter,
    Positions,
    Power,
    State,
    Subtract,
)
from ..planner.ops.contract import Contraction, as_matrix_product

INFIX: Mapping[type[Node], tuple[str, int]] = {
    Or: ("OR", 1),
    And: ("AND", 2),
    Equal: ("=", 3),
    NotEqual: ("<>", 3),
    Less: ("<", 3),
    LessEqual: ("<=", 3),
    Greater: (">", 3),
    GreaterEqual: (">=", 3),
    Add: ("+", 4),
    Subtract: ("-", 4),
    Multiply: ("*", 5),
    Divide: ("/", 5),
    Power: ("**", 6),
}
TIGHTEST = 9


def formula(node: Node, names: Mapping[Node, str], depth: int = 6) -> str:
    """The node written out over named nodes and leaves; parts deeper than ``depth`` are "..."."""
    return _write(node, names, depth, top=True)[0]


def _write(node: Node, names: Mapping[Node, str], depth: int, top: bool = False) -> tuple[str, int]:
    """The text and how tightly its outermost operator binds."""
    leaf = leaf_text(node)
    if leaf is not None:
        return leaf, TIGHTEST
    if not top and node in names:
        return names[node], TIGHTEST
    if depth == 0:
        return "...", TIGHTEST
    return applied(node, [_write(n, names, depth - 1) for n in node.inputs])


def applied(node: Node, inputs: list[tuple[str, int]]) -> tuple[str, int]:
    """An operator over the texts of its inputs, each with how tightly it binds: infix, or as a function."""
    if type(node) in INFIX:
        sign, level = INFIX[type(node)]
        (left, left_level), (right, right_level) = inputs
        left = f"({left})" if left_level < level else left
        right = f"({right})" if right_level <= level else right
        return f"{left} {sign} {right}", level
    if isinstance(node, Contraction) and (product := matrix_product(node, inputs)) is not None:
        return product, INFIX[Multiply][1]
    if isinstance(node, Negate):
        [(text, level)] = inputs
        return f"-({text})" if level < 7 else f"-{text}", 7
    return f"{node.operator_name()}({', '.join([*(text for text, _ in inputs), *details(node)])})", TIGHTEST


def matrix_product(node: Contraction, inputs: list[tuple[str, int]]) -> str | None:
    """A contraction as ``a @ b``, with ``ᵀ`` where an operand is transposed; None if it is no matrix product."""
    product = as_matrix_product(node.spec)
    if product is None:
        return None
    swapped, *forms = product
    if getattr(node, "bf16", False):  # of operands that are rounded
        inputs = [(f"bf16({text})", TIGHTEST) for text, _ in inputs]
    sides = [(text if level == TIGHTEST else f"({text})") + ("ᵀ" if form else "") for (text, level), form in
             zip(inputs, forms, strict=True)]  # fmt: skip
    return " @ ".join(reversed(sides) if swapped else sides)


def details(node: Node) -> list[str]:
    """The attributes of an operator that a reader needs."""
    return [text for name, value in node.attributes().items() if (text := _detail(name, value)) is not None]


def _detail(name: str, value: Any) -> str | None:
    if value in (None, False, ()) or name in ("target", "element"):
        return None
    if name == "axes":
        return f"along {' and '.join(f'axis {a + 1}' for a in value)}"
    return f"over {name}" if value is True else f"{name} {value}" if isinstance(value, (int, tuple)) else str(value)


def leaf_text(node: Node) -> str | None:
    """The name or value of a leaf, None for anything else."""
    if isinstance(node, (Column, Positions, Parameter, State, Counter)):
        return node.name
    if isinstance(node, Count):
        return f"count({node.rows})"
    if isinstance(node, Index):
        return "index"
    if isinstance(node, Constant):
        shown = ", ".join(f"{v:g}" for v in node.values[:4]) + (", ..." if len(node.values) > 4 else "")
        return shown if node.value is not None else f"[{shown}]"
    return None
