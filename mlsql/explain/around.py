"""The part of a plan that a rewriting is about: a step deep in a large plan need not be looked at with all below it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ..planner.node import Node, rebuilt, walk
from ..planner.ops import Column, Parameter
from ..types import UNIT

DEPTH = 4  # levels of what both sides have in common
LARGE = 150  # nodes of a side from which on it is cut


def around(before: Node, after: Node) -> set[Node]:
    """What only one side of a rewriting has, and a few levels of what it stands on."""
    kept = set(walk([before])) ^ set(walk([after])) | {before, after}
    edge: Collection[Node] = kept
    for _ in range(DEPTH):
        edge = {i for n in edge for i in n.inputs} - kept
        kept |= edge
    return kept


def cut(before: Node, after: Node) -> tuple[Node, Node]:
    """Both sides, in a large plan with columns and parameters in place of what lies far below.

    Only numbers are cut off: positions and labels must stay in range.
    """
    if sum(1 for _ in walk([before, after])) <= LARGE:
        return before, after
    kept = around(before, after)
    below = dict.fromkeys(i for n in kept for i in n.inputs if i not in kept and i.inputs and is_float(i))
    new = rebuilt([before, after], {n: stand_in(n, f"cut {i}") for i, n in enumerate(below)})
    return new[before], new[after]


def is_float(node: Node) -> bool:
    """Whether a node holds numbers that any others could stand for."""
    return node.type.element.kind == "float"


def stand_in(node: Node, name: str) -> Node:
    """A leaf of the type of a node."""
    t = node.type
    return Parameter(name, t.element, t.shape) if t.rows == UNIT else Column(name, t.rows, t.element, t.shape)


def apart(before: Node, after: Iterable[Node]) -> tuple[set[Node], set[Node]]:
    """What only the first side has, and what only the other."""
    a, b = set(walk([before])), set(walk(after))
    return a - b, b - a
