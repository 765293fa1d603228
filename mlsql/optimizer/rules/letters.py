"""The letters of contractions: naming the axes of operands, anew where a law moves them."""

from __future__ import annotations

from ...planner.node import Node
from ...planner.ops import Reshape
from ...planner.ops.contract import ROW
from ...types import UNIT, Shape

LETTERS = "abcdefghijklmnopqstuvwxyz"  # "r" is the rows


def with_rows(letters: str, node: Node) -> str:
    """Letters with the row axis where the operand has rows, and only there."""
    return (ROW if node.type.rows != UNIT else "") + letters.removeprefix(ROW)


def renamed(spec: str) -> str:
    """A spec with its letters in the order of the alphabet, so that equal moments are one."""
    order = dict.fromkeys(c for c in spec if c.isalpha() and c != ROW)
    return spec.translate(dict(zip(map(ord, order), LETTERS, strict=False)))


def without_ones(letters: str, other: str, out: str, x: Node, target: Shape) -> tuple[str, str] | None:
    """The letters of a reshape's input and of the output, where the reshape adds or drops axes of size 1; else None."""
    entry = letters.removeprefix(ROW)
    ones = {c for c, d in zip(entry, target, strict=True) if d == 1}
    if squeezed(x.type.shape) != squeezed(target) or ones & set(other):
        return None
    named = iter([c for c in entry if c not in ones])
    free = (c for c in LETTERS if c not in letters + other + out)
    new = "".join(next(named) if d != 1 else next(free) for d in x.type.shape)
    return with_rows(new, x), "".join(c for c in out if c not in ones)


def squeezed(shape: Shape) -> Shape:
    """A shape without axes of size 1."""
    return tuple(d for d in shape if d != 1)


def reshaped(total: Node, like: Node) -> Node:
    """``total`` in the shape that another value has."""
    return total if total.type.shape == like.type.shape else Reshape(total, like.type.shape)
