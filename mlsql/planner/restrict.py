"""A plan for some of the rows: what a mini-batch needs of a model over relations, and no more.

For a row-wise f, f(x) at the rows i is f(x at i); what a join takes for them is a Take of a Take, so the join is never
built. Where rows are groups of other rows the groups are computed in full and then taken, or, with a fan-out, from a
sample of each group's members: Hamilton, Ying and Leskovec, "Inductive Representation Learning on Large Graphs", 2017.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from ..types import UNIT, RowSet
from .node import Node
from .ops import (
    Broadcast,
    Column,
    Count,
    GroupJoin,
    GroupSample,
    Multiply,
    PairDot,
    Positions,
    Reshape,
    SampleSlot,
    SampleThere,
    Segment,
    SegmentMax,
    SegmentMin,
    Take,
    Where,
    like,
)

NEUTRAL: dict[type[Node], float] = {
    Segment: 0.0,
    SegmentMax: -math.inf,
    SegmentMin: math.inf,
}  # what adds nothing to a fold


class Restriction:
    """Rewrites what is computed for ``rows`` to what is computed for the rows ``index`` of them.

    ``fan_out`` says for each GROUP BY, from the one nearest to the output on, how many members of a group are sampled;
    ``step`` is the number of the training step, which decides which ones. ``fixed`` are values that stay as they are.
    """

    def __init__(
        self,
        rows: RowSet,
        index: Node,
        *,
        fixed: Collection[Node] = (),
        fan_out: Sequence[int] = (),
        step: Node | None = None,
        seed: int = 0,
        depth: int = 1,
    ) -> None:
        self.rows, self.index, self.batch = rows, index, index.type.rows
        self.fixed, self.fan_out, self.step, self.seed, self.depth = fixed, tuple(fan_out), step, seed, depth
        self.done: dict[Node, Node] = {}
        self.levels = 0  # how many GROUP BYs were sampled, one on top of the other
        self.inner: dict[tuple[RowSet, Node], Restriction] = {}
        self.multiples: dict[RowSet, int] = {}  # sampled row sets: rows a row of the batch

    def single(self, node: Node) -> Node:
        """A single number, such as a loss: its sums over ``rows`` become sums over the batch."""
        if node not in self.done:
            self.done[node] = self._single(node)
        return self.done[node]

    def _single(self, node: Node) -> Node:
        if node in self.fixed:
            return node
        if isinstance(node, Count):
            return Count(self.batch) if node.rows == self.rows else node
        return node.with_inputs(self.single(n) if n.type.rows == UNIT else self.at(n) for n in node.inputs)

    def at(self, node: Node) -> Node:
        """A value of every row, at the rows of the batch."""
        if node.type.rows != self.rows:
            return node
        if node not in self.done:
            self.done[node] = self._at(node)
        return self.done[node]

    def _at(self, node: Node) -> Node:
        if isinstance(node, (Column, Positions)):
            return Take(node, self.index)
        if isinstance(node, Take):
            return self.taken(node.x, self.at(node.index))
        if isinstance(node, PairDot):
            return PairDot(node.x, self.at(node.i), node.y, self.at(node.j))
        if isinstance(node, GroupJoin):
            return self.at(apart(node))
        if isinstance(node, tuple(NEUTRAL)):
            return self.sampled(node) if self.fan_out else Take(node, self.index)
        if isinstance(node, Broadcast):
            return Broadcast(self.at(node.x), node.target.with_(rows=self.batch))
        return node.with_inputs(self.at(n) for n in node.inputs)

    def taken(self, x: Node, index: Node) -> Node:
        """Rows of x, which is computed for all its rows unless there are groups to sample on the way."""
        if not self.fan_out or x.type.rows == UNIT or isinstance(x, (Column, Positions)):
            return Take(x, index)
        key = (x.type.rows, index)
        if key not in self.inner:
            self.inner[key] = self.within(x.type.rows, index, self.fan_out, self.depth)
        inner = self.inner[key]
        found = inner.at(x)
        self.multiples |= inner.multiples
        self.levels = max(self.levels, inner.levels)
        return found

    def within(self, rows: RowSet, index: Node, fan_out: Sequence[int], depth: int) -> Restriction:
        """The same for rows of another row set, which the batch reads."""
        return Restriction(
            rows, index, fixed=self.fixed, fan_out=fan_out, step=self.step, seed=self.seed, depth=depth
        )  # fmt: skip

    def sampled(self, node: Node) -> Node:
        """The groups of the batch, each from a sample of its members."""
        assert isinstance(node, (Segment, SegmentMax, SegmentMin)) and self.step is not None
        count, *further = self.fan_out
        size = self.batch.rows
        slots = RowSet(f"{self.batch.name} sample {self.depth}", None if size is None else size * count)
        members = GroupSample(self.index, node.index, self.step, count, slots, self.seed)
        there: Node = SampleThere(self.index, node.index, count, slots)
        inner = self.within(node.index.type.rows, members, further, self.depth + 1)
        x = inner.at(node.x)
        there = Reshape(there, (1,) * x.type.rank) if x.type.rank else there
        self.levels = max(self.levels, 1 + inner.levels)
        self.multiples[slots] = count
        self.multiples |= {r: n * count for r, n in inner.multiples.items()}
        empty = like(NEUTRAL[type(node)], x)
        return type(node)(Where(there, x, empty), SampleSlot(count, slots, self.batch), self.batch)


def apart(node: GroupJoin) -> Node:
    """A join and a GROUP BY in one as a GROUP BY of a join."""
    x: Node = Take(node.x, node.source)
    if node.weight is not None:
        x = Multiply(Reshape(node.weight, (1,) * x.type.rank) if x.type.rank else node.weight, x)
    return Segment(x, node.group, node.rows, node.size)
