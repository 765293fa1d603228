"""NULL in plans. A tensor is never NULL; a value that may be missing has a flag beside it that says where it is there.

SQL's rules hold: arithmetic with NULL is NULL, aggregates skip NULL, COALESCE fills it, a row that a left join found no
match for is NULL on that side. A place without a value holds some number all the same, which nothing may read: FILLER
where it could meet a function, since 0 / 0 in a value that nobody reads is still NaN in the gradients of its inputs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

from .node import Node
from .ops import And, Not, Or, Reduce, Reshape, Segment, Take, Where, like

FILLER = 0.5  # where x / a, LN(a), LN(1 - a), SQRT(a) and 1 / (a - 1) all are finite


class Nulls:
    """Which nodes of a model may be NULL, and the flag (a BOOLEAN a row) that says where they are not."""

    def __init__(self) -> None:
        self.declared: dict[Node, Node | None] = {}
        self.found: dict[Node, Node | None] = {}

    def declare(self, node: Node, flag: Node | None) -> Node:
        """Say where a node has a value; None: everywhere, whatever it was made from."""
        self.declared[node] = flag
        self.found.clear()
        return node

    def flag(self, node: Node) -> Node | None:
        """Where a node has a value; None: everywhere."""
        if node not in self.found:
            self.found[node] = self.declared[node] if node in self.declared else self._derived(node)
        return self.found[node]

    def _derived(self, node: Node) -> Node | None:
        if isinstance(node, Segment) or (isinstance(node, Reduce) and node.rows):
            return None  # an aggregate has skipped what is missing
        if isinstance(node, Take):
            there = self.flag(node.x)
            return both([None if there is None else Take(there, node.index), self.flag(node.index)])
        return both(self.flag(n) for n in node.inputs)

    def decided(self, out: Node, x: Node, y: Node, decisive: tuple[Node, Node]) -> Node:
        """AND and OR: one side that decides is enough, whatever the other is, or whether it is there."""
        first, second = self.flag(x), self.flag(y)
        if (first is None and second is None) or out.type.rank:
            return out  # a flag is one a row: of a tensor all or nothing is known
        known = both([first, second])
        alone = [both([f, d]) if f is not None else d for f, d in zip((first, second), decisive, strict=True)]
        return self.declare(out, functools.reduce(Or, [n for n in (known, *alone) if n is not None]))

    def chosen(self, condition: Node, x: Node, y: Node) -> Node:
        """CASE: x where the condition is there and holds, else y; NULL where the chosen one is."""
        there, first, second = map(self.flag, (condition, x, y))
        if condition.type.rank:
            return Where(condition, x, y)
        sure = condition if there is None else And(there, condition)
        out = Where(sure, x, y)
        if there is None and first is None and second is None:
            return out
        of_first = sure if first is None else And(sure, first)
        of_second = Not(sure) if second is None else And(Not(sure), second)
        return self.declare(out, None if first is second is None else Or(of_first, of_second))

    def best(self, make: Callable[[Node, Node], Node], x: Node, y: Node) -> Node:
        """GREATEST and LEAST pass over what is missing."""
        first, second = self.flag(x), self.flag(y)
        out = make(x, y)
        if first is not None:
            out = Where(_shaped(first, out), out, y)
        if second is not None:
            out = Where(_shaped(second, out), out, x)
        return self.declare(out, None if first is None or second is None else Or(first, second))


def both(flags: Iterable[Node | None]) -> Node | None:
    """Where all of the flags hold."""
    given = list(dict.fromkeys(f for f in flags if f is not None))
    return functools.reduce(And, given) if given else None


def _shaped(there: Node, x: Node) -> Node:
    """A flag a row, in a shape that fits x."""
    return Reshape(there, (1,) * x.type.rank) if x.type.rank else there


def filled(there: Node, x: Node) -> Node:
    """x where it is there, else the FILLER. Whole numbers and classes may be positions: they are left alone."""
    if x.type.element.kind != "float":
        return x
    return Where(_shaped(there, x), x, like(FILLER, x))


def unfilled(node: Node) -> Node:
    """What filled was given, if it made the node; the node itself otherwise."""
    return node.x if isinstance(node, Where) and node.y is like(FILLER, node) else node
